"""One trial: where it runs, its epochs one by one, and the warm process of Ray Tune's that runs one after
another."""

from __future__ import annotations

import functools
import platform
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import torch
from ray import _raylet, tune

from datasets.mix import open_sources
from datasets.source import Source
from searchspace.families import split
from searchspace.study import Job, now
from trainables import watch
from trainables.allocator import keep_freed_pages
from trainables.checkpoint import CheckpointError
from trainables.engine import Diverged
from trainables.failures import ERRORS
from trainables.folder import Displaced, RunFolder
from trainables.registry import family
from trainables.run import Run
from trainables.watch import watched

LATENCY = "latency"
STOP = "stop"  # a file in the run folder that tells a data-parallel trial to end


@dataclass(frozen=True)
class Place:
    """Where and with what every trial of a study runs.

    family         that of configurations that do not name their own
    second         a second objective that trials measure
    cache          None streams
    events         as in datasets.events
    mix            mixed into every batch (datasets.mix)
    threads        torch's in a trial's process
    workers        of them `least_workers` will do where no more can be had
    hang           seconds without a batch after which a trial's process ends itself (trainables.watch)
    """

    family: str
    data: str
    study: str
    objective: str
    cache: str | None = None
    events: str = "labels"
    mix: tuple[str, ...] = ()
    second: str = ""
    threads: int = 1
    gpus: float = 0.0
    workers: int = 1
    least_workers: int | None = None
    hang: float = field(default_factory=watch.hang_limit)
    sync_batchnorm: bool = True
    provenance: Mapping[str, Any] = field(default_factory=dict)


@functools.lru_cache(maxsize=2)
def warm_source(
    data: str, mix: tuple[str, ...], cache: str | None, events: str, frames: Fraction | None
) -> Source:
    """The shards, opened once a process: later trials find them (and the pages of the cache) ready."""
    return open_sources(data, mix, cache=Path(cache) if cache else None, events=events, frames=frames)


def open_run(job: Job, place: Place, *, rank: int = 0, world: int = 1, device: str = "cpu") -> RunFolder:
    """The job's run, gone on from its checkpoint if it has one."""
    name, knobs = split(job.values, place.family)
    run = Run(
        name,
        knobs,
        warm_source(place.data, tuple(place.mix), place.cache, place.events, family(name).frame_hop),
        seed=job.seed,
        epochs=job.epochs,
        device=device,
        rank=rank,
        world=world,
        statistics_folder=Path(place.cache or place.study),
        sync_batchnorm=place.sync_batchnorm,
    )
    provenance = {**place.provenance, "node": platform.node(), "workers": world}
    folder = RunFolder(Path(place.study) / job.folder, run, provenance, writer=rank == 0)
    if run.epoch < job.born:  # its checkpoint was damaged: the parent's has to be copied again
        raise CheckpointError(f"{folder.path}: its checkpoint of epoch {job.born} or later can't be read")
    return folder


def advance(folder: RunFolder, job: Job, *, latency: bool = False) -> dict[str, Any]:
    """One epoch, as both runners report it: metrics, "epoch", "parameters", "latency" in ms if asked for;
    "diverged" with the reason where it did.

    The test split is read after the last epoch of jobs that ask for it (confirmation runs do). A job that is
    to wait leaves a checkpoint.
    """
    try:
        metrics: dict[str, Any] = dict(folder.next_epoch())
    except Diverged as error:
        return {
            "epoch": folder.run.epoch + 1,
            "diverged": str(error),
            "parameters": folder.run.parameter_count,
        }
    if folder.finished and job.test:
        metrics |= folder.test()
    elif ends(folder, job):
        folder.save()
    timed = {LATENCY: folder.run.latency} if latency else {}
    return metrics | timed | {"parameters": folder.run.parameter_count}


def ends(folder: RunFolder, job: Job) -> bool:
    """Whether the job has come to its last epoch, or to where it waits."""
    return folder.finished or folder.run.epoch >= job.stops_at


@contextmanager
def noted(job: Job, place: Place) -> Iterator[None]:
    """An exception inside is appended to the run folder's error.txt on its way out, the stacks of a hang to
    its hang.txt; the process then ends. One whose run another has taken up ends and leaves no word."""
    folder = Path(place.study) / job.folder
    try:
        with watched(folder, place.hang):
            yield
    except Displaced as error:  # the folder is another process's, and nobody waits for this one
        raise SystemExit(str(error)) from None
    except Exception:
        with suppress(OSError):  # on a full disk, say: the driver is told the exception as well
            folder.mkdir(parents=True, exist_ok=True)
            with open(folder / ERRORS, "a") as file:
                file.write(f"{now()}\n{traceback.format_exc()}\n")
        raise


def named(kind: str, job: Job, epoch: int) -> None:
    """Give this process the name it has on Ray's dashboard: ray::WarmTrial:t0007-r1:epoch-3/27.

    Of a process's title the dashboard (its Cluster page) shows what is before the first space. Ray gives it
    another at the next call.
    """
    _raylet.setproctitle(  # type: ignore[attr-defined]  # of a compiled module
        f"ray::{kind}:{Path(job.folder).name}:epoch-{epoch}/{job.epochs}"
    )


class WarmTrial(tune.Trainable):
    """A trial in one process that stays: torch, the model code and the data cache are ready for the next one.

    `setup` touches no file. Tune may start a process for a trial and then give the trial to one that has
    become free; the late one still runs its `setup`, while the other is training in the same run folder.
    """

    def setup(self, config: dict[str, Any]) -> None:
        self.job, self.place = Job(**config["job"]), Place(**config["place"])
        self.folder: RunFolder | None = None

    def step(self) -> dict[str, Any]:
        with noted(self.job, self.place):
            if self.folder is None:
                torch.set_num_threads(self.place.threads)
                keep_freed_pages()
                self.folder = self.open()
            named(type(self).__name__, self.job, self.folder.run.epoch + 1)
            result = advance(self.folder, self.job, latency=self.place.second == LATENCY)
        # Into this process's log, which Ray's dashboard shows; a process has one trial after another.
        print(f"{Path(self.job.folder).name}  epoch {result['epoch']}/{self.job.epochs}", flush=True)
        return result | {"done": ends(self.folder, self.job) or "diverged" in result}

    def open(self) -> RunFolder:
        return open_run(self.job, self.place, device="cuda" if self.place.gpus > 0 else "cpu")

    @classmethod
    def default_resource_request(cls, config: dict[str, Any]) -> tune.PlacementGroupFactory:
        place = Place(**config["place"])
        return tune.PlacementGroupFactory([{"CPU": place.threads, "GPU": place.gpus}])

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        self.setup(new_config)
        return True
