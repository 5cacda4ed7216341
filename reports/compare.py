"""`python -m reports.compare A B`: is the difference between two sets of runs more than their spread?

    python -m reports.compare studies/one studies/two            the best confirmed configuration of each
    python -m reports.compare studies/one:7 studies/one:12       two configurations of a study, by trial
    python -m reports.compare seeds-of-csem seeds-of-mlhe        folders of trainables.train --out folders
    python -m reports.compare ours.txt theirs.txt                files of numbers

One sentence says what was found. Runs that share their seeds are compared pair by pair, others by Welch's
t-test; --test asks for another. The rank test beside Welch's needs no bell curve. Search runs are single
numbers, chosen for being high, and are never compared. By default the test split is compared, as papers do;
choosing is for validation, --metric val/scene_accuracy.
"""

from __future__ import annotations

import argparse
import json
import math
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from scipy import stats

from reports import collect, findings, units
from reports.rank import usable
from reports.statistics import ALPHA, Comparison, Summary, compare, summarise

NAMES = {
    "paired": "paired t-test",
    "welch": "Welch's t-test",
    "student": "Student's t-test",
    "mann-whitney": "Mann-Whitney test",
}
LEAST_RANKED = 4  # runs a side: with three no outcome is below 5 %


class Runs(NamedTuple):
    """One side: `values` of `metric` by run, `seeds` beside them (empty when unknown).

    data    checksum of the clips, "" when unknown        epochs  full length, 0 when unknown
    home    the study's folder, "" for runs of no study
    """

    name: str
    metric: str
    values: tuple[float, ...]
    seeds: tuple[int, ...]
    data: str
    epochs: int
    home: str = ""


class Outcome(NamedTuple):
    """What comparing `first` with `second` gave; `rank_p` is the Mann-Whitney test's, NaN with few runs or
    pairs."""

    first: Runs
    second: Runs
    test: str
    found: Comparison
    rank_p: float


