"""Event labels for every frame, from the onsets and offsets in the shards.

The hop is cut to whole samples, as a front end does it (20 ms at 16 kHz are 320). Frame t of a clip is the
stretch from t to t + 1 hops; a clip of N samples has N // hop of them, 500 for 10 s and 20 ms. An event is in
every frame that its stretch overlaps, however little: from floor(onset / hop) up to ceil(offset / hop), as in
DCASE's own tools. Onsets and offsets count to the microsecond, so that 0.14 s, which no float is, ends with
frame 7 of 20 ms. An event whose offset is not after its onset is in no frame.

Unknown (`Batch.frame_known` 0): clips without onsets and offsets, and what lies behind a short clip's end.
An event whose label is unknown for the clip (`Batch.event_known` 0) is unknown in its frames as well.

The labels are read once, without the audio, when a split is first used; only the numbers of first and last
frames are kept, and a batch's frames are made from its clips' numbers. So the cache of waveforms serves every
hop.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import TYPE_CHECKING

import torch

from datasets.batch import Batch
from datasets.edited import Edited
from datasets.events import EventChoice, parse_events
from datasets.shards import ClipLabels, Index, ShardError, read_labels

if TYPE_CHECKING:
    from datasets.source import Source

MICROSECONDS = 1_000_000


@dataclass(frozen=True)
class ClipFrames:
    """The events of a clip as (first frame, frame after the last, event column); `known` frames from the
    start are to be believed, none where the clip has no onsets and offsets."""

    spans: tuple[tuple[int, int, int], ...]
    known: int


def hop_samples(hop: Fraction, sample_rate: int) -> int:
    """`hop` (s) in whole samples, rounded down."""
    return math.floor(hop * sample_rate)


def frame_span(onset: float, offset: float, hop: Fraction, frames: int) -> tuple[int, int]:
    """(first frame, frame after the last) of 0 … `frames` that a stretch from `onset` to `offset` (s)
    overlaps; the two are equal where it overlaps none. `hop` in s."""
    begin, end = round(onset * MICROSECONDS), round(offset * MICROSECONDS)
    if end <= begin:
        return 0, 0
    step = hop * MICROSECONDS
    first, stop = max(0, math.floor(begin / step)), min(frames, math.ceil(end / step))
    return (first, stop) if first < stop else (0, 0)


def clip_frames(clip: ClipLabels, frames: int, columns: Mapping[str, int], hop: Fraction) -> ClipFrames:
    """`frames` is the clip's length in frames of `hop` s. Events without a column are left out."""
    if clip.strong is None:
        return ClipFrames((), 0)
    spans = []
    for onset, offset, name in clip.strong:
        first, stop = frame_span(onset, offset, hop, frames)
        if first < stop and name in columns:
            spans.append((first, stop, columns[name]))
    return ClipFrames(tuple(spans), frames)


class AddFrames:
    """Gives batches that `index` describes their `frames` of `hop` s. `indices` are the shard sets that their
    clips come from, in the order in which those are numbered.

    Raises ShardError where no training clip has onsets and offsets.
    """

    def __init__(self, index: Index, hop: Fraction, indices: Sequence[Index]) -> None:
        self.index, self._indices = index, tuple(indices)
        self._hop_samples = hop_samples(hop, self.index.sample_rate)
        if self._hop_samples < 1:
            raise ValueError(
                f"frames of {float(hop):g} s are shorter than a sample at {self.index.sample_rate} Hz"
            )
        self._clips: dict[str, list[ClipFrames]] = {}
        if not any(clip.known for clip in self.clips("train")):
            raise ShardError(f"this family learns the events of each frame; {self.untimed('train')}")

    def untimed(self, split: str) -> str:
        """In words that no clip of the split has frame labels."""
        return (
            f"none of the {len(self.clips(split))} {split} clips of {self.index.place} has onsets and "
            "offsets, which frame labels are made of; python -m datasets.inspect counts those that have "
            "('strong')"
        )

    def clips(self, split: str) -> list[ClipFrames]:
        """Every clip of the split, by number. Raises ShardError for an event that has no column."""
        if split not in self._clips:
            self._clips[split] = [
                found
                for index in self._indices
                if split in index.splits
                for found in self._read(index, split)
            ]
        return self._clips[split]

    def __call__(self, split: str, batch: Batch) -> Batch:
        clips = self.clips(split)
        return self._framed(batch, [clips[number] for number in batch.clip.tolist()])

    def _framed(self, batch: Batch, clips: Sequence[ClipFrames]) -> Batch:
        size = (len(batch), self.index.samples // self._hop_samples, len(self.index.labels.events))
        frames = torch.zeros(size, dtype=torch.bool)  # a quarter of the bytes on the way to a GPU
        known = torch.zeros(size[:2], dtype=torch.bool)
        for row, clip in enumerate(clips):
            known[row, : clip.known] = True
            for first, stop, column in clip.spans:
                frames[row, first:stop, column] = True
        device = batch.waveform.device
        return replace(batch, frames=frames.to(device).float(), frame_known=known.to(device).float())

    def _read(self, index: Index, split: str) -> Iterator[ClipFrames]:
        columns = {name: column for column, name in enumerate(self.index.labels.events)}
        hop = Fraction(self._hop_samples, self.index.sample_rate)
        entries = [clip for _, clip in index.split(split).entries()]
        for entry, clip in zip(entries, read_labels(index, split), strict=True):
            for _, _, name in clip.strong or ():
                if name not in columns and name not in index.labels.ignored:
                    raise ShardError(
                        f"{index.place}: clip {entry.key} of split {split!r}: event {name!r} is not one of "
                        f"the {len(columns)} known: {', '.join(columns)}"
                    )
            yield clip_frames(clip, entry.samples // self._hop_samples, columns, hop)


def untimed(source: Source, split: str) -> str:
    """Why nothing can be said of the events in the frames of a split, "" where something can."""
    edit = source.edit if isinstance(source, Edited) else None
    if not isinstance(edit, AddFrames):
        return "no frame labels were asked for"
    return "" if any(clip.known for clip in edit.clips(split)) else edit.untimed(split)


def refuse_other_labels(events: str) -> None:
    """Raises ValueError unless `events` (datasets.events) are the corpus's own: frames are, and a choice
    would change nothing in them."""
    if parse_events(events) != EventChoice("labels"):
        raise ValueError(
            f"events {events!r}: this family learns the events of each frame, for which there are only the "
            "corpus's own labels (events 'labels')"
        )
