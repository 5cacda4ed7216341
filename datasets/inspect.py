"""What is in a shard set:

    python -m datasets.inspect SHARDS [--verify] [--picture FILE.png [--instances]]

Counts, hours, classes, which labels occur together, checksums, and how the set was made. `--verify` reads
every byte and compares it with the index; `--picture` draws P(event | scene), or with `--instances` how often
an event begins in each scene (datasets/picture.py).
"""

from __future__ import annotations

import hashlib
import itertools
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tyro

from datasets import storage
from datasets.command import asked, exit_code
from datasets.picture import check_picture, draw, occurrences, relation
from datasets.progress import Progress
from datasets.shards import ClipLabels, Index, Shard, ShardError, read_labels

BLOCK = 2**20


# Pairs of events named in the text.
PAIRS = 10


@dataclass(frozen=True)
class Contents:
    """The labels of one split: clips per scene (S,), clips per event (E,), `together` (S, E) clips with both,
    `known` (S,) clips of the scene whose events are known. `pairs` counts the clips that hold both of two
    events (i < j).

    `instances` (S, E) counts the onsets of each event in the clips of each scene; where a recording was cut
    into clips, an event that crosses the cut is in both.

    `no_event` clips are known to hold none, `unknown_events` are not known; `strong` clips have onsets and
    offsets.
    """

    clips: int
    scenes: np.ndarray
    events: np.ndarray
    together: np.ndarray
    known: np.ndarray
    instances: np.ndarray
    pairs: Mapping[tuple[int, int], int]
    locations: int
    no_event: int
    unknown_scene: int
    unknown_events: int
    strong: int

    def given_scene(self) -> np.ndarray:
        """(S, E) P(event | scene), the share of a scene's clips with known events that hold the event; 0 for
        a scene without such clips."""
        return np.asarray(self.together / np.maximum(self.known, 1)[:, None])


def contents(index: Index, split: str) -> Contents:
    """Count the labels of a split. Raises ShardError for a damaged shard, ValueError for a label the index
    does not have."""
    space = index.labels
    place_of = {name: place for place, name in enumerate(space.events)}
    scenes, known = np.zeros(len(space.scenes), dtype=int), np.zeros(len(space.scenes), dtype=int)
    together = np.zeros((len(space.scenes), len(space.events)), dtype=int)
    instances = np.zeros_like(together)
    events = np.zeros(len(space.events), dtype=int)
    pairs: Counter[tuple[int, int]] = Counter()
    labels = list(read_labels(index, split))
    for clip in labels:
        names = [name for name in clip.events or () if name not in space.ignored]
        if unknown := [name for name in names if name not in place_of]:
            raise ValueError(
                f"{index.place}: split {split!r} has the event {unknown[0]!r}, the index does not"
            )
        present = sorted({place_of[name] for name in names})
        events[present] += 1
        pairs.update(itertools.combinations(present, 2))
        if clip.scene is not None and space.scenes:
            scene = space.scene_index(clip.scene)
            scenes[scene] += 1
            known[scene] += clip.events is not None
            together[scene, present] += 1
            for _, _, name in clip.strong or ():
                if name in place_of:
                    instances[scene, place_of[name]] += 1
    return Contents(len(labels), scenes, events, together, known, instances, pairs, **_clip_counts(labels))


def _clip_counts(labels: Sequence[ClipLabels]) -> dict[str, int]:
    places = Counter((clip.scene, clip.location) for clip in labels if clip.location is not None)
    return {
        "locations": len(places),
        "no_event": sum(clip.events == () for clip in labels),
        "unknown_scene": sum(clip.scene is None for clip in labels),
        "unknown_events": sum(clip.events is None for clip in labels),
        "strong": sum(clip.strong is not None for clip in labels),
    }


def report(index: Index, found: Mapping[str, Contents]) -> str:
    """The text: format and splits, then the share of each scene's training clips that hold each event."""
    seconds = index.samples / index.sample_rate
    lines = [
        f"{index.place}: corpus {index.corpus!r}",
        f"  {index.sample_rate} Hz, {index.channels} channel(s), {index.sample_type}, clips up to "
        f"{seconds:g} s",
        f"  licence: {index.licence}",
        f"  checksum {index.checksum}",
        f"  {len(index.dropped)} damaged clips dropped",
        *([f"  {len(index.tags.names)} tags a clip, by {index.tags.model}"] if index.tags else []),
        "",
        f"  {'split':8}{'clips':>8}{'hours':>8}{'shards':>8}{'locations':>11}{'strong':>8}"
        f"{'no event':>10}{'unknown':>9}",
    ]
    for name, split in index.splits.items():
        c = found[name]
        row = f"  {name:8}{split.clips:8}{split.hours:8.2f}{len(split.shards):8}{c.locations:11}{c.strong:8}"
        lines.append(row + f"{c.no_event:10}{c.unknown_events:9}")
    lines += ["", "  clips of each scene: " + ", ".join(found)]
    for i, scene in enumerate(index.labels.scenes):
        lines.append(f"  {scene:24}" + "".join(f"{c.scenes[i]:8}" for c in found.values()))
    if index.labels.events:
        lines += ["", "  clips with each event: " + ", ".join(found)]
        for j, event in enumerate(index.labels.events):
            lines.append(f"  {event:24}" + "".join(f"{c.events[j]:8}" for c in found.values()))
        first = next(iter(found))
        lines += ["", *_together(index, first, found[first])]
        if index.labels.scenes and found[first].strong:
            lines += ["", *_instances(index, first, found[first])]
        lines += ["", *_pairs(index, first, found[first])]
    return "\n".join(lines)


