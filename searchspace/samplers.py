"""Samplers by name. Each makes one proposal from the study's history: a fresh one is made for every proposal,
from the study's seed and the number of the proposal, so that what is proposed does not depend on when the
driver was restarted. What a sampler would keep in memory is recomputed here from the trials of the study.
"""

from __future__ import annotations

import functools
import math
import random
import warnings
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import cmaes
import numpy as np
import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.samplers import BaseSampler
from optuna.trial import FrozenTrial, TrialState
from scipy.stats import qmc

warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)  # TPE's group=True

STARTUP = 10  # trials TPE and GP draw at random before they model
POPULATION = 12  # of a generation of NSGA-II and -III; Optuna's 50 would leave most studies in the first
GENERATION = "cmaes:generation"
GRID_LIMIT = 20_000  # points that are listed before the first is run


class Exhausted(Exception):
    """The sampler has proposed everything there is."""


@dataclass(frozen=True)
class Space:
    """What is searched: `dimensions` of the store, those `always` asked for, and every point of it, drawn on
    demand with `points` (see `Grid`)."""

    dimensions: Mapping[str, BaseDistribution]
    always: frozenset[str]
    points: Callable[[], Sequence[Mapping[str, Any]]]

    def numeric(self) -> dict[str, BaseDistribution]:
        """Dimensions that every trial has and that are numbers."""
        return {
            name: one
            for name, one in sorted(self.dimensions.items())
            if name in self.always and not isinstance(one, CategoricalDistribution) and not one.single()
        }


@dataclass(frozen=True)
class Turn:
    """One proposal: `seed` is its own, `number` how many the sampler made before it."""

    seed: int
    study_seed: int
    number: int
    describe: Callable[[], Space]

    @property
    def space(self) -> Space:
        return self.describe()


def at(distribution: BaseDistribution, u: float) -> Any:
    """The value at the quantile u in [0, 1) of a distribution; steps and choices are equally likely."""
    if isinstance(distribution, CategoricalDistribution):
        return distribution.choices[int(u * len(distribution.choices))]
    assert isinstance(distribution, (FloatDistribution, IntDistribution))
    low, high, step = float(distribution.low), float(distribution.high), distribution.step
    if distribution.log:
        half = 0.5 if isinstance(distribution, IntDistribution) else 0.0
        value = math.exp(math.log(low - half) + u * (math.log(high + half) - math.log(low - half)))
        value = min(max(value, low), high)
        return round(value) if half else value
    if step is None:
        return low + u * (high - low)
    count = round((high - low) / step) + 1
    value = low + step * int(u * count)
    return round(value) if isinstance(distribution, IntDistribution) else min(value, high)


def quantile(distribution: BaseDistribution, value: Any) -> float:
    """The middle of the u for which `at` gives `value`."""
    if isinstance(distribution, CategoricalDistribution):
        return (distribution.choices.index(value) + 0.5) / len(distribution.choices)
    assert isinstance(distribution, (FloatDistribution, IntDistribution))
    low, high, step = float(distribution.low), float(distribution.high), distribution.step
    if distribution.log:
        half = 0.5 if isinstance(distribution, IntDistribution) else 0.0
        return math.log(value / (low - half)) / math.log((high + half) / (low - half))
    if step is None:
        return (value - low) / (high - low)
    return (round((value - low) / step) + 0.5) / (round((high - low) / step) + 1)


