"""One trial as Ray Tune runs it, and the thin layer through which Tune asks the study's ledger what to do.

Optuna decides, Ray executes, one store remembers: Tune's searcher and scheduler here hold no knowledge of
their own. What was proposed, reported and stopped is in the ledger (searchspace.study), what was computed in
the run folders; Tune's own experiment state is never restored.
"""

from __future__ import annotations

import functools
import logging
import math
import os
import platform
import shutil
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import torch
from ray import tune
from ray.tune.schedulers import FIFOScheduler, TrialScheduler
from ray.tune.search import Searcher

from datasets.mix import open_sources
from datasets.source import Source
from searchspace.families import split
from searchspace.study import Job, Ledger, now
from trainables import retention, watch
from trainables.allocator import keep_freed_pages
from trainables.checkpoint import CheckpointError
from trainables.cluster import (
    Room,
    anchor_elastic_training,
    keep_credentials_out_of_logs,
    outlive_memory_monitor,
)
from trainables.engine import Diverged
from trainables.failures import (
    ERRORS,
    MEMORY_RETRIES,
    PREEMPTIONS,
    RETRIES,
    DiskFull,
    Failure,
    Notes,
    failure_of,
    full_disk_line,
)
from trainables.folder import RunFolder, read_epochs, read_record
from trainables.forgetting import Silent, forget_ended
from trainables.gauges import gauges
from trainables.inherit import inherit
from trainables.progress import Progress
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
    its hang.txt; the process then ends."""
    folder = Path(place.study) / job.folder
    try:
        with watched(folder, place.hang):
            yield
    except Exception:
        with suppress(OSError):  # on a full disk, say: the driver is told the exception as well
            folder.mkdir(parents=True, exist_ok=True)
            with open(folder / ERRORS, "a") as file:
                file.write(f"{now()}\n{traceback.format_exc()}\n")
        raise


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


class Conductor:
    """Turns what Tune asks and tells into calls on a ledger. One per phase; knows nothing of Ray's
    classes."""

    def __init__(
        self,
        ledger: Ledger,
        place: Place,
        progress: Progress,
        ended: Callable[[], None],
        kept: retention.Kept | None = None,
    ) -> None:
        self.ledger, self.place, self.progress, self.ended = ledger, place, progress, ended
        self.checkpoints = retention.Checkpoints(Path(place.study), ledger, kept) if kept else None
        self.live: dict[str, Job] = {}
        self.began: dict[str, tuple[float, Notes]] = {}
        self.verdicts: dict[str, tuple[str, str]] = {}
        self.preemptions: Counter[int] = Counter()  # in a row, without a new epoch
        self.broken: Exception | None = None  # what ends the study, not one trial
        unfinished = ledger.unfinished()
        for job in unfinished:  # before a parent goes on and has another checkpoint
            with suppress(CheckpointError):  # next_job says so
                inherit(Path(place.study), job)
        self.again = [job for job in unfinished if not self._caught_up(job)]
        for job in self.again:
            ledger.count(job, "preemptions")

    def next_job(self, trial_id: str) -> dict[str, Any] | None:
        """A trial's config: jobs to be taken up again first. None when nothing is left to start. A copy whose
        parent has lost its checkpoint is a FAIL."""
        while job := (self.again.pop(0) if self.again else self.ledger.next_job()):
            try:
                inherit(Path(self.place.study), job)
                break
            except CheckpointError as error:
                self._finish(job, "FAIL", str(error), {}, 0.0)
        if job is None:
            return None
        self.live[trial_id] = job
        self.began[trial_id] = time.monotonic(), Notes.at(self._folder(job))
        (self._folder(job) / STOP).unlink(missing_ok=True)  # of when it was let wait
        self.progress.started(job)
        return {"job": asdict(job), "place": asdict(self.place)}

    def result(self, trial_id: str, metrics: Mapping[str, Any]) -> bool:
        """Write down an epoch; whether the trial goes on."""
        if trial_id not in self.live:  # a last word from a process already given up
            return False
        if trial_id in self.verdicts:  # a worker group that has not seen yet that it is to stop
            return True
        job = self.live[trial_id]
        verdict = self._judge(job, metrics)
        if verdict:
            self.verdicts[trial_id] = verdict
        if verdict and self.place.workers > 1:
            # Killing the trial would leave its workers' placement group behind; it ends by itself.
            if int(metrics["epoch"]) < job.stops_at:
                (self._folder(job) / STOP).touch()
            return True
        return verdict is None

    def complete(self, trial_id: str, metrics: Mapping[str, Any]) -> None:
        """Tell the ledger how a trial ended that did not fail."""
        if trial_id not in self.live:
            return
        if "epoch" not in metrics:  # it ended without a word
            return self.fail(trial_id)
        if trial_id not in self.verdicts:  # Tune does not show the last result ("done") to the scheduler
            self.result(trial_id, metrics)
        job = self.live.pop(trial_id)
        outcome, reason = self.verdicts.pop(trial_id, ("COMPLETE", ""))
        self._finish(job, outcome, reason, metrics, time.monotonic() - self.began.pop(trial_id)[0])

    def fail(self, trial_id: str, said: str = "") -> None:
        """A trial's process ended, and the cluster `said` why: its job is started again from its checkpoint,
        or is a FAIL if that was tried often enough. Raises DiskFull where no trial could go on."""
        if trial_id not in self.live:
            return
        job, (began, notes) = self.live.pop(trial_id), self.began.pop(trial_id)
        study = Path(self.place.study)
        failure = failure_of(notes, study, said)
        if failure.kind == "disk":
            raise DiskFull(failure.reason, study)
        self.verdicts.pop(trial_id, None)
        if self._caught_up(job):  # it may have died between an epoch's line and its report
            return
        if self._starts_again(job, failure):
            self.again.append(job)
            self.progress.restarted(job, failure.reason)
        elif failure.kind == "preempted":
            reason = f"{failure.reason}, {PREEMPTIONS + 1} times in a row without a new epoch"
            self._finish(job, "FAIL", reason, {}, time.monotonic() - began)
        else:
            avoid = failure.kind if failure.kind == "memory" else ""
            self._finish(job, "FAIL", failure.reason, {}, time.monotonic() - began, avoid)

    def _starts_again(self, job: Job, failure: Failure) -> bool:
        if failure.kind == "preempted":
            self.ledger.count(job, "preemptions")
            self.preemptions[job.number] += 1
            return self.preemptions[job.number] <= PREEMPTIONS
        tried = self.ledger.counted(job, "retries")
        if tried >= (MEMORY_RETRIES if failure.kind == "memory" else RETRIES):
            return False
        self.ledger.count(job, "retries")
        return True

    def _judge(self, job: Job, metrics: Mapping[str, Any]) -> tuple[str, str] | None:
        """(outcome, reason) if the epoch is the trial's last, for another reason than its length; else
        None."""
        if "diverged" in metrics:
            return "DIVERGED", str(metrics["diverged"])
        if self.place.objective not in metrics:
            return "DIVERGED", f"{self.place.objective} is not measured of such a model"
        value = float(metrics[self.place.objective])
        if not math.isfinite(value):
            return "DIVERGED", f"{self.place.objective} is {value} after epoch {metrics['epoch']}"
        second = float(metrics.get(self.place.second, math.nan)) if self.place.second else None
        if second is not None and not math.isfinite(second):
            return "DIVERGED", f"{self.place.second} is {second} after epoch {metrics['epoch']}"
        if self.preemptions[job.number] and int(metrics["epoch"]) > self.ledger.reported(job):
            del self.preemptions[job.number]
        reason = self.ledger.report(job, int(metrics["epoch"]), value, second)
        self.progress.epoch(job, metrics, value)
        return ("PRUNED", reason) if reason else None

    def _finish(
        self,
        job: Job,
        outcome: str,
        reason: str,
        metrics: Mapping[str, Any],
        seconds: float,
        avoid: str = "",
    ) -> None:
        shown = {k: v for k, v in metrics.items() if k.startswith(("train/", "val/", "test/"))}
        details = {"metrics": shown, "parameters": metrics.get("parameters"), "seconds": round(seconds, 2)}
        told = self.ledger.finish(job, outcome, reason, details, avoid=avoid)
        if self.checkpoints:
            self.checkpoints.ended(job, told)
            self.progress.checkpoint_bytes = self.checkpoints.bytes
        self.progress.finished(job, told, reason)
        self.ended()

    def _folder(self, job: Job) -> Path:
        return Path(self.place.study) / job.folder

    def _caught_up(self, job: Job) -> bool:
        """Report what the run folder knows and the ledger missed when the driver or the trial's process died;
        True if that already ends the job."""
        for line in read_epochs(self._folder(job)):
            verdict = self._judge(job, line)
            if verdict:
                count = {"parameters": read_record(self._folder(job)).get("parameters")}
                self._finish(job, *verdict, line | count, 0.0)
                return True
        return False


@contextmanager
def kept(conductor: Conductor) -> Iterator[None]:
    """Tune turns an exception of its searcher or scheduler into a traceback in words; keep it as it is."""
    try:
        yield
    except Exception as error:
        conductor.broken = error
        raise


class _AskLedger(Searcher):
    """Tune's searcher. Tune pickles it for a restore that never happens, hence the empty state."""

    def __init__(self, conductor: Conductor, room: Callable[[], int]) -> None:
        super().__init__()
        self.conductor, self.room = conductor, room

    def __getstate__(self) -> dict[str, Any]:
        return {}

    def suggest(self, trial_id: str) -> Any:
        with kept(self.conductor):
            if len(self.conductor.live) >= self.room():
                return None
            config = self.conductor.next_job(trial_id)
        if config is None:
            # what is running may have to be started again
            return None if self.conductor.live else Searcher.FINISHED
        return config

    def on_trial_complete(self, trial_id: str, result: dict | None = None, error: bool = False) -> None:
        if not error:
            with kept(self.conductor):
                self.conductor.complete(trial_id, result or {})

    def save(self, checkpoint_path: str) -> None:
        """Nothing to save: the ledger is the memory."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing to restore."""


