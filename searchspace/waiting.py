"""Trainings that wait at a rung or for their generation, and what goes on next.

That a training waits is no state of its own in the store: its trial is running, and has come to the epoch it
was to go to ("until"). A step is taken by writing down how far it is to go next. So a study that is reopened,
after whatever moment, goes on with the same steps.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState

from searchspace.objectives import Objectives
from searchspace.population import Population, explored, together
from searchspace.proposals import Proposals, seed_for, waits
from searchspace.pruners import Entry, Promotion
from searchspace.storage import set_attributes


@dataclass(frozen=True)
class Waiting:
    """The waiting trainings of a study's search."""

    study: optuna.Study
    rule: Any
    proposals: Proposals
    objectives: Objectives

    @property
    def _storage(self) -> optuna.storages.BaseStorage:
        return self.study._storage

    @property
    def first(self) -> int:
        """How far a new training goes before it waits, if it does."""
        epochs = self.proposals.epochs
        return self.rule.first(epochs) if isinstance(self.rule, (Promotion, Population)) else epochs

    def next(self, *, started: bool, closing: bool) -> int | None:
        """The trial that the rule lets go on from where it waits, or one of its configuration's next seed, or
        a copy; None if there is none. `started`: every configuration has; `closing`: nothing is under way."""
        if isinstance(self.rule, Population):
            return self._next_of_population(self.rule) if started or closing else None
        if not isinstance(self.rule, Promotion):
            return None
        step = self.rule.step(self._entries(), self.proposals.epochs, closing=closing)
        if step is None:
            return None
        number = step.number
        if number is None:
            number = self._another_seed(step.configuration, step.until)
        else:
            self._go_on(self.study.get_trials(deepcopy=False)[number], step.until)
        return number

    def _next_of_population(self, rule: Population) -> int | None:
        """What goes on once a generation is complete: first the copies that replace its worst, then the
        others. The decision is written down before anything is done."""
        living = [t for t in self._jobs() if t.state == TrialState.RUNNING]
        paused = {t.number: t for t in living if waits(t)}
        ends = [t.user_attrs["until"] for t in paused.values()]
        epoch = together([t.user_attrs["until"] for t in living], ends)
        if epoch is None:
            return None
        there = {n: t for n, t in paused.items() if t.user_attrs["until"] == epoch}
        name, known = f"generation {epoch}", self.study.user_attrs
        if name not in known:
            scores = {number: t.intermediate_values[epoch] for number, t in there.items()}
            pairs = rule.replaced(scores)
            reasons = [rule.reason(scores, loser, parent, epoch) for loser, parent in pairs]
            self.study.set_user_attr(name, [[*pair, why] for pair, why in zip(pairs, reasons)])
        for loser, parent, reason in self.study.user_attrs[name]:
            if loser in there:
                copy = self._copy(parent, loser, epoch, rule.following(epoch, self.proposals.epochs))
                self._set(there[loser], "outcome", "PRUNED")
                self._set(there[loser], "reason", reason)
                self.study.tell(loser, state=TrialState.PRUNED)
                if copy is not None:
                    return copy
                return self._next_of_population(rule)
        first = there[min(there)]
        self._go_on(first, rule.following(epoch, self.proposals.epochs))
        return first.number

    def _copy(self, parent: int, loser: int, epoch: int, until: int) -> int | None:
        """A running trial that goes on from `parent` after `epoch` with changed knobs; None if there is one
        in the place of `loser` already, from before a crash."""
        trials = self.study.get_trials(deepcopy=False)
        if any(t.user_attrs.get("replaces") == [loser, epoch] for t in trials):
            return None
        source, number = trials[parent], len(trials)
        seed = seed_for(self.proposals.seed, {"copy of": parent, "at": epoch}, loser)
        values = explored(source, source.user_attrs["values"], seed)
        attributes = self.proposals.attributes(
            number,
            values,
            origin=f"copy of trial {parent} at epoch {epoch}",
            until=until,
            costs=source.user_attrs.get("costs"),
        )
        placed = self.proposals.placed(values)
        made = optuna.trial.create_trial(
            state=TrialState.RUNNING,
            params=placed.params,
            distributions=placed.distributions,
            intermediate_values={e: v for e, v in source.intermediate_values.items() if e <= epoch},
            user_attrs={
                "replaces": [loser, epoch],
                "parent": source.user_attrs["folder"],
                "born": epoch,
                **attributes,
            },
        )
        self._storage.create_new_trial(self.study._study_id, template_trial=made)
        return number

    def _another_seed(self, configuration: int, until: int) -> int:
        """A running trial of a configuration's next seed."""
        same = [t for t in self._jobs() if t.user_attrs["configuration"] == configuration]
        first = same[0]
        made = optuna.trial.create_trial(
            state=TrialState.RUNNING, params=first.params, distributions=first.distributions
        )
        trial_id = self._storage.create_new_trial(self.study._study_id, template_trial=made)
        number = self._storage.get_trial_number_from_id(trial_id)
        attributes = self.proposals.attributes(
            number,
            first.user_attrs["values"],
            origin=f"seed {len(same) + 1} of trial {configuration}",
            until=until,
            copy_of=same,
            costs=first.user_attrs.get("costs"),
        )
        set_attributes(self.study, trial_id, attributes)
        return number

    def standing(self) -> dict[int, str]:
        """{trial: where it stands} of all that wait."""
        if not isinstance(self.rule, Promotion) or not any(waits(t) for t in self._jobs()):
            return {}
        entries = self._entries()
        return {one.curve.number: self.rule.standing(entries, one) for one in entries if one.paused}

    def _entries(self) -> list[Entry]:
        return [
            Entry(
                t.user_attrs["configuration"],
                t.user_attrs["copy"],
                self.objectives.curve(t),
                t.user_attrs["until"],
                t.state == TrialState.RUNNING,
            )
            for t in self._jobs()
            if "copy" in t.user_attrs and t.user_attrs.get("outcome") != "DIVERGED"
        ]

    def _go_on(self, trial: FrozenTrial, until: int) -> None:
        self._set(trial, "reason", "")
        self._set(trial, "until", until)  # last: it is this that lets it go on

    def _jobs(self) -> list[FrozenTrial]:
        return [t for t in self.study.get_trials(deepcopy=False) if "values" in t.user_attrs]

    def _set(self, trial: FrozenTrial, name: str, value: Any) -> None:
        self._storage.set_trial_user_attr(trial._trial_id, name, value)
