"""What is counted in the training labels, against loops; and that a run counts in no other split."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from datasets.batch import Batch
from datasets.source import Source
from trainables.contract import FitsLabels
from trainables.parts.prior import PriorRelation, SceneCondition, event_rates
from trainables.run import Run

CLIPS, S, E = 23, 3, 5
SMALL = {"backbone": "tinycnn", "width": 0.25, "batch_size": 16}


@pytest.fixture
def clips() -> Batch:
    """One-hot scenes with unknown ones and a scene without clips, soft events, some of them unknown."""
    draw = torch.Generator().manual_seed(0)
    scene = torch.eye(S)[torch.randint(2, (CLIPS,), generator=draw)]
    scene[::7] = 0
    events = torch.rand(CLIPS, E, generator=draw) * (torch.rand(CLIPS, E, generator=draw) > 0.4)
    known = (torch.rand(CLIPS, E, generator=draw) > 0.3).float()
    known[scene[:, 0] == 1, 4] = 0  # of scene 0 nobody knows event 4
    return Batch(torch.zeros(CLIPS, 1, 8), scene, events, known, torch.arange(CLIPS))


def in_batches(clips: Batch, size: int) -> Iterator[Batch]:
    for i in range(0, len(clips), size):
        part = {name: getattr(clips, name)[i : i + size] for name in ("waveform", "scene", "events")}
        yield Batch(**part, event_known=clips.event_known[i : i + size], clip=clips.clip[i : i + size])


def counted(scene: Tensor, events: Tensor, known: Tensor) -> list[list[float]]:
    rates = [[0.0] * events.shape[1] for _ in range(scene.shape[1])]
    for s in range(scene.shape[1]):
        for e in range(events.shape[1]):
            seen = [float(events[i, e]) for i in range(len(scene)) if scene[i, s] == 1 and known[i, e] == 1]
            rates[s][e] = sum(seen) / len(seen) if seen else 0.0
    return rates


@pytest.mark.parametrize("size", [1, 4, CLIPS])
def test_event_rates_are_means_over_the_clips_of_a_scene(clips: Batch, size: int) -> None:
    expected = counted(clips.scene, clips.events, clips.event_known)
    assert expected[0][4] == 0 and expected[2] == [0.0] * E
    torch.testing.assert_close(event_rates(in_batches(clips, size)), torch.tensor(expected).double())
    prior = PriorRelation(S, E)
    prior.fit_labels(in_batches(clips, size))
    torch.testing.assert_close(prior.prior, torch.tensor(expected))


def test_an_event_is_possible_in_a_scene_where_one_clip_has_it(clips: Batch) -> None:
    condition = SceneCondition(S, E)
    assert (condition.possible == 1).all()
    condition.fit_labels(in_batches(clips, 4))
    expected = counted(clips.scene, (clips.events > 0.5).float(), clips.event_known)
    assert condition.possible.tolist() == [[float(rate > 0) for rate in row] for row in expected]
    assert 0 < condition.possible.mean() < 1


def test_labels_that_never_meet_are_refused_in_one_line(clips: Batch) -> None:
    for apart in (
        replace(clips, scene=torch.zeros_like(clips.scene)),
        replace(clips, event_known=torch.zeros_like(clips.event_known)),
    ):
        with pytest.raises(ValueError, match="no training clip has both a scene and known events") as error:
            PriorRelation(S, E).fit_labels([apart])
        assert "\n" not in str(error.value)


def training_labels(source: Source) -> tuple[Tensor, Tensor, Tensor]:
    batches = list(source.eval_batches("train", 7))
    return tuple(torch.cat([getattr(b, n) for b in batches]) for n in ("scene", "events", "event_known"))


@pytest.mark.parametrize("framework", ["rgasc", "conditional"])
def test_a_run_counts_in_the_training_split_alone(source: Source, only_training: Any, framework: str) -> None:
    run = Run("csem", SMALL | {"framework": framework}, only_training, seed=1, epochs=1)
    rates = counted(*training_labels(source))
    if framework == "rgasc":
        assert 0 < run.model.relation.prior.mean() < 1
        torch.testing.assert_close(run.model.relation.prior, torch.tensor(rates))
    else:
        assert run.model.relation.possible.tolist() == [[float(r > 0) for r in row] for row in rates]


@pytest.mark.parametrize("framework", ["rgasc", "conditional"])
def test_every_rank_counts_the_same_and_it_trains_and_comes_back(
    source: Source, framework: str, tmp_path: Path
) -> None:
    runs = [Run("csem", SMALL | {"framework": framework}, source, seed=1, epochs=2, rank=r) for r in (0, 1)]
    name = "relation.prior" if framework == "rgasc" else "relation.possible"
    before, other = (run.model.state_dict()[name].clone() for run in runs)
    assert torch.equal(before, other)
    runs[0].next_epoch()
    assert torch.equal(runs[0].model.state_dict()[name], before)
    runs[0].save(tmp_path)
    runs[1].rank = 0
    runs[1].model.relation.fit_labels([_one_of_everything(source)])
    runs[1].load(tmp_path)
    assert torch.equal(runs[1].model.state_dict()[name], before)


def _one_of_everything(source: Source) -> Batch:
    labels = source.index.labels
    scenes, events = len(labels.scenes), len(labels.events)
    ones = torch.ones(scenes, events)
    return Batch(torch.zeros(scenes, 1, 8), torch.eye(scenes), ones, ones, torch.arange(scenes))


def test_models_without_a_relation_ask_for_no_labels(source: Source) -> None:
    run = Run("csem", SMALL | {"framework": "csem"}, source, seed=1, epochs=1)
    assert not [m for m in run.model.modules() if isinstance(m, FitsLabels)]
