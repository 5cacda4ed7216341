"""What runs cost: time of CPUs and GPUs, parameters, multiply-accumulates; how well machines were used."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple

import pandas as pd

from reports import units
from reports.collect import Study

if TYPE_CHECKING:
    from reports.figures.timeline import Timeline  # drawing loads matplotlib, sentences do not need it


class Reserved(NamedTuple):
    """What one run holds while it trains."""

    cpus: float
    gpus: float

    @property
    def device(self) -> str:
        """The dearer of the two, whose hours are counted: "GPU" or "CPU"."""
        return "GPU" if self.gpus else "CPU"

    def hours(self, seconds: float) -> float:
        """GPU-hours of a run of `seconds`, CPU-hours where it has no GPU; NaN for an unknown time."""
        return (self.gpus or self.cpus) * seconds / 3600


class Cost(NamedTuple):
    """One configuration at full length: `seconds` and `hours` are means over its runs; NaN where unknown.

    macs   multiply-accumulates of one clip
    """

    parameters: float
    macs: float
    seconds: float
    hours: float
    device: str


def reserved(study: Study) -> Reserved:
    """CPUs and GPUs of one run, from the study's request; one CPU where it does not say."""
    request = study.record.get("request") or {}
    hardware = study.record.get("hardware") or {}
    workers = float(request.get("workers_per_trial") or 1)
    gpus = request.get("gpus_per_trial")
    on_gpus = float(bool(hardware.get("gpus"))) if gpus is None else float(gpus)
    return Reserved(workers * float(request.get("cpus_per_trial") or 1), workers * on_gpus)


def of_runs(study: Study, runs: pd.DataFrame) -> Cost:
    """The cost of one configuration from its runs of the same length."""
    held = reserved(study)
    seconds = float(runs["seconds"].mean()) if len(runs) else math.nan
    macs = _first(runs, "macs")
    return Cost(_first(runs, "parameters"), macs, seconds, held.hours(seconds), held.device)


def _first(runs: pd.DataFrame, name: str) -> float:
    known = pd.to_numeric(runs[name], errors="coerce").dropna() if name in runs else runs.iloc[:0]
    return float(known.iloc[0]) if len(known) else math.nan


def by_trial(study: Study, phase: str) -> Mapping[int, Cost]:
    """The cost of every configuration from its finished full-length runs in a phase; its multiply-accumulates
    from any of its runs, for a search counts them once, before the first."""
    runs = study.runs
    good = runs[(runs["phase"] == phase) & (runs["state"] == "COMPLETE") & (runs["epochs"] >= study.epochs)]
    found = {int(trial): of_runs(study, group) for trial, group in good.groupby("trial")}
    return {
        trial: one
        if math.isfinite(one.macs)
        else one._replace(macs=_first(runs[runs["trial"] == trial], "macs"))
        for trial, one in found.items()
    }


def total_hours(study: Study) -> str:
    """ "5.2 GPU-hours", of all runs whatever became of them; "" while no time is known."""
    held, seconds = reserved(study), float(study.runs["seconds"].sum())
    return f"{hours(held.hours(seconds))} {held.device}-hours" if seconds > 0 else ""


def hours(value: float) -> str:
    """Hours with two significant digits: "0.0078", "0.35", "12", "1,240"; "–" when unknown."""
    if not math.isfinite(value):
        return units.NONE
    if value >= 10:
        return f"{value:,.0f}"
    places = 1 if value >= 1 else 2 if value >= 0.1 else 3 if value >= 0.01 else 4
    return f"{value:.{places}f}"


def used(line: Timeline) -> str:
    """How much of the machines' time runs were at work, and how long nothing ran; "" when unknown."""
    if line.note or not math.isfinite(line.utilisation):
        return ""
    span = max(bar.end for bar in line.bars)
    text = (
        f"Runs were at work {100 * line.utilisation:.0f} % of the time of {units.plural(line.slots, 'place')}"
    )
    if line.idle > 0.01 * span:
        text += f", leaving aside {units.duration(line.idle)} in which nothing ran"
    return text + f", over {units.duration(span)}."
