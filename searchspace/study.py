"""The one memory of a search: an Optuna study in a database.

Proposals, seeds, intermediate values, states and reasons live there and nowhere else; whoever runs the trials
(Ray, a test, a plain loop) asks a `Ledger` for jobs and tells it what happened. Reopening the database is
resuming the study.
"""

from __future__ import annotations

import functools
import hashlib
import itertools
import json
import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState

from searchspace.methods import Asha, NoPruning
from searchspace.pins import Pinned, Replayed, agrees, knob
from searchspace.published import Published

optuna.logging.set_verbosity(optuna.logging.WARNING)

DRAWS = 32  # how often in a row an impossible proposal is drawn again


@dataclass(frozen=True)
class Job:
    """One training to be run.

    `number` is its trial number in the ledger; `trial` the configuration's (the search trial that proposed
    it), `repeat` 0 for the search run and 1, 2, … for confirmation; `folder` is relative to the study's;
    `test`: whether the test split is read after the last epoch.
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


def seed_for(study_seed: int, values: Mapping[str, Any], repeat: int) -> int:
    """A 31-bit seed that depends on the study's seed, the configuration and the repeat alone, on every
    machine."""
    text = json.dumps([study_seed, dict(values), repeat], sort_keys=True)
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big") >> 1


def open_storage(url: str) -> optuna.storages.RDBStorage:
    """The study database. Raises ValueError naming the URL if it can't be opened."""
    options = {"connect_args": {"timeout": 60}} if url.startswith("sqlite") else {}
    try:
        return optuna.storages.RDBStorage(url, engine_kwargs=options)
    except Exception as error:  # SQLAlchemy's, the driver's or alembic's: all mean the same to the user
        raise ValueError(
            f"cannot open the study database {without_password(url)}: {error}".splitlines()[0]
        ) from error


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
        pruner: Asha | NoPruning,
        proposals: Proposals | None = None,
        study: str = "",
    ) -> None:
        self.phase, self.pruner, self.proposals, self._storage = phase, pruner, proposals, storage
        self.more: Callable[[Sequence[Mapping[str, Any]]], Iterable[Job]] | None = None
        name = f"{study} {phase}".strip()
        self.study = optuna.create_study(
            storage=storage, study_name=name, direction="maximize", load_if_exists=True
        )
        self._study_id = storage.get_study_id_from_name(name)

    def next_job(self) -> Job | None:
        """The next planned job, or a fresh proposal; None when neither is left."""
        planned = any(t.state == TrialState.WAITING for t in self._trials())
        if self.more and not planned:
            self.plan(jobs := list(self.more(self.rows())))
            planned = bool(jobs)
        if self.proposals is None:
            return self._job(self._trials()[self.study.ask().number]) if planned else None
        if self.started() >= self.proposals.trials:
            return None
        trial = self.proposals.ask(self.study)
        return self._job(self._trials()[trial.number]) if trial else None

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
        alive = [t for t in self._trials() if t.state == TrialState.WAITING or "values" in t.user_attrs]
        known = {t.user_attrs.get("origin") for t in alive}
        starts = list(itertools.islice(self.proposals.warm_starts(rows), at_most))
        for origin, values in starts:
            if origin not in known:
                replayed = Replayed(values)
                self.proposals.knobs(replayed)
                self.study.enqueue_trial(replayed.params, user_attrs={"origin": origin})

    def unfinished(self) -> list[Job]:
        """Jobs that were running when the last driver ended. Proposals it never wrote down whole are told
        FAIL."""
        jobs = []
        for trial in self._trials(TrialState.RUNNING):
            if "values" in trial.user_attrs:
                jobs.append(self._job(trial))
            else:
                self.study.tell(trial.number, state=TrialState.FAIL)
        return jobs

    def started(self) -> int:
        return sum("values" in t.user_attrs and t.state != TrialState.WAITING for t in self._trials())

    def report(self, job: Job, epoch: int, value: float) -> str | None:
        """Write down the objective after `epoch`; the reason to stop the trial there, or None to go on.

        The verdict is written before the value: an epoch the ledger knows has been judged, and is not judged
        again (a second report of it repeats the verdict) when more trials have come to its rung in between.
        """
        known = self._trials()[job.number]
        if epoch in known.intermediate_values:
            return known.user_attrs.get("reason") or None if epoch == max(known.intermediate_values) else None
        others = [t.intermediate_values[epoch] for t in self._trials() if epoch in t.intermediate_values]
        reason = (
            None
            if epoch >= job.epochs
            else self.pruner.stop_reason(value, epoch, job.epochs, [*others, value])
        )
        self._storage.set_trial_user_attr(self._id(job), "reason", reason or "")
        self._storage.set_trial_intermediate_value(self._id(job), epoch, value)
        return reason

    def finish(
        self, job: Job, outcome: str, reason: str = "", details: Mapping[str, Any] | None = None
    ) -> None:
        """Tell what became of a job, once: a job already finished stays as it is.

        `outcome` is COMPLETE, PRUNED, DIVERGED or FAIL. COMPLETE takes its value from the last report. A
        DIVERGED trial is told PRUNED with a violated constraint: the sampler ranks it below every other,
        however far it came. FAIL is for the machine's faults, from which there is nothing to learn.
        """
        trial = self._trials()[job.number]
        if trial.state.is_finished():
            return
        last = max(trial.intermediate_values, default=0)
        if outcome == "DIVERGED":
            optuna.trial.Trial(self.study, self._id(job)).set_constraint("diverged", 1.0)
        for name, value in {"outcome": outcome, "reason": reason, "details": _plain(details or {})}.items():
            self._storage.set_trial_user_attr(self._id(job), name, value)
        if outcome == "COMPLETE":
            self.study.tell(job.number, trial.intermediate_values[last])
        else:
            self.study.tell(job.number, state=TrialState.FAIL if outcome == "FAIL" else TrialState.PRUNED)

    def rows(self) -> list[dict[str, Any]]:
        """One flat record a run, as `trials.parquet` holds them (reports read the columns by these names)."""
        trials = [t for t in self._trials() if "values" in t.user_attrs and t.state != TrialState.WAITING]
        return [self._row(t) for t in trials]

    def best(self, count: int) -> list[Job]:
        """The `count` best COMPLETE jobs by value, best first; ties go to the earlier trial."""
        complete = [t for t in self._trials(TrialState.COMPLETE) if "values" in t.user_attrs]
        ranked = sorted(complete, key=lambda t: (-(t.value or 0.0), t.number))
        return [self._job(t) for t in ranked[:count]]

    def finished(self) -> int:
        """How many runs have ended, however they did."""
        return sum("values" in t.user_attrs and t.state.is_finished() for t in self._trials())

    def _trials(self, *states: TrialState) -> list[FrozenTrial]:
        return self.study.get_trials(deepcopy=False, states=states or None)

    def _id(self, job: Job) -> int:
        return self._storage.get_trial_id_from_study_id_trial_number(self._study_id, job.number)

    def _job(self, trial: FrozenTrial) -> Job:
        fields = {k: v for k, v in trial.user_attrs.items() if k in Job.__dataclass_fields__}
        return Job(number=trial.number, **fields)

    def _row(self, trial: FrozenTrial) -> dict[str, Any]:
        job, details = self._job(trial), trial.user_attrs.get("details", {})
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
            "parameters": details.get("parameters"),
            "seconds": details.get("seconds"),
            "started": started,
            "folder": job.folder,
            **{f"config.{name}": value for name, value in job.values.items()},
            **details.get("metrics", {}),
        }


