"""Metrics against their definitions as loops, and against scikit-learn."""

import math
import pickle
import time
import warnings
from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.metrics import (
    average_precision_score,
    label_ranking_average_precision_score,
    roc_auc_score,
)

from datasets.batch import Batch
from trainables.contract import JointOutput
from trainables.metrics import Scores, average_precision, lwlrap, roc_auc


def slow_ap(scores: list[float], present: list[bool]) -> float:
    """Mean over positives of the precision among everything scored at least as high."""
    precisions = []
    for score, positive in zip(scores, present):
        if positive:
            above = [p for s, p in zip(scores, present) if s >= score]
            precisions.append(sum(above) / len(above))
    return sum(precisions) / len(precisions) if precisions else math.nan


def slow_auc(scores: list[float], present: list[bool]) -> float:
    """Share of (positive, negative) pairs in the right order; a tie counts half."""
    wins = [
        1.0 if a > b else 0.5 if a == b else 0.0
        for a, p in zip(scores, present)
        if p
        for b, q in zip(scores, present)
        if not q
    ]
    return sum(wins) / len(wins) if wins else math.nan


def slow_lwlrap(scores: np.ndarray, present: np.ndarray, known: np.ndarray) -> float:
    """Mean over all (clip, present event) pairs of the precision at the event's rank in the clip."""
    precisions = []
    for clip in range(len(scores)):
        columns = [e for e in range(scores.shape[1]) if known[clip, e]]
        for event in columns:
            if present[clip, event]:
                ranked = [e for e in columns if scores[clip, e] >= scores[clip, event]]
                precisions.append(sum(bool(present[clip, e]) for e in ranked) / len(ranked))
    return sum(precisions) / len(precisions) if precisions else math.nan


def rows(clips: int, events: int, seed: int, digits: int = 1) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    draw = np.random.default_rng(seed)
    scores = draw.random((clips, events)).round(digits).astype(np.float32)  # many ties
    present, known = draw.random((clips, events)) < 0.3, draw.random((clips, events)) < 0.8
    present[:, 0], present[:, 1], known[:, 2] = False, True, False  # no positive, no negative, nothing known
    return scores, present, known


@pytest.mark.parametrize("seed", range(5))
def test_ap_and_auc_equal_their_definitions_over_known_entries(seed: int) -> None:
    scores, present, known = rows(23, 8, seed)
    ap, auc = average_precision(scores, present, known), roc_auc(scores, present, known)
    for event in range(8):
        mask = known[:, event]
        column = scores[mask, event].tolist(), present[mask, event].tolist()
        assert ap[event] == pytest.approx(slow_ap(*column), nan_ok=True)
        assert auc[event] == pytest.approx(slow_auc(*column), nan_ok=True)
    assert np.isnan(ap[[0, 2]]).all() and np.isnan(auc[:3]).all()


def test_ap_and_auc_equal_scikit_learn() -> None:
    scores, present, _ = rows(200, 12, 7, digits=2)
    everything = np.ones_like(present)
    ap, auc = average_precision(scores, present, everything), roc_auc(scores, present, everything)
    for event in range(2, 12):
        assert ap[event] == pytest.approx(average_precision_score(present[:, event], scores[:, event]))
        assert auc[event] == pytest.approx(roc_auc_score(present[:, event], scores[:, event]))


@pytest.mark.parametrize("seed", range(5))
def test_lwlrap_equals_its_definition_over_known_entries(seed: int) -> None:
    scores, present, known = rows(23, 8, seed)
    present[4] = False  # a clip without events
    found = lwlrap(scores, present, known)
    assert found == pytest.approx(slow_lwlrap(scores, present, known))
    order = np.random.default_rng(seed).permutation(8)  # ties do not depend on the events' order
    assert lwlrap(scores[:, order], present[:, order], known[:, order]) == pytest.approx(found)


