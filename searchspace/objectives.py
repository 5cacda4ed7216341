"""One objective or two: what a trial is worth, and which configurations no other one dominates."""

from __future__ import annotations

import bisect
import math
from collections.abc import Sequence
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


class Ranking:
    """The configurations with COMPLETE trials by the means of these, kept up as trials end."""

    def __init__(self, objectives: Objectives) -> None:
        self._signs = (1, objectives.sign)[: len(objectives.directions)]
        self._trials: dict[int, list[FrozenTrial]] = {}
        self._means: dict[int, Mean] = {}
        self._order: list[tuple[float, int, int]] = []  # (less the first mean, first trial, configuration)

    def add(self, trial: FrozenTrial) -> None:
        """A trial that has ended."""
        if trial.state != TrialState.COMPLETE or "values" not in trial.user_attrs:
            return
        configuration = trial.user_attrs.get("configuration", trial.number)
        same = self._trials.setdefault(configuration, [])
        same.append(trial)
        sums = (math.fsum(column) for column in zip(*(t.values for t in same)))  # exact, whatever the order
        means = tuple(sign * one / len(same) for sign, one in zip(self._signs, sums))
        if configuration in self._means:
            del self._order[bisect.bisect_left(self._order, self._place(configuration))]
        self._means[configuration] = min(same, key=lambda t: t.number), means
        bisect.insort(self._order, self._place(configuration))

    def _place(self, configuration: int) -> tuple[float, int, int]:
        trial, means = self._means[configuration]
        return -means[0], trial.number, configuration

    def best(self, count: int) -> list[FrozenTrial]:
        """The first trials of the `count` best configurations, best first; ties go to the earlier. With two
        objectives those that fewest others dominate come first, and among them the first objective counts."""
        if len(self._signs) > 1:
            return [trial for trial, _ in best_first(list(self._means.values()))[:count]]
        return [self._means[configuration][0] for _, _, configuration in self._order[:count]]

    def front(self) -> set[int]:
        """Numbers of the first trials of the configurations that no other one dominates."""
        return {trial.number for trial, beaten in best_first(list(self._means.values())) if beaten == 0}


def best_first(means: Sequence[Mean]) -> list[tuple[FrozenTrial, int]]:
    """(first trial, how many dominate it) of every configuration: those that fewest dominate first, among
    them by the first objective, ties by the trial's number."""
    if not means:
        return []
    ranked = zip(means, dominators([point for _, point in means]).tolist())
    order = sorted(ranked, key=lambda one: (one[1], -one[0][1][0], one[0][0].number))
    return [(trial, beaten) for (trial, _), beaten in order]
