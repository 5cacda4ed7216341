"""What the papers found, as a prior that fades: some proposals are made near a published row."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from optuna.distributions import BaseDistribution, CategoricalDistribution
from optuna.trial import FrozenTrial

from searchspace.samplers import Independent, at, quantile

HALF_LIFE = 10  # finished trials
SPREAD = 0.1  # standard deviation of a number's quantile within its range
KEPT = 0.8  # probability that a choice is as in the row


@dataclass(frozen=True)
class Prior:
    """With probability p(n) = `strength` * 2 ** (-n / HALF_LIFE), n being the finished trials, a proposal is
    drawn near one of the published rows, and else by the sampler: what the study itself has seen soon
    outweighs what the papers say. (A prior that decays with the observations, as in Hvarfner et al., πBO,
    ICLR 2022, there as an exponent of the acquisition function, β / n.)

    Near a row: each of its numbers is drawn from a normal distribution of its quantile, SPREAD wide; each
    choice is the row's with probability KEPT and any otherwise; knobs that the row does not have are uniform.
    """

    strength: float
    rows: Sequence[Mapping[str, Any]]  # dimensions of each

    def probability(self, finished: int) -> float:
        return self.strength * 2 ** (-finished / HALF_LIFE) if self.rows else 0.0

    def draw(self, finished: int, seed: int) -> Near | None:
        """The sampler of this proposal if the prior makes it."""
        chance = random.Random(seed)
        if chance.random() >= self.probability(finished):
            return None
        return Near(chance.choice(list(self.rows)), chance)


class Near(Independent):
    """A sampler of points near one."""

    def __init__(self, row: Mapping[str, Any], chance: random.Random) -> None:
        self._row, self._chance = row, chance

    def sample_independent(
        self, study: Any, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        known = param_name in self._row
        if isinstance(param_distribution, CategoricalDistribution):
            if known and self._chance.random() < KEPT:
                return self._row[param_name]
            return self._chance.choice(param_distribution.choices)
        u = self._chance.random()
        if known:
            u = quantile(param_distribution, self._row[param_name]) + self._chance.gauss(0.0, SPREAD)
        return at(param_distribution, min(max(u, 0.0), 1.0 - 1e-9))
