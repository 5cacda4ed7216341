"""What the study found, in sentences: what won, is that sure, what mattered, what it cost."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

import pandas as pd

from reports import cost as costs
from reports import units
from reports.collect import Study
from reports.importance import Importance
from reports.rank import Ranking, Standing, differing, label, ranking, search_table
from reports.statistics import ALPHA, POWER, Summary, seeds_to_separate, summarise
from reports.verdicts import Verdict, verdict

FEW_FOR_IMPORTANCE = 30  # runs below which shares of importance are a hint, not a finding
# Simulated for 192 configurations with a seed deviation of 0.67 points.
OVER_REPORT = "The best of many single runs over-reports: of 192 runs by 1 to 1.5 points."


class Finding(NamedTuple):
    """The top of the report.

    status    one line when the study is not complete, else ""
    headline  what won, with its spread      meaning  what the figures in it are
    sure      is that sure, one sentence each
    """

    status: str
    headline: str
    meaning: str
    sure: tuple[str, ...]


class Comparable(NamedTuple):
    """A published row with our verdict on it."""

    row: Mapping[str, Any]
    verdict: Verdict


def ranked(study: Study) -> Ranking:
    """The study's confirmed configurations, ranked."""
    return ranking(
        study.runs,
        epochs=study.epochs,
        mode=study.mode,
        test_metric=study.test_metric,
        test_clips=study.test_clips,
        race=study.record.get("race"),
    )


def published(study: Study, result: Ranking) -> tuple[Comparable, ...]:
    """The papers' rows with verdicts: comparable ones first, each kind in the order of the study's record."""
    rows = [row for row in study.record.get("published", ()) if isinstance(row, Mapping)]
    corpus = str(study.record["data"].get("corpus", "unknown"))
    events = str((study.record.get("request") or {}).get("events") or "labels")
    judged = [Comparable(row, verdict(row, result, corpus=corpus, events=events)) for row in rows]
    return tuple(sorted(judged, key=lambda item: item.verdict.trial is None))


def searched_knobs(study: Study) -> tuple[str, ...]:
    """The knobs of the study's space that took more than one value in its search runs."""
    rows = study.runs[study.runs["phase"] == "search"]
    columns = [name for name in rows.columns if str(name).startswith("config.")]
    configs = [
        {str(k).removeprefix("config."): v for k, v in row.items()}
        for row in rows[columns].to_dict("records")
    ]
    varied = differing(configs)
    return tuple(knob for knob in map(str, study.record.get("space", ())) if knob in varied)


def printed_row(row: Mapping[str, Any]) -> str:
    """ "Table III, cSEM-PANN": where the paper prints it."""
    table = str(row.get("table", ""))
    where = table if not table or table.lower().startswith("table") else units.cited(table)
    return ", ".join(part for part in (where, str(row.get("row", ""))) if part)


def beside_papers(judged: tuple[Comparable, ...]) -> str:
    """The verdicts in a sentence or two; "" when the study records no published rows."""
    if not judged:
        return ""
    compared = [item for item in judged if item.verdict.trial is not None]
    if not compared:
        return "None of the papers' rows can be compared with this study; the reasons are below."
    own = [item for item in compared if item.verdict.against == "the same configuration"]
    words = {"better": "better than", "reproduced": "level with", "worse": "worse than"}
    counts = [(words[w], sum(i.verdict.word == w for i in compared)) for w in words]
    tally = _list([f"{said} {n}" for said, n in counts if n])
    text = f"Ours is {tally} of the {units.plural(len(compared), 'comparable published row')}"
    rest = len(judged) - len(compared)
    text += f"; {units.plural(rest, 'row')} cannot be compared." if rest else "."
    for item in own[:3]:
        where = f"{item.row.get('paper', '')} {printed_row(item.row)}".strip()
        text += f" The configuration of {where} (trial {item.verdict.trial}): {item.verdict.word}."
    return text


def finding(study: Study, result: Ranking) -> Finding:
    """The headline for whatever the study has by now: confirmed, only searched, or nothing."""
    best = result.best
    if best is None:
        return _unconfirmed(study, result)
    metric, summary = (study.test_metric, best.test) if best.test.n else (study.metric, best.validation)
    words = label(result, best)
    name = f"Trial {best.trial}" + (f" ({words})" if words else "")
    reached = _reached(summary, units.scale(metric))
    if len(result.standings) == 1:
        headline = f"{name} reaches {reached}"
    elif result.tied:
        others = _list([str(s.trial) for s in result.tied])
        trials = "trial" if len(result.tied) == 1 else "trials"
        headline = f"{name} leads with {reached}, but cannot be told apart from {trials} {others}"
    else:
        headline = f"{name} wins with {reached}"
    return Finding(
        _status(study), headline, _meaning(summary, units.scale(metric)), tuple(_sure(study, result, best))
    )


def _reached(summary: Summary, on: units.Scale) -> str:
    spread = f" ± {units.score(summary.sd, on)}" if summary.n > 1 else ""
    unit = f" {on.unit}" if on.unit else ""
    return f"{units.score(summary.mean, on)}{spread}{unit} {on.label} on {on.split}"


