"""One way in: `open_source(shards, cache=…)` gives the batches of a shard set, from the cache or streamed."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch

from datasets import plan
from datasets.batch import Batch
from datasets.cache import CachedSplit, CacheError, open_cached, resident
from datasets.edited import Edited
from datasets.events import EventChoice, Relabel, parse_events, with_events
from datasets.prefetch import prefetch
from datasets.shards import Index, ShardError

log = logging.getLogger(__name__)


class Source(Protocol):
    """The batches of a shard set. `batch_size` is the global batch, over all ranks.

    An epoch is exact: every training clip once in `steps` batches on each rank, every evaluation clip once
    over all ranks, no padding (a rank may get no evaluation batch). The order follows from `seed` and `epoch`
    alone. An epoch that was left half way is taken up with `done`, its legs so far, by any number of ranks:
    they get every clip that is still to come once, in `steps(…, done=…)` batches each. `leg` is what to add
    to `done` after some steps.
    """

    index: Index

    def steps(self, batch_size: int, world: int = 1, done: Sequence[plan.Leg] = ()) -> int: ...

    def train_batches(
        self,
        batch_size: int,
        *,
        epoch: int,
        seed: int,
        rank: int = 0,
        world: int = 1,
        device: str = "cpu",
        done: Sequence[plan.Leg] = (),
    ) -> Iterator[Batch]: ...

    def eval_batches(
        self, split: str, batch_size: int, *, rank: int = 0, world: int = 1, device: str = "cpu"
    ) -> Iterator[Batch]: ...

    def leg(self, steps: int, world: int = 1, device: str = "cpu") -> plan.Leg: ...


class ShardSource(Source, Protocol):
    """The source of one shard set, of whose epoch a part can be had."""

    def train_stretch(
        self, parts: np.ndarray, *, first: int, epoch: int, seed: int, rank: int = 0, device: str = "cpu"
    ) -> Iterator[Batch]:
        """Batches of given sizes: `rank` gets parts[rank] (world, K) clips at each step, of the epoch's clips
        from the one in place `first` on. `first` and the sum of `parts` stay within the epoch."""
        ...


def default_cache() -> Path:
    """$SCENETUNE_CACHE, or ~/.cache/scenetune."""
    return Path(os.environ.get("SCENETUNE_CACHE") or Path.home() / ".cache" / "scenetune")


def open_source(
    root: str | Path, *, cache: Path | None, workers: int = 0, events: str = "labels"
) -> ShardSource:
    """Open the shard set at `root`; `cache=None` streams.

    With a cache, the training and validation splits are decoded now if no earlier run did, the test split
    when it is first read. Where the cache can't be used a warning says why and the clips are streamed.
    Streaming decodes in `workers` threads, at least one. `events` says which event labels the batches have:
    see datasets.events.

    Raises ShardError for a shard set that is missing, damaged, without training clips or without the tags
    asked for, ValueError for other `events`.
    """
    choice, index = parse_events(events), Index.load(root)
    with_events(index, choice)  # refused before anything is decoded
    if "train" not in index.splits or index.splits["train"].clips == 0:
        raise ShardError(f"{index.place}: no training clips; splits: {', '.join(index.splits) or 'none'}")
    source: ShardSource = StreamSource(index, workers)
    if cache is not None:
        source = CacheSource(index, Path(cache), StreamSource(index, workers))
        for split in index.splits:
            if split != "test":
                source.cached(split)
    return source if choice == EventChoice("labels") else Edited(source, Relabel(index, choice))


@dataclass
class StreamSource:
    """Decodes shards as it goes, in `workers` threads, at least one, which share the clips of every batch.

    Threads and not processes: libsndfile decodes without the interpreter lock, and a batch of a process costs
    half as much again on its way through shared memory (tests/benchmarks/bench_data.py).
    """

    index: Index
    workers: int = 0

    def steps(self, batch_size: int, world: int = 1, done: Sequence[plan.Leg] = ()) -> int:
        return len(plan.sizes_left(self.index.split("train").clips, batch_size, world, done))

    def train_batches(
        self,
        batch_size: int,
        *,
        epoch: int,
        seed: int,
        rank: int = 0,
        world: int = 1,
        device: str = "cpu",
        done: Sequence[plan.Leg] = (),
    ) -> Iterator[Batch]:
        options: dict[str, Any] = {
            "epoch": epoch,
            "seed": seed,
            "rank": rank,
            "world": world,
            "done": tuple(done),
        }
        sizes, within = shard_clips(self.index, "train"), self.window
        return self._read(
            "train", partial(plan.train_reading, sizes, batch_size, within=within, **options), device
        )

    def train_stretch(
        self, parts: np.ndarray, *, first: int, epoch: int, seed: int, rank: int = 0, device: str = "cpu"
    ) -> Iterator[Batch]:
        sizes = shard_clips(self.index, "train")
        row = plan.shard_row(sizes, seed, epoch)[first : first + int(parts.sum())]
        options: dict[str, Any] = {"key": (seed, epoch, first), "within": self.window, "rank": rank}
        return self._read("train", partial(plan.reading, sizes, row, parts, **options), device)

    def eval_batches(
        self, split: str, batch_size: int, *, rank: int = 0, world: int = 1, device: str = "cpu"
    ) -> Iterator[Batch]:
        sizes = shard_clips(self.index, split)
        return self._read(
            split, partial(plan.eval_reading, sizes, batch_size, rank=rank, world=world), device
        )

    def leg(self, steps: int, world: int = 1, device: str = "cpu") -> plan.Leg:
        return plan.Leg(steps, world)

    @property
    def window(self) -> int:
        """Clips that wait in memory at most to be mixed."""
        split = self.index.split("train")
        return plan.window(split.clips, sum(clip.size for _, clip in split.entries()))

    def _read(self, split: str, reading: partial[plan.Reading], device: str) -> Iterator[Batch]:
        with closing(prefetch(_stream(self.index, split, reading, max(1, self.workers)))) as batches:
            for batch in batches:
                yield batch if device == "cpu" else batch.to(device)


@dataclass
class CacheSource:
    """Reads the decoded clips of the cache; a split that the cache can't hold is streamed."""

    index: Index
    cache: Path
    streamed: StreamSource
    _splits: dict[tuple[str, str], CachedSplit | None] = field(default_factory=dict)

    def steps(self, batch_size: int, world: int = 1, done: Sequence[plan.Leg] = ()) -> int:
        return self.streamed.steps(batch_size, world, done)

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
        self,
        batch_size: int,
        *,
        epoch: int,
        seed: int,
        rank: int = 0,
        world: int = 1,
        device: str = "cpu",
        done: Sequence[plan.Leg] = (),
    ) -> Iterator[Batch]:
        options: dict[str, Any] = {"epoch": epoch, "seed": seed, "rank": rank, "world": world, "done": done}
        cached = self.cached("train", device)
        if cached is None:
            return self.streamed.train_batches(batch_size, **options, device=device)
        sizes = shard_clips(self.index, "train")
        clips = plan.train_clips(sizes, batch_size, within=self.streamed.window, **options)
        return prefetch(cached.batches(map(torch.from_numpy, clips), device))

    def train_stretch(
        self, parts: np.ndarray, *, first: int, epoch: int, seed: int, rank: int = 0, device: str = "cpu"
    ) -> Iterator[Batch]:
        cached = self.cached("train", device)
        if cached is None:
            options: dict[str, Any] = {"first": first, "epoch": epoch, "seed": seed, "rank": rank}
            return self.streamed.train_stretch(parts, **options, device=device)
        clips = plan.cut(plan.permutation(len(cached), seed, epoch)[first:], parts, rank)
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

    def leg(self, steps: int, world: int = 1, device: str = "cpu") -> plan.Leg:
        streams = self.cached("train", device) is None
        return self.streamed.leg(steps, world) if streams else plan.Leg(steps, world, cached=True)


def shard_clips(index: Index, split: str) -> tuple[int, ...]:
    """How many clips each shard of a split holds."""
    return tuple(len(shard.clips) for shard in index.split(split).shards)


def _stream(index: Index, split: str, reading: partial[plan.Reading], threads: int) -> Iterator[Batch]:
    from datasets.stream import batches

    return batches(index, split, reading(), threads)
