"""A paper's table run again: ours beside the paper's, row by row, and the rows against one of them.

The study's record says which row is which trial and in what our training differs from the paper's
(study.json, "table"); the figures are those of the runs. A row that differs gets no verdict: its figures
stand beside the paper's, and the difference is only that.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import pandas as pd

from reports import units
from reports.collect import Study
from reports.findings import LOST, Finding
from reports.rank import differing, usable
from reports.statistics import Comparison, Summary, compare, holm, summarise
from reports.tables import Table, mean_sd, printed
from reports.verdicts import NOT_COMPARABLE, deviation_factor, judge, published_spread

# Table X of Hou et al., as trainables/dependence.py estimates it: of a clip's two embeddings over their
# dimensions, mean over clips. The paper names no estimator; with this one unrelated embeddings give its 2.98.
ANALYSED = {
    "embedding_pcc": {"statistic": "pearson", "over": "dimensions"},
    "embedding_mi": {"statistic": "mutual information", "estimator": "exact values", "over": "dimensions"},
}
COLUMNS = {"validation": "val", "test": "test", "train": "train"}
IN_THE_TEXT = (
    'The paper draws these results; where it is given a value with "(text)", that is what its text says, '
    'often with "around". The rest could not be read off.'
)


class Beside(NamedTuple):
    """A printed row and our runs of it, none for a row that was not run (`why` says why).

    verdict      "reproduced" | "better" | "worse" | "not comparable: …"; "" while nothing has finished
    difference   of the means, ours less theirs, with a 95 % interval where the paper's ± is known
    lost         runs not in the mean, by state
    out          where the rows were raced and it is out: after how many seeds, and `by` which trial (None: it
                 diverged)
    """

    row: Mapping[str, Any]
    ours: Summary
    verdict: str
    difference: float
    low: float
    high: float
    lost: Mapping[str, int]
    out: Mapping[str, Any] | None = None


class Pair(NamedTuple):
    """A row against the baseline's, repeat by repeat of the same seed; `p` is Holm-corrected over all."""

    row: Mapping[str, Any]
    baseline: Mapping[str, Any]
    comparison: Comparison
    p: float


class PaperTable(NamedTuple):
    name: str
    paper: str
    seeds: int
    rows: tuple[Beside, ...]
    pairs: tuple[Pair, ...]

    @property
    def run(self) -> tuple[Beside, ...]:
        return tuple(one for one in self.rows if one.row["trial"] is not None)


def paper_table(study: Study) -> PaperTable:
    """The study's table as far as its runs have come."""
    about = study.record["table"]
    runs = study.runs[study.runs["phase"] == "table"]
    done = usable(runs, study.epochs)
    rows = tuple(_beside(study, row, runs, done) for row in about["rows"])
    return PaperTable(
        str(about["name"]),
        str(about["paper"]),
        int(study.record.get("seeds", 0)),
        rows,
        _pairs(study, done),
    )


def _beside(study: Study, row: Mapping[str, Any], runs: pd.DataFrame, done: pd.DataFrame) -> Beside:
    trial = row["trial"]
    if trial is None:
        return Beside(row, summarise([]), "", math.nan, math.nan, math.nan, {})
    ours = summarise(list(_figures(study, done, trial, row).values()))
    states = runs[runs["trial"] == trial]["state"].value_counts()
    lost = {str(state): int(count) for state, count in states.items() if state != "COMPLETE"}
    found, out = judge(ours, row), _dropped(study).get(trial)
    difference = ours.mean - paper_value(row)
    word = found.word
    if row["unlike"]:
        word = NOT_COMPARABLE + ", ".join(row["unlike"])
    elif ours.n == 1:
        word = f"{NOT_COMPARABLE}ours is one run, a comparison needs 2"
    if not ours.n:
        due = int(out["after"] if out else study.record.get("seeds", 0))
        word = _nothing(row, (done["trial"] == trial).any(), lost, due)
    return Beside(row, ours, word, difference, found.low, found.high, lost, out)


def _dropped(study: Study) -> dict[int, Mapping[str, Any]]:
    """{trial: its drop} of the table's races, one for each source of event labels (searchspace/race.py)."""
    races = study.record.get("races", {})
    return {int(drop["trial"]): drop for race in races.values() for drop in race["dropped"]}