class Independent(BaseSampler):
    """A sampler that answers dimension by dimension."""

    def infer_relative_search_space(self, study: Any, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        return {}

    def sample_relative(self, study: Any, trial: FrozenTrial, search_space: dict[str, Any]) -> dict[str, Any]:
        return {}


class Sobol(Independent):
    """A scrambled Sobol' sequence (scipy) over every dimension there is: proposal n reads the coordinates
    of the n-th point that it is asked for, so conditional knobs are covered evenly too."""

    def __init__(self, turn: Turn) -> None:
        self._names = sorted(turn.space.dimensions)
        engine = qmc.Sobol(max(1, len(self._names)), scramble=True, rng=turn.study_seed)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a sequence's length need not be a power of 2 here
            if turn.number:
                engine.fast_forward(turn.number)
            self._point = engine.random(1)[0]
        self._rest = np.random.default_rng(turn.seed)

    def sample_independent(
        self, study: Any, trial: FrozenTrial, param_name: str, param_distribution: Any
    ) -> Any:
        known = param_name in self._names
        u = self._point[self._names.index(param_name)] if known else self._rest.random()
        return at(param_distribution, float(u))


class Grid(Independent):
    """Every point of the space once, in an order shuffled by the study's seed. Raises Exhausted after the
    last."""

    def __init__(self, turn: Turn) -> None:
        points = turn.space.points()
        if turn.number >= len(points):
            raise Exhausted
        order = list(range(len(points)))
        random.Random(turn.study_seed).shuffle(order)
        self._point = points[order[turn.number]]

    def sample_independent(
        self, study: Any, trial: FrozenTrial, param_name: str, param_distribution: Any
    ) -> Any:
        return self._point[param_name]


class CmaEs(BaseSampler):
    """CMA-ES (package cmaes) over the numbers that every configuration has; other dimensions are drawn at
    random.

    The optimiser is made anew and told every generation's completed trials again, in their order: nothing
    but the trials is kept. (Optuna's CmaEsSampler keeps a pickle of it in the database; nothing is unpickled
    from there.)
    """

    def __init__(self, turn: Turn) -> None:
        self._turn, self._space = turn, turn.space.numeric()
        self._random = optuna.samplers.RandomSampler(seed=turn.seed)

    def infer_relative_search_space(self, study: Any, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        return self._space if len(self._space) > 1 else {}  # it has no covariance of one

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, Any]
    ) -> dict[str, Any]:
        if not search_space:
            return {}
        optimiser = self.replay(study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,)))
        optimiser.reseed_rng(self._turn.seed)
        trial_id = trial._trial_id
        study._storage.set_trial_user_attr(trial_id, GENERATION, optimiser.generation)
        point = np.clip(optimiser.ask(), 0.0, np.nextafter(1.0, 0.0))
        return {name: at(one, float(u)) for (name, one), u in zip(search_space.items(), point)}

    def replay(self, trials: Sequence[FrozenTrial]) -> cmaes.CMA:
        """The optimiser after the whole generations among `trials`."""
        dimensions = len(self._space)
        bounds = np.tile([0.0, 1.0], (dimensions, 1))
        optimiser = cmaes.CMA(
            np.full(dimensions, 0.5), 1 / 6, bounds=bounds, seed=0, n_max_resampling=10 * dimensions
        )
        generations: dict[int, list[tuple[np.ndarray, float]]] = defaultdict(list)
        for one in trials:
            if GENERATION in one.user_attrs and one.value is not None:
                point = np.array([quantile(d, one.params[name]) for name, d in self._space.items()])
                generations[one.user_attrs[GENERATION]].append((point, -one.value))
        size = optimiser.population_size
        while len(told := generations[optimiser.generation]) >= size:
            optimiser.tell(told[:size])
        return optimiser

    def sample_independent(
        self, study: Any, trial: FrozenTrial, param_name: str, param_distribution: Any
    ) -> Any:
        return self._random.sample_independent(study, trial, param_name, param_distribution)


def _tpe(turn: Turn) -> BaseSampler:
    return optuna.samplers.TPESampler(
        multivariate=True, group=True, constant_liar=True, n_startup_trials=STARTUP, seed=turn.seed
    )


def _gp(turn: Turn) -> BaseSampler:
    return optuna.samplers.GPSampler(
        n_startup_trials=STARTUP, warn_independent_sampling=False, seed=turn.seed
    )


def _random(turn: Turn) -> BaseSampler:
    return optuna.samplers.RandomSampler(seed=turn.seed)


def _genetic(turn: Turn, *, kind: type[Any]) -> BaseSampler:
    return kind(population_size=POPULATION, seed=turn.seed)


