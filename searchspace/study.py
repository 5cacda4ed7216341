"""The one memory of a search: an Optuna study in a database.

Proposals, seeds, intermediate values, states and reasons live there and nowhere else; whoever runs the trials
(Ray, a test, a plain loop) asks a `Ledger` for jobs and tells it what happened. Reopening the database is
resuming the study.
"""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import optuna
from optuna.trial import FrozenTrial, TrialState

from searchspace import extension
from searchspace.methods import Pruner
from searchspace.objectives import Objectives, Ranking
from searchspace.objectives import Second as Second
from searchspace.proposals import COUNTED, waits
from searchspace.proposals import Proposals as Proposals
from searchspace.proposals import run_folder as run_folder
from searchspace.proposals import seed_for as seed_for
from searchspace.pruners import Curve
from searchspace.published import Published
from searchspace.storage import DETAILS, at_once, details_of, set_attributes, trials_of
from searchspace.storage import open_storage as open_storage
from searchspace.storage import sqlite_url as sqlite_url
from searchspace.storage import without_password as without_password
from searchspace.tally import Tally
from searchspace.waiting import Waiting

optuna.logging.set_verbosity(optuna.logging.WARNING)


@dataclass(frozen=True)
class Job:
    """One training to be run.

    `number` is its trial number in the ledger; `trial` the configuration's (the search trial that proposed
    it), `repeat` 0 for the search run and 1, 2, … for confirmation; `folder` is relative to the study's;
    `test`: whether the test split is read after the last epoch; `until`: the epoch after which it is let
    wait, 0 for none before the last; `parent`: the folder of the run that it goes on as a copy of, from the
    epoch `born` on.
    """

    number: int
    trial: int
    repeat: int
    phase: str
    values: dict[str, Any]
    seed: int
    epochs: int
    folder: str
    origin: str = "sampler"
    test: bool = False
    until: int = 0
    parent: str = ""
    born: int = 0

    @property
    def stops_at(self) -> int:
        """The epoch after which it ends or waits."""
        return self.until or self.epochs


class Spending(NamedTuple):
    """What a search may cost: `epochs` trained in all, `seconds` of the driver's time; None is no limit."""

    epochs: int | None = None
    seconds: float | None = None


UNLIMITED = Spending()