def _nothing(row: Mapping[str, Any], finished: bool, lost: Mapping[str, int], seeds: int) -> str:
    """Why a row has no figure of ours; "" while it may still come."""
    if finished:
        return f"{NOT_COMPARABLE}no run has measured {row['metric']}"
    over = bool(lost) and "RUNNING" not in lost and sum(lost.values()) >= seeds
    return f"{NOT_COMPARABLE}no run finished" if over else ""


def paper_value(row: Mapping[str, Any]) -> float:
    """What the paper prints; NaN where it only draws."""
    return math.nan if row["value"] is None else float(row["value"])


def row_column(row: Mapping[str, Any]) -> str:
    return f"{COLUMNS.get(row['split'], row['split'])}/{row['metric']}"


def _figures(
    study: Study, runs: pd.DataFrame, trial: int, row: Mapping[str, Any]
) -> dict[tuple[int, int], float]:
    """{(repeat, seed): value} of what the row prints, of a trial's finished runs."""
    mine = runs[runs["trial"] == trial].sort_values("repeat")
    if row["metric"] in ANALYSED:
        values = [_analysed(study, str(folder), row) for folder in mine["folder"]]
    else:
        values = [float(v) for v in mine.get(row_column(row), ())]
    named = zip(mine["repeat"], mine["seed"], values)
    return {(int(r), int(s)): value for r, s, value in named if math.isfinite(value)}


def _analysed(study: Study, folder: str, row: Mapping[str, Any]) -> float:
    """A statistic from a run's analysis on the row's split; NaN for a run that was not analysed."""
    root = study.folder.resolve()
    path = (root / folder / "analysis" / f"{COLUMNS[row['split']]}.json").resolve()
    if not path.is_relative_to(root) or not path.is_file():
        return math.nan
    wanted = ANALYSED[row["metric"]]
    for one in json.loads(path.read_text(encoding="utf-8"))["dependence"]:
        if all(one[name] == value for name, value in wanted.items()) and one["mean"] is not None:
            return float(one["mean"])
    return math.nan


# --- rows against rows --------------------------------------------------------------------------------------


def _pairs(study: Study, done: pd.DataFrame) -> tuple[Pair, ...]:
    """Every row that runs against the baseline line's row of the same backbone, else the line's first."""
    about = study.record["table"]
    running = [row for row in about["rows"] if row["trial"] is not None]
    bases = [row for row in running if row["line"] == about["baseline"]]
    backbones = {int(t): b for t, b in zip(done["trial"], done.get("config.backbone", done["trial"]))}
    found: list[tuple[Mapping[str, Any], Mapping[str, Any], Comparison]] = []
    for row in running:
        alike = [base for base in bases if backbones.get(base["trial"]) == backbones.get(row["trial"])]
        base = (alike or bases)[0]
        told = any(one["trial"] == row["trial"] and row_column(one) == row_column(row) for one, _, _ in found)
        if base["trial"] != row["trial"] and not told:  # two rows of one training are one comparison
            found.append((row, base, _tested(study, done, row, base["trial"])))
    corrected = holm([comparison.p for _, _, comparison in found])
    return tuple(Pair(row, base, comparison, p) for (row, base, comparison), p in zip(found, corrected))


def _tested(study: Study, done: pd.DataFrame, row: Mapping[str, Any], base: int) -> Comparison:
    """A paired t-test over the repeats that both finished with the same seed; of runs that share no two
    seeds, Student's."""
    mine, theirs = (_figures(study, done, trial, row) for trial in (row["trial"], base))
    both = sorted(mine.keys() & theirs.keys())
    if len(both) < 2:
        return compare(list(mine.values()), list(theirs.values()), "pooled")
    return compare([mine[key] for key in both], [theirs[key] for key in both], "paired")


# --- in words and tables ------------------------------------------------------------------------------------


