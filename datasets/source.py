"""One way in: `open_source(shards, cache=…)` gives the batches of a shard set, from the cache or streamed."""

from __future__ import annotations

import logging
import os
import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Protocol

import torch

from datasets import plan
from datasets.batch import Batch
from datasets.cache import CachedSplit, CacheError, open_cached, resident
from datasets.events import EventChoice, Relabelled, parse_events, with_events
from datasets.prefetch import prefetch
from datasets.shards import Index, ShardError

log = logging.getLogger(__name__)


class Source(Protocol):
    """The batches of a shard set. `batch_size` is the global batch, over all ranks.

    An epoch is exact: every training clip once in `steps` batches on each rank, every evaluation clip once
    over all ranks, no padding (a rank may get no evaluation batch). The order follows from `seed` and `epoch`
    alone.
    """

    index: Index

    def steps(self, batch_size: int, world: int = 1) -> int: ...

    def train_batches(
        self, batch_size: int, *, epoch: int, seed: int, rank: int = 0, world: int = 1, device: str = "cpu"
    ) -> Iterator[Batch]: ...

    def eval_batches(
        self, split: str, batch_size: int, *, rank: int = 0, world: int = 1, device: str = "cpu"
    ) -> Iterator[Batch]: ...


def default_cache() -> Path:
    """$SCENETUNE_CACHE, or ~/.cache/scenetune."""
    return Path(os.environ.get("SCENETUNE_CACHE") or Path.home() / ".cache" / "scenetune")


def open_source(root: str | Path, *, cache: Path | None, workers: int = 0, events: str = "labels") -> Source:
    """Open the shard set at `root`; `cache=None` streams.

    With a cache, the training and validation splits are decoded now if no earlier run did, the test split
    when it is first read. Where the cache can't be used a warning says why and the clips are streamed.
    Streaming decodes in `workers` processes, or for 0 in a thread of this one. `events` says which event
    labels the batches have: see datasets.events.

    Raises ShardError for a shard set that is missing, damaged, without training clips or without the tags
    asked for, ValueError for other `events`.
    """
    choice, index = parse_events(events), Index.load(root)
    with_events(index, choice)  # refused before anything is decoded
    if "train" not in index.splits or index.splits["train"].clips == 0:
        raise ShardError(f"{root}: no training clips; splits: {', '.join(index.splits) or 'none'}")
    source: Source = StreamSource(index, workers)
    if cache is not None:
        source = CacheSource(index, Path(cache), StreamSource(index, workers))
        for split in index.splits:
            if split != "test":
                source.cached(split)
    return source if choice == EventChoice("labels") else Relabelled(source, choice)


@dataclass
class StreamSource:
    """Decodes shards as it goes. `workers` > 0: in that many processes."""

    index: Index
    workers: int = 0

    def steps(self, batch_size: int, world: int = 1) -> int:
        return plan.steps(self.index.split("train").clips, batch_size, world)

    def train_batches(
        self, batch_size: int, *, epoch: int, seed: int, rank: int = 0, world: int = 1, device: str = "cpu"
    ) -> Iterator[Batch]:
        return self._read(partial(_train_stream, self.index, batch_size, epoch, seed, rank, world), device)

    def eval_batches(
        self, split: str, batch_size: int, *, rank: int = 0, world: int = 1, device: str = "cpu"
    ) -> Iterator[Batch]:
        return self._read(partial(_eval_stream, self.index, split, batch_size, rank, world), device)

    def _read(self, make: partial[Iterator[Batch]], device: str) -> Iterator[Batch]:
        from datasets.stream import in_workers

        batches = in_workers(make, self.workers) if self.workers else prefetch(make(0, 1))
        for batch in batches:
            yield batch if device == "cpu" else batch.to(device)


@dataclass
class CacheSource:
    """Reads the decoded clips of the cache; a split that the cache can't hold is streamed."""

    index: Index
    cache: Path
    streamed: StreamSource
    _splits: dict[tuple[str, str], CachedSplit | None] = field(default_factory=dict)

    def steps(self, batch_size: int, world: int = 1) -> int:
        return self.streamed.steps(batch_size, world)

    def cached(self, split: str, device: str = "cpu") -> CachedSplit | None:
        """The split, on `device` when it fits there; None where the cache can't be used."""
        if (split, device) not in self._splits:
            try:
                on_disk = open_cached(self.index, split, self.cache, threads=os.cpu_count() or 1)
                self._splits[split, device] = resident(on_disk, device)
            except CacheError as error:
                log.warning("warning: %s; streaming split %r instead", error, split)
                self._splits[split, device] = None
        return self._splits[split, device]

    def train_batches(
        self, batch_size: int, *, epoch: int, seed: int, rank: int = 0, world: int = 1, device: str = "cpu"
    ) -> Iterator[Batch]:
        cached = self.cached("train", device)
        if cached is None:
            options = {"epoch": epoch, "seed": seed, "rank": rank, "world": world}
            return self.streamed.train_batches(batch_size, **options, device=device)
        clips = plan.train_clips(len(cached), batch_size, seed=seed, epoch=epoch, rank=rank, world=world)
        return prefetch(cached.batches(map(torch.from_numpy, clips), device))

    def eval_batches(
        self, split: str, batch_size: int, *, rank: int = 0, world: int = 1, device: str = "cpu"
    ) -> Iterator[Batch]:
        cached = self.cached(split, device)
        if cached is None:
            return self.streamed.eval_batches(split, batch_size, rank=rank, world=world, device=device)
        ranges = plan.eval_ranges(len(cached), batch_size, rank=rank, world=world)
        clips = (torch.arange(start, stop) for start, stop in ranges)
        return prefetch(cached.batches(clips, device))


def _train_stream(
    index: Index,
    batch_size: int,
    epoch: int,
    seed: int,
    rank: int,
    world: int,
    worker: int,
    workers: int,
) -> Iterator[Batch]:
    from datasets.stream import batches

    sizes = [len(shard.clips) for shard in index.split("train").shards]
    who = {"rank": rank, "world": world, "worker": worker, "workers": workers}
    reading = plan.train_reading(sizes, batch_size, seed=seed, epoch=epoch, **who)
    rng = random.Random(f"{seed} {epoch} {rank} {worker}")
    return batches(index, "train", reading, rng)


def _eval_stream(
    index: Index,
    split: str,
    batch_size: int,
    rank: int,
    world: int,
    worker: int,
    workers: int,
) -> Iterator[Batch]:
    from datasets.stream import batches

    sizes = [len(shard.clips) for shard in index.split(split).shards]
    reading = plan.eval_reading(sizes, batch_size, rank=rank, world=world, worker=worker, workers=workers)
    return batches(index, split, reading)
