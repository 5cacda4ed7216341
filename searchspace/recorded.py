"""Learning curves to simulate with: those of a recorded study, made into a world in which every configuration
of its space has one; or parametric ones.

A recorded study tried some configurations. For the others a Gaussian process over the space (one kernel for
all epochs: a linear part, a smooth part, noise) says what their curve would have been; a recorded one keeps
what was measured in proportion to how little noise there is. Seeds differ as the study's repeated runs did: a
run's deviations are drawn with their covariance over epochs, anew for every configuration and seed (so that
sharing a seed makes no two configurations alike, which may be harder than it is). With fewer than a dozen
such runs it is the noise that the process itself finds, the same throughout a run. What an epoch costs is
taken from the nearest recorded configuration, and one whose nearest neighbour diverged diverges where that
did.

A stand-in is smoother than the world. `Recorded.error` says how far it is off for a configuration left out.
"""

from __future__ import annotations

import functools
import json
import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import FrozenTrial, TrialState
from sklearn.exceptions import ConvergenceWarning
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import RBF, ConstantKernel, DotProduct, WhiteKernel

from searchspace.samplers import quantile
from searchspace.storage import DETAILS

LEAST = 12  # recorded configurations below which nothing is fitted, repeated runs below which none is used


class World(Protocol):
    """Configurations and what comes of training them."""

    @property
    def epochs(self) -> int:
        """The full length of a training."""

    def suggest(self, trial: Any) -> dict[str, Any]:
        """A configuration asked of an Optuna trial, {dimension: value}."""

    def truth(self, values: Mapping[str, Any]) -> float:
        """Its expected score at full length; -inf for one that diverges."""

    def score(self, values: Mapping[str, Any], seed: int, epoch: int) -> float:
        """The score of one training after `epoch`; NaN from where it diverges."""

    def cost(self, values: Mapping[str, Any]) -> float:
        """Seconds of an epoch."""

    @property
    def grid(self) -> Sequence[Mapping[str, Any]]:
        """Configurations somebody would try one after another: recorded ones, or a paper's."""

    @property
    def published(self) -> Sequence[Mapping[str, Any]]:
        """Those of `grid` that are a paper's own."""


@dataclass(frozen=True)
class Dimension:
    """One question of a space, asked only where `parent` was answered with one of `given` ("" is always)."""

    name: str
    distribution: BaseDistribution
    parent: str = ""
    given: frozenset[Any] = frozenset()

    def ask(self, trial: Any) -> Any:
        one = self.distribution
        if isinstance(one, CategoricalDistribution):
            return trial.suggest_categorical(self.name, one.choices)
        assert isinstance(one, FloatDistribution | IntDistribution)
        options = {} if one.step is None else {"step": one.step}
        suggest = trial.suggest_float if isinstance(one, FloatDistribution) else trial.suggest_int
        return suggest(self.name, one.low, one.high, log=one.log, **options)


def dimensions_of(trials: Sequence[FrozenTrial]) -> list[Dimension]:
    """The space as recorded trials show it. Raises ValueError if a dimension's presence follows from no
    single earlier choice."""
    order: list[str] = []
    for trial in trials:  # a dimension comes after those that any trial asked before it
        for place, name in enumerate(trial.params):
            if name not in order:
                before = [order.index(n) for n in list(trial.params)[:place]]
                order.insert(max(before, default=-1) + 1, name)
    found: list[Dimension] = []
    for name in order:
        distribution = next(t.distributions[name] for t in trials if name in t.params)
        if all(name in t.params for t in trials):
            found.append(Dimension(name, distribution))
            continue
        parents = [d for d in found if isinstance(d.distribution, CategoricalDistribution)]
        for parent in parents:
            with_it = {t.params[parent.name] for t in trials if name in t.params and parent.name in t.params}
            asked = {t.number for t in trials if t.params.get(parent.name) in with_it}
            if asked == {t.number for t in trials if name in t.params}:
                found.append(Dimension(name, distribution, parent.name, frozenset(with_it)))
                break
        else:
            raise ValueError(
                f"dimension {name!r} is asked in some trials, and no single choice says in which"
            )
    return found


