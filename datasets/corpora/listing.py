"""Any recordings, listed in one table: table.csv (comma), table.tsv (TAB) or table.parquet, with a header.

    path       the file, from the corpus folder on
    split      train, val or test; without any val a validation split is held out of train
    scene      optional; empty = unknown
    events     optional; names joined by the separator. With an onset: the one event of this row
    onset      optional, with offset: seconds from the file's start
    offset
    location   optional; what validation by location keeps apart

A file with several events has several rows, which must agree in split, scene and location. Without a column
`events` the events are unknown; an empty cell says that there is none. In parquet `events` may be lists.
labels.csv (label, kind, index) beside the table fixes the classes' order, which is alphabetical otherwise;
other labels are refused then.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from datasets.corpora.corpus import (
    SPLITS,
    UNKNOWN,
    About,
    Corpus,
    Recording,
    Validation,
    check_folder,
    check_listed,
)
from datasets.corpora.event_tables import forwards, label_order, note_backwards, seconds
from datasets.corpora.hold_out import hold_out
from datasets.labels import LabelSpace
from datasets.shards import ClipLabels
from datasets.tables import Row, audio_path, read_table

NAMES = ("table.csv", "table.tsv", "table.parquet")
NEEDED = ("path", "split")
OPTIONAL = ("scene", "events", "onset", "offset", "location")


@dataclass
class Listed:
    """What the rows of one file say together: `same` is (split, scene, location), `weak` that some event has
    no times."""

    same: tuple[str, str | None, str | None]
    events: set[str] = field(default_factory=set)
    spans: list[tuple[float, float, str]] = field(default_factory=list)
    weak: bool = False


def read_listing(
    folder: Path,
    *,
    table: str | None = None,
    separator: str = ",",
    about: About = UNKNOWN,
    validation: Validation = "auto",
    validation_fraction: float = 0.2,
    seed: int = 0,
) -> Corpus:
    """Read the table of the module's docstring; `table` names it inside `folder` (default: one of NAMES).

    `validation` "auto" takes the rows of split val, and where there is none holds out by location, or at
    random where there are no locations. Raises FileNotFoundError or ValueError, one line each.
    """
    if not separator:
        raise ValueError("an empty --separator; give the character between the names of events")
    names = (table,) if table else NAMES
    check_folder(
        folder, " or ".join(names), "a table with path, split, …", lambda path: _find(path, names) != []
    )
    found = _find(folder, names)
    if len(found) > 1:
        raise ValueError(f"{folder}: {found[0].name} and {found[1].name} are both there; name one of them")
    rows, columns = _rows(found[0], separator)
    if not rows:
        raise ValueError(f"{found[0]}: no lines below the header")
    notes: list[str] = []
    files = _files(rows, columns, separator, notes)
    check_listed(folder, [(row, audio_path(row, "path")) for row in rows])
    timed = "onset" in columns
    splits: dict[str, tuple[Recording, ...]] = {}
    for split in SPLITS:
        members = tuple(
            Recording(file, _labels(listed, "events" in columns, timed))
            for file, listed in files.items()
            if listed.same[0] == split
        )
        if members:
            splits[split] = members
    for needed in ("train", "test"):
        if needed not in splits:
            raise ValueError(f"{found[0]}: no row of split {needed!r}; found: {', '.join(splits)}")
    if "val" not in splits or validation != "auto":
        if "val" in splits:
            notes.append(f"the val rows are not used: --validation {validation} was asked for")
        by = validation
        if by == "auto":
            by = "location" if any(listed.same[2] for listed in files.values()) else "random"
        first, val = hold_out(splits["train"], by, validation_fraction, seed, notes)
        splits = {"train": first, "val": val, "test": splits["test"]}
    return Corpus(_space(folder, files), splits, tuple(notes), about)


def _find(folder: Path, names: Sequence[str]) -> list[Path]:
    return [folder / name for name in names if (folder / name).is_file()]


def _rows(path: Path, separator: str) -> tuple[list[Row], set[str]]:
    """(rows with a cell for every column, the columns that the table really has)."""
    if path.suffix == ".parquet":
        rows = _read_parquet(path, separator)
    else:
        delimiter = "," if path.suffix == ".csv" else "\t"
        rows = read_table(path, NEEDED, optional=OPTIONAL, delimiter=delimiter)
    columns = set(rows[0].cells) if rows else set()
    if rows and not columns & {"scene", "events"}:
        raise ValueError(f"{path}: neither a column 'scene' nor 'events'; found: {', '.join(rows[0].cells)}")
    if len(columns & {"onset", "offset"}) == 1 or ("onset" in columns and "events" not in columns):
        raise ValueError(f"{path}: onset, offset and events must come together")
    return [Row(row.where, dict.fromkeys(OPTIONAL, "") | row.cells) for row in rows], columns


def _read_parquet(path: Path, separator: str) -> list[Row]:
    import pyarrow
    from pyarrow import parquet

    try:
        table = parquet.read_table(path)
    except pyarrow.ArrowInvalid as error:
        raise ValueError(f"{path}: not a parquet file ({' '.join(str(error).split())[:80]})") from error
    if missing := [name for name in NEEDED if name not in table.column_names]:
        raise ValueError(f"{path}: no column {missing[0]!r}; found: {', '.join(table.column_names)}")
    names = [name for name in (*NEEDED, *OPTIONAL) if name in table.column_names]
    rows = []
    for number, record in enumerate(table.select(names).to_pylist(), start=1):
        where = f"{path}, row {number}"
        rows.append(Row(where, {name: _text(where, record[name], separator) for name in names}))
    return rows


def _text(where: str, value: Any, separator: str) -> str:
    """A parquet cell as the text table would have it."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if not isinstance(value, list):
        return str(value).strip()
    if broken := [name for name in value if separator in str(name)]:
        raise ValueError(f"{where}: event {broken[0]!r} holds the separator {separator!r}; give another")
    return separator.join(map(str, value))


