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
PROCESS = 0.5e9  # bytes that Python, torch and Ray take in a trial's process
# Bytes for each sample of a batch that a process on a CPU takes beside the step: the batch, the next one, the
# spectra between samples and log-mel, what the heap keeps of all (tests/benchmarks/README.md, "Memory").
A_SAMPLE = 160

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
    """{"bytes", "clips", "of"}: bytes that a training step takes of each of a trial's `workers`, the largest
    of one (origin, configuration) of each kind, the clips of the worker's batch, and which one that is. A
    `limit` in bytes is the figure where it is smaller: what is over it is not run. For what the process takes
    beside that see `of_process`.
    """
    found = []
    for origin, values in one_of_each_kind(candidates):
        clips = math.ceil(values["batch_size"] / workers)
        found.append((predict({**values, "batch_size": clips})["memory"], clips, origin))
    most, clips, origin = max(found, key=lambda one: one[0])
    if limit is not None and limit < most:
        return {"bytes": limit, "clips": clips, "of": "the --limit"}
    among = f", the largest of {len(found)} kinds" if len(found) > 1 else ""
    return {"bytes": most, "clips": clips, "of": origin + among}


def of_process(memory: Mapping[str, Any], samples: int) -> float:
    """Bytes that a worker's whole process takes on a CPU, by what is `expected` of its step and the `samples`
    of a clip, all channels together."""
    return PROCESS + memory["bytes"] + A_SAMPLE * memory["clips"] * samples


def one_of_each_kind(candidates: Iterable[tuple[str, Values]]) -> list[tuple[str, Values]]:
    """The first candidate of each kind, of KINDS at most. A kind is what the first knob in words (and the
    family, in a search of several) says: a backbone, say.
    """
    kinds: dict[tuple[str, ...], tuple[str, Values]] = {}
    for candidate in candidates:
        words = [value for value in candidate[1].values() if isinstance(value, str)]
        kinds.setdefault(tuple(words[: 2 if FAMILY in candidate[1] else 1]), candidate)
    return list(kinds.values())[:KINDS]
