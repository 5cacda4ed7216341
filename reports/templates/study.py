# The report's notebook as a reviewable script: one `# %%` block a cell. It holds no data; the cells read the study
# folder they lie in, so the notebook runs again from there, and after a study has gone on it shows the new state.

# %%
from pathlib import Path

from IPython.display import display

from reports import collect, drawing, figures, findings, markup, tables, units

study = collect.load(Path.cwd())
ranking = findings.ranked(study)
best = ranking.best
judged = findings.published(study, ranking)
display(
    markup.header(
        str(study.record["name"]), str(study.record["family"]), findings.finding(study, ranking), findings.cost(study)
    )
)

# %% [markdown]
# ## Confirmed configurations
# Each was trained again at full length from fresh seeds. The validation mean alone decides the order; the test column
# was read once, afterwards. "±" is the standard deviation over seeds; the papers' "±" is the largest deviation from
# the mean, given in its own column.

# %%
display(markup.table(tables.leaderboard(study, ranking), empty="No configuration is confirmed yet."))

# %%
info = figures.confirmation(study, ranking)
display(
    *markup.figure(
        figures.draw_confirmation,
        info,
        "Mean, interval and single seeds of every confirmed configuration",
        "Diamonds are means with their 95 % interval, dots are single seeds. ",
        markup.Tint("Blue", drawing.BLUE),
        " is the best; ",
        markup.Tint("dark", drawing.INK),
        " ones marked as tied cannot be told apart from it on validation; ",
        markup.Tint("grey", drawing.GREY),
        " ones are worse.",
    )
)

# %%
if ranking.differing:
    display(markup.paragraph("What sets them apart:"), markup.table(tables.differing_knobs(ranking)))

# %% [markdown]
# ## Best configuration

# %%
if best is None:
    display(markup.paragraph("No configuration is confirmed yet.", kind="quiet"))
else:
    seeds = findings.winner_seeds(study, best.trial)
    display(
        markup.paragraph(f"Trial {best.trial}, {units.count(best.parameters)} parameters. Train it again with:"),
        markup.command(findings.train_command(study, best.config, seeds[0] if seeds else None)),
        markup.paragraph("Seeds of its confirmation runs: " + ", ".join(str(s) for s in seeds) + ".", kind="caption"),
    )

# %%
if (study.folder / "best").is_dir():
    display(markup.paragraph("The trained model is in best/ beside this report (model.safetensors and model.json)."))
if best is not None:
    display(markup.folded("All its knobs", markup.table(tables.best_knobs(study, best.config), kind="knobs")))

# %% [markdown]
# ## Learning curves

# %%
info = figures.learning_curves(study)
stopped = sum(curve.state == "PRUNED" for curve in info.curves)
full = sum(curve.state == "COMPLETE" for curve in info.curves)
display(
    *markup.figure(
        figures.draw_learning_curves,
        info,
        "The objective after every epoch of every search run",
        "One line a search run. ",
        markup.Tint("Light blue", drawing.SKY),
        f": trained to the end ({full}), the best in ",
        markup.Tint("dark blue", drawing.BLUE),
        "; ",
        markup.Tint("grey", drawing.GREY),
        f", ending in a cross: stopped early ({stopped}); ",
        markup.Tint("red", drawing.VERMILLION),
        ": diverged; ",
        markup.Tint("orange", drawing.ORANGE),
        ": still running. "
        + (f"Runs were compared at epochs {', '.join(map(str, info.rungs))} (dotted)." if info.rungs else ""),
    )
)

# %% [markdown]
# ## The search

# %%
info = figures.search_history(study)
display(
    *markup.figure(
        figures.draw_search_history,
        info,
        "Scores of the search runs in the order they started",
        "Dots are runs that trained to the end, the line is the best so far; below, the runs without a full-length score.",
    )
)

# %%
display(
    markup.paragraph(
        "The best single search runs. Each is one seed (n = 1), so neighbours in this table cannot be told apart, and "
        "none of these figures is comparable with the means above."
    ),
    markup.table(tables.search_leaders(study), empty="No search run has finished at full length yet."),
)

# %% [markdown]
# ## What mattered

# %%
searched = tuple(str(knob) for knob in study.record.get("space", ()))
found = figures.importance(study.runs, searched, epochs=study.epochs, mode=study.mode)
same = f" One value in all of them: {', '.join(found.constant)}." if found.constant else ""
display(
    *markup.figure(
        figures.draw_importance,
        found,
        "Importance of the searched knobs",
        f"How much each knob decides whether a run is among the best tenth (PED-ANOVA, {found.runs} full-length search "
        f"runs). From so few runs the order of neighbours is uncertain.{same}",
    )
)

# %%
info = figures.slices(study, found)
display(
    *markup.figure(
        figures.draw_slices,
        info,
        "Score against the value of the most important knobs",
        "Score to the right, the knob's value upwards or by row: each dot is a full-length search run, the best in ",
        markup.Tint("dark blue", drawing.BLUE),
        ". Runs stopped early are left out: they are no measure of a value.",
    )
)

# %% [markdown]
# ## The winner on test

# %%
winner = best.trial if best else None
info = figures.confusion(study, winner)
display(
    *markup.figure(
        figures.draw_confusion,
        info,
        "Confusion matrix of the winner on the test split",
        f"Trial {winner}, its {units.plural(info.runs, 'confirmation run')} added up. Shade and upper figure: per cent "
        "of the row's clips; lower figure, where there is room: clips. Empty: none.",
    )
)

# %%
info = figures.event_precision(study, winner)
absent = f" Without a positive test clip: {', '.join(info.absent)}." if info.absent else ""
display(
    *markup.figure(
        figures.draw_event_precision,
        info,
        "Average precision of every event on test",
        f"Trial {winner}: the dot is the mean over its seeds, the bar reaches from the lowest to the highest.{absent}",
    )
)

# %% [markdown]
# ## Beside the papers

# %%
comparable, others = tables.published_rows(judged, ranking, study)
display(
    markup.table(comparable, empty="None of the papers' rows can be compared with this study."),
)
if comparable.rows:
    display(
        markup.paragraph(
            "Verdicts are Welch's t-test at 5 % on means of test runs. The papers' ± is the largest of N deviations; its "
            "standard deviation is taken as ± divided by the median such deviation (1.79 for 10 runs). Reproduced means "
            "that no difference was seen; the interval says how large one could still be.",
            kind="caption",
        )
    )
if others.rows:
    display(markup.folded(f"{units.plural(len(others.rows), 'row')} not comparable, and why", markup.table(others)))

# %% [markdown]
# ## All runs

# %%
why = tables.reason_table(study)
display(
    markup.table(why, kind="reasons", empty="No run has failed, diverged or been stopped early."),
    markup.folded(f"All {units.plural(len(study.runs), 'run')}", markup.table(tables.all_runs(study), kind="runs")),
)

# %% [markdown]
# ## Where the numbers come from

# %%
display(
    markup.table(tables.provenance(study), kind="facts"),
    markup.folded("All package versions", markup.table(tables.all_versions(study))),
)
