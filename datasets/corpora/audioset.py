"""AudioSet: 527 event classes, weak labels, scenes unknown; a folder of clips and the lists of segments.

    class_labels_indices.csv            index,mid,display_name
    balanced_train_segments.csv         YTID, start s, end s, "mid,mid,…"    22160 segments
    unbalanced_train_segments.csv                                            2041789
    eval_segments.csv                                                        20371
    …                                   the clips, in any folders below

The lists may lie in a subfolder too (metadata/), and are read in both spellings found: comma and space with
every label cell quoted, as published, and the rewritten copies without.

The audio is not distributed and every site names it in its own way. A segment's clip is one of, with or
without the leading Y:

    Y<ytid>.wav    Y<ytid>_<start>_<end>.wav    Y<ytid>_<start>.wav

with times in seconds and three decimals, in seconds, or in milliseconds; .flac, .ogg, .opus, .mp3 as well.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from datasets.corpora.corpus import About, Corpus, Recording, Validation, check_class_list, check_folder
from datasets.corpora.hold_out import hold_out
from datasets.labels import LabelSpace
from datasets.shards import ClipLabels
from datasets.tables import read_table, split_cells, text_lines

TrainingLists = Literal["balanced", "unbalanced", "both"]

ABOUT = About(
    "lists CC BY 4.0 (Google), ontology CC BY-SA 4.0; the clips belong to those who uploaded them",
    "Gemmeke, Ellis, Freedman, Jansen, Lawrence, Moore, Plakal, Ritter, Audio Set: An ontology and "
    "human-labeled dataset for audio events, ICASSP 2017",
)
CLASSES = 527
CLASS_LIST = "class_labels_indices.csv"
SUFFIXES = (".wav", ".flac", ".ogg", ".opus", ".mp3")
LAYOUT = f"{CLASS_LIST}, balanced_train_segments.csv, eval_segments.csv and the clips"
WORST = 3

Gaps = dict[str, Mapping[str, tuple[int, int]]]
"""{list: {event: (segments without a clip, segments)}}"""


@dataclass(frozen=True)
class Segment:
    """A line of a segment list: `start` and `end` in s, `events` by name."""

    ytid: str
    start: float
    end: float
    events: tuple[str, ...]


def read_audioset(
    folder: Path,
    *,
    train: TrainingLists = "balanced",
    validation: Validation = "auto",
    validation_fraction: float = 0.2,
    seed: int = 0,
) -> Corpus:
    """The training segments of the lists `train` that have a clip, eval_segments.csv's as test split, and a
    validation split drawn at random from the training segments ("location" = by video, the same here).

    Listed segments without a clip are counted, in the notes with the classes they hit most. Raises
    FileNotFoundError or ValueError, one line each, for lists that are missing or malformed, for a label that
    CLASS_LIST does not have and for a list without any clip.
    """
    check_folder(folder, CLASS_LIST, LAYOUT, lambda path: find_file(path, CLASS_LIST) is not None)
    names = read_classes(find_file(folder, CLASS_LIST) or folder / CLASS_LIST)
    notes: list[str] = []
    clips = Clips.below(folder, notes)
    kinds = ("balanced", "unbalanced") if train == "both" else (train,)
    gaps: Gaps = {}
    test = _read_list(folder, "eval", names, clips, notes, gaps)
    used = {recording.labels.location for recording in test}
    training: list[Recording] = []
    again = 0
    for kind in kinds:
        found = _read_list(folder, f"{kind}_train", names, clips, notes, gaps)
        new = [recording for recording in found if recording.labels.location not in used]
        used |= {recording.labels.location for recording in new}
        again += len(found) - len(new)
        training += new
    if again:
        notes.append(f"{again} training segments left out: their video is in the test or another list too")
    first, val = hold_out(training, "random", validation_fraction, seed, notes)
    splits = {"train": first, "val": val, "test": tuple(test)}
    return Corpus(LabelSpace((), tuple(names.values())), splits, tuple(notes), ABOUT, gaps)


def clip_names(segment: Segment) -> Iterator[str]:
    """The names, without suffix, under which sites keep the clip of a segment, the most telling first."""
    times = [
        (f"{segment.start:.3f}", f"{segment.end:.3f}"),
        (f"{segment.start:g}", f"{segment.end:g}"),
        (f"{round(segment.start * 1000)}", f"{round(segment.end * 1000)}"),
    ]
    for prefix in ("Y", ""):
        for start, end in times:
            yield f"{prefix}{segment.ytid}_{start}_{end}"
            yield f"{prefix}{segment.ytid}_{start}"
        yield f"{prefix}{segment.ytid}"


def find_file(folder: Path, name: str) -> Path | None:
    """The file `name` in the folder or in one directly below."""
    if (folder / name).is_file():
        return folder / name
    return next((path for path in sorted(folder.glob(f"*/{name}")) if path.is_file()), None)


def read_classes(path: Path) -> dict[str, str]:
    """{mid: display name} of a class_labels_indices.csv, in the order of the published models' outputs."""
    rows = read_table(path, ("index", "mid", "display_name"), delimiter=",")
    check_class_list(path, rows, CLASSES)
    return {row["mid"]: row["display_name"] for row in rows}


