"""How much two embeddings say about each other: Hou et al. 2023, Table X, as numbers with an estimator.

The paper prints "average results" of Pearson's correlation and of mutual information in nats "of AS and AE
embeddings of audio samples", and says neither over what a coefficient is taken nor which estimator it used.
Both readings are computed, and both estimators:

over dimensions  the D pairs (E_s[d], E_e[d]) of one clip make one coefficient; the mean over clips is taken.
                 The nearer reading of "of audio samples", and our first line.
over clips       the N pairs of one dimension make one coefficient; the mean over dimensions is taken.

nearest neighbours  Kraskov, Stögbauer & Grassberger (2004), estimator 1, k = 3, with the treatment of ties of
                 Gao et al. (2017): embeddings after a ReLU are a mixture of zeros and continuous values.
exact values     plug-in estimate that takes every distinct number as a symbol of its own. It grows with the
                 share of distinct values alone, dependent or not: two independent clips' embeddings of 2048
                 dimensions, 42 % of them zero, give 2.99 nat, and one with itself 4.79. The paper's 2.98
                 (cSEM-AST) and 4.78 (MoE-AST) look like this estimator; it is here to set beside them.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Literal

import numpy as np
from scipy.spatial import cKDTree
from scipy.special import digamma
from sklearn.metrics import mutual_info_score

NEIGHBOURS = 3
MOST = 256  # rows a mutual information is averaged over; the mean's standard error is given beside it
Over = Literal["dimensions", "clips"]


def pearson(x: np.ndarray, y: np.ndarray) -> float:
    """Pearson's correlation of two (N,) samples; NaN where one of them does not vary."""
    x, y = x - x.mean(), y - y.mean()
    scale = math.sqrt(float(x @ x) * float(y @ y))
    return float(np.clip(x @ y / scale, -1.0, 1.0)) if scale > 0 else math.nan


def nearest_neighbours(x: np.ndarray, y: np.ndarray, neighbours: int = NEIGHBOURS) -> float:
    """Mutual information of two (N,) samples in nats, not below 0.

    Both are scaled to unit deviation; distances are the larger of the two coordinates'. NaN for fewer than
    neighbours + 2 pairs.
    """
    n = len(x)
    if n < neighbours + 2:
        return math.nan
    x, y = _unit(x), _unit(y)
    pairs = np.stack([x, y], axis=1)
    tree = cKDTree(pairs)
    radius = tree.query(pairs, k=neighbours + 1, p=math.inf)[0][:, -1]
    tied = radius == 0  # at least `neighbours` others at the very same place
    near = np.full(n, float(neighbours))
    if tied.any():
        near[tied] = _equal(np.unique(pairs, axis=0, return_inverse=True)[1])[tied]
    terms = digamma(near) + digamma(n) - digamma(_within(x, radius)) - digamma(_within(y, radius))
    return max(0.0, float(terms.mean()))


def exact_values(x: np.ndarray, y: np.ndarray) -> float:
    """Plug-in mutual information of two (N,) samples in nats, every distinct value a symbol."""
    return float(
        mutual_info_score(np.unique(x, return_inverse=True)[1], np.unique(y, return_inverse=True)[1])
    )


def dependence(scene: np.ndarray, event: np.ndarray, *, seed: int = 0) -> list[dict[str, Any]]:
    """Table X's rows from E_s and E_e (N, D): one a statistic, estimator and direction.

    {"statistic", "estimator", "over", "unit", "mean", "sd", "n" (coefficients averaged), "of" (coefficients
    there are; mutual information takes at most 256 of them, drawn with `seed`), "undefined" (left out:
    something did not vary)}.
    """
    scene, event = np.asarray(scene, np.float64), np.asarray(event, np.float64)
    found = []
    measures: tuple[tuple[str, str, str, Callable[[np.ndarray, np.ndarray], float]], ...] = (
        ("pearson", "", "", pearson),
        ("mutual information", f"nearest neighbours, k = {NEIGHBOURS}", "nat", nearest_neighbours),
        ("mutual information", "exact values", "nat", exact_values),
    )
    overs: tuple[Over, ...] = ("dimensions", "clips")
    for over in overs:
        x, y = (scene, event) if over == "dimensions" else (scene.T, event.T)
        few = np.sort(np.random.default_rng(seed).permutation(len(x))[:MOST])
        for statistic, estimator, unit, measure in measures:
            rows = range(len(x)) if statistic == "pearson" else few
            values = np.asarray([measure(x[i], y[i]) for i in rows])
            found.append(
                {"statistic": statistic, "estimator": estimator, "over": over, "unit": unit}
                | _summary(values)
                | {"of": len(x)}
            )
    return found


def _summary(values: np.ndarray) -> dict[str, Any]:
    good = values[np.isfinite(values)]
    return {
        "mean": float(good.mean()) if len(good) else None,
        "sd": float(good.std(ddof=1)) if len(good) > 1 else None,
        "n": len(good),
        "undefined": len(values) - len(good),
    }


def _unit(x: np.ndarray) -> np.ndarray:
    x = np.asarray(x, np.float64)
    deviation = x.std()
    return x / deviation if deviation > 0 else np.zeros_like(x)


def _within(x: np.ndarray, radius: np.ndarray) -> np.ndarray:
    """How many values lie nearer than `radius` to each one, itself included; where it is 0, how many are the
    same."""
    ordered, nearer = np.sort(x), radius * (1 - 1e-9)  # the neighbour at the radius itself stays out
    strict = np.searchsorted(ordered, x + nearer, "left") - np.searchsorted(ordered, x - nearer, "right")
    same = np.searchsorted(ordered, x, "right") - np.searchsorted(ordered, x, "left")
    return np.where(radius > 0, np.maximum(strict, 1), same)


def _equal(symbols: np.ndarray) -> np.ndarray:
    return np.bincount(symbols.ravel())[symbols.ravel()]
