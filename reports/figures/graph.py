"""The graph of events of an ERGL model, for the clips of a scene or for one clip: Hou et al. 2023 (ERGL)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Circle, FancyArrowPatch

from reports.analysis import Analysis
from reports.drawing import BLUE, INK, PALE, SKY, canvas, wrap

MOST_NODES = 25
LETTER = 0.066  # inches across a letter of a node's name
COLUMNS, LINE = 2, 0.16  # of the list of names on a phone; inches from line to line
NO_GRAPH = "This model has no graph of events."


class Edge(NamedTuple):
    """`share` of event `start` in what event `end` receives."""

    start: int
    end: int
    share: float


class EventGraph(NamedTuple):
    """A scene's or a clip's events and their strongest relations.

    names       the events drawn, in the order of the model's columns
    activation  the probability of each, 0 to 1
    edges       the strongest, strongest first; none from an event to itself
    even        what every share would be if all events counted alike
    of          how many events the model has
    """

    title: str
    names: tuple[str, ...]
    activation: tuple[float, ...]
    edges: tuple[Edge, ...]
    even: float
    of: int
    note: str


def scene_graph(analysis: Analysis, scene: str, edges: int = 30) -> EventGraph:
    """The mean over the clips of a true scene. Raises ValueError for a scene the model does not know."""
    if scene not in analysis.scenes:
        raise ValueError(f"scene {scene!r} is not one of: {', '.join(analysis.scenes)}")
    at = analysis.scenes.index(scene)
    clips = analysis.arrays["scene"] == at
    return _graph(analysis, "relation", at, f"{scene}, {int(clips.sum()):,} clips", clips, edges)


def clip_graph(analysis: Analysis, place: int, edges: int = 30) -> EventGraph:
    """One of the clips of `relation_clip`."""
    if "relation_clip" not in analysis.arrays:
        return _empty(NO_GRAPH)
    number = int(analysis.arrays["relation_clip"][place])
    clips = analysis.arrays["clip"] == number
    truth = int(analysis.arrays["scene"][clips][0])
    title = f"clip {number} of {analysis.scenes[truth]}"
    return _graph(analysis, "clip_relation", place, title, clips, edges)


def scenes_to_draw(analysis: Analysis) -> list[str]:
    """The scene whose clips are answered best and the one answered worst; one where there is but one."""
    right = analysis.predicted == analysis.arrays["scene"]
    recall = {
        scene: float(right[analysis.arrays["scene"] == at].mean())
        for at, scene in enumerate(analysis.scenes)
        if (analysis.arrays["scene"] == at).any()
    }
    ordered = sorted(recall, key=lambda scene: -recall[scene])
    return list(dict.fromkeys([*ordered[:1], *ordered[-1:]]))


def clips_of(analysis: Analysis, scenes: Sequence[str]) -> list[int]:
    """Places in `relation_clip` of the clips of these scenes."""
    numbers = analysis.arrays.get("relation_clip", np.zeros(0, np.int64))
    truth = dict(zip(analysis.arrays["clip"].tolist(), analysis.arrays["scene"].tolist()))
    return [at for at, clip in enumerate(numbers.tolist()) if analysis.scenes[truth[clip]] in scenes]


def _graph(
    analysis: Analysis, array: str, place: int, title: str, clips: np.ndarray, most: int
) -> EventGraph:
    probabilities = analysis.event_probabilities()
    if array not in analysis.arrays or probabilities is None:
        return _empty(NO_GRAPH)
    shares = analysis.arrays[array][place].astype(np.float64)
    if not clips.any() or not np.isfinite(shares).all():
        return _empty(f"There is no clip of {title.split(',')[0]}.")
    active = probabilities[clips].mean(0)
    kept = np.sort(np.argsort(-active, kind="stable")[:MOST_NODES])
    among = shares[np.ix_(kept, kept)]
    np.fill_diagonal(among, -1.0)
    cells = np.argsort(-among, axis=None, kind="stable")[: min(most, len(kept) * (len(kept) - 1))]
    return EventGraph(
        title,
        tuple(analysis.events[i] for i in kept),
        tuple(float(active[i]) for i in kept),
        tuple(
            Edge(int(start), int(end), float(among[end, start]))
            for end, start in zip(*np.unravel_index(cells, among.shape))
        ),
        1 / len(shares),
        len(shares),
        "",
    )


def _empty(note: str) -> EventGraph:
    return EventGraph("", (), (), (), 0.0, 0, note)


def draw_graph(info: EventGraph, width: float) -> Figure:
    """Events on an oval, larger and darker the more probable; an arrow leads to the event that receives,
    thicker and darker the larger its share among those drawn. Where there is no room for names beside the
    nodes, the nodes are numbered and a list names them."""
    beside = width > 5
    labels = (
        [wrap(name, 18, 2) for name in info.names] if beside else [str(i + 1) for i in range(len(info.names))]
    )
    longest = max((len(line) for label in labels for line in label.split("\n")), default=0)
    aside, above = LETTER * longest + 0.3, 0.55 if beside else 0.36  # inches around the oval for names
    rows = 0 if beside else -(-len(info.names) // COLUMNS)
    across = (width - 2 * aside - 0.2) / 2
    along = min(across, 2.2)
    graph_height, list_height = 2 * (along + above), LINE * rows
    figure = canvas(width, graph_height + list_height + 0.4)
    figure.set_layout_engine("none")  # everything has its place in inches
    axes = figure.add_axes(
        (0, list_height / figure.get_figheight(), 1, graph_height / figure.get_figheight())
    )
    axes.set(xlim=(-width / 2, width / 2), ylim=(-graph_height / 2, graph_height / 2))  # in inches
    axes.axis("off")
    figure.suptitle(
        wrap(info.title, int(width / 0.09), 2), x=0.02, ha="left", fontsize=9.5, fontweight="bold"
    )
    places = [(across * x, along * y) for x, y in _circle(len(info.names))]
    _draw_edges(axes, info, places)
    strongest = max(info.activation, default=0.0) or 1.0
    for (x, y), label, activation in zip(places, labels, info.activation):
        share = activation / strongest
        radius = 0.035 + 0.07 * math.sqrt(share)
        colour = _mixed(SKY, BLUE, share)
        axes.add_patch(Circle((x, y), radius, facecolor=colour, edgecolor="white", lw=0.8, zorder=3))
        _name(axes, x / across, y / along, (x, y), label)
    if rows:
        _list(figure, info.names, rows)
    return figure


def _list(figure: Figure, names: Sequence[str], rows: int) -> None:
    """The numbers' names below, in COLUMNS columns."""
    width, height = figure.get_size_inches()
    characters = int(width / COLUMNS / 0.068) - 4
    for i, name in enumerate(names):
        column, row = divmod(i, rows)
        said = f"{i + 1}  {wrap(name, characters, 1)}"
        figure.text(
            0.03 + column / COLUMNS, (LINE * (rows - row) - 0.1) / height, said, fontsize=7.5, va="center"
        )


