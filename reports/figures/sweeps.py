"""One quantity varied, everything else fixed: scores against a knob's value within a paper's table, or
against the size of the training data across studies; or studies side by side (Parikh et al. 2022, Figs. 2 to
5)."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from scipy import stats

from reports import units
from reports.collect import Study, StudyError
from reports.drawing import BLUE, GREY, SKY, WIDE, canvas, grid, wrap
from reports.rank import differing, usable
from reports.statistics import Summary, summarise

FEWEST = 3  # points that make a sweep
SIZES = ("hours", "events")  # of the data: a score's correlation with them is what the paper quotes
LABELS = {
    "hours": "training clips of all sets, hours",
    "events": "event classes",
    "alpha": "α, the weight of the event term",
}


class Point(NamedTuple):
    """The finished runs at one value of what is varied; `name` is the value as it is written."""

    x: float
    name: str
    ours: Summary


class Line(NamedTuple):
    """A metric along the sweep.

    pearson, spearman  correlation of the points' x with their means; NaN for fewer than 3 points
    reference          mean of the table's baseline row; NaN without one
    quoted             Pearson's correlation as the paper gives it for this quantity and scene accuracy
    """

    column: str
    points: tuple[Point, ...]
    pearson: float
    spearman: float
    reference: float
    quoted: float | None = None


class Sweep(NamedTuple):
    of: str
    lines: tuple[Line, ...]
    note: str


def table_sweep(study: Study, knob: str = "") -> Sweep:
    """The table's rows along `knob`; by default along the only number that sets them apart."""
    runs = _finished(study)
    varied = {name: values for name in _varied(runs) if (values := _numbers(runs, name)) is not None}
    chosen = knob or (next(iter(varied)) if len(varied) == 1 else "")
    if chosen not in varied or len(set(varied[chosen])) < FEWEST:
        said = f"The finished rows do not have {FEWEST} values of " + (knob or "one knob that is a number")
        return Sweep(chosen, (), said + ".")
    others = [name for name in _varied(runs) if name != chosen]
    if others:
        return Sweep(chosen, (), f"The finished rows also differ in {', '.join(others)}.")
    about = study.record["table"]
    base = next((row["trial"] for row in about["rows"] if row["line"] == about["baseline"]), None)
    lines = []
    for column in _columns(about["rows"], runs):
        reference = summarise(runs.loc[runs["trial"] == base, column].tolist()).mean
        lines.append(_line(column, zip(varied[chosen], runs[column]), reference))
    return Sweep(chosen, tuple(lines), "")


def data_sweep(studies: Sequence[Study], of: str, line: int | None = None) -> Sweep:
    """The same row of the same table in several studies, along the "hours" or the "events" of their data; or
    a row of each "study" side by side, which may then differ in knobs too.

    `line` picks the row where a study has several. Raises StudyError for a study without such a row, or with
    several and no `line`, or whose row has other knobs than the first study's, and for a study given twice.
    """
    folders = [study.folder.resolve() for study in studies]
    if twice := [folder for folder in folders if folders.count(folder) > 1]:
        raise StudyError(f"{twice[0]}: given twice")
    pairs: dict[str, list[tuple[float, float]]] = {}
    first: dict[str, Any] = {}
    for place, study in enumerate(studies):
        trial, rows = _only_row(study, line)
        runs = _finished(study)
        runs = runs[runs["trial"] == trial]
        knobs = {
            str(name): runs[name].iloc[0] for name in runs.columns if name.startswith("config.") and len(runs)
        }
        first = first or knobs
        if unlike := differing([first, knobs]) if knobs and of != "study" else ():
            raise StudyError(
                f"{study.folder}: its row has another {unlike[0].removeprefix('config.')} than "
                f"{studies[0].folder}'s; only the data may differ"
            )
        x = float(place) if of == "study" else size(study, of)
        for column in _columns(rows, runs):
            pairs.setdefault(column, []).extend((x, float(value)) for value in runs[column])
    names = [str(study.record["name"]) for study in studies] if of == "study" else []
    quoted = studies[0].record["table"].get("quoted", {}).get(f"pearson_{of}")
    lines = tuple(
        _line(column, found, math.nan, names)._replace(quoted=quoted if "/scene_accuracy" in column else None)
        for column, found in pairs.items()
    )
    return Sweep(of, lines, "" if lines else "No run has finished yet.")


def size(study: Study, of: str) -> float:
    """Hours of the training split (of all sets together), or the number of event classes."""
    data = study.record["data"]
    if of == "events":
        return float(len(study.events))
    if "hours" in data:
        return float(data["hours"]["train"])
    return float(data["clips"]["train"]) * float(data["seconds"]) / 3600


def _finished(study: Study) -> pd.DataFrame:
    if not study.record.get("table"):
        raise StudyError(f"{study.folder}: not a table's study (tune_csem.py --table)")
    return usable(study.runs[study.runs["phase"] == "table"], study.epochs)


