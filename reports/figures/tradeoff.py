"""Score against what a configuration costs: parameters, multiply-accumulates; and which ones no other beats
in both."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter

from reports import units
from reports.collect import Study
from reports.drawing import BLUE, SKY, WIDE, canvas, grid
from reports.rank import usable

COSTS = {"parameters": "parameters", "macs": "multiply-accumulates a clip"}
NAMED = 6  # points of a front with a name


class Panel(NamedTuple):
    """Score against one cost over full-length search runs.

    cost    "parameters" or "macs"      points  (trial, cost, score)
    front   trials that no other reaches at the same cost or less, cheapest first
    """

    cost: str
    points: tuple[tuple[int, float, float], ...]
    front: tuple[int, ...]


class Tradeoff(NamedTuple):
    metric: str
    panels: tuple[Panel, ...]
    note: str


def tradeoff(study: Study) -> Tradeoff:
    """The Pareto fronts of the search: single runs (n = 1) of the same length, no confirmed means."""
    good = usable(study.runs[study.runs["phase"] == "search"], study.epochs)
    panels = []
    for cost in COSTS:
        if cost not in good:
            continue
        columns = (good["trial"], good[cost], good["score"])
        points = tuple((int(t), float(c), float(s)) for t, c, s in zip(*columns) if c is not None and c > 0)
        if len({c for _, c, _ in points}) > 1:
            panels.append(Panel(cost, points, front(points, study.mode)))
    note = "" if panels else "The finished search runs do not differ in what they cost."
    if len(good) < 2:
        note = "Fewer than two search runs finished at full length, so there is nothing to weigh."
    return Tradeoff(study.metric, tuple(panels) if not note else (), note)


def front(points: Sequence[tuple[int, float, float]], mode: str) -> tuple[int, ...]:
    """The trials of (trial, cost, score) that no cheaper or equally dear one reaches, cheapest first."""
    sign = 1.0 if mode == "max" else -1.0
    kept, best = [], -math.inf
    for trial, _, score in sorted(points, key=lambda p: (p[1], -sign * p[2], p[0])):
        if sign * score > best:
            best = sign * score
            kept.append(trial)
    return tuple(kept)


def draw_tradeoff(info: Tradeoff, width: float) -> Figure:
    wide, many = width >= WIDE, len(info.panels)
    figure = canvas(width, 3.1 if wide else 2.8 * many)
    shape: dict[str, Any] = {"ncols": many, "sharey": True} if wide else {"nrows": many}
    on = units.scale(info.metric)
    unit = f" ({on.unit})" if on.unit else ""
    panels = figure.subplots(squeeze=False, **shape).flat
    for place, (axes, panel) in enumerate(zip(panels, info.panels)):
        _draw_panel(axes, panel, on)
        axes.set_xlabel(COSTS[panel.cost])
        if place == 0 or not wide:
            axes.set_ylabel(f"{on.split} {on.label}{unit}".strip())
    return figure


def _at_the_left(cost: float, costs: Sequence[float]) -> bool:
    """Whether a point lies in the first sixth of its axis, which is logarithmic where costs differ much."""
    scaled = [math.log(c) if max(costs) / min(costs) > 5 else c for c in (cost, min(costs), max(costs))]
    return scaled[0] < scaled[1] + (scaled[2] - scaled[1]) / 6


def _draw_panel(axes: Axes, panel: Panel, on: units.Scale) -> None:
    grid(axes, "y")
    at = {trial: (cost, score * on.factor) for trial, cost, score in panel.points}
    axes.plot(*zip(*at.values()), "o", color=SKY, mec="none", ms=4, alpha=0.6, zorder=2)
    kept = [at[trial] for trial in panel.front]
    axes.step(*zip(*kept), where="post", color=BLUE, linewidth=1.2, zorder=3)
    axes.plot(*zip(*kept), "o", color=BLUE, mec="white", ms=6.5, zorder=4)
    named = list(panel.front) if len(panel.front) <= NAMED else [panel.front[0], panel.front[-1]]
    for trial in named:
        left = _at_the_left(at[trial][0], [cost for cost, _ in at.values()])
        place: Any = {"xytext": (5, -11) if left else (-5, 4), "textcoords": "offset points", "fontsize": 8}
        side = "left" if left else "right"  # a name to the left of the cheapest would lie on the axis
        axes.annotate(f"trial {trial}", at[trial], color=BLUE, annotation_clip=False, ha=side, **place)
    costs = [cost for cost, _ in at.values()]
    if max(costs) / min(costs) > 5:
        axes.set_xscale("log")
        few = math.log10(max(costs) / min(costs)) < 2.5
        axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 3.0) if few else (1.0,)))
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.tick_params(which="minor", length=0)
    else:
        axes.locator_params(axis="x", nbins=4)
    axes.xaxis.set_major_formatter(lambda value, _: units.size(value))
    axes.margins(x=0.14, y=0.12)
