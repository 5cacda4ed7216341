"""Scene and event metrics over a whole split, every clip once."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from scipy.stats import rankdata
from torch import Tensor

from datasets.batch import Batch
from trainables.contract import JointOutput, event_targets, frame_targets
from trainables.frame_metrics import event_f, frame_counts, frame_metrics, scene_f

PRESENT = 0.5  # an event label (a teacher's may be soft) counts as present from here on


class Scores:
    """What the metrics are computed from, collected batch by batch.

    Per clip: its number, scene logits (S,) and distribution (S,) and, with an event branch, event
    probabilities (E,), labels (E,) and whether each is known; with frames in batch and model, counts
    (trainables.frame_metrics) over frames and over segments of `segment` frames. Clips met more than once (by
    several ranks, in case) count once.
    """

    def __init__(self, segment: int = 1) -> None:
        self._batches: list[dict[str, Tensor]] = []
        self._segment = segment

    def add(self, output: JointOutput, batch: Batch) -> None:
        """Tensors stay on their device until they are needed, so that a GPU does not wait."""
        rows = {
            "clip": batch.clip,
            "scene_logits": output.scene_logits.detach().float(),
            "scene": batch.scene,
        }
        if output.event_logits is not None and output.event_logits.shape[1]:
            rows["event_probabilities"] = output.event_logits.detach().float().sigmoid()
            rows["events"], rows["event_known"] = event_targets(output, batch)
        if batch.frames.shape[1]:
            rows["framed"] = torch.ones_like(batch.clip)
            if output.frame_logits is not None:
                logits = output.frame_logits.detach()
                rows |= frame_counts(logits, *frame_targets(output, batch), self._segment)
        self._batches.append(rows)

    @classmethod
    def merge(cls, parts: Iterable[Scores]) -> Scores:
        """All ranks' clips in one; ranks without clips add nothing."""
        merged = cls()
        for part in parts:
            merged._batches.extend(part._batches)
        return merged

    def arrays(self) -> dict[str, np.ndarray]:
        """The collected rows by name, in order of clip number, every clip once; {} if nothing was added."""
        if not self._batches:
            return {}
        names = self._batches[0].keys()
        joined = {name: torch.cat([rows[name].cpu() for rows in self._batches]).numpy() for name in names}
        _, first = np.unique(joined["clip"], return_index=True)
        return {name: values[first] for name, values in joined.items()}

    def compute(self) -> dict[str, float]:
        """scene_accuracy, scene_accuracy_macro; with an event branch event_map, event_auc,
        event_auc_per_clip, event_lwlrap; where frame labels were asked for scene_f_macro, and with frame
        logits those of `frame_metrics`.

        Each in [0, 1] but the error rates, which may be larger; NaN where nothing is to be averaged or a
        score is not a number.
        """
        rows = self.arrays()
        if not rows:
            return {"scene_accuracy": math.nan, "scene_accuracy_macro": math.nan}
        confusion = _confusion(rows["scene_logits"], rows["scene"])
        metrics = {"scene_accuracy": _micro(confusion), "scene_accuracy_macro": _macro(confusion)}
        if "framed" in rows:
            metrics["scene_f_macro"] = float(scene_f(confusion).mean()) if confusion.any() else math.nan
        if not np.isfinite(rows["scene_logits"]).all():
            metrics = dict.fromkeys(metrics, math.nan)
        if "events" in rows:
            scores, present, known = _event_rows(rows)
            metrics["event_map"] = _nan_mean(average_precision(scores, present, known))
            metrics["event_auc"] = _nan_mean(roc_auc(scores, present, known))
            metrics["event_auc_per_clip"] = _nan_mean(roc_auc(scores.T, present.T, known.T))
            metrics["event_lwlrap"] = lwlrap(scores, present, known)
        if "frame_tp" in rows:
            metrics |= frame_metrics(rows)
        return metrics

    def confusion(self) -> np.ndarray:
        """(S, S) counts, rows = true scene, columns = predicted; clips of unknown scene are left out."""
        rows = self.arrays()
        return _confusion(rows["scene_logits"], rows["scene"]) if rows else np.zeros((0, 0), dtype=np.int64)

    def per_event(self) -> tuple[np.ndarray, np.ndarray]:
        """(E,) average precision and (E,) area under the ROC curve of every event; (0,) without an event
        branch.

        NaN where no clip is positive, and for the area also where none is negative.
        """
        rows = self.arrays()
        if "events" not in rows:
            return np.zeros(0), np.zeros(0)
        scored = _event_rows(rows)
        return average_precision(*scored), roc_auc(*scored)

    def per_event_frame_f(self) -> np.ndarray:
        """(E,) the frame-based F-score of every event; (0,) where no frames were counted."""
        rows = self.arrays()
        return event_f(rows) if "frame_tp" in rows else np.zeros(0)

    def __len__(self) -> int:
        return len(self.arrays().get("clip", ()))

    def __getstate__(self) -> dict[str, Any]:
        """Sent between ranks as plain CPU tensors, whatever device they were made on."""
        return {
            "_segment": self._segment,
            "_batches": [{name: value.cpu() for name, value in rows.items()} for rows in self._batches],
        }


