"""Label tables as they are found in the wild: tab-separated text, read strictly where it matters and
leniently where it does not.

Accepted: LF and CRLF, mixed; a byte order mark; blank lines; spaces around cells; quoted cells; columns in
any order and extra columns; rows whose empty last cells were cut off. Refused, in one line: a missing or
empty file, text that is not UTF-8, a header without the expected columns, a comma-separated re-save.
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Row:
    """A row and where it stands, for messages: `cells` by column name, empty where the row was too short."""

    where: str
    cells: dict[str, str]

    def __getitem__(self, column: str) -> str:
        return self.cells[column]


def read_table(
    path: Path, columns: Sequence[str], *, optional: Sequence[str] = (), delimiter: str = "\t"
) -> list[Row]:
    """The rows below the header. Every one of `columns` must be in the header; `optional` ones may be.

    Raises FileNotFoundError, or ValueError naming file and line, with what was expected and what was found.
    """
    numbered = text_lines(path)
    if not numbered:
        raise ValueError(f"{path}: empty; expected the header {_show(columns, delimiter)}")
    cells = split_cells(path, numbered, delimiter)
    header = cells[0]
    _check_header(path, numbered[0][1], header, columns, delimiter)
    names = [name for name in (*columns, *optional) if name in header]
    at = {name: header.index(name) for name in names}
    rows = []
    for (number, _), row in zip(numbered[1:], cells[1:]):
        if len(row) > len(header):
            raise ValueError(f"{path}, line {number}: {len(row)} cells, the header has {len(header)}")
        found = {name: row[place] if place < len(row) else "" for name, place in at.items()}
        rows.append(Row(f"{path}, line {number}", found))
    return rows


def read_bare_table(
    path: Path, columns: Sequence[str], *, least: int | None = None, delimiter: str = "\t"
) -> list[Row]:
    """The rows of a table without a header, its columns in the order of `columns`; those from number `least`
    on may be missing. A first line that does hold the names of the columns is passed over.

    Raises FileNotFoundError, or ValueError naming file and line.
    """
    least = len(columns) if least is None else least
    numbered = text_lines(path)
    rows: list[Row] = []
    for (number, line), cells in zip(numbered, split_cells(path, numbered, delimiter)):
        if not rows and cells[0] == columns[0]:
            continue
        if not least <= len(cells) <= len(columns):
            resaved = delimiter == "\t" and "\t" not in line and any(mark in line for mark in ",;")
            raise ValueError(
                f"{path}, line {number}: {'not tab-separated (a re-save?): ' if resaved else ''}expected "
                f"{_show(columns, delimiter)} without a header, found {line.strip()[:80]!r}"
            )
        found = dict(zip(columns, [*cells, *[""] * len(columns)]))
        rows.append(Row(f"{path}, line {number}", found))
    return rows


def text_lines(path: Path, comment: str | None = None) -> list[tuple[int, str]]:
    """(line number, line) of a UTF-8 file without its blank lines and those that begin with `comment`.

    Raises FileNotFoundError, or ValueError for text in another encoding.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file")
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: not UTF-8 text (byte {error.start})") from error
    return [
        (number, line)
        for number, line in enumerate(lines, start=1)
        if line.strip() and not (comment and line.startswith(comment))
    ]


def split_cells(
    path: Path, numbered: Sequence[tuple[int, str]], delimiter: str, *, spaced: bool = False
) -> list[list[str]]:
    """The cells of each line, stripped. `spaced`: a space may stand between the delimiter and a quote.

    Raises ValueError for a quote that is not closed on its line.
    """
    reader = csv.reader((line for _, line in numbered), delimiter=delimiter, skipinitialspace=spaced)
    try:
        cells = [[cell.strip() for cell in row] for row in reader]
    except csv.Error as error:
        raise ValueError(f"{path}: not a table ({error}); is a quoted cell not closed?") from error
    if len(cells) != len(numbered):
        raise ValueError(f"{path}: a quoted cell is not closed on its line")
    return cells


def audio_path(row: Row, column: str = "filename") -> str:
    """A file named in a table, relative to the corpus: forward slashes, no leading './'.

    Raises ValueError for an empty name and for one that leads out of the corpus.
    """
    path = row[column].replace("\\", "/")
    parts = [part for part in path.split("/") if part not in ("", ".")]
    if not parts or path.startswith("/") or ".." in parts or ":" in parts[0]:
        raise ValueError(f"{row.where}: {column} {row[column]!r} is not a file inside the corpus folder")
    return "/".join(parts)


def _check_header(path: Path, line: str, header: list[str], columns: Sequence[str], delimiter: str) -> None:
    missing = [name for name in columns if name not in header]
    if not missing:
        return
    expected, found = _show(columns, delimiter), repr(line.strip()[:80])
    if delimiter == "\t" and "\t" not in line and any(mark in line for mark in ",;"):
        raise ValueError(
            f"{path}: not tab-separated (a re-save?): expected the header {expected}, found {found}; use "
            "the original file"
        )
    raise ValueError(f"{path}: expected the header {expected}, found {found}")


def _show(columns: Sequence[str], delimiter: str) -> str:
    return repr(delimiter.join(columns))