def finding(study: Study, found: PaperTable) -> Finding:
    """The headline of a table run again."""
    words = [one.verdict for one in found.run]
    counts = [(word, words.count(word)) for word in ("reproduced", "better", "worse")]
    tally = ", ".join(f"{count} {word}" for word, count in counts if count)
    rest = sum(word.startswith(NOT_COMPARABLE) for word in words)
    headline = f"{units.cited(found.name)} of {found.paper}: " + (tally or "no row can be judged")
    if tally and rest:
        headline += f", {rest} not comparable"
    ran = f"{units.plural(len(found.run), 'row')} of {len(found.rows)} trained"
    meaning = f"{ran}, {units.plural(found.seeds, 'seed')} each; mean ± standard deviation over the seeds."
    ended, planned = _progress(study, found)
    status = "" if ended >= planned else f"{ended} of {planned} runs have ended. Everything below may change."
    tested = any(one.row["split"] == "test" for one in found.run)
    split = "read once after each run's last epoch" if tested else "not read"
    raced = "races" in study.record
    sure = [
        f"The rows are fixed: nothing was proposed{'' if raced else ', stopped early'} or selected. The test "
        f"split was {split}."
    ]
    sure += _raced(found) if raced else []
    if everywhere := differs_everywhere(found):
        sure.insert(0, f"Ours differs from the paper's in every row: {', '.join(everywhere)}.")
    if any(one.row.get("said") for one in found.rows):
        sure.append(IN_THE_TEXT)
    if lost := {state: sum(one.lost.get(state, 0) for one in found.run) for state in LOST}:
        text = ", ".join(f"{count} {LOST[state]}" for state, count in lost.items() if count)
        sure += [f"Runs not in the means: {text}."] if text else []
    return Finding(status, headline, meaning, tuple(sure))


def _progress(study: Study, found: PaperTable) -> tuple[int, int]:
    """(runs that have ended, runs that there will be) of the rows' trainings."""
    runs = study.runs[study.runs["phase"] == "table"]
    ended = runs[runs["state"] != "RUNNING"]["trial"].value_counts()
    due = {one.row["trial"]: int(one.out["after"]) if one.out else found.seeds for one in found.run}
    return sum(min(int(ended.get(trial, 0)), due[trial]) for trial in due), sum(due.values())


def _raced(found: PaperTable) -> list[str]:
    """Which rows a race spared the rest of their seeds, and what that does to their figures."""
    lines = {one.row["trial"]: row_label(one.row, [one.row]) for one in reversed(found.run)}
    out = {one.row["trial"]: one.out for one in found.run if one.out}
    if not out:
        return ["The rows were raced on the validation split; none was clearly beaten."]
    said = [
        f"{lines[trial]} after {units.plural(int(drop['after']), 'seed')} "
        + ("(diverged)" if drop["by"] is None else f"(beaten by {lines[drop['by']]})")
        for trial, drop in out.items()
    ]
    return [
        f"The rows were raced on the validation split. Out, without further seeds: {'; '.join(said)}. Their "
        "means come from the seeds that put them out, so are if anything too low, and so are their p-values."
    ]


def about_spread(found: PaperTable) -> str:
    """What the paper's ± is, and what becomes of it in a verdict."""
    kinds = {str(one.row["spread_kind"]) for one in found.run if one.row["spread"] is not None}
    if not kinds:
        return (
            "The paper prints no ± here, so that no verdict is possible: its values only stand beside ours."
        )
    if not all(published_spread(0.0, kind) for kind in kinds):
        return "The paper does not say what its ± is, so that no verdict is possible where it has one."
    return (
        "The paper's ± is the largest deviation of its runs from their mean. A verdict is Welch's t-test at "
        "5 % on the means; the paper's ± counts as a standard deviation after division by the median such "
        f"deviation ({deviation_factor(10):.2f} for 10 runs)."
    )


def differs_everywhere(found: PaperTable) -> tuple[str, ...]:
    """In what every row that runs differs from the paper's."""
    return tuple(
        reason
        for reason in (found.run[0].row["unlike"] if found.run else ())
        if all(reason in one.row["unlike"] for one in found.run)
    )


def row_label(row: Mapping[str, Any], rows: Iterable[Mapping[str, Any]]) -> str:
    """ "#3 csem AST, jssed test scene accuracy": the row, and of corpus and metric what the table varies."""
    others = list(rows)
    on = units.scale(row_column(row))
    name = str(row["row"]) if str(row["row"]).startswith("#") else f"#{row['line']} {row['row']}"
    corpus = str(row["corpus"]) if len({other["corpus"] for other in others}) > 1 else ""
    metric = f"{on.split} {on.label}" if len({row_column(other) for other in others}) > 1 else ""
    return ", ".join(filter(None, [name, " ".join(filter(None, [corpus, metric]))]))


def _verdict(one: Beside, everywhere: tuple[str, ...]) -> str:
    """The verdict without the reasons that hold for every row, which are said once."""
    if not one.row["unlike"] or not one.ours.n:
        return one.verdict or "running"
    own = [reason for reason in one.row["unlike"] if reason not in everywhere]
    return NOT_COMPARABLE + ", ".join(own) if own else NOT_COMPARABLE.rstrip(": ")


