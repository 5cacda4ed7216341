"""One objective or two: what a trial is worth, and which configurations no other one dominates."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from searchspace.pruners import Curve, dominators

Mean = tuple[FrozenTrial, tuple[float, ...]]


@dataclass(frozen=True)
class Second:
    """A second objective: the metric's or the prediction's name ("val/event_map", "macs"), and whether more
    of it is better."""

    name: str
    maximize: bool


@dataclass(frozen=True)
class Objectives:
    """How the store's trials are read; the first objective is better when higher."""

    second: Second | None = None

    @property
    def sign(self) -> int:
        return 1 if self.second is None or self.second.maximize else -1

    @property
    def directions(self) -> list[StudyDirection]:
        second = StudyDirection.MAXIMIZE if self.sign > 0 else StudyDirection.MINIMIZE
        return [StudyDirection.MAXIMIZE, *([second] if self.second else [])]

    def curve(self, trial: FrozenTrial) -> Curve:
        if self.second is None:
            return Curve(trial.number, trial.intermediate_values)
        cost = trial.user_attrs.get("costs", {}).get(self.second.name)
        if cost is not None:
            second = dict.fromkeys(trial.intermediate_values, self.sign * cost) or {0: self.sign * cost}
        else:
            second = {int(e): self.sign * v for e, v in trial.user_attrs.get("second", {}).items()}
        return Curve(trial.number, trial.intermediate_values, second)

    def second_of(self, trial: FrozenTrial) -> float | None:
        """The second objective as it is measured or predicted."""
        assert self.second is not None
        measured = trial.user_attrs.get("second", {})
        last = max(map(int, measured), default=0)
        return trial.user_attrs.get("costs", {}).get(self.second.name, measured.get(str(last)))

    def told(self, trial: FrozenTrial, last: int) -> float | list[float]:
        """What the sampler is told of a trial that is complete after `last` epochs."""
        value = trial.intermediate_values[last]
        if self.second is None:
            return value
        second = self.second_of(trial)
        return [value, math.nan if second is None else second]

    def means(self, jobs: Iterable[FrozenTrial]) -> list[Mean]:
        """(first trial, its objectives' means over the trials, better when higher) of every configuration
        with a COMPLETE trial."""
        found: dict[int, list[FrozenTrial]] = {}
        for t in jobs:
            if t.state == TrialState.COMPLETE:
                found.setdefault(t.user_attrs.get("configuration", t.number), []).append(t)
        return [
            (
                same[0],
                tuple(s * sum(v) / len(same) for s, v in zip((1, self.sign), zip(*(t.values for t in same)))),
            )
            for same in found.values()
        ]


def best_first(means: Sequence[Mean]) -> list[tuple[FrozenTrial, int]]:
    """(first trial, how many dominate it) of every configuration: those that fewest dominate first, among
    them by the first objective, ties by the trial's number."""
    if not means:
        return []
    ranked = zip(means, dominators([point for _, point in means]).tolist())
    order = sorted(ranked, key=lambda one: (one[1], -one[0][1][0], one[0][0].number))
    return [(trial, beaten) for (trial, _), beaten in order]
