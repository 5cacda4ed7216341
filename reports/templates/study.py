# The report's notebook as a reviewable script: one `# %%` block a cell. It holds no data: the cells read the
# study folder they lie in, so the notebook runs again from there and shows the study's state at that time.

# %%
from pathlib import Path

from IPython.display import display

from reports import (
    again,
    analysis_page,
    collect,
    cost,
    drawing,
    figures,
    findings,
    markup,
    race,
    tables,
    units,
)

study = collect.load(Path.cwd())
ranking = findings.ranked(study)
best = ranking.best
judged = findings.published(study, ranking)
saved = (study.folder / "best").is_dir()
tagger = again.tagger_of(study.folder / "best")
found = figures.importance(study.runs, findings.searched_knobs(study), epochs=study.epochs, mode=study.mode)
chosen = again.best_again(study, ranking)
display(
    markup.header(
        str(study.record["name"]),
        str(study.record["family"]),
        findings.finding(study, ranking),
        {
            "What mattered?": findings.mattered(found),
            "Beside the papers": findings.beside_papers(judged),
            "Cost": findings.cost(study),
            "Reproducible?": again.exactness(study)[0] if chosen else "",
            "Model": "best/ beside this report (model.safetensors, model.json); it loads without the study"
            + (f", and needs the tagger {tagger}." if tagger else ".")
            if saved
            else "",
        },
    )
)

# %% [markdown]
# ## Confirmed configurations
# Each was trained again at full length from fresh seeds. The validation mean alone decides the order; what
# was reached on the test split chose nothing. "±" is the standard deviation over seeds; the papers' "±" is
# the largest deviation from the mean, given in its own column.

# %%
display(markup.table(tables.leaderboard(study, ranking), empty="No configuration is confirmed yet."))

# %%
confirmed = figures.confirmation(study, ranking)
if ranking.standings:
    display(
        *markup.figure(
            figures.draw_confirmation,
            confirmed,
            "Mean, interval and single seeds of every confirmed configuration",
            *figures.CONFIRMED_CAPTION,
        )
    )

# %%
raced = race.race_info(study, ranking)
if raced is not None:
    display(markup.paragraph("The race:"), markup.table(race.race_table(raced)))
    display(*(markup.paragraph(sentence, kind="caption") for sentence in race.said(raced)))

# %%
unlike = tables.apart(study, ranking)
if unlike.rows:
    display(markup.paragraph("What sets them apart:"), markup.table(unlike))

# %% [markdown]
# ## Best configuration

# %%
if chosen is None:
    display(markup.paragraph("No run has finished at full length yet.", kind="quiet"))
else:
    seeds = ", ".join(str(seed) for seed in chosen.seeds)
    standing = "" if chosen.confirmed else ", the best search run: not confirmed"
    display(
        markup.paragraph(
            f"Trial {chosen.trial}{standing}, {units.count(chosen.parameters)} parameters. Train it again:"
        ),
        markup.command(
            again.train_command(
                study,
                chosen.config,
                chosen.seeds[0] if chosen.seeds else None,
                out=f"trial-{chosen.trial}-again",
            )
        ),
        markup.paragraph(
            f"{again.exactness(study)[1]} Seeds it was trained with: {seeds}. The command has the first of "
            "them.",
            kind="caption",
        ),
    )

# %%
if saved:
    display(
        markup.paragraph("The trained model: best/model.safetensors with best/model.json. In this folder:"),
        markup.command(again.predict_command(study.folder / "best")),
    )
if chosen is not None:
    display(markup.folded("All its knobs", markup.table(tables.best_knobs(study, chosen.config))))

# %% [markdown]
# ## Learning curves

# %%
learning = figures.learning_curves(study)
ends = [curve.state for curve in learning.curves]
cut: list[str | markup.Tint] = []
for state, colour, word, meaning in (
    ("PRUNED", drawing.GREY, "grey", "stopped early"),
    ("DIVERGED", drawing.VERMILLION, "red", "diverged"),
    ("RUNNING", drawing.ORANGE, "orange", "still running"),
):
    if state in ends:
        cut += ["; ", markup.Tint(word, colour), f" {meaning} ({ends.count(state)})"]
rungs = ", ".join(str(epoch) for epoch in learning.rungs)
display(
    *markup.figure(
        figures.draw_learning_curves,
        learning,
        "The objective after every epoch of every search run",
        "One line a search run: ",
        markup.Tint("light blue", drawing.SKY),
        f" trained to the end ({ends.count('COMPLETE')}), the best of them ",
        markup.Tint("dark blue", drawing.BLUE),
        *cut,
        ". A cross ends a run that was cut short." if cut else ".",
        f" Runs were stopped at epochs {rungs} (dotted)." if rungs else "",
    )
)

# %% [markdown]
# ## The search

# %%
history = figures.search_history(study)
display(
    *markup.figure(
        figures.draw_search_history,
        history,
        "Scores of the search runs in the order they started",
        "Dots are runs that trained to the end, the line is the best so far. ",
        "Below: the runs without a full-length score." if history.others else "",
    )
)

# %%
leaders = tables.search_leaders(study)
if leaders.rows:
    display(
        markup.paragraph(
            "The best single search runs. Each is one seed (n = 1), so neighbours in this table cannot be "
            "told apart, and none of these figures may be compared with the means above."
        ),
        markup.table(leaders),
    )

