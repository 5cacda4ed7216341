"""Less of a shard set: fewer event classes, fewer hours, one kind of labels.

    python -m datasets.subset SHARDS --events 35 --choose random --hours 170 --seed 1 --out NEWSHARDS
    python -m datasets.subset SHARDS --only scenes --out NEWSHARDS

As Parikh et al. 2022, §4.2-4.4, take k classes and T hours of AudioSet, and as ERGL (Hou et al. 2023, §3)
takes its n events. Clips are copied byte for byte.

Classes are chosen (--choose, --names)
    random   k drawn by seed; with the same seed, the 35 are among the 115
    most     the k with the largest scores by --scores, a teacher's on the scene corpus: that corpus with
             tags (python -m trainables.teacher), or an array
    least    the k with the smallest
    top      the k with the most training clips, or the largest scores by --scores
    --names  by name

Ties go to the class that comes first. Classes keep their order.

Hours are drawn from the training split among the clips that hold a chosen class (or, with --keep-others,
among all); with the same seed the clips of 11 hours are among those of 22. Other splits stay whole but for
clips that hold none of the classes. With --only the other kind of labels is forgotten, and clips without a
known label of this kind are left out.
"""

from __future__ import annotations

import difflib
import hashlib
import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import tyro

from datasets import storage
from datasets.command import asked, exit_code
from datasets.labels import LabelSpace
from datasets.shard_writer import ShardWriter, rewritten_index, unfinished
from datasets.shards import Clip, ClipLabels, Index, Shard, Split, check_clip_size, read_labels
from datasets.tables import text_lines

# Each operation is a pure function `Index -> Index`, and what it gives can be streamed and cached like any
# other index; `write` makes a shard set of it.
_CLASSES, _CLIPS = 1, 2  # draws that must not follow one another though the seed is the same


def random_events(events: Sequence[str], count: int, seed: int) -> tuple[str, ...]:
    """`count` of the classes, in their order. Raises ValueError when there are fewer."""
    _check_count(events, count)
    drawn = np.random.default_rng([_CLASSES, seed]).permutation(len(events))[:count]
    return tuple(events[i] for i in sorted(drawn))


def named_events(events: Sequence[str], names: Iterable[str]) -> tuple[str, ...]:
    """The classes called so, in their order. Raises ValueError for a name that is none of them, listing near
    ones, and for one given twice."""
    wanted = list(names)
    for name in wanted:
        if name not in events:
            near = difflib.get_close_matches(name, events, n=3, cutoff=0.5)
            near += [e for e in events if name.lower() in e.lower() and e not in near][:3]
            hint = f"near: {'; '.join(near)}" if near else f"the first are: {'; '.join(events[:5])}"
            raise ValueError(f"event {name!r} is not one of the {len(events)} known; {hint}")
    if repeated := [name for name in wanted if wanted.count(name) > 1]:
        raise ValueError(f"event {repeated[0]!r} is named twice")
    if not wanted:
        raise ValueError("no event is named, at least 1")
    return tuple(name for name in events if name in wanted)


def ranked_events(
    events: Sequence[str], scores: np.ndarray, count: int, *, largest: bool = True
) -> tuple[str, ...]:
    """The `count` classes with the largest (or smallest) scores, in their order; ties go to the lower index.

    scores  (K,) a number for each class, or (clips, K), which are accumulated over the clips
    ERGL's top-n events are `ranked_events(events, probabilities of the training clips, n)`.
    Raises ValueError for scores of another number of classes, or that are not all finite.
    """
    _check_count(events, count)
    scores = np.asarray(scores, dtype=np.float64)
    if scores.ndim not in (1, 2) or scores.shape[-1] != len(events):
        raise ValueError(
            f"scores of shape {scores.shape}: expected ({len(events)},) or (clips, {len(events)})"
        )
    if not np.isfinite(scores).all():
        raise ValueError("scores must be finite numbers")
    total = scores.sum(0) if scores.ndim == 2 else scores
    best = np.argsort(-total if largest else total, kind="stable")[:count]
    return tuple(events[i] for i in sorted(best))


