"""Shards to batches without a cache: a list of small generators, each taking an iterator and giving one.

    read_segments → expand_tars → group_by_keys → number_clips → shuffle → make_batches

Grouping and shuffling are webdataset's. Opening is ours: a worker reads byte ranges (datasets.storage), so
that an epoch is exact for any number of workers whatever the sizes of the shards; webdataset's own openers
run `pipe:` commands. Tar expansion is ours (datasets.members): webdataset's unpacks compressed and sparse
members of any size. Decoding is ours too (datasets.decode): webdataset's default decoders unpickle. Which
clips are read comes as numbers from datasets.plan, and nothing here asks the environment who it is.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from torch.utils.data import DataLoader, IterableDataset, get_worker_info
from webdataset.filters import shuffle as mix_window
from webdataset.tariterators import group_by_keys

from datasets import plan, storage
from datasets.batch import Batch
from datasets.decode import ClipFormat, decode_clip
from datasets.labels import LabelSpace
from datasets.members import ShardError, expand_tar
from datasets.shards import ClipLabels, Index, Shard, check_clip_size

WINDOW_CLIPS = 1000
WINDOW_BYTES = 64 * 2**20
READ_BYTES = 2**20

Step = Callable[[Iterator[Any]], Iterator[Any]]
Place = tuple[Shard, int, int]
"""A shard, a clip's place in it, and the clip's number in the split."""


def batches(
    index: Index,
    split: str,
    reading: plan.Reading,
    rng: random.Random | None = None,
) -> Iterator[Batch]:
    """The batches of one worker. `rng` mixes clips within a bounded window; None keeps the shards' order."""
    shards = index.split(split).shards
    steps: list[Step] = [
        partial(read_segments, root=index.root),
        expand_tars,
        group_by_keys,
        partial(number_clips, places=places(shards, reading.segments)),
    ]
    if rng is not None:
        window = window_clips(shards)
        steps.append(mix_window(window, initial=window, rng=rng))
    steps.append(partial(make_batches, index=index, sizes=reading.batch_sizes))
    stream: Iterator[Any] = iter([(shards[s.shard], s) for s in reading.segments])
    for step in steps:
        stream = step(stream)
    return stream


def read_segments(
    segments: Iterable[tuple[Shard, plan.Segment]], root: str | Path
) -> Iterator[tuple[str, BinaryIO]]:
    """Each stretch of a shard as a stream of tar bytes, bounded to that stretch, with the shard's name. The
    next one is opened (and, where it is remote, asked for) before this one is read."""
    waiting: deque[tuple[str, BinaryIO]] = deque()
    try:
        for shard, segment in segments:
            waiting.append((shard.name, _open_segment(root, shard, segment)))
            if len(waiting) == 2:
                yield waiting[0]
                waiting.popleft()[1].close()
        if waiting:
            yield waiting[0]
    finally:
        for _, stream in waiting:
            stream.close()


def _open_segment(root: str | Path, shard: Shard, segment: plan.Segment) -> BinaryIO:
    clips = shard.clips[segment.first : segment.stop]
    for clip in clips:
        check_clip_size(shard, clip)
    start, end = clips[0].offset, clips[-1].offset + clips[-1].size
    return storage.open_stream(root, shard.name, start, end - start, buffer_bytes=READ_BYTES)


def expand_tars(streams: Iterable[tuple[str, BinaryIO]]) -> Iterator[dict[str, Any]]:
    """Every member as webdataset's grouping wants it: {"fname", "data", "__url__": the shard's name}."""
    for shard, stream in streams:
        for name, data in expand_tar(stream, shard):
            yield {"fname": name, "data": data, "__url__": shard}


def places(shards: Sequence[Shard], segments: Iterable[plan.Segment]) -> Iterator[Place]:
    """The clips of `segments` in the order they are read."""
    origins = np.cumsum([0] + [len(shard.clips) for shard in shards])
    for segment in segments:
        for place in range(segment.first, segment.stop):
            yield shards[segment.shard], place, int(origins[segment.shard]) + place


