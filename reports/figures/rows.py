"""A paper's table run again, row by row: our mean and seeds, and the paper's value."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from matplotlib.figure import Figure

from reports import units
from reports.drawing import BLUE, ORANGE, SKY, WIDE, canvas, grid, wrap
from reports.paper_table import Beside, PaperTable, paper_value, row_column, row_label


class Panel(NamedTuple):
    """The rows of one metric on one split, in the table's order."""

    column: str
    rows: tuple[Beside, ...]


class Panels(NamedTuple):
    panels: tuple[Panel, ...]
    note: str


def panels(found: PaperTable) -> Panels:
    """One panel a metric and split, of the rows with a finished run."""
    columns = dict.fromkeys(row_column(one.row) for one in found.run if one.ours.n)
    shown = tuple(
        Panel(name, tuple(one for one in found.run if one.ours.n and row_column(one.row) == name))
        for name in columns
    )
    return Panels(shown, "" if shown else "No run has finished yet.")


def has_bars(info: Panels) -> bool:
    """Whether the paper prints a ± for any of the rows."""
    return any(one.row["spread"] is not None for panel in info.panels for one in panel.rows)


def draw_panels(info: Panels, width: float) -> Figure:
    names = [units.titled(units.scale(panel.column)) for panel in info.panels]
    titles = [wrap(name, 60 if width >= WIDE else 32, 2) for name in names]
    heights = [
        0.4 + 0.15 * (1 + title.count("\n")) + 0.3 * len(panel.rows)
        for title, panel in zip(titles, info.panels)
    ]
    figure = canvas(width, sum(heights) + 0.4)
    axes = figure.subplots(len(heights), 1, squeeze=False, gridspec_kw={"height_ratios": heights})[:, 0]
    for one, panel, title in zip(axes, info.panels, titles):
        on = units.scale(panel.column)
        one.set_title(title)
        grid(one, "x")
        one.spines["left"].set_visible(False)
        for place, row in enumerate(panel.rows):
            _draw_row(one, place, row, on)
        labels = [wrap(row_label(row.row, [row.row]), 30 if width >= WIDE else 16, 2) for row in panel.rows]
        one.set_yticks(range(len(labels)), labels)
        one.set_ylim(len(labels) - 0.45, -0.55)
        one.margins(x=0.06)
    return figure


def _draw_row(axes: Any, place: int, one: Beside, on: units.Scale) -> None:
    factor = on.factor
    value, spread = paper_value(one.row) * factor, one.row["spread"]
    if spread is not None:
        reach = float(spread) * factor
        axes.plot((value - reach, value + reach), [place + 0.17] * 2, color=ORANGE, linewidth=1.6, zorder=2)
    axes.plot(value, place + 0.17, "s", color=ORANGE, mec="white", ms=6, zorder=4)
    seeds: Sequence[float] = [v * factor for v in one.ours.values]
    axes.plot(seeds, [place - 0.13] * len(seeds), "o", color=SKY, ms=3.5, alpha=0.8, zorder=2)
    if one.ours.n > 1:
        ends = [end * factor for end in units.bounded(one.ours.low, one.ours.high, on)]
        axes.plot(ends, [place - 0.13] * 2, color=BLUE, linewidth=1.6, solid_capstyle="butt", zorder=3)
    axes.plot(one.ours.mean * factor, place - 0.13, "D", color=BLUE, mec="white", ms=6, zorder=4)
