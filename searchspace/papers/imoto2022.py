"""The tables of Imoto et al., "How information on acoustic scenes and sound events mutually benefits event
detection and scene classification tasks", in the knobs of family bigru_mtl.

Measured on the evaluation set of their 266 min of TUT recordings (datasets.corpora.imoto), means of 10 runs
with other initial weights; no ± is printed. The micro F-score of scenes is their accuracy, for every clip has
one scene and gets one. Event F-scores are of frames. The learning rate, batch size and epochs of RAdam are
not printed: 2e-4, 64 and 300 are those of the released code of the network that the paper takes over (with
Adam). What else is assumed, and where the reversals sit: families/bigru_mtl.py.
"""

from __future__ import annotations

from typing import Any

from searchspace.published import Published

PAPER = "Imoto et al. 2022"
UNPRINTED = "the paper does not give learning rate, batch size, epochs and places of the reversals"
ASSUMED = ("lr", "schedule", "mixup", "spec_augment")
EPOCHS = 300
RECIPE = {
    "optimiser": "radam",
    "lr": 2e-4,
    "schedule": "none",
    "mixup": 0.0,
    "variant": "paper",
    "spec_augment": False,
}
MTL = {"task": "mtl", "w_scene": 1e-4, "w_event": 1.0, "reversal": "none", "fake": "none"}


def _reversed(place: str) -> dict[str, Any]:
    return {**MTL, "reversal": place, "reversal_strength": 1.0}


METHODS: dict[str, dict[str, Any]] = {
    "CNN (ASC)": {"task": "scene"},
    "CNN-BiGRU (SED)": {"task": "events"},
    "Conventional MTL": MTL,
    "GRL (S1)": _reversed("s1"),
    "GRL (S2)": _reversed("s2"),
    "Fake scene labels": {**MTL, "fake": "scene"},
    "GRL (E1)": _reversed("e1"),
    "GRL (E2)": _reversed("e2"),
    "Fake event labels": {**MTL, "fake": "events"},
}
WARM_STARTS = ("Conventional MTL", "CNN (ASC)")

TABLE_3_METRICS = ("scene_accuracy", "scene_f_macro", "frame_f_micro", "frame_f_macro")
# In %; None where the table has "-".
TABLE_3: dict[str, tuple[float | None, ...]] = {
    "CNN (ASC)": (85.00, 84.29, None, None),
    "CNN-BiGRU (SED)": (None, None, 42.54, 11.09),
    "Conventional MTL": (88.57, 88.85, 44.63, 11.57),
    "GRL (S1)": (77.89, 76.14, 40.08, 9.64),
    "GRL (S2)": (33.34, 22.03, 39.59, 9.92),
    "Fake scene labels": (24.45, 11.55, 41.57, 10.43),
    "GRL (E1)": (60.90, 56.30, 13.07, 1.12),
    "GRL (E2)": (75.23, 73.99, 0.02, 0.02),
    "Fake event labels": (84.22, 84.09, 0.00, 0.00),
}

TABLE_4_EVENTS = ("bird singing", "car", "dishes", "keyboard typing", "large vehicle")
# The table's "Conv. MTL" and "Fake scene label" are Table 3's; its lines have the numbers they have there, so
# that `--table 3,4` is one study.
TABLE_4: dict[str, tuple[float, ...]] = {
    "CNN-BiGRU (SED)": (46.36, 44.53, 0.17, 4.34, 12.27),
    "Conventional MTL": (46.29, 45.51, 0.25, 5.08, 12.29),
    "GRL (S1)": (40.96, 43.46, 0.00, 0.56, 9.28),
    "GRL (S2)": (37.62, 40.12, 0.01, 1.21, 10.54),
    "Fake scene labels": (28.93, 39.96, 0.06, 1.63, 12.05),
}


def _row(table: str, line: int, row: str, metric: str, percent: float) -> Published:
    return Published(
        paper=PAPER,
        table=table,
        row=row,
        line=line,
        corpus="imoto",
        split="test",
        metric=metric,
        value=round(percent / 100, 6),
        spread=None,
        spread_kind="none printed",
        values={**RECIPE, **METHODS[row]},
        epochs=EPOCHS,
        assumed=ASSUMED,
        unlike=UNPRINTED,
        warm_start=table == "3" and row in WARM_STARTS and metric == "scene_accuracy",
    )


def _rows() -> tuple[Published, ...]:
    overall = [
        _row("3", line, row, metric, percent)
        for line, (row, cells) in enumerate(TABLE_3.items(), start=1)
        for metric, percent in zip(TABLE_3_METRICS, cells)
        if percent is not None
    ]
    overall.sort(key=lambda row: row.row != "Conventional MTL")  # the best first: it is the first to be tried
    selected = [
        _row("4", list(METHODS).index(row) + 1, row, f"frame_f/{event}", percent)
        for row, cells in TABLE_4.items()
        for event, percent in zip(TABLE_4_EVENTS, cells)
    ]
    return (*overall, *selected)


ROWS = _rows()
