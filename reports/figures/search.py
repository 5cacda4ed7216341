"""How the search went: every run's curve, the scores in their order, what the knobs did."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator

from reports import units
from reports.collect import Study
from reports.drawing import BLUE, GREY, INK, ORANGE, PALE, SKY, VERMILLION, WIDE, bare, canvas, grid, wrap
from reports.importance import Importance, logarithmic
from reports.rank import own_column, usable

# --- learning curves ----------------------------------------------------------------------------------------


class Curve(NamedTuple):
    """One run's finite objective values by epoch; `state` as in the study, `best` for the one with a name."""

    trial: int
    epochs: tuple[int, ...]
    scores: tuple[float, ...]
    state: str
    best: bool


class LearningCurves(NamedTuple):
    """Search runs in the order drawn: cut short first, the best last. rungs: epochs where runs were cut."""

    metric: str
    epochs: int
    rungs: tuple[int, ...]
    curves: tuple[Curve, ...]
    note: str


def learning_curves(study: Study) -> LearningCurves:
    """The objective after every epoch of every search run."""
    runs = study.runs[study.runs["phase"] == "search"]
    states = dict(zip([int(t) for t in runs["trial"]], runs["state"]))
    best = _best_trial(usable(runs, study.epochs), study.mode)
    values = study.curves[study.curves["phase"] == "search"]
    values = values[np.isfinite(values[study.metric])].sort_values(["trial", "epoch"])
    columns = [values[name].to_numpy() for name in ("trial", "epoch", study.metric)]
    cuts = np.flatnonzero(np.diff(columns[0])) + 1
    curves = []
    for trials, epochs, scores in zip(*(np.split(column, cuts) for column in columns)):
        if len(trials):
            trial = int(trials[0])
            state = str(states.get(trial, "RUNNING"))
            curves.append(Curve(trial, tuple(epochs.tolist()), tuple(scores.tolist()), state, trial == best))
    curves.sort(key=lambda c: (c.best, c.state == "COMPLETE", c.trial))
    note = "" if curves else "No search run has finished an epoch yet."
    return LearningCurves(study.metric, study.epochs, _rungs(runs), tuple(curves), note)


def _best_trial(good: pd.DataFrame, mode: str) -> int | None:
    if good.empty:
        return None
    scores = good["score"].to_numpy()
    place = int(scores.argmax() if mode == "max" else scores.argmin())
    return int(good["trial"].iloc[place])


def _rungs(runs: pd.DataFrame) -> tuple[int, ...]:
    """The epochs named in the pruned runs' reasons ("… the cut-off at epoch 3 …")."""
    found = runs.loc[runs["state"] == "PRUNED", "reason"].str.extract(r"\bepoch (\d+)", expand=False).dropna()
    return tuple(sorted({int(epoch) for epoch in found}))


_LINE = {  # colour, width, opacity
    "COMPLETE": (SKY, 1.1, 0.75),
    "RUNNING": (ORANGE, 1.1, 0.9),
    "DIVERGED": (VERMILLION, 1.0, 0.8),
}


