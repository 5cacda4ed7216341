"""Studies side by side: the same clips and the same objective, other families or other spaces.

`python -m reports STUDY STUDY …` prints the table and writes comparison.ipynb and comparison.html. The best
confirmed configuration of each study stands for it. As within a study, validation decides the order and the
test is made on validation; what the finalists did on the test split stands beside it.
"""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from reports import compare, cost, findings, units
from reports.collect import Study, StudyError
from reports.rank import Ranking, Standing
from reports.statistics import ALPHA, Comparison, holm
from reports.tables import Table, mean_sd


class Contestant(NamedTuple):
    """A study by its best confirmed configuration.

    against  the test against the first contestant on validation; None for the first, all NaN where one side
             has a single run
    p        Holm-corrected over all such tests
    """

    study: Study
    best: Standing
    confirmed: int
    against: Comparison | None
    p: float

    @property
    def tied(self) -> bool:
        """Cannot be told apart from the first, or cannot be tested; False for the first itself."""
        return self.against is not None and not self.p < ALPHA


class Contest(NamedTuple):
    """Contestants, best validation mean first; `without`: studies without a confirmed configuration."""

    contestants: tuple[Contestant, ...]
    without: tuple[Study, ...]


def contest(studies: Sequence[Study]) -> Contest:
    """Put studies in order. Raises StudyError for a study given twice, or for other clips, another objective
    or another length of training than the first one's."""
    _refuse_unlike(studies)
    ranked = [(study, findings.ranked(study)) for study in studies]
    known = [(study, result) for study, result in ranked if result.best is not None]
    sign = -1.0 if studies[0].mode == "max" else 1.0
    known.sort(key=lambda pair: sign * _best(pair[1]).validation.mean)
    tests = [_test(known[0][0], study) for study, _ in known[1:]]
    corrected = holm([found.p for found in tests])
    rows = zip(known, [None, *tests], [math.nan, *corrected])
    contestants = (
        Contestant(study, _best(result), len(result.standings), found, p)
        for (study, result), found, p in rows
    )
    return Contest(tuple(contestants), tuple(study for study, result in ranked if result.best is None))


def _refuse_unlike(studies: Sequence[Study]) -> None:
    first = studies[0]
    seen: set[Path] = set()
    for study in studies:
        home = study.folder.resolve()
        if home in seen:
            raise StudyError(f"{study.folder}: given twice")
        seen.add(home)
        told = [
            ("clips (data checksum)", *(str(s.record["data"].get("checksum", "")) for s in (study, first))),
            ("objective", *(f"{s.metric} ({s.mode})" for s in (study, first))),
            ("training length in epochs", *(str(s.epochs) for s in (study, first))),
        ]
        for what, ours, theirs in told:
            if ours != theirs:
                raise StudyError(
                    f"{study.folder} and {first.folder} differ in their {what}: {ours or 'none'} and "
                    f"{theirs or 'none'}; only studies of the same are compared"
                )


def _best(result: Ranking) -> Standing:
    assert result.best is not None
    return result.best


def _test(first: Study, other: Study) -> Comparison:
    """On the seeds that each was chosen by: paired where both ran with the same, else Welch's; NaN where a
    side has a single run."""
    try:
        ours, theirs = (
            compare.of_study(study, study.metric, None, further=False) for study in (first, other)
        )
        return compare.outcome(ours, theirs).found
    except compare.CompareError:
        return Comparison("", math.nan, math.nan, math.nan, math.nan, math.nan, math.nan)


def board(found: Contest) -> Table:
    """One row a study: its best configuration, how it stands against the first, what it and its search
    cost."""
    if not found.contestants:
        return Table(("study",), (), note=_waiting(found))
    first = found.contestants[0].study
    val, test = units.scale(first.metric), units.scale(first.test_metric)
    unit = f", {test.unit}" if test.unit else ""
    columns = (
        *("place", "study", "family", "trial", f"test{unit}", "test, 95 % interval", f"validation{unit}"),
        *("seeds", "difference on validation", "against the first", "parameters", "hours a run"),
        *("searched", "hours in all"),
    )
    rows = tuple(
        (
            str(place),
            str(one.study.record["name"]),
            str(one.best.config.get("family") or one.study.record["family"]),
            str(one.best.trial),
            mean_sd(one.best.test.mean, one.best.test.sd, test),
            units.mean_interval(one.best.test.low, one.best.test.high, test),
            mean_sd(one.best.validation.mean, one.best.validation.sd, val),
            str(one.best.validation.n),
            _difference(one, val),
            _verdict(one),
            units.size(one.best.parameters),
            _hours(one),
            str(int((one.study.runs["phase"] == "search").sum())),
            cost.total_hours(one.study).removesuffix("-hours") or units.NONE,
        )
        for place, one in enumerate(found.contestants, start=1)
    )
    return Table(
        columns, rows, frozenset({0, 3, 4, 5, 6, 7, 10, 11, 12, 13}), frozenset({0}), _waiting(found)
    )


def _difference(one: Contestant, on: units.Scale) -> str:
    if one.against is None or not math.isfinite(one.against.difference):
        return units.NONE
    gap = units.number(-one.against.difference * on.factor, 1 if on.unit else 3, sign=True)
    span = units.interval(-one.against.high, -one.against.low, on)
    return gap if span == units.NONE else f"{gap} ({span})"


def _verdict(one: Contestant) -> str:
    if one.against is None:
        return "first"
    if not math.isfinite(one.p):
        return "tied (no test)"
    text = units.p_value(one.p)
    p = text if text.startswith("<") else f"= {text}"
    return f"{'tied' if one.tied else 'worse'}, p {p} ({compare.NAMES[one.against.test]})"


def _hours(one: Contestant) -> str:
    found = cost.by_trial(one.study, "confirm")[one.best.trial]
    return f"{cost.hours(found.hours)} {found.device}"


def _waiting(found: Contest) -> str:
    names = ", ".join(str(study.record["name"]) for study in found.without)
    return f"Nothing is confirmed yet in: {names}." if names else ""


def headline(found: Contest) -> findings.Finding:
    """Which study's best is ahead, and is that sure."""
    if not found.contestants:
        return findings.Finding("", "No study has a confirmed configuration yet", "", ())
    first, *others = found.contestants
    on = units.scale(first.study.metric)
    reached = units.score(first.best.validation.mean, on, unit=True)
    family = first.best.config.get("family") or first.study.record["family"]
    name = f"{first.study.record['name']} ({family})"
    if not others:
        return findings.Finding("", f"Only {name} has a confirmed configuration", _waiting(found), ())
    tied = [str(one.study.record["name"]) for one in others if one.tied]
    ahead = f"{name} is ahead with {reached} {on.label} on validation"
    if tied:
        sure = f"No: it cannot be told apart from {', '.join(tied)}."
        return findings.Finding("", f"{ahead}, but not for sure", "", (sure,))
    worst = max(one.p for one in others)
    sure = f"As far as seeds go, yes: every other is worse (largest p {units.p_value(worst)} after Holm)."
    return findings.Finding("", ahead, "", (sure,))


def place_for(studies: Sequence[Study]) -> Path:
    """The folder that holds all studies: comparison.html is written there unless another is named."""
    return Path(os.path.commonpath([study.folder.resolve().parent for study in studies]))