def _together(index: Index, split: str, c: Contents) -> list[str]:
    if not index.labels.scenes:
        return ["  no scenes: nothing to say of which events occur in which"]
    lines = [f"  % of a scene's clips ({split}) that hold an event; columns are scenes in the order above"]
    share = 100 * c.given_scene()
    for j, event in enumerate(index.labels.events):
        lines.append(
            f"  {event:24}" + "".join(f"{share[i, j]:5.0f}" for i in range(len(index.labels.scenes)))
        )
    return lines


def _instances(index: Index, split: str, c: Contents) -> list[str]:
    """Fig. 1 of Imoto et al. 2022."""
    lines = [f"  instances of an event ({split}); columns are scenes in the order above"]
    for j, event in enumerate(index.labels.events):
        lines.append(f"  {event:24}" + "".join(f"{count:6}" for count in c.instances[:, j]))
    return lines


def _pairs(index: Index, split: str, c: Contents) -> list[str]:
    names = index.labels.events
    most = sorted(c.pairs, key=lambda pair: (-c.pairs[pair], pair))[:PAIRS]
    lines = [f"  events most often in one clip ({split}), of {len(c.pairs)} pairs that occur"]
    return lines + [f"  {c.pairs[a, b]:8}  {names[a]} + {names[b]}" for a, b in most]


def verify(index: Index, *, progress: bool = True) -> int:
    """Compare every tar's size and SHA-256 with the index; how many bytes were read. Raises ShardError for
    the first that differs."""
    shards = [(split, shard) for split, content in index.splits.items() for shard in content.shards]
    total = 0
    with Progress(len(shards), progress, things="shards") as bar:
        for _, shard in shards:
            digest, size = _digest(index, shard)
            if size != shard.bytes or digest != shard.sha256:
                raise ShardError(
                    f"{storage.join(index.root, shard.name)}: SHA-256 {digest[:12]}… of {size} bytes, the "
                    f"index says {shard.sha256[:12]}… of {shard.bytes} bytes: not the shard that was prepared"
                )
            total += size
            bar.step()
    return total


def _digest(index: Index, shard: Shard) -> tuple[str, int]:
    digest, size = hashlib.sha256(), 0
    with storage.open_stream(index.root, shard.name) as stream:
        while block := stream.read(BLOCK):
            digest.update(block)
            size += len(block)
    return digest.hexdigest(), size


def inspect(
    shards: tyro.conf.Positional[str],
    verify: bool = False,
    picture: Path | None = None,
    instances: bool = False,
) -> None:
    """Counts, hours, classes, which events occur in which scene, and the checksum of a shard set.

    Args:
        shards: the folder with index.json, or its URL
        verify: read every shard and compare its SHA-256 with the index
        picture: draw P(event | scene) of the first split into this file (.png, .pdf, .svg)
        instances: draw instead how often each event begins in each scene, in all splits (Imoto 2022, Fig. 1)
    """
    index = Index.load(shards)
    if picture is not None:
        check_picture(picture, index.labels)
    elif instances:
        raise ValueError("--instances says what to draw: give --picture FILE.png too")
    found = {split: contents(index, split) for split in index.splits}
    print(report(index, found))
    if verify:
        size = _verify(index)
        print(f"\n  verified: all {size} bytes of the shards have the SHA-256 of the index")
    if picture is not None:
        split = next(iter(found))
        shown = (
            occurrences(index.labels, found, index.corpus)
            if instances
            else relation(index.labels, found[split], split, index.corpus)
        )
        draw(shown, picture)
        print(f"\n  {picture}: {shown.title}")


# `verify` is the name of the option too.
_verify = verify


def main(argv: list[str] | None = None) -> int:
    return exit_code(lambda: asked(inspect, "python -m datasets.inspect", argv=argv))


if __name__ == "__main__":
    sys.exit(main())
