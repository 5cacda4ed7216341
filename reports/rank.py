"""What won, and is that sure: repeated trainings of configurations, compared with each other and with papers.

Configurations are chosen by their validation mean. Test means are reported beside it and choose nothing. Only
finished trainings of full length are averaged; single search runs have a table of their own (`search_table`).
Where the study holds a race (searchspace/race.py), the order is the race's, over its own seeds, and the
headline comes from further seeds, which chose nothing.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any, Literal, NamedTuple

import numpy as np
import pandas as pd
from scipy import stats

ALPHA = 0.05
POWER = 0.8
NOT_COMPARABLE = "not comparable: "
NAN = math.nan


class Summary(NamedTuple):
    """Repeated runs of one configuration, in the metric's own unit.

    sd             sample standard deviation (n - 1), NaN for n = 1
    low, high      95 % interval of the mean, Student's t, NaN for n = 1
    max_deviation  largest distance of a run from the mean: the papers' "±"; NaN for n = 1
    """

    mean: float
    sd: float
    n: int
    low: float
    high: float
    max_deviation: float
    values: tuple[float, ...]


class Comparison(NamedTuple):
    """A two-sided t-test of mean(a) - mean(b), with the 95 % interval of the difference."""

    test: str
    difference: float
    low: float
    high: float
    t: float
    df: float
    p: float


class Standing(NamedTuple):
    """One confirmed configuration.

    rank            1 is best; equal means share a rank
    validation      of the seeds that chose
    headline        the same metric over further seeds; n = 0 without a race
    p               against the best, corrected over all comparisons (Holm; in a race over its pairs and
                    looks, and against the trial that put it out); NaN for the best and if untestable
    tied            cannot be told apart from the best, or cannot be tested; False for the best itself
    sampling_error  95 % half-width of the test mean from the choice of clips; NaN if not a share of clips
    interval        95 % of the test mean with both errors: seeds and choice of clips; NaN likewise
    tests           every test metric by its name without "test/"
    lost            runs not in the mean, by state ("SHORT": finished below full length, "NAN": no score)
    """

    rank: int
    trial: int
    validation: Summary
    test: Summary
    comparison: Comparison | None
    p: float
    tied: bool
    sampling_error: float
    parameters: float
    origin: str
    config: Mapping[str, Any]
    lost: Mapping[str, int]
    tests: Mapping[str, Summary]
    headline: Summary
    interval: tuple[float, float]


class Ranking(NamedTuple):
    """The confirmed configurations, best first.

    test      "paired t-test" if all shared repeats ran with the same seeds, else "Welch t-test"
    waiting   confirmed configurations without a single usable run: trial -> why, by state
    differing knobs on which the standings differ
    correction  what the p values are corrected by
    """

    standings: tuple[Standing, ...]
    waiting: Mapping[int, Mapping[str, int]]
    test: str
    differing: tuple[str, ...]
    correction: str = "Holm"

    @property
    def best(self) -> Standing | None:
        return self.standings[0] if self.standings else None

    @property
    def tied(self) -> tuple[Standing, ...]:
        """The configurations that cannot be told apart from the best."""
        return tuple(s for s in self.standings if s.tied)


class SearchRow(NamedTuple):
    """One full-length search run: a single number (n = 1), never mixed with the confirmed."""

    trial: int
    score: float
    parameters: float
    origin: str
    config: Mapping[str, Any]


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


# --- one sample, two samples --------------------------------------------------------------------------------


def summarise(values: Sequence[float]) -> Summary:
    """Mean, spread and interval of the finite values."""
    sample = np.asarray([v for v in values if math.isfinite(v)], dtype=float)
    n = len(sample)
    if n == 0:
        return Summary(NAN, NAN, 0, NAN, NAN, NAN, ())
    mean = float(sample.mean())
    if n == 1:
        return Summary(mean, NAN, 1, NAN, NAN, NAN, (mean,))
    sd = float(sample.std(ddof=1))
    half = float(stats.t.ppf(1 - ALPHA / 2, n - 1)) * sd / math.sqrt(n)
    deviation = float(np.abs(sample - mean).max())
    return Summary(mean, sd, n, mean - half, mean + half, deviation, tuple(float(v) for v in sample))


def compare(
    a: Sequence[float], b: Sequence[float], test: Literal["welch", "pooled", "paired"] = "welch"
) -> Comparison:
    """Two-sided t-test of mean(a) - mean(b): Welch, pooled (Student, equal variances) or paired.

    All NaN but the difference when a sample has one run, or when the runs differ but show no spread at all:
    three times the same number is a coarse metric, not certainty.
    """
    first, second = np.asarray(a, dtype=float), np.asarray(b, dtype=float)
    if test == "paired" and len(first) != len(second):
        raise ValueError(
            f"a paired test needs as many runs on both sides, found {len(first)} and {len(second)}"
        )
    if min(len(first), len(second)) == 0:
        return Comparison(test, NAN, NAN, NAN, NAN, NAN, NAN)
    difference = float(first.mean() - second.mean())
    if min(len(first), len(second)) < 2:
        return Comparison(test, difference, NAN, NAN, NAN, NAN, NAN)
    error, df = _standard_error(first, second, test)
    if error < 1e-12:
        same = abs(difference) < 1e-12
        return Comparison(test, difference, NAN, NAN, NAN, NAN, 1.0 if same else NAN)
    return _comparison(test, difference, error, df)


def _standard_error(first: np.ndarray, second: np.ndarray, test: str) -> tuple[float, float]:
    if test == "paired":
        gaps = first - second
        return float(gaps.std(ddof=1)) / math.sqrt(len(gaps)), len(gaps) - 1.0
    spreads = (float(first.var(ddof=1)), float(second.var(ddof=1)))
    if test == "pooled":
        df = len(first) + len(second) - 2
        pooled = (spreads[0] * (len(first) - 1) + spreads[1] * (len(second) - 1)) / df
        return math.sqrt(pooled * (1 / len(first) + 1 / len(second))), float(df)
    return _welch(spreads[0], len(first), spreads[1], len(second))


def _welch(var_a: float, n_a: int, var_b: float, n_b: int) -> tuple[float, float]:
    """Standard error and the Welch-Satterthwaite degrees of freedom."""
    a, b = var_a / n_a, var_b / n_b
    if a + b == 0:
        return 0.0, NAN
    return math.sqrt(a + b), (a + b) ** 2 / (a**2 / (n_a - 1) + b**2 / (n_b - 1))


def _comparison(test: str, difference: float, error: float, df: float) -> Comparison:
    t = difference / error
    half = float(stats.t.ppf(1 - ALPHA / 2, df)) * error
    p = float(2 * stats.t.sf(abs(t), df))
    return Comparison(test, difference, difference - half, difference + half, t, df, p)


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down correction; a NaN stays NaN and is not counted as a comparison."""
    order = sorted((i for i, p in enumerate(p_values) if not math.isnan(p)), key=lambda i: p_values[i])
    adjusted = [NAN] * len(p_values)
    running = 0.0
    for step, index in enumerate(order):
        running = max(running, min(1.0, (len(order) - step) * p_values[index]))
        adjusted[index] = running
    return adjusted