def _files(rows: Sequence[Row], columns: set[str], separator: str, notes: list[str]) -> dict[str, Listed]:
    files: dict[str, Listed] = {}
    backwards: list[str] = []
    for row in rows:
        file = audio_path(row, "path")
        if row["split"] not in SPLITS:
            raise ValueError(f"{row.where}: split {row['split']!r} is not one of {', '.join(SPLITS)}")
        same = (row["split"], row["scene"] or None, row["location"] or None)
        listed = files.setdefault(file, Listed(same))
        if listed.same != same:
            raise ValueError(f"{row.where}: {file} is listed before with another split, scene or location")
        if not row["onset"] and not row["offset"]:
            listed.weak |= row["events"] != ""
            listed.events |= {name.strip() for name in row["events"].split(separator)} - {""}
            continue
        onset, offset = seconds(row, "onset"), seconds(row, "offset")
        if not row["events"]:
            raise ValueError(f"{row.where}: onset and offset without an event")
        if forwards(row, onset, offset, backwards):
            listed.spans.append((onset, offset, row["events"]))
    note_backwards(backwards, notes)
    return files


def _labels(listed: Listed, events: bool, timed: bool) -> ClipLabels:
    _, scene, location = listed.same
    if not events:
        return ClipLabels(scene=scene, location=location)
    names = listed.events | {name for _, _, name in listed.spans}
    # A file with an event without times is only weakly labelled, whatever else is known of it.
    strong = tuple(sorted(listed.spans)) if timed and not listed.weak else None
    return ClipLabels(scene, tuple(sorted(names)), strong, location)


def _space(folder: Path, files: dict[str, Listed]) -> LabelSpace:
    scenes = {listed.same[1] for listed in files.values() if listed.same[1]}
    events = {name for listed in files.values() for name in listed.events}
    events |= {name for listed in files.values() for _, _, name in listed.spans}
    space = label_order(folder, scenes)
    if space is None:
        return LabelSpace(tuple(sorted(scenes)), tuple(sorted(events)))
    if unknown := sorted(events - set(space.events)):
        raise ValueError(
            f"the event {unknown[0]!r} is not one of labels.csv: {', '.join(space.events) or 'none'}"
        )
    return space