@dataclass(frozen=True)
class Sampler:
    """How to make a proposal's sampler; `learns` from results (else it only covers the space); whether it
    takes two `objectives`; what it can't do with conditional knobs and choices, in words."""

    make: Callable[[Turn], BaseSampler]
    learns: bool = True
    objectives: int = 2
    falls_back: str = ""  # on what knobs it draws at random
    joint: Callable[[Space], set[str]] = lambda space: set(space.dimensions)

    def __call__(self, turn: Turn) -> BaseSampler:
        return self.make(turn)

    def notes(self, space: Space, objectives: int, pruned: bool) -> list[str]:
        """What it can't do with this space, a line each. Raises ValueError where it can't search it."""
        if objectives > self.objectives:
            raise ValueError("this sampler has one objective; with two take tpe, gp, nsga2, nsga3 or random")
        lines = []
        left_out = sorted(set(space.dimensions) - self.joint(space))
        if left_out:
            lines.append(f"drawn at random, for it has no {self.falls_back}: {', '.join(left_out)}")
        if self.falls_back and pruned:
            lines.append(
                "it learns from completed trials only; those that are stopped early teach it nothing"
            )
        return lines


def _always(space: Space) -> set[str]:
    return set(space.always)


def _numbers(space: Space) -> set[str]:
    numbers = set(space.numeric())
    return numbers if len(numbers) > 1 else set()


SAMPLERS: Mapping[str, Sampler] = {
    "tpe": Sampler(_tpe),
    "random": Sampler(_random, learns=False),
    "gp": Sampler(_gp, falls_back="conditional knobs", joint=_always),
    "cmaes": Sampler(CmaEs, objectives=1, falls_back="choices and conditional knobs", joint=_numbers),
    "nsga2": Sampler(
        functools.partial(_genetic, kind=optuna.samplers.NSGAIISampler),
        falls_back="conditional knobs",
        joint=_always,
    ),
    "nsga3": Sampler(
        functools.partial(_genetic, kind=optuna.samplers.NSGAIIISampler),
        falls_back="conditional knobs",
        joint=_always,
    ),
    "qmc": Sampler(Sobol, learns=False),
    "grid": Sampler(Grid, learns=False),
}


def points_of(ask: Callable[[Any], Any]) -> list[dict[str, Any]]:
    """Every point of a define-by-run space of choices, integers and steps, as a depth-first walk meets it.

    Raises ValueError for a continuous dimension, and beyond GRID_LIMIT points.
    """
    points: list[dict[str, Any]] = []
    path: list[tuple[str, Sequence[Any], int]] = []  # dimension, its values, which one is taken
    while True:
        walk = _Walk(path)
        ask(walk)
        path = walk.path
        points.append({name: values[taken] for name, values, taken in path})
        if len(points) > GRID_LIMIT:
            raise ValueError(
                f"the grid has more than {GRID_LIMIT:,} points; fix knobs or narrow them with --set, or take "
                "--sampler qmc"
            )
        while path and path[-1][2] + 1 == len(path[-1][1]):
            path.pop()
        if not path:
            return points
        name, values, taken = path.pop()
        path.append((name, values, taken + 1))


class _Walk:
    """A trial that follows `path` and then takes the first value of every dimension it is asked for."""

    def __init__(self, path: Sequence[tuple[str, Sequence[Any], int]]) -> None:
        self.path = list(path)

    def suggest_categorical(self, name: str, choices: Sequence[Any]) -> Any:
        return self._take(name, list(choices))

    def suggest_int(self, name: str, low: int, high: int, *, step: int = 1, log: bool = False) -> int:
        if log and high - low > 64:
            self._refuse(name, low, high)
        return self._take(name, range(low, high + 1, step))

    def suggest_float(
        self, name: str, low: float, high: float, *, step: float | None = None, log: bool = False
    ) -> float:
        if step is None:
            self._refuse(name, low, high)
        assert step is not None
        count = round((high - low) / step) + 1
        return self._take(name, [min(low + step * i, high) for i in range(count)])

    def _take(self, name: str, values: Sequence[Any]) -> Any:
        for known, choices, taken in self.path:
            if known == name:
                return choices[taken]
        self.path.append((name, values, 0))
        return values[0]

    def _refuse(self, name: str, low: float, high: float) -> None:
        knob = name.split(" ")[0]
        raise ValueError(
            f"{knob} is continuous ({low:g} to {high:g}), a grid has no end there; give its values, as in "
            f"--set {knob}={low:g},{high:g}, or fix it"
        )