def seeds_to_separate(
    difference: float, sd: float, power: float = POWER, alpha: float = ALPHA, *, paired: bool = False
) -> int | None:
    """Seeds each of two configurations needs so that a two-sided t-test sees `difference` with `power`.

    `sd` is a configuration's own, or with `paired` that of the differences. None when it cannot be said: no
    difference, no spread known, or beyond a million seeds.
    """
    if not (math.isfinite(difference) and math.isfinite(sd)) or difference == 0 or sd <= 0:
        return None
    effect = abs(difference) / sd
    low, high = 1, 2
    while _power(effect, high, alpha, paired) < power:
        low, high = high, high * 2
        if high > 1_000_000:
            return None
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if _power(effect, middle, alpha, paired) >= power else (middle, high)
    return high


def _power(effect: float, n: int, alpha: float, paired: bool) -> float:
    """Power of the two-sided t-test, n runs each, for a difference of `effect` standard deviations."""
    df = n - 1 if paired else 2 * n - 2
    critical = stats.t.ppf(1 - alpha / 2, df)
    centre = effect * math.sqrt(n if paired else n / 2)
    return float(stats.nct.sf(critical, df, centre) + stats.nct.cdf(-critical, df, centre))


def sampling_error(share: float, clips: int | None) -> float:
    """95 % half-width of a share of `clips` from the choice of clips (binomial, normal approximation)."""
    if not clips or not math.isfinite(share) or not 0 <= share <= 1:
        return NAN
    return float(stats.norm.ppf(1 - ALPHA / 2)) * math.sqrt(share * (1 - share) / clips)


def with_clips(summary: Summary, clips: int | None) -> tuple[float, float]:
    """95 % interval of a mean share of clips over seeds that allows for the choice of clips too.

    The variances of both add up (they are independent), with Welch-Satterthwaite degrees of freedom. A
    binomial variance is the most that clips can add to a mean over seeds. NaN for one seed, or no share.
    """
    share = summary.mean
    if summary.n < 2 or not clips or not 0 <= share <= 1:
        return NAN, NAN
    seeds, choice = summary.sd**2 / summary.n, share * (1 - share) / clips
    if seeds + choice == 0:
        return share, share
    df = (seeds + choice) ** 2 / (seeds**2 / (summary.n - 1)) if seeds else math.inf
    half = float(stats.t.ppf(1 - ALPHA / 2, df)) * math.sqrt(seeds + choice)
    return share - half, share + half