def _varied(runs: pd.DataFrame) -> list[str]:
    columns = [str(name) for name in runs.columns if str(name).startswith("config.")]
    found = differing([dict(zip(columns, values)) for values in runs[columns].to_numpy()])
    return [name.removeprefix("config.") for name in found]


def _numbers(runs: pd.DataFrame, knob: str) -> list[float] | None:
    values = runs[f"config.{knob}"].tolist()
    if all(isinstance(v, int | float | np.number) and not isinstance(v, bool | np.bool_) for v in values):
        return [float(v) for v in values] if np.isfinite(np.array(values, dtype=float)).all() else None
    return None


def _columns(rows: Iterable[Mapping[str, Any]], runs: pd.DataFrame) -> list[str]:
    """What the table's rows print and a run has measured."""
    splits = {"validation": "val"}
    names = dict.fromkeys(f"{splits.get(row['split'], row['split'])}/{row['metric']}" for row in rows)
    return [name for name in names if name in runs.columns and runs[name].notna().any()]


def _only_row(study: Study, line: int | None) -> tuple[int, list[Mapping[str, Any]]]:
    """The trial of the row asked for, and all printed lines of that trial."""
    _finished(study)
    rows = [row for row in study.record["table"]["rows"] if row["trial"] is not None]
    lines = sorted({int(row["line"]) for row in rows})
    chosen = lines[0] if line is None and len(lines) == 1 else line
    if chosen not in lines:
        said = ", ".join(map(str, lines))
        asked = f"row {line} was not run" if line is not None else "several rows were run, pick one (--row)"
        raise StudyError(f"{study.folder}: {asked}; those are {said}")
    found = [row for row in rows if row["line"] == chosen]
    return int(found[0]["trial"]), found


def _line(
    column: str, pairs: Iterable[tuple[float, float]], reference: float, names: Sequence[str] = ()
) -> Line:
    """`names`: of the x 0, 1, …, which are places then and no numbers to correlate."""
    by_x: dict[float, list[float]] = {}
    for x, value in pairs:
        if math.isfinite(value):
            by_x.setdefault(x, []).append(value)
    points = tuple(Point(x, names[int(x)] if names else f"{x:.4g}", summarise(by_x[x])) for x in sorted(by_x))
    return Line(column, points, *(correlations(points) if not names else (math.nan, math.nan)), reference)


def correlations(points: Sequence[Point]) -> tuple[float, float]:
    """(Pearson's, Spearman's) of x and the points' means; NaN for fewer than 3 points or where one of them
    does not vary."""
    x, y = [point.x for point in points], [point.ours.mean for point in points]
    if len(points) < FEWEST or len(set(x)) < 2 or len(set(y)) < 2:
        return math.nan, math.nan
    return float(stats.pearsonr(x, y).statistic), float(stats.spearmanr(x, y).statistic)


def correlated(line: Line) -> str:
    """ "Pearson 0.71 (the paper's text: 0.89)"; "" where there is none."""
    if not math.isfinite(line.pearson):
        return ""
    paper = f" (the paper's text: {units.number(line.quoted, 2)})" if line.quoted is not None else ""
    return f"Pearson {units.number(line.pearson, 2)}{paper}"


def draw_sweep(info: Sweep, width: float) -> Figure:
    """A panel a metric: means with their standard deviation, single runs as dots, the baseline dashed; along
    a size of the data with the correlation."""
    figure = canvas(width, 0.3 + 2.1 * len(info.lines))
    axes = figure.subplots(len(info.lines), 1, squeeze=False, sharex=True)[:, 0]
    for one, line in zip(axes, info.lines):
        on = units.scale(line.column)
        said = correlated(line) if info.of in SIZES else ""
        one.set_title("\n".join(filter(None, [wrap(units.titled(on), 80 if width >= WIDE else 42, 2), said])))
        grid(one, "y")
        if math.isfinite(line.reference):
            one.axhline(line.reference * on.factor, color=GREY, linewidth=1, linestyle="--", zorder=1)
        for point in line.points:
            dots = [value * on.factor for value in point.ours.values]
            one.plot([point.x] * len(dots), dots, "o", color=SKY, ms=3, alpha=0.7, zorder=2)
        x = [point.x for point in line.points]
        mean = [point.ours.mean * on.factor for point in line.points]
        spread = [point.ours.sd * on.factor if point.ours.n > 1 else 0.0 for point in line.points]
        size = 4.5 if width >= WIDE or len(x) <= 12 else 3.2  # the α of Fig. 2 lie closer from 0.9 on
        style = {"fmt": "D" if info.of == "study" else "D-", "linewidth": 1.4, "ms": size, "mec": "white"}
        one.errorbar(x, mean, spread, color=BLUE, capsize=2, zorder=3, **style)
        if info.of == "study":
            one.set_xticks(x, [wrap(point.name, 18 if width >= WIDE else 9, 3) for point in line.points])
            one.margins(x=0.2)
        elif min(x) > 0 and max(x) / min(x) >= 10:
            one.set_xscale("log")
    if info.of != "study":
        axes[-1].set_xlabel(LABELS.get(info.of, info.of))
    return figure
