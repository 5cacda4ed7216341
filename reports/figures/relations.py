"""What a model has learned of scenes and events: Hou et al. 2023, Fig. 5 and the coupling matrix."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.figure import Figure
from scipy import stats

from reports import units
from reports.analysis import Analysis
from reports.drawing import WIDE, wrap
from reports.figures import matrix

NO_EVENTS = "This model has no event branch, so there are no event probabilities to compare."


class Pair(NamedTuple):
    """Two scenes, their overall difference, and the event that differs most, by `gap`: more in `more`."""

    first: int
    second: int
    difference: float
    event: int
    gap: float

    @property
    def more(self) -> int:
        return self.first if self.gap >= 0 else self.second


class SceneDifferences(NamedTuple):
    """Fig. 5 (c): how far the scenes' mean event probabilities lie apart, Σ over events of the distance.

    matrix  (S, S) symmetric, 0 on the diagonal, NaN for a scene that no clip was taken for
    pairs   every pair of scenes once, the most different first
    clips   how many clips were taken for each scene
    agreement  Spearman's ρ of difference and confusion over the pairs; NaN where it cannot be said
    """

    scenes: tuple[str, ...]
    events: tuple[str, ...]
    matrix: tuple[tuple[float, ...], ...]
    pairs: tuple[Pair, ...]
    clips: tuple[int, ...]
    agreement: float
    note: str


def profiles(analysis: Analysis) -> tuple[np.ndarray, np.ndarray] | None:
    """Mean event probabilities (S, E) of the clips *taken for* each scene, and their number (S,).

    As the paper has it ("audio clips classified in each scene class"), the model's answer groups the clips,
    not the label. NaN for a scene without clips; None without an event branch.
    """
    probabilities = analysis.event_probabilities()
    if probabilities is None:
        return None
    taken_for = np.eye(len(analysis.scenes))[analysis.predicted]  # (N, S)
    clips = taken_for.sum(axis=0)
    sums = taken_for.T @ probabilities
    means = np.divide(sums, clips[:, None], out=np.full(sums.shape, math.nan), where=clips[:, None] > 0)
    return means, clips.astype(int)


def scene_differences(analysis: Analysis) -> SceneDifferences:
    """Which scenes differ most by their events, and by which event above all."""
    empty = SceneDifferences(analysis.scenes, analysis.events, (), (), (), math.nan, NO_EVENTS)
    found = profiles(analysis)
    if found is None:
        return empty
    means, clips = found
    gaps = means[:, None, :] - means[None, :, :]  # (S, S, E)
    overall = np.abs(gaps).sum(axis=2)
    pairs = []
    for i, j in zip(*np.triu_indices(len(means), 1)):
        if math.isfinite(overall[i, j]):
            event = int(np.abs(gaps[i, j]).argmax())
            pairs.append(Pair(int(i), int(j), float(overall[i, j]), event, float(gaps[i, j, event])))
    pairs.sort(key=lambda pair: -pair.difference)
    if not pairs:
        taken = ", ".join(name for name, n in zip(analysis.scenes, clips) if n) or "no scene"
        return empty._replace(
            note=f"Every clip was taken for {taken}, so there are no two scenes to compare."
        )
    return SceneDifferences(
        analysis.scenes,
        analysis.events,
        tuple(tuple(float(v) for v in row) for row in overall),
        tuple(pairs),
        tuple(int(n) for n in clips),
        _agreement(pairs, confusions(analysis)),
        "",
    )


def confusions(analysis: Analysis) -> np.ndarray:
    """(S, S) counts, rows = truth; clips of unknown scene are left out."""
    size, truth = len(analysis.scenes), analysis.arrays["scene"]
    known = truth >= 0
    cells = truth[known] * size + analysis.predicted[known]
    return np.bincount(cells, minlength=size * size).reshape(size, size)


def _agreement(pairs: Sequence[Pair], counts: np.ndarray) -> float:
    """Spearman's ρ between a pair's difference and the share of its clips taken for the other."""
    clips = counts.sum(axis=1)
    both = [p for p in pairs if clips[p.first] + clips[p.second]]
    mixed = [
        (counts[p.first, p.second] + counts[p.second, p.first]) / (clips[p.first] + clips[p.second])
        for p in both
    ]
    return spearman([p.difference for p in both], mixed)


def spearman(x: Sequence[float] | np.ndarray, y: Sequence[float] | np.ndarray) -> float:
    """Spearman's ρ over the pairs that are both finite; NaN for fewer than five or without variation."""
    x, y = np.asarray(x, float).ravel(), np.asarray(y, float).ravel()
    good = np.isfinite(x) & np.isfinite(y)
    x, y = x[good], y[good]
    if len(x) < 5 or np.ptp(x) == 0 or np.ptp(y) == 0:
        return math.nan
    return float(stats.spearmanr(x, y).statistic)


