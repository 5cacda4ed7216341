"""Names that cross processes, each declared once, with the direction in which it is better.

A column is "<split>/<metric>": "val/scene_accuracy", "train/loss/event_bce".
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Direction = Literal["max", "min"]

EPOCH = "epoch"  # the time attribute: epochs done, from 1
SPLITS = ("train", "val", "test")


@dataclass(frozen=True)
class Metric:
    """`direction` in which it is better; `meaning` in a few words, with its range."""

    direction: Direction
    meaning: str


METRICS: dict[str, Metric] = {
    "scene_accuracy": Metric("max", "share of clips whose scene is right, 0-1"),
    "scene_accuracy_macro": Metric("max", "mean of the scenes' recalls, 0-1; the papers' accuracy"),
    "svm_accuracy": Metric(
        "max",
        "scene_accuracy of an SVM on the codes of the epoch best on validation, 0-1; after the last epoch",
    ),
    "event_map": Metric("max", "mean over events of average precision, 0-1"),
    "event_auc": Metric("max", "mean over events of the area under the ROC curve, 0-1"),
    "event_auc_per_clip": Metric(
        "max", "mean over clips of the area under the ROC curve across events, 0-1; the papers' AUC"
    ),
    "scene_f_macro": Metric("max", "mean over scenes of the F-score, 0-1"),
    "frame_f_micro": Metric("max", "F-score of events over all frames, 0-1"),
    "frame_f_macro": Metric("max", "mean over events of the F-score over frames, 0-1"),
    "frame_error_rate": Metric(
        "min", "substituted, missed and wrong events per true one, over frames, from 0"
    ),
    "segment_f_micro": Metric("max", "F-score of events over segments of 1 s, 0-1"),
    "segment_f_macro": Metric("max", "mean over events of the F-score over segments of 1 s, 0-1"),
    "segment_error_rate": Metric("min", "error rate over segments of 1 s, from 0"),
    "event_lwlrap": Metric(
        "max", "mean over the events present of the precision at their rank in the clip, 0-1; DCASE Task 2's"
    ),
    "loss": Metric("min", "weighted sum of the loss terms"),
    "clips_per_second": Metric("max", "training speed, clips/s over all workers"),
    "data_wait": Metric("min", "share of an epoch's time spent waiting for data, 0-1"),
    "seconds": Metric("min", "length of an epoch, s"),
}
WITH_FRAMES = tuple(name for name in METRICS if name.startswith(("frame_", "segment_", "scene_f_")))
TIMED = ("frame_", "segment_")  # begin the metrics of where in the clip events are
OF_SCENES = ("svm_accuracy", *(name for name in METRICS if name.startswith("scene_")))
FRAME_F = "frame_f/"  # and an event's name: its F-score over frames; in the test split's metrics only
TERM_PREFIXES = {"loss/": "weighted loss term", "term/": "raw loss term"}

OBJECTIVE = "val/scene_accuracy"


def check_objective(column: str, *, frames: bool, scenes: bool = True) -> None:
    """Raises ValueError unless a search can have it as its objective: of the validation split, better when
    higher, with `frames` False none that needs the events of frames, with `scenes` False none of scenes."""
    fit = [
        f"val/{name}"
        for name, metric in METRICS.items()
        if metric.direction == "max"
        and name != "clips_per_second"
        and (frames or name not in WITH_FRAMES)
        and (scenes or name not in OF_SCENES)
    ]
    if column not in fit:
        raise ValueError(f"--objective {column}: expected one of {', '.join(fit)}")


def measured(metric: str) -> bool:
    """Whether runs measure it themselves, by its name without the split."""
    return metric in METRICS or metric.startswith(FRAME_F)


def direction(column: str) -> Direction:
    """Whether more ("max") or less ("min") of the column is better. Raises ValueError for a name not declared
    here.
    """
    split, _, name = column.partition("/")
    if split in SPLITS and name in METRICS:
        return METRICS[name].direction
    if split in SPLITS and name.startswith(FRAME_F):
        return "max"
    if split in SPLITS and name.startswith(tuple(TERM_PREFIXES)):
        return "min"
    raise ValueError(
        f"metric {column!r} is not known; known: {', '.join(SPLITS)} / {', '.join(METRICS)}, "
        f"{', '.join(prefix + '<term>' for prefix in TERM_PREFIXES)}"
    )
