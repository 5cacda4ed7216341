"""Data-parallel runs without Ray: another number of workers goes on where one stopped."""

from __future__ import annotations

import multiprocessing
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist

from datasets.source import Source, open_source
from trainables.parts.batchnorm import CrossRankBatchNorm
from trainables.run import Run

VALUES = {
    "backbone": "tinycnn", "framework": "csem", "width": 0.25, "batch_size": 21, "dropout": 0.0,
    "embedding_dropout": 0.0,
}  # fmt: skip
SPEED = ("train/seconds", "train/clips_per_second", "train/data_wait")


def rank_of_two(rank: int, folder: Path, shards: Path, cache: Path, sync: bool, out: Any) -> None:
    """Go on from `folder`/one if it is there, for an epoch; the first rank writes `folder`/two."""
    torch.set_num_threads(1)
    meeting = f"file://{folder}/meeting-{sync}"
    dist.init_process_group("gloo", init_method=meeting, rank=rank, world_size=2)
    source = open_source(shards, cache=cache)
    run = Run("csem", VALUES, source, seed=1, epochs=3, rank=rank, world=2, sync_batchnorm=sync)
    run.load(folder / "one")
    assert sync == any(isinstance(module, CrossRankBatchNorm) for module in run.model.modules())
    out.put((rank, run.next_epoch()))
    if rank == 0 and sync:
        run.save(folder / "two")
    dist.barrier()
    dist.destroy_process_group()


def second_epoch_by_two(folder: Path, shards: Path, cache: Path, sync: bool) -> dict[str, float]:
    context = multiprocessing.get_context("spawn")
    out = context.Queue()
    ranks = [
        context.Process(target=rank_of_two, args=(rank, folder, shards, cache, sync, out))
        for rank in range(2)
    ]
    for process in ranks:
        process.start()
    found = dict(out.get(timeout=200) for _ in ranks)
    for process in ranks:
        process.join(timeout=60)
    for name, value in found[0].items():  # every rank has the same figures, over all clips
        assert name in SPEED or found[1][name] == pytest.approx(value, abs=1e-6), name
    return found[0]


@pytest.mark.slow
def test_one_worker_then_two_then_one_is_as_one_worker_throughout(
    shards: Path, cache: Path, source: Source, tmp_path: Path
) -> None:
    alone = Run("csem", VALUES, source, seed=1, epochs=3)
    expected = [alone.next_epoch() for _ in range(3)]
    first = Run("csem", VALUES, source, seed=1, epochs=3)
    first.next_epoch()
    first.save(tmp_path / "one")
    second = second_epoch_by_two(tmp_path, shards, cache, sync=True)
    last = Run("csem", VALUES, source, seed=1, epochs=3)
    last.load(tmp_path / "two")
    assert last.epoch == 2
    for ours, theirs in ((second, expected[1]), (last.next_epoch(), expected[2])):
        for name, value in theirs.items():
            assert name in SPEED or ours[name] == pytest.approx(value, rel=2e-3, abs=2e-4), name


@pytest.mark.slow
def test_each_worker_may_normalise_its_own_clips(
    shards: Path, cache: Path, source: Source, tmp_path: Path
) -> None:
    first = Run("csem", VALUES, source, seed=1, epochs=3)
    first.next_epoch()
    first.save(tmp_path / "one")
    own = second_epoch_by_two(tmp_path, shards, cache, sync=False)
    expected = first.next_epoch()
    assert own["train/loss"] == pytest.approx(expected["train/loss"], rel=0.05)  # near it, for small batches
    assert own["val/scene_accuracy"] >= 0 and own["train/loss"] != expected["train/loss"]


def images(dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
    """(5, 3, 4, 2), with a mean that dwarfs the deviation, and what a loss would send back."""
    draw = torch.Generator().manual_seed(0)
    x = 100 + torch.randn(5, 3, 4, 2, generator=draw, dtype=torch.float64) * torch.tensor(
        [1.0, 0.1, 3.0]
    ).view(1, 3, 1, 1)
    return x.to(dtype), torch.randn(5, 3, 4, 2, generator=draw, dtype=torch.float64).to(dtype)


def normalised(norm: torch.nn.Module, x: torch.Tensor, grad: torch.Tensor) -> dict[str, torch.Tensor]:
    with torch.no_grad():
        norm.weight.copy_(torch.tensor([0.5, 2.0, -1.0]))
        norm.bias.copy_(torch.tensor([1.0, 0.0, 3.0]))
    x.requires_grad_()
    y = norm(x)
    y.backward(grad)
    found = {"y": y, "x": x.grad, "weight": norm.weight.grad, "bias": norm.bias.grad}
    return {name: tensor.detach().clone() for name, tensor in (found | dict(norm.named_buffers())).items()}


def a_part(rank: int, folder: Path) -> None:
    """The first rank has two of the five clips, the second three."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2)
    for dtype in (torch.float64, torch.float32, torch.bfloat16):
        own = slice(0, 2) if rank == 0 else slice(2, 5)
        norm = CrossRankBatchNorm(3, dtype=torch.float64 if dtype == torch.float64 else torch.float32)
        x, grad = images(dtype)
        torch.save(normalised(norm, x[own].clone(), grad[own]), folder / f"{dtype}-{rank}.pt")
    dist.barrier()
    dist.destroy_process_group()


@pytest.mark.slow
def test_normalising_over_ranks_is_normalising_all_their_clips_at_once(tmp_path: Path) -> None:
    torch.multiprocessing.start_processes(a_part, args=(tmp_path,), nprocs=2, start_method="spawn")
    for dtype, close in ((torch.float64, 1e-10), (torch.float32, 2e-4), (torch.bfloat16, 0.05)):
        parts = [torch.load(tmp_path / f"{dtype}-{rank}.pt") for rank in range(2)]
        x, grad = images(dtype)  # the obvious: torch's own over the five, in double
        whole = normalised(torch.nn.BatchNorm2d(3, dtype=torch.float64), x.double(), grad.double())
        for name, expected in whole.items():
            ours = [part[name].double() for part in parts]
            joined = {"y": torch.cat, "x": torch.cat, "weight": sum, "bias": sum}.get(
                name, lambda both: both[0]
            )
            torch.testing.assert_close(
                joined(ours), expected.double(), rtol=close, atol=close, msg=f"{name}, {dtype}"
            )
