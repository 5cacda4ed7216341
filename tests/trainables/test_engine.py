"""The training loop against short loops that say the same thing plainly."""

from __future__ import annotations

import copy
import math
import multiprocessing
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch import nn

from datasets.batch import Batch
from trainables import losses
from trainables.contract import JointOutput
from trainables.engine import Diverged, evaluate, make_optimiser, mix, train_epoch, warmup_cosine

SCENES, EVENTS, SAMPLES = 3, 4, 16


class Linear(nn.Module):
    """The smallest model with both tasks."""

    def __init__(self) -> None:
        super().__init__()
        self.scene, self.event = nn.Linear(SAMPLES, SCENES), nn.Linear(SAMPLES, EVENTS)

    def forward(self, waveform: torch.Tensor) -> JointOutput:
        x = waveform.mean(1)
        return JointOutput(self.scene(x), self.event(x))


def batches(count: int, size: int, seed: int = 0) -> list[Batch]:
    g = torch.Generator().manual_seed(seed)
    made = []
    for i in range(count):
        scene = torch.eye(SCENES)[torch.randint(SCENES, (size,), generator=g)]
        events = (torch.rand(size, EVENTS, generator=g) > 0.5).float()
        wave = torch.randn(size, 2, SAMPLES, generator=g)
        made.append(Batch(wave, scene, events, torch.ones_like(events), torch.arange(size) + i * size))
    return made


def joined(parts: list[Batch]) -> Batch:
    names = ("waveform", "scene", "events", "event_known", "clip", "part")
    return Batch(*[torch.cat([getattr(p, n) for p in parts]) for n in names])


TERMS = {"scene_ce": losses.scene_ce, "event_bce": losses.event_bce}
WEIGHTS = {"scene_ce": 1.0, "event_bce": 0.5}


def train(model: nn.Module, data: list[Batch], lr: float = 0.1, **options: object) -> dict[str, float]:
    parameters = list(model.parameters())
    options = {"learning_rate": lambda update: lr, "first_update": 0, "steps": len(data)} | options
    optimiser = torch.optim.SGD(parameters, lr=lr)
    return train_epoch(model, parameters, TERMS, WEIGHTS, data, optimiser, **options)  # type: ignore[arg-type]


def same(a: nn.Module, b: nn.Module) -> bool:
    return all(torch.allclose(x, y, atol=1e-6) for x, y in zip(a.parameters(), b.parameters()))


def test_an_epoch_equals_the_plain_loop() -> None:
    model, data = Linear(), batches(5, 4)
    plain = copy.deepcopy(model)
    optimiser = torch.optim.SGD(plain.parameters(), lr=0.1)
    seen = []
    for batch in data:
        optimiser.zero_grad()
        output = plain(batch.waveform)
        scene = nn.functional.cross_entropy(output.scene_logits, batch.scene.argmax(1))
        event = nn.functional.binary_cross_entropy_with_logits(output.event_logits, batch.events)
        (scene + 0.5 * event).backward()
        optimiser.step()
        seen.append((scene.item(), event.item()))
    metrics = train(model, data)
    assert same(model, plain)
    scene, event = (sum(column) / len(seen) for column in zip(*seen))
    assert metrics["term/scene_ce"] == pytest.approx(scene, abs=1e-6)
    assert metrics["loss/event_bce"] == pytest.approx(0.5 * event, abs=1e-6)
    assert metrics["loss"] == pytest.approx(scene + 0.5 * event, abs=1e-6)
    assert 0 <= metrics["data_wait"] <= 1 and metrics["clips_per_second"] > 0


@pytest.mark.parametrize("count", [4, 6])  # 6: the last group holds two of four
def test_accumulated_gradients_are_those_of_the_joined_batch(count: int) -> None:
    model, data = Linear(), batches(count, 3)
    plain = copy.deepcopy(model)
    train(model, data, accumulate=4)
    train(plain, [joined(data[:4])] + ([joined(data[4:])] if count > 4 else []))
    assert same(model, plain)


def test_gradients_are_clipped_to_the_norm() -> None:
    model, data = Linear(), batches(1, 4)
    before = [p.detach().clone() for p in model.parameters()]
    train(model, data, lr=1.0, clip_norm=0.01)
    step = torch.cat([(p - b).flatten() for p, b in zip(model.parameters(), before)])
    assert step.norm().item() == pytest.approx(0.01, rel=1e-3)


