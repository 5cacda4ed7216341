"""The winner on the test split: its confusions, its precision by event."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from reports import units
from reports.collect import Study
from reports.drawing import BLUE, GREY, INK, RULE, SKY, WIDE, bare, canvas, grid, longest_line, wrap


class Confusion(NamedTuple):
    """Counts (S, S), rows = truth, summed over the winner's `runs` seeds.

    shares are of each row, NaN in a row without clips
    """

    scenes: tuple[str, ...]
    counts: tuple[tuple[int, ...], ...]
    shares: tuple[tuple[float, ...], ...]
    runs: int
    note: str


def confusion(study: Study, trial: int | None) -> Confusion:
    """What the winner's confirmed runs answered on the test split."""
    results = [result.confusion for (t, _), result in sorted(study.tests.items()) if t == trial]
    if not results:
        return Confusion(study.scenes, (), (), 0, "No confirmed run has been scored on the test split yet.")
    total = np.sum(results, axis=0)
    sums = total.sum(axis=1, keepdims=True)
    shares = np.divide(total, sums, out=np.full(total.shape, math.nan), where=sums > 0)
    return Confusion(
        study.scenes,
        tuple(tuple(int(n) for n in row) for row in total),
        tuple(tuple(float(x) for x in row) for row in shares),
        len(results),
        "",
    )


def draw_confusion(info: Confusion, width: float) -> Figure:
    wide, size = width >= WIDE, len(info.scenes)
    rows = [
        f"{wrap(name, 20 if wide else 14)}  ({sum(counts):,})"
        for name, counts in zip(info.scenes, info.counts)
    ]
    across = (width - 0.085 * longest_line(rows) - 0.3) / max(size, 1)  # a cell's width in inches
    flat = [wrap(name, max(1, int(across / 0.085))) for name in info.scenes]
    level = all("\n" not in label or across > 0.9 for label in flat)
    columns = flat if level else _upright(info.scenes, most=max(1, int(across / 0.15)))
    tall = max(label.count("\n") + 1 for label in ([*rows] if level else [*rows, *columns]))
    cell = max(0.17 * tall, min(0.55, across), 0.24)
    above = 0.15 * max(label.count("\n") + 1 for label in columns) if level else 0.085 * longest_line(columns)
    figure = canvas(width, cell * size + above + 0.55)
    axes = figure.add_subplot()
    shares = np.asarray(info.shares)
    axes.imshow(np.nan_to_num(shares), cmap="Blues", vmin=0, vmax=1, aspect="auto")
    bare(axes)
    axes.tick_params(length=0)
    axes.set_xticks(range(size), columns, rotation=0 if level else 90)
    axes.xaxis.tick_top()
    axes.set_yticks(range(size), rows)
    axes.set_xticks(np.arange(size + 1) - 0.5, minor=True)
    axes.set_yticks(np.arange(size + 1) - 0.5, minor=True)
    axes.grid(which="minor", color="white", linewidth=1.2)
    axes.tick_params(which="minor", length=0, top=False)
    axes.set_xlabel("predicted scene")
    axes.xaxis.set_label_position("top")
    axes.set_ylabel("true scene (clips)")
    _write_cells(axes, info, both=wide and size <= 15)
    return figure


def _upright(names: Sequence[str], most: int) -> list[str]:
    """Labels to be turned upright, in as few characters a line as `most` lines beside each other allow."""
    for characters in range(14, 60, 2):
        labels = [wrap(name, characters) for name in names]
        if all(label.count("\n") < most and "…" not in label for label in labels):
            return labels
    return [wrap(name, 60, most) for name in names]


def _write_cells(axes: Axes, info: Confusion, *, both: bool) -> None:
    """The share in per cent, under it the count where there is room; empty cells stay empty."""
    if len(info.scenes) > 25:
        return
    for y, (counts, shares) in enumerate(zip(info.counts, info.shares)):
        for x, (count, share) in enumerate(zip(counts, shares)):
            if not count:
                continue
            colour = "white" if share > 0.55 else INK
            text = f"{100 * share:.0f}" + (f"\n{count:,}" if both else "")
            weight = "bold" if x == y else "normal"
            axes.text(x, y, text, color=colour, ha="center", va="center", fontsize=7, fontweight=weight)