# --- the confirmed ------------------------------------------------------------------------------------------


def usable(runs: pd.DataFrame, epochs: int) -> pd.DataFrame:
    """The runs that may be compared: finished, at full length, with a finite score."""
    return runs[(runs["state"] == "COMPLETE") & (runs["epochs"] >= epochs) & np.isfinite(runs["score"])]


def ranking(
    runs: pd.DataFrame,
    *,
    epochs: int,
    mode: str = "max",
    test_metric: str = "",
    test_clips: int | None = None,
    race: Mapping[str, Any] | None = None,
) -> Ranking:
    """Rank the configurations of the confirmation phase by the mean of `score`.

    epochs       full length; shorter runs are left out and counted in `lost`
    test_metric  column reported, never ranked by; test_clips sizes its sampling error if a share of clips
    race         study.json's; without one (older studies) every confirmation run chooses and is tested
    """
    confirm = runs[runs["phase"] == "confirm"]
    lost = {trial: _lost(group, epochs) for trial, group in _by_trial(confirm).items()}
    groups = _by_trial(usable(confirm, epochs))
    waiting = {trial: counts for trial, counts in lost.items() if trial not in groups}
    if not groups:
        return Ranking((), waiting, "", ())
    clips = test_clips if is_share_of_clips(test_metric) else None
    paired = True
    if race:
        judged = _as_raced(groups, race)
    else:
        sign = -1 if mode == "max" else 1
        order = sorted(groups, key=lambda t: (sign * groups[t]["score"].mean(), -len(groups[t]), t))
        best, others = groups[order[0]], [groups[t] for t in order[1:]]
        paired = bool(others) and all(_same_seeds(best, other) for other in others)
        comparisons = [_against(best, other, paired) for other in others]
        corrected = holm([c.p for c in comparisons])
        judged = [
            _Judged(t, groups[t], None, comparison, p, comparison is not None and not p < ALPHA)
            for t, comparison, p in zip(order, [None, *comparisons], [NAN, *corrected])
        ]
    standings: list[Standing] = []
    for one in judged:
        standing = _standing(one, test_metric, clips, lost[one.trial])
        above = standings[-1] if standings and not race else None
        alike = above is not None and above.validation.mean == standing.validation.mean
        standings.append(standing._replace(rank=above.rank if above and alike else len(standings) + 1))
    test = "paired t-test" if paired else "Welch t-test"
    correction = "correction for pairs and looks" if race else "Holm"
    return Ranking(tuple(standings), waiting, test, differing([s.config for s in standings]), correction)


class _Judged(NamedTuple):
    """A configuration in its place: the runs that chose, those of the headline (None: the same ones)."""

    trial: int
    chose: pd.DataFrame
    further: pd.DataFrame | None
    comparison: Comparison | None
    p: float
    tied: bool


def _as_raced(groups: Mapping[int, pd.DataFrame], race: Mapping[str, Any]) -> list[_Judged]:
    """Those still in, as the race orders them, then those that are out, the last out first."""
    out = {drop["trial"]: drop for drop in race["dropped"]}
    counted = {t: int(out[t]["after"]) if t in out else int(race["seeds"]) for t in groups}
    chose = {t: group[group["repeat"] <= counted[t]] for t, group in groups.items()}
    further = {t: group[group["repeat"].isin(race["headline"])] for t, group in groups.items()}
    alive = [t for t in race["alive"] if t in groups]
    left = sorted(
        (t for t in groups if t not in alive), key=lambda t: (-counted[t], -chose[t]["score"].mean(), t)
    )
    first = (alive or left)[0]
    last = race["looks"].get(str(race["rounds"]))
    judged = []
    for trial in [*alive, *left]:
        comparison = _against(chose[first], chose[trial], paired=True) if trial != first else None
        p = NAN
        if trial in out and out[trial]["p"] is not None:
            p = min(1.0, out[trial]["p"] * race["level"] / out[trial]["level"])
        elif comparison is not None and trial in alive and last:
            p = min(1.0, comparison.p * race["level"] / last)
        judged.append(
            _Judged(trial, chose[trial], further[trial], comparison, p, trial in alive and trial != first)
        )
    return judged


def _by_trial(runs: pd.DataFrame) -> dict[int, pd.DataFrame]:
    return {
        trial: runs[runs["trial"] == trial].sort_values("repeat")
        for trial in sorted({int(t) for t in runs["trial"]})
    }


