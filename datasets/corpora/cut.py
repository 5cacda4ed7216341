"""Long recordings cut into clips, one after the other, with the part of the labels that falls into each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import soundfile

from datasets.corpora.corpus import Recording
from datasets.shards import ClipLabels

# A remainder shorter than this part of a clip is left out.
LEAST_PART = 0.5


def check_clip_seconds(clip_seconds: float) -> None:
    """Raises ValueError for a length that is none."""
    if not 0 <= clip_seconds < float("inf"):
        raise ValueError(f"--clip-seconds {clip_seconds:g}: a length in seconds, or 0 for whole recordings")


def cut(
    folder: Path, file: str, labels: ClipLabels, clip_seconds: float, notes: list[str]
) -> tuple[list[Recording], float]:
    """(the clips of `clip_seconds` of a recording, the seconds at its end that are in none); 0 = the whole.

    An event of `labels.strong` that crosses a border is in both clips. A recording that can't be read stays
    whole: the preparation counts it as damaged.
    """
    try:
        length = soundfile.info(folder / file).duration
    except (soundfile.SoundFileError, OSError):
        length = 0.0
    if clip_seconds == 0 or length == 0:
        return [Recording(file, labels_between(labels, 0.0, float("inf")))], 0.0
    if beyond := sum(onset >= length for onset, _, _ in labels.strong or ()):
        notes.append(f"{file}: {beyond} events begin after the recording's end ({length:.1f} s)")
    clips = []
    count = int(length / clip_seconds + 1 - LEAST_PART + 1e-9)
    for start in (number * clip_seconds for number in range(max(count, 1))):
        end = min(start + clip_seconds, length)
        clips.append(Recording(file, labels_between(labels, start, end), start, end - start))
    return clips, max(round(length - end, 3), 0.0)


def labels_between(labels: ClipLabels, start: float, end: float) -> ClipLabels:
    """What of the labels falls between `start` and `end` (s), in the time of the clip."""
    if labels.strong is None:
        return labels
    inside = sorted(
        (round(max(onset - start, 0.0), 6), round(min(offset, end) - start, 6), name)
        for onset, offset, name in labels.strong
        if onset < end and offset > start
    )
    strong = tuple(span for span in inside if span[0] < span[1])
    return replace(labels, events=tuple(sorted({name for _, _, name in strong})), strong=strong)


def note_remainders(remainders: Sequence[float], notes: list[str]) -> None:
    left = [seconds for seconds in remainders if seconds]
    if left:
        notes.append(
            f"the last {max(left):.1f} s or less of {len(left)} recordings left out: not half a clip"
        )
