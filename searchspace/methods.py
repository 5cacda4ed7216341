"""Search methods by name: samplers propose, pruners stop early."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import optuna

T = TypeVar("T")

warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)  # TPE's group=True

STARTUP = 10  # trials TPE draws at random before it models


SAMPLERS: Mapping[str, Callable[[int], optuna.samplers.BaseSampler]] = {
    "tpe": lambda seed: optuna.samplers.TPESampler(
        multivariate=True, group=True, constant_liar=True, n_startup_trials=STARTUP, seed=seed
    ),
    "random": lambda seed: optuna.samplers.RandomSampler(seed=seed),
}


@dataclass(frozen=True)
class Asha:
    """Asynchronous successive halving, the stopping kind (Li et al., MLSys 2020).

    Rungs lie at 1/η, 1/η² … of the full length, none below `grace` epochs, where scores say little yet. A
    trial at a rung goes on if it is among the best 1/η of all values seen there so far; fewer than η values
    stop nobody. The rule reads intermediate values only, so a reopened study has its rungs back.
    """

    grace: int = 3
    reduction: int = 3

    def rungs(self, epochs: int) -> list[int]:
        lengths = [round(epochs / self.reduction**level) for level in range(1, 20)]
        return sorted({length for length in lengths if length >= self.grace})

    def stop_reason(self, value: float, epoch: int, epochs: int, seen: Sequence[float]) -> str | None:
        """Why a trial with `value` (higher is better) at `epoch` stops, or None. `seen`: every value at this
        epoch, its own too."""
        if epoch not in self.rungs(epochs):
            return None
        ranked = sorted((v for v in seen if math.isfinite(v)), reverse=True)
        if len(ranked) < self.reduction:
            return None
        cut_off = ranked[len(ranked) // self.reduction - 1]
        if value >= cut_off:
            return None
        return f"{value:.4f} < {cut_off:.4f}, the cut-off at epoch {epoch} among {len(ranked)} trials"


@dataclass(frozen=True)
class NoPruning:
    """Every trial runs to its full length."""

    def rungs(self, epochs: int) -> list[int]:
        return []

    def stop_reason(self, value: float, epoch: int, epochs: int, seen: Sequence[float]) -> str | None:
        return None


PRUNERS: Mapping[str, Asha | NoPruning] = {"asha": Asha(), "none": NoPruning()}


def choose(kind: str, name: str, table: Mapping[str, T]) -> T:
    """`table[name]`, or a ValueError that lists what there is."""
    if name not in table:
        raise ValueError(f"{kind} {name!r} is not known; known: {', '.join(table)}")
    return table[name]
