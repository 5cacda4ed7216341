"""Correlation and mutual information against known values, a slow loop and the library's estimator."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats
from scipy.special import digamma
from sklearn.feature_selection import mutual_info_regression

from trainables import dependence
from trainables.dependence import exact_values, nearest_neighbours, pearson


def slow(x: np.ndarray, y: np.ndarray, k: int) -> float:
    """Gao et al. 2017, Algorithm 1, pair by pair."""
    x, y, n = x / x.std(), y / y.std(), len(x)
    total = 0.0
    for i in range(n):
        distances = sorted(max(abs(x[i] - x[j]), abs(y[i] - y[j])) for j in range(n) if j != i)
        radius = distances[k - 1]
        if radius == 0:
            near = sum(x[i] == x[j] and y[i] == y[j] for j in range(n))
            across, along = sum(x[i] == x[j] for j in range(n)), sum(y[i] == y[j] for j in range(n))
        else:
            near = k
            across = sum(abs(x[i] - x[j]) < radius for j in range(n))
            along = sum(abs(y[i] - y[j]) < radius for j in range(n))
        total += digamma(near) + digamma(n) - digamma(across) - digamma(along)
    return max(0.0, total / n)


def gaussian(n: int, r: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    a, b = np.random.default_rng(seed).standard_normal((2, n))
    return a, r * a + math.sqrt(1 - r * r) * b


@pytest.mark.parametrize("r", [0.0, 0.5, 0.9, -0.97])
def test_gaussians_have_the_mutual_information_of_their_correlation(r: float) -> None:
    x, y = gaussian(4000, r)
    assert nearest_neighbours(x, 5 * y + 3) == pytest.approx(-0.5 * math.log(1 - r * r), abs=0.05)
    assert pearson(x, y) == pytest.approx(r, abs=0.03)
    assert pearson(x, y) == pytest.approx(stats.pearsonr(x, y).statistic, abs=1e-12)


def test_the_tree_gives_what_the_loop_gives_with_ties_and_without() -> None:
    x, y = gaussian(70, 0.7)
    assert nearest_neighbours(x, y) == pytest.approx(slow(x, y, 3), abs=1e-12)
    x, y = np.maximum(x, 0), np.maximum(y, 0)  # after a ReLU: half of it zeros
    assert nearest_neighbours(x, y) == pytest.approx(slow(x, y, 3), abs=1e-12)
    x, y = np.round(x), np.round(y)  # symbols only
    assert nearest_neighbours(x, y) == pytest.approx(slow(x, y, 3), abs=1e-12)


def test_continuous_values_agree_with_the_librarys_estimator() -> None:
    x, y = gaussian(500, 0.8)
    theirs = mutual_info_regression(x[:, None], y, n_neighbors=3, random_state=0)[0]
    assert nearest_neighbours(x, y) == pytest.approx(theirs, abs=0.01)


def test_a_mixture_of_zeros_and_values_has_its_known_information() -> None:
    """y = x with probability 1/2 being 0 for both at once and independent otherwise: I = ln 2."""
    rng = np.random.default_rng(1)
    on = rng.random(4000) < 0.5
    x, y = (np.where(on, 1 + rng.random(4000), 0.0) for _ in range(2))
    assert nearest_neighbours(x, y) == pytest.approx(math.log(2), abs=0.03)


def test_nothing_is_known_of_what_does_not_vary() -> None:
    x, flat = gaussian(50, 0.0)[0], np.zeros(50)
    assert math.isnan(pearson(x, flat)) and nearest_neighbours(x, flat) == 0.0
    assert exact_values(x, flat) == pytest.approx(0.0, abs=1e-12)
    assert math.isnan(nearest_neighbours(x[:4], x[:4]))


def test_exact_values_measure_how_many_values_are_distinct() -> None:
    """The figures of Table X from embeddings that have nothing to do with each other."""
    rng = np.random.default_rng(0)
    x, y = (np.where(rng.random(2048) < 0.42, 0.0, rng.random(2048)) for _ in range(2))
    assert exact_values(x, y) == pytest.approx(2.99, abs=0.15)
    assert exact_values(x, x) == pytest.approx(4.78, abs=0.15)
    assert nearest_neighbours(x, y) < 0.05


def test_the_table_averages_over_clips_or_over_dimensions() -> None:
    rng = np.random.default_rng(0)
    scene, event = rng.random((40, 8)), rng.random((40, 8))
    scene[:, 3] = 0.0  # a dead unit
    rows = dependence.dependence(scene, event, seed=1)
    assert rows == dependence.dependence(scene, event, seed=1)
    clips = [pearson(scene[i], event[i]) for i in range(40)]
    dims = [pearson(scene[:, d], event[:, d]) for d in range(8) if d != 3]
    assert rows[0]["mean"] == pytest.approx(np.mean(clips)) and rows[0]["n"] == rows[0]["of"] == 40
    assert rows[0]["over"] == "dimensions" and rows[0]["sd"] == pytest.approx(np.std(clips, ddof=1))
    assert rows[3]["over"] == "clips" and rows[3]["mean"] == pytest.approx(np.mean(dims))
    assert (rows[3]["n"], rows[3]["undefined"], rows[3]["of"]) == (7, 1, 8)
    same = dependence.dependence(scene, scene)
    assert same[0]["mean"] == pytest.approx(1.0) and same[3]["mean"] == pytest.approx(1.0)


def test_mutual_information_of_many_rows_is_averaged_over_a_drawn_few() -> None:
    rng = np.random.default_rng(0)
    scene, event = rng.random((300, 6)), rng.random((300, 6))
    row = dependence.dependence(scene, event, seed=5)[1]
    few = np.random.default_rng(5).permutation(300)[:256]
    assert row["mean"] == pytest.approx(np.mean([nearest_neighbours(scene[i], event[i]) for i in few]))
    assert (row["n"], row["of"]) == (256, 300)