def tag_scores(tagged: Index, events: Sequence[str]) -> np.ndarray:
    """(K,) the sums of a teacher's probabilities for these classes over a shard set's training clips.

    Raises ValueError for a shard set without tags, or whose tags lack one of the classes.
    """
    from datasets.tagged import read_tags

    names = tagged.tags.names if tagged.tags else ()
    if not names:
        raise ValueError(
            f"{tagged.place}: this shard set has no tags; python -m trainables.teacher makes one that has"
        )
    if missing := [name for name in events if name not in names]:
        raise ValueError(f"{tagged.place}: its {len(names)} tags have none for the event {missing[0]!r}")
    columns = [names.index(name) for name in events]
    return np.asarray(read_tags(tagged, "train")[:, columns].sum(0, dtype=np.float64))


def label_scores(labels: Iterable[ClipLabels], space: LabelSpace) -> np.ndarray:
    """(K,) how many of the clips hold each class; clips of unknown events hold none."""
    found = np.zeros(len(space.events))
    for clip in labels:
        found += space.event_vector(clip.events or ())
    return found


def holding(labels: Iterable[ClipLabels], events: Iterable[str]) -> np.ndarray:
    """(N,) whether a clip is known to hold one of the classes."""
    wanted = frozenset(events)
    return np.array([not wanted.isdisjoint(clip.events or ()) for clip in labels], dtype=bool)


def drawn_hours(seconds: np.ndarray, hours: float, seed: int, among: np.ndarray | None = None) -> np.ndarray:
    """The numbers of the clips that make up `hours`, ascending: the first that do, in an order drawn by
    seed.

    seconds  (N,) length of every clip of the split
    among    (N,) which of them may be taken; default: all
    Raises ValueError when there is less.
    """
    if not hours > 0:
        raise ValueError(f"{hours:g} hours: expected more than 0")
    order = np.random.default_rng([_CLIPS, seed]).permutation(len(seconds))
    order = order if among is None else order[among[order]]
    total = np.cumsum(seconds[order])
    # A second of tolerance: what `hours` says of a whole split has been rounded somewhere.
    if not len(total) or total[-1] + 1.0 < hours * 3600:
        there = total[-1] / 3600 if len(total) else 0.0
        raise ValueError(f"{hours:g} hours: there are {there:.3f} hours of clips to choose from")
    return np.sort(order[: int(np.searchsorted(total, hours * 3600 - 1e-6)) + 1])


def with_events(index: Index, events: Sequence[str]) -> Index:
    """The index with only these event classes, in this order; readers pass over the others. Raises
    ValueError for a name it does not have."""
    named_events(index.labels.events, events)
    dropped = frozenset(index.labels.events) - frozenset(events)
    labels = LabelSpace(index.labels.scenes, tuple(events), index.labels.ignored | dropped)
    return replace(index, labels=labels, checksum=_checksum(index, ["events", *events]))


def with_only(index: Index, kind: Literal["scenes", "events"]) -> Index:
    """The index with one kind of labels; readers pass over the other. Raises ValueError where it has none of
    this kind."""
    labels = index.labels
    if not getattr(labels, kind):
        raise ValueError(f"{index.place}: only {kind}: this shard set has no {kind}")
    if kind == "scenes":
        labels = LabelSpace(labels.scenes, (), labels.ignored | frozenset(labels.events))
    else:
        labels = replace(labels, scenes=())
    return replace(index, labels=labels, checksum=_checksum(index, ["only", kind]))


