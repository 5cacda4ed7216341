"""Event labels beside a list of files, in DESED's form, and the order of classes in labels.csv."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from datasets.labels import LabelSpace
from datasets.shards import ClipLabels
from datasets.tables import Row, audio_path, read_table


def label_order(folder: Path, scenes: set[str]) -> LabelSpace | None:
    """The classes in labels.csv's order; None without that file."""
    path = folder / "labels.csv"
    if not path.is_file():
        return None
    found: dict[str, dict[int, str]] = {"scene": {}, "event": {}}
    for row in read_table(path, ("label", "kind", "index"), delimiter=","):
        if row["kind"] not in found:
            continue  # other kinds, such as the textures of a mixed corpus, are no classes
        names, index = found[row["kind"]], row["index"]
        if not index.isdigit() or int(index) in names:
            raise ValueError(
                f"{row.where}: index {index!r} of {row['label']!r} is not a number, or not the only one"
            )
        names[int(index)] = row["label"]
    for kind, names in found.items():
        if sorted(names) != list(range(len(names))):
            raise ValueError(
                f"{path}: {kind} indices are {sorted(names)}, expected 0 to {len(names) - 1} without gaps"
            )
    ordered = {kind: tuple(names[i] for i in range(len(names))) for kind, names in found.items()}
    if unknown := sorted(scenes - set(ordered["scene"])):
        raise ValueError(
            f"meta.csv has the scene {unknown[0]!r}, which is not one of labels.csv: "
            f"{', '.join(ordered['scene'])}"
        )
    return LabelSpace(ordered["scene"], ordered["event"])


def read_events(
    folder: Path,
    meta: dict[str, ClipLabels],
    known: tuple[str, ...] | None,
    notes: list[str],
    *,
    clip_list: str = "meta.csv",
    class_list: str = "labels.csv",
    spelling: Callable[[str], str] = str,
) -> tuple[dict[str, ClipLabels], tuple[str, ...]]:
    """Put the event tables' labels on the files; give back the event names too, sorted unless `known` in
    order.

    A file with strong or weak rows has known events; a file in no table has unknown ones. A name stands for
    the known one with the same `spelling`. `clip_list` and `class_list` are what messages call the lists.
    """
    names_of = {spelling(name): name for name in known or ()}

    def named_as(name: str) -> str:
        return names_of.get(spelling(name), name)

    rows = _Rows(meta, clip_list, named_as, notes)
    strong = _read_strong(folder / "events_strong.tsv", rows)
    weak = _read_weak(folder / "events_weak.tsv", rows)
    labelled = {}
    differing = 0
    for file, labels in meta.items():
        spans = strong.get(file)
        timed = {name for _, _, name in spans} if spans is not None else set()
        named = weak.get(file, timed if spans is not None else None)
        differing += file in weak and spans is not None and named != timed
        events = None if named is None else tuple(sorted(named | timed))
        labelled[file] = replace(
            labels, events=events, strong=None if spans is None else tuple(sorted(spans))
        )
    if differing:
        notes.append(
            f"{differing} clips have other events in events_weak.tsv than in events_strong.tsv: both are kept"
        )
    names = {name for labels in labelled.values() for name in labels.events or ()}
    if known is None:
        return labelled, tuple(sorted(names))
    if unknown := sorted(names - set(known)):
        raise ValueError(f"the event {unknown[0]!r} is not one of {class_list}: {', '.join(known) or 'none'}")
    return labelled, known


@dataclass(frozen=True)
class _Rows:
    """Reads the rows of an event table: which clips there are, how events are called, where notes go."""

    meta: Mapping[str, ClipLabels]
    clip_list: str
    named_as: Callable[[str], str]
    notes: list[str]

    def of(self, path: Path, columns: tuple[str, ...]) -> Iterable[tuple[Row, str]]:
        """The rows about known clips; others are counted, and a table about other files altogether is
        refused."""
        rows = [(row, audio_path(row)) for row in read_table(path, columns)]
        kept = [(row, file) for row, file in rows if file in self.meta]
        if rows and not kept:
            raise ValueError(
                f"{path}: none of its {len(rows)} lines is about a file of {self.clip_list}; the first is "
                f"{rows[0][1]}"
            )
        if len(kept) < len(rows):
            self.notes.append(
                f"{path.name}: {len(rows) - len(kept)} of {len(rows)} lines are about files that "
                f"{self.clip_list} does not have"
            )
        return kept


def _read_strong(path: Path, rows: _Rows) -> dict[str, list[tuple[float, float, str]]]:
    """{file: [(onset s, offset s, event)]}; a row without an event says the file has none."""
    if not path.is_file():
        return {}
    found: dict[str, list[tuple[float, float, str]]] = {}
    backwards: list[str] = []
    for row, file in rows.of(path, ("filename", "onset", "offset", "event_label")):
        spans = found.setdefault(file, [])
        if not row["event_label"] and not row["onset"] and not row["offset"]:
            continue
        onset, offset = seconds(row, "onset"), seconds(row, "offset")
        if not row["event_label"]:
            raise ValueError(f"{row.where}: onset and offset without an event_label")
        if forwards(row, onset, offset, backwards):
            spans.append((onset, offset, rows.named_as(row["event_label"])))
    note_backwards(backwards, rows.notes)
    return found


def forwards(row: Row, onset: float, offset: float, backwards: list[str]) -> bool:
    """Whether 0 <= onset < offset (s). Where not, `backwards` gets a line, for `note_backwards`."""
    if 0 <= onset < offset:
        return True
    backwards.append(f"{row.where}: {onset} to {offset}")
    return False


def note_backwards(backwards: list[str], notes: list[str]) -> None:
    if backwards:
        notes.append(
            f"{len(backwards)} events left out: the onset is negative or not before the offset "
            f"({backwards[0]})"
        )


def _read_weak(path: Path, rows: _Rows) -> dict[str, set[str]]:
    """{file: events}"""
    if not path.is_file():
        return {}
    found: dict[str, set[str]] = {}
    for row, file in rows.of(path, ("filename", "event_labels")):
        names = {rows.named_as(name.strip()) for name in row["event_labels"].split(",") if name.strip()}
        found[file] = found.get(file, set()) | names
    return found


def seconds(row: Row, column: str) -> float:
    """A cell as a time in seconds; ValueError for anything but a finite number."""
    try:
        value = float(row[column])
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise ValueError(f"{row.where}: {column} {row[column]!r} is not a time in seconds")
    return value