def test_lwlrap_equals_scikit_learns_weighted_by_labels_and_the_challenges_without_ties() -> None:
    scores, present, _ = rows(200, 12, 7, digits=9)
    everything = np.ones_like(present)
    found = lwlrap(scores, present, everything)
    weight = present.sum(1)
    reference = label_ranking_average_precision_score(present, scores, sample_weight=weight)
    assert found == pytest.approx(reference)
    by_class: dict[int, list[float]] = {}  # DCASE 2019 Task 2: mean of a class, classes by their frequency
    for clip in range(200):
        ranked = np.argsort(-scores[clip])
        hits = np.cumsum(present[clip][ranked])
        for place, event in enumerate(ranked):
            if present[clip, event]:
                by_class.setdefault(int(event), []).append(hits[place] / (place + 1))
    share = {event: len(values) / weight.sum() for event, values in by_class.items()}
    assert found == pytest.approx(sum(share[e] * np.mean(values) for e, values in by_class.items()))


def test_lwlrap_of_ties_is_the_lower_value() -> None:
    scores, present = np.array([[0.5, 0.5, 0.1]]), np.array([[True, False, False]])
    assert lwlrap(scores, present, np.ones_like(present)) == 0.5
    assert math.isnan(lwlrap(scores, ~np.ones_like(present), np.ones_like(present)))
    assert math.isnan(lwlrap(scores * np.nan, present, np.ones_like(present)))


def test_a_score_that_is_no_number_makes_its_column_nan() -> None:
    scores, present, known = rows(20, 5, 0)
    present[0, 3], known[0, 3:] = True, True
    scores[0, 3] = np.nan
    for metric in (average_precision, roc_auc):
        found = metric(scores, present, known)
        assert np.isnan(found[3]) and not np.isnan(found[4])


def batch(clip: list[int], scene: torch.Tensor, events: torch.Tensor, known: torch.Tensor) -> Batch:
    return Batch(torch.zeros(len(clip), 1, 4), scene, events, known, torch.tensor(clip))


def collected(clips: int = 40, scenes: int = 4, events: int = 6, seed: int = 0) -> tuple[JointOutput, Batch]:
    draw = torch.Generator().manual_seed(seed)
    scene = torch.eye(scenes)[
        torch.randint(scenes - 1, (clips,), generator=draw)
    ]  # the last scene never occurs
    scene[3] = 0  # unknown
    output = JointOutput(
        torch.randn(clips, scenes, generator=draw),
        torch.randn(clips, events, generator=draw).round(decimals=1),
    )
    present = torch.rand(clips, events, generator=draw)
    known = (torch.rand(clips, events, generator=draw) < 0.9).float()
    return output, batch(list(range(clips)), scene, present, known)


def part(output: JointOutput, data: Batch, index: slice | list[int]) -> tuple[JointOutput, Batch]:
    cut = JointOutput(output.scene_logits[index], output.event_logits[index])
    return cut, Batch(
        data.waveform[index], data.scene[index], data.events[index], data.event_known[index], data.clip[index]
    )


def test_compute_equals_the_definitions() -> None:
    output, data = collected()
    scores = Scores()
    scores.add(*part(output, data, slice(0, 30)))
    scores.add(*part(output, data, slice(30, 40)))
    found = scores.compute()

    pairs = [
        (row.index(1.0), logits.index(max(logits)))
        for row, logits in zip(data.scene.tolist(), output.scene_logits.tolist())
        if sum(row)
    ]
    assert len(pairs) == 39
    assert found["scene_accuracy"] == pytest.approx(sum(a == b for a, b in pairs) / 39)
    recalls = []
    for scene in range(3):  # the fourth does not occur
        own = [b == scene for a, b in pairs if a == scene]
        recalls.append(sum(own) / len(own))
    assert found["scene_accuracy_macro"] == pytest.approx(sum(recalls) / 3)

    probabilities = output.event_logits.sigmoid().numpy()
    present, known = data.events.numpy() >= 0.5, data.event_known.numpy() > 0
    by_event = [(probabilities[known[:, e], e], present[known[:, e], e]) for e in range(6)]
    by_clip = [(probabilities[i, known[i]], present[i, known[i]]) for i in range(40)]
    both_kinds = [slow_auc(*map(list, pair)) for pair in by_clip if pair[1].any() and not pair[1].all()]
    assert found["event_map"] == pytest.approx(np.mean([slow_ap(*map(list, pair)) for pair in by_event]))
    assert found["event_auc"] == pytest.approx(np.mean([slow_auc(*map(list, pair)) for pair in by_event]))
    assert found["event_auc_per_clip"] == pytest.approx(np.mean(both_kinds))
    assert found["event_lwlrap"] == pytest.approx(slow_lwlrap(probabilities, present, known))

    confusion = np.zeros((4, 4), dtype=int)
    for truth, answer in pairs:
        confusion[truth, answer] += 1
    np.testing.assert_array_equal(scores.confusion(), confusion)
    ap, auc = scores.per_event()
    assert np.mean(ap) == pytest.approx(found["event_map"]) and np.mean(auc) == pytest.approx(
        found["event_auc"]
    )