def with_clips(index: Index, split: str, numbers: np.ndarray) -> Index:
    """The index with only the clips `numbers` (ascending) of a split; shards that none is left of are left
    out."""
    shards, first = [], 0
    for shard in index.split(split).shards:
        mine = numbers[(numbers >= first) & (numbers < first + len(shard.clips))] - first
        if len(mine):
            shards.append(replace(shard, clips=tuple(shard.clips[i] for i in mine)))
        first += len(shard.clips)
    if len(numbers) and not 0 <= numbers[0] <= numbers[-1] < first:
        raise IndexError(
            f"split {split!r} has clips 0 to {first - 1}, asked for {numbers[0]} to {numbers[-1]}"
        )
    samples = sum(clip.samples for shard in shards for clip in shard.clips)
    kept = Split(len(numbers), samples / index.sample_rate / 3600, tuple(shards))
    return replace(
        index,
        splits={**index.splits, split: kept},
        checksum=_checksum(index, [split, *(int(number) for number in numbers)]),
    )


def subset(
    index: Index,
    events: Sequence[str] | None,
    hours: float | None,
    *,
    seed: int,
    keep_others: bool = False,
    only: Literal["scenes", "events"] | None = None,
) -> Index:
    """All operations as the module's docstring says; None leaves events, hours or labels as they are.

    Raises ValueError for an unknown event, or more hours than there are.
    """
    chosen = index if events is None else with_events(index, events)
    chosen = chosen if only is None else with_only(chosen, only)
    for name, split in index.splits.items():
        may = np.ones(split.clips, dtype=bool)
        if events is not None and not keep_others:
            may = holding(read_labels(index, name), events)
        if only is not None:
            may &= _labelled(read_labels(index, name), only)
        numbers = np.flatnonzero(may)
        if name == "train" and hours is not None:
            seconds = np.array([clip.samples for _, clip in split.entries()]) / index.sample_rate
            numbers = drawn_hours(seconds, hours, seed, may)
        if len(numbers) < split.clips:
            chosen = with_clips(chosen, name, numbers)
    if not chosen.split("train").clips:
        what = f"holds one of: {'; '.join(events)}" if events else f"has known {only}"
        raise ValueError(f"{index.place}: no training clip {what}")
    return chosen


def _labelled(labels: Iterable[ClipLabels], kind: str) -> np.ndarray:
    """(N,) whether a clip's scene, or its events, are known."""
    known = (clip.scene if kind == "scenes" else clip.events for clip in labels)
    return np.array([one is not None for one in known], dtype=bool)


def write(index: Index, out: Path) -> Index:
    """The clips of `index` as a shard set of their own at `out`, in its order, without the empty splits.

    Raises FileExistsError when `out` is in use, ShardError where a clip is not where the index says, OSError
    when the disk fills up; nothing is left at `out` then.
    """
    with unfinished(out) as folder:
        splits = {}
        for name, split in index.splits.items():
            if split.clips:
                writer = ShardWriter(folder, name, index.sample_rate)
                for shard, clip, data in _clips(index, split):
                    writer.copy(clip, data, shard.name)
                splits[name] = writer.close()
        written = rewritten_index(index, splits, folder, tags=index.tags)
        written.save()
    return replace(written, root=out)


def _clips(index: Index, split: Split) -> Iterator[tuple[Shard, Clip, bytes]]:
    for shard in split.shards:
        for clip in shard.clips:
            check_clip_size(shard, clip)
            yield shard, clip, storage.read_range(index.root, shard.name, clip.offset, clip.size)


def _checksum(index: Index, change: Sequence[object]) -> str:
    return hashlib.sha256(json.dumps([index.checksum, *change]).encode()).hexdigest()


def _check_count(events: Sequence[str], count: int) -> None:
    if not 1 <= count <= len(events):
        raise ValueError(f"{count} events: the shard set has {len(events)}, expected 1 to {len(events)}")