def test_the_learning_rate_is_set_before_each_update() -> None:
    model, asked = Linear(), []
    train(model, batches(5, 2), accumulate=2, first_update=7, learning_rate=lambda u: asked.append(u) or 0.1)
    assert asked == [7, 8, 9]


def test_a_loss_that_is_not_finite_ends_the_epoch_with_every_term_named() -> None:
    model, data = Linear(), batches(3, 2)
    data[1] = replace(data[1], waveform=data[1].waveform * math.inf)
    with pytest.raises(Diverged, match=r"scene_ce=nan, event_bce=nan"):
        train(model, data)
    last_only = batches(1, 2)
    last_only[0] = replace(last_only[0], waveform=last_only[0].waveform * math.inf)
    with pytest.raises(Diverged):
        train(Linear(), last_only)


def test_evaluation_weights_clips_not_batches_and_leaves_the_mode() -> None:
    model, data = Linear().train(), [batches(1, 5)[0], batches(1, 2, seed=9)[0]]
    data[1] = replace(data[1], clip=data[1].clip + 5)
    metrics, scores = evaluate(model, TERMS, WEIGHTS, data)
    whole = joined(data)
    assert metrics["term/scene_ce"] == pytest.approx(
        losses.scene_ce(model(whole.waveform), whole).item(), abs=1e-6
    )
    right = model(whole.waveform).scene_logits.argmax(1) == whole.scene.argmax(1)
    assert scores.compute()["scene_accuracy"] == pytest.approx(right.float().mean().item())
    assert model.training


def test_mixup_blends_waveforms_and_labels_alike() -> None:
    batch = batches(1, 64)[0]
    scene = batch.scene.clone()
    scene[0] = 0.0  # unknown
    tags = torch.rand(64, 7, generator=torch.Generator().manual_seed(2))
    batch = replace(batch, scene=scene, tags=tags)
    mixed = mix(batch, 0.4, torch.Generator().manual_seed(1))
    known = mixed.scene.sum(1) > 0
    assert not known[0] and known.sum() < 64  # the unknown clip and whoever it was mixed with
    assert torch.allclose(mixed.scene[known].sum(1), torch.ones(int(known.sum())))
    # every mixed waveform is λ·own + (1 − λ)·another's, with the λ of its labels
    for i in range(8):
        own = batch.waveform[i].flatten()
        fits = []
        for j in range(64):
            other = batch.waveform[j].flatten()
            share = (
                1.0
                if j == i
                else float((mixed.waveform[i].flatten() - other) @ (own - other) / (own - other).norm() ** 2)
            )
            fits.append(
                (mixed.waveform[i].flatten() - share * own - (1 - share) * other).norm() < 1e-4
                and (mixed.events[i] - share * batch.events[i] - (1 - share) * batch.events[j]).abs().max()
                < 1e-4
                and (mixed.tags[i] - share * tags[i] - (1 - share) * tags[j]).abs().max() < 1e-4
            )
        assert any(fits)
    again = mix(batch, 0.4, torch.Generator().manual_seed(1))
    assert torch.equal(again.waveform, mixed.waveform)


def test_mixup_stays_inside_the_parts_of_a_batch() -> None:
    batch = batches(1, 48)[0]
    part = torch.tensor([0] * 16 + [1] * 32)[torch.randperm(48, generator=torch.Generator().manual_seed(2))]
    scene = batch.scene * (part == 0)[:, None]  # as in a batch of scene clips and event clips
    known = (part == 1).float()[:, None].expand(-1, EVENTS)
    wave = batch.waveform * 0 + part[:, None, None]
    batch = replace(batch, waveform=wave, scene=scene, event_known=known, part=part)
    mixed = mix(batch, 0.4, torch.Generator().manual_seed(1))
    assert torch.allclose(mixed.waveform, wave)  # a mixture over parts would hold something in between
    assert torch.allclose(mixed.scene.sum(1), (part == 0).float())
    assert torch.equal(mixed.event_known, known)
    assert not torch.allclose(mixed.events[part == 0], batch.events[part == 0])
    one = replace(batch, part=torch.zeros_like(part))
    assert not torch.allclose(mix(one, 0.4, torch.Generator().manual_seed(1)).waveform, wave)