@dataclass(frozen=True)
class Clips:
    """All audio files below a folder: {name without suffix: path from the folder on}."""

    folder: Path
    files: Mapping[str, str]

    @staticmethod
    def below(folder: Path, notes: list[str]) -> Clips:
        found: dict[str, str] = {}
        twice: set[str] = set()
        for place, folders, files in os.walk(folder, followlinks=True):
            folders.sort()
            inside = Path(place).relative_to(folder).as_posix()
            for file in sorted(files):
                stem, suffix = os.path.splitext(file)
                if suffix.lower() not in SUFFIXES:
                    continue
                if stem in found:
                    twice.add(stem)
                else:
                    found[stem] = file if inside == "." else f"{inside}/{file}"
        if twice:
            notes.append(
                f"{len(twice)} names of clips occur in several folders or formats: the first is taken"
            )
        return Clips(folder, found)

    def of(self, segment: Segment) -> str | None:
        """The clip of a segment, under whichever of its names it lies there."""
        return next((self.files[name] for name in clip_names(segment) if name in self.files), None)


class Shortfall:
    """How many segments of a list have no clip, and which classes that hits."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._segments = self._without = 0
        self._listed: Counter[str] = Counter()
        self._missing: Counter[str] = Counter()
        self._example = ""

    def count(self, segment: Segment, events: Iterable[str], without: bool) -> None:
        events = tuple(events)
        self._segments += 1
        self._listed.update(events)
        if without:
            self._without += 1
            self._missing.update(events)
            self._example = self._example or segment.ytid

    def check(self, found: Sequence[Recording], clips: Clips, notes: list[str], gaps: Gaps) -> None:
        """Raises FileNotFoundError when no segment has a clip; the count of those without goes to `notes`, by
        event to `gaps`."""
        if not found:
            raise FileNotFoundError(
                f"{self._name}: none of its {self._segments} segments has a clip below {clips.folder} "
                f"({len(clips.files)} audio files); expected Y{self._example}.wav for the first"
            )
        if self._without:
            missing, listed = self._missing, self._listed
            gaps[self._name] = {event: (missing[event], listed[event]) for event in sorted(missing)}
            worst = sorted(missing, key=lambda event: (-missing[event] / listed[event], event))[:WORST]
            shown = ", ".join(f"{event!r} {missing[event]} of {listed[event]}" for event in worst)
            gone = sum(missing[event] == listed[event] for event in missing)
            notes.append(
                f"{self._name}: {self._without} of {self._segments} segments have no clip; {gone} classes "
                f"are left with none, the largest gaps: {shown}"
            )


def _read_list(
    folder: Path, kind: str, names: Mapping[str, str], clips: Clips, notes: list[str], gaps: Gaps
) -> list[Recording]:
    """The segments of <kind>_segments.csv that have a clip; how many have none goes to `notes` and
    `gaps`."""
    path = find_file(folder, f"{kind}_segments.csv")
    if path is None:
        raise FileNotFoundError(f"{folder}: no {kind}_segments.csv; expected {LAYOUT}")
    found: list[Recording] = []
    short = Shortfall(path.name)
    for segment in _segments(path, names, notes):
        file = clips.of(segment)
        short.count(segment, segment.events, file is None)
        if file is not None:
            labels = ClipLabels(events=tuple(sorted(segment.events)), location=segment.ytid)
            found.append(Recording(file, labels))
    short.check(found, clips, notes, gaps)
    return found


def _segments(path: Path, names: Mapping[str, str], notes: list[str]) -> Iterator[Segment]:
    """The segments of a list, each video once; how many were listed again goes to `notes`."""
    numbered = text_lines(path, comment="#")
    seen: set[str] = set()
    again = 0
    for (number, line), cells in zip(numbered, split_cells(path, numbered, ",", spaced=True)):
        where = f"{path}, line {number}"
        if len(cells) < 4:
            raise ValueError(
                f"{where}: expected 'YTID, start_seconds, end_seconds, \"mid,mid\"', found {line[:80]!r}"
            )
        if cells[0] in seen or cells[0] == "YTID":
            again += cells[0] in seen
            continue
        seen.add(cells[0])
        try:
            start, end = float(cells[1]), float(cells[2])
        except ValueError:
            start, end = 0.0, 0.0
        if not 0 <= start < end:
            raise ValueError(f"{where}: {cells[1]!r} to {cells[2]!r} is no stretch of time in seconds")
        mids = [mid.strip().strip('"') for cell in cells[3:] for mid in cell.split(",")]
        if unknown := [mid for mid in mids if mid not in names]:
            raise ValueError(f"{where}: label {unknown[0]!r} is not one of the {len(names)} of {CLASS_LIST}")
        yield Segment(cells[0], start, end, tuple(names[mid] for mid in dict.fromkeys(mids)))
    if again:
        notes.append(f"{path.name}: {again} lines left out: their video is listed before")