def draw_learning_curves(info: LearningCurves, width: float) -> Figure:
    figure = canvas(width, 3.4 if width >= WIDE else 3.0)
    axes = figure.add_subplot()
    on = units.scale(info.metric)
    grid(axes, "y")
    for rung in info.rungs:
        axes.axvline(rung, color=PALE, linewidth=0.8, linestyle=(0, (2, 3)), zorder=1)
    crowd = min(1.0, 25 / max(1, len(info.curves)))  # many curves are drawn fainter
    strokes = [_stroke(curve, crowd) for curve in info.curves]
    lines = [np.column_stack((curve.epochs, np.multiply(curve.scores, on.factor))) for curve in info.curves]
    axes.add_collection(
        LineCollection(
            lines,
            colors=[to_rgba(colour, opacity) for colour, _, opacity in strokes],
            linewidths=[width for _, width, _ in strokes],
            zorder=2,
        )
    )
    ends: dict[tuple[str, str], list[tuple[float, float]]] = {}
    for curve, line, (colour, _, _) in zip(info.curves, lines, strokes):
        ended = curve.state in ("PRUNED", "DIVERGED", "FAIL")
        if ended or len(line) == 1:
            ink = GREY if curve.state == "PRUNED" else colour
            ends.setdefault(("x" if ended else "o", ink), []).append((line[-1, 0], line[-1, 1]))
        if curve.best:
            text = f"trial {curve.trial}\n{units.score(curve.scores[-1], on, unit=True)}"
            _beside(axes, text, line[-1, 0], line[-1, 1])
    for (mark, ink), points in ends.items():
        axes.plot(*zip(*points), mark, color=ink, ms=3.5, zorder=2)
    axes.autoscale_view()
    axes.set_xlim(0.5 if info.epochs > 1 else 0, info.epochs + 0.5 if info.epochs > 1 else 2)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlabel("epoch")
    axes.set_ylabel(_axis(on))
    return figure


def _stroke(curve: Curve, crowd: float) -> tuple[str, float, float]:
    """Colour, width and opacity of a curve; `crowd` below 1 makes all but the best fainter."""
    if curve.best:
        return BLUE, 2.4, 1.0
    colour, width, opacity = _LINE.get(curve.state, (PALE, 0.9, 0.7))
    return colour, width * max(0.6, crowd), opacity * max(0.4, crowd)


def _beside(axes: Axes, text: str, x: float, y: float) -> None:
    place = {"xytext": (7, 0), "textcoords": "offset points", "va": "center", "annotation_clip": False}
    axes.annotate(text, (x, y), color=BLUE, fontweight="bold", fontsize=8.5, **place)  # type: ignore[arg-type]


def _axis(on: units.Scale) -> str:
    unit = f" ({on.unit})" if on.unit else ""
    return f"{on.split} {on.label}{unit}".strip()


# --- search history -----------------------------------------------------------------------------------------


class SearchHistory(NamedTuple):
    """Search runs in the order they started (1 = first).

    points  (order, trial, score) of the full-length finished runs
    best    (order, score) wherever the best so far improved
    others  (state, orders) of the runs without a full-length score: PRUNED, DIVERGED, FAIL, RUNNING
    """

    metric: str
    runs: int
    points: tuple[tuple[int, int, float], ...]
    best: tuple[tuple[int, float], ...]
    others: tuple[tuple[str, tuple[int, ...]], ...]
    note: str


def search_history(study: Study) -> SearchHistory:
    """How the search went: what each run scored, when the best was found, what became of the rest."""
    runs = (
        study.runs[study.runs["phase"] == "search"].sort_values(["started", "trial"]).reset_index(drop=True)
    )
    good = usable(runs, study.epochs)
    points = tuple(
        (int(i) + 1, int(t), float(s)) for i, t, s in zip(good.index, good["trial"], good["score"])
    )
    best: list[tuple[int, float]] = []
    for order, _, score in points:
        if not best or (score > best[-1][1] if study.mode == "max" else score < best[-1][1]):
            best.append((order, score))
    rest = runs.drop(index=good.index)
    others = []
    for state in ("PRUNED", "DIVERGED", "FAIL", "RUNNING"):
        orders = tuple(int(i) + 1 for i in rest.index[rest["state"] == state])
        if orders:
            others.append((state, orders))
    note = "" if len(runs) else "No search run has started yet."
    return SearchHistory(study.metric, len(runs), points, tuple(best), tuple(others), note)


STATE_NAMES = {"PRUNED": "stopped early", "DIVERGED": "diverged", "FAIL": "failed", "RUNNING": "running"}
_STATE_COLOURS = {"PRUNED": GREY, "DIVERGED": VERMILLION, "FAIL": INK, "RUNNING": ORANGE}