class Recorded:
    """The world of a recorded study (a folder with study.db).

    Raises ValueError: no such study, or too few finished full-length search runs in it.
    """

    def __init__(self, folder: Path) -> None:
        search, confirm = _trials(folder, "search"), _trials(folder, "confirm")
        self.epochs = max((max(t.intermediate_values, default=0) for t in search), default=0)
        full = [
            t for t in search if t.state == TrialState.COMPLETE and len(t.intermediate_values) == self.epochs
        ]
        if len(full) < LEAST:
            raise ValueError(
                f"{folder}: {len(full)} search runs at full length ({self.epochs} epochs), at least {LEAST} "
                "are needed; record with --sampler random --pruner none"
            )
        self._ended = [t for t in search if t in full or t.user_attrs.get("outcome") == "DIVERGED"]
        self.dimensions = dimensions_of(self._ended)
        self._full = full
        self._points = np.array([self._point(t.params) for t in full])
        self._all = np.array([self._point(t.params) for t in self._ended])
        self._curves = np.array([_curve(t, self.epochs) for t in full])
        self._deviations = _deviations([*full, *confirm], self.epochs)
        self._model = _fitted(self._points, self._curves)
        if len(self._deviations) < LEAST:
            sd = math.sqrt(_noise(self._model)) * self._curves.std(axis=0)
            self._deviations = np.random.default_rng(0).standard_normal((64, 1)) * sd
        self._known: dict[str, np.ndarray] = {}  # the same configuration is asked about after every epoch

    def suggest(self, trial: Any) -> dict[str, Any]:
        values: dict[str, Any] = {}
        for one in self.dimensions:
            if not one.parent or values.get(one.parent) in one.given:
                values[one.name] = one.ask(trial)
        return values

    def truth(self, values: Mapping[str, Any]) -> float:
        diverged = self._diverges(values)
        return -math.inf if diverged else float(self._mean(values)[-1])

    def score(self, values: Mapping[str, Any], seed: int, epoch: int) -> float:
        diverged = self._diverges(values)
        if diverged and epoch >= diverged:
            return math.nan
        return float(np.clip(self._mean(values)[epoch - 1] + self._deviation(values, seed)[epoch - 1], 0, 1))

    def cost(self, values: Mapping[str, Any]) -> float:
        near = self._nearest(values)
        seconds = (near.user_attrs.get(DETAILS) or {}).get("seconds")
        return float(seconds) / max(near.intermediate_values) if seconds and near.intermediate_values else 1.0

    @functools.cached_property
    def grid(self) -> list[dict[str, Any]]:
        return [dict(t.params) for t in self._full]

    @functools.cached_property
    def published(self) -> list[dict[str, Any]]:
        ours = [t for t in self._full if str(t.user_attrs.get("origin", "")).startswith("published")]
        return [dict(t.params) for t in ours]

    @functools.cached_property
    def noise(self) -> float:
        """Standard deviation of a seed's last score."""
        return float(self._deviations[:, -1].std())

    @functools.cached_property
    def error(self) -> tuple[float, float]:
        """(root mean square error of the last score of recorded configurations left out in turn by fives, the
        same of their mean as a guess); the first includes the noise of the one seed it is held against."""
        fives = np.arange(len(self._points)) % 5
        misses, spread = [], []
        for five in range(5):
            out = fives == five
            model = _fitted(self._points[~out], self._curves[~out])
            misses += list(_predicted(model, self._points[out])[:, -1] - self._curves[out, -1])
            spread += list(self._curves[~out, -1].mean() - self._curves[out, -1])
        return float(np.sqrt(np.mean(np.square(misses)))), float(np.sqrt(np.mean(np.square(spread))))

    def _mean(self, values: Mapping[str, Any]) -> np.ndarray:
        key = _key(values)
        if key not in self._known:
            self._known[key] = _predicted(self._model, self._point(values)[None])[0]
        return self._known[key]

    def _deviation(self, values: Mapping[str, Any], seed: int) -> np.ndarray:
        """(epochs,) of one training: Gaussian, with the covariance of the repeated runs' deviations."""
        key = f"{seed} {_key(values)}"
        if key not in self._known:
            draw = np.random.default_rng(list(key.encode())).standard_normal(len(self._deviations))
            self._known[key] = draw @ self._deviations / math.sqrt(len(draw))
        return self._known[key]

    def _nearest(self, values: Mapping[str, Any]) -> FrozenTrial:
        distances = ((self._all - self._point(values)) ** 2).sum(axis=1)
        return self._ended[int(distances.argmin())]

    def _diverges(self, values: Mapping[str, Any]) -> int:
        near = self._nearest(values)
        diverged = near.user_attrs.get("outcome") == "DIVERGED"
        return max(near.intermediate_values, default=0) + 1 if diverged else 0

    def _point(self, values: Mapping[str, Any]) -> np.ndarray:
        """A configuration as coordinates in 0 … 1: a number by its quantile (0.5 where it isn't asked), a
        choice by one coordinate for each of its values."""
        point: list[float] = []
        for one in self.dimensions:
            distribution = one.distribution
            if isinstance(distribution, CategoricalDistribution):
                point += [
                    float(values.get(one.name) == choice) / math.sqrt(2) for choice in distribution.choices
                ]
            else:
                point.append(quantile(distribution, values[one.name]) if one.name in values else 0.5)
        return np.array(point)


