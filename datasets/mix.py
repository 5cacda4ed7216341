"""Batches of fixed composition from several shard sets, e.g. 64 scene clips and 128 event clips (Parikh et
al. 2022, §2).

    lead  ──────────── one pass an epoch, `batch_size` clips a step ──┐
    companion ─ cycle ─ cycle ─ cyc…  `clips` of them a step ─────────┴─▶ fit to the joint label space ─▶ join

The lead is passed through once an epoch, exactly as without companions. A companion that is too small for an
epoch cycles, every cycle in a fresh order, so that an epoch uses each of its clips c or c + 1 times. One that
is large enough for several epochs goes on where the epoch before stopped, until what is left of it is too
little for a whole epoch; then a fresh pass begins. Both follow from the seed and the epoch alone.

Labels: the scenes of the lead, then new ones of the companions; the same for events. What a set does not
label is unknown in its clips: a scene row of zeros, `event_known` 0. The longest clips' length rules, shorter
ones end in zeros. Tags are kept where all sets have them from one teacher. In evaluation each set's split is
read once; scene metrics then count the clips of known scene.
"""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from datasets import plan, storage
from datasets.batch import Batch
from datasets.edited import Edited
from datasets.frames import AddFrames, refuse_other_labels
from datasets.labels import LabelSpace
from datasets.shards import Index, Split
from datasets.source import ShardSource, Source, open_source


class MixError(ValueError):
    """Shard sets that can't be in one batch. The message is one line and names both."""


@dataclass(frozen=True)
class Companion:
    """A source and how many of its clips are in each global step."""

    source: ShardSource
    clips: int


@dataclass(frozen=True, eq=False)
class Piece:
    """What an epoch takes from one cycle of a companion: from place `first` of the order of the companion's
    epoch `epoch`, parts[rank] (world, K) clips at the steps from `step` on."""

    epoch: int
    first: int
    step: int
    parts: np.ndarray


def open_sources(
    data: str | Path,
    mix: Sequence[str] = (),
    *,
    cache: Path | None,
    workers: int = 0,
    events: str = "labels",
    frames: Fraction | None = None,
) -> Source:
    """The shard set at `data`, with every "SHARDS:CLIPS" of `mix` as its companion; see `open_source`.
    `events` is the lead's; companions have the labels of their shards. With `frames`, a hop in s, batches
    have the events of each frame too (datasets.frames).

    Raises ValueError for a `mix` of another form, MixError for sets that don't fit together.
    """
    asked = [_parse(word) for word in mix]
    lead = open_source(data, cache=cache, workers=workers, events=events)
    companions = [Companion(open_source(root, cache=cache, workers=workers), clips) for root, clips in asked]
    source: Source = MixedSource.of(lead, companions) if companions else lead
    if frames is None:
        return source
    refuse_other_labels(events)
    indices = [lead.index, *(companion.source.index for companion in companions)]
    return Edited(source, AddFrames(source.index, frames, indices))


