"""A search over several model families: `family` is a dimension, and each family's knobs are dimensions of
their own, "csem.lr" and "bigru_mtl.lr", asked for only where that family is taken.

A configuration of such a search holds its family under "family" and beside it that family's knobs by their
own names; one of a search in a single family has no "family".
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from searchspace.published import Published

FAMILY = "family"


class Prefixed:
    """A trial whose dimensions have a family's name before theirs."""

    def __init__(self, trial: Any, family: str) -> None:
        self._trial, self._family = trial, family

    def suggest_float(self, name: str, *ranges: Any, **options: Any) -> float:
        return self._trial.suggest_float(prefixed(self._family, name), *ranges, **options)

    def suggest_int(self, name: str, *ranges: Any, **options: Any) -> int:
        return self._trial.suggest_int(prefixed(self._family, name), *ranges, **options)

    def suggest_categorical(self, name: str, choices: Sequence[Any]) -> Any:
        return self._trial.suggest_categorical(prefixed(self._family, name), choices)


def prefixed(family: str, knob: str) -> str:
    return f"{family}.{knob}"


def suggest_across(suggests: Mapping[str, Callable[[Any], Mapping[str, Any]]]) -> Callable[[Any], dict]:
    """`suggest` of a search over the families of `suggests`; the knobs have their families' names."""

    def suggest(trial: Any) -> dict[str, Any]:
        family = trial.suggest_categorical(FAMILY, list(suggests))
        knobs = suggests[family](Prefixed(trial, family))
        return {FAMILY: family} | {prefixed(family, name): value for name, value in knobs.items()}

    return suggest


def complete_across(
    completes: Mapping[str, Callable[[Mapping[str, Any]], dict[str, Any]]],
) -> Callable[[Mapping[str, Any]], dict[str, Any]]:
    """`complete` of such a search: from knobs with their families' names to a configuration."""

    def complete(values: Mapping[str, Any]) -> dict[str, Any]:
        family, start = values[FAMILY], prefixed(values[FAMILY], "")
        own = {name.removeprefix(start): v for name, v in values.items() if name.startswith(start)}
        return {FAMILY: family} | completes[family](own)

    return complete


def rows_across(published: Mapping[str, Sequence[Published]]) -> list[Published]:
    """The families' rows in turn, the first of each before the second of any, as rows of such a search."""
    turns = max(map(len, published.values()), default=0)
    return [
        replace(rows[turn], values=_across(family, rows[turn].values))
        for turn in range(turns)
        for family, rows in published.items()
        if turn < len(rows)
    ]


def _across(family: str, values: Mapping[str, Any]) -> dict[str, Any]:
    return {FAMILY: family} | {prefixed(family, name): value for name, value in values.items()}


def split(values: Mapping[str, Any], only: str) -> tuple[str, dict[str, Any]]:
    """(family, its knobs) of a configuration; `only` is the family of a search in one."""
    return values.get(FAMILY, only), {name: value for name, value in values.items() if name != FAMILY}
