"""Between whoever runs the trials and the study's ledger: what Ray Tune asks and tells, as calls on a ledger.

It knows nothing of Ray's classes, so that tests run it without Ray.
"""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from searchspace.study import Job, Ledger
from trainables import retention
from trainables.checkpoint import CheckpointError
from trainables.failures import (
    MEMORY_RETRIES,
    PREEMPTIONS,
    RETRIES,
    DiskFull,
    Failure,
    Notes,
    failure_of,
)
from trainables.folder import read_epochs, read_record
from trainables.inherit import inherit
from trainables.progress import Progress
from trainables.trial import STOP, Place


class Conductor:
    """The trials of one phase: those under way, those to be taken up again, and what ended each."""

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
