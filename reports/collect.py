"""A study folder as values: what was asked, every run, every epoch, what the confirmed runs did on test."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

FORMAT = 1
STATES = ("COMPLETE", "PRUNED", "DIVERGED", "FAIL", "RUNNING")

RUN_COLUMNS = {
    "trial": "int64",
    "repeat": "int64",
    "phase": "str",
    "seed": "int64",
    "state": "str",
    "reason": "str",
    "origin": "str",
    "epochs": "int64",
    "score": "float64",
    "parameters": "float64",
    "seconds": "float64",
    "started": "str",
    "folder": "str",
}
CURVE_COLUMNS = {"trial": "int64", "repeat": "int64", "phase": "str", "epoch": "int64"}
METRICS = ("train/", "val/", "test/")
REQUIRED = ("name", "status", "family", "objective", "epochs", "data")


class StudyError(ValueError):
    """The folder cannot be read as a study; the message is one line for the person who named the folder."""


class OnTest(NamedTuple):
    """One confirmed run on the test split.

    confusion (S, S) counts, rows = truth; event_ap and event_auc (E,), NaN where test has no such event.
    """

    metrics: Mapping[str, float]
    confusion: np.ndarray
    event_ap: np.ndarray
    event_auc: np.ndarray


@dataclass(frozen=True)
class Study:
    """A study as it lies on disk.

    record  study.json      runs    one row a training     curves  one row a training and epoch
    tests   (trial, repeat) -> OnTest, for the finished confirmation runs
    """

    folder: Path
    record: Mapping[str, Any]
    runs: pd.DataFrame
    curves: pd.DataFrame
    tests: Mapping[tuple[int, int], OnTest] = field(default_factory=dict)

    @property
    def metric(self) -> str:
        """The objective's column, e.g. "val/scene_accuracy"."""
        return str(self.record["objective"]["metric"])

    @property
    def mode(self) -> str:
        """ "max" or "min"."""
        return str(self.record["objective"]["mode"])

    @property
    def test_metric(self) -> str:
        """The objective's name on the test split."""
        return "test/" + self.metric.split("/", 1)[-1]

    @property
    def epochs(self) -> int:
        """The full length of a training in epochs."""
        return int(self.record["epochs"])

    @property
    def scenes(self) -> tuple[str, ...]:
        return tuple(str(name) for name in self.record["data"].get("scenes", ()))

    @property
    def events(self) -> tuple[str, ...]:
        return tuple(str(name) for name in self.record["data"].get("events", ()))

    @property
    def test_clips(self) -> int | None:
        """How many clips the test split holds; None when the study did not write it down."""
        clips = self.record["data"].get("clips", {}).get("test")
        return int(clips) if clips else None

    @property
    def knobs(self) -> tuple[str, ...]:
        """Every knob the runs record, searched or not, in the columns' order."""
        return tuple(name.removeprefix("config.") for name in self.runs.columns if name.startswith("config."))


def load(folder: str | Path) -> Study:
    """Read a study folder. Before the first finished run the frames are empty but have their columns.

    Raises StudyError: no such folder, no study.json, another format, a damaged or incomplete file.
    """
    root = Path(folder)
    if not root.is_dir():
        raise StudyError(f"{root}: no such folder")
    record = _record(root)
    objective = str(record["objective"]["metric"])
    runs = _frame(root / "trials.parquet", RUN_COLUMNS)
    curves = _frame(root / "curves.parquet", CURVE_COLUMNS)
    if objective not in curves.columns:
        curves[objective] = pd.Series(math.nan, index=curves.index, dtype="float64")
    return Study(root, record, runs, curves, _tests(root, record, runs))


def _record(root: Path) -> dict[str, Any]:
    path = root / "study.json"
    if not path.is_file():
        raise StudyError(f"{root}: not a study folder (it has no study.json)")
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise StudyError(f"{path}: not readable as JSON ({_one_line(error)})") from error
    if not isinstance(record, dict) or record.get("format") != FORMAT:
        found = record.get("format") if isinstance(record, dict) else type(record).__name__
        raise StudyError(f"{path}: format {found!r} is not known; this version reads format {FORMAT}")
    missing = [key for key in REQUIRED if key not in record]
    if missing:
        raise StudyError(f"{path}: lacks {', '.join(missing)}")
    objective = record["objective"]
    if not isinstance(objective, dict) or not {"metric", "mode"} <= objective.keys():
        raise StudyError(f"{path}: objective must name a metric and a mode, found {objective!r}")
    if objective["mode"] not in ("max", "min"):
        raise StudyError(f"{path}: objective mode {objective['mode']!r}; accepted: 'max', 'min'")
    if not isinstance(record["data"], dict):
        raise StudyError(f"{path}: data must be an object, found {type(record['data']).__name__}")
    return record


def _frame(path: Path, columns: Mapping[str, str]) -> pd.DataFrame:
    """A parquet file with these columns; numbers that may be missing are floats, texts are never missing."""
    if not path.is_file():
        return pd.DataFrame({name: pd.Series(dtype=kind) for name, kind in columns.items()})
    try:
        frame = pd.read_parquet(path)
    except (OSError, ValueError) as error:
        raise StudyError(f"{path}: not readable as parquet ({_one_line(error)})") from error
    missing = [name for name in columns if name not in frame.columns]
    if missing:
        raise StudyError(
            f"{path}: lacks the columns {', '.join(missing)}; it has {', '.join(map(str, frame.columns))}"
        )
    for name in frame.columns:
        kind = columns.get(name, "float64" if str(name).startswith(METRICS) else "")
        if kind == "float64":
            frame[name] = pd.to_numeric(frame[name], errors="coerce").astype("float64")
        elif kind == "str":
            frame[name] = frame[name].fillna("").astype(str)
    return frame


def _tests(root: Path, record: Mapping[str, Any], runs: pd.DataFrame) -> dict[tuple[int, int], OnTest]:
    confirmed = runs[(runs["phase"] == "confirm") & (runs["state"] == "COMPLETE")]
    sizes = (len(record["data"].get("scenes", ())), len(record["data"].get("events", ())))
    found = {}
    for trial, repeat, home in zip(confirmed["trial"], confirmed["repeat"], confirmed["folder"]):
        path = (root / str(home) / "test.json").resolve()
        if (
            path.is_relative_to(root.resolve()) and path.is_file()
        ):  # the folder column is data: never leave the study
            found[int(trial), int(repeat)] = _test(path, *sizes)
    return found


def _test(path: Path, scenes: int, events: int) -> OnTest:
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
        result = OnTest(
            {str(name): float(value) for name, value in raw["metrics"].items()},
            np.asarray(raw["confusion"], dtype=np.int64).reshape(scenes, scenes),
            _by_event(raw["event_ap"], events),
            _by_event(raw["event_auc"], events),
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise StudyError(
            f"{path}: not a test result for {scenes} scenes and {events} events ({_one_line(error)})"
        ) from error
    return result


def _by_event(values: Sequence[float | None] | None, events: int) -> np.ndarray:
    """(E,) with NaN for null; a model without an event branch writes an empty list."""
    return np.asarray(values or [None] * events, dtype=np.float64).reshape(events)


def _one_line(error: BaseException) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())[:200]
