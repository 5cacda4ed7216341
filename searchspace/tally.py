"""What a study asks of all its trials again and again, counted once for each that has ended.

An ended trial never changes again. So what a question costs depends on how many trials are open, and not on
how long the study has been going on.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

import optuna
from optuna.trial import FrozenTrial

from searchspace.storage import trials_of


class Tally:
    """The trials of `study`: those that are open, and sums over all of what the rules `counted` by name say
    of one (a count, or True and False). `ended` is shown each as it is found to have ended."""

    def __init__(
        self,
        study: optuna.Study,
        counted: Mapping[str, Callable[[FrozenTrial], int]],
        ended: Callable[[FrozenTrial], None] = lambda trial: None,
    ) -> None:
        self.study, self._counted, self._show = study, counted, ended
        self._open: dict[int, FrozenTrial] = {}
        self._ended: Counter[str] = Counter()
        self._alike: dict[int, tuple[int, ...]] = {}  # numbers of the ended, by what `_key` says
        self._seen = 0

    def open(self) -> list[FrozenTrial]:
        """Those that wait for their turn or have not ended, by number."""
        trials = trials_of(self.study)
        open_before, self._open = self._open, {}
        for number in (*open_before, *range(self._seen, len(trials))):
            trial = trials[number]
            if trial.state.is_finished():
                self._count(trial)
            else:
                self._open[number] = trial
        self._seen = len(trials)
        return list(self._open.values())

    def sum(self, name: str) -> int:
        """Of what the rule `name` says, over all trials."""
        found = self.open()  # first: it counts what has ended since
        return self._ended[name] + sum(map(self._counted[name], found))

    def alike(self, values: Mapping[str, Any]) -> list[FrozenTrial]:
        """The trials of the configuration `values`, by number."""
        found, trials = self.open(), trials_of(self.study)
        found += [trials[number] for number in self._alike.get(_key(values), ())]
        return sorted((t for t in found if t.user_attrs.get("values") == values), key=lambda t: t.number)

    def _count(self, trial: FrozenTrial) -> None:
        self._show(trial)
        self._ended.update({name: int(rule(trial)) for name, rule in self._counted.items()})
        if "values" in trial.user_attrs:
            key = _key(trial.user_attrs["values"])
            self._alike[key] = (*self._alike.get(key, ()), trial.number)


def _key(values: Mapping[str, Any]) -> int:
    """The same for equal configurations, and seldom for others."""
    return hash(frozenset((name, v) for name, v in values.items() if isinstance(v, (str, int, float))))
