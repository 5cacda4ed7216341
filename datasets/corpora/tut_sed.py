"""TUT Sound Events 2016 (home, residential_area) and 2017 (street), development sets: scenes, and events with
onsets and offsets.

    evaluation_setup/<scene>_fold{1..4}_train.txt file, scene, onset, offset, label: one line an event
    evaluation_setup/<scene>_fold{1..4}_test.txt  file, scene
    meta/<scene>/<recording>.ann                  onset, offset, label or file, scene, onset, offset, label …
    audio/<scene>/<recording>.wav

TAB, no headers, LF or CRLF. The source is one year's folder, or a folder that holds those of both years,
which are read as one corpus.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from datasets.corpora.corpus import About, Corpus, Recording, Validation, check_folder, check_listed
from datasets.corpora.cut import check_clip_seconds, cut, note_remainders
from datasets.corpora.event_tables import forwards, note_backwards, seconds
from datasets.corpora.hold_out import hold_out
from datasets.labels import LabelSpace
from datasets.shards import ClipLabels
from datasets.tables import Row, audio_path, read_bare_table, split_cells, text_lines

ABOUT = About(
    "Tampere University of Technology, non-commercial use; see EULA.pdf of the download",
    "Mesaros, Heittola, Virtanen, TUT database for acoustic scene classification and sound event detection, "
    "EUSIPCO 2016; Mesaros et al., DCASE 2017 challenge setup: tasks, datasets and baseline system, "
    "DCASE 2017",
)
LAYOUT = "evaluation_setup/, meta/ and audio/ of TUT Sound Events 2016 or 2017, or folders that hold them"
# What 2016 calls otherwise than 2017.
RENAMED = {"car passing by": "car", "children shouting": "children"}

Span = tuple[float, float, str]


@dataclass
class Lists:
    """Of one year: the scene and the first line of every recording, and the sides of the fold."""

    scene: dict[str, str] = field(default_factory=dict)
    line: dict[str, Row] = field(default_factory=dict)
    train: set[str] = field(default_factory=set)
    test: set[str] = field(default_factory=set)

    def add(self, row: Row) -> str:
        file = audio_path(row, "file")
        scene = row["scene"] or PurePosixPath(file).parent.name
        if self.scene.setdefault(file, scene) != scene:
            raise ValueError(
                f"{row.where}: {file} is {scene!r} here and {self.scene[file]!r} in another list"
            )
        self.line.setdefault(file, row)
        return file


def read_tut_sed(
    folder: Path,
    *,
    fold: int = 1,
    clip_seconds: float = 10.0,
    merge_years: bool = False,
    validation: Validation = "auto",
    validation_fraction: float = 0.2,
    seed: int = 0,
) -> Corpus:
    """Clips of `clip_seconds` (s; 0 = whole recordings) cut one after the other from the recordings.

    Validation is held out of the fold's training recordings, whole recordings at a time unless `validation`
    is "random". `merge_years` gives the events of 2016 the names of 2017 where they mean the same (RENAMED).
    An event that crosses a clip's border is in both clips. Raises FileNotFoundError or ValueError, one line
    each, for anything missing, malformed or contradictory.
    """
    check_clip_seconds(clip_seconds)
    check_folder(folder, "evaluation_setup/", LAYOUT, lambda path: bool(_years(path)))
    notes: list[str] = []
    train: list[Recording] = []
    test: list[Recording] = []
    events: set[str] = set()
    scenes: set[str] = set()
    remainders: list[float] = []
    for year in _years(folder):
        lists = _read_lists(year, fold, notes)
        check_listed(year, [(row, file) for file, row in lists.line.items()])
        prefix = "" if year == folder else f"{year.name}/"
        spans = _read_annotations(year, lists, RENAMED if merge_years else {}, notes)
        events |= {name for found in spans.values() for _, _, name in found}
        scenes |= set(lists.scene.values())
        for file, scene in lists.scene.items():
            labels = ClipLabels(scene, (), tuple(spans[file]), PurePosixPath(file).stem)
            clips, remainder = cut(folder, prefix + file, labels, clip_seconds, notes)
            (test if file in lists.test else train).extend(clips)
            remainders.append(remainder)
    note_remainders(remainders, notes)
    by = "location" if validation == "auto" else validation
    first, val = hold_out(train, by, validation_fraction, seed, notes)
    splits = {"train": first, "val": val, "test": tuple(test)}
    return Corpus(LabelSpace(tuple(sorted(scenes)), tuple(sorted(events))), splits, tuple(notes), ABOUT)


def _years(folder: Path) -> list[Path]:
    if (folder / "evaluation_setup").is_dir():
        return [folder]
    return sorted(path.parent for path in folder.glob("*/evaluation_setup") if path.is_dir())


def _read_lists(year: Path, fold: int, notes: list[str]) -> Lists:
    """The recordings of all folds, and which side of fold `fold` they are on.

    A recording without events has no line in a training list, so the training side is all that some fold
    tests and this one does not.
    """
    setup = year / "evaluation_setup"
    tests = sorted(setup.glob("*_fold*_test.txt"))
    mine = [path for path in tests if path.name.endswith(f"_fold{fold}_test.txt")]
    if not mine:
        there = ", ".join(path.name for path in tests) or "none"
        raise FileNotFoundError(f"{setup}: no <scene>_fold{fold}_test.txt; test lists there: {there}")
    lists = Lists()
    for path in tests:
        files = {lists.add(row) for row in read_bare_table(path, ("file", "scene"))}
        if path in mine:
            lists.test |= files
    columns = ("file", "scene", "onset", "offset", "label")
    for path in mine:
        training = path.with_name(path.name.replace("_test.txt", "_train.txt"))
        lists.train |= {lists.add(row) for row in read_bare_table(training, columns, least=2)}
    if both := sorted(lists.train & lists.test):
        raise ValueError(f"{setup}: {both[0]} is in both the train and the test list of fold {fold}")
    if silent := set(lists.scene) - lists.train - lists.test:
        notes.append(
            f"{len(silent)} recordings are in no list of fold {fold} and in a test list of another: they "
            "hold no event, and are trained on"
        )
    return lists


def _read_annotations(
    year: Path, lists: Lists, renamed: Mapping[str, str], notes: list[str]
) -> dict[str, list[Span]]:
    """{recording: its events}"""
    backwards: list[str] = []
    found = {}
    for file in lists.scene:
        audio = PurePosixPath(file)
        path = year / "meta" / audio.parent.name / f"{audio.stem}.ann"
        found[file] = [
            (onset, offset, renamed.get(name, name))
            for onset, offset, name in read_annotation(path, audio.name, backwards)
        ]
    note_backwards(backwards, notes)
    return found


def read_annotation(path: Path, audio: str, backwards: list[str]) -> list[Span]:
    """The events of an .ann file in either of its layouts; `audio` is the name its long lines must have."""
    numbered = text_lines(path)
    spans = []
    for (number, line), cells in zip(numbered, split_cells(path, numbered, "\t")):
        where = f"{path}, line {number}"
        if len(cells) != 3 and len(cells) < 5:
            resaved = "not tab-separated (a re-save?): " if "\t" not in line else ""
            raise ValueError(
                f"{where}: {resaved}expected onset, offset, label, or file, scene, onset, offset, label, "
                f"found {line.strip()[:80]!r}"
            )
        if len(cells) >= 5 and PurePosixPath(cells[0].replace("\\", "/")).name != audio:
            raise ValueError(f"{where}: is about {cells[0]}, expected {audio}")
        row = Row(where, dict(zip(("onset", "offset", "label"), cells if len(cells) == 3 else cells[2:5])))
        onset, offset = seconds(row, "onset"), seconds(row, "offset")
        if not row["label"]:
            raise ValueError(f"{where}: onset and offset without a label")
        if forwards(row, onset, offset, backwards):
            spans.append((onset, offset, row["label"]))
    return spans