@dataclass(frozen=True)
class Request:
    """What to keep of which shard set."""

    shards: tyro.conf.Positional[str]
    """Shard set to take from: a folder, or a URL (http, https, s3, gs)."""
    out: Path
    """Folder for the new shard set."""
    events: int | None = None
    """How many event classes; all by default."""
    choose: Literal["random", "most", "least", "top"] | None = None
    """How they are chosen; default: random."""
    names: tuple[str, ...] = ()
    """Classes by name instead: --names Speech "Railroad car, train wagon"."""
    names_from: Path | None = None
    """The same from a text file, a name a line."""
    scores: str | None = None
    """A folder of tagged shards, whose training clips' tags are summed; or an .npy file of numbers (K,) or
    (clips, K), columns in the order of the shard set's events."""
    hours: float | None = None
    """Hours of training clips; all by default."""
    seed: int = 0
    """Draws classes and clips."""
    keep_others: bool = False
    """Keep clips that hold none of the classes (a scene corpus, for example)."""
    only: Literal["scenes", "events"] | None = None
    """Forget the other kind of labels."""


def chosen_events(request: Request, index: Index) -> tuple[str, ...] | None:
    """The classes a request asks for; None for all. Raises ValueError where it contradicts itself or can't
    be followed."""
    known = index.labels.events
    names = request.names
    if request.names_from is not None:
        names += tuple(line.strip() for _, line in text_lines(request.names_from))
    if names or request.names_from is not None:
        if request.events is not None:
            raise ValueError(f"--events {request.events} and names: give one of them")
        if request.choose is not None:
            raise ValueError(f"--choose {request.choose} and names: give one of them")
        return named_events(known, names)
    if request.scores is not None and (request.events is None or request.choose in (None, "random")):
        raise ValueError("--scores needs --events and --choose most, least or top")
    if request.choose is not None and request.events is None:
        raise ValueError(f"--choose {request.choose} needs --events, how many")
    if request.events is None:
        return None
    if request.choose in (None, "random"):
        return random_events(known, request.events, request.seed)
    if request.scores is not None:
        scores = _read_scores(request.scores, known)
    elif request.choose == "top":
        scores = label_scores(read_labels(index, "train"), index.labels)
    else:
        raise ValueError(f"--choose {request.choose} needs --scores, a teacher's on the scene corpus")
    return ranked_events(known, scores, request.events, largest=request.choose != "least")


def make(request: Request) -> None:
    index = Index.load(request.shards)
    if request.seed < 0:
        raise ValueError(f"--seed {request.seed}: expected 0 or more")
    events = chosen_events(request, index)
    if events is None and request.hours is None and request.only is None:
        raise ValueError("nothing to leave out: give --events, --names, --hours or --only")
    if events is not None and request.only == "scenes":
        raise ValueError("--only scenes leaves no event classes to choose; choose them without it")
    chosen = subset(
        index,
        events,
        request.hours,
        seed=request.seed,
        keep_others=request.keep_others,
        only=request.only,
    )
    written = write(chosen, request.out)
    for name, split in index.splits.items():
        now = written.splits.get(name)
        left = f"{now.clips} clips, {now.hours:.2f} hours" if now else "nothing"
        print(f"{name:8}{split.clips} clips, {split.hours:.2f} hours -> {left}")
    print(f"events  {len(index.labels.events)} -> {len(written.labels.events)}")
    print(f"{request.out}: checksum {written.checksum[:16]}")


def _read_scores(place: str, events: Sequence[str]) -> np.ndarray:
    from datasets.decode import decode_array  # no pickles

    path = Path(place)
    if path.suffix != ".npy" and not path.is_file():
        return tag_scores(Index.load(place), events)
    try:
        return decode_array(path.read_bytes())
    except ValueError as error:
        raise ValueError(f"{path}: not a .npy file of numbers: {error}") from error


def main(argv: list[str] | None = None) -> int:
    request = asked(Request, "python -m datasets.subset", __doc__, argv)
    return exit_code(lambda: make(request))


if __name__ == "__main__":
    sys.exit(main())