class EventPrecision(NamedTuple):
    """Average precision on test of the winner: (event, mean, lowest, highest seed), best first.

    absent   events without a positive test clip, which have no average precision
    hidden   how many rows in the middle are left out of a long list
    overall  mean over the events shown and hidden (mAP)
    """

    rows: tuple[tuple[str, float, float, float], ...]
    absent: tuple[str, ...]
    hidden: int
    overall: float
    runs: int
    note: str


def event_precision(study: Study, trial: int | None, most: int = 60) -> EventPrecision:
    """Average precision of the winner's confirmed runs by event; of more than `most` events, the two ends."""
    results = [result.event_ap for (t, _), result in sorted(study.tests.items()) if t == trial]
    if not results or not study.events:
        why = (
            "This corpus has no events."
            if not study.events
            else "No confirmed run has been scored on test yet."
        )
        return EventPrecision((), (), 0, math.nan, len(results), why)
    table = np.vstack(results)
    known = np.isfinite(table).any(axis=0)
    rows = []
    for index in np.flatnonzero(known):
        seeds = table[np.isfinite(table[:, index]), index]
        rows.append((study.events[index], float(seeds.mean()), float(seeds.min()), float(seeds.max())))
    rows.sort(key=lambda row: (-row[1], row[0]))
    absent = tuple(study.events[i] for i in np.flatnonzero(~known))
    overall = float(np.mean([row[1] for row in rows])) if rows else math.nan
    hidden = max(0, len(rows) - most)
    shown = rows[: most // 2] + rows[len(rows) - most // 2 :] if hidden else rows
    note = "" if rows else "This model has no event scores on test."
    return EventPrecision(tuple(shown), absent, hidden, overall, len(results), note)


def draw_event_precision(info: EventPrecision, width: float) -> Figure:
    labels = [wrap(name, 34 if width >= WIDE else 20) for name, *_ in info.rows]
    lines = sum(label.count("\n") + 1 for label in labels)
    figure = canvas(width, 0.75 + 0.05 * len(labels) + 0.155 * lines)
    axes = figure.add_subplot()
    grid(axes, "x")
    bare(axes)
    half = len(info.rows) // 2 if info.hidden else len(info.rows)
    places = [row + (row >= half) for row in range(len(info.rows))]
    for place, (_, mean, low, high) in zip(places, info.rows):
        axes.plot((0, mean), (place, place), color=RULE, linewidth=1.0, zorder=1)
        axes.plot((low, high), (place, place), color=SKY, linewidth=3.2, solid_capstyle="round", zorder=2)
        axes.plot(mean, place, "o", color=BLUE, ms=5, zorder=3)
        place_text: Any = {"xytext": (7, 0), "textcoords": "offset points", "va": "center", "fontsize": 8}
        box = {"facecolor": "white", "edgecolor": "none", "pad": 0.6}
        axes.annotate(f"{mean:.2f}", (high, place), bbox=box, **place_text)
    axes.axvline(info.overall, color=GREY, linewidth=0.9, linestyle=(0, (2, 3)), zorder=1)
    where = (info.overall, -0.7)
    axes.annotate(
        f"mean {info.overall:.2f}",
        where,
        ha="center",
        va="bottom",
        color=GREY,
        fontsize=8,
        annotation_clip=False,
    )
    if info.hidden:
        axes.text(
            0.01,
            half,
            f"… {units.plural(info.hidden, 'event')} in between …",
            va="center",
            color=GREY,
            fontsize=8,
        )
    axes.set_yticks(places, labels)
    axes.set_ylim(places[-1] + 0.6, -0.7)
    axes.set_xlim(0, 1.08)
    axes.set_xticks([0, 0.25, 0.5, 0.75, 1.0], ["0", "0.25", "0.5", "0.75", "1"])
    axes.set_xlabel("average precision on test")
    return figure
