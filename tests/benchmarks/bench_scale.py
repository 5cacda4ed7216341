"""What a trial costs beside its training, and what the driver's memory holds, as trials grow many.

    python tests/benchmarks/bench_scale.py [--trials 10000] [--sampler random] [--concurrent 4]

Runs a trivial trial of three epochs through the real path (Ledger in SQLite, Conductor, run folder,
checkpoint, Tune with warm actors) and, in the same run, a trivial class trainable of as many results and a
checkpoint through plain Ray Tune with OptunaSearch, its study in memory and then, as ours, in SQLite (actors
warm too). All draw from the same space with the same sampler. Every tenth of the trials it prints, for each,
CPU and wall milliseconds a trial and the memory that the driver has come to hold since the contestant began.
"""

from __future__ import annotations

import functools
import os
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import optuna
import psutil
import ray
import tyro
from ray import tune
from ray.tune.search import ConcurrencyLimiter
from ray.tune.search.optuna import OptunaSearch

from searchspace import record
from searchspace.methods import PRUNERS, SAMPLERS
from searchspace.study import Ledger, Proposals, open_storage, sqlite_url
from tests.every_write import GOAL, Walk
from tests.kill_matrix import At
from trainables import retention
from trainables.folder import RunFolder
from trainables.phase import run_phase
from trainables.progress import Progress
from trainables.trial import Place, WarmTrial

EPOCHS = 3


@dataclass
class Request:
    trials: int = 1000
    sampler: str = "random"
    concurrent: int = 2
    ours_only: bool = False


@dataclass
class Meter:
    """CPU and wall seconds of the driver and its memory, at every tenth of `trials`."""

    trials: int
    ended: int = 0
    lines: list[tuple[int, float, float, float]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._last = time.process_time(), time.monotonic(), 0
        self._held = psutil.Process().memory_info().rss

    def one(self) -> None:
        self.ended += 1
        if self.ended % max(1, self.trials // 10) == 0:
            cpu, wall, before = self._last
            count = self.ended - before
            now = time.process_time(), time.monotonic(), self.ended
            memory = (psutil.Process().memory_info().rss - self._held) / 1e6
            each = 1000 * (now[0] - cpu) / count, 1000 * (now[1] - wall) / count
            self.lines.append((self.ended, *each, memory))
            print(
                f"  {self.ended:6d}  CPU {each[0]:6.1f} ms  wall {each[1]:7.1f} ms  {memory:+6.0f} MB",
                flush=True,
            )
            self._last = now


class Trivial(WarmTrial):
    def open(self) -> RunFolder:
        walk: Any = Walk(self.job.values, self.job.seed, self.job.epochs)
        return RunFolder(Path(self.place.study) / self.job.folder, walk, {})


class Plain(tune.Trainable):
    def setup(self, config: dict[str, Any]) -> None:
        self.value, self.epoch = config["lr"], 0

    def step(self) -> dict[str, Any]:
        self.epoch += 1
        return {GOAL: self.value * self.epoch, "done": self.epoch == EPOCHS}

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        (Path(checkpoint_dir) / "epoch").write_text(str(self.epoch))

    def load_checkpoint(self, checkpoint: Any) -> None:
        self.epoch = int((Path(checkpoint) / "epoch").read_text())

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        self.setup(new_config)
        return True


class Count(tune.Callback):
    def __init__(self, one: Callable[[], None]) -> None:
        self._one = one

    def on_trial_complete(self, iteration: int, trials: Any, trial: Any, **info: Any) -> None:
        self._one()


def suggest(trial: Any) -> dict[str, Any]:
    return {
        "lr": trial.suggest_float("lr", 1e-4, 1e-2, log=True),
        "dropout": trial.suggest_float("dropout", 0.0, 0.5),
        "width": trial.suggest_categorical("width", [0.25, 0.5, 1.0]),
        "layers": trial.suggest_int("layers", 1, 6),
    }


def ours(folder: Path, request: Request, meter: Meter) -> None:
    proposals = Proposals(
        suggest=suggest,
        complete=dict,
        sampler=SAMPLERS[request.sampler],
        pins={},
        trials=request.trials,
        epochs=EPOCHS,
        seed=0,
    )
    storage = open_storage(sqlite_url(folder / "study.db"))
    book = Ledger(storage, "search", pruner=PRUNERS["none"], proposals=proposals)
    place = Place("walk", "none", str(folder), GOAL)
    tables = record.Tables(folder, book.rows)

    def ended() -> None:
        meter.one()
        tables.refresh()

    with (
        open(os.devnull, "w") as nowhere,
        tables,
        Progress("search", request.trials, EPOCHS, stream=nowhere) as progress,
    ):
        run_phase(
            book,
            place,
            progress,
            room=At(request.concurrent),
            ended=ended,
            kept=retention.best(3),
            trial=Trivial,
        )
    assert book.finished() == request.trials


def plain(folder: Path, request: Request, meter: Meter, *, database: str | None = None) -> None:
    samplers = {
        "random": lambda: optuna.samplers.RandomSampler(seed=0),
        "tpe": lambda: optuna.samplers.TPESampler(multivariate=True, group=True, constant_liar=True, seed=0),
    }
    storage = optuna.storages.RDBStorage(sqlite_url(folder / database)) if database else None
    sampler = samplers[request.sampler]()
    search = OptunaSearch(space=_space, metric=GOAL, mode="max", sampler=sampler, storage=storage)
    results = tune.Tuner(
        tune.with_resources(Plain, {"cpu": 1}),
        tune_config=tune.TuneConfig(
            search_alg=ConcurrencyLimiter(search, max_concurrent=request.concurrent),
            num_samples=request.trials,
            reuse_actors=True,
        ),
        run_config=tune.RunConfig(storage_path=str(folder), callbacks=[Count(meter.one)], verbose=0),
    ).fit()
    assert not results.errors and len(results) == request.trials, results.errors


def _space(trial: Any) -> None:
    suggest(trial)


def main(request: Request) -> None:
    ray.init(
        address="local",
        num_cpus=request.concurrent,
        include_dashboard=False,
        log_to_driver=False,
        logging_level="ERROR",
    )
    contestants: dict[str, Callable[[Path, Request, Meter], None]] = {"ours": ours}
    if not request.ours_only:
        contestants |= {
            "plain Tune + OptunaSearch": plain,
            "the same, SQLite": functools.partial(plain, database="optuna.db"),
        }
    totals = {}
    for name, run in contestants.items():
        print(name, flush=True)
        meter, began, cpu = Meter(request.trials), time.monotonic(), time.process_time()
        with tempfile.TemporaryDirectory() as folder:
            run(Path(folder), request, meter)
        totals[name] = (time.process_time() - cpu, time.monotonic() - began)
    for name, (cpu, wall) in totals.items():
        each = f"CPU {1000 * cpu / request.trials:.1f} ms, wall {1000 * wall / request.trials:.1f} ms a trial"
        print(f"{name}: {request.trials} trials, {request.sampler}: {each} in the driver")
    ray.shutdown()


if __name__ == "__main__":
    main(tyro.cli(Request))
