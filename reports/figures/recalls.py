"""The confusions of a table's rows beside each other, as recalls (Imoto et al. 2022, Fig. 3)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from reports.collect import Study, StudyError
from reports.drawing import WIDE, bare, canvas, longest_line, wrap
from reports.figures import matrix
from reports.figures.winner import Confusion, from_counts
from reports.rank import usable

MOST = 12  # rows that are drawn
LETTER = 0.068  # inches across a letter of a scene's name
LEGIBLE = 0.19  # inches of a cell that holds a number


class Recalls(NamedTuple):
    """`rows`: (line, name, its runs' counts added up), in the table's order; `hidden`: how many more have
    been tested."""

    rows: tuple[tuple[int, str, Confusion], ...]
    hidden: int
    note: str


def recalls(study: Study) -> Recalls:
    """Every row that prints a score of scenes on the test split and has a finished run.

    A row without a scene branch answers the first scene to every clip, so rows that print no such score are
    left out. Raises StudyError for a run whose counts are not of the study's scenes.
    """
    runs = usable(study.runs[study.runs["phase"] == "table"], study.epochs)
    scenes, found, seen = study.scenes, [], set()
    for row in study.record["table"]["rows"]:
        wanted = row["trial"] is not None and row["split"] == "test" and row["metric"].startswith("scene_")
        if not wanted or row["trial"] in seen:
            continue
        seen.add(row["trial"])
        mine = runs.loc[runs["trial"] == row["trial"], "folder"]
        counts = [one for one in (_counts(study.folder, str(home), len(scenes)) for home in mine) if one.size]
        if counts:
            total = from_counts(scenes, np.sum(counts, axis=0), len(counts))
            found.append((int(row["line"]), str(row["row"]), total))
    note = "" if found else "No row with a score of scenes on the test split has finished yet."
    return Recalls(tuple(found[:MOST]), max(0, len(found) - MOST), note)


def _counts(root: Path, home: str, scenes: int) -> np.ndarray:
    """(S, S), rows = truth; empty for a run that has not read the test split, or without scenes."""
    path = (root / home / "test.json").resolve()
    if not path.is_relative_to(root.resolve()) or not path.is_file():  # the folder column is data
        return np.zeros((0, 0))
    try:
        return np.asarray(json.loads(path.read_text())["confusion"], dtype=np.int64).reshape(scenes, scenes)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise StudyError(f"{path}: no confusion of {scenes} scenes ({type(error).__name__})") from error


def draw_recalls(info: Recalls, width: float) -> Figure:
    """A matrix a row: true scenes downwards, predicted ones across, recall in per cent in the cells."""
    scenes = info.rows[0][2].scenes
    columns = _columns(len(scenes), len(info.rows), width)
    names = [wrap(name, 18, 1) for name in scenes]
    margin = LETTER * longest_line(names) + 0.1
    cell = min(0.55, (width - margin - 0.12 * columns) / columns / len(scenes))
    lines = -(-len(info.rows) // columns)
    titles = [
        wrap(f"#{line} {name}", max(10, int(cell * len(scenes) / 0.085)), 2) for line, name, _ in info.rows
    ]
    figure = canvas(width, lines * (max(cell, 0.16) * len(scenes) + 0.45) + margin)
    grid = figure.subplots(lines, columns, squeeze=False, sharex=True, sharey=True)
    for place, axes in enumerate(grid.flat):
        if place >= len(info.rows):
            axes.set_visible(False)
            continue
        _draw(axes, info.rows[place][2], cell)
        axes.set_title(titles[place], fontsize=8.5)
        axes.tick_params(labelbottom=place + columns >= len(info.rows), labelleft=place % columns == 0)
        axes.tick_params(labelsize=7.5 if width >= WIDE else 7)
        axes.tick_params(axis="x", labelrotation=90)
    grid[0, 0].set_xticks(range(len(names)), names)
    grid[0, 0].set_yticks(range(len(names)), names)
    return figure


def _columns(scenes: int, matrices: int, width: float) -> int:
    """At most as many beside each other as leave cells that hold a number, and lines as full as can be."""
    most = max(1, min(int((width - 1.2) / (max(scenes, 4) * LEGIBLE)), matrices, 4))
    return -(-matrices // -(-matrices // most))


def _draw(axes: Axes, confusion: Confusion, cell: float) -> None:
    shares = np.nan_to_num(np.asarray(confusion.shares))
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1, aspect="auto")
    bare(axes)
    axes.tick_params(length=0)
    if cell < LEGIBLE:
        return
    for true, predicted in zip(*np.nonzero(np.asarray(confusion.counts))):
        share = float(shares[true, predicted])
        weight = "bold" if true == predicted else "normal"
        size = 7 if cell > 0.3 else 5.5
        matrix.write(axes, true, predicted, f"{100 * share:.0f}", share, fontsize=size, fontweight=weight)
