"""How every figure looks: palette, type, sizes, long names, and the PNG in two widths (page and phone)."""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

# Okabe & Ito's colour-blind-safe palette; ink and greys for everything that is not data.
BLUE, SKY, VERMILLION, ORANGE, GREEN = "#0072B2", "#56B4E9", "#D55E00", "#E69F00", "#009E73"
INK, GREY, PALE, RULE = "#1f2933", "#6b7480", "#b8bfc7", "#e3e7eb"

WIDE, NARROW = 7.5, 3.75  # inches; one inch is 96 CSS pixels on the page, so type keeps its size on a phone
DPI = 192
COLOURS = 128

STYLE: Any = {
    "font.family": "DejaVu Sans",
    "font.size": 9.0,
    "axes.labelsize": 9.0,
    "axes.titlesize": 9.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.labelcolor": GREY,
    "axes.edgecolor": PALE,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "text.color": INK,
    "xtick.color": PALE,
    "ytick.color": PALE,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "xtick.labelsize": 8.5,
    "ytick.labelsize": 8.5,
    "text.parse_math": False,  # names are data: a "$x$" in one is not a formula
    "figure.facecolor": "white",
    "figure.constrained_layout.use": True,
    "figure.constrained_layout.h_pad": 0.06,
    "figure.constrained_layout.w_pad": 0.06,
}


class Rendering(NamedTuple):
    """One figure as two PNGs: for a page about 720 CSS pixels wide, and for a phone."""

    wide: bytes
    narrow: bytes


@contextmanager
def styled() -> Iterator[None]:
    """The style, and silence about glyphs the font lacks (they show as boxes; the tables have the text)."""
    with mpl.rc_context(STYLE), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        yield


def render(draw: Callable[[Any, float], Figure], info: Any) -> Rendering:
    """Draw `info` at both widths."""
    return Rendering(_png(draw, info, WIDE), _png(draw, info, NARROW))


def _png(draw: Callable[[Any, float], Figure], info: Any, width: float) -> bytes:
    with styled():
        figure = draw(info, width)
        figure.set_dpi(DPI)
        ink = FigureCanvasAgg(figure)
        ink.draw()
        whole = Image.fromarray(np.asarray(ink.buffer_rgba())).convert("RGB")
    # A third of the bytes. The default method gives rare colours up: a lone red mark would turn grey.
    few = whole.quantize(COLOURS, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE)
    small = io.BytesIO()
    few.save(small, format="png")  # a tenth more bytes than `optimize`, in a tenth of the time
    return small.getvalue()


def canvas(width: float, height: float) -> Figure:
    """An empty figure of `width` × `height` inches that belongs to no window."""
    return Figure(figsize=(width, height))


def grid(axes: Axes, axis: str) -> None:
    """Hair lines across the axis along which values are read."""
    axes.grid(axis=axis, color=RULE, linewidth=0.8)  # type: ignore[arg-type]
    axes.tick_params(length=0)


def bare(axes: Axes) -> None:
    """No frame at all: for rows of names."""
    for spine in axes.spines.values():
        spine.set_visible(False)


def wrap(name: str, width: int, lines: int = 6) -> str:
    """A name broken after spaces, underscores, hyphens and slashes into lines of at most `width` characters.

    Pieces without a break are cut hard; what does not fit into `lines` lines ends with "…".
    """
    pieces = re.findall(r"[^\s_\-/.,;:]+[\s_\-/.,;:]*|[\s_\-/.,;:]+", " ".join(name.split()))
    short = [piece[i : i + width] for piece in pieces for i in range(0, len(piece), width)]
    rows: list[str] = []
    for piece in short:
        if rows and len((rows[-1] + piece).rstrip()) <= width:
            rows[-1] += piece
        else:
            rows.append(piece)
    rows = [row.rstrip() for row in rows] or [""]
    if len(rows) > lines:
        rows = [*rows[: lines - 1], rows[lines - 1][: width - 1] + "…"]
    return "\n".join(rows)


def longest_line(labels: list[str]) -> int:
    """Characters in the longest line of all labels."""
    return max((len(line) for label in labels for line in label.split("\n")), default=0)
