"""How a search makes new trials: the sampler proposes; pins, limits and what is known have their say."""

from __future__ import annotations

import copy
import functools
import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import optuna
from optuna.distributions import BaseDistribution
from optuna.trial import FrozenTrial, TrialState

from searchspace.pins import Pinned, Replayed, agrees, knob, of_family
from searchspace.prior import Prior
from searchspace.published import Published
from searchspace.samplers import Exhausted, Sampler, Space, Turn, points_of
from searchspace.storage import at_once, set_attributes
from searchspace.tally import Tally

DRAWS = 32  # how often in a row an impossible or known proposal is drawn again
REFUSALS = 512  # how often in a row one over a limit is


def seed_for(study_seed: int, values: Mapping[str, Any], repeat: int) -> int:
    """A 31-bit seed that depends on the study's seed, the configuration and the repeat alone, on every
    machine."""
    text = json.dumps([study_seed, dict(values), repeat], sort_keys=True)
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big") >> 1


def run_folder(trial: int, repeat: int) -> str:
    return f"runs/t{trial:04d}-r{repeat}"


class OverLimit(ValueError):
    """A configuration that needs more than a limit allows; `by` {limit: share above it}, 0 at the limit."""

    def __init__(self, message: str, by: Mapping[str, float]) -> None:
        super().__init__(message)
        self.by = by


class History(optuna.Study):
    """The study as samplers see it: a training that waits at a rung has been measured there, so it is shown
    as stopped there (PRUNED) and not as one that nothing is known of (RUNNING)."""

    def __init__(self, tally: Tally) -> None:
        super().__init__(tally.study.study_name, tally.study._storage)
        self._tally = tally

    def _pop_waiting_trial_id(self) -> int | None:
        """Optuna's looks through all trials for one that was planned."""
        return super()._pop_waiting_trial_id() if _planned(self._tally) else None

    def _get_trials(
        self,
        deepcopy: bool = True,
        states: Any = None,
        use_cache: bool = False,
    ) -> list[FrozenTrial]:
        if states is not None and not {TrialState.RUNNING, TrialState.PRUNED} & set(states):
            return super()._get_trials(deepcopy, states, use_cache)
        seen = [_as_measured(t) for t in super()._get_trials(deepcopy, None, use_cache)]
        return [t for t in seen if states is None or t.state in states]


def waits(trial: FrozenTrial) -> bool:
    """Whether a trial has come to the epoch at which it waits for others."""
    if trial.state != TrialState.RUNNING:
        return False
    until = trial.user_attrs.get("until", 0)
    return until in trial.intermediate_values and until < trial.user_attrs.get("epochs", 0)


def _as_measured(trial: FrozenTrial) -> FrozenTrial:
    if not waits(trial):
        return trial
    measured = copy.copy(trial)
    measured.state, measured.datetime_complete = TrialState.PRUNED, trial.datetime_start
    return measured


