"""Event tagging beside scene classification: what the two terms see of a mixed batch, α, and single tasks."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from datasets import subset, synthetic
from datasets.batch import Batch
from datasets.labels import LabelSpace
from datasets.mix import MixError, open_sources
from datasets.shards import Index
from datasets.source import Source
from trainables.contract import AudioFormat
from trainables.engine import mix
from trainables.families.resnet_aet import FAMILY, Config, build, terms, weights
from trainables.folder import RunFolder
from trainables.losses import total
from trainables.run import Run
from trainables.train import Request, train

LABELS = LabelSpace(("bus", "park"), ("bird", "car", "dog"))
AUDIO = AudioFormat(8000, 1, 8000)
SMALL = {"width": 0.06, "batch_size": 12, "mixup": 0.2}


@pytest.fixture(scope="module")
def halves(shards: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """One corpus as a scene set and an event set of 5 classes."""
    root, index = tmp_path_factory.mktemp("halves"), Index.load(shards)
    scenes = subset.subset(index, None, None, seed=0, only="scenes")
    chosen = subset.random_events(index.labels.events, 5, seed=1)
    events = subset.subset(index, chosen, None, seed=0, only="events")
    return tuple(subset.write(one, root / name).root for one, name in ((scenes, "s"), (events, "e")))


@pytest.fixture
def mixed(halves: tuple[Path, Path], cache: Path) -> Source:
    return open_sources(halves[0], [f"{halves[1]}:24"], cache=cache)


def halved_batch() -> Batch:
    """Clips 0-3 of known scene, 4-9 of known events, one entry of them unknown."""
    draw = torch.Generator().manual_seed(0)
    scene, events = torch.zeros(10, 2), torch.zeros(10, 3)
    scene[range(4), [0, 1, 1, 0]] = 1
    events[4:] = (torch.rand(6, 3, generator=draw) < 0.5).float()
    known = torch.zeros(10, 3)
    known[4:] = 1
    known[5, 1] = 0
    part = torch.tensor([0] * 4 + [1] * 6)
    waveform = 0.1 * torch.randn(10, 1, 8000, generator=draw)
    return Batch(waveform, scene, events, known, torch.arange(10), part=part)


def test_each_term_is_that_of_the_clips_it_knows_and_the_loss_their_convex_combination() -> None:
    torch.manual_seed(0)
    config, batch = Config(alpha=0.8, width=0.06), halved_batch()
    output = build(config, LABELS, AUDIO).eval()(batch.waveform)
    values = {name: term(output, batch) for name, term in terms(config).items()}
    asc = F.cross_entropy(output.scene_logits[:4], batch.scene[:4].argmax(1))
    summed, count = 0.0, 0
    for clip in range(4, 10):
        for event in range(3):
            if batch.event_known[clip, event]:
                p = torch.sigmoid(output.event_logits[clip, event]).item()
                summed -= math.log(p if batch.events[clip, event] else 1 - p)
                count += 1
    assert count == 17
    loss = total(values, weights(config))
    assert loss.item() == pytest.approx(0.8 * summed / count + 0.2 * asc.item(), rel=1e-5)


@pytest.mark.parametrize("alpha", [0.0, 1.0])
def test_a_term_of_weight_zero_leaves_every_parameter_a_gradient(alpha: float) -> None:
    config, batch = Config(alpha=alpha, width=0.06), halved_batch()
    model = build(config, LABELS, AUDIO)
    output = model(batch.waveform)
    loss = total({name: term(output, batch) for name, term in terms(config).items()}, weights(config))
    loss.backward()
    assert all(p.grad is not None for p in model.parameters())
    idle = model.event_classifier if alpha == 0 else model.scene_classifier
    assert not idle.weight.grad.any()


def test_mixup_stays_inside_each_sub_batch_so_that_no_label_becomes_unknown() -> None:
    batch = halved_batch()
    blended = mix(batch, 0.4, torch.Generator().manual_seed(2))
    assert torch.equal(blended.scene.sum(1) > 0, batch.scene.sum(1) > 0)
    assert not blended.event_known[:4].any() and (blended.event_known[4:].sum() >= 16)
    assert not torch.equal(blended.waveform, batch.waveform)


@pytest.mark.parametrize(
    ("knobs", "labels", "message"),
    [
        ({"alpha": 1.01}, LABELS, r"alpha=1.01: expected a number >= 0 and <= 1"),
        ({"alpha": -0.1}, LABELS, r"alpha=-0.1: expected a number >= 0 and <= 1"),
        ({}, LabelSpace(LABELS.scenes, ()), "alpha=0.95 weighs the event term, these shards have no event"),
        ({}, LabelSpace((), LABELS.events), "alpha=0.95 leaves 0.05 for the scene term"),
    ],
)
def test_what_it_refuses(knobs: dict[str, float], labels: LabelSpace, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build(Config(width=0.06, **knobs), labels, AUDIO)


def test_the_space_leaves_alpha_out_where_there_is_one_task() -> None:
    class Answers:
        def suggest_float(self, name: str, low: float, high: float, **_: object) -> float:
            asked.append(name)
            return high

        def suggest_categorical(self, name: str, choices: list) -> object:
            return choices[0]

    for labels, alpha in ((LABELS, 0.99), (LabelSpace(("bus",), ()), 0.0), (LabelSpace((), ("car",)), 1.0)):
        asked: list[str] = []
        assert FAMILY.suggest(Answers(), labels)["alpha"] == alpha  # type: ignore[arg-type]
        assert ("alpha" in asked) == (labels is LABELS)


def test_a_mixed_run_has_both_tasks_metrics_and_goes_on_where_it_was_cut(
    mixed: Source, tmp_path: Path
) -> None:
    whole = Run("resnet_aet", SMALL, mixed, seed=1, epochs=2)
    first, second = whole.next_epoch(), whole.next_epoch()
    for name in ("scene_accuracy_macro", "event_lwlrap", "term/scene_ce", "term/event_bce"):
        assert math.isfinite(first[f"val/{name}"])
    assert first["train/loss"] == pytest.approx(
        0.95 * first["train/term/event_bce"] + 0.05 * first["train/term/scene_ce"]
    )
    cut = Run("resnet_aet", SMALL, mixed, seed=1, epochs=2)
    cut.next_epoch()
    cut.save(tmp_path / "checkpoint")
    resumed = Run("resnet_aet", SMALL, mixed, seed=1, epochs=2)
    resumed.load(tmp_path / "checkpoint")
    again = resumed.next_epoch()
    clock = ("train/seconds", "train/clips_per_second", "train/data_wait")
    assert {k: v for k, v in again.items() if k not in clock} == {
        k: v for k, v in second.items() if k not in clock
    }


def test_events_alone_then_scenes_alone_from_their_encoder(
    halves: tuple[Path, Path], cache: Path, tmp_path: Path
) -> None:
    scenes, events = (open_sources(root, cache=cache) for root in halves)
    tagging = Run("resnet_aet", SMALL | {"alpha": 1.0}, events, seed=1, epochs=1)
    folder = RunFolder(tmp_path / "aet", tagging, {})
    found = folder.next_epoch()
    assert math.isnan(found["val/scene_accuracy"]) and 0 < found["val/event_lwlrap"] <= 1
    assert found["val/loss"] == found["val/term/event_bce"] and found["val/term/scene_ce"] == 0

    tuned = SMALL | {"alpha": 0.0, "pretrained": str(tmp_path / "aet")}
    with pytest.raises(ValueError, match=r"scene_classifier.*accept_mismatch=true"):
        Run("resnet_aet", tuned, scenes, seed=2, epochs=1)
    fine = Run("resnet_aet", tuned | {"accept_mismatch": True}, scenes, seed=2, epochs=1)
    theirs = tagging.model.encoder.state_dict()
    assert all(torch.equal(tensor, theirs[name]) for name, tensor in fine.model.encoder.state_dict().items())
    metrics = fine.next_epoch()
    assert "val/event_lwlrap" not in metrics and metrics["val/loss"] == metrics["val/term/scene_ce"]


def test_shard_sets_of_two_rates_are_refused_in_one_line(halves: tuple[Path, Path], tmp_path: Path) -> None:
    other = tmp_path / "other"
    synthetic.build(other, train=10, val=10, test=10, seconds=0.2, sample_rate=16000)
    with pytest.raises(MixError, match=r"can't be mixed: 8000 and 16000 Hz; prepare both alike") as error:
        train(Request("resnet_aet", str(halves[0]), mix=(f"{other}:4",), epochs=1))
    assert "\n" not in str(error.value)
