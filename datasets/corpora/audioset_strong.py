"""AudioSet's strong labels of 2021: events with onsets and offsets, scenes unknown.

    audioset_train_strong.tsv                segment_id, start_time_seconds, end_time_seconds, label
    audioset_eval_strong.tsv                 the same
    audioset_eval_strong_framed_posneg.tsv   … and `present`: PRESENT or NOT_PRESENT, for frames of 0.96 s
    mid_to_display_name.tsv                  mid, name; no header
    …                                        the clips, in any folders below, named as audioset.py says

TAB. A segment's id is <video>_<start in ms>, and the video's may hold '_' itself. Times count from the
segment's start. The labels are 456 ids that the two lists use, not a subset of the 527 of the weak labels.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from datasets.corpora.audioset import Clips, Gaps, Segment, Shortfall, find_file
from datasets.corpora.corpus import About, Corpus, Recording, Validation, check_folder
from datasets.corpora.event_tables import forwards, note_backwards, seconds
from datasets.corpora.hold_out import hold_out
from datasets.labels import LabelSpace
from datasets.shards import ClipLabels
from datasets.tables import Row, read_bare_table, read_table

TestList = Literal["strong", "framed"]

ABOUT = About(
    "lists CC BY 4.0 (Google); the clips belong to those who uploaded them",
    "Hershey, Ellis, Fonseca, Jansen, Liu, Moore, Plakal, The benefit of temporally-strong labels in audio "
    "event classification, ICASSP 2021",
)
CLASSES = 456
SEGMENT_SECONDS = 10.0
TRAIN, NAMES = "audioset_train_strong.tsv", "mid_to_display_name.tsv"
TESTS: Mapping[TestList, str] = {
    "strong": "audioset_eval_strong.tsv",
    "framed": "audioset_eval_strong_framed_posneg.tsv",
}
LAYOUT = f"{TRAIN}, {TESTS['strong']}, {NAMES} and the clips"
COLUMNS = ("segment_id", "start_time_seconds", "end_time_seconds", "label")

Span = tuple[float, float, str]


def read_audioset_strong(
    folder: Path,
    *,
    test: TestList = "strong",
    validation: Validation = "auto",
    validation_fraction: float = 0.2,
    seed: int = 0,
) -> Corpus:
    """The segments of the training list and of the test list that have a clip; validation is drawn at random
    from the training segments ("location" = by video, the same here).

    Listed segments without a clip are counted. NOT_PRESENT lines are no events: they are counted, and what
    the framed list does not mention is taken for absent too. Raises FileNotFoundError or ValueError, one line
    each.
    """
    check_folder(folder, TRAIN, LAYOUT, lambda path: find_file(path, TRAIN) is not None)
    notes: list[str] = []
    names = _read_names(folder)
    clips = Clips.below(folder, notes)
    lists = {}
    mids: set[str] = set()
    for name in dict.fromkeys((TRAIN, TESTS["strong"], TESTS[test])):
        path = find_file(folder, name)
        if path is None:
            raise FileNotFoundError(f"{folder}: no {name}; expected {LAYOUT}")
        lists[name] = _read_spans(path, names, mids, notes)
    space = _label_space(mids, names, notes)
    gaps: Gaps = {}
    tested = _with_clips(lists[TESTS[test]], TESTS[test], clips, notes, gaps)
    used = {recording.labels.location for recording in tested}
    trained = _with_clips(lists[TRAIN], TRAIN, clips, notes, gaps)
    training = [recording for recording in trained if recording.labels.location not in used]
    if again := len(trained) - len(training):
        notes.append(f"{again} training segments left out: their video is in the test list too")
    first, val = hold_out(training, "random", validation_fraction, seed, notes)
    return Corpus(space, {"train": first, "val": val, "test": tuple(tested)}, tuple(notes), ABOUT, gaps)


def segment_of(row: Row) -> Segment:
    """The segment that a line is about. Raises ValueError for an id without a start in ms."""
    ytid, _, start = row["segment_id"].rpartition("_")
    if not ytid or not start.isdigit():
        raise ValueError(f"{row.where}: segment_id {row['segment_id']!r} is not <video>_<start in ms>")
    return Segment(ytid, int(start) / 1000, int(start) / 1000 + SEGMENT_SECONDS, ())


def _read_names(folder: Path) -> dict[str, str]:
    """{mid: display name}, the mid itself added where a name is not the only one."""
    path = find_file(folder, NAMES)
    if path is None:
        raise FileNotFoundError(f"{folder}: no {NAMES}; expected {LAYOUT}")
    names = {row["mid"]: row["name"] for row in read_bare_table(path, ("mid", "name"))}
    count = Counter(names.values())
    return {mid: name if count[name] == 1 else f"{name} ({mid})" for mid, name in names.items()}


def _read_spans(
    path: Path, names: Mapping[str, str], mids: set[str], notes: list[str]
) -> dict[Segment, list[Span]]:
    """{segment: its events}; the labels that occur are added to `mids`."""
    found: dict[Segment, list[Span]] = {}
    backwards: list[str] = []
    absent = 0
    for row in read_table(path, COLUMNS, optional=("present",)):
        spans = found.setdefault(segment_of(row), [])
        if row["label"] not in names:
            raise ValueError(f"{row.where}: label {row['label']!r} is not in {NAMES} ({len(names)} names)")
        mids.add(row["label"])
        present = row.cells.get("present") or "PRESENT"
        if present not in ("PRESENT", "NOT_PRESENT"):
            raise ValueError(f"{row.where}: present {present!r} is not PRESENT or NOT_PRESENT")
        if present == "NOT_PRESENT":
            absent += 1
            continue
        onset, offset = seconds(row, "start_time_seconds"), seconds(row, "end_time_seconds")
        if forwards(row, onset, offset, backwards):
            spans.append((onset, offset, names[row["label"]]))
    note_backwards(backwards, notes)
    if absent:
        notes.append(f"{path.name}: {absent} lines say NOT_PRESENT, and are no events")
    if not found:
        raise ValueError(f"{path}: no lines below the header")
    return found


def _label_space(mids: set[str], names: Mapping[str, str], notes: list[str]) -> LabelSpace:
    if len(mids) != CLASSES:
        notes.append(f"{len(mids)} classes occur in the lists; in the published ones {CLASSES} do")
    return LabelSpace((), tuple(sorted(names[mid] for mid in mids)))


def _with_clips(
    segments: Mapping[Segment, list[Span]], name: str, clips: Clips, notes: list[str], gaps: Gaps
) -> list[Recording]:
    found: dict[str, Recording] = {}
    short = Shortfall(name)
    again = 0
    for segment, spans in segments.items():
        events = tuple(sorted({event for _, _, event in spans}))
        file = clips.of(segment)
        short.count(segment, events, file is None)
        if file is not None:
            # A file that is named after the video only can't be two of its segments.
            again += file in found
            labels = ClipLabels(None, events, tuple(sorted(spans)), segment.ytid)
            found.setdefault(file, Recording(file, labels))
    short.check(list(found.values()), clips, notes, gaps)
    if again:
        notes.append(f"{name}: {again} segments left out: their clip's name is that of another of the video")
    return list(found.values())
