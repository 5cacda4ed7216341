"""How well events are found in time: frame-based and segment-based F-scores and error rates.

    true positives, false positives, false negatives     counted clip by clip, so that ranks add up exactly
    F     2 TP / (2 TP + FP + FN): micro over all frames and events, macro the mean of the events' own
    ER    Σ max(FP, FN) / Σ (TP + FN), the sums of the numerator over frames: substitutions are pairs of a
          missed and a wrong event in one frame, what is left over is deleted or inserted

Mesaros, Heittola, Virtanen 2016, in their form for frames (Imoto et al. 2022) and for segments of 1 s, in
which an event is present, or found, if it is in any frame. An event is found where its probability is at
least 0.5. As in the released code of Tonami et al., the F of an event that neither occurs nor is found is 0
and counts in the mean. Entries whose label is unknown are in no count.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

PRESENT = 0.5
SEGMENT = 1  # s
KINDS = ("frame", "segment")


def frame_counts(logits: Tensor, labels: Tensor, known: Tensor, segment: int) -> dict[str, Tensor]:
    """What the metrics are computed from, for every clip. Logits, labels and known are (B, T, E); `segment`
    is the length of a segment in frames.

    For each of KINDS: "<kind>_tp", "_fp", "_fn" (B, E) and "<kind>_errors" (B,), Σ max(FP, FN); and (B,)
    "frame_finite", whether all logits are numbers, and "frame_known", whether any label is known.
    """
    told = known > 0
    present, found = (labels >= PRESENT) & told, (logits >= 0) & told
    counts = {
        "frame_finite": torch.isfinite(logits).flatten(1).all(1),
        "frame_known": told.flatten(1).any(1),
    }
    for kind, length in zip(KINDS, (1, segment)):
        counts |= {f"{kind}_{k}": v for k, v in _counts(*(_any(x, length) for x in (present, found))).items()}
    return counts


def _counts(present: Tensor, found: Tensor) -> dict[str, Tensor]:
    wrong, missed = found & ~present, present & ~found
    return {
        "tp": (found & present).sum(1),
        "fp": wrong.sum(1),
        "fn": missed.sum(1),
        "errors": torch.maximum(wrong.sum(2), missed.sum(2)).sum(1),
    }


def _any(x: Tensor, length: int) -> Tensor:
    """(B, T, E) bool → (B, ⌈T / length⌉, E): whether any of `length` frames is true."""
    if length == 1:
        return x
    padded = F.pad(x, (0, 0, 0, -x.shape[1] % length))
    return padded.unflatten(1, (-1, length)).any(2)


def frame_metrics(rows: Mapping[str, np.ndarray]) -> dict[str, float]:
    """{"frame_f_micro", "frame_f_macro", "frame_error_rate"} and the same of segments, from the counts of all
    clips. NaN where no label is known or a logit was not a number; the error rate also where no event occurs.
    """
    metrics = {}
    for kind in KINDS:
        tp, fp, fn = (int(rows[f"{kind}_{name}"].sum()) for name in ("tp", "fp", "fn"))
        each = event_f(rows, kind)
        metrics[f"{kind}_f_micro"] = f_score(tp, fp, fn)
        metrics[f"{kind}_f_macro"] = float(each.mean())
        errors = int(rows[f"{kind}_errors"].sum())
        metrics[f"{kind}_error_rate"] = errors / (tp + fn) if tp + fn else math.nan
    sound = bool(rows["frame_finite"].all() and rows["frame_known"].any())
    return metrics if sound else dict.fromkeys(metrics, math.nan)


def event_f(rows: Mapping[str, np.ndarray], kind: str = "frame") -> np.ndarray:
    """(E,) the F-score of every event, 0 where it neither occurs nor is found."""
    counts = zip(*(rows[f"{kind}_{name}"].sum(0).tolist() for name in ("tp", "fp", "fn")))
    return np.array([f_score(*count) for count in counts])


def f_score(tp: int, fp: int, fn: int) -> float:
    return 2 * tp / (2 * tp + fp + fn) if tp + fp + fn else 0.0


def scene_f(confusion: np.ndarray) -> np.ndarray:
    """(S,) the F-score of every scene from counts (S, S), rows true and columns predicted; 0 for a scene that
    neither occurs nor is predicted. Their mean over all clips at once (micro) is the accuracy."""
    hits, true, predicted = np.diag(confusion), confusion.sum(1), confusion.sum(0)
    return np.array([f_score(int(h), int(p - h), int(t - h)) for h, t, p in zip(hits, true, predicted)])