def draw_search_history(info: SearchHistory, width: float) -> Figure:
    strips = len(info.others)
    figure = canvas(width, (2.9 if width >= WIDE else 2.5) + 0.24 * strips)
    layout: dict[str, Any] = {"height_ratios": [10, strips or 1], "hspace": 0.0}
    axes, below = figure.subplots(2, 1, sharex=True, gridspec_kw=layout)
    on = units.scale(info.metric)
    grid(axes, "y")
    axes.plot([p[0] for p in info.points], [p[2] * on.factor for p in info.points], "o", color=SKY, ms=4)
    if info.best:
        steps = [*info.best, (info.runs, info.best[-1][1])]
        axes.step(
            [s[0] for s in steps], [s[1] * on.factor for s in steps], where="post", color=BLUE, linewidth=1.8
        )
        _beside(
            axes, f"best\n{units.score(info.best[-1][1], on, unit=True)}", info.runs, steps[-1][1] * on.factor
        )
    axes.set_ylabel(_axis(on))
    axes.set_xlim(0.2, info.runs + 0.8)
    bare(below)
    below.tick_params(length=0)
    for row, (state, orders) in enumerate(info.others):
        below.plot(orders, [row] * len(orders), "|", color=_STATE_COLOURS[state], ms=8, markeredgewidth=1.4)
    below.set_yticks(range(strips), [f"{STATE_NAMES[s]} ({len(o)})" for s, o in info.others])
    below.set_ylim(strips - 0.4, -0.6)
    below.xaxis.set_major_locator(MaxNLocator(9 if width >= WIDE else 5, integer=True))
    below.set_xlabel("search run, in the order started")
    return figure


# --- what mattered ------------------------------------------------------------------------------------------


def draw_importance(info: Importance, width: float) -> Figure:
    labels = [wrap(name, 28 if width >= WIDE else 16) for name, _ in info.shares]
    shares = [share * 100 for _, share in info.shares]
    lines = sum(label.count("\n") + 1 for label in labels)
    figure = canvas(width, 0.55 + 0.1 * len(labels) + 0.17 * lines)
    axes = figure.add_subplot()
    rows = range(len(labels))
    axes.barh(rows, shares, color=BLUE, height=0.62)
    for row, share in zip(rows, shares):
        text = f"{share:.0f} %" if share >= 1 else "< 1 %"
        axes.annotate(
            text, (share, row), xytext=(4, 0), textcoords="offset points", va="center", fontsize=8.5
        )
    axes.set_yticks(rows, labels)
    axes.set_ylim(len(labels) - 0.4, -0.6)
    axes.set_xlim(0, max(shares) * 1.14)
    axes.set_xticks([])
    axes.tick_params(length=0)
    axes.spines["bottom"].set_visible(False)
    axes.set_xlabel("share of importance")
    return figure


class Slice(NamedTuple):
    """Score against one knob over the finished full-length search runs.

    kind    "number", "log number" or "choice"; `choices` from top to bottom, the largest number on top
    points  (value, score, trial); the value is the choice's index for choices
    """

    knob: str
    kind: str
    choices: tuple[str, ...]
    points: tuple[tuple[float, float, int], ...]


class Slices(NamedTuple):
    metric: str
    slices: tuple[Slice, ...]
    best: int | None
    note: str


def slices(study: Study, found: Importance, most: int = 6) -> Slices:
    """One slice for each of the most important knobs; without importances, for the searched ones in order."""
    good = usable(study.runs[study.runs["phase"] == "search"], study.epochs)
    searched = [str(knob) for knob in study.record.get("space", ())]
    names = [name for name, share in found.shares if share >= 0.01] or searched
    columns = {name: own_column(good, name) for name in names}
    drawn = [_slice(good, name, column) for name, column in columns.items() if column is not None]
    drawn = [s for s in drawn if len({value for value, _, _ in s.points}) > 1][:most]
    note = ""
    if len(good) < 3:
        note = "Fewer than three search runs finished at full length, so there is nothing to compare."
    elif not drawn:
        note = "The finished search runs do not differ in any searched knob."
    return Slices(study.metric, tuple(drawn) if not note else (), _best_trial(good, study.mode), note)