class Ledger:
    """The trials of one phase ("search", "confirm", "table"): who runs, what came out, and whether to go on.

    Higher objective values are better. `proposals` makes new trials; without it the ledger only hands out
    planned ones. `more`, where it is set, is shown the rows once these are out and gives the next jobs.
    """

    def __init__(
        self,
        storage: optuna.storages.BaseStorage,
        phase: str,
        *,
        pruner: Pruner,
        proposals: Proposals | None = None,
        study: str = "",
        second: Second | None = None,
        spending: Spending = UNLIMITED,
    ) -> None:
        self.phase, self.pruner, self.proposals, self._storage = phase, pruner, proposals, storage
        self.second, self.spending = second, spending
        self.more: Callable[[Sequence[Mapping[str, Any]]], Iterable[Job]] | None = None
        name = f"{study} {phase}".strip()
        self._objectives = Objectives(second)
        directions = self._objectives.directions
        optuna.create_study(storage=storage, study_name=name, directions=directions, load_if_exists=True)
        name = extension.current(storage, name, proposals)
        self.study = optuna.load_study(study_name=name, storage=storage)
        self._ranking = Ranking(self._objectives)
        counted = COUNTED | {"started": _is_started, "finished": _is_finished, "epochs": _trained}
        self._tally = Tally(self.study, counted, self._ranking.add)
        self._waiting = Waiting(self.study, pruner, proposals, self._objectives) if proposals else None
        self._began = time.monotonic() - self.study.user_attrs.get("seconds", 0.0)

    def next_job(self) -> Job | None:
        """The next planned job, a training that is to go on, or a fresh proposal; None when there is none (at
        the moment, if trainings are under way)."""
        planned = any(t.state == TrialState.WAITING for t in self._tally.open())
        if self.more and not planned:
            self.plan(jobs := list(self.more(self.rows())))
            planned = bool(jobs)
        if self.proposals is None or self._waiting is None:
            return self._job(self._trials()[self.study.ask().number]) if planned else None
        if self.spent():
            return None
        started = self.started() >= self.proposals.trials
        number = self._waiting.next(started=started, closing=False)
        if number is None and not started:
            trial = self.proposals.ask(self._tally, self._waiting.first)
            number = trial.number if trial else None
        under_way = any(t.state == TrialState.RUNNING and not waits(t) for t in self._tally.open())
        if number is None and not under_way:
            number = self._waiting.next(started=started, closing=True)
        return None if number is None else self._job(self._trials()[number])

    def spent(self) -> str | None:
        """Why no training may go on or be started, or None."""
        if self.spending.epochs is not None and self._tally.sum("epochs") >= self.spending.epochs:
            return f"the budget of {self.spending.epochs} epochs is spent"
        if self.spending.seconds is not None and time.monotonic() - self._began >= self.spending.seconds:
            return f"the budget of {clock(self.spending.seconds)} is spent"
        return None

    def plan(self, jobs: Iterable[Job]) -> None:
        """Write down jobs to be handed out in this order; those already written down are kept as they are."""
        known = {
            (t.user_attrs["trial"], t.user_attrs["repeat"])
            for t in self._trials()
            if "repeat" in t.user_attrs
        }
        for job in jobs:
            if (job.trial, job.repeat) not in known:
                attributes = {k: v for k, v in asdict(job).items() if k != "number"}
                self.study.add_trial(
                    optuna.trial.create_trial(state=TrialState.WAITING, user_attrs=attributes)
                )

    def enqueue(self, rows: Iterable[Published], at_most: int) -> None:
        """Have the papers' own configurations run first, the first `at_most` that the pins and the clips
        allow (once)."""
        assert self.proposals is not None, "a ledger of planned jobs proposes nothing"
        open_still = (TrialState.WAITING, TrialState.RUNNING)
        alive = [t for t in self._trials() if t.state in open_still or "values" in t.user_attrs]
        known = {t.user_attrs.get("origin") for t in alive}
        starts = list(itertools.islice(self.proposals.warm_starts(rows), at_most))
        for origin, values in starts:
            if origin not in known:
                params = self.proposals.placed(values).params
                self.study.enqueue_trial(params, user_attrs={"origin": origin})

    def unfinished(self) -> list[Job]:
        """Jobs that were running when the last driver ended, or that a budget stopped which has been raised
        since. What it was writing down when it ended is settled first."""
        jobs = []
        for trial in self._running():
            if "values" not in trial.user_attrs:
                self._settle(trial)
            elif not waits(trial) and not (trial.user_attrs.get("truncated") and self.spent()):
                if trial.user_attrs.get("truncated"):
                    for name in ("reason", "truncated"):
                        self._set(trial, name, "")
                jobs.append(self._job(trial))
        return jobs

    def _settle(self, trial: FrozenTrial) -> None:
        """Bring to its end what a killed driver was doing with a proposal: a published row waits again, an
        answer or a refusal is told, and what was being drawn is told FAIL, to be drawn again from the same
        seed."""
        known = trial.user_attrs.get("known")
        before = self._trials()[known] if known is not None else None
        if before is not None and before.state == TrialState.COMPLETE:
            self.study.tell(trial.number, before.values)
        elif before is None and "reason" in trial.user_attrs:
            self.study.tell(trial.number, state=TrialState.PRUNED)
        elif before is None and "fixed_params" in trial.system_attrs:
            self._storage.set_trial_state_values(trial._trial_id, TrialState.WAITING)
        else:
            self.study.tell(trial.number, state=TrialState.FAIL)

    def started(self) -> int:
        """How many trials of --trials have been handed out; further seeds on a rung, and copies, are none of
        them."""
        return self._tally.sum("started")

    def report(self, job: Job, epoch: int, value: float, second: float | None = None) -> str | None:
        """Write down the objectives after `epoch`; the reason to stop the trial there, or to let it wait, or
        None to go on.

        The verdict is written before the value: an epoch the ledger knows has been judged, and is not judged
        again (a second report of it repeats the verdict) when more trials have come to its rung in between.
        """
        known = self._trials()[job.number]
        if epoch in known.intermediate_values:
            return known.user_attrs.get("reason") or None if epoch == max(known.intermediate_values) else None
        if second is not None:
            self._set(known, "second", known.user_attrs.get("second", {}) | {str(epoch): second})
        reason = self._verdict(known, job, epoch, value, second)
        if (reason or "") != known.user_attrs.get("reason", ""):
            self._set(known, "reason", reason or "")
        self._storage.set_trial_intermediate_value(known._trial_id, epoch, value)
        if self.spending.seconds is not None:
            self.study.set_user_attr("seconds", time.monotonic() - self._began)
        if reason is None and epoch < job.epochs and (spent := self.spent()):
            reason = f"truncated at epoch {epoch} of {job.epochs}: {spent}"
            self._set(known, "truncated", True)
            self._set(known, "reason", reason)
        return reason

    def _verdict(
        self, trial: FrozenTrial, job: Job, epoch: int, value: float, second: float | None
    ) -> str | None:
        if epoch >= job.epochs:
            return None
        if epoch >= job.stops_at:
            return f"paused at epoch {epoch}"
        if not self.pruner.judges(epoch, job.epochs):
            return None
        before = self._objectives.curve(trial)
        seen = {} if second is None else {epoch: self._objectives.sign * second}
        if not seen and before.second:  # a prediction: the same after every epoch
            seen = {epoch: next(iter(before.second.values()))}
        own = Curve(job.number, {**before.values, epoch: value}, {**before.second, **seen})
        others = [self._objectives.curve(t) for t in self._jobs() if t.number != job.number]
        return self.pruner.stop_reason(own, epoch, job.epochs, others)

    def reported(self, job: Job) -> int:
        """The last epoch that is written down."""
        return max(self._trials()[job.number].intermediate_values, default=0)

    def count(self, job: Job, what: str) -> None:
        """One more of the job's "retries" or "preemptions"."""
        self._set(self._trials()[job.number], what, self.counted(job, what) + 1)

    def counted(self, job: Job, what: str) -> int:
        return self._trials()[job.number].user_attrs.get(what, 0)

    def finish(
        self,
        job: Job,
        outcome: str,
        reason: str = "",
        details: Mapping[str, Any] | None = None,
        *,
        avoid: str = "",
    ) -> str:
        """Tell what became of a job, once: a job already finished stays as it is. Returns the outcome.

        `outcome` is COMPLETE, PRUNED, DIVERGED or FAIL. COMPLETE takes its value from the last report. A
        DIVERGED trial is told PRUNED with a violated constraint: the sampler ranks it below every other,
        however far it came. FAIL is for the machine's faults, from which there is nothing to learn; with
        `avoid` ("memory") it is the configuration's after all, and the sampler is told so in the same way.
        One that waits at a rung, or was stopped by a budget, is PAUSED: it can go on, so nothing is told.
        """
        trial = self._trials()[job.number]
        if trial.state.is_finished():
            return _outcome(trial)
        last = max(trial.intermediate_values, default=0)
        if outcome == "PRUNED" and (waits(trial) or trial.user_attrs.get("truncated")):
            self._set(trial, DETAILS, _plain(details or {}))
            return "PAUSED"
        if outcome == "DIVERGED":
            avoid = "diverged"
        with at_once(self.study, trial._trial_id):
            if avoid:
                optuna.trial.Trial(self.study, trial._trial_id).set_constraint(avoid, 1.0)
            told = {"outcome": outcome, "reason": reason, DETAILS: _plain(details or {})}
            set_attributes(self.study, trial._trial_id, told)
            if outcome == "COMPLETE":
                self.study.tell(job.number, self._objectives.told(trial, last))
            else:
                learns_nothing = outcome == "FAIL" and not avoid
                self.study.tell(job.number, state=TrialState.FAIL if learns_nothing else TrialState.PRUNED)
        return outcome

    def rows(self) -> list[dict[str, Any]]:
        """One flat record a run, as `trials.parquet` holds them (reports read the columns by these names)."""
        self.study.get_trials(deepcopy=False)  # lest Optuna's cache keep each trial's first state beside ours
        trials = [t for t in self._jobs() if t.state != TrialState.WAITING]
        front = self._ranked().front() if self.second else set()
        standing = self._waiting.standing() if self._waiting else {}
        details = details_of(self.study)
        rows = []
        for t in trials:
            row = self._row(t, details.get(t.number, {}))
            if t.number in standing:
                row["reason"] = standing[t.number]
            if self.second:
                row |= {self.second.name: self._objectives.second_of(t), "pareto": t.number in front}
            rows.append(row)
        return rows

    def best(self, count: int) -> list[Job]:
        """The `count` best configurations by the mean value of their COMPLETE trials, best first, each by its
        first one (see Ranking)."""
        return [self._job(trial) for trial in self._ranked().best(count)]

    def refused(self) -> list[dict[str, Any]]:
        """The configurations that were not run, each with the reason."""
        return [
            {"trial": t.number, "reason": t.user_attrs["reason"], "values": t.user_attrs["proposed"]}
            for t in self._trials()
            if "proposed" in t.user_attrs
        ]

    def going_on(self, *, closing: bool = False) -> set[str]:
        """Folders of the runs that are under way, that a budget stopped, or, but for when the phase is
        `closing`, that wait at a rung: those that can go on from where they are."""
        running = [t for t in self._running() if "values" in t.user_attrs]
        return {t.user_attrs["folder"] for t in running if not (closing and waits(t))}

    def finished(self) -> int:
        """How many runs have ended, however they did, or wait."""
        return self._tally.sum("finished")

    def _trials(self) -> Sequence[FrozenTrial]:
        return trials_of(self.study)

    def _ranked(self) -> Ranking:
        self._tally.open()  # shows the ranking what has ended since
        return self._ranking

    def _running(self) -> list[FrozenTrial]:
        return [t for t in self._tally.open() if t.state == TrialState.RUNNING]

    def _jobs(self) -> list[FrozenTrial]:
        """The trials of this study's own: not what was refused, known, or learned from another study."""
        return [t for t in self._trials() if "values" in t.user_attrs]

    def _set(self, trial: FrozenTrial, name: str, value: Any) -> None:
        self._storage.set_trial_user_attr(trial._trial_id, name, value)

    def _job(self, trial: FrozenTrial) -> Job:
        fields = {k: v for k, v in trial.user_attrs.items() if k in Job.__dataclass_fields__}
        return Job(number=trial.number, **fields)

    def _row(self, trial: FrozenTrial, details: Mapping[str, Any]) -> dict[str, Any]:
        job = self._job(trial)
        finite = {e: v for e, v in trial.intermediate_values.items() if math.isfinite(v)}
        started = trial.datetime_start.isoformat(timespec="seconds") if trial.datetime_start else ""
        return {
            "trial": job.trial,
            "repeat": job.repeat,
            "phase": job.phase,
            "seed": job.seed,
            "state": _outcome(trial),
            "reason": trial.user_attrs.get("reason", ""),
            "origin": job.origin,
            "epochs": max(finite, default=0),
            "score": finite[max(finite)] if finite else math.nan,
            **dict.fromkeys(("parameters", "macs", "memory")),
            **trial.user_attrs.get("costs", {}),
            **({"parameters": details["parameters"]} if details.get("parameters") is not None else {}),
            "seconds": details.get("seconds"),
            "retries": trial.user_attrs.get("retries", 0),
            "preemptions": trial.user_attrs.get("preemptions", 0),
            "started": started,
            "folder": job.folder,
            **{f"config.{name}": value for name, value in job.values.items()},
            **details.get("metrics", {}),
        }


