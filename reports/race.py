"""The race of the finalists, as study.json holds it: who dropped out when and why, and what the winner is
worth by seeds that did not choose it. The race itself is searchspace/race.py; here it is only read."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

from reports import units
from reports.collect import Study
from reports.rank import Ranking, Standing
from reports.statistics import Summary
from reports.tables import Table, mean_sd


class Lane(NamedTuple):
    """One finalist in the race; scores are validation's.

    searched  its score in the search, by which it was chosen: one seed
    raced     its seeds that counted
    further   seeds that chose nothing: the winner's, n = 0 for others
    fate      one line: what became of it, and why
    """

    trial: int
    searched: float
    raced: Summary
    further: Summary
    fate: str


class OverReport(NamedTuple):
    """By how much scores that chose the winner exceed its mean over further seeds, in the metric's own unit.

    search    its score in the search less that mean          race  the mean of its racing seeds less it
    low, high 95 % interval of the search's over-report, from the further seeds' spread; one seed of the
              search has no error of its own here, for that number itself was reported
    """

    search: float
    race: float
    low: float
    high: float


class RaceInfo(NamedTuple):
    """The race in values.

    lanes     the winner first, then its ties, then those that are out, the last out first
    level     the chance, at most, that any "A beats B" of it is false
    seeds     racing seeds of each at most; rounds: those all had; further: the winner's seeds after it
    over      False while it runs
    saved     runs not made because a configuration was out
    """

    metric: str
    lanes: tuple[Lane, ...]
    level: float
    seeds: int
    rounds: int
    further: int
    over: bool
    saved: int
    over_report: OverReport | None


def race_info(study: Study, result: Ranking) -> RaceInfo | None:
    """None for a study without a race (an older one, or nothing confirmed)."""
    race = study.record.get("race")
    if not isinstance(race, Mapping) or not result.standings:
        return None
    search = study.runs[study.runs["phase"] == "search"].set_index("trial")["score"]
    lanes = tuple(
        Lane(
            s.trial,
            float(search.get(s.trial, math.nan)),
            s.validation,
            s.headline,
            _fate(study, result, race, s),
        )
        for s in result.standings
    )
    saved = 0 if race["everyone"] else sum(int(race["seeds"]) - int(d["after"]) for d in race["dropped"])
    return RaceInfo(
        study.metric,
        lanes,
        float(race["level"]),
        int(race["seeds"]),
        int(race["rounds"]),
        len(race["headline"]),
        bool(race["over"]),
        saved,
        _over_report(lanes[0]),
    )


def race_table(info: RaceInfo) -> Table:
    """One row a finalist: what the search said, its racing seeds, its further seeds, and its fate."""
    on = units.scale(info.metric)
    unit = f", {on.unit}" if on.unit else ""
    rows = tuple(
        (
            str(lane.trial),
            units.score(lane.searched, on),
            mean_sd(lane.raced.mean, lane.raced.sd, on),
            str(lane.raced.n),
            mean_sd(lane.further.mean, lane.further.sd, on) if lane.further.n else units.NONE,
            str(lane.further.n) if lane.further.n else units.NONE,
            lane.fate,
        )
        for lane in info.lanes
    )
    columns = (
        "trial",
        f"search{unit}",
        f"race{unit}",
        "seeds",
        f"further seeds{unit}",
        "n",
        "what became of it",
    )
    return Table(columns, rows, frozenset(range(6)), frozenset({0}), _about(info))


def said(info: RaceInfo) -> tuple[str, ...]:
    """By how much the search over-reported the winner, in a sentence; none where nothing says that."""
    on, found = units.scale(info.metric), []
    first = info.lanes[0]
    over = info.over_report
    if over is not None and math.isfinite(over.search):
        searched, further = units.score(first.searched, on), units.score(first.further.mean, on)
        by = units.number(over.search * on.factor, 1 if on.unit else 3, sign=True)
        span = f" ({units.interval(over.low, over.high, on)})" if math.isfinite(over.low) else ""
        found.append(
            f"The search said {searched} {on.unit} of trial {first.trial}, its "
            f"{units.plural(first.further.n, 'further seed')} {further} on {on.split}: over-reported by {by} "
            f"{on.points}{span}.".replace("  ", " ").replace(" .", ".")
        )
    return tuple(found)


def _about(info: RaceInfo) -> str:
    state = "" if info.over else f"Still racing, {units.plural(info.rounds, 'round')} of {info.seeds} done. "
    if len(info.lanes) == 1 and not info.lanes[0].raced.n:
        return state
    text = (
        f"{state}All that are in run the same seeds, and from the third on a paired t-test looks after each. "
        f"The chance that any of these statements is false is at most {100 * info.level:.0f} %."
    )
    return text + (f" {units.plural(info.saved, 'run')} saved by dropping out." if info.saved else "")


def _fate(study: Study, result: Ranking, race: Mapping[str, Any], standing: Standing) -> str:
    on = units.scale(study.metric)
    drop = next((d for d in race["dropped"] if d["trial"] == standing.trial), None)
    if drop is not None and drop["by"] is None:
        return f"out after {units.plural(int(drop['after']), 'seed')}: {drop['reason']}"
    if drop is not None:
        gap = f"{units.score(drop['difference'], on)} {on.points}".rstrip()
        return (
            f"out after {units.plural(int(drop['after']), 'seed')}: {gap} below trial {drop['by']} "
            f"(p {units.p_value(drop['p'])}, held against {units.p_value(drop['level'])})"
        )
    if not race["over"]:
        return "still in"
    if standing is result.standings[0]:
        rest = "" if race["tied"] else ", alone" if len(result.standings) > 1 else ""
        return f"the winner{rest}"
    return f"tied with trial {race['winner']}: not told apart by {race['seeds']} seeds"


def _over_report(first: Lane) -> OverReport | None:
    if not first.further.n:
        return None
    further = first.further
    return OverReport(
        first.searched - further.mean,
        first.raced.mean - further.mean,
        first.searched - further.high,
        first.searched - further.low,
    )
