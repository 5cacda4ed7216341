"""A study folder in, a page people read out.

`collect` reads the folder, `rank` does the statistics, `figures` and `tables` turn them into plain values,
`findings` into sentences, `drawing` and `markup` into ink, `notebook` into `report.ipynb` and `report.html`.
`analysis` reads what `trainables.analyse` found in a model, `compare` holds two sets of runs together.
Nothing here imports the rest of the project: a copied study folder and this package are enough.
"""

from __future__ import annotations

from pathlib import Path


def build(folder: str | Path) -> Path:
    """Write `report.ipynb` (executed) and `report.html` into the study `folder`; returns the page's path.

    Works at any time during a study. Raises `collect.StudyError` when the folder is not a readable study.
    """
    from reports import notebook  # nbclient and matplotlib load only when a page is built

    return notebook.build(Path(folder))
