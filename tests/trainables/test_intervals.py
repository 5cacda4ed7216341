"""Intervals of a split's metrics: against one evaluation a draw, and against printed figures."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from trainables.intervals import intervals, macro_recall, replicates, wilson
from trainables.metrics import Scores


def rows(clips: int = 40, *, frames: bool = True, seed: int = 0) -> dict[str, np.ndarray]:
    """Clips with ties, unknown scenes, unknown events, and an event that never occurs."""
    draw = np.random.default_rng(seed)
    scene = np.eye(4)[draw.integers(0, 4, clips)]
    scene[::9] = 0
    events = (draw.random((clips, 5)) < 0.3).astype(np.float32)
    events[:, 4] = 0
    found = {
        "clip": np.arange(clips),
        "scene_logits": draw.normal(0, 1, (clips, 4)) + 1.5 * scene,
        "scene": scene,
        "event_probabilities": np.round(draw.random((clips, 5)) * 0.6 + events * 0.3, 1),
        "events": events,
        "event_known": (draw.random((clips, 5)) < 0.8).astype(np.float32),
    }
    if frames:
        found |= {"framed": np.ones(clips), "frame_finite": np.ones(clips, bool)}
        found["frame_known"] = draw.random(clips) < 0.9
        for kind in ("frame", "segment"):
            found |= {f"{kind}_{name}": draw.integers(0, 6, (clips, 5)) for name in ("tp", "fp", "fn")}
            found[f"{kind}_errors"] = draw.integers(0, 9, clips)
    return found


def scores_of(found: dict[str, np.ndarray]) -> Scores:
    scores = Scores()
    scores._batches.append({name: torch.from_numpy(np.asarray(values)) for name, values in found.items()})
    return scores


@pytest.mark.parametrize("frames", [False, True])
def test_every_metric_of_a_draw_is_that_of_an_evaluation_of_its_clips(frames: bool) -> None:
    found = rows(frames=frames)
    counts = np.random.default_rng(1).multinomial(40, np.full(40, 1 / 40), size=25)
    fast = replicates(found, counts)
    for draw, repeats in enumerate(counts):
        drawn = {name: np.repeat(values, repeats, axis=0) for name, values in found.items()}
        slow = scores_of(drawn | {"clip": np.arange(40)}).compute()
        assert fast.keys() == slow.keys()
        for name, value in slow.items():
            assert fast[name][draw] == pytest.approx(value, abs=1e-12, nan_ok=True), (name, draw)


def test_wilson_is_that_of_the_textbook() -> None:
    """Newcombe 1998, Table I: 81 of 263, 15 of 148, 0 of 20, 1 of 29."""
    printed = {
        (81, 263): (0.2553, 0.3662),
        (15, 148): (0.0624, 0.1605),
        (0, 20): (0, 0.1611),
        (1, 29): (0.0061, 0.1718),
    }
    for (right, of), expected in printed.items():
        assert wilson(right, of) == pytest.approx(expected, abs=5e-5)
    assert wilson(20, 20)[1] == 1.0 and math.isnan(wilson(0, 0)[0])


def test_intervals_hold_the_value_and_shrink_with_more_clips() -> None:
    few, many = scores_of(rows(40)), scores_of(rows(640))
    small, large = intervals(few, draws=300), intervals(many, draws=300)
    assert small.keys() == few.compute().keys()
    for name, value in many.compute().items():
        low, high = large[name]
        assert low <= value <= high, name
        assert high - low < small[name][1] - small[name][0], name
    assert small["scene_accuracy"] == wilson(int(np.trace(few.confusion())), int(few.confusion().sum()))
    assert intervals(few, draws=300) == small and intervals(few, draws=300, seed=1) != small


def test_the_interval_of_the_macro_accuracy_from_counts_is_that_from_clips() -> None:
    scores = scores_of(rows(400, frames=False))
    from_clips = intervals(scores, draws=4000)["scene_accuracy_macro"]
    assert macro_recall(scores.confusion(), draws=4000) == pytest.approx(from_clips, abs=0.006)


def test_what_is_not_a_number_has_no_interval() -> None:
    found = rows(30, frames=False)
    found["scene_logits"][3, 1] = np.nan
    found["event_known"][:] = 0
    told = intervals(scores_of(found), draws=20)
    assert all(math.isnan(low) and math.isnan(high) for low, high in told.values())
    assert intervals(Scores()) == {} and math.isnan(macro_recall(np.zeros((3, 3), int))[0])
