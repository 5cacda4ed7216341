"""When every run was at work, and how much of the machines the study used."""

from __future__ import annotations

import heapq
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from reports.collect import Study
from reports.drawing import BLUE, GREEN, GREY, INK, ORANGE, PALE, VERMILLION, WIDE, canvas, grid

LANES_DRAWN = 24
RESOLUTION = 1.0  # seconds; `started` is written in whole ones, so a successor may seem to start too early
_COLOURS = {"COMPLETE": BLUE, "PRUNED": PALE, "DIVERGED": VERMILLION, "FAIL": INK, "RUNNING": ORANGE}


class Bar(NamedTuple):
    """One run; `start` and `end` in seconds since the study's first run started."""

    trial: int
    repeat: int
    phase: str
    state: str
    start: float
    end: float
    lane: int


class Timeline(NamedTuple):
    """Bars in the order they started, on as few lanes as hold them.

    slots        runs the machines take at once: the study's own figure, else as many as ran together
    busy         (seconds, runs at work from then on)
    idle         seconds in which nothing ran, before the last end
    utilisation  share of the slots' time, without the idle time, in which a run was at work; NaN if unknown
    """

    bars: tuple[Bar, ...]
    slots: int
    busy: tuple[tuple[float, int], ...]
    idle: float
    utilisation: float
    note: str

    @property
    def lanes_drawn(self) -> bool:
        """Whether there are few enough lanes to draw a bar a run."""
        return max((bar.lane for bar in self.bars), default=0) < LANES_DRAWN


def timeline(study: Study) -> Timeline:
    """From `started` and `seconds`; a run still at work reaches to the last known moment."""
    runs = study.runs
    began = pd.to_datetime(runs["started"], errors="coerce", format="ISO8601", utc=True)
    runs = runs.assign(_began=began)[began.notna()].sort_values(["_began", "trial", "repeat"])
    if runs.empty:
        return Timeline((), 0, (), 0.0, math.nan, "No run has written down when it started.")
    start = (runs["_began"] - runs["_began"].iloc[0]).dt.total_seconds().to_numpy()
    seconds = runs["seconds"].to_numpy(dtype=float)
    known = np.where(np.isfinite(seconds) & (seconds > 0), start + seconds, start)
    end = np.where((runs["state"] == "RUNNING").to_numpy(), known.max(), known)
    if end.max() <= 0:
        return Timeline((), 0, (), 0.0, math.nan, "No run has written down how long it took.")
    lanes = _lanes(start, end)
    end = _until_next(start, end, lanes)
    columns = (runs[name].tolist() for name in ("trial", "repeat", "phase", "state"))
    bars = tuple(
        Bar(int(t), int(r), str(p), str(s), float(a), float(b), lane)
        for t, r, p, s, a, b, lane in zip(*columns, start, end, lanes)
    )
    busy = _at_work(start, end)
    slots = int(study.record.get("concurrent") or 0) or max(count for _, count in busy)
    idle = sum(later - now for (now, count), (later, _) in zip(busy, busy[1:]) if count == 0)
    used = float((end - start).sum()) / (slots * (float(end.max()) - idle))
    return Timeline(bars, slots, busy, float(idle), min(1.0, used), "")


def _lanes(start: np.ndarray, end: np.ndarray) -> list[int]:
    """The lowest lane free at each start (in order), so that no two runs of a lane overlap noticeably."""
    free: list[int] = []
    taken: list[tuple[float, int]] = []
    lanes = []
    for first, last in zip(start, end):
        while taken and taken[0][0] <= first + RESOLUTION:
            heapq.heappush(free, heapq.heappop(taken)[1])
        lane = heapq.heappop(free) if free else len(taken)
        heapq.heappush(taken, (float(last), lane))
        lanes.append(lane)
    return lanes


def _until_next(start: np.ndarray, end: np.ndarray, lanes: list[int]) -> np.ndarray:
    """Each run's end, but not after the start of the next one in its lane."""
    ends = end.copy()
    last: dict[int, int] = {}
    for place, lane in enumerate(lanes):
        if lane in last:
            ends[last[lane]] = min(ends[last[lane]], start[place])
        last[lane] = place
    return ends


def _at_work(start: np.ndarray, end: np.ndarray) -> tuple[tuple[float, int], ...]:
    """(seconds, how many runs are at work from then on), one entry a moment at which that changes."""
    moments = np.concatenate((start, end))
    changes = np.concatenate((np.ones(len(start), dtype=int), -np.ones(len(end), dtype=int)))
    when, place = np.unique(moments, return_inverse=True)
    counts = np.cumsum(np.bincount(place, weights=changes)).astype(int)
    return tuple((float(t), int(n)) for t, n in zip(when, counts))


def draw_timeline(info: Timeline, width: float) -> Figure:
    lanes = max(bar.lane for bar in info.bars) + 1
    heights = [0.22 * lanes + 0.25, 1.1] if info.lanes_drawn else [1.8]
    figure = canvas(width, sum(heights) + 0.7)
    layout: dict[str, Any] = {"height_ratios": heights}
    panels = figure.subplots(len(heights), 1, sharex=True, squeeze=False, gridspec_kw=layout)[:, 0]
    span = max(bar.end for bar in info.bars)
    factor, unit = (1.0, "s") if span < 120 else (60.0, "min") if span < 7200 else (3600.0, "h")
    if info.lanes_drawn:
        _draw_lanes(panels[0], info.bars, factor)
    _draw_busy(panels[-1], info, factor)
    panels[-1].set_xlim(0, span / factor)
    panels[-1].set_xlabel(f"time since the first run started ({unit})")
    panels[-1].xaxis.set_major_locator(MaxNLocator(8 if width >= WIDE else 5))
    return figure


def _draw_lanes(axes: Axes, bars: Sequence[Bar], factor: float) -> None:
    gap = 0.003 * max(bar.end for bar in bars)  # so that one run's end is seen before the next one's start
    lines = [[(b.start / factor, b.lane), (max(b.start, b.end - gap) / factor, b.lane)] for b in bars]
    colours = [_colour(bar) for bar in bars]
    axes.add_collection(LineCollection(lines, colors=colours, linewidths=9.0, capstyle="butt"))
    lanes = max(bar.lane for bar in bars) + 1
    axes.set_ylim(lanes - 0.4, -0.6)
    axes.set_yticks(range(lanes), [str(lane + 1) for lane in range(lanes)])
    axes.set_ylabel("runs at once")
    axes.tick_params(length=0)
    axes.spines["left"].set_visible(False)


def _colour(bar: Bar) -> str:
    finished = bar.state == "COMPLETE"
    return GREEN if finished and bar.phase != "search" else _COLOURS.get(bar.state, GREY)


def _draw_busy(axes: Axes, info: Timeline, factor: float) -> None:
    grid(axes, "y")
    when = [seconds / factor for seconds, _ in info.busy]
    axes.fill_between(when, [n for _, n in info.busy], step="post", color=PALE, linewidth=0)
    axes.axhline(info.slots, color=GREY, linewidth=0.9, linestyle=(0, (2, 3)))
    place: Any = {"xytext": (3, 3), "textcoords": "offset points", "fontsize": 8, "color": GREY}
    axes.annotate(f"room for {info.slots}", (0, info.slots), **place)
    axes.set_ylim(0, info.slots * 1.3)
    axes.yaxis.set_major_locator(MaxNLocator(4, integer=True))
    axes.set_ylabel("at work")
