"""Rows of the papers' tables as data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Published:
    """One printed result.

    paper        short name and year; `table` and `row` as printed
    corpus       the data it was measured on ("tut2018", "tau2019", "jssed"); `split` "validation" or "test"
    metric       the column it compares with, e.g. "scene_accuracy"; `value` and `spread` in [0, 1]
    spread_kind  "max deviation of 10 runs", "unknown", … : the papers' ± is not a standard deviation
    values       the configuration in the knobs' own names
    warm_start   True: inside the search space, run first. False: shown in reports only
    """

    paper: str
    table: str
    row: str
    corpus: str
    split: str
    metric: str
    value: float
    spread: float | None
    spread_kind: str
    values: Mapping[str, Any] = field(default_factory=dict)
    warm_start: bool = False