@dataclass(frozen=True)
class Proposals:
    """How the search makes new trials.

    `suggest(trial)` gives the family's knobs; `complete(knobs)` adds every default (and raises ValueError for
    a combination that can't be built); `sampler(seed)` makes a sampler. A fresh sampler is made for each
    trial from (study seed, trial number), so that what is proposed depends on the study's history and not on
    when the driver was restarted.
    """

    suggest: Callable[[Any], dict[str, Any]]
    complete: Callable[[Mapping[str, Any]], dict[str, Any]]
    sampler: Callable[[int], optuna.samplers.BaseSampler]
    pins: Mapping[str, Any]
    trials: int
    epochs: int
    seed: int

    def ask(self, study: optuna.Study) -> optuna.Trial | None:
        """A new running trial with its job written into its attributes.

        A proposal that can't be built is told PRUNED, so that the sampler learns; one that was made before is
        told what came of it then (its seed, and so its result, would be the same). Another is asked for; None
        when DRAWS in a row were known: the space is exhausted. Raises ValueError when as many can't be built.
        """
        for _ in range(DRAWS):
            known = [t for t in study.get_trials(deepcopy=False) if "values" in t.user_attrs]
            number = len(study.get_trials(deepcopy=False))
            study.sampler = self.sampler(seed_for(self.seed, {"trial": number}, 0))
            trial = study.ask()
            try:
                values = self.propose(trial)
            except ValueError as error:
                trial.set_user_attr("reason", str(error))
                study.tell(trial, state=TrialState.PRUNED)
                refused: ValueError | None = error
                continue
            refused = None
            before = next((t for t in known if t.user_attrs["values"] == values), None)
            if before is None:
                self._write_down(trial, values)
                return trial
            if before.state == TrialState.COMPLETE:
                study.tell(trial, before.value)
            else:
                study.tell(trial, state=TrialState.FAIL)  # teaches the sampler nothing it does not know
        if refused:
            raise ValueError(f"{DRAWS} proposals in a row can't be built; the last: {refused}")
        return None

    def _write_down(self, trial: optuna.Trial, values: Mapping[str, Any]) -> None:
        job = {
            "trial": trial.number,
            "repeat": 0,
            "phase": "search",
            "seed": seed_for(self.seed, values, 0),
            "epochs": self.epochs,
            "folder": run_folder(trial.number, 0),
            "origin": trial.user_attrs.get("origin", "sampler"),
            "values": values,  # last: a trial that has it has the rest
        }
        for name, value in job.items():
            trial.set_user_attr(name, value)

    def propose(self, trial: Any) -> dict[str, Any]:
        """Every knob of a trial: suggested, pinned, or default."""
        return self.complete(self.knobs(trial))

    def knobs(self, trial: Any) -> dict[str, Any]:
        """What the space and the pins say of a trial, without the defaults.

        A pin on a knob that the space has, but does not ask for in this trial, does not apply to it. One on a
        knob outside the space applies always, and its choices become a dimension of the search.
        """
        varying = [
            name
            for name, ranges in self.space.items()
            if sum(one["name"] != "CategoricalDistribution" for one in ranges) > 1
        ]
        pinned = Pinned(trial, self.pins, varying)
        values = self.suggest(pinned)
        for name, pin in self.pins.items():
            if name not in self.space:
                values[name] = pinned.suggest_categorical(name, pin) if isinstance(pin, tuple) else pin
        return values

    @functools.cached_property
    def space(self) -> dict[str, list[Any]]:
        """{knob: Optuna's record of its ranges} of the family's space without pins, as drawn at random."""
        return _drawn(self.suggest, self.seed)

    def searched(self) -> dict[str, list[Any]]:
        """The same of what is searched with the pins."""
        return _drawn(self.knobs, self.seed)

    def warm_starts(self, rows: Iterable[Published]) -> Iterator[tuple[str, dict[str, Any]]]:
        """(origin, every knob) of the published rows that agree with the pins and can be built, each
        configuration once."""
        seen: list[dict[str, Any]] = []
        for row in rows:
            fixed = {
                name: pin
                for name, pin in self.pins.items()
                if name not in row.values and name not in self.space and not isinstance(pin, tuple)
            }
            if not row.warm_start or not agrees(row.values, self.pins):
                continue
            try:
                values = self.complete(fixed | dict(row.values))
            except ValueError:  # these clips are too short for it, say
                continue
            if values not in seen:
                seen.append(values)
                changed = ", ".join(f"{name}={pin}" for name, pin in fixed.items())
                source = f"published: {row.paper}, Table {row.table}, {row.row}"
                yield source + (f", with {changed}" if changed else ""), values

    def check(self) -> dict[str, Any]:
        """A random configuration. Raises ValueError if the pins leave no valid point (DRAWS draws without
        one)."""
        study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=self.seed))
        for _ in range(DRAWS):
            try:
                return self.propose(study.ask())
            except ValueError as error:
                last = error
        raise ValueError(f"the search space has no valid point: {last}")


