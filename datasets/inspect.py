"""What is in a shard set:  python -m datasets.inspect SHARDS"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import tyro

from datasets.shards import ClipLabels, Index, read_labels


@dataclass(frozen=True)
class Contents:
    """The labels of one split: clips per scene (S,), clips per event (E,), `together` (S, E) clips with both.

    `no_event` clips are known to hold none, `unknown_events` are not known; `strong` clips have onsets and
    offsets.
    """

    clips: int
    scenes: np.ndarray
    events: np.ndarray
    together: np.ndarray
    locations: int
    no_event: int
    unknown_scene: int
    unknown_events: int
    strong: int


def contents(index: Index, split: str) -> Contents:
    """Count the labels of a split. Raises ShardError for a damaged shard, ValueError for a label the index
    does not have."""
    labels = list(read_labels(index, split))
    scenes = np.zeros(len(index.labels.scenes), dtype=int)
    together = np.zeros((len(index.labels.scenes), len(index.labels.events)), dtype=int)
    events = np.zeros(len(index.labels.events), dtype=int)
    for clip in labels:
        present = index.labels.event_vector(clip.events or ()).astype(int)
        events += present
        if clip.scene is not None:
            scenes[index.labels.scene_index(clip.scene)] += 1
            together[index.labels.scene_index(clip.scene)] += present
    return Contents(len(labels), scenes, events, together, **_clip_counts(labels))


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
        lines += ["", *_together(index, next(iter(found)), next(iter(found.values())))]
    return "\n".join(lines)


def _together(index: Index, split: str, c: Contents) -> list[str]:
    lines = [f"  % of a scene's clips ({split}) that hold an event; columns are scenes in the order above"]
    share = 100 * c.together / np.maximum(c.scenes, 1)[:, None]
    for j, event in enumerate(index.labels.events):
        lines.append(
            f"  {event:24}" + "".join(f"{share[i, j]:5.0f}" for i in range(len(index.labels.scenes)))
        )
    return lines


def inspect(shards: tyro.conf.Positional[str]) -> None:
    """Counts, hours, classes, which events occur in which scene, and the checksum of a shard set.

    Args:
        shards: the folder with index.json, or its URL
    """
    index = Index.load(shards)
    print(report(index, {split: contents(index, split) for split in index.splits}))


def main(argv: list[str] | None = None) -> int:
    try:
        tyro.cli(inspect, args=argv)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
