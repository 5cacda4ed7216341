# The notebook of a paper's table run again, as a reviewable script: one `# %%` block a cell. It holds no
# data: the cells read the study folder they lie in.

# %%
from pathlib import Path

from IPython.display import display

from reports import collect, drawing, figures, markup, paper_table, tables, units

study = collect.load(Path.cwd())
found = paper_table.paper_table(study)
display(
    markup.header(
        str(study.record["name"]), str(study.record["family"]), paper_table.finding(study, found), {}
    )
)

# %% [markdown]
# ## Ours beside the paper's
# Every row was trained at full length from the same seeds. "±" of ours is the standard deviation over seeds.
# Rows whose training differs from the paper's get no verdict.

# %%
display(
    markup.paragraph(paper_table.about_spread(found), kind="quiet"),
    markup.table(paper_table.beside_table(found)),
)

# %%
shown = figures.panels(found)
display(
    *markup.figure(
        figures.draw_panels,
        shown,
        f"{units.cited(found.name)}: ours and the paper's figures, row by row",
        markup.Tint("Blue", drawing.BLUE),
        ": our mean with its 95 % interval, dots are single seeds. ",
        markup.Tint("Orange", drawing.ORANGE),
        ": the paper's value" + (", the bar its ±." if figures.has_bars(shown) else "."),
    )
)

# %%
swept = figures.table_sweep(study)
if swept.lines:
    display(
        *markup.figure(
            figures.draw_sweep,
            swept,
            f"The rows' scores against {swept.of}",
            markup.Tint("Blue", drawing.BLUE),
            f": mean ± standard deviation of every row against {swept.of}, dots are single seeds; dashed: "
            f"row #{study.record['table']['baseline']}.",
        )
    )

# %%
confused = figures.recalls(study)
if confused.rows:
    more = f" {units.plural(confused.hidden, 'row')} more not drawn." if confused.hidden else ""
    display(
        *markup.figure(
            figures.draw_recalls,
            confused,
            "Confusion matrices of the rows on the test split",
            "Recall in %: of each true scene's test clips (downwards) the share answered with each scene "
            f"(across, in the same order), over all finished seeds of a row.{more}",
        )
    )

# %%
apart = paper_table.knob_table(study, found)
if apart.rows:
    display(markup.paragraph("What sets them apart:"), markup.table(apart))

# %%
others = paper_table.left_out(found)
if others.rows:
    display(markup.paragraph(f"{units.plural(len(others.rows), 'row')} not run:"), markup.table(others))

# %% [markdown]
# ## Rows against each other
# Repeats of the same seed are paired; p-values of the paired t-test (Student's where no seeds are shared),
# corrected after Holm over all rows.

# %%
display(markup.table(paper_table.pair_table(found), empty="There is only one configuration."))

# %% [markdown]
# ## All runs

# %%
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
