"""Search methods by name: samplers propose (searchspace/samplers.py), pruners stop early or let wait
(searchspace/pruners.py, searchspace/population.py)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

from searchspace.population import Population
from searchspace.pruners import Asha, Hyperband, Median, NoPruning, Patience, Promotion
from searchspace.samplers import SAMPLERS

__all__ = ["PRUNERS", "SAMPLERS", "Asha", "NoPruning", "Pruner", "choose"]

T = TypeVar("T")
Pruner = Asha | Median | Patience | NoPruning  # Hyperband is an Asha; Promotion and Population stop nothing

PRUNERS: Mapping[str, Pruner] = {
    "asha": Asha(),
    "promotion": Promotion(),
    "hyperband": Hyperband(),
    "median": Median(),
    "patience": Patience(),
    "pbt": Population(),
    "none": NoPruning(),
}


def choose(kind: str, name: str, table: Mapping[str, T]) -> T:
    """`table[name]`, or a ValueError that lists what there is."""
    if name not in table:
        raise ValueError(f"{kind} {name!r} is not known; known: {', '.join(table)}")
    return table[name]