class CompareError(ValueError):
    """The two cannot be compared; the message is one line."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the comparison; 0, or 2 after one line about what is wrong."""
    parser = argparse.ArgumentParser(
        prog="python -m reports.compare", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("first", help="STUDY, STUDY:TRIAL, a folder of run folders, or a file of numbers")
    parser.add_argument("second", help="the same")
    parser.add_argument(
        "--metric",
        help="by default test/scene_accuracy where both sides have it, else val/scene_accuracy",
    )
    parser.add_argument(
        "--test",
        choices=["auto", *NAMES],
        default="auto",
        help="by default (auto) paired where all seeds are shared, else welch",
    )
    asked = parser.parse_args(arguments)
    try:
        print(sentence(compare_places(asked.first, asked.second, asked.metric, asked.test)))
    except (CompareError, collect.StudyError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def compare_places(first: str, second: str, metric: str | None = None, test: str = "auto") -> Outcome:
    """Read both sides and compare them.

    Raises CompareError: twice the same runs, a side without two runs, other clips or another metric than the
    other side, a paired test without shared seeds.
    """
    metrics = [metric] if metric else ["test/scene_accuracy", "val/scene_accuracy"]
    for last, one in enumerate(metrics, start=1 - len(metrics)):
        try:
            a, b = read(first, one), read(second, one)
            break
        except _NoSuchMetric:
            if last == 0:
                raise
    if first == second or (Path(first).exists() and Path(second).exists() and Path(first).samefile(second)):
        raise CompareError(f"{first} and {second} are the same runs: there is nothing to compare")
    return outcome(a, b, test)


def outcome(a: Runs, b: Runs, test: str = "auto") -> Outcome:
    """Compare two sides. Raises CompareError, see `compare_places`."""
    if a.home and a == b:  # a trial by its number beside the best, which is the same one
        raise CompareError(f"{a.name} stands on both sides: there is nothing to compare")
    for one in (a, b):
        if len(one.values) < 2:
            raise CompareError(f"{one.name}: {units.plural(len(one.values), 'run')}; a comparison needs 2")
    if a.data and b.data and a.data != b.data:
        raise CompareError(
            f"{a.name} was scored on data {a.data[:12]}, {b.name} on {b.data[:12]}: other clips, no "
            "comparison"
        )
    shared = sorted(set(a.seeds) & set(b.seeds))
    whole = len(shared) >= 2 and len(shared) == len(a.values) == len(b.values)
    if test == "auto":
        test = "paired" if whole else "welch"
    first, second = list(a.values), list(b.values)
    if whole:
        first, second = ([one.values[one.seeds.index(seed)] for seed in shared] for one in (a, b))
    in_order = not a.seeds and not b.seeds and len(first) == len(second)  # files: line by line
    if test == "paired" and not (whole or in_order):
        raise CompareError(f"{a.name} and {b.name} do not share their seeds: there are no pairs to test")
    ranked = test != "paired" and min(len(first), len(second)) >= LEAST_RANKED
    rank_p = mann_whitney(first, second) if ranked else math.nan
    if test == "mann-whitney":
        if math.isnan(rank_p):
            raise CompareError(f"the Mann-Whitney test needs {LEAST_RANKED} runs a side to say anything")
        found = compare(first, second)._replace(test=test, low=math.nan, high=math.nan, p=rank_p)
    else:
        found = compare(first, second, "pooled" if test == "student" else test)  # type: ignore[arg-type]
    return Outcome(a, b, test, found, rank_p)


def mann_whitney(a: Sequence[float], b: Sequence[float]) -> float:
    """Two-sided p of the Mann-Whitney U test, exact without ties; NaN when all runs are equal."""
    if len(set(a) | set(b)) < 2:
        return math.nan
    return float(stats.mannwhitneyu(a, b, alternative="two-sided").pvalue)


def sentence(result: Outcome) -> str:
    """One sentence on what was found, and under it how."""
    a, b, found = result.first, result.second, result.found
    on = units.scale(a.metric) if a.metric else units.Scale("", "", 1.0, "", "")
    mean_a, mean_b = summarise(a.values), summarise(b.values)
    gap = units.score(abs(found.difference), on, 2)
    gap += f" {on.points}" if on.points else ""
    said = f" {_metric(on)}" if on.label else ""
    if not math.isfinite(found.p):
        headline = f"{a.name} and {b.name} cannot be tested: their runs do not vary."
    elif found.p < ALPHA:
        word = "above" if found.difference > 0 else "below"
        headline = f"{a.name} is {gap} {word} {b.name}{said} (p = {p_value(found.p)})."
    else:
        headline = (
            f"{a.name} and {b.name} cannot be told apart{said}: the difference is {gap} (p = "
            f"{p_value(found.p)})."
        )
    return "\n".join(
        [
            headline,
            f"{_side(a, mean_a, on)} against {_side(b, mean_b, on)}",
            _how(result, on),
            *_warnings(result),
        ]
    )


def p_value(p: float) -> str:
    """ "0.041", "5.9e-05"."""
    return f"{p:.1e}" if p < 0.001 else units.p_value(p)


def _metric(on: units.Scale) -> str:
    return f"in {on.split} {on.label}"


def _side(one: Runs, summary: Summary, on: units.Scale) -> str:
    spread = units.score(summary.sd, on, 2, unit=True)
    return f"{units.score(summary.mean, on, 2)} ± {spread} (sd, n = {summary.n})"


def _how(result: Outcome, on: units.Scale) -> str:
    found = result.found
    if result.test == "mann-whitney":
        return f"{NAMES[result.test]}, two-sided: p = {p_value(found.p)}"
    if not math.isfinite(found.t):  # no spread at all
        return NAMES[result.test]
    df = f"{found.df:.0f}" if found.df == round(found.df) else f"{found.df:.1f}"
    text = f"{NAMES[result.test]}, two-sided: t({df}) = {units.number(found.t, 2)}, p = {p_value(found.p)}"
    if math.isfinite(found.low):
        text += f", 95 % interval of the difference {units.interval(found.low, found.high, on, 2)}"
    if math.isfinite(result.rank_p):
        text += f"; Mann-Whitney p = {p_value(result.rank_p)}"
    return text


def _warnings(result: Outcome) -> list[str]:
    a, b = result.first, result.second
    said = []
    if a.epochs and b.epochs and a.epochs != b.epochs:
        said.append(f"note: trained for {a.epochs} and {b.epochs} epochs")
    if math.isfinite(result.rank_p) and (result.rank_p < ALPHA) != (result.found.p < ALPHA):
        said.append("note: the two tests disagree at 5 %: more runs would tell")
    if not (a.data and b.data) and (a.metric and b.metric):
        said.append("note: it is not known whether both were scored on the same clips")
    return said


# --- reading one side ---------------------------------------------------------------------------------------


class _NoSuchMetric(CompareError):
    pass


def read(place: str, metric: str) -> Runs:
    """The runs at STUDY, STUDY:TRIAL, a folder of run folders or a file of numbers.

    Raises CompareError or collect.StudyError when there are none.
    """
    path = Path(place)
    if path.is_file():
        return _numbers(path)
    found = re.fullmatch(r"(.+):(\d+)", place)
    if found and not path.exists():
        return of_study(collect.load(found[1]), metric, int(found[2]))
    if not path.is_dir():
        raise CompareError(f"{place}: no such study, folder of runs or file")
    if (path / "study.json").is_file():
        return of_study(collect.load(path), metric, None)
    folders = [path] if (path / "run.json").is_file() else sorted(p.parent for p in path.glob("*/run.json"))
    if not folders:
        raise CompareError(f"{place}: neither a study (study.json) nor a folder of runs (*/run.json)")
    return _of_folders(path, folders, metric)


def _numbers(path: Path) -> Runs:
    words = path.read_text(encoding="utf-8", errors="replace").replace(",", " ").split()
    try:
        values = tuple(float(word) for word in words)
    except ValueError as error:
        raise CompareError(f"{path}: a file of numbers is expected ({error})") from None
    if not all(map(math.isfinite, values)):
        raise CompareError(f"{path}: all its numbers must be finite")
    return Runs(path.stem, "", values, (), "", 0)


def of_study(study: collect.Study, metric: str, trial: int | None, *, further: bool = True) -> Runs:
    """The confirmed full-length runs of a trial, of the best one for None; without the `further` seeds that
    the winner of a race has, those of the race alone.

    Raises CompareError when there are none or they lack the metric.
    """
    ranking = findings.ranked(study)
    if trial is None:
        if ranking.best is None:
            raise CompareError(f"{study.folder}: no configuration is confirmed, there is nothing to compare")
        trial = ranking.best.trial
    runs = study.runs[(study.runs["phase"] == "confirm") & (study.runs["trial"] == trial)]
    race = study.record.get("race")
    if race and not further:
        runs = runs[~runs["repeat"].isin(race["headline"])]
    runs = usable(runs, study.epochs)
    if runs.empty:
        confirmed = ", ".join(str(s.trial) for s in ranking.standings) or "none"
        raise CompareError(
            f"{study.folder}: trial {trial} has no confirmed full-length runs; confirmed trials: {confirmed}"
        )
    values = runs[metric].tolist() if metric in runs else [math.nan]
    if not all(map(math.isfinite, values)):
        raise _NoSuchMetric(f"{study.folder}: its confirmed runs of trial {trial} have no {metric!r}")
    seeds = tuple(int(seed) for seed in runs["seed"])
    data = str(study.record["data"].get("checksum", ""))
    name = f"{_name(study)} trial {trial}"
    return Runs(name, metric, tuple(values), seeds, data, study.epochs, str(study.folder.resolve()))


def _name(study: collect.Study) -> str:
    return " ".join(str(study.record["name"]).split())


def _of_folders(place: Path, folders: Sequence[Path], metric: str) -> Runs:
    """Runs that trainables.train kept; all must be of one configuration's length and data, and finished."""
    records = [(folder, _json(folder / "run.json")) for folder in folders]
    values, seeds = [], []
    for folder, record in records:
        metrics = _metrics(folder, metric.split("/", 1)[0])
        if metrics.get("epoch", record.get("epochs")) != record.get("epochs"):
            raise CompareError(f"{folder}: {metrics['epoch']} of {record['epochs']} epochs are done")
        value = metrics.get(metric)
        if not isinstance(value, int | float) or not math.isfinite(value):
            raise _NoSuchMetric(f"{folder}: has no {metric!r}")
        values.append(float(value))
        seeds.append(int(record.get("seed", -1)))
    for name in ("values", "data_checksum", "epochs"):
        if len({json.dumps(record.get(name), sort_keys=True) for _, record in records}) > 1:
            what = {"values": "knobs", "data_checksum": "data", "epochs": "length"}[name]
            raise CompareError(f"{place}: its runs differ in their {what}, they are not one set of runs")
    first = records[0][1]
    return Runs(
        place.name,
        metric,
        tuple(values),
        tuple(seeds),
        str(first.get("data_checksum", "")),
        int(first["epochs"]),
    )


def _metrics(folder: Path, split: str) -> dict[str, Any]:
    """The metrics of test.json, or of the last line of epochs.jsonl."""
    if split == "test":
        path = folder / "test.json"
        return _json(path).get("metrics", {}) if path.is_file() else {}
    path = folder / "epochs.jsonl"
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    try:
        return json.loads(lines[-1]) if lines else {}
    except ValueError:
        raise CompareError(f"{path}: its last line is torn; the run is not finished") from None


def _json(path: Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise CompareError(f"{path}: not readable as JSON ({error})") from error


if __name__ == "__main__":
    sys.exit(main())
