"""Names beside points, none over another: greedy, in the order given; what finds no room stays without."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

LETTER, LINE = 0.62, 1.25  # a letter's width and a line's height, in type sizes
RINGS = (0.0, 0.1, 0.22, 0.36)  # inches from a mark's edge to its name
DIRECTIONS = tuple((math.cos(a), math.sin(a)) for a in np.arange(8) * math.pi / 4)


class Box(NamedTuple):
    """Where a name lies, in inches from the lower left; `far` says that it needs a line to its point."""

    left: float
    bottom: float
    right: float
    top: float
    far: bool

    @property
    def middle(self) -> tuple[float, float]:
        return (self.left + self.right) / 2, (self.bottom + self.top) / 2


def place(
    anchors: Sequence[tuple[float, float]],
    names: Sequence[str],
    sizes: Sequence[float],
    page: tuple[float, float],
    points: np.ndarray,
    gaps: Sequence[float] = (),
    *,
    centred: bool = False,
) -> list[Box | None]:
    """A box for each name (`sizes` in points) on a page (inches), near its anchor, over as few `points`
    (N, 2) as possible; None where every place near it is taken. `gaps`: inches from an anchor to its mark's
    edge, 0 by default.

    centred  the anchor itself is the first choice: for names of clouds
    """
    taken: list[Box] = []
    found: list[Box | None] = []
    for anchor, name, size, gap in zip(anchors, names, sizes, gaps or [0.0] * len(names)):
        lines = name.split("\n")
        extent = (max(map(len, lines)) * size * LETTER / 72, len(lines) * size * LINE / 72)
        best, least = None, math.inf
        for cost, box in _candidates(anchor, extent, gap, centred):
            if box.left < 0 or box.bottom < 0 or box.right > page[0] or box.top > page[1]:
                continue
            if any(_touch(box, other) for other in taken):
                continue
            total = cost + (0.0 if centred else _covered(box, points))
            if total < least:
                best, least = box, total
        if best:
            taken.append(best)
        found.append(best)
    return found


def _candidates(
    anchor: tuple[float, float], extent: tuple[float, float], gap: float, centred: bool
) -> list[tuple[float, Box]]:
    x, y = anchor
    width, height = extent
    boxes = [(0.0, _around(x, y, width, height, far=False))] if centred else []
    for number, ring in enumerate(RINGS):
        for dx, dy in DIRECTIONS:
            at = (x + dx * (gap + ring + width / 2), y + dy * (gap + ring + height / 2))
            boxes.append((3.0 * number + 0.5 * (dx < 0), _around(*at, width, height, far=number > 0)))
    return boxes


def _around(x: float, y: float, width: float, height: float, *, far: bool) -> Box:
    return Box(x - width / 2, y - height / 2, x + width / 2, y + height / 2, far)


def _touch(a: Box, b: Box) -> bool:
    return a.left < b.right and b.left < a.right and a.bottom < b.top and b.bottom < a.top


def _covered(box: Box, points: np.ndarray) -> float:
    x, y = points[:, 0], points[:, 1]
    return float(((x > box.left) & (x < box.right) & (y > box.bottom) & (y < box.top)).sum())
