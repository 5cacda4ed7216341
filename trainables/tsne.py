"""A map of points in the plane by t-SNE (van der Maaten & Hinton 2008), and when there is none to draw."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from sklearn.manifold import TSNE

LEAST = 5  # points; with fewer a map shows nothing
MOST = 5000  # points; of more, so many are drawn at random
PERPLEXITY = 30.0
Distance = Literal["euclidean", "cosine"]


def tsne(
    points: np.ndarray, *, seed: int = 0, distance: Distance = "euclidean"
) -> tuple[np.ndarray, np.ndarray, dict[str, Any]]:
    """(place (M, 2), which of the points these are (M,), how they were made) of points (N, D).

    "perplexity" is 30, or a third of the points where there are fewer than 91. The same seed gives the same
    map on one machine. No points and a "note" that says why where there is nothing to map: fewer than 5
    points, one of them not finite, or all at one place.
    """
    of = len(points)
    rows = np.sort(np.random.default_rng(seed).permutation(of)[:MOST])
    points = np.asarray(points, np.float64)[rows]
    about: dict[str, Any] = {"of": of, "seed": seed, "distance": distance}
    note = _nothing_to_map(points, distance)
    if note:
        return np.zeros((0, 2), np.float32), rows[:0], about | {"points": 0, "note": note}
    perplexity = min(PERPLEXITY, (len(points) - 1) / 3)
    map_ = TSNE(perplexity=perplexity, metric=distance, init="random", random_state=seed, n_jobs=1)
    if distance == "euclidean":
        map_.set_params(init="pca")
    places = map_.fit_transform(points).astype(np.float32)
    return places, rows, about | {"points": len(rows), "perplexity": perplexity, "note": ""}


def _nothing_to_map(points: np.ndarray, distance: Distance) -> str:
    if len(points) < LEAST:
        return f"a t-SNE map needs at least {LEAST} points, there are {len(points)}"
    if not np.isfinite(points).all():
        return "some of the model's numbers are not finite"
    if distance == "cosine" and not np.linalg.norm(points, axis=1).all():
        return "some points are at the origin and have no direction"
    if np.ptp(points, axis=0).max() == 0:
        return "all points are at the same place"
    return ""
