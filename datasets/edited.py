"""A source with every batch edited on its way out: other event labels, labels of frames."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, Protocol, cast

import numpy as np

from datasets.batch import Batch
from datasets.plan import Leg
from datasets.shards import Index

if TYPE_CHECKING:
    from datasets.source import ShardSource, Source


class Edit(Protocol):
    """`index` describes the batches as they are afterwards."""

    index: Index

    def __call__(self, split: str, batch: Batch) -> Batch: ...


class Edited:
    """The batches of `source`, each of them through `edit`; which clips they hold, and in which order, is the
    source's. It has stretches where the source has them."""

    def __init__(self, source: Source, edit: Edit) -> None:
        self.index, self.edit = edit.index, edit
        self._source = source

    def steps(self, batch_size: int, world: int = 1, done: Sequence[Leg] = ()) -> int:
        return self._source.steps(batch_size, world, done)

    def train_batches(
        self,
        batch_size: int,
        *,
        epoch: int,
        seed: int,
        rank: int = 0,
        world: int = 1,
        device: str = "cpu",
        done: Sequence[Leg] = (),
    ) -> Iterator[Batch]:
        where: dict[str, Any] = {"epoch": epoch, "seed": seed, "rank": rank, "world": world, "device": device}
        return self._edited("train", self._source.train_batches(batch_size, **where, done=done))

    def train_stretch(
        self, parts: np.ndarray, *, first: int, epoch: int, seed: int, rank: int = 0, device: str = "cpu"
    ) -> Iterator[Batch]:
        where: dict[str, Any] = {"first": first, "epoch": epoch, "seed": seed, "rank": rank, "device": device}
        return self._edited("train", cast("ShardSource", self._source).train_stretch(parts, **where))

    def eval_batches(
        self, split: str, batch_size: int, *, rank: int = 0, world: int = 1, device: str = "cpu"
    ) -> Iterator[Batch]:
        where: dict[str, Any] = {"rank": rank, "world": world, "device": device}
        return self._edited(split, self._source.eval_batches(split, batch_size, **where))

    def leg(self, steps: int, world: int = 1, device: str = "cpu") -> Leg:
        return self._source.leg(steps, world, device)

    def _edited(self, split: str, batches: Iterator[Batch]) -> Iterator[Batch]:
        for batch in batches:
            yield self.edit(split, batch)