def _slice(good: pd.DataFrame, knob: str, column: pd.Series) -> Slice:
    present = good[column.notna()]
    values = column[column.notna()].tolist()
    trials = [int(t) for t in present["trial"]]
    scores = [float(s) for s in present["score"]]
    numeric = all(
        isinstance(v, int | float | np.number) and not isinstance(v, bool | np.bool_) for v in values
    )
    if numeric and len(set(values)) > 4:
        kind = "log number" if logarithmic([float(v) for v in values]) else "number"
        return Slice(knob, kind, (), tuple(zip([float(v) for v in values], scores, trials)))
    keys = [float(v) if numeric else str(v) for v in values]
    ordered = sorted(set(keys), reverse=numeric)
    names = {key: units.short_knob(value) for key, value in zip(keys, values)}
    points = tuple((float(ordered.index(key)), s, t) for key, s, t in zip(keys, scores, trials))
    return Slice(knob, "choice", tuple(names[key] for key in ordered), points)


def draw_slices(info: Slices, width: float) -> Figure:
    columns = 2 if width >= WIDE and len(info.slices) > 1 else 1
    rows = -(-len(info.slices) // columns)
    heights = [
        max(_slice_height(s) for s in info.slices[row * columns : (row + 1) * columns]) for row in range(rows)
    ]
    figure = canvas(width, sum(heights) + 0.35)
    panels = figure.subplots(
        rows, columns, sharex=True, squeeze=False, gridspec_kw={"height_ratios": heights}
    )
    on = units.scale(info.metric)
    for axes, one in zip(panels.flat, info.slices):
        _draw_slice(axes, one, on, info.best, 16 if columns == 2 else 14)
    for axes in panels.flat[len(info.slices) :]:
        axes.set_visible(False)
    last = len(info.slices) - 1
    for place, axes in enumerate(panels.flat[: len(info.slices)]):
        if place + columns > last:
            axes.tick_params(labelbottom=True)
            axes.set_xlabel(_axis(on))
    return figure


def _slice_height(one: Slice) -> float:
    return 0.5 + 0.3 * max(3, len(one.choices)) if one.kind == "choice" else 1.7


def _draw_slice(axes: Axes, one: Slice, on: units.Scale, best: int | None, characters: int) -> None:
    axes.set_title(wrap(one.knob, 30))
    grid(axes, "x")
    spread = _nudges([p[0] for p in one.points]) if one.kind == "choice" else [0.0] * len(one.points)
    placed = [(s * on.factor, v + nudge, t == best) for (v, s, t), nudge in zip(one.points, spread)]
    for top, colour, edge, size in ((False, SKY, "none", 5.0), (True, BLUE, "white", 7.5)):
        x, y = ([point[axis] for point in placed if point[2] == top] for axis in (0, 1))
        axes.plot(x, y, "o", color=colour, mec=edge, ms=size, zorder=2 + top)
    if one.kind == "choice":
        axes.set_yticks(range(len(one.choices)), [wrap(c, characters, 2) for c in one.choices])
        axes.set_ylim(len(one.choices) - 0.5, -0.5)
    elif one.kind == "log number":
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 3.0)))
        axes.yaxis.set_major_formatter(lambda value, _: units.short_knob(float(value)))
        axes.yaxis.set_minor_formatter(lambda value, _: "")
        axes.tick_params(which="minor", length=0)


def _nudges(rows: Sequence[float]) -> list[float]:
    """A small, repeatable offset a point so that points on the same row do not hide each other."""
    seen: dict[float, int] = {}
    offsets = (0.0, 0.14, -0.14, 0.07, -0.07, 0.21, -0.21)
    nudges = []
    for row in rows:
        nudges.append(offsets[seen.get(row, 0) % len(offsets)])
        seen[row] = seen.get(row, 0) + 1
    return nudges