def average_precision(scores: np.ndarray, present: np.ndarray, known: np.ndarray) -> np.ndarray:
    """(E,) average precision of every column of `scores` (N, E), over the rows where `known` (N, E) is true.

    AP = mean over positives of the precision among everything scored at least as high, which is
    scikit-learn's step-wise Σ (R_n - R_{n-1}) P_n, ties included. NaN for a column without a known positive
    or with a score that is not a number.
    """
    present = present & known
    falling = np.where(known & np.isfinite(scores), -scores, np.inf)  # unknown entries come last
    above = rankdata(falling, method="max", axis=0).astype(np.int64)  # how many score at least as high
    hits = np.take_along_axis(present, np.argsort(falling, axis=0), 0).cumsum(0)
    hits_above = np.take_along_axis(hits, above - 1, 0)
    with np.errstate(invalid="ignore"):
        ap = np.where(present, hits_above / above, 0.0).sum(0) / present.sum(0)
    return np.where(_usable(scores, known), ap, np.nan)


def roc_auc(scores: np.ndarray, present: np.ndarray, known: np.ndarray) -> np.ndarray:
    """(E,) area under the ROC curve of every column of `scores` (N, E), over the rows where `known` is true.

    The share of (positive, negative) pairs in the right order, a tie counting half (Mann-Whitney), from
    average ranks. NaN for a column without both a known positive and a known negative or with a score that is
    not a number.
    """
    present = present & known
    rising = np.where(known & np.isfinite(scores), scores, np.inf)  # unknown entries change no other's rank
    ranks = rankdata(rising, axis=0)
    positives, negatives = present.sum(0), (known & ~present).sum(0)
    with np.errstate(invalid="ignore"):
        right = np.where(present, ranks, 0.0).sum(0) - positives * (positives + 1) / 2
        auc = right / (positives * negatives)
    return np.where(_usable(scores, known), auc, np.nan)


def lwlrap(scores: np.ndarray, present: np.ndarray, known: np.ndarray) -> float:
    """Label-weighted label-ranking average precision of `scores` (N, E) over the entries where `known` (N, E)
    is true; DCASE 2019 Task 2.

    Every event present in a clip counts once: with the share of present ones among the clip's known events
    that score at least as high. Where scores tie that is the lower value, whatever the events' order
    (scikit-learn's label ranking; the challenge's own code takes the order of a sort). NaN where no known
    event is present, or a score is not a number.
    """
    present = present & known
    weight = present.sum(1)  # labels of a clip; average precision is their mean precision
    if not weight.any() or not _usable(scores, known).all():
        return math.nan
    labelled = weight > 0
    precision = average_precision(scores[labelled].T, present[labelled].T, known[labelled].T)
    return float((precision * weight[labelled]).sum() / weight.sum())


def _event_rows(rows: dict[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    return rows["event_probabilities"], rows["events"] >= PRESENT, rows["event_known"] > 0


def _usable(scores: np.ndarray, known: np.ndarray) -> np.ndarray:
    return np.asarray(np.isfinite(np.where(known, scores, 0.0)).all(0))


def _confusion(logits: np.ndarray, scene: np.ndarray) -> np.ndarray:
    known = scene.sum(1) > 0
    size = scene.shape[1]
    if not size or not logits.shape[1]:  # no scenes in the corpus, or none in the model
        return np.zeros((0, 0), dtype=np.int64)
    cells = scene[known].argmax(1) * size + logits[known].argmax(1)
    return np.bincount(cells, minlength=size * size).reshape(size, size)


def _micro(confusion: np.ndarray) -> float:
    clips = confusion.sum()
    return float(np.trace(confusion) / clips) if clips else math.nan


def _macro(confusion: np.ndarray) -> float:
    """Mean of the recalls of the scenes that occur."""
    clips = confusion.sum(1)
    present = clips > 0
    return float(np.mean(np.diag(confusion)[present] / clips[present])) if present.any() else math.nan


def _nan_mean(values: np.ndarray) -> float:
    values = values[~np.isnan(values)]
    return float(values.mean()) if len(values) else math.nan
