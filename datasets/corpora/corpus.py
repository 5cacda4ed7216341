"""What a reader gives back: the files of a corpus with their labels and splits."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Literal

from datasets.labels import LabelSpace
from datasets.shards import ClipLabels
from datasets.tables import Row

Validation = Literal["auto", "location", "random"]
SPLITS = ("train", "val", "test")


@dataclass(frozen=True)
class About:
    """What a published corpus asks of its users."""

    licence: str
    citation: str


UNKNOWN = About("unknown: see the documents of the source", "")


@dataclass(frozen=True)
class Recording:
    """An audio file of a corpus, by its path inside the corpus folder, with what is known of it.

    A clip cut from a longer recording starts at `start` (s) and is `seconds` long; None = the whole file.
    Times in `labels` count from the clip's start.
    """

    file: str
    labels: ClipLabels
    start: float = 0.0
    seconds: float | None = None

    @property
    def name(self) -> str:
        """Its name in keys and messages: the file's, with the start where it is a part of the file."""
        if self.seconds is None:
            return self.file
        path = PurePosixPath(self.file)
        return str(path.with_name(f"{path.stem}_{self.start:g}{path.suffix}"))


@dataclass(frozen=True)
class Corpus:
    """A corpus ready to be prepared. `notes` are sentences about what was left out or looked odd, with
    counts; `without_clip` says for each list of a corpus that is never whole, and each of its events, how
    many segments have no clip, of how many."""

    labels: LabelSpace
    splits: Mapping[str, tuple[Recording, ...]]
    notes: tuple[str, ...]
    about: About = UNKNOWN
    without_clip: Mapping[str, Mapping[str, tuple[int, int]]] = field(default_factory=dict)


def check_folder(folder: Path, needed: str, layout: str, found: Callable[[Path], bool]) -> None:
    """Raises FileNotFoundError unless `folder` is a folder for which `found` holds; `needed` and `layout` are
    words for the message."""
    if not folder.is_dir():
        raise FileNotFoundError(
            f"{folder}: {'a file, not a folder' if folder.exists() else 'no such folder'}"
        )
    if not any(folder.iterdir()):
        raise FileNotFoundError(f"{folder}: the folder is empty; expected {layout}")
    if not found(folder):
        inside = [path.name for path in sorted(folder.iterdir()) if path.is_dir() and found(path)]
        hint = f"; it is in {inside[0]}/: give that as the source" if inside else ""
        raise FileNotFoundError(f"{folder}: no {needed}; expected {layout}{hint}")


def check_listed(folder: Path, listed: Sequence[tuple[Row, str]]) -> None:
    """Raises FileNotFoundError, with the first one's line and the count, when listed files are missing."""
    missing = [(row, file) for row, file in listed if not (folder / file).is_file()]
    if missing:
        row, file = missing[0]
        raise FileNotFoundError(
            f"{row.where}: {file} is not in {folder} "
            f"({len(missing)} of {len(listed)} listed files are missing)"
        )


def check_class_list(path: Path, rows: Sequence[Row], count: int) -> None:
    """Raises ValueError unless the column `index` counts from 0 to `count` - 1 without gaps."""
    for place, row in enumerate(rows):
        if row["index"] != str(place):
            raise ValueError(f"{row.where}: index {row['index']!r}, expected {place}")
    if len(rows) != count:
        raise ValueError(f"{path}: {len(rows)} classes, expected {count}")
