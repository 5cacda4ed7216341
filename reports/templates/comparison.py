# Studies side by side, as a reviewable script: one `# %%` block a cell. The folders (from the notebook's own)
# are written into the first cell; everything else is read from them.

# %%
from pathlib import Path

from IPython.display import display

from reports import collect, comparison, figures, markup

STUDIES: list[str] = []

studies = [collect.load(Path(folder)) for folder in STUDIES]
found = comparison.contest(studies)
clips = studies[0].record["data"]
display(
    markup.header(
        ", ".join(str(study.record["name"]) for study in studies),
        ", ".join(dict.fromkeys(str(study.record["family"]) for study in studies)),
        comparison.headline(found),
        {"Same clips": f"{clips.get('corpus', '')}, checksum {str(clips.get('checksum', ''))[:19]}"},
    )
)

# %% [markdown]
# ## Best of each study
# The best confirmed configuration stands for its study. Validation decides the order, and the tests are made
# there, corrected for their number (Holm); the test split chose nothing. Runs that share their seeds are
# compared pair by pair. "±" is the standard deviation over seeds.

# %%
display(markup.table(comparison.board(found), empty="Nothing to compare yet."))

# %%
confirmed = figures.contest_rows(found)
if found.contestants:
    display(
        *markup.figure(
            figures.draw_confirmation,
            confirmed,
            "Mean, interval and single seeds of the best configuration of every study",
            *figures.CONFIRMED_CAPTION,
        )
    )