@dataclass
class MixedSource:
    """The source of the lead's and the companions' batches joined; `batch_size` counts the lead's clips.

    `index` describes the whole: joint labels, the longest clip, clips and hours of all sets together, a
    checksum of all and of the composition. It lists no shards.
    """

    lead: Source
    companions: tuple[Companion, ...]
    index: Index

    @staticmethod
    def of(lead: Source, companions: Sequence[Companion]) -> MixedSource:
        """Raises MixError where two sets differ in sampling rate or channels, or one's scene is the other's
        event, ValueError for less than one clip of a set or more than it has."""
        indices = [lead.index, *(companion.source.index for companion in companions)]
        for companion in companions:
            if companion.clips < 1:
                raise ValueError(
                    f"{companion.source.index.place}: {companion.clips} clips a batch, at least 1"
                )
        for one, other in itertools.combinations(indices, 2):
            check_fit(one, other)
        for companion in companions:
            if companion.clips > (there := companion.source.index.split("train").clips):
                raise ValueError(
                    f"{companion.source.index.place}: {companion.clips} clips a batch, it has {there} for "
                    "training"
                )
        counts = [companion.clips for companion in companions]
        return MixedSource(lead, tuple(companions), joint_index(indices, counts))

    def steps(self, batch_size: int, world: int = 1, done: Sequence[plan.Leg] = ()) -> int:
        return self.lead.steps(batch_size, world, done)

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
        """Batches of the lead's clips, then each companion's in turn. After `done` the lead's clips are
        exact; a companion goes on at its place, which for a streamed one is its place only nearly."""
        lead: dict[str, Any] = {"epoch": epoch, "seed": seed, "rank": rank, "world": world, "device": device}
        streams = [self.lead.train_batches(batch_size, **lead, done=done)]
        made = sum(leg.steps for leg in done)
        steps = made + self.steps(batch_size, world, done)
        for companion in self.companions:
            clips = companion.source.index.split("train").clips
            pieces = cycles(clips, companion.clips, steps, epoch=epoch, world=world, made=made)
            streams.append(_cycled(companion.source, pieces, seed, rank, device))
        for parts in zip(*streams, strict=True):
            yield self._joined(enumerate(parts), "train")

    def eval_batches(
        self, split: str, batch_size: int, *, rank: int = 0, world: int = 1, device: str = "cpu"
    ) -> Iterator[Batch]:
        """The split of every set that has it, one set after another."""
        self.index.split(split)
        for number, source in enumerate(self._sources()):
            if split in source.index.splits:
                options: dict[str, Any] = {"rank": rank, "world": world, "device": device}
                for batch in source.eval_batches(split, batch_size, **options):
                    yield self._joined([(number, batch)], split)

    def leg(self, steps: int, world: int = 1, device: str = "cpu") -> plan.Leg:
        return self.lead.leg(steps, world, device)

    def _sources(self) -> list[Source]:
        return [self.lead, *(companion.source for companion in self.companions)]

    def _joined(self, batches: Iterable[tuple[int, Batch]], split: str) -> Batch:
        """Batches of the numbered sources in one, in the joint label space, clips numbered set after set."""
        indices = [source.index for source in self._sources()]
        numbered = list(batches)
        size = sum(len(batch) for _, batch in numbered)
        like = numbered[0][1].waveform
        waveform = like.new_zeros(size, self.index.channels, self.index.samples)
        scene = like.new_zeros(size, len(self.index.labels.scenes))
        events = like.new_zeros(size, len(self.index.labels.events))
        known, clips, part, row = torch.zeros_like(events), [], [], 0
        curated = like.new_ones(size)
        tags = like.new_zeros(size, len(self.index.tags.names) if self.index.tags else 0)
        for number, batch in numbered:
            rows = slice(row, row + len(batch))
            waveform[rows, :, : batch.waveform.shape[2]] = batch.waveform
            columns = _columns(indices[number].labels.events, self.index.labels.events, like.device)
            events[rows, columns], known[rows, columns] = batch.events, batch.event_known
            columns = _columns(indices[number].labels.scenes, self.index.labels.scenes, like.device)
            scene[rows, columns] = batch.scene
            curated[rows] = batch.curated
            if self.index.tags:
                tags[rows] = batch.tags
            before = sum(index.splits[split].clips for index in indices[:number] if split in index.splits)
            clips.append(batch.clip + before)
            part.append(torch.full_like(batch.clip, number))
            row += len(batch)
        return Batch(waveform, scene, events, known, torch.cat(clips), tags, torch.cat(part), curated=curated)


