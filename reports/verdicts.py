"""Our runs beside a paper's printed rows: reproduced, better, worse, or not comparable and why."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from functools import cache
from typing import Any, NamedTuple

import numpy as np

from reports.rank import Ranking, value_key
from reports.statistics import ALPHA, NAN, Summary, summarise, t_test, welch

NOT_COMPARABLE = "not comparable: "


class Verdict(NamedTuple):
    """A published row beside ours.

    word     "reproduced" | "better" | "worse" | "not comparable: <why>"
    against  "the same configuration" | "the winner" | ""; `trial` says which trial that is
    """

    word: str
    trial: int | None
    against: str
    difference: float
    low: float
    high: float


def verdict(
    row: Mapping[str, Any], result: Ranking, *, corpus: str, mode: str = "max", events: str = ""
) -> Verdict:
    """Compare a published row with our test runs of the same configuration, or else with the winner's.

    A configuration is the same only with event labels from the same source, where `events` names ours.
    Compared in the row's own metric. Its ± becomes a standard deviation (`published_spread`), then Welch's
    test at 5 % on means of runs.
    """
    why = _not_comparable(row, corpus)
    if why or result.best is None:
        return _refused(why or "nothing of ours is confirmed yet")
    labels = not events or row.get("events") in (None, "", events.removesuffix(":0"))
    tested = [s for s in result.standings if s.test.n or s is result.best]
    same = next((s for s in tested if labels and _agrees(row.get("values") or {}, s.config)), None)
    standing, against = (same, "the same configuration") if same else (result.best, "the winner")
    found = judge(standing.tests.get(str(row.get("metric")), summarise([])), row, mode)
    comparable = not found.word.startswith(NOT_COMPARABLE)
    return found._replace(trial=standing.trial, against=against) if comparable else found


def judge(ours: Summary, row: Mapping[str, Any], mode: str = "max") -> Verdict:
    """Our runs against a printed value, without a trial. A value whose ± is unknown gets no verdict."""
    if ours.n < 2:
        return _refused(
            f"ours has {ours.n or 'no'} test run{'s' if ours.n != 1 else ''}, a comparison needs 2"
        )
    if row.get("value") is None:
        return _refused("it prints no value")
    spread = published_spread(row.get("spread"), str(row.get("spread_kind", "")))
    if spread is None:
        return _refused("its ± is unknown")
    error, df = welch(ours.sd**2, ours.n, spread[0] ** 2, spread[1])
    if error == 0:
        return _refused("neither side shows any spread")
    found = t_test("welch", ours.mean - float(row["value"]), error, df)
    gain = found.difference if mode == "max" else -found.difference
    word = "reproduced" if not found.p < ALPHA else ("better" if gain > 0 else "worse")
    return Verdict(word, None, "", found.difference, found.low, found.high)


def _refused(why: str) -> Verdict:
    return Verdict(NOT_COMPARABLE + why, None, "", NAN, NAN, NAN)


def _not_comparable(row: Mapping[str, Any], corpus: str) -> str:
    theirs = str(row.get("corpus", "unknown"))
    if _plain(theirs) != _plain(corpus):
        return f"other corpus ({theirs}, ours is {corpus})"
    if row.get("split") != "test":
        return f"other split ({row.get('split')}, not test)"
    value = row.get("value")
    if not isinstance(value, int | float) or not math.isfinite(value):
        return "it prints no value"
    return ""


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())


def _agrees(values: Mapping[str, Any], config: Mapping[str, Any]) -> bool:
    """Whether every knob the published row names has that value here; naming none agrees with none."""
    return bool(values) and all(
        k in config and value_key(v) == value_key(config[k]) for k, v in values.items()
    )


def published_spread(spread: Any, kind: str) -> tuple[float, int] | None:
    """A printed ± as (standard deviation, number of runs); None when the paper does not say what its ± is.

    Known kinds: "max deviation of N runs", "standard deviation of N runs".
    """
    found = re.fullmatch(r"(max(?:imum)? deviation|standard deviation) of (\d+) runs", kind.strip())
    if found is None or not isinstance(spread, int | float) or not math.isfinite(spread) or spread < 0:
        return None
    n = int(found[2])
    if n < 2:
        return None
    return (float(spread) if found[1] == "standard deviation" else float(spread) / deviation_factor(n)), n


@cache
def deviation_factor(n: int) -> float:
    """Median of max |x - mean| / sd over n normal runs: about 1.79 for n = 10 (5-95 %: 1.3 to 2.3)."""
    draws = np.random.default_rng(0).standard_normal((20_000, n))
    draws -= draws.mean(axis=1, keepdims=True)
    return float(np.median(np.abs(draws).max(axis=1) / draws.std(axis=1, ddof=1)))