def draw_scene_differences(info: SceneDifferences, width: float) -> Figure:
    """Lower triangle: the difference; upper: the event behind it, where cells are wide enough for a name."""
    wide = width >= WIDE
    values = np.asarray(info.matrix)
    apart = [pair.difference for pair in info.pairs]
    top = apart[0] or 1.0
    pale = max(0.0, apart[-1] - 0.3 * (apart[0] - apart[-1]))  # all far apart: the shades still differ
    rows = [wrap(name, 18 if wide else 12) for name in info.scenes]
    if wide:
        rows = [f"{row}  ({n:,})" for row, n in zip(rows, info.clips)]
    found = matrix.sheet(
        width, rows, info.scenes, values, lines=3 if wide else 1, cmap="Blues", vmin=pale, vmax=top
    )
    letters = int(found.cell / 0.058)
    names = letters >= 6
    decimals = 2 if top < 10 else 1
    for pair in info.pairs:
        depth = (pair.difference - pale) / (top - pale) if top > pale else 0.0
        if found.cell > 0.2:
            said = units.number(pair.difference, decimals if wide else 1)
            matrix.write(found.axes, pair.second, pair.first, said, depth, fontsize=7 if wide else 6)
        if names:
            event = wrap(info.events[pair.event], letters, 3)
            matrix.write(found.axes, pair.first, pair.second, event, depth, fontsize=6.5)
    return found.figure


class EventDifference(NamedTuple):
    """Fig. 5 (a), (b): an event's mean probability in the row's scene less that in the column's, (S, S).

    largest  (row, column) of the largest difference, row above column
    """

    event: str
    scenes: tuple[str, ...]
    matrix: tuple[tuple[float, ...], ...]
    clips: tuple[int, ...]
    largest: tuple[int, int]
    note: str


def event_differences(
    analysis: Analysis, events: Sequence[str] = (), most: int = 2
) -> tuple[EventDifference, ...]:
    """Those of the events named; by default of `most` events, those with the largest difference of two scenes
    of which no two are largest between the same two.

    Raises ValueError for an event that is not one of the model's.
    """
    unknown = [name for name in events if name not in analysis.events]
    if unknown:
        raise ValueError(f"event {unknown[0]!r} is not one of the {len(analysis.events)} the model knows")
    found = profiles(analysis)
    if found is None:
        return (EventDifference("", analysis.scenes, (), (), (0, 0), NO_EVENTS),)
    means, clips = found
    if (clips > 0).sum() < 2:
        return ()
    chosen = [analysis.events.index(name) for name in events] or _telling(means, most)
    return tuple(_event_difference(analysis, means[:, e], clips, e) for e in chosen)


def _telling(means: np.ndarray, most: int) -> list[int]:
    """The events with the largest difference of two scenes, each of two other scenes."""
    best: dict[frozenset[int], int] = {}
    for event in np.argsort(np.nanmin(means, axis=0) - np.nanmax(means, axis=0), kind="stable"):
        scenes = {int(np.nanargmax(means[:, event])), int(np.nanargmin(means[:, event]))}
        if len(scenes) == 2:
            best.setdefault(frozenset(scenes), int(event))
    return list(best.values())[:most]


