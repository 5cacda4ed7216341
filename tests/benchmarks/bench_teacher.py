"""Tagging speed: the teacher with Ray actors against a plain loop with the same model, on this machine.

    python tests/benchmarks/bench_teacher.py SHARDS MODEL [--clips 600] [--rounds 3]

The plain loop is what one would write by hand: one process, soundfile, batches of 16, the model with all of
torch's threads (`threads`) or one; it stores its numbers in one array. The teacher also writes the shard set.
Ray's start (some seconds, once) is shown apart. The rounds take turns, so that a busy machine troubles all
alike; the median counts. CPU time a clip, of this process and the actors, tells what is spent where other
programs share the cores and the clock tells little.
"""

from __future__ import annotations

import argparse
import io
import os
import shutil
import statistics
import tempfile
import time
from contextlib import suppress
from itertools import islice
from pathlib import Path

import numpy as np
import psutil
import ray
import soundfile
import torch

from datasets.shards import Index, read_members
from trainables.taggers import load_tagger
from trainables.tagging import Work, tasks
from trainables.teacher import Request, in_actors, teach

BATCH = 16


def cpu_seconds() -> float:
    """Spent so far by this process and by the actors that live."""
    mine = psutil.Process()
    times = [mine.cpu_times()]
    for child in mine.children(recursive=True):
        with suppress(psutil.NoSuchProcess):
            if any("Careful" in word for word in child.cmdline()):
                times.append(child.cpu_times())
    return sum(t.user + t.system for t in times)


def plain_loop(index: Index, model: Path, clips: int, threads: int) -> tuple[float, float]:
    """Clips a second, CPU seconds a clip."""
    tagger = load_tagger(model)
    torch.set_num_threads(threads)
    began, spent, rows = time.monotonic(), cpu_seconds(), []
    for first in range(0, clips, BATCH):
        sounds = []
        for n in range(first, min(first + BATCH, clips)):
            members = read_members(index, "val", n)
            sounds.append(soundfile.read(io.BytesIO(members["flac"]), dtype="float32")[0])
        with torch.inference_mode():
            rows.append(tagger.module(torch.from_numpy(np.stack(sounds))[:, None]).numpy())
    assert sum(map(len, rows)) == clips
    return clips / (time.monotonic() - began), (cpu_seconds() - spent) / clips


def actors_only(index: Index, model: Path, clips: int, actors: int) -> tuple[float, float]:
    """The same of the actors once they are warm, nothing written."""
    work = Work(str(index.root), str(model), BATCH)
    todo = list(islice(tasks(index, ["val"], BATCH, lambda *_: False), clips // 64 + 1))
    counted, began, spent, now = 0, 0.0, 0.0, 0.0
    for n, (_, found) in enumerate(in_actors(work, todo, actors)):
        if n < actors:  # every model is loaded, as good as
            began, spent = time.monotonic(), cpu_seconds()
        else:
            counted, now = counted + len(found), cpu_seconds()
    return counted / (time.monotonic() - began), (now - spent) / counted


def whole(index: Index, model: Path, actors: int) -> tuple[float, float]:
    """The same of a whole run, Ray running: actors' start, reading, tagging, writing, checksums. The CPU time
    of the actors is not in it."""
    out = Path(tempfile.mkdtemp()) / "out"
    began, spent = time.monotonic(), time.process_time()
    root = Path(index.root)
    teach(Request(data=root, model=model, out=out, split=("val",), actors=actors, batch=BATCH))
    seconds, clips = time.monotonic() - began, index.splits["val"].clips
    shutil.rmtree(out.parent)
    return clips / seconds, (time.process_time() - spent) / clips


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("shards")
    parser.add_argument("model", type=Path)
    parser.add_argument("--clips", type=int, default=600)
    parser.add_argument("--rounds", type=int, default=3)
    asked = parser.parse_args()
    index, cores = Index.load(asked.shards), os.cpu_count() or 1
    clips = min(asked.clips, index.splits["val"].clips)
    began = time.monotonic()
    ray.init(num_cpus=cores, include_dashboard=False, log_to_driver=False, logging_level="ERROR")  # type: ignore[arg-type]
    print(f"Ray's start: {time.monotonic() - began:.1f} s; {cores} cores, {clips} clips")
    speeds: dict[str, list[tuple[float, float]]] = {}
    for _ in range(asked.rounds):
        for name, measure in {
            "plain loop, 1 thread": lambda: plain_loop(index, asked.model, clips, 1),
            f"plain loop, {cores} threads": lambda: plain_loop(index, asked.model, clips, cores),
            f"{cores} actors, warm": lambda: actors_only(index, asked.model, clips, cores),
            f"teacher, {cores} actors": lambda: whole(index, asked.model, cores),
            "teacher, in this process": lambda: whole(index, asked.model, 0),
        }.items():
            speeds.setdefault(name, []).append(measure())
    base = statistics.median(speed for speed, _ in speeds[f"plain loop, {cores} threads"])
    for name, found in speeds.items():
        speed, spent = (statistics.median(column) for column in zip(*found))
        rounds = [round(one, 1) for one, _ in found]
        print(
            f"{name:26} {speed:7.1f} clips/s {speed / base:5.2f} x {1000 * spent:6.1f} CPU ms/clip  {rounds}"
        )


if __name__ == "__main__":
    main()