def _meaning(summary: Summary, on: units.Scale) -> str:
    if summary.n == 1:
        return "One seed (n = 1), so there is no standard deviation and no interval."
    unit = f" {on.unit}" if on.unit else ""
    span = units.interval(summary.low, summary.high, on)
    return f"Mean ± standard deviation over {summary.n} seeds; 95 % interval of the mean {span}{unit}."


def _list(names: list[str]) -> str:
    """ "4", "4 and 7", "4, 7 and 9"."""
    return f"{', '.join(names[:-1])} and {names[-1]}" if len(names) > 1 else names[0]


def _unconfirmed(study: Study, result: Ranking) -> Finding:
    rows = search_table(study.runs, epochs=study.epochs, mode=study.mode)
    on = units.scale(study.metric)
    if not rows:
        ran = len(study.runs)
        headline = (
            "No run has finished yet"
            if study.record["status"] == "running"
            else "No run finished at full length"
        )
        said = (
            f"{units.plural(ran, 'run')} so far; {_outcomes(study.runs)}."
            if ran
            else "Nothing has run so far."
        )
        return Finding(_status(study), headline, said, ())
    top = rows[0]
    shown = f"{units.score(top.score, on, unit=True)} {on.label} on validation"
    headline = f"Trial {top.trial} is the best search run with {shown}; nothing is confirmed yet"
    meaning = "One training with one seed (n = 1), so there is no standard deviation and no interval."
    sure = [
        f"No: it was chosen among {units.plural(len(rows), 'full-length run')} of one seed each.",
        OVER_REPORT,
    ]
    if result.waiting:
        sure.append(
            f"{units.plural(len(result.waiting), 'configuration')} to confirm, none with a finished run."
        )
    return Finding(_status(study), headline, meaning, tuple(sure))


def _status(study: Study) -> str:
    status = str(study.record["status"])
    if status == "complete":
        return ""
    ended = int((study.runs["state"] != "RUNNING").sum())
    planned = study.record.get("trials")
    searched = int(((study.runs["phase"] == "search") & (study.runs["state"] != "RUNNING")).sum())
    progress = f"{searched} of {planned} search runs have ended" if planned else f"{ended} runs have ended"
    confirmed = int(((study.runs["phase"] == "confirm") & (study.runs["state"] == "COMPLETE")).sum())
    if confirmed:
        progress += f", {units.plural(confirmed, 'confirmation run')} finished"
    words = {"running": "This study is still running", "interrupted": "This study was interrupted"}
    return f"{words.get(status, f'This study is {status}')}: {progress}. Everything below may change."


def _sure(study: Study, result: Ranking, best: Standing) -> list[str]:
    """Is that sure: ties, what it would take, the choice of test clips, runs missing from the mean."""
    said = [_compared(study, result, best)]
    seeds = needed_seeds(result)
    if result.tied and seeds:
        said.append(
            f"Seeing a difference as small as the observed one would take about {seeds:,} seeds each "
            f"(power {POWER:g}, two-sided {100 * ALPHA:.0f} %)."
        )
    test = units.scale(study.test_metric)
    if math.isfinite(best.sampling_error):
        points = f"± {units.score(best.sampling_error, test)} {test.points}"
        clips = units.plural(study.test_clips or 0, "test clip")
        said.append(f"The choice of the {clips} alone adds {points} (95 %, binomial) to what the seeds say.")
    said.extend(_missing(s) for s in result.standings if s.lost and (s is best or s.tied))
    return said


def _compared(study: Study, result: Ranking, best: Standing) -> str:
    on = units.scale(study.metric)
    if len(result.standings) == 1:
        return "Only one configuration is confirmed, so there is nothing it has been compared with."
    if not result.tied:
        tested = [s.p for s in result.standings[1:] if math.isfinite(s.p)]
        if not tested:
            return "All others diverged in a seed, so there is nothing it has been compared with."
        worst = max(tested)
        others = (
            "the other one is"
            if len(result.standings) == 2
            else f"all {len(result.standings) - 1} others are"
        )
        how = f"{result.test}, p {_equals(worst)} after {result.correction}"
        return f"As far as seeds go, yes: {others} clearly worse on validation ({how})."
    trials = "trials " + _list([str(best.trial), *(str(s.trial) for s in result.tied)])
    near = result.tied[0]
    text = f"No: {trials} cannot be told apart. "
    if near.comparison is None or not math.isfinite(near.p):
        return text + "With a single seed, or seeds that show no spread, there is no test."
    gap = f"{units.score(abs(near.comparison.difference), on)} {on.points}".rstrip()
    pair = "Their" if len(result.tied) == 1 else f"The nearest two ({best.trial} and {near.trial}):"
    how = f"{result.test}, p {_equals(near.p)} after {result.correction}"
    return f"{text}{pair} validation means lie {gap} apart ({how})."


def _equals(p: float) -> str:
    text = units.p_value(p)
    return text if text.startswith("<") else f"= {text}"


