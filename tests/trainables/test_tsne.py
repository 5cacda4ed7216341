"""A map where there is something to map, a reason where there is not."""

from __future__ import annotations

import numpy as np
import pytest

from trainables import tsne as module
from trainables.tsne import tsne


def two_clouds(n: int) -> np.ndarray:
    rng = np.random.default_rng(0)
    return np.concatenate([rng.normal(0, 1, (n, 6)), rng.normal(9, 1, (n, 6))])


def test_the_same_seed_gives_the_same_map_and_clouds_stay_apart() -> None:
    points = two_clouds(20)
    places, rows, about = tsne(points, seed=3)
    assert (places == tsne(points, seed=3)[0]).all() and (rows == np.arange(40)).all()
    assert about == {
        "of": 40,
        "seed": 3,
        "distance": "euclidean",
        "points": 40,
        "perplexity": 13.0,
        "note": "",
    }
    within = np.linalg.norm(places[:20] - places[:20].mean(0), axis=1).max()
    assert np.linalg.norm(places[:20].mean(0) - places[20:].mean(0)) > within


@pytest.mark.parametrize("n", [5, 6, 7])
@pytest.mark.parametrize("distance", ["euclidean", "cosine"])
def test_few_points_have_a_small_perplexity(n: int, distance: str) -> None:
    points = np.random.default_rng(0).normal(0, 1, (n, 4))
    places, _, about = tsne(points, distance=distance)  # type: ignore[arg-type]
    assert places.shape == (n, 2) and np.isfinite(places).all() and about["perplexity"] == (n - 1) / 3


def test_of_many_points_some_are_mapped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST", 12)
    places, rows, about = tsne(two_clouds(20))
    assert len(places) == len(set(rows)) == 12 and (about["points"], about["of"]) == (12, 40)


@pytest.mark.parametrize(
    ("points", "distance", "why"),
    [
        (np.zeros((4, 3)), "euclidean", "at least 5 points, there are 4"),
        (np.ones((9, 3)), "euclidean", "all points are at the same place"),
        (np.full((9, 3), np.nan), "euclidean", "not finite"),
        (np.eye(9)[:, :3], "cosine", "no direction"),
    ],
)
def test_nothing_to_map_is_said(points: np.ndarray, distance: str, why: str) -> None:
    places, rows, about = tsne(points, distance=distance)  # type: ignore[arg-type]
    assert places.shape == (0, 2) and len(rows) == 0 and why in about["note"]