# %%
weighed = figures.tradeoff(study)
display(
    *markup.figure(
        figures.draw_tradeoff,
        weighed,
        "Score against what the configuration costs",
        "Each dot is a full-length search run (n = 1). The ",
        markup.Tint("dark blue", drawing.BLUE),
        " ones are the Pareto front: no run that is as cheap or cheaper scores as high.",
    )
)

# %%
line = figures.timeline(study)
phases = {bar.phase for bar in line.bars if bar.state == "COMPLETE"}
states = {bar.state for bar in line.bars}
kinds: list[str | markup.Tint] = []
for shown, colour, word, meaning in (
    ("search" in phases, drawing.BLUE, "blue", "search runs to the end"),
    (bool(phases - {"search"}), drawing.GREEN, "green", "confirmation runs"),
    ("PRUNED" in states, drawing.GREY, "light grey", "stopped early"),
    ("DIVERGED" in states, drawing.VERMILLION, "red", "diverged"),
    ("FAIL" in states, drawing.INK, "black", "failed"),
    ("RUNNING" in states, drawing.ORANGE, "orange", "still running"),
):
    if shown:
        kinds += ["; " if kinds else "", markup.Tint(word, colour), f" {meaning}"]
display(
    *markup.figure(
        figures.draw_timeline,
        line,
        "When every run was at work, and how many at once",
        "One bar a run: " if line.lanes_drawn else "Runs at work at any time. ",
        *(kinds if line.lanes_drawn else []),
        ". " if line.lanes_drawn else "",
        "Below: runs at work; the dotted line is the room for them. " if line.lanes_drawn else "",
        cost.used(line),
    )
)

# %% [markdown]
# ## What mattered

# %%
display(
    *markup.figure(
        figures.draw_importance,
        found,
        "Importance of the searched knobs",
        "How much each knob decides whether a run is among the best tenth "
        f"(PED-ANOVA over {found.runs} full-length search runs).",
        " From so few runs this is a hint, not a finding."
        if found.runs < findings.FEW_FOR_IMPORTANCE
        else "",
        f" One value in all of them: {', '.join(found.constant)}." if found.constant else "",
        f" Too few runs for the knobs of {', '.join(found.thin)}." if found.thin else "",
    )
)

# %%
sliced = figures.slices(study, found)
display(
    *markup.figure(
        figures.draw_slices,
        sliced,
        "Score against the value of the most important knobs",
        "One panel a knob: its value upwards or by row, the score to the right. Each dot is a full-length "
        "search run, the best in ",
        markup.Tint("dark blue", drawing.BLUE),
        ". Runs stopped early are left out: their scores are of another length.",
    )
)

# %%
crossed = figures.parallel_coordinates(study, found)
display(
    *markup.figure(
        figures.draw_parallel_coordinates,
        crossed,
        "Every full-length search run as a line across the knobs that mattered most",
        "One line a full-length search run, from its knobs (most important first; on a phone the first "
        "three) to its score: the best tenth ",
        markup.Tint("light blue", drawing.SKY),
        ", the best of them ",
        markup.Tint("dark blue", drawing.BLUE),
        ", the others grey.",
    )
)

# %% [markdown]
# ## The winner on test

# %%
winner = best.trial if best else None
confused = figures.confusion(study, winner)
display(
    *markup.figure(
        figures.draw_confusion,
        confused,
        "Confusion matrix of the winner on the test split",
        f"Trial {winner}, its {units.plural(confused.runs, 'confirmation run')} added up: per cent of the "
        "row's clips and, on wide screens, their number. Empty cells are zero.",
    )
)

# %%
precision = figures.event_precision(study, winner)
if not confused.note:
    display(
        *markup.figure(
            figures.draw_event_precision,
            precision,
            "Average precision of every event on test",
            f"Trial {winner}: the dot is the mean over its seeds, the bar reaches from lowest to highest.",
            f" Without a positive test clip: {', '.join(precision.absent)}." if precision.absent else "",
        )
    )

# %% [markdown]
# ## What the model has learned

# %%
display(*analysis_page.of_study(study.folder))

# %% [markdown]
# ## Beside the papers

# %%
comparable, others = tables.published_rows(judged, ranking)
display(markup.table(comparable, empty="None of the papers' rows can be compared with this study."))
if comparable.rows:
    display(
        markup.paragraph(
            "Verdicts are Welch's t-test at 5 % on means of test runs. A paper's ± that is the largest of N "
            "deviations counts as a standard deviation after division by the median such deviation (1.79 for "
            "10 runs). Reproduced: no difference was seen; the interval says how large one could still be.",
            kind="caption",
        )
    )
if others.rows:
    title = f"{units.plural(len(others.rows), 'row')} that cannot be compared"
    display(markup.table(tables.why_not(others)), markup.folded(title, markup.table(others, kind="runs")))

# %% [markdown]
# ## All runs

# %%
if resumed := findings.taken_up(study.runs):
    display(markup.paragraph(resumed))
display(
    markup.table(tables.reason_table(study), empty="No run has failed, diverged or been stopped early."),
    markup.folded(
        f"All {units.plural(len(study.runs), 'run')}", markup.table(tables.all_runs(study), kind="runs")
    ),
)

# %% [markdown]
# ## Where the numbers come from

# %%
display(
    markup.table(tables.provenance(study), kind="facts"),
    markup.folded("All package versions", markup.table(tables.all_versions(study))),
)