def _event_difference(analysis: Analysis, mean: np.ndarray, clips: np.ndarray, event: int) -> EventDifference:
    gaps = mean[:, None] - mean[None, :]
    row, column = divmod(int(np.nanargmax(gaps)), len(mean))
    return EventDifference(
        analysis.events[event],
        analysis.scenes,
        tuple(tuple(float(v) for v in line) for line in gaps),
        tuple(int(n) for n in clips),
        (row, column),
        "",
    )


def draw_event_difference(info: EventDifference, width: float) -> Figure:
    wide = width >= WIDE
    values = 100 * np.asarray(info.matrix)
    top = float(np.nanmax(np.abs(values))) or 1.0
    rows = [wrap(name, 18 if wide else 12) for name in info.scenes]
    found = matrix.sheet(width, rows, info.scenes, values, cmap="RdBu_r", vmin=-top, vmax=top)
    found.axes.set_xlabel("less in this scene")
    found.axes.set_ylabel("more in this scene")
    decimals = 0 if top >= 10 else 1 if top >= 1 else 2
    if found.cell > 0.3 or (found.cell > 0.2 and decimals == 0):
        for row, column in zip(*np.nonzero(np.isfinite(values))):
            if row != column:
                bold = "bold" if (row, column) == info.largest else "normal"
                said = units.number(float(values[row, column]), decimals, sign=wide)
                depth = abs(values[row, column]) / top
                matrix.write(
                    found.axes, row, column, said, depth - 0.1, fontsize=7 if wide else 6, fontweight=bold
                )
    return found.figure


class Coupling(NamedTuple):
    """The coupling W_se = W_s · W_eᵀ, rows = the events shown, columns = scenes.

    hidden     events left out: shown are those with the strongest coupling to some scene
    agreement  Spearman's ρ over all pairs of the coupling and the share of the scene's clips labelled with
               the event; NaN without labels
    """

    scenes: tuple[str, ...]
    events: tuple[str, ...]
    matrix: tuple[tuple[float, ...], ...]
    hidden: int
    agreement: float
    note: str


def coupling(analysis: Analysis, most: int = 24) -> Coupling:
    """The coupling of the `most` events that couple strongest with some scene, grouped by that scene."""
    if "coupling" not in analysis.arrays:
        return Coupling(analysis.scenes, (), (), 0, math.nan, "This model has no coupling matrix.")
    values = analysis.arrays["coupling"].astype(np.float64)
    shown = strongest(values, most)
    shown.sort(key=lambda e: (int(values[:, e].argmax()), -values[:, e].max()))
    return Coupling(
        analysis.scenes,
        tuple(analysis.events[e] for e in shown),
        tuple(tuple(float(v) for v in values[:, e]) for e in shown),
        values.shape[1] - len(shown),
        spearman(values, analysis.arrays["event_share"]),
        "",
    )


def strongest(values: np.ndarray, most: int) -> list[int]:
    """Events in turn: every scene's first choice, every scene's second, … until there are `most`."""
    order = np.argsort(-values, axis=1, kind="stable")
    return list(dict.fromkeys(int(event) for choice in order.T for event in choice))[:most]


def draw_coupling(info: Coupling, width: float) -> Figure:
    wide = width >= WIDE
    values = np.asarray(info.matrix)
    top = float(np.abs(values).max()) or 1.0
    rows = [wrap(name, 28 if wide else 14, 2) for name in info.events]
    found = matrix.sheet(width, rows, info.scenes, values, tallest=0.3, cmap="RdBu_r", vmin=-top, vmax=top)
    decimals = 0 if top >= 20 else 1 if top >= 2 else 2
    if found.cell > 0.3:
        for (row, column), value in np.ndenumerate(values):
            strongest_here = value == values[row].max()
            matrix.write(
                found.axes,
                row,
                column,
                units.number(float(value), decimals),
                abs(value) / top - 0.1,
                fontweight="bold" if strongest_here else "normal",
            )
    return found.figure
