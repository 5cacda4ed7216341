"""What two data-parallel workers of a trial gain over one, and what Ray Train costs a trial.

    python tests/benchmarks/bench_workers.py [--turns 3] [--clips 128] [--seconds 10] [--no-trials]

Scaling: one epoch of PANN (csem, full width, the paper's batch of 64) with one process and with two gloo
processes, one thread each, in alternating turns. Wall seconds count on a quiet machine with two free cores;
beside them stands the CPU time of the busiest process, which other work on the machine hardly changes: where
every process has its own core, an epoch can't be shorter. Target: at least 1.7 times as fast. What the
machine itself allows is measured in the same turns: two processes, each by itself on half the clips in half
batches, that never exchange a number; two workers of one trial can't gain more.

Trials: seconds from one trial's end to the next beside the training, one trial at a time: through WarmTrial,
through our Ray Train path with two workers, and through plain Ray Tune whose trial starts a TorchTrainer of
two workers that train the same model on the same clips and report a checkpoint.
"""

from __future__ import annotations

import io
import multiprocessing
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import tyro

from datasets import synthetic
from datasets.source import open_source

VALUES = {"backbone": "pann", "framework": "csem", "precision": "fp32"}


@dataclass
class Request:
    turns: int = 3
    clips: int = 128
    seconds: float = 10.0  # of a clip; the corpora of the papers have 10 s
    batch: int = 64
    scaling: bool = True
    trials: bool = True


@dataclass(frozen=True)
class Kind:
    workers: int
    sync: bool = True  # batch normalisation over both
    apart: bool = False  # each by itself, on half the clips


KINDS = {
    "1 worker": Kind(1),
    "2 workers": Kind(2),
    "2 workers, own batchnorm": Kind(2, sync=False),
    "2 apart, half the clips": Kind(2, apart=True),
}