class _TellLedger(FIFOScheduler):
    """Tune's scheduler; its state is empty for the same reason."""

    def __init__(self, conductor: Conductor) -> None:
        super().__init__()
        self.conductor = conductor

    def __getstate__(self) -> dict[str, Any]:
        return {}

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict) -> str:
        with kept(self.conductor):
            goes_on = self.conductor.result(trial.trial_id, result)
        return TrialScheduler.CONTINUE if goes_on else TrialScheduler.STOP

    def on_trial_complete(self, tune_controller: Any, trial: Any, result: dict) -> None:
        forget_ended(tune_controller)  # of those before it

    def on_trial_error(self, tune_controller: Any, trial: Any) -> None:
        forget_ended(tune_controller)
        with kept(self.conductor):
            self.conductor.fail(trial.trial_id, _said(trial))


def _said(trial: Any) -> str:
    """What Ray says of a trial's last failure (Tune has just written it down on this machine)."""
    try:
        return Path(trial.error_file).read_text(errors="replace").rpartition("Failure #")[2]
    except (OSError, TypeError):
        return ""


def run_phase(
    ledger: Ledger,
    place: Place,
    progress: Progress,
    *,
    room: Room,
    ended: Callable[[], None] = lambda: None,
    kept: retention.Kept | None = None,
    trial: type[WarmTrial] = WarmTrial,
) -> None:
    """Run a ledger's jobs until it has no more, as many at a time as there is `room` for, each with the
    room's share of the cluster.

    With `place.workers` > 1 each trial is a Ray Train group of that many workers, each with that share.
    `ended` is called after each job; `kept` says which ended runs' checkpoints stay, all of them by default.
    """
    from trainables.worker import DRIVER_CPUS, data_parallel_trial

    os.environ["TUNE_DISABLE_SIGINT_HANDLER"] = "1"  # Ctrl-C ends the program, not just this phase of it
    os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")  # the screen is ours
    os.environ.setdefault("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1")
    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)  # errors are in the run folders and the ledger
    os.environ["TUNE_MAX_PENDING_TRIALS_PG"] = (
        "1000"  # a launcher adds nodes for all that wait; `room` limits them
    )
    # Without it Tune itself starts trials of a node that had a spot notice again, uncounted and without end
    os.environ["RAY_TRAIN_COUNT_PREEMPTION_AS_FAILURE"] = "1"
    outlive_memory_monitor()
    keep_credentials_out_of_logs()
    progress.watch = gauges(Path(place.study).name, ledger.phase)
    conductor, cpus = Conductor(ledger, place, progress, ended, kept), room.share.cpus
    phase = ledger.phase  # Tune pickles the functions below
    scratch = Path(place.study).resolve() / ".ray"  # Tune's own state, pickles among it; nobody reads it back
    if place.workers == 1:
        trainable: Any = trial
    else:
        if place.least_workers:
            anchor_elastic_training()
        trainable = tune.with_resources(
            functools.partial(data_parallel_trial, cpus=cpus), {"cpu": DRIVER_CPUS}
        )
    tuner = tune.Tuner(
        trainable,
        tune_config=tune.TuneConfig(
            search_alg=_AskLedger(conductor, room),
            scheduler=_TellLedger(conductor),
            num_samples=-1,
            reuse_actors=place.workers == 1,
            trial_dirname_creator=lambda trial: f"{phase}-{trial.trial_id}",
            trial_name_creator=lambda trial: (
                Path(trial.config["job"]["folder"]).name if trial.config else trial.trial_id
            ),
        ),
        run_config=tune.RunConfig(
            name=f"{ledger.phase}-{int(time.time())}",
            storage_path=str(scratch),
            failure_config=tune.FailureConfig(max_failures=0),  # the conductor starts failed jobs again
            checkpoint_config=tune.CheckpointConfig(checkpoint_frequency=0, checkpoint_at_end=False),
            callbacks=[Silent()],
            verbose=0,
        ),
    )
    try:
        tuner.fit()
    except Exception as error:
        if conductor.broken:
            raise conductor.broken from None
        if full_disk_line(str(error)):  # it was Tune's own state that found no room
            raise DiskFull(full_disk_line(str(error)), Path(place.study)) from None
        raise
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    if conductor.checkpoints:
        conductor.checkpoints.close()