def _circle(count: int) -> list[tuple[float, float]]:
    """From the top, clockwise."""
    angles = [math.pi / 2 - 2 * math.pi * i / max(count, 1) for i in range(count)]
    return [(math.cos(a), math.sin(a)) for a in angles]


def _draw_edges(axes: Axes, info: EventGraph, places: Sequence[tuple[float, float]]) -> None:
    shares = [edge.share for edge in info.edges]
    low, high = min(shares, default=0.0), max(shares, default=0.0)
    for edge in reversed(info.edges):  # the strongest on top
        depth = (edge.share - low) / (high - low) if high > low else 1.0
        axes.add_patch(
            FancyArrowPatch(
                places[edge.start],
                places[edge.end],
                connectionstyle="arc3,rad=0.18",
                arrowstyle="-|>",
                mutation_scale=6 + 3 * depth,
                shrinkA=6,
                shrinkB=7,
                linewidth=0.5 + 1.3 * depth,
                color=_mixed(PALE, INK, depth),
                zorder=1 + depth,
            )
        )


def _name(axes: Axes, x: float, y: float, place: tuple[float, float], label: str) -> None:
    """Outside of the oval beside its node; `x` and `y` say where on a circle that is."""
    across = "left" if x > 0.12 else "right" if x < -0.12 else "center"
    along = "bottom" if y > 0.97 else "top" if y < -0.97 else "center"
    at = (place[0] + 0.16 * x, place[1] + 0.16 * y + 0.05 * y * abs(y))
    axes.text(*at, label, ha=across, va=along, fontsize=7.5, linespacing=0.95)


def _mixed(light: str, deep: str, share: float) -> tuple[float, ...]:
    pair = [[int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)] for colour in (light, deep)]
    return tuple(a + (b - a) * share for a, b in zip(*pair))
