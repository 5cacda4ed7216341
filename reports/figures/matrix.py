"""A matrix with names on both sides: readable cells, names turned upright only where needed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from reports.drawing import INK, PALE, bare, canvas, longest_line, wrap

LETTER = 0.085  # inches across a letter of a tick label
DEEP = 0.62  # share of the colour range from which writing turns white


class Sheet(NamedTuple):
    """An empty matrix to write on; `cell` is a cell's width in inches."""

    figure: Figure
    axes: Axes
    cell: float


def sheet(
    width: float,
    rows: Sequence[str],
    columns: Sequence[str],
    values: np.ndarray,
    *,
    lines: int = 1,
    tallest: float = 0.55,
    **image: Any,
) -> Sheet:
    """`values` (R, C) as colours, columns named above; `rows` are wrapped already, `columns` are not.

    lines    how many lines of text a cell has to hold
    tallest  a cell's height in inches unless its name takes more
    image    goes to `imshow`
    Cells that are not finite are left white with a dash.
    """
    size = len(columns)
    across = (width - LETTER * longest_line(list(rows)) - 0.3) / max(size, 1)
    flat = [wrap(name, max(1, int(across / LETTER))) for name in columns]
    level = all("\n" not in label or across > 0.9 for label in flat)
    named = flat if level else upright(columns, most=max(1, int(across / 0.15)))
    tall = max((label.count("\n") + 1 for label in [*rows, *([] if level else named)]), default=1)
    cell = max(0.17 * tall, 0.13 * lines + 0.1, min(tallest, across) if lines == 1 else 0.0, 0.24)
    above = 0.15 * max(label.count("\n") + 1 for label in named) if level else LETTER * longest_line(named)
    figure = canvas(width, cell * len(rows) + above + 0.55)
    axes = figure.add_subplot()
    axes.imshow(np.ma.masked_invalid(values), aspect="auto", **image)
    for row, column in zip(*np.nonzero(~np.isfinite(values))):
        axes.text(column, row, "–", color=PALE, ha="center", va="center", fontsize=7)
    bare(axes)
    axes.set_xticks(range(size), named, rotation=0 if level else 90)
    axes.xaxis.tick_top()
    axes.xaxis.set_label_position("top")
    axes.set_yticks(range(len(rows)), list(rows))
    axes.tick_params(length=0)
    axes.set_xticks(np.arange(size + 1) - 0.5, minor=True)
    axes.set_yticks(np.arange(len(rows) + 1) - 0.5, minor=True)
    axes.grid(which="minor", color="white", linewidth=1.2)
    axes.tick_params(which="minor", length=0, top=False)
    return Sheet(figure, axes, across)


def upright(names: Sequence[str], most: int) -> list[str]:
    """Labels to be turned upright, in as few characters a line as `most` lines beside each other allow."""
    for characters in range(14, 60, 2):
        labels = [wrap(name, characters) for name in names]
        if all(label.count("\n") < most and "…" not in label for label in labels):
            return labels
    return [wrap(name, 60, most) for name in names]


def write(axes: Axes, row: int, column: int, text: str, depth: float, **how: Any) -> None:
    """Text in a cell, white on a deep colour; `depth` is the cell's share of the colour range, 0 to 1."""
    colour = "white" if depth > DEEP else INK
    style: dict[str, Any] = {"color": colour, "ha": "center", "va": "center", "fontsize": 7}
    axes.text(column, row, text, **(style | how))
