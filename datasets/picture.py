"""P(event | scene) of a shard set as a picture: one row an event, one column a scene. Or how often an event
begins in the clips of a scene, as in Fig. 1 of Imoto et al. 2022.

`relation` and `occurrences` choose what is shown (numbers and words only), `draw` puts it on paper. Of more
events than fit, the ones with the highest probability (or count) accumulated over the scenes are shown, ties
by class index, and the title says so. Without scenes there is one column: all clips.
"""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from datasets.labels import LabelSpace

if TYPE_CHECKING:
    from datasets.inspect import Contents

MOST_EVENTS = 50
MOST_NUMBERS = 12  # columns up to which the cells have room for their numbers
SUFFIXES = (".png", ".pdf", ".svg")


class Relation(NamedTuple):
    """`share` (events, scenes) are probabilities, or counts; the events in descending order of their sum."""

    title: str
    scenes: tuple[str, ...]
    events: tuple[str, ...]
    share: np.ndarray
    counts: bool = False


def check_picture(path: Path, labels: LabelSpace) -> None:
    """Raises ValueError or OSError when no picture can be written there, or a set with these labels has
    none."""
    if path.suffix.lower() not in SUFFIXES:
        raise ValueError(f"--picture {path}: accepted are {', '.join(SUFFIXES)}")
    if not path.parent.is_dir():
        raise FileNotFoundError(f"--picture {path}: no folder {path.parent}")
    if not labels.events:
        raise ValueError("--picture: the set has no event labels, so there is no P(event | scene)")


def relation(
    labels: LabelSpace, found: Contents, split: str, corpus: str, most: int = MOST_EVENTS
) -> Relation:
    """What the picture shows of a split, of a set with events."""
    if labels.scenes:
        scenes, share = labels.scenes, found.given_scene()
        what = f"P(event | scene) in %, {corpus}, {split}"
    else:
        known = max(found.clips - found.unknown_events, 1)
        scenes, share = ("all clips",), (found.events / known)[None]
        what = f"P(event) in %, {corpus}, {split} (no scenes)"
    return _largest(Relation(what, scenes, labels.events, share.T), "probability", most)


def occurrences(
    labels: LabelSpace, found: Mapping[str, Contents], corpus: str, most: int = MOST_EVENTS
) -> Relation:
    """How many instances of each event the clips of each scene hold, over all splits `found`. Raises
    ValueError for a set without scenes, or onsets."""
    if not labels.scenes or not any(c.strong for c in found.values()):
        raise ValueError("--instances: the set has no scenes with timed events, so there is nothing to count")
    counts = np.sum([c.instances for c in found.values()], axis=0)
    what = f"instances of events in the clips of a scene, {corpus}, {' + '.join(found)}"
    return _largest(Relation(what, labels.scenes, labels.events, counts.T, counts=True), "count", most)


def _largest(all_of_it: Relation, quantity: str, most: int) -> Relation:
    """The `most` events with the largest sums, the largest first; the title says what is left out."""
    title, scenes, events, share, counts = all_of_it
    order = np.argsort(-share.sum(axis=1), kind="stable")[:most]
    if len(order) < len(events):
        rest = share.sum() - share[order].sum()
        title += (
            f"\nthe {len(order)} of {len(events)} events with the highest {quantity} accumulated "
            f"over scenes; the others add {100 * rest / max(share.sum(), 1e-12):.0f} % of it"
        )
    return Relation(title, scenes, tuple(events[j] for j in order), share[order], counts)


def draw(shown: Relation, path: Path) -> None:
    """Write the picture. Raises OSError when it can't be written."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    rows, columns = shown.share.shape
    width = max(6.5, 1.0 + 0.085 * max(map(len, shown.events)) + 0.5 * columns)
    height = 1.8 + 0.08 * max(map(len, shown.scenes)) + 0.24 * rows
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    top = max(float(shown.share.max()), 1e-9)
    picture = axes.imshow(shown.share, aspect="auto", cmap="Blues", vmin=0, vmax=top, interpolation="nearest")
    axes.set_xticks(range(columns), shown.scenes, rotation=40, ha="right", rotation_mode="anchor", fontsize=9)
    axes.set_yticks(range(rows), shown.events, fontsize=9)
    axes.set_xticks(np.arange(columns + 1) - 0.5, minor=True)
    axes.set_yticks(np.arange(rows + 1) - 0.5, minor=True)
    axes.tick_params(which="both", length=0)
    axes.grid(which="minor", color="white", linewidth=1)
    axes.spines[:].set_visible(False)
    if columns <= MOST_NUMBERS:
        for row, column in np.ndindex(rows, columns):
            value = shown.share[row, column]
            colour = "white" if value > 0.6 * top else "black"
            text = f"{value:,.0f}" if shown.counts else percent(float(value), top)
            axes.text(column, row, text, ha="center", va="center", fontsize=7, color=colour)
    bar = figure.colorbar(picture, ax=axes, fraction=0.04, pad=0.02)
    bar.ax.yaxis.set_major_formatter(
        lambda value, _: f"{value:,.0f}" if shown.counts else f"{100 * value:.3g} %"
    )
    bar.outline.set_visible(False)
    lines = [part for line in shown.title.split("\n") for part in textwrap.wrap(line, int(width * 12))]
    figure.suptitle("\n".join(lines), fontsize=10, x=0.01, ha="left")
    try:
        figure.savefig(path, dpi=130)
    except OSError as error:
        path.unlink(missing_ok=True)  # half a picture
        raise OSError(error.errno, error.strerror, str(path)) from error


def percent(value: float, top: float) -> str:
    """A cell's number in %: with a decimal where all of them are small."""
    least = 0.01 if top >= 0.1 else 0.001
    if 0 < value < least / 2:
        return f"<{100 * least:g}"
    return f"{100 * value:.0f}" if top >= 0.1 else f"{100 * value:.1f}"
