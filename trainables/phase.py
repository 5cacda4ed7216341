"""A phase of a study through Ray Tune, and the thin layer through which Tune asks the ledger what to do.

Optuna decides, Ray executes, one store remembers: Tune's searcher and scheduler here hold no knowledge of
their own. What was proposed, reported and stopped is in the ledger (searchspace.study), what was computed in
the run folders; Tune's own experiment state is never restored.
"""

from __future__ import annotations

import functools
import logging
import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ray import tune
from ray.tune.schedulers import FIFOScheduler, TrialScheduler
from ray.tune.search import Searcher

from searchspace.study import Ledger
from trainables import retention
from trainables.cluster import (
    Room,
    anchor_elastic_training,
    keep_credentials_out_of_logs,
    outlive_memory_monitor,
)
from trainables.conductor import Conductor
from trainables.failures import DiskFull, full_disk_line
from trainables.forgetting import Silent, forget_ended
from trainables.gauges import gauges
from trainables.interruption import BetweenSteps
from trainables.progress import Progress
from trainables.trial import Place, WarmTrial


@contextmanager
def kept(conductor: Conductor) -> Iterator[None]:
    """Tune turns an exception of its searcher or scheduler into a traceback in words, and goes on with one
    that comes when a trial ends, taking it for the trial's; keep it as it is, to be raised at the next
    question."""
    if conductor.broken:
        raise conductor.broken
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

    os.environ["TUNE_DISABLE_SIGINT_HANDLER"] = "1"  # trainables.interruption has ours
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
    interruption = BetweenSteps()
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
            callbacks=[Silent(), interruption],
            verbose=0,
        ),
    )
    try:
        with interruption:
            tuner.fit()
    except Exception as error:
        if conductor.broken:
            raise conductor.broken from None
        if full_disk_line(str(error)):  # it was Tune's own state that found no room
            raise DiskFull(full_disk_line(str(error)), Path(place.study)) from None
        raise
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    if conductor.broken:
        raise conductor.broken
    if conductor.checkpoints:
        conductor.checkpoints.close()
