"""One sample, two samples: means with their intervals, t-tests, and how many seeds they need."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
from scipy import stats

ALPHA = 0.05
POWER = 0.8
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
    return t_test(test, difference, error, df)


def _standard_error(first: np.ndarray, second: np.ndarray, test: str) -> tuple[float, float]:
    if test == "paired":
        gaps = first - second
        return float(gaps.std(ddof=1)) / math.sqrt(len(gaps)), len(gaps) - 1.0
    spreads = (float(first.var(ddof=1)), float(second.var(ddof=1)))
    if test == "pooled":
        df = len(first) + len(second) - 2
        pooled = (spreads[0] * (len(first) - 1) + spreads[1] * (len(second) - 1)) / df
        return math.sqrt(pooled * (1 / len(first) + 1 / len(second))), float(df)
    return welch(spreads[0], len(first), spreads[1], len(second))


def welch(var_a: float, n_a: int, var_b: float, n_b: int) -> tuple[float, float]:
    """Standard error and the Welch-Satterthwaite degrees of freedom."""
    a, b = var_a / n_a, var_b / n_b
    if a + b == 0:
        return 0.0, NAN
    return math.sqrt(a + b), (a + b) ** 2 / (a**2 / (n_a - 1) + b**2 / (n_b - 1))


def t_test(test: str, difference: float, error: float, df: float) -> Comparison:
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