def cycles(
    clips: int, size: int, steps: int, *, epoch: int, world: int = 1, made: int = 0
) -> Iterator[Piece]:
    """The pieces of an epoch of `steps` global steps with `size` clips each, from a companion of `clips`
    clips; without the first `made` steps."""
    wanted = steps * size
    if wanted <= clips:
        epochs = clips // wanted if wanted else 1
        passes = [(epoch // epochs, epoch % epochs * wanted, 0, wanted)]
    else:
        count = -(-wanted // clips)
        starts = range(0, wanted, clips)
        passes = [(epoch * count + j, 0, lo, min(lo + clips, wanted)) for j, lo in enumerate(starts)]
    for number, first, start, stop in passes:
        lo = max(start, made * size)
        if lo < stop:
            step, after = lo // size, -(-stop // size)
            edges = np.arange(step, after) * size + (np.arange(world + 1) * size // world)[:, None]
            parts = np.diff(np.clip(edges, lo, stop), axis=0)
            yield Piece(number, first + lo - start, step - made, parts)


def check_fit(one: Index, other: Index) -> None:
    """Raises MixError; see `MixedSource.of`."""
    who = f"{one.place} and {other.place} can't be mixed"
    for name, unit in (("sample_rate", "Hz"), ("channels", "channel(s)")):
        a, b = getattr(one, name), getattr(other, name)
        if a != b:
            raise MixError(f"{who}: {a} and {b} {unit}; prepare both alike")
    for scenes, events in (
        (one.labels.scenes, other.labels.events),
        (other.labels.scenes, one.labels.events),
    ):
        if both := [name for name in scenes if name in events]:
            raise MixError(f"{who}: {both[0]!r} is a scene in one and an event in the other")


def joint_index(indices: Sequence[Index], counts: Sequence[int]) -> Index:
    """What the mixture looks like to a model: see `MixedSource`. `counts` are the companions' clips a
    step."""
    lead = indices[0]
    events = tuple(dict.fromkeys(name for index in indices for name in index.labels.events))
    identity = json.dumps([[index.checksum for index in indices], list(counts)])
    names = dict.fromkeys(name for index in indices for name in index.splits)
    splits = {}
    for name in names:
        found = [index.splits[name] for index in indices if name in index.splits]
        splits[name] = Split(sum(s.clips for s in found), sum(s.hours for s in found), ())
    return replace(
        lead,
        corpus=" + ".join(index.corpus for index in indices),
        samples=max(index.samples for index in indices),
        sample_type="float32" if any(i.sample_type == "float32" for i in indices) else lead.sample_type,
        labels=LabelSpace(
            tuple(dict.fromkeys(name for index in indices for name in index.labels.scenes)),
            events,
            frozenset(name for index in indices for name in index.labels.ignored).difference(events),
        ),
        licence="; ".join(dict.fromkeys(index.licence for index in indices)),
        tags=lead.tags if all(index.tags == lead.tags for index in indices) else None,
        citation="; ".join(dict.fromkeys(index.citation for index in indices)),
        checksum=hashlib.sha256(identity.encode()).hexdigest(),
        splits=splits,
        dropped=tuple(one for index in indices for one in index.dropped),
    )


def _cycled(
    source: ShardSource, pieces: Iterator[Piece], seed: int, rank: int, device: str
) -> Iterator[Batch]:
    """One batch a step; where a cycle ends inside a step, the rest of it comes from the next."""
    made = (
        (piece.step + number, batch)
        for piece in pieces
        for number, batch in enumerate(
            source.train_stretch(
                piece.parts, first=piece.first, epoch=piece.epoch, seed=seed, rank=rank, device=device
            )
        )
    )
    for _, group in itertools.groupby(made, key=lambda item: item[0]):
        yield _concatenated([batch for _, batch in group])


def _concatenated(batches: list[Batch]) -> Batch:
    if len(batches) == 1:
        return batches[0]
    names = batches[0].__dataclass_fields__
    return Batch(**{name: torch.cat([getattr(batch, name) for batch in batches]) for name in names})


def _columns(names: tuple[str, ...], among: tuple[str, ...], device: torch.device) -> Tensor:
    place = {name: column for column, name in enumerate(among)}
    return torch.tensor([place[name] for name in names], dtype=torch.int64, device=device)


def resolved(word: str) -> str:
    """A "SHARDS:CLIPS" with the folder's full path, for processes that run elsewhere. Raises ValueError for
    another form, ShardError where there is no shard set."""
    root, count = _parse(word)
    Index.load(root)
    return word if storage.is_url(root) else f"{Path(root).resolve()}:{count}"


def _parse(word: str) -> tuple[str, int]:
    root, _, count = word.rpartition(":")
    if not root or not count.isdigit() or not int(count):
        raise ValueError(f"--mix {word}: expected SHARDS:CLIPS, e.g. shards/audioset:128")
    return root, int(count)