def _drawn(suggest: Callable[[Any], Any], seed: int) -> dict[str, list[Any]]:
    """{knob: its ranges} of everything `suggest` asks for in DRAWS * 4 random draws."""
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=seed))
    found: dict[str, list[Any]] = {}
    for _ in range(DRAWS * 4):
        trial = study.ask()
        suggest(trial)
        for name, distribution in trial.distributions.items():
            record = json.loads(optuna.distributions.distribution_to_json(distribution))
            ranges = found.setdefault(knob(name), [])
            if record not in ranges:
                ranges.append(record)
    return dict(sorted(found.items()))


def run_folder(trial: int, repeat: int) -> str:
    return f"runs/t{trial:04d}-r{repeat}"


def sqlite_url(path: Path) -> str:
    return f"sqlite:///{path.resolve()}"


def now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S%z")


def _outcome(trial: FrozenTrial) -> str:
    return trial.user_attrs.get("outcome", "RUNNING") if trial.state.is_finished() else "RUNNING"


def _plain(value: Any) -> Any:
    """JSON the database can hold: NaN and inf as None inside details."""
    if isinstance(value, Mapping):
        return {k: _plain(v) for k, v in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value


def without_password(url: str) -> str:
    """A database URL fit to be shown and kept; other text as it is."""
    head, at, tail = url.rpartition("@")
    return f"{head.split('://')[0]}://…@{tail}" if at and "://" in head else url
