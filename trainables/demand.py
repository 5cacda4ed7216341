"""What memory the trials of a study are expected to take, told before any of them runs.

A training step is predicted without allocating it (trainables.describe), which takes 0.1 to 1 s for a
configuration. So not all are looked at but the published ones, one of each kind.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from searchspace.families import FAMILY
from searchspace.proposals import Proposals
from searchspace.tables import Configuration

KINDS = 4  # looked at, at most

Values = Mapping[str, Any]


def of_search(proposals: Proposals, drawn: Values, workers: int) -> dict[str, Any]:
    """`expected` of the published rows that a search may run, else of `drawn`, one of its configurations."""
    assert proposals.predict is not None
    rows: list[tuple[str, Values]] = [*proposals.fitting]
    candidates = rows or [("a configuration drawn at random", drawn)]
    return expected(candidates, proposals.predict, workers=workers, limit=proposals.limits.get("memory"))


def of_table(
    configurations: Iterable[Configuration],
    predict: Callable[[str], Callable[[Values], Mapping[str, float]]],
    workers: int,
) -> dict[str, Any]:
    """`expected` of a paper's rows; `predict` says of a source of event labels what models of them need."""
    by_source: dict[str, list[tuple[str, Values]]] = {}
    for one in configurations:
        by_source.setdefault(one.events, []).append((one.origin, one.values))
    found = [expected(rows, predict(source), workers=workers) for source, rows in by_source.items()]
    return max(found, key=lambda one: one["bytes"])


def expected(
    candidates: Iterable[tuple[str, Values]],
    predict: Callable[[Values], Mapping[str, float]],
    *,
    workers: int,
    limit: float | None = None,
) -> dict[str, Any]:
    """{"bytes", "of"}: bytes that a training step takes of each of a trial's `workers`, the largest of one
    (origin, configuration) of each kind, and which one that is. A `limit` in bytes is the figure where it is
    smaller: what is over it is not run. Python and torch themselves come on top.
    """
    found = []
    for origin, values in one_of_each_kind(candidates):
        share = {**values, "batch_size": math.ceil(values["batch_size"] / workers)}
        found.append((predict(share)["memory"], origin))
    most, origin = max(found, key=lambda one: one[0])
    if limit is not None and limit < most:
        return {"bytes": limit, "of": "the --limit"}
    among = f", the largest of {len(found)} kinds" if len(found) > 1 else ""
    return {"bytes": most, "of": origin + among}


def one_of_each_kind(candidates: Iterable[tuple[str, Values]]) -> list[tuple[str, Values]]:
    """The first candidate of each kind, of KINDS at most. A kind is what the first knob in words (and the
    family, in a search of several) says: a backbone, say.
    """
    kinds: dict[tuple[str, ...], tuple[str, Values]] = {}
    for candidate in candidates:
        words = [value for value in candidate[1].values() if isinstance(value, str)]
        kinds.setdefault(tuple(words[: 2 if FAMILY in candidate[1] else 1]), candidate)
    return list(kinds.values())[:KINDS]
