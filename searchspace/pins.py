"""Knobs the user fixes: `--set lr=1e-3` takes a knob out of the search, `--set backbone=tinycnn,cnnt` narrows
it."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)

if TYPE_CHECKING:
    import optuna


class Pinned:
    """A trial whose pinned knobs are not asked of the sampler.

    A pin is one value, or a tuple of values to choose among. A pinned value may lie outside the search
    space's range: the family's config decides whether it is possible. Knobs in `varying` have a range that
    depends on other knobs (a backbone's number of blocks); to the store each range is a dimension of its own,
    "shared_layers 1-6", because a sampler that models one range for all would not leave the one it met first.
    """

    def __init__(
        self, trial: optuna.trial.BaseTrial | Replayed, pins: Mapping[str, Any], varying: Collection[str] = ()
    ) -> None:
        self._trial, self._pins, self._varying = trial, pins, varying

    def suggest_float(self, name: str, low: float, high: float, **options: Any) -> float:
        if name in self._pins:
            return self._pin(name)
        return self._trial.suggest_float(self._ranged(name, low, high), low, high, **options)

    def suggest_int(self, name: str, low: int, high: int, **options: Any) -> int:
        if name in self._pins:
            return self._pin(name)
        return self._trial.suggest_int(self._ranged(name, low, high), low, high, **options)

    def suggest_categorical(self, name: str, choices: Sequence[Any]) -> Any:
        if _switches(name) and knob(name) in self._pins:
            return self._pins[knob(name)] == 0  # of several pins the next question chooses, 0 among them
        return self._pin(name) if name in self._pins else self._trial.suggest_categorical(name, choices)

    def _pin(self, name: str) -> Any:
        pin = self._pins[name]
        return self._trial.suggest_categorical(name, pin) if isinstance(pin, tuple) else pin

    def _ranged(self, name: str, low: float, high: float) -> str:
        return f"{name} {low:g}-{high:g}" if name in self._varying else name


class Replayed:
    """A trial that answers with given values, and notes which dimensions it was asked for: what they hold
    under `params`, their ranges under `distributions`."""

    def __init__(self, values: Mapping[str, Any]) -> None:
        self._values = values
        self.params: dict[str, Any] = {}
        self.distributions: dict[str, BaseDistribution] = {}

    def suggest_float(self, name: str, low: float, high: float, **options: Any) -> float:
        return self._answer(name, FloatDistribution(low, high, **options))

    def suggest_int(self, name: str, low: int, high: int, **options: Any) -> int:
        return self._answer(name, IntDistribution(low, high, **options))

    def suggest_categorical(self, name: str, choices: Sequence[Any]) -> Any:
        return self._answer(name, CategoricalDistribution(choices))

    def outside(self) -> str | None:
        """The first dimension whose value lies outside its range."""
        for name, one in self.distributions.items():
            try:
                if one._contains(one.to_internal_repr(self.params[name])):
                    continue
            except ValueError:  # none of the choices
                pass
            return name
        return None

    def _answer(self, name: str, distribution: BaseDistribution) -> Any:
        value = self._values[bare(knob(name))]
        self.params[name] = value == 0 if _switches(name) else value
        self.distributions[name] = distribution
        return self.params[name]


def knob(dimension: str) -> str:
    """The knob that a dimension of the store belongs to: "shared_layers 1-6" → "shared_layers"."""
    return dimension.split(" ")[0]


def bare(knob: str) -> str:
    """A knob without its family's name: "csem.lr" → "lr"."""
    return knob.rpartition(".")[2]


def of_family(knob: str, values: Mapping[str, Any]) -> bool:
    """Whether a knob ("csem.lr"; without a family's name in a search of one) concerns a configuration."""
    return "." not in knob or knob.startswith(f"{values.get('family')}.")


def off(knob: str) -> str:
    """The dimension that decides whether a knob is 0, where that is a choice of its own."""
    return f"{knob} off"


def _switches(dimension: str) -> bool:
    return dimension == off(knob(dimension))


def parse_settings(settings: Sequence[str], option: str = "--set") -> dict[str, str]:
    """["key=value", …] → {key: value}. Raises ValueError for a setting without '=' or a key given twice.
    A value may be empty, as that of a text knob."""
    parsed: dict[str, str] = {}
    for setting in settings:
        key, equals, value = setting.partition("=")
        if not equals or not key:
            example = "lr=0.001" if option == "--set" else "macs=1e9"
            raise ValueError(f"{option} {setting!r}: expected key=value, e.g. {option} {example}")
        if key in parsed:
            raise ValueError(f"{option} {key} is given twice: {parsed[key]!r} and {value!r}")
        parsed[key] = value
    return parsed


def agrees(values: Mapping[str, Any], pins: Mapping[str, Any]) -> bool:
    """Whether a configuration lies in what the pins leave open."""
    return all(
        values[name] in pin if isinstance(pin, tuple) else values[name] == pin
        for name, pin in pins.items()
        if name in values
    )