LOST = {
    "DIVERGED": "diverged",
    "FAIL": "failed",
    "PRUNED": "stopped early",
    "RUNNING": "still running",
    "SHORT": "finished below full length",
    "NAN": "ended without a score",
}


def lost(standing: Standing) -> str:
    """ "1 diverged, 2 still running", "" when every run is in the mean."""
    return ", ".join(f"{n} {LOST.get(state, state.lower())}" for state, n in standing.lost.items())


def _missing(standing: Standing) -> str:
    text = f"Not in the mean of trial {standing.trial}: {lost(standing)}."
    return text + (" A mean without its diverged runs is too good." if "DIVERGED" in standing.lost else "")


def needed_seeds(result: Ranking) -> int | None:
    """Seeds each of the top two needs to be separated at the observed difference and spread: that of their
    differences where they are paired, else their pooled one."""
    if len(result.standings) < 2:
        return None
    first, second = result.standings[0].validation, result.standings[1].validation
    if first.n < 2 or second.n < 2:
        return None
    if result.test.startswith("paired") and first.n == second.n:
        gaps = [a - b for a, b in zip(first.values, second.values)]
        gap = summarise(gaps)
        return seeds_to_separate(gap.mean, gap.sd, paired=True)
    weights = (first.n - 1, second.n - 1)
    pooled = math.sqrt((first.sd**2 * weights[0] + second.sd**2 * weights[1]) / sum(weights))
    return seeds_to_separate(first.mean - second.mean, pooled)


# --- cost, states, reasons ----------------------------------------------------------------------------------


def _outcomes(runs: pd.DataFrame) -> str:
    counts = runs["state"].value_counts()
    words = {"COMPLETE": "finished", **LOST, "RUNNING": "running"}
    order = [state for state in words if state in counts.index]
    return ", ".join(f"{int(counts[state])} {words[state]}" for state in order)


def cost(study: Study) -> str:
    """What it took: configurations, runs by outcome, epochs, training time."""
    search = study.runs[study.runs["phase"] == "search"]
    confirm = study.runs[study.runs["phase"] == "confirm"]
    if study.runs.empty:
        return "Nothing has run so far."
    text = f"{units.plural(len(search), 'configuration')} searched ({_outcomes(search)})"
    if len(confirm):
        trials = units.plural(confirm["trial"].nunique(), "configuration")
        text += f"; {units.plural(len(confirm), 'run')} to confirm {trials} ({_outcomes(confirm)})"
    epochs, seconds = int(study.runs["epochs"].sum()), float(study.runs["seconds"].sum())
    hours = costs.total_hours(study)
    spent = f"{units.duration(seconds)} of training" + (f" ({hours})" if hours else "")
    return f"{text}. {units.plural(epochs, 'epoch')} in all, {spent}."


def taken_up(runs: pd.DataFrame) -> str:
    """How many runs went on after a fault of the machine or a preemption; "" when none did."""
    said = []
    for column, after in (("retries", "a fault of the machine"), ("preemptions", "their place was taken")):
        times = pd.to_numeric(runs[column], errors="coerce").fillna(0) if column in runs else pd.Series([0])
        if (again := int((times > 0).sum())) > 0:
            said.append(
                f"{units.plural(again, 'run')} after {after} ({units.plural(int(times.sum()), 'time')})"
            )
    return f"Taken up again from their checkpoints: {_list(said)}." if said else ""


def mattered(found: Importance, most: int = 3) -> str:
    """The knobs that decided most, in a sentence; why that cannot be said, otherwise."""
    if found.note:
        return found.note
    named = [f"{knob} ({100 * share:.0f} %)" for knob, share in found.shares[:most] if share >= 0.01]
    hint = "; so few that this is a hint" if found.runs < FEW_FOR_IMPORTANCE else ""
    return f"{_list(named)}: shares of importance over {units.plural(found.runs, 'full-length run')}{hint}."


class Reason(NamedTuple):
    """Runs of one state that stopped for the same kind of reason; `example` is one of their texts."""

    state: str
    runs: int
    example: str
    trials: tuple[int, ...]


def reasons(runs: pd.DataFrame) -> tuple[Reason, ...]:
    """Why runs stopped: failed and diverged first; texts that differ in numbers other than epochs are one."""
    groups: dict[tuple[str, str], list[tuple[str, int]]] = {}
    for state in ("FAIL", "DIVERGED", "PRUNED"):
        stopped = runs[runs["state"] == state]
        for text, trial in zip(stopped["reason"], stopped["trial"]):
            groups.setdefault((state, _kind(str(text))), []).append((str(text), int(trial)))
    rank = {"FAIL": 0, "DIVERGED": 1, "PRUNED": 2}
    found = [
        Reason(state, len(items), items[0][0] or "no reason written down", tuple(trial for _, trial in items))
        for (state, _), items in groups.items()
    ]
    return tuple(sorted(found, key=lambda r: (rank[r.state], -r.runs)))


def _kind(text: str) -> str:
    return re.sub(
        r"(?<!epoch )(?<![\w.])[-+]?(?:\d+\.?\d*(?:e[-+]?\d+)?|nan|inf)(?!\w)", "#", text, flags=re.I
    )
