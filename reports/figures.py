"""Every figure twice: an info function (plain values, tested exactly) and a draw function (ink only).

An info whose `note` is not empty has nothing to draw and says why. Scores keep their own unit until drawn.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator

from reports import units
from reports.collect import Study
from reports.drawing import (
    BLUE,
    GREY,
    INK,
    ORANGE,
    PALE,
    RULE,
    SKY,
    VERMILLION,
    WIDE,
    bare,
    canvas,
    grid,
    longest_line,
    wrap,
)
from reports.importance import Importance, importance, logarithmic
from reports.rank import Ranking, Summary, label, usable

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
    values = study.curves[study.curves["phase"] == "search"].sort_values("epoch")
    values = values[np.isfinite(values[study.metric])]
    curves = []
    for trial in sorted({int(t) for t in values["trial"]}):
        group = values[values["trial"] == trial]
        epochs = tuple(int(e) for e in group["epoch"])
        scores = tuple(float(v) for v in group[study.metric])
        curves.append(Curve(trial, epochs, scores, str(states.get(trial, "RUNNING")), trial == best))
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
    for curve in info.curves:
        colour, line, opacity = (BLUE, 2.4, 1.0) if curve.best else _LINE.get(curve.state, (PALE, 0.9, 0.7))
        if not curve.best:
            line, opacity = line * max(0.6, crowd), opacity * max(0.4, crowd)
        scores = [v * on.factor for v in curve.scores]
        axes.plot(
            curve.epochs, scores, color=colour, linewidth=line, alpha=opacity, zorder=3 if curve.best else 2
        )
        ended = curve.state in ("PRUNED", "DIVERGED", "FAIL")
        if ended or len(scores) == 1:
            mark = "x" if ended else "o"
            ink = GREY if curve.state == "PRUNED" else colour
            axes.plot(curve.epochs[-1], scores[-1], mark, color=ink, ms=3.5)
        if curve.best:
            text = f"trial {curve.trial}\n{units.score(curve.scores[-1], on, unit=True)}"
            _beside(axes, text, curve.epochs[-1], scores[-1])
    axes.set_xlim(0.5 if info.epochs > 1 else 0, info.epochs + 0.5 if info.epochs > 1 else 2)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlabel("epoch")
    axes.set_ylabel(_axis(on))
    return figure


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
    drawn = [_slice(good, name) for name in names if f"config.{name}" in good.columns]
    drawn = [s for s in drawn if len({value for value, _, _ in s.points}) > 1][:most]
    note = ""
    if len(good) < 3:
        note = "Fewer than three search runs finished at full length, so there is nothing to compare."
    elif not drawn:
        note = "The finished search runs do not differ in any searched knob."
    return Slices(study.metric, tuple(drawn) if not note else (), _best_trial(good, study.mode), note)


def _slice(good: pd.DataFrame, knob: str) -> Slice:
    column = good[f"config.{knob}"]
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
    for (value, score, trial), nudge in zip(one.points, spread):
        colour, edge, size = (BLUE, "white", 7.5) if trial == best else (SKY, "none", 5)
        axes.plot(
            score * on.factor,
            value + nudge,
            "o",
            color=colour,
            mec=edge,
            ms=size,
            zorder=3 if trial == best else 2,
        )
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


# --- confirmation -------------------------------------------------------------------------------------------


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
        ends = (summary.low * on.factor, summary.high * on.factor)
        axes.plot(ends, (place, place), color=colour, linewidth=1.8, solid_capstyle="butt", zorder=3)
    axes.plot(summary.mean * on.factor, place, "D", color=colour, mec="white", ms=7, zorder=4)
    text = units.score(summary.mean, on)
    if summary.n > 1:
        text += f" ± {units.score(summary.sd, on)}"
    place_text = {"xytext": (0, 7), "textcoords": "offset points", "ha": "center", "fontsize": 8}
    weight = "bold" if row.best else "normal"
    axes.annotate(text, (summary.mean * on.factor, place), color=colour, fontweight=weight, **place_text)  # type: ignore[arg-type]


# --- the winner on test -------------------------------------------------------------------------------------


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


__all__ = [
    "Confirmation",
    "Confusion",
    "EventPrecision",
    "Importance",
    "LearningCurves",
    "SearchHistory",
    "Slices",
    "confirmation",
    "confusion",
    "draw_confirmation",
    "draw_confusion",
    "draw_event_precision",
    "draw_importance",
    "draw_learning_curves",
    "draw_search_history",
    "draw_slices",
    "event_precision",
    "importance",
    "learning_curves",
    "search_history",
    "slices",
]