@dataclass(frozen=True)
class Parametric:
    """Curves by formula: a score rises to what a configuration is worth, faster with a higher learning rate.

    Four dimensions of which one is conditional; too high a learning rate diverges. `noise` is a seed's
    standard deviation at full length. For tests and speed; it resembles nothing in particular.
    """

    epochs: int = 27
    noise: float = 0.0067

    def suggest(self, trial: Any) -> dict[str, Any]:
        values = {
            "framework": trial.suggest_categorical("framework", ["scene_only", "mlhe", "csem"]),
            "lr": trial.suggest_float("lr", 1e-4, 1e-1, log=True),
            "dropout": trial.suggest_float("dropout", 0.0, 0.5),
        }
        if values["framework"] == "csem":
            values["w_event"] = trial.suggest_float("w_event", 1e-3, 2.0, log=True)
        return values

    def truth(self, values: Mapping[str, Any]) -> float:
        if values["lr"] > 0.05:
            return -math.inf
        worth = {"scene_only": 0.74, "mlhe": 0.78, "csem": 0.79}[values["framework"]]
        worth -= 0.06 * (math.log10(values["lr"]) + 2.3) ** 2 + 0.2 * (values["dropout"] - 0.25) ** 2
        return worth - (0.02 * (math.log10(values["w_event"]) + 0.5) ** 2 if "w_event" in values else 0.0)

    def score(self, values: Mapping[str, Any], seed: int, epoch: int) -> float:
        if values["lr"] > 0.05 and epoch > 2:
            return math.nan
        worth = self.truth(values) if values["lr"] <= 0.05 else 0.5
        speed = 3.0 + math.log10(values["lr"] / 1e-2)
        rise = (1 - math.exp(-speed * epoch / self.epochs)) / (1 - math.exp(-speed))
        key = list(_key(values).encode())
        own, step = np.random.default_rng([seed, 0, *key]), np.random.default_rng([seed, epoch, *key])
        return 0.1 + (worth - 0.1) * rise + self.noise * (0.9 * own.standard_normal() + 0.44 * step.normal())

    def cost(self, values: Mapping[str, Any]) -> float:
        return 1.5 if values["framework"] == "csem" else 1.0

    @property
    def grid(self) -> list[dict[str, Any]]:
        """Every framework with three learning rates, four dropouts; w_event 0.5."""
        return [
            {"framework": f, "lr": lr, "dropout": d} | ({"w_event": 0.5} if f == "csem" else {})
            for f in ("scene_only", "mlhe", "csem")
            for lr in (1e-4, 1e-3, 1e-2)
            for d in (0.0, 0.1, 0.2, 0.5)
        ]

    @property
    def published(self) -> list[dict[str, Any]]:
        return [one for one in self.grid if one["lr"] == 1e-3 and one["dropout"] == 0.2]


def _trials(folder: Path, phase: str) -> list[FrozenTrial]:
    database = folder / "study.db"
    if not database.is_file():
        raise ValueError(f"{folder}: no recorded study (it has no study.db)")
    storage = optuna.storages.RDBStorage(f"sqlite:///{database.resolve()}")
    known = [one.study_name for one in storage.get_all_studies()]
    if phase not in known:
        return []
    return optuna.load_study(study_name=phase, storage=storage).get_trials(deepcopy=False)


def _key(values: Mapping[str, Any]) -> str:
    return json.dumps(dict(values), sort_keys=True)


def _curve(trial: FrozenTrial, epochs: int) -> list[float]:
    return [trial.intermediate_values[epoch] for epoch in range(1, epochs + 1)]


def _deviations(trials: Sequence[FrozenTrial], epochs: int) -> np.ndarray:
    """(runs, epochs): repeated runs, the search's among them, less their configuration's mean, widened for
    the mean having been fitted to them."""
    runs: dict[int, list[list[float]]] = {}
    for trial in trials:
        if trial.state == TrialState.COMPLETE and len(trial.intermediate_values) == epochs:
            runs.setdefault(trial.user_attrs["trial"], []).append(_curve(trial, epochs))
    found = [np.array(curves) for curves in runs.values() if len(curves) > 1]
    wide = [(c - c.mean(axis=0)) * math.sqrt(len(c) / (len(c) - 1)) for c in found]
    return np.concatenate(wide) if wide else np.empty((0, epochs))


def _fitted(points: np.ndarray, curves: np.ndarray) -> GaussianProcessRegressor:
    scale = (1e-5, 1e3)
    linear = ConstantKernel(0.5, scale) * DotProduct(1.0, (1e-5, 1e3))
    smooth = ConstantKernel(0.5, scale) * RBF(1.5, (0.3, 100.0))
    model = GaussianProcessRegressor(
        linear + smooth + WhiteKernel(0.1, (1e-4, 1.0)),
        normalize_y=True,
        n_restarts_optimizer=2,
        random_state=0,
    )
    with warnings.catch_warnings():  # a part that is not needed goes to its bound, which is no mistake
        warnings.simplefilter("ignore", ConvergenceWarning)
        return model.fit(points, curves)


def _predicted(model: GaussianProcessRegressor, points: np.ndarray) -> np.ndarray:
    return np.asarray(model.predict(points)).reshape(len(points), -1)


def _noise(model: GaussianProcessRegressor) -> float:
    """The share of variance the model calls noise."""
    return float(model.kernel_.k2.noise_level)