def beside_table(found: PaperTable) -> Table:
    """One line a row that was run."""
    everywhere, shown = differs_everywhere(found), [one.row for one in found.run]
    rows = []
    for one in found.run:
        on = units.scale(row_column(one.row))
        difference = units.number(one.difference * on.factor, 1 if on.unit else 3, sign=True)
        span = units.interval(one.low, one.high, on)
        rows.append(
            (
                row_label(one.row, shown),
                printed(one.row),
                mean_sd(one.ours.mean, one.ours.sd, on),
                str(one.ours.n) + _missing(one.lost, out=one.out is not None),
                _verdict(one, everywhere),
                difference + (f" ({span})" if span != units.NONE else ""),
                units.mean_interval(one.ours.low, one.ours.high, on),
            )
        )
    columns = ("row", "paper ±", "ours ± sd", "n", "verdict", "difference", "ours, 95 % interval")
    return Table(columns, tuple(rows), frozenset({1, 2, 3, 5, 6}))


def _missing(lost: Mapping[str, int], *, out: bool) -> str:
    said = [f"{n} {LOST.get(s, s.lower())}" for s, n in lost.items()] + ["out"] * out
    return f" ({', '.join(said)})" if said else ""


def knob_table(study: Study, found: PaperTable) -> Table:
    """The knobs that set the rows' configurations apart, as far as they have begun."""
    runs = study.runs[study.runs["phase"] == "table"].drop_duplicates("trial")
    columns = [str(name) for name in runs.columns if str(name).startswith("config.")]
    knobs = {
        int(row["trial"]): {name.removeprefix("config."): row[name] for name in columns}
        for row in runs.to_dict("records")
    }
    names = differing(list(knobs.values()))
    rows = {one.row["trial"]: one.row for one in reversed(found.run) if one.row["trial"] in knobs}
    lines = tuple(
        (row_label(row, [row]), *(units.short_knob(knobs[trial][name]) for name in names))
        for trial, row in sorted(rows.items())
    )
    return Table(("row", *names), lines if names else (), frozenset(range(1, len(names) + 1)))


def left_out(found: PaperTable) -> Table:
    """The rows that were not run, and why."""
    rows = [one.row for one in found.rows if one.row["trial"] is None]
    every = [one.row for one in found.rows]
    lines = tuple((row_label(row, every), printed(row), str(row["why"])) for row in rows)
    return Table(("row", "paper", "not run"), lines, frozenset({1}))


def pair_table(found: PaperTable) -> Table:
    """The rows against the baseline, seed by seed."""
    shown = [one.row for one in found.run]
    rows = []
    for pair in found.pairs:
        on, test = units.scale(row_column(pair.row)), pair.comparison
        t = f"{units.number(test.t, 2)} ({test.df:g})" if math.isfinite(test.t) else units.NONE
        rows.append(
            (
                row_label(pair.row, shown),
                row_label(pair.baseline, [pair.baseline]),
                units.number(test.difference * on.factor, 1 if on.unit else 3, sign=True),
                units.interval(test.low, test.high, on),
                t,
                units.p_value(test.p),
                units.p_value(pair.p),
            )
        )
    columns = ("row", "against", "difference", "95 % interval", "t (df)", "p", "p after Holm")
    return Table(columns, tuple(rows), frozenset({2, 3, 4, 5, 6}))


def write(study: Study) -> None:
    """table.json in the study folder: every row with its verdict and single runs, every pair."""
    found = paper_table(study)
    record = {
        "table": found.name,
        "paper": found.paper,
        "rows": [
            {
                **one.row,
                "ours": {**one.ours._asdict(), "values": list(one.ours.values)},
                **{name: getattr(one, name) for name in ("verdict", "difference", "low", "high")},
                "lost": dict(one.lost),
                "out": one.out and dict(one.out),
            }
            for one in found.rows
        ],
        "pairs": [
            {"row": pair.row["row"], "line": pair.row["line"], "trial": pair.row["trial"]}
            | {"baseline": pair.baseline["trial"], "column": row_column(pair.row)}
            | {**pair.comparison._asdict(), "p_holm": pair.p}
            for pair in found.pairs
        ],
    }
    fresh = study.folder / "table.json.new"
    fresh.write_text(json.dumps(_plain(record), indent=1), encoding="utf-8")
    os.replace(fresh, study.folder / "table.json")


def _plain(value: Any) -> Any:
    """JSON without NaN: null is what is not known."""
    if isinstance(value, Mapping):
        return {str(name): _plain(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
