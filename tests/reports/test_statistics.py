"""The authors' own 20 runs, the formulas against scipy or a slow loop, and every edge."""

import math
from typing import Any

import numpy as np
import pytest
from scipy import stats

from reports import statistics

# The 20 raw runs behind Table III of the cSEM paper, per cent.
MLHE = (77.79, 76.69, 78.28, 77.98, 76.93, 78.41, 78.43, 76.87, 76.66, 77.65)
CSEM = (78.39, 79.39, 78.62, 78.23, 79.99, 79.56, 78.85, 79.53, 79.76, 78.88)


def test_the_papers_own_runs() -> None:
    mlhe, csem = statistics.summarise(MLHE), statistics.summarise(CSEM)
    assert (round(mlhe.mean, 2), round(csem.mean, 2)) == (77.57, 79.12)
    assert (round(mlhe.sd, 2), round(csem.sd, 2)) == (0.72, 0.61)
    assert (round(mlhe.max_deviation, 2), round(csem.max_deviation, 2)) == (0.91, 0.89)  # the printed "±"
    found = statistics.compare(CSEM, MLHE, "pooled")
    assert (round(found.t, 2), found.df) == (5.21, 18)
    assert found.p == pytest.approx(5.9e-5, abs=0.05e-5)


def test_summary_of_few_runs() -> None:
    assert statistics.summarise([1.0, 2.0, 3.0, math.nan]).n == 3
    low, high = stats.t.interval(0.95, 2, loc=2.0, scale=stats.sem([1.0, 2.0, 3.0]))
    three = statistics.summarise([1.0, 2.0, 3.0])
    assert (three.low, three.high) == (pytest.approx(low), pytest.approx(high))
    one = statistics.summarise([0.7])
    assert (one.mean, one.n, one.values) == (0.7, 1, (0.7,))
    assert all(math.isnan(x) for x in (one.sd, one.low, one.high, one.max_deviation))
    none = statistics.summarise([])
    assert none.n == 0 and math.isnan(none.mean)


@pytest.mark.parametrize("test", ["welch", "pooled", "paired"])
def test_t_tests_agree_with_scipy(test: Any) -> None:
    rng = np.random.default_rng(1)
    a, b = rng.normal(0.8, 0.01, 7), rng.normal(0.79, 0.03, 7)
    expected = {
        "welch": lambda: stats.ttest_ind(a, b, equal_var=False),
        "pooled": lambda: stats.ttest_ind(a, b),
        "paired": lambda: stats.ttest_rel(a, b),
    }[test]()
    found = statistics.compare(a.tolist(), b.tolist(), test)
    span = expected.confidence_interval(0.95)
    assert (found.t, found.p, found.df) == pytest.approx((expected.statistic, expected.pvalue, expected.df))
    assert (found.low, found.high) == pytest.approx((span.low, span.high))


def test_no_test_without_spread_or_with_one_run() -> None:
    assert math.isnan(statistics.compare([0.8], [0.7, 0.71]).p)
    assert statistics.compare([0.8], [0.7, 0.72]).difference == pytest.approx(0.09)
    assert math.isnan(statistics.compare([0.8, 0.8], [0.7, 0.7]).p)  # a coarse metric, not certainty
    assert statistics.compare([0.8, 0.8], [0.8, 0.8]).p == 1.0
    assert math.isnan(statistics.compare([], [0.8]).difference)
    with pytest.raises(ValueError, match="2 and 1"):
        statistics.compare([0.8, 0.9], [0.7], "paired")


def test_holm_against_the_slow_definition() -> None:
    """Holm 1979: the adjusted p of the i-th smallest is max over j <= i of (m - j + 1) p_(j), at most 1."""
    p_values = [0.04, 0.01, 0.03, 0.5]
    ordered = sorted(p_values)
    m = len(ordered)
    slow = [min(1.0, max((m - j) * ordered[j] for j in range(ordered.index(p) + 1))) for p in p_values]
    assert statistics.holm(p_values) == pytest.approx(slow)
    with_gap = statistics.holm([0.01, math.nan, 0.02])
    assert (
        with_gap[0] == pytest.approx(0.02) and math.isnan(with_gap[1]) and with_gap[2] == pytest.approx(0.02)
    )
    assert statistics.holm([]) == []


def test_seeds_needed() -> None:
    assert [statistics.seeds_to_separate(d, 0.67) for d in (1.0, 0.5, 0.25)] == [9, 30, 114]
    assert statistics.seeds_to_separate(-1.0, 0.67) == 9
    for difference, sd in ((0.0, 0.67), (math.nan, 1.0), (1.0, math.nan), (1.0, 0.0), (1e-9, 1.0)):
        assert statistics.seeds_to_separate(difference, sd) is None


def test_seeds_needed_against_simulation() -> None:
    rng = np.random.default_rng(0)
    n = statistics.seeds_to_separate(1.0, 0.67)
    assert n is not None
    seen = {
        size: float(
            np.mean(
                stats.ttest_ind(
                    rng.normal(0, 0.67, (20_000, size)), rng.normal(1, 0.67, (20_000, size)), axis=1
                ).pvalue
                < 0.05
            )
        )
        for size in (n - 1, n)
    }
    assert seen[n - 1] < 0.80 <= seen[n] + 0.005


def test_sampling_error_of_the_papers_test_sets() -> None:
    assert statistics.sampling_error(0.81, 2518) == pytest.approx(0.0153, abs=5e-5)
    assert statistics.sampling_error(0.885, 4185) == pytest.approx(0.0097, abs=5e-5)
    assert math.isnan(statistics.sampling_error(0.8, None)) and math.isnan(
        statistics.sampling_error(math.nan, 10)
    )
