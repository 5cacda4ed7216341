"""How long a trial takes to start, and what the whole search costs beside the training itself.

    python tests/benchmarks/bench_trials.py [--trials 20]

Runs `--trials` trials of one short epoch through the real program path (Ledger, WarmTrial, Tune with actor
reuse) and as many of a trivial Tune function trainable, one at a time, in one Ray session. A trial's start is
the time from Tune asking for it to its first line of training code: model, front end and data included.
Target: at most 0.1 s after the first.
"""

from __future__ import annotations

import io
import os
import statistics
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")

import ray
import tyro
from ray import tune

from datasets import synthetic
from searchspace.methods import PRUNERS
from searchspace.study import Job, Ledger, open_storage, sqlite_url
from trainables.cluster import Room, Share
from trainables.folder import read_epochs
from trainables.phase import run_phase
from trainables.progress import Progress
from trainables.trial import Place


@dataclass
class Request:
    trials: int = 20


def ours(folder: Path, trials: int) -> tuple[list[float], float]:
    """(seconds each trial spent outside its own epochs, wall seconds of all)."""
    synthetic.build(folder / "shards", train=64, val=32, test=32)
    ledger = Ledger(open_storage(sqlite_url(folder / "study.db")), "bench", pruner=PRUNERS["none"])
    values = {"backbone": "tinycnn", "framework": "csem", "width": 0.25}
    ledger.plan([Job(-1, n, 0, "bench", values, n, 1, f"runs/t{n:04d}-r0") for n in range(trials)])
    place = Place("csem", str(folder / "shards"), str(folder), "val/scene_accuracy", str(folder / "cache"))
    started = time.perf_counter()
    with Progress("bench", trials, 1, stream=io.StringIO()) as progress:
        run_phase(ledger, place, progress, room=Room(Share(1, 1.0, 0.0, at_once=1), progress.say))
    wall = time.perf_counter() - started
    rows = ledger.rows()
    training = [read_epochs(folder / row["folder"])[0]["train/seconds"] for row in rows]
    return [row["seconds"] - seconds for row, seconds in zip(rows, training)], wall


def function_trainable(trials: int) -> list[float]:
    """Seconds from one result to the next of a trivial function trainable, as Tune starts it by default."""

    def trivial(config: dict[str, Any]) -> None:
        tune.report({"begun": time.time()})

    before = time.time()
    results = tune.Tuner(
        tune.with_resources(trivial, {"cpu": 1}),
        tune_config=tune.TuneConfig(num_samples=trials, max_concurrent_trials=1),
        run_config=tune.RunConfig(storage_path=tempfile.mkdtemp(), verbose=0),
    ).fit()
    begun = sorted(r.metrics["begun"] for r in results if r.metrics)
    return [b - a for a, b in zip([before, *begun], begun)]


def main(request: Request) -> None:
    ray.init(num_cpus=1, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    with tempfile.TemporaryDirectory() as folder:
        each, wall = ours(Path(folder), request.trials)
    function = function_trainable(request.trials)
    warm, cold = statistics.median(each[1:]), each[0]
    other = statistics.median(function[1:])
    print("seconds of a trial beside its training (start, validation, checkpoint, ledger)")
    print(f"ours: first {cold:.2f}, later ones {warm:.3f}; {[round(t, 3) for t in each]}; wall {wall:.1f}")
    print(f"function trainable: first {function[0]:.2f}, later ones {other:.3f}")
    print(f"function / ours: {other / warm:.1f}")
    ray.shutdown()


if __name__ == "__main__":
    main(tyro.cli(Request))