def now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S%z")


def clock(seconds: float) -> str:
    """A length of time as it is asked for: 90 s → "1.5m"."""
    for unit, length in (("h", 3600), ("m", 60)):
        if seconds >= length:
            return f"{seconds / length:g}{unit}"
    return f"{seconds:g}s"


def _outcome(trial: FrozenTrial) -> str:
    """What became of a trial, as the tables say it: one that waits was stopped early."""
    if trial.state.is_finished():
        return trial.user_attrs.get("outcome", "RUNNING")
    return "PRUNED" if waits(trial) or trial.user_attrs.get("truncated") else "RUNNING"


def _is_started(trial: FrozenTrial) -> bool:
    further = trial.user_attrs.get("origin", "").startswith(("seed ", "copy "))
    return "values" in trial.user_attrs and trial.state != TrialState.WAITING and not further


def _is_finished(trial: FrozenTrial) -> bool:
    return "values" in trial.user_attrs and (trial.state.is_finished() or waits(trial))


def _trained(trial: FrozenTrial) -> int:
    """Epochs."""
    if "values" not in trial.user_attrs:
        return 0
    return max(trial.intermediate_values, default=0) - trial.user_attrs.get("born", 0)


def _plain(value: Any) -> Any:
    """JSON the database can hold: NaN and inf as None inside details."""
    if isinstance(value, Mapping):
        return {k: _plain(v) for k, v in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value