def half_labelled(count: int, seed: int = 0) -> list[Batch]:
    """Batches of 5 clips of known scene and unknown events, then `i + 1` the other way round."""
    made = []
    for i, batch in enumerate(batches(count, 5 + count, seed)):
        batch = Batch(**{name: value[: 6 + i] for name, value in vars(batch).items()})
        scenes = torch.arange(len(batch)) < 5
        known = (~scenes).float()[:, None].expand(-1, EVENTS)
        made.append(
            replace(batch, scene=batch.scene * scenes[:, None], event_known=known, part=(~scenes).long())
        )
    return made


def test_means_and_metrics_are_over_clips_of_known_label() -> None:
    model, data = Linear(), half_labelled(4)
    means, scores = evaluate(model, TERMS, WEIGHTS, data)
    whole = joined(data)
    output = model(whole.waveform)
    scenes = whole.scene.sum(1) > 0
    scene = nn.functional.cross_entropy(output.scene_logits[scenes], whole.scene[scenes].argmax(1))
    event = nn.functional.binary_cross_entropy_with_logits(
        output.event_logits[~scenes], whole.events[~scenes]
    )
    assert means["term/scene_ce"] == pytest.approx(scene.item(), abs=1e-6)
    assert means["term/event_bce"] == pytest.approx(event.item(), abs=1e-6)
    right = output.scene_logits[scenes].argmax(1) == whole.scene[scenes].argmax(1)
    assert scores.compute()["scene_accuracy"] == pytest.approx(right.float().mean().item())
    assert scores.confusion().sum() == 20
    trained = train(Linear(), data, lr=0.0)
    assert trained["term/scene_ce"] > 0 and trained["term/event_bce"] > 0


def test_clips_of_unknown_label_have_no_part_in_a_term() -> None:
    model, (batch,) = Linear(), half_labelled(1)
    other = replace(
        batch,
        events=torch.where(batch.event_known > 0, batch.events, 1 - batch.events),
    )
    values = [[term(model(b.waveform), b).item() for term in TERMS.values()] for b in (batch, other)]
    assert values[0] == values[1]


def test_two_ranks_with_different_labels_make_the_step_of_one(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    results = context.Queue()
    ranks = [
        context.Process(target=one_of_two_ranks, args=(r, tmp_path / "store", results)) for r in range(2)
    ]
    for process in ranks:
        process.start()
    found = [results.get(timeout=100) for _ in ranks]
    for process in ranks:
        process.join()
    torch.manual_seed(0)
    model = Linear()
    expected = train(model, half_labelled(3))
    for metrics, parameters in found:
        assert metrics["term/scene_ce"] == pytest.approx(expected["term/scene_ce"], abs=1e-6)
        assert metrics["term/event_bce"] == pytest.approx(expected["term/event_bce"], abs=1e-6)
        for ours, theirs in zip(parameters, model.parameters()):
            assert torch.allclose(torch.tensor(ours), theirs, atol=1e-6)


def one_of_two_ranks(rank: int, store: Path, results: object) -> None:
    """Train on this rank's clips of every batch: rank 0 has four of the five scene clips, rank 1 the rest."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=2)
    torch.manual_seed(0)
    model = nn.parallel.DistributedDataParallel(Linear())
    rows = slice(0, 4) if rank == 0 else slice(4, None)
    data = [Batch(**{name: value[rows] for name, value in vars(b).items()}) for b in half_labelled(3)]
    metrics = train(model, data)
    results.put((metrics, [p.tolist() for p in model.parameters()]))  # type: ignore[attr-defined]
    dist.destroy_process_group()


def test_warm_up_and_cosine() -> None:
    rate = warmup_cosine(1.0, "cosine", warmup_updates=4, all_updates=12)
    assert [round(rate(u), 4) for u in range(4)] == [0.2, 0.4, 0.6, 0.8]
    assert rate(4) == 1.0
    assert rate(8) == pytest.approx(0.5)
    assert rate(12) == pytest.approx(0.0)
    assert warmup_cosine(1.0, "none", 0, 12)(11) == 1.0


@pytest.mark.parametrize("name", ["adam", "adamw", "radam"])
def test_optimisers_by_name(name: str) -> None:
    parameter = nn.Parameter(torch.ones(3))
    optimiser = make_optimiser(name, [parameter], lr=0.1, weight_decay=0.01)
    assert type(optimiser).__name__.lower() == name
    assert optimiser.param_groups[0]["weight_decay"] == 0.01
    with pytest.raises(ValueError, match="known: adam, adamw, radam"):
        make_optimiser("sgdd", [parameter], lr=0.1, weight_decay=0.0)