def epoch(folder: str, batch: int, rank: int, kind: Kind, meet: Any, out: Any) -> None:
    """One epoch after a first one that does not count; puts (wall seconds, CPU seconds) of this process."""
    from trainables.run import Run

    torch.set_num_threads(1)
    shards, world, rank = ("half", 1, 0) if kind.apart else ("shards", kind.workers, rank)
    if world > 1:
        store = f"file://{folder}/meet-{kind.sync}"
        dist.init_process_group("gloo", init_method=store, rank=rank, world_size=world)
    source = open_source(Path(folder) / shards, cache=Path(folder) / "cache")
    values = VALUES | {"batch_size": batch // 2 if kind.apart else batch}
    run = Run("csem", values, source, seed=0, epochs=9, rank=rank, world=world, sync_batchnorm=kind.sync)
    run.next_epoch()
    meet.wait()
    wall, cpu = time.perf_counter(), time.process_time()
    run.next_epoch()
    out.put((time.perf_counter() - wall, time.process_time() - cpu))


def measured(folder: str, batch: int, kind: Kind) -> tuple[float, float]:
    """(wall seconds, CPU seconds of the busiest process) of one epoch."""
    context = multiprocessing.get_context("spawn")
    out, meet = context.Queue(), context.Barrier(kind.workers)
    for left in Path(folder).glob("meet-*"):
        left.unlink()
    processes = [
        context.Process(target=epoch, args=(folder, batch, rank, kind, meet, out))
        for rank in range(kind.workers)
    ]
    for one in processes:
        one.start()
    figures = [out.get(timeout=900) for _ in processes]
    for one in processes:
        one.join()
    return max(wall for wall, _ in figures), max(cpu for _, cpu in figures)


def scaling(turns: int, clips: int, seconds: float, batch: int) -> None:
    figures: dict[str, list[tuple[float, float]]] = {name: [] for name in KINDS}
    with tempfile.TemporaryDirectory() as folder:
        for name, share in (("shards", 1), ("half", 2)):
            parts = {"train": clips // share, "val": 20 // share, "test": 20}
            synthetic.build(Path(folder) / name, **parts, seconds=seconds, sample_rate=16000)
        for _ in range(turns):
            for name, kind in KINDS.items():
                figures[name].append(measured(folder, batch, kind))
    medians = {name: [statistics.median(column) for column in zip(*rows)] for name, rows in figures.items()}
    base = medians["1 worker"]
    for name, (wall, cpu) in medians.items():
        gain = f"{base[0] / wall:.2f} x by wall, {base[1] / cpu:.2f} x by CPU"
        print(f"{name:26s} wall {wall:6.1f} s, busiest process {cpu:6.1f} CPU-s: {gain}   {figures[name]}")


SMALL = {"backbone": "tinycnn", "framework": "csem", "width": 0.25}


def ours(folder: Path, trials: int, workers: int, ended: Callable[[], None]) -> list[float]:
    """Seconds of training of each trial."""
    from searchspace.methods import PRUNERS
    from searchspace.study import Job, Ledger, open_storage, sqlite_url
    from trainables.cluster import Room, Share
    from trainables.folder import read_epochs
    from trainables.phase import run_phase
    from trainables.progress import Progress
    from trainables.trial import Place

    study = folder / f"workers{workers}"
    study.mkdir()
    ledger = Ledger(open_storage(sqlite_url(study / "study.db")), "bench", pruner=PRUNERS["none"])
    ledger.plan([Job(-1, n, 0, "bench", SMALL, n, 1, f"runs/t{n:04d}-r0") for n in range(trials)])
    data, cache = str(folder / "shards"), str(folder / "cache")
    place = Place("csem", data, str(study), "val/scene_accuracy", cache, workers=workers)
    with Progress("bench", trials, 1, stream=io.StringIO()) as progress:
        room = Room(Share(workers, 1.0, 0.0, at_once=1), progress.say)
        run_phase(ledger, place, progress, room=room, ended=ended)
    return [read_epochs(study / row["folder"])[0]["train/seconds"] for row in ledger.rows()]


def plain(folder: Path, trials: int, workers: int, ended: Callable[[], None]) -> list[float]:
    from ray import train, tune
    from ray.train.torch import TorchConfig, TorchTrainer
    from ray.tune.integration.ray_train import TuneReportCallback

    def work(config: dict[str, Any]) -> None:
        from trainables.run import Run

        torch.set_num_threads(1)
        rank, world = train.get_context().get_world_rank(), train.get_context().get_world_size()
        source = open_source(folder / "shards", cache=folder / "cache")
        metrics = (run := Run("csem", SMALL, source, seed=0, epochs=1, rank=rank, world=world)).next_epoch()
        with tempfile.TemporaryDirectory() as kept:
            if rank == 0:
                run.save(Path(kept))
            train.report(metrics, checkpoint=train.Checkpoint.from_directory(kept) if rank == 0 else None)

    def trial(config: dict[str, Any]) -> None:
        TorchTrainer(
            work,
            train_loop_config=config,
            scaling_config=train.ScalingConfig(num_workers=workers, resources_per_worker={"CPU": 1}),
            torch_config=TorchConfig(backend="gloo"),
            run_config=train.RunConfig(
                name=f"t{config['n']}", storage_path=str(folder / "plain"), callbacks=[TuneReportCallback()]
            ),
        ).fit()

    class Ended(tune.Callback):
        def on_trial_complete(self, *args: Any, **info: Any) -> None:
            ended()

    results = tune.Tuner(
        tune.with_resources(trial, {"cpu": 0.01}),
        param_space={"n": tune.grid_search(list(range(trials)))},
        tune_config=tune.TuneConfig(max_concurrent_trials=1),
        run_config=tune.RunConfig(storage_path=str(folder / "tune"), callbacks=[Ended()], verbose=0),
    ).fit()
    assert not results.errors, results.errors
    return [result.metrics["train/seconds"] for result in results]


def seconds_beside(run: Callable[..., list[float]], folder: Path, trials: int, workers: int) -> list[float]:
    times = [time.monotonic()]
    trained = run(folder, trials, workers, lambda: times.append(time.monotonic()))
    return [end - begin - spent for begin, end, spent in zip(times, times[1:], trained)]


def trial_overhead(trials: int = 4) -> None:
    import ray

    ray.init(num_cpus=4, include_dashboard=True, log_to_driver=False, logging_level="ERROR")
    kinds = {
        "one warm process": (ours, 1),
        "ours, Ray Train, 2 workers": (ours, 2),
        "plain Tune + Train, 2 workers": (plain, 2),
    }
    with tempfile.TemporaryDirectory() as folder:
        synthetic.build(Path(folder) / "shards", train=64, val=32, test=32)
        for name, (run, workers) in kinds.items():
            beside = seconds_beside(run, Path(folder), trials, workers)
            print(f"{name}: {[round(s, 2) for s in beside]} s a trial beside its training", flush=True)
    ray.shutdown()


def main(request: Request) -> None:
    if request.scaling:
        scaling(request.turns, request.clips, request.seconds, request.batch)
    if request.trials:
        trial_overhead()


if __name__ == "__main__":
    main(tyro.cli(Request))
