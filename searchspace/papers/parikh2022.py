"""What Parikh et al., "Impact of acoustic event tagging on scene classification in a multi-task learning
framework", 2022, report, in the knobs of family resnet_aet.

The paper has no table: its results are Figures 2 to 5, which are not in the text here. So every α of Fig. 2
has its rows, and a row has a figure only where the text says one: 68 % scene accuracy at α = 0, "at chance"
(of 10 balanced scenes) at α = 1, lwlrap "around 10 %" at α = 0 and "around 76 %" at α = 0.5. The text's best
is "up to 5 %" above the 68 %, at no α named; Fig. 4's and 3b's correlations can't be recomputed from it.

Scenes are TUT2018's, which split is not said ("test" is assumed); means of 4 seeds, no spread printed. The
event sets are AudioSet's: 35 classes, 170 hours, drawn by the text and "correlated" by the caption of Fig. 2.
Nothing is said of epochs, optimiser or mixup's α; the rows have the project's defaults and 0.2.
"""

from __future__ import annotations

from typing import Any

from searchspace.published import Published

PAPER = "Parikh et al. 2022"
RECIPE = {
    "optimiser": "adam",
    "lr": 1e-3,
    "schedule": "none",
    "batch_size": 64,
    "mixup": 0.2,
    "spec_augment": True,
}
ACCURACY = "scene_accuracy_macro"
PRETRAINED = "this model trained on the events alone"
BASELINE = 0.68  # "a scene classification accuracy of 68 %", §3.3; the same "with α = 0"
CHANCE = 0.1
BEST = 0.95
GRID = (*(i / 10 for i in range(9)), *(i / 100 for i in range(90, 101)))
SAID_SCENES = {0.0: BASELINE, 1.0: CHANCE}
SAID_LWLRAP = {0.0: 0.1, 0.5: 0.76}  # read off Fig. 2 by the authors: "around"
WARM = (BEST, 0.9, 0.0, 0.5)
NOTHING_SAID = "details of the training are not published"
ONE_SET_EACH = "an event set for every point: python -m datasets.subset, then python -m reports.sweep"
STRATEGIES = ("random", "correlated", "uncorrelated")


def _values(alpha: float) -> dict[str, Any]:
    return {"alpha": alpha, **RECIPE}


def _row(
    table: str,
    line: int,
    row: str,
    metric: str,
    value: float | None,
    values: dict[str, Any] | None = None,
    **others: Any,
) -> Published:
    return Published(
        paper=PAPER,
        table=table,
        row=row,
        line=line,
        corpus="tut2018",
        split="test",
        metric=metric,
        value=value,
        spread=None,
        spread_kind="none printed",
        said="" if value is None else "text",
        values=values or {},
        unlike=NOTHING_SAID if values else "",
        **others,
    )


def _alpha_rows() -> list[Published]:
    """Both metrics of every α; the first to be tried first."""
    found = []
    for line, alpha in sorted(
        enumerate(GRID, start=1), key=lambda pair: WARM.index(pair[1]) if pair[1] in WARM else len(WARM)
    ):
        name, values = f"alpha={alpha:g}", _values(alpha)
        scenes, lwlrap = SAID_SCENES.get(alpha), SAID_LWLRAP.get(alpha)
        found += [
            _row("fig2", line, name, ACCURACY, scenes, values, warm_start=alpha in WARM),
            _row("fig2", line, name, "event_lwlrap", lwlrap, values),
        ]
    return found


def _rows() -> tuple[Published, ...]:
    choice = [
        _row("fig3a", line, f"{name} events", ACCURACY, None, needs=ONE_SET_EACH)
        for line, name in enumerate(STRATEGIES, start=1)
    ]
    correlations = [
        _row("fig3b", 1, "11 to 360 hours against scene accuracy", "pearson_hours", 0.89, needs=ONE_SET_EACH),
        _row("fig4", 1, "2 to 115 events against scene accuracy", "pearson_events", 0.24, needs=ONE_SET_EACH),
    ]
    alone: dict[str, Any] = {"events": "", "values": _values(0.0)}
    alternatives = [
        _row("fig5", 1, "scenes alone", ACCURACY, BASELINE, **alone),
        _row("fig5", 2, "pre-trained, then fine-tuned", ACCURACY, None, pretrained=PRETRAINED, **alone),
        _row("fig5", 3, "trained jointly", ACCURACY, None, _values(BEST)),
    ]
    return (*_alpha_rows(), *choice, *correlations, *alternatives)


ROWS = _rows()
