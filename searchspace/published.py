"""Rows of the papers' tables as data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Published:
    """One printed result.

    paper        short name and year; `table` and `row` as printed
    line         the row's printed number, else its place in the table from 1; the columns of a line share it
    corpus       the data it was measured on ("tut2018", "tau2019", "jssed"); `split` "validation" or "test"
                 ("train" where the paper measures there, "none" for a count)
    metric       the column it compares with, e.g. "scene_accuracy"; `value` and `spread` in [0, 1], but for
                 metrics that are no share: parameters, macs, embedding_mi (nat). `value` is None where the
                 figure is drawn only. `said`: "text" where the paper says it in a sentence, often with
                 "around", and prints it in no table
    spread_kind  "max deviation of 10 runs", "unknown", … : the papers' ± is not a standard deviation
    values       the configuration in the knobs' own names; {} for other people's systems
    events       where its event labels came from, as `open_source` takes it: "labels", "tags>0.1", …; "" for
                 a model without events
    pretrained   the weights it started from in words, "" for none
    epochs       length of its trainings, 0 if the paper does not say
    assumed      knobs of `values` that the paper does not print: the user may set others
    unlike       in what `values` differ from the printed system, "" if in nothing known
    needs        why it can't be trained here, "" if it can
    warm_start   True: inside the search space, run first. False: shown in reports only
    """

    paper: str
    table: str
    row: str
    corpus: str
    split: str
    metric: str
    value: float | None
    spread: float | None
    spread_kind: str
    values: Mapping[str, Any] = field(default_factory=dict)
    warm_start: bool = False
    line: int = 0
    events: str = "labels"
    pretrained: str = ""
    epochs: int = 0
    assumed: tuple[str, ...] = ()
    unlike: str = ""
    needs: str = ""
    said: str = ""

    @property
    def trainable(self) -> bool:
        return bool(self.values) and not self.needs
