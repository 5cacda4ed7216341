"""t-SNE maps: clips by their scene scores (Hou et al. 2023, Fig. 3), labels by their weights (Fig. 4).

A map has no unit and no axes: only what lies near what can be read from it.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from matplotlib import patheffects
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from reports.analysis import Analysis
from reports.drawing import (
    BLUE,
    GREEN,
    GREY,
    INK,
    ORANGE,
    PALE,
    RULE,
    SKY,
    VERMILLION,
    WIDE,
    canvas,
    longest_line,
    wrap,
)
from reports.figures import naming
from reports.figures.relations import strongest

# Scenes have a colour and a shape of their own: either alone is enough to tell them apart up to seven.
COLOURS = (BLUE, ORANGE, GREEN, VERMILLION, "#CC79A7", SKY, "#8a6d00")
SHAPES = ("o", "s", "^", "D", "v", "P", "X", "p", "<", ">", "h", "*")
ALL_NAMED = 40  # events; of more, only those that couple strongest are named


class ClipMap(NamedTuple):
    """points: (x, y, true scene's index or -1, whether the model is right), `of` that many clips."""

    scenes: tuple[str, ...]
    points: tuple[tuple[float, float, int, bool], ...]
    of: int
    perplexity: float
    note: str


def clip_map(analysis: Analysis) -> ClipMap:
    """Every clip by its scene scores, coloured by its true scene."""
    about = analysis.record["maps"]["clips"]
    if about["note"]:
        return ClipMap(analysis.scenes, (), int(about["of"]), 0.0, f"No map of the clips: {about['note']}.")
    rows, truth = analysis.arrays["clip_rows"], analysis.arrays["scene"]
    right = analysis.predicted == truth
    points = tuple(
        (float(x), float(y), int(truth[row]), bool(right[row]))
        for (x, y), row in zip(analysis.arrays["clip_map"], rows)
    )
    return ClipMap(analysis.scenes, points, int(about["of"]), float(about["perplexity"]), "")


def draw_clip_map(info: ClipMap, width: float) -> Figure:
    """Full marks are clips answered rightly, hollow ones wrongly; a scene's name is at its middle."""
    wide = width >= WIDE
    places = np.asarray([point[:2] for point in info.points])
    truth = np.asarray([point[2] for point in info.points])
    right = np.asarray([point[3] for point in info.points])
    used = [s for s in range(len(info.scenes)) if (truth == s).any()]
    titles = [wrap(info.scenes[s], 24, 1) for s in used]
    columns = max(1, int(width / (0.45 + 0.072 * longest_line(titles))))
    legend = 0.165 * -(-len(used) // columns) + 0.08
    page = _page(places, width)
    figure = canvas(width, page[1] + legend)
    axes, inches = _ground(figure, places, page, legend)
    size = 4.2 if len(info.points) < 1000 else 3.0
    for scene in [-1, *used]:
        colour, shape = (PALE, ".") if scene < 0 else mark(scene)
        for correct in (False, True):
            some = places[(truth == scene) & (right == correct)]
            fill = colour if correct else "white"
            axes.plot(*some.T, shape, color=colour, mfc=fill, mew=0.8, ms=size, alpha=0.9, linestyle="none")
    middles = [np.median(places[truth == s], axis=0) for s in used]
    names = [wrap(info.scenes[s], 16, 2) for s in used]
    at = [_inches(inches, *m) for m in middles]
    sizes = [8.5 if wide else 7.5] * len(names)
    for box, name, anchor in zip(
        naming.place(at, names, sizes, page, np.zeros((0, 2)), centred=True), names, at
    ):
        if box:
            _say(axes, inches, box, name, anchor, sizes[0], "bold")
    handles = [_handle(axes, s) for s in used]
    figure.legend(
        handles,
        titles,
        loc="lower left",
        ncols=columns,
        frameon=False,
        fontsize=7.5,
        handletextpad=0.2,
        columnspacing=1.2,
        borderaxespad=0.1,
    )
    return figure


class LabelMap(NamedTuple):
    """Scenes and events in one plane, by their classifier weights.

    scenes  (name, x, y)
    events  (name, x, y, index of the scene it couples strongest with), those to be named first
    named   how many of the events are named: all up to 40, else those that couple strongest with some scene
    """

    scenes: tuple[tuple[str, float, float], ...]
    events: tuple[tuple[str, float, float, int], ...]
    named: int
    perplexity: float
    distance: str
    note: str


def label_map(analysis: Analysis) -> LabelMap:
    """W_s and W_e in one map."""
    about = analysis.record["maps"].get("labels")
    if about is None or about["note"]:
        why = about["note"] if about else "the model has no weights of scenes and events in one space"
        return LabelMap((), (), 0, 0.0, "", f"No map of the labels: {why}.")
    places = analysis.arrays["label_map"].astype(float)
    size, coupling = len(analysis.scenes), analysis.arrays["coupling"]
    scenes = tuple((name, *map(float, places[i])) for i, name in enumerate(analysis.scenes))
    order = strongest(coupling, len(analysis.events))
    events = tuple(
        (analysis.events[e], *map(float, places[size + e]), int(coupling[:, e].argmax())) for e in order
    )
    named = len(events) if len(events) <= ALL_NAMED else ALL_NAMED
    return LabelMap(scenes, events, named, float(about["perplexity"]), str(about["distance"]), "")  # type: ignore[arg-type]


def draw_label_map(info: LabelMap, width: float) -> Figure:
    """Scenes are large marks with bold names, events small ones in the colour of their strongest scene."""
    wide = width >= WIDE
    places = np.asarray([p[1:3] for p in (*info.scenes, *info.events)])
    page = _page(places, width)
    figure = canvas(width, page[1])
    axes, inches = _ground(figure, places, page, 0.0)
    few = info.named if wide else min(info.named, 16)
    strongest_scene = np.asarray([event[3] for event in info.events])
    first = np.arange(len(info.events)) < few
    for scene in range(len(info.scenes)):
        colour, shape = mark(scene)
        for shown, size, opacity in ((~first, 2.4, 0.55), (first, 4.0, 1.0)):
            some = places[len(info.scenes) :][shown & (strongest_scene == scene)]
            axes.plot(*some.T, shape, color=colour, ms=size, mew=0, alpha=opacity, linestyle="none")
    for scene, (_, x, y) in enumerate(info.scenes):
        colour, shape = mark(scene)
        axes.plot(x, y, shape, color=colour, mec=INK, mew=1.1, ms=10, zorder=4)
    named = [*info.scenes, *info.events[:few]]
    names = [wrap(str(p[0]), 18, 2) for p in named]
    sizes = [8.5 if wide else 7.5] * len(info.scenes) + [6.8 if wide else 6.2] * few
    gaps = [0.11] * len(info.scenes) + [0.06] * few
    at = [_inches(inches, float(p[1]), float(p[2])) for p in named]
    dots = np.asarray([_inches(inches, x, y) for x, y in places])
    for number, box in enumerate(naming.place(at, names, sizes, page, dots, gaps)):
        if box:
            weight = "bold" if number < len(info.scenes) else "normal"
            _say(axes, inches, box, names[number], at[number], sizes[number], weight)
    return figure


def mark(scene: int) -> tuple[str, str]:
    """A scene's colour and shape."""
    return COLOURS[scene % len(COLOURS)], SHAPES[scene % len(SHAPES)]


def _page(places: np.ndarray, width: float) -> tuple[float, float]:
    """A map's size in inches: as flat as what is on it, within limits."""
    across, up = np.ptp(places, axis=0)
    flat = float(up / across) if across > 0 else 1.0
    least, most = (0.5, 0.8) if width >= WIDE else (0.7, 1.15)
    return width - 0.04, width * min(max(flat, least), most)


class _Scale(NamedTuple):
    """Data to inches: inches = (data - origin) * factor."""

    left: float
    bottom: float
    factor: float


def _ground(
    figure: Figure, places: np.ndarray, page: tuple[float, float], below: float
) -> tuple[Axes, _Scale]:
    """Axes over the whole page but `below` inches, one unit of the map being as long both ways."""
    width, height = page[0] + 0.04, page[1] + below
    figure.set_layout_engine("none")
    axes = figure.add_axes((0.02 / width, below / height, page[0] / width, (page[1] - 0.02) / height))
    low, high = places.min(axis=0), places.max(axis=0)
    room = (page[0] - 0.5, page[1] - 0.5)
    factor = min(room[0] / max(high[0] - low[0], 1e-9), room[1] / max(high[1] - low[1], 1e-9))
    middle = (low + high) / 2
    left, bottom = middle[0] - page[0] / 2 / factor, middle[1] - page[1] / 2 / factor
    axes.set_xlim(left, left + page[0] / factor)
    axes.set_ylim(bottom, bottom + page[1] / factor)
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set_visible(True)
        spine.set_color(RULE)
    return axes, _Scale(left, bottom, factor)


def _inches(scale: _Scale, x: float, y: float) -> tuple[float, float]:
    return (x - scale.left) * scale.factor, (y - scale.bottom) * scale.factor


def _data(scale: _Scale, x: float, y: float) -> tuple[float, float]:
    return x / scale.factor + scale.left, y / scale.factor + scale.bottom


def _say(
    axes: Axes,
    scale: _Scale,
    box: naming.Box,
    name: str,
    anchor: tuple[float, float],
    size: float,
    weight: str,
) -> None:
    middle = _data(scale, *box.middle)
    if box.far:
        ends = (_data(scale, *anchor), middle)
        axes.plot(*zip(*ends), color=GREY, linewidth=0.5, zorder=3)
    halo = [patheffects.withStroke(linewidth=2.2, foreground="white")]
    axes.text(
        *middle, name, fontsize=size, fontweight=weight, ha="center", va="center", path_effects=halo, zorder=5
    )


def _handle(axes: Axes, scene: int) -> Any:
    colour, shape = mark(scene)
    return axes.plot([], [], shape, color=colour, ms=5, linestyle="none")[0]
