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
from reports.drawing import BLUE, GREY, RULE, SKY, WIDE, bare, canvas, grid, wrap
from reports.figures import matrix


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
    return from_counts(study.scenes, np.sum(results, axis=0), len(results))


def from_counts(scenes: Sequence[str], total: np.ndarray, runs: int) -> Confusion:
    """The confusion of `total` (S, S) counts, rows = truth, that `runs` runs made."""
    if not total.any():
        none = "There is nothing to compare: no clip has a known scene, or the model says nothing of scenes."
        return Confusion(tuple(scenes), (), (), runs, none)
    sums = total.sum(axis=1, keepdims=True)
    shares = np.divide(total, sums, out=np.full(total.shape, math.nan), where=sums > 0)
    return Confusion(
        tuple(scenes),
        tuple(tuple(int(n) for n in row) for row in total),
        tuple(tuple(float(x) for x in row) for row in shares),
        runs,
        "",
    )


def draw_confusion(info: Confusion, width: float) -> Figure:
    wide = width >= WIDE
    rows = [
        f"{wrap(name, 20 if wide else 14)}  ({sum(counts):,})"
        for name, counts in zip(info.scenes, info.counts)
    ]
    shares = np.nan_to_num(np.asarray(info.shares))
    sheet = matrix.sheet(width, rows, info.scenes, shares, cmap="Blues", vmin=0, vmax=1)
    sheet.axes.set_xlabel("predicted scene")
    sheet.axes.set_ylabel("true scene (clips)")
    _write_shares(sheet.axes, info, both=wide and len(info.scenes) <= 15)
    return sheet.figure


def _write_shares(axes: Axes, info: Confusion, *, both: bool) -> None:
    """The share in per cent, under it the count where there is room; empty cells stay empty."""
    if len(info.scenes) > 25:
        return
    for y, (counts, shares) in enumerate(zip(info.counts, info.shares)):
        for x, (count, share) in enumerate(zip(counts, shares)):
            if count:
                text = f"{100 * share:.0f}" + (f"\n{count:,}" if both else "")
                matrix.write(axes, y, x, text, share, fontweight="bold" if x == y else "normal")


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
