"""Metrics and numbers as the page writes them: names, units, decimals, and "–" for what is not known."""

from __future__ import annotations

import math
from datetime import datetime
from typing import Any, NamedTuple

import numpy as np

NONE = "–"
MINUS = "−"

SHARES = {
    "scene_accuracy": "scene accuracy",
    "scene_accuracy_macro": "scene accuracy (mean over scenes)",
    "svm_accuracy": "scene accuracy of the SVM",
    "event_map": "event mAP",
    "event_auc": "event AUC",
    "event_auc_per_clip": "event AUC (mean over clips)",
    "scene_f_macro": "scene F-score (mean over scenes)",
    "frame_f_micro": "event F-score over frames",
    "frame_f_macro": "event F-score over frames (mean over events)",
    "segment_f_micro": "event F-score over segments of 1 s",
    "segment_f_macro": "event F-score over segments of 1 s (mean over events)",
    "event_lwlrap": "event lwlrap",
}
OF_AN_EVENT = {"frame_f": "F-score over frames of"}
SPLITS = {"train": "training", "val": "validation", "test": "test"}


class Scale(NamedTuple):
    """How a metric is written: `value * factor` followed by `unit`.

    label "scene accuracy", split "validation"; unit "%" or "" (loss terms); points names a difference's unit
    """

    label: str
    split: str
    factor: float
    unit: str
    points: str


def scale(metric: str) -> Scale:
    """The scale of "val/scene_accuracy", "test/event_map", "val/loss", …"""
    split, _, name = metric.rpartition("/")
    head = split.split("/", 1)[0]
    if name in SHARES:
        return Scale(SHARES[name], SPLITS.get(head, head), 100.0, "%", "points")
    if (kind := split.split("/", 1)[-1]) in OF_AN_EVENT:
        return Scale(f"{OF_AN_EVENT[kind]} {name}", SPLITS.get(head, head), 100.0, "%", "points")
    label = metric.split("/", 1)[-1].replace("_", " ")
    return Scale(label, SPLITS.get(head, head), 1.0, "", "")


def number(value: float | None, decimals: int = 1, *, sign: bool = False) -> str:
    """A plain number with a true minus; "–" for None, NaN and infinities."""
    if value is None or not math.isfinite(value):
        return NONE
    text = f"{value:+.{decimals}f}" if sign else f"{value:.{decimals}f}"
    if float(text) == 0:
        text = text.lstrip("+-")
    return text.replace("-", MINUS)


def score(value: float, on: Scale, decimals: int | None = None, *, unit: bool = False) -> str:
    """A metric's value in its unit: 0.8241 -> "82.4" (or "82.4 %" with `unit`), a loss -> "0.824"."""
    places = decimals if decimals is not None else (1 if on.unit else 3)
    text = number(value * on.factor, places)
    return f"{text} {on.unit}" if unit and on.unit and text != NONE else text


def interval(low: float, high: float, on: Scale, decimals: int | None = None) -> str:
    """ "81.5 to 83.3", "–" when unknown."""
    if not (math.isfinite(low) and math.isfinite(high)):
        return NONE
    return f"{score(low, on, decimals)} to {score(high, on, decimals)}"


def p_value(p: float) -> str:
    """ "0.041", "< 0.001", "–"."""
    if not math.isfinite(p):
        return NONE
    return "< 0.001" if p < 0.001 else f"{p:.3f}" if p < 0.1 else f"{p:.2f}"


def knob(value: Any) -> str:
    """A knob's value as `--set` reads it: 2.0 -> "2", 1e-05 -> "1e-05", True -> "true", None -> "none"."""
    if value is None or (isinstance(value, float | np.floating) and math.isnan(value)):
        return "none"
    if isinstance(value, bool | np.bool_):
        return "true" if value else "false"
    if isinstance(value, int | float | np.number):
        plain = float(value)
        if math.isfinite(plain) and plain == int(plain) and abs(plain) < 1e15:
            return str(int(plain))
        return repr(plain)
    return str(value)


def short_knob(value: Any) -> str:
    """As `knob`, floats rounded to three significant digits: for tables and labels, not for commands."""
    if isinstance(value, float | np.floating) and math.isfinite(value) and value != int(value):
        return f"{value:.3g}"
    return knob(value)


def count(value: float) -> str:
    """ "297,349"; "–" when unknown."""
    return f"{int(value):,}" if math.isfinite(value) else NONE


def size(value: float) -> str:
    """A number of parameters: "297 k", "160.2 M"."""
    if not math.isfinite(value):
        return NONE
    for limit, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= limit:
            amount = value / limit
            return f"{amount:.0f} {unit}" if amount >= 100 else f"{amount:.1f} {unit}"
    return str(int(value))


def duration(seconds: float) -> str:
    """ "4 h 10 min", "2 min 5 s", "0.8 s"."""
    if not math.isfinite(seconds) or seconds < 0:
        return NONE
    if seconds < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s" if rest else f"{minutes} min"
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours} h {minutes} min" if minutes else f"{hours} h"


def instant(text: Any) -> str:
    """An ISO 8601 time as "2026-11-20 20:33 UTC"; any other text comes back as it was, nothing as "–"."""
    if not text:
        return NONE
    try:
        moment = datetime.fromisoformat(str(text))
    except ValueError:
        return str(text)
    zone = moment.strftime("%z")
    offset = {"": "", "+0000": " UTC"}.get(zone, f" {zone[:3]}:{zone[3:]}" if zone else "")
    return moment.strftime("%Y-%m-%d %H:%M") + offset


def titled(on: Scale) -> str:
    """ "test scene accuracy (%)": a panel's title."""
    return f"{on.split} {on.label}" + (f" ({on.unit})" if on.unit else "")


def cited(tables: str) -> str:
    """Where a paper has it, by the name that --table takes: "VII" -> "Table VII", "3 and 4" -> "Tables 3 and
    4", "fig2" -> "Fig. 2"."""
    names = tables.split(" and ")
    drawn = [name.removeprefix("fig") for name in names]
    word = "Table" if drawn == names else "Fig."
    plural_word = {"Table": "Tables", "Fig.": "Figs."}[word]
    return f"{word if len(names) == 1 else plural_word} {' and '.join(drawn)}"


def plural(n: int, noun: str) -> str:
    """ "1 run", "5 runs"."""
    return f"{n:,} {noun}" if n == 1 else f"{n:,} {noun}s"