def number_clips(
    samples: Iterable[dict[str, Any]], places: Iterable[Place]
) -> Iterator[tuple[Place, dict[str, bytes]]]:
    """Give each clip its place. Raises ShardError where the tar does not hold the clips the index lists, in
    their order."""
    found = iter(samples)
    for shard, place, number in places:
        expected = shard.clips[place].key
        sample = next(found, None)
        if sample is None or sample["__key__"] != expected:
            instead = "the end" if sample is None else f"clip {sample['__key__']}"
            raise ShardError(f"{shard.name}: expected clip {expected} from the index, found {instead}")
        yield (shard, place, number), {name: data for name, data in sample.items() if name[:2] != "__"}
    if (extra := next(found, None)) is not None:
        raise ShardError(f"{extra['__url__']}: clip {extra['__key__']} is not in the index")


def make_batches(
    clips: Iterable[tuple[Place, dict[str, bytes]]],
    index: Index,
    sizes: Iterable[int],
) -> Iterator[Batch]:
    """Decode clips into batches of the given sizes, straight into the batch's memory."""
    source = iter(clips)
    for size in sizes:
        waveform = np.empty((size, index.channels, index.samples), dtype=np.float32)
        labels, numbers = [], []
        for row in range(size):
            (shard, place, number), members = next(source)
            clip = shard.clips[place]
            wanted = ClipFormat(index.sample_rate, index.channels, clip.samples)
            labels.append(decode_clip(members, wanted, waveform[row], shard=shard.name, key=clip.key))
            numbers.append(number)
        scene, events, known = label_arrays(labels, index.labels)
        yield Batch(
            torch.from_numpy(waveform),
            torch.from_numpy(scene),
            torch.from_numpy(events),
            torch.from_numpy(known),
            torch.tensor(numbers, dtype=torch.int64),
        )
    next(source, None)  # or what follows the last clip would not be looked at


def label_arrays(
    labels: Sequence[ClipLabels], space: LabelSpace
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """`scene` (B, S) one-hot, `events` (B, E), `event_known` (B, E), all float32; unknown is a row of zeros
    in the first and the last. Raises ValueError for a name outside the vocabulary."""
    scene = np.zeros((len(labels), len(space.scenes)), dtype=np.float32)
    events = np.zeros((len(labels), len(space.events)), dtype=np.float32)
    known = np.zeros_like(events)
    for row, clip in enumerate(labels):
        if clip.scene is not None:
            scene[row, space.scene_index(clip.scene)] = 1.0
        if clip.events is not None:
            events[row] = space.event_vector(clip.events)
            known[row] = 1.0
    return scene, events, known


def window_clips(shards: Sequence[Shard]) -> int:
    """How many clips the shuffling window holds: at most WINDOW_CLIPS, and about WINDOW_BYTES of encoded
    audio."""
    clips = sum(len(shard.clips) for shard in shards)
    mean = sum(shard.bytes for shard in shards) / max(1, clips)
    return int(min(WINDOW_CLIPS, max(2, WINDOW_BYTES / max(mean, 1.0))))


class WorkerBatches(IterableDataset):
    """What torch's DataLoader copies into its workers: `make(worker, workers)` gives one worker's batches.

    A failure travels as a value: the loader would wrap it in a traceback of its own, and the reader wants one
    line.
    """

    def __init__(self, make: Callable[[int, int], Iterator[Batch]]) -> None:
        self._make = make

    def __iter__(self) -> Iterator[Batch | ShardError | OSError]:
        info = get_worker_info()
        worker, workers = (0, 1) if info is None else (info.id, info.num_workers)
        # Each worker is one core's worth of decoding; torch's own threads would only fight over the cores.
        torch.set_num_threads(1)
        try:
            yield from self._make(worker, workers)
        except (ShardError, OSError) as error:
            yield error


def in_workers(make: Callable[[int, int], Iterator[Batch]], workers: int) -> Iterator[Batch]:
    """The batches of `workers` processes in turn: worker 0's first, worker 1's first, …"""
    for item in DataLoader(WorkerBatches(make), batch_size=None, num_workers=workers):
        if isinstance(item, Exception):
            raise item
        yield item