@dataclass(frozen=True)
class Proposals:
    """How the search makes new trials.

    `suggest(trial)` gives the family's knobs; `complete(knobs)` adds every default (and raises ValueError for
    a combination that can't be built); `sampler(turn)` makes a sampler. A fresh sampler is made for each
    trial from (study seed, trial number), so that what is proposed depends on the study's history and not on
    when the driver was restarted.

    `predict(values)` says what a configuration needs ({"macs": …, "parameters": …, "memory": …}); one that
    needs more than `limits` allow is not run. `published` rows are a prior of this `strength`
    (searchspace/prior.py). With `reseed` a configuration proposed again is trained again from another seed;
    without, it is answered with what came of it.
    """

    suggest: Callable[[Any], dict[str, Any]]
    complete: Callable[[Mapping[str, Any]], dict[str, Any]]
    sampler: Sampler | Callable[[Turn], optuna.samplers.BaseSampler]
    pins: Mapping[str, Any]
    trials: int
    epochs: int
    seed: int
    predict: Callable[[Mapping[str, Any]], Mapping[str, float]] | None = None
    limits: Mapping[str, float] = field(default_factory=dict)
    published: Sequence[Published] = ()
    strength: float = 0.0
    reseed: bool = False

    def ask(self, tally: Tally, until: int | None = None) -> optuna.Trial | None:
        """A new running trial with its job written into its attributes; it goes as far as `until`.

        A proposal that can't be built or is over a limit is told PRUNED, so that the sampler learns, the
        latter with the limit as a violated constraint; one that was made before is told what came of it then
        (its seed, and so its result, would be the same). Another is asked for; None when DRAWS in a row were
        known, or the sampler has no more: the space is exhausted. Raises ValueError when as many can't be
        built, or REFUSALS in a row are over a limit.
        """
        study = tally.study
        seen = History(tally)
        refused: ValueError | None = None
        known_in_a_row = unbuilt = over = 0
        while known_in_a_row + unbuilt < DRAWS and over < REFUSALS:
            try:
                seen.sampler = self._sampler(tally)
            except Exhausted:
                return None
            trial = seen.ask()
            with at_once(study, trial._trial_id):
                try:
                    values = self.propose(trial)
                    costs = self._within_limits(trial, values)
                except OverLimit as error:
                    trial.set_user_attr("proposed", dict(values))
                    self._refuse(seen, trial, error)
                    refused, over = error, over + 1
                    continue
                except ValueError as error:
                    self._refuse(seen, trial, error)
                    refused, unbuilt = error, unbuilt + 1
                    continue
                same = tally.alike(values)
                if not same or self.reseed:
                    self._make_job(study, trial, values, until=until, copy_of=same, costs=costs)
                    return trial
                self._answer(seen, trial, same[0])
                known_in_a_row += 1
        if refused:
            tried = over if over >= REFUSALS else DRAWS
            raise ValueError(f"{tried} proposals in a row can't be run; the last: {refused}")
        return None

    def _make_job(
        self, study: optuna.Study, trial: optuna.Trial, values: Mapping[str, Any], **job: Any
    ) -> None:
        origin = trial.user_attrs.get("origin", "sampler")
        set_attributes(study, trial._trial_id, self.attributes(trial.number, values, origin=origin, **job))

    def _sampler(self, tally: Tally) -> optuna.samplers.BaseSampler:
        """The sampler of the next proposal. Trials that a crash cut off do not count, so that what it cut off
        is proposed again."""
        if _planned(tally):
            return optuna.samplers.RandomSampler(seed=self.seed)  # the trial has its values
        seed = seed_for(self.seed, {"trial": tally.sum("whole")}, 0)
        finished, made = tally.sum("learned"), tally.sum("sampled")
        near = self._prior.draw(finished, seed) if self._prior else None
        return near or self.sampler(Turn(seed, self.seed, made, lambda: self.searchable))

    def _refuse(self, study: optuna.Study, trial: optuna.Trial, error: ValueError) -> None:
        for name, share in getattr(error, "by", {}).items():
            trial.set_constraint(name, share)
        trial.set_user_attr("reason", str(error))
        study.tell(trial, state=TrialState.PRUNED)

    def _answer(self, study: optuna.Study, trial: optuna.Trial, known: FrozenTrial) -> None:
        trial.set_user_attr("known", known.number)
        if known.state == TrialState.COMPLETE:
            study.tell(trial, known.values)
        else:
            study.tell(trial, state=TrialState.FAIL)  # teaches the sampler nothing it does not know

    def _within_limits(self, trial: optuna.Trial, values: Mapping[str, Any]) -> dict[str, float]:
        """What the configuration needs. Raises OverLimit."""
        costs = dict(self.predict(values)) if self.predict else {}
        by = {name: costs[name] / most - 1 for name, most in self.limits.items()}
        worst = max(by, key=lambda name: by[name], default=None)
        if worst is not None and by[worst] > 0:
            raise OverLimit(f"{worst} {costs[worst]:.3g} > {self.limits[worst]:.3g}, the --limit {worst}", by)
        for name, share in by.items():
            trial.set_constraint(name, share)
        return costs

    def within(self, values: Mapping[str, Any]) -> dict[str, float]:
        """How far a configuration is above each limit, as a share of it; below 0 it keeps to it."""
        costs = self.predict(values) if self.predict and self.limits else {}
        return {name: costs[name] / most - 1 for name, most in self.limits.items()}

    def attributes(
        self,
        number: int,
        values: Mapping[str, Any],
        *,
        origin: str = "sampler",
        until: int | None = None,
        copy_of: Sequence[FrozenTrial] = (),
        costs: Mapping[str, float] | None = None,
    ) -> dict[str, Any]:
        """What makes a job of the trial `number`; `copy_of`: the earlier trainings of its configuration.
        "values" comes last: a trial that has it has the rest."""
        first = min((t.user_attrs.get("configuration", t.number) for t in copy_of), default=number)
        return {
            "trial": number,
            "repeat": 0,
            "phase": "search",
            "seed": seed_for(self.seed, values, -len(copy_of)),
            "epochs": self.epochs,
            "until": until or self.epochs,
            "folder": run_folder(number, 0),
            "origin": origin,
            "configuration": first,
            "copy": len(copy_of),
            "costs": dict(costs or {}),
            "values": dict(values),
        }

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
            if name not in self.space and of_family(name, values):
                values[name] = pinned.suggest_categorical(name, pin) if isinstance(pin, tuple) else pin
        return values

    @functools.cached_property
    def space(self) -> dict[str, list[Any]]:
        """{knob: Optuna's record of its ranges} of the family's space without pins, as drawn at random."""
        return _by_knob(_drawn(self.suggest, self.seed))

    def searched(self) -> dict[str, list[Any]]:
        """The same of what is searched with the pins."""
        return _by_knob(self._draws)

    @functools.cached_property
    def searchable(self) -> Space:
        """What samplers know of the space beforehand."""
        always = frozenset.intersection(*(frozenset(one) for one in self._draws))
        dimensions = {name: one for draw in self._draws for name, one in draw.items()}
        return Space(dimensions, always, functools.cache(lambda: points_of(self.knobs)))

    @functools.cached_property
    def _draws(self) -> list[dict[str, BaseDistribution]]:
        return _drawn(self.knobs, self.seed)

    @functools.cached_property
    def _prior(self) -> Prior | None:
        if not self.strength or not getattr(self.sampler, "learns", True):
            return None
        rows = [self.placed(values) for _, values in self.fitting]
        return Prior(self.strength, [one.params for one in rows if one.outside() is None])

    @functools.cached_property
    def fitting(self) -> list[tuple[str, dict[str, Any]]]:
        """`warm_starts` of all published rows."""
        return list(self.warm_starts(self.published))

    def placed(self, values: Mapping[str, Any]) -> Replayed:
        """A configuration as dimensions of this space; `outside()` says where it does not fit."""
        replayed = Replayed(values)
        self.knobs(replayed)
        return replayed

    def warm_starts(self, rows: Iterable[Published]) -> Iterator[tuple[str, dict[str, Any]]]:
        """(origin, every knob) of the published rows that agree with the pins and can be built, each
        configuration once."""
        seen: list[dict[str, Any]] = []
        for row in rows:
            fixed = {
                name: pin
                for name, pin in self.pins.items()
                if name not in row.values
                and name not in self.space
                and not isinstance(pin, tuple)
                and of_family(name, row.values)
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


def _planned(tally: Tally) -> bool:
    return any(t.state == TrialState.WAITING for t in tally.open())


def _cut_off(trial: FrozenTrial) -> bool:
    """Whether the driver died while it made the trial."""
    ended = {"values", "reason", "known", "warm_start"} & trial.user_attrs.keys()
    return not ended and trial.state in (TrialState.RUNNING, TrialState.FAIL)


def _is_learned(trial: FrozenTrial) -> bool:
    return trial.state.is_finished() and "values" in trial.user_attrs


def _is_sampled(trial: FrozenTrial) -> bool:
    return not _cut_off(trial) and trial.user_attrs.get("origin", "sampler") == "sampler"


# What proposals ask of a Tally
COUNTED = {"whole": lambda trial: not _cut_off(trial), "learned": _is_learned, "sampled": _is_sampled}


def _drawn(suggest: Callable[[Any], Any], seed: int) -> list[dict[str, BaseDistribution]]:
    """{dimension: its distribution} of each of DRAWS * 4 random draws."""
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=seed))
    draws = []
    for _ in range(DRAWS * 4):
        trial = study.ask()
        suggest(trial)
        draws.append(dict(trial.distributions))
    return draws


def _by_knob(draws: Iterable[Mapping[str, BaseDistribution]]) -> dict[str, list[Any]]:
    found: dict[str, list[Any]] = {}
    for draw in draws:
        for name, distribution in draw.items():
            record = json.loads(optuna.distributions.distribution_to_json(distribution))
            ranges = found.setdefault(knob(name), [])
            if record not in ranges:
                ranges.append(record)
    return dict(sorted(found.items()))