def _standing(one: _Judged, test_metric: str, clips: int | None, lost: Mapping[str, int]) -> Standing:
    tested = one.chose if one.further is None else one.further
    known = one.chose if len(one.chose) else tested  # a single finalist has further seeds only
    test = summarise(tested[test_metric].tolist() if test_metric in tested else [])
    return Standing(
        rank=0,
        trial=one.trial,
        validation=summarise(known["score"].tolist()),
        test=test,
        comparison=one.comparison,
        p=one.p,
        tied=one.tied,
        sampling_error=sampling_error(test.mean, clips),
        parameters=float(known["parameters"].iloc[0]),
        origin=str(known["origin"].iloc[0]),
        config=_config(known.to_dict("records")[0]),
        tests=_tests(tested),
        lost=lost,
        headline=summarise([] if one.further is None else one.further["score"].tolist()),
        interval=with_clips(test, clips),
    )


def _tests(group: pd.DataFrame) -> dict[str, Summary]:
    columns = [str(name) for name in group.columns if str(name).startswith("test/")]
    return {name.removeprefix("test/"): summarise(group[name].tolist()) for name in columns}


def is_share_of_clips(metric: str) -> bool:
    """Whether the metric is the share of clips answered rightly, so that its sampling error is binomial."""
    return metric.split("/", 1)[-1] == "scene_accuracy"


def _lost(group: pd.DataFrame, epochs: int) -> dict[str, int]:
    counts: dict[str, int] = {}
    for state, done, score in zip(group["state"], group["epochs"], group["score"]):
        if state == "COMPLETE":
            if done < epochs:
                state = "SHORT"
            elif not math.isfinite(score):
                state = "NAN"
            else:
                continue
        counts[state] = counts.get(state, 0) + 1
    return counts


def _config(row: Mapping[Any, Any]) -> dict[str, Any]:
    values = {str(k).removeprefix("config."): v for k, v in row.items() if str(k).startswith("config.")}
    return {k: v.item() if isinstance(v, np.generic) else v for k, v in values.items()}


def _same_seeds(a: pd.DataFrame, b: pd.DataFrame) -> bool:
    """Pairing by repeat means something only where the same repeat had the same seed on both sides."""
    seeds_a = dict(zip(a["repeat"], a["seed"]))
    seeds_b = dict(zip(b["repeat"], b["seed"]))
    shared = seeds_a.keys() & seeds_b.keys()
    return len(shared) >= 2 and all(seeds_a[r] == seeds_b[r] for r in shared)


def _against(best: pd.DataFrame, other: pd.DataFrame, paired: bool) -> Comparison:
    if not paired:
        return compare(best["score"].tolist(), other["score"].tolist(), "welch")
    both = best.merge(other, on="repeat", suffixes=("_a", "_b"))
    return compare(both["score_a"].tolist(), both["score_b"].tolist(), "paired")


def differing(configs: Sequence[Mapping[str, Any]]) -> tuple[str, ...]:
    """The knobs whose values are not the same in all configurations (missing equals missing)."""
    names = list(dict.fromkeys(name for config in configs for name in config))
    return tuple(n for n in names if len({_key(config.get(n)) for config in configs}) > 1)


def _key(value: Any) -> str:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    return repr(float(value)) if isinstance(value, int | float | np.number) else repr(value)


def label(result: Ranking, standing: Standing) -> str:
    """What tells a configuration from the others in words: at most two choices that differ, "" if none.

    A knob on which some configuration says "none" says nothing without its name, and is left out.
    """
    words = {name: [s.config.get(name) for s in result.standings] for name in result.differing}
    telling = [n for n, said in words.items() if all(isinstance(w, str) for w in said) and "none" not in said]
    return ", ".join(str(standing.config[name]) for name in telling[:2])


def search_table(runs: pd.DataFrame, *, epochs: int, mode: str = "max") -> tuple[SearchRow, ...]:
    """The full-length search runs, best first: one seed each, so neighbours in this table say nothing."""
    good = usable(runs[runs["phase"] == "search"], epochs)
    good = good.sort_values(["score", "trial"], ascending=[mode == "min", True])
    return tuple(
        SearchRow(int(r["trial"]), r["score"], r["parameters"], r["origin"], _config(r))
        for r in good.to_dict("records")
    )


# --- against the papers -------------------------------------------------------------------------------------


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
    error, df = _welch(ours.sd**2, ours.n, spread[0] ** 2, spread[1])
    if error == 0:
        return _refused("neither side shows any spread")
    found = _comparison("welch", ours.mean - float(row["value"]), error, df)
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
    return bool(values) and all(k in config and _key(v) == _key(config[k]) for k, v in values.items())


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
