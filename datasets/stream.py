"""Shards to batches without a cache: a list of small generators, each taking an iterator and giving one.

    byte_runs → open_runs → read_clips → put_in_order → make_batches

A worker reads byte ranges (datasets.storage), which the index gives for every clip, so an epoch is exact for
any number of workers whatever the sizes of the shards; webdataset's own openers run `pipe:` commands. Members
are taken out by datasets.members: webdataset's tar expansion unpacks compressed and sparse members of any
size, and looking at one clip's bytes at a time is faster. The order is datasets.plan's, so that what an epoch
left half way had already seen is known without reading. Decoding is datasets.decode's: webdataset's default
decoders unpickle. Nothing here asks the environment who it is.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch

from datasets import plan, storage
from datasets.batch import Batch
from datasets.decode import ClipFormat, decode_clip, decode_tags
from datasets.labels import LabelSpace
from datasets.members import clip_members
from datasets.prefetch import map_ahead
from datasets.shards import ClipLabels, Index, Shard, check_clip_size

READ_BYTES = 2**20

Place = tuple[Shard, int, int]
"""A shard, a clip's place in it, and the clip's number in the split."""


def batches(index: Index, split: str, reading: plan.Reading, threads: int = 1) -> Iterator[Batch]:
    """The batches of one reader, decoded in `threads` threads."""
    shards = index.split(split).shards
    runs = open_runs(byte_runs(reading.segments, shards), shards, index.root)
    clips = put_in_order(read_clips(runs, shards), reading.order)
    return make_batches(clips, index, reading.batch_sizes, threads)


def byte_runs(segments: Iterable[plan.Segment], shards: Sequence[Shard]) -> Iterator[plan.Segment]:
    """The segments cut where clips do not lie back to back, as in a subset."""
    for segment in segments:
        clips, first = shards[segment.shard].clips, segment.first
        for place in range(segment.first + 1, segment.stop):
            if clips[place].offset != clips[place - 1].offset + clips[place - 1].size:
                yield plan.Segment(segment.shard, first, place)
                first = place
        yield plan.Segment(segment.shard, first, segment.stop)


def open_runs(
    segments: Iterable[plan.Segment], shards: Sequence[Shard], root: str | Path
) -> Iterator[tuple[plan.Segment, BinaryIO]]:
    """Each stretch of a shard as a stream of tar bytes, bounded to that stretch. The next one is opened (and,
    where it is remote, asked for) before this one is read."""
    waiting: deque[tuple[plan.Segment, BinaryIO]] = deque()
    try:
        for segment in segments:
            waiting.append((segment, _open_run(root, shards[segment.shard], segment)))
            if len(waiting) == 2:
                yield waiting[0]
                waiting.popleft()[1].close()
        if waiting:
            yield waiting[0]
    finally:
        for _, stream in waiting:
            stream.close()


def _open_run(root: str | Path, shard: Shard, segment: plan.Segment) -> BinaryIO:
    clips = shard.clips[segment.first : segment.stop]
    for clip in clips:
        check_clip_size(shard, clip)
    start, end = clips[0].offset, clips[-1].offset + clips[-1].size
    return storage.open_stream(root, shard.name, start, end - start, buffer_bytes=READ_BYTES)


def read_clips(
    runs: Iterable[tuple[plan.Segment, BinaryIO]], shards: Sequence[Shard]
) -> Iterator[tuple[Place, dict[str, bytes]]]:
    """Every clip with its place and its members {suffix: bytes}. Raises ShardError where the tar does not
    hold the clips the index lists, in their order."""
    origins = np.cumsum([0] + [len(shard.clips) for shard in shards])
    for segment, stream in runs:
        shard = shards[segment.shard]
        for place in range(segment.first, segment.stop):
            clip = shard.clips[place]
            members = clip_members(stream.read(clip.size), shard.name, clip.key)
            yield (shard, place, int(origins[segment.shard]) + place), members


def put_in_order(
    clips: Iterable[tuple[Place, dict[str, bytes]]], order: Iterable[int]
) -> Iterator[tuple[Place, dict[str, bytes]]]:
    """The clips in the order of their numbers in `order`; what comes before its turn waits in memory."""
    waiting: dict[int, tuple[Place, dict[str, bytes]]] = {}
    source = iter(clips)
    for number in order:
        while number not in waiting:
            clip = next(source)
            waiting[clip[0][2]] = clip
        yield waiting.pop(number)


def make_batches(
    clips: Iterable[tuple[Place, dict[str, bytes]]],
    index: Index,
    sizes: Iterable[int],
    threads: int = 1,
) -> Iterator[Batch]:
    """Decode clips in `threads` threads into batches of the given sizes, straight into the batch's memory."""
    sizes, source = list(sizes), iter(clips)
    tag_count = len(index.tags.names) if index.tags else 0

    def memory(size: int) -> tuple[np.ndarray, np.ndarray]:
        waveform = np.empty((size, index.channels, index.samples), dtype=np.float32)
        return waveform, np.zeros((size, tag_count), dtype=np.float32)

    def rows() -> Iterator[_Row]:
        for size in sizes:
            waveform, tags = memory(size)
            for row in range(size):
                yield waveform, tags, row, *next(source)

    decoded = map_ahead(partial(_decode, index), rows(), threads)
    for size in sizes:
        waveform, tags = memory(0)  # a rank may get no clips
        labels, numbers = [], []
        for _ in range(size):
            waveform, tags, clip_labels, number = next(decoded)
            labels.append(clip_labels)
            numbers.append(number)
        scene, events, known = label_arrays(labels, index.labels)
        yield Batch(
            torch.from_numpy(waveform),
            torch.from_numpy(scene),
            torch.from_numpy(events),
            torch.from_numpy(known),
            torch.tensor(numbers, dtype=torch.int64),
            torch.from_numpy(tags),
            curated=torch.from_numpy(curated(labels)),
        )


_Row = tuple[np.ndarray, np.ndarray, int, Place, dict[str, bytes]]


def _decode(index: Index, item: _Row) -> tuple[np.ndarray, np.ndarray, ClipLabels, int]:
    """Decode a clip into its row of a batch's waveforms and tags."""
    waveform, tags, row, (shard, place, number), members = item
    clip = shard.clips[place]
    wanted = ClipFormat(index.sample_rate, index.channels, clip.samples)
    labels = decode_clip(members, wanted, waveform[row], shard=shard.name, key=clip.key)
    if tags.shape[1]:
        tags[row] = decode_tags(members, tags.shape[1], shard=shard.name, key=clip.key)
    return waveform, tags, labels, number


def curated(labels: Sequence[ClipLabels]) -> np.ndarray:
    """(B,) float32, 0 where the events are known to be unchecked, else 1."""
    return np.array([clip.curated is not False for clip in labels], dtype=np.float32)


def label_arrays(
    labels: Sequence[ClipLabels], space: LabelSpace
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """`scene` (B, S) one-hot, `events` (B, E), `event_known` (B, E), all float32; unknown is a row of zeros
    in the first and the last. A space without scenes passes over the clips'. Raises ValueError for a name
    outside the vocabulary."""
    scene = np.zeros((len(labels), len(space.scenes)), dtype=np.float32)
    events = np.zeros((len(labels), len(space.events)), dtype=np.float32)
    known = np.zeros_like(events)
    for row, clip in enumerate(labels):
        if clip.scene is not None and space.scenes:
            scene[row, space.scene_index(clip.scene)] = 1.0
        if clip.events is not None:
            events[row] = space.event_vector(clip.events)
            known[row] = 1.0
    return scene, events, known