def test_ranks_merge_to_the_same_numbers_whatever_the_order_and_overlap() -> None:
    output, data = collected()
    whole = Scores()
    whole.add(output, data)
    parts = []
    for index in ([30, 7, 2, 39], list(range(20, 40)), list(range(25))):
        parts.append(Scores())
        parts[-1].add(*part(output, data, index))
    sent = [pickle.loads(pickle.dumps(p)) for p in (*parts, Scores())]  # the last rank had no clip
    merged = Scores.merge(sent)
    assert len(merged) == 40 and merged.compute() == whole.compute()
    np.testing.assert_array_equal(merged.confusion(), whole.confusion())


def test_scene_only_models_have_scene_metrics_only() -> None:
    output, data = collected()
    scores = Scores()
    scores.add(JointOutput(output.scene_logits), data)
    assert set(scores.compute()) == {"scene_accuracy", "scene_accuracy_macro"}
    assert [len(values) for values in scores.per_event()] == [0, 0]


def test_a_corpus_without_scenes_or_events_has_no_such_metric() -> None:
    output, data = collected()
    no_scenes = Scores()
    no_scenes.add(
        JointOutput(torch.zeros(40, 0), output.event_logits), replace(data, scene=torch.zeros(40, 0))
    )
    found = no_scenes.compute()
    assert math.isnan(found["scene_accuracy"]) and found["event_map"] > 0
    assert no_scenes.confusion().shape == (0, 0)
    nothing = torch.zeros(40, 0)
    no_events = Scores()
    no_events.add(
        JointOutput(output.scene_logits, nothing), replace(data, events=nothing, event_known=nothing)
    )
    assert set(no_events.compute()) == {"scene_accuracy", "scene_accuracy_macro"}


def test_nothing_to_average_is_nan_without_a_warning() -> None:
    output, data = collected(clips=4)
    empty = batch([0, 1, 2, 3], torch.zeros(4, 4), torch.zeros(4, 6), torch.zeros(4, 6))
    scores = Scores()
    scores.add(output, empty)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert all(math.isnan(v) for v in scores.compute().values())
        assert all(math.isnan(v) for v in Scores().compute().values())
    assert scores.confusion().sum() == 0


def test_logits_that_are_no_numbers_make_no_accuracy() -> None:
    output, data = collected()
    output.scene_logits[5, 1] = math.nan
    scores = Scores()
    scores.add(output, data)
    found = scores.compute()
    assert math.isnan(found["scene_accuracy"]) and not math.isnan(found["event_map"])


def test_tut2018_sized_evaluation_is_fast_and_silent() -> None:
    draw = torch.Generator().manual_seed(0)
    output = JointOutput(torch.randn(2518, 10, generator=draw), torch.randn(2518, 527, generator=draw))
    events = (torch.rand(2518, 527, generator=draw) < 0.006).float()
    events[:, :200] = 0  # 259 of 527 events never occur in TUT2018's pseudo labels
    scores = Scores()
    scores.add(
        output,
        batch(list(range(2518)), torch.eye(10)[torch.arange(2518) % 10], events, torch.ones(2518, 527)),
    )
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        started = time.process_time()
        found = scores.compute()
    assert time.process_time() - started < 3.0  # 0.6 s on a quiet core
    assert 0.45 < found["event_auc"] < 0.55 and 0.45 < found["event_auc_per_clip"] < 0.55
