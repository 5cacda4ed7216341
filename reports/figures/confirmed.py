"""The confirmed configurations: every seed, their means and intervals."""

from __future__ import annotations

from typing import Any, NamedTuple

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from reports import units
from reports.collect import Study
from reports.comparison import Contest
from reports.drawing import BLUE, GREY, INK, PALE, SKY, WIDE, canvas, grid, wrap
from reports.markup import Tint
from reports.rank import Ranking, label
from reports.statistics import Summary

CONFIRMED_CAPTION = (
    "Diamonds are means with their 95 % interval (within 0 and 100 %), dots are single seeds. ",
    Tint("Blue", BLUE),
    " is the best; ",
    Tint("dark", INK),
    " ones are tied: they cannot be told apart from it on validation; ",
    Tint("grey", GREY),
    " ones are worse.",
)


class ConfirmedRow(NamedTuple):
    """One confirmed configuration, best first; `label` tells it apart in words."""

    trial: int
    label: str
    validation: Summary
    test: Summary
    best: bool
    tied: bool


class Confirmation(NamedTuple):
    metric: str
    rows: tuple[ConfirmedRow, ...]
    note: str


def confirmation(study: Study, ranking: Ranking) -> Confirmation:
    """Every seed, the mean and its interval of every confirmed configuration, on validation and test."""
    rows = tuple(
        ConfirmedRow(s.trial, label(ranking, s), s.validation, s.test, place == 0, s.tied)
        for place, s in enumerate(ranking.standings)
    )
    return Confirmation(study.metric, rows, "" if rows else "No configuration is confirmed yet.")


def contest_rows(found: Contest) -> Confirmation:
    """The same for the best configuration of every study, by the study's name."""
    rows = tuple(
        ConfirmedRow(
            one.best.trial,
            str(one.study.record["name"]),
            one.best.validation,
            one.best.test,
            one.against is None,
            one.tied,
        )
        for one in found.contestants
    )
    metric = rows and found.contestants[0].study.metric
    return Confirmation(metric or "", rows, "" if rows else "No configuration is confirmed yet.")


def draw_confirmation(info: Confirmation, width: float) -> Figure:
    wide = width >= WIDE
    on = units.scale(info.metric)
    tested = any(row.test.n for row in info.rows)
    labels = [_row_label(row, 20 if wide else 15) for row in info.rows]
    lines = sum(max(2, label.count("\n") + 1) for label in labels)
    height = 0.75 + 0.09 * len(labels) + 0.15 * lines
    panels = 2 if tested else 1
    figure = canvas(width, height * (1 if wide else panels))
    shape: dict[str, Any] = {"ncols": panels, "sharey": True} if wide else {"nrows": panels}
    for number, axes in enumerate(figure.subplots(squeeze=False, **shape).flat):
        split = "validation" if number == 0 else "test"
        axes.set_title(f"{split} {on.label}" + (f" ({on.unit})" if on.unit else ""))
        grid(axes, "x")
        axes.spines["left"].set_visible(False)
        for place, row in enumerate(info.rows):
            _draw_standing(axes, place, row.validation if number == 0 else row.test, row, on)
        axes.set_yticks(range(len(labels)), labels)
        axes.set_ylim(len(labels) - 0.45, -0.6)
        axes.margins(x=0.08)
    return figure


def _row_label(row: ConfirmedRow, characters: int) -> str:
    name = f"trial {row.trial}" + (" (tied)" if row.tied else "")
    return f"{name}\n{wrap(row.label, characters, 2)}" if row.label else name


def _draw_standing(axes: Axes, place: int, summary: Summary, row: ConfirmedRow, on: units.Scale) -> None:
    if not summary.n:
        return
    colour = BLUE if row.best else INK if row.tied else GREY
    values = [v * on.factor for v in summary.values]
    axes.plot(
        values, [place] * len(values), "o", color=SKY if row.best else PALE, ms=4.5, alpha=0.9, zorder=2
    )
    if summary.n > 1:
        ends = [end * on.factor for end in units.bounded(summary.low, summary.high, on)]
        axes.plot(ends, (place, place), color=colour, linewidth=1.8, solid_capstyle="butt", zorder=3)
    axes.plot(summary.mean * on.factor, place, "D", color=colour, mec="white", ms=7, zorder=4)
    text = units.score(summary.mean, on)
    if summary.n > 1:
        text += f" ± {units.score(summary.sd, on)}"
    place_text = {"xytext": (0, 7), "textcoords": "offset points", "ha": "center", "fontsize": 8}
    weight = "bold" if row.best else "normal"
    axes.annotate(text, (summary.mean * on.factor, place), color=colour, fontweight=weight, **place_text)  # type: ignore[arg-type]
