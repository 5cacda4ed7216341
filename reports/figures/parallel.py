"""Every full-length search run as one line across the knobs that mattered."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure

from reports import units
from reports.collect import Study
from reports.drawing import BLUE, GREY, INK, PALE, RULE, SKY, WIDE, canvas, wrap
from reports.importance import Importance, logarithmic
from reports.rank import own_column, usable

MOST, ON_A_PHONE = 6, 3  # knobs beside the score
FLOOR = 0.14  # where numbers begin on an axis on which some runs have no value: those are at 0


class Scale(NamedTuple):
    """One upright axis from 0 to 1; `ticks` are (height, text)."""

    knob: str
    ticks: tuple[tuple[float, str], ...]


class Line(NamedTuple):
    """One run: its height on every axis, the score's last. top: among the best tenth."""

    trial: int
    heights: tuple[float, ...]
    score: float
    top: bool


class ParallelCoordinates(NamedTuple):
    """Axes of the most important knobs, most important first, and the score's; lines with the best last."""

    metric: str
    scales: tuple[Scale, ...]
    lines: tuple[Line, ...]
    best: int | None
    note: str


def parallel_coordinates(study: Study, found: Importance) -> ParallelCoordinates:
    """Over the finished full-length search runs; without importances the searched knobs in their order."""
    good = usable(study.runs[study.runs["phase"] == "search"], study.epochs)
    names = [name for name, _ in found.shares] or [str(knob) for knob in study.record.get("space", ())]
    columns_of = {name: own_column(good, name) for name in names}
    placed = {name: _knob(column) for name, column in columns_of.items() if column is not None}
    chosen = [name for name, (scale, _) in placed.items() if len(scale) > 1][:MOST]
    if len(good) < 3 or not chosen:
        few = "Fewer than three search runs finished at full length, so there is nothing to compare."
        same = "The finished search runs do not differ in any searched knob."
        return ParallelCoordinates(study.metric, (), (), None, few if len(good) < 3 else same)
    scores = good["score"].to_numpy(dtype=float)
    ticks, heights = _score(scores, units.scale(study.metric))
    columns = [*(placed[name][1] for name in chosen), heights]
    order = np.argsort(scores if study.mode == "max" else -scores, kind="stable")
    top = set(order[-max(1, len(order) // 10) :].tolist())
    trials = good["trial"].to_numpy()
    lines = tuple(
        Line(int(trials[i]), tuple(float(c[i]) for c in columns), float(scores[i]), i in top)
        for i in order.tolist()
    )
    scales = tuple(Scale(name, placed[name][0]) for name in chosen)
    return ParallelCoordinates(
        study.metric, (*scales, Scale("score", ticks)), lines, int(trials[order[-1]]), ""
    )


def _knob(column: pd.Series) -> tuple[tuple[tuple[float, str], ...], np.ndarray]:
    """(ticks, heights): numbers by their size, everything else evenly spaced, no value at the foot."""
    values = column.tolist()
    absent = [value is None or (isinstance(value, float) and math.isnan(value)) for value in values]
    known = [value for value, missing in zip(values, absent) if not missing]
    none = ((0.0, units.knob(None)),) if any(absent) else ()
    foot = FLOOR if none else 0.0
    numbers = all(
        isinstance(v, int | float | np.number) and not isinstance(v, bool | np.bool_) for v in known
    )
    if numbers and len(set(known)) > 4:
        ticks, heights = _numbers([float(v) for v in known], foot)
    else:
        ticks, heights = _choices(known, numbers, foot)
    rows = iter(heights)
    return (*none, *ticks), np.array([0.0 if missing else next(rows) for missing in absent])


def _numbers(values: Sequence[float], foot: float) -> tuple[tuple[tuple[float, str], ...], list[float]]:
    log = logarithmic(list(values))
    sizes = np.log(values) if log else np.asarray(values)
    low, high = float(sizes.min()), float(sizes.max())
    marks = np.linspace(low, high, 3)
    ticks = tuple(
        (foot + (1 - foot) * place / 2, units.short_knob(float(np.exp(mark) if log else mark)))
        for place, mark in enumerate(marks)
    )
    return ticks, (foot + (1 - foot) * (sizes - low) / (high - low)).tolist()


def _choices(
    values: Sequence[Any], numbers: bool, foot: float
) -> tuple[tuple[tuple[float, str], ...], list[float]]:
    keys = [float(v) if numbers else str(v) for v in values]
    ordered = sorted(set(keys))
    names = {key: units.short_knob(value) for key, value in zip(keys, values)}
    steps = max(1, len(ordered) - 1)
    at = {key: foot + (1 - foot) * place / steps for place, key in enumerate(ordered)}
    return tuple((at[key], names[key]) for key in ordered), [at[key] for key in keys]


def _score(scores: np.ndarray, on: units.Scale) -> tuple[tuple[tuple[float, str], ...], np.ndarray]:
    low, high = float(scores.min()), float(scores.max())
    if high == low:
        return ((0.5, units.score(low, on)),), np.full(len(scores), 0.5)
    marks = ((place / 2, units.score(low + (high - low) * place / 2, on)) for place in range(3))
    return tuple(marks), (scores - low) / (high - low)


def draw_parallel_coordinates(info: ParallelCoordinates, width: float) -> Figure:
    wide = width >= WIDE
    kept = [*range(len(info.scales) - 1)][: MOST if wide else ON_A_PHONE] + [len(info.scales) - 1]
    figure = canvas(width, 3.3 if wide else 3.1)
    axes = figure.add_subplot()
    faint = min(1.0, 60 / len(info.lines))
    heights = [[line.heights[i] for i in kept] for line in info.lines]
    strokes = [_stroke(line, line.trial == info.best, faint) for line in info.lines]
    axes.add_collection(
        LineCollection(
            [list(enumerate(row)) for row in heights],
            colors=[to_rgba(colour, opacity) for colour, _, opacity in strokes],
            linewidths=[wide_line for _, wide_line, _ in strokes],
        )
    )
    for place, index in enumerate(kept):
        _draw_scale(axes, place, info.scales[index], 12 if wide else 9)
    names = [wrap(info.scales[i].knob, 14 if wide else 10, 3) for i in kept[:-1]]
    on = units.scale(info.metric)
    score = wrap(f"{on.split} {on.label}", 14 if wide else 10, 4) + (f"\n({on.unit})" if on.unit else "")
    axes.set_xticks(range(len(kept)), [*names, score])
    axes.set_yticks([])
    axes.set_xlim(-0.15, len(kept) - 1 + (0.45 if wide else 0.6))
    axes.set_ylim(-0.06, 1.08)
    axes.tick_params(length=0)
    for spine in axes.spines.values():
        spine.set_visible(False)
    return figure


def _stroke(line: Line, best: bool, faint: float) -> tuple[str, float, float]:
    if best:
        return BLUE, 2.6, 1.0
    return (SKY, 1.4, max(0.35, faint)) if line.top else (PALE, 0.8, max(0.08, 0.8 * faint))


def _draw_scale(axes: Axes, place: int, scale: Scale, characters: int) -> None:
    axes.axvline(place, color=GREY if scale.knob == "score" else RULE, linewidth=1.2, zorder=1)
    box = {"facecolor": "white", "edgecolor": "none", "pad": 0.5, "alpha": 0.85}
    for height, text in scale.ticks:
        said = wrap(text, characters, 2)
        axes.text(place + 0.04, height, said, va="center", fontsize=7.5, color=INK, bbox=box, zorder=5)
