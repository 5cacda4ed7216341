"""Hard event labels made wrong on purpose, to a stated accuracy.

Hou et al. 2023, Table IV, trains on "GT labels with 80% Acc." beside pseudo labels of the same accuracy: both
"with 80% AEC accuracy on JSSED", in place of the event labels of the training set. The paper says neither how
that accuracy is counted nor how the labels were made wrong. Read here as: of all (clip, event) entries of the
training labels 80 % are right, and the wrong ones lie anywhere with equal chance. That is harsh where few
events are present (5 of 32 in each clip: an all-zero label would be right in 84 % of its entries).
"""

from __future__ import annotations

import numpy as np


def degrade(labels: np.ndarray, accuracy: float, *, seed: int, known: np.ndarray | None = None) -> np.ndarray:
    """(N, E) hard labels 0 or 1 of which exactly the fraction `accuracy` of the known entries is left right.

    labels    (N, E), 0 or 1
    known     (N, E) or None = all; entries that are not known (0) stay as they are and do not count
    Raises ValueError for an accuracy outside 0 … 1 and for labels that are not hard.
    """
    if not np.isin(labels, (0, 1)).all():
        raise ValueError("only hard labels (0 or 1) can be degraded to an accuracy")
    wrong = wrong_entries(np.ones(labels.shape) if known is None else known, accuracy, seed=seed)
    return np.where(wrong, 1 - labels, labels).astype(labels.dtype)


def wrong_entries(known: np.ndarray, accuracy: float, *, seed: int) -> np.ndarray:
    """(N, E) bool, which labels are to be flipped: round((1 - accuracy) × n) of the n known entries, drawn
    without replacement. It follows from `known`, `accuracy` and `seed` alone."""
    if not 0 <= accuracy <= 1:
        raise ValueError(f"accuracy {accuracy:g} of event labels: expected 0 to 1")
    places = np.flatnonzero(known)
    count = round((1 - accuracy) * len(places))
    wrong = np.zeros(known.size, dtype=bool)
    wrong[np.random.default_rng(seed).choice(places, count, replace=False)] = True
    return wrong.reshape(known.shape)
