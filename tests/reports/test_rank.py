"""The statistics: the authors' own 20 runs, the formulas against scipy or a slow loop, and every edge."""

import math
from typing import Any

import numpy as np
import pandas as pd
import pytest
import study_folders as folders
from scipy import stats

from reports import rank

# The 20 raw runs behind Table III of the cSEM paper, per cent.
MLHE = (77.79, 76.69, 78.28, 77.98, 76.93, 78.41, 78.43, 76.87, 76.66, 77.65)
CSEM = (78.39, 79.39, 78.62, 78.23, 79.99, 79.56, 78.85, 79.53, 79.76, 78.88)


def test_the_papers_own_runs() -> None:
    mlhe, csem = rank.summarise(MLHE), rank.summarise(CSEM)
    assert (round(mlhe.mean, 2), round(csem.mean, 2)) == (77.57, 79.12)
    assert (round(mlhe.sd, 2), round(csem.sd, 2)) == (0.72, 0.61)
    assert (round(mlhe.max_deviation, 2), round(csem.max_deviation, 2)) == (0.91, 0.89)  # the printed "±"
    found = rank.compare(CSEM, MLHE, "pooled")
    assert (round(found.t, 2), found.df) == (5.21, 18)
    assert found.p == pytest.approx(5.9e-5, abs=0.05e-5)


def test_summary_of_few_runs() -> None:
    assert rank.summarise([1.0, 2.0, 3.0, math.nan]).n == 3
    low, high = stats.t.interval(0.95, 2, loc=2.0, scale=stats.sem([1.0, 2.0, 3.0]))
    three = rank.summarise([1.0, 2.0, 3.0])
    assert (three.low, three.high) == (pytest.approx(low), pytest.approx(high))
    one = rank.summarise([0.7])
    assert (one.mean, one.n, one.values) == (0.7, 1, (0.7,))
    assert all(math.isnan(x) for x in (one.sd, one.low, one.high, one.max_deviation))
    none = rank.summarise([])
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
    found = rank.compare(a.tolist(), b.tolist(), test)
    span = expected.confidence_interval(0.95)
    assert (found.t, found.p, found.df) == pytest.approx((expected.statistic, expected.pvalue, expected.df))
    assert (found.low, found.high) == pytest.approx((span.low, span.high))


def test_no_test_without_spread_or_with_one_run() -> None:
    assert math.isnan(rank.compare([0.8], [0.7, 0.71]).p)
    assert rank.compare([0.8], [0.7, 0.72]).difference == pytest.approx(0.09)
    assert math.isnan(rank.compare([0.8, 0.8], [0.7, 0.7]).p)  # a coarse metric, not certainty
    assert rank.compare([0.8, 0.8], [0.8, 0.8]).p == 1.0
    assert math.isnan(rank.compare([], [0.8]).difference)
    with pytest.raises(ValueError, match="2 and 1"):
        rank.compare([0.8, 0.9], [0.7], "paired")


def test_holm_against_the_slow_definition() -> None:
    """Holm 1979: the adjusted p of the i-th smallest is max over j <= i of (m - j + 1) p_(j), at most 1."""
    p_values = [0.04, 0.01, 0.03, 0.5]
    ordered = sorted(p_values)
    m = len(ordered)
    slow = [min(1.0, max((m - j) * ordered[j] for j in range(ordered.index(p) + 1))) for p in p_values]
    assert rank.holm(p_values) == pytest.approx(slow)
    with_gap = rank.holm([0.01, math.nan, 0.02])
    assert (
        with_gap[0] == pytest.approx(0.02) and math.isnan(with_gap[1]) and with_gap[2] == pytest.approx(0.02)
    )
    assert rank.holm([]) == []


def test_seeds_needed() -> None:
    assert [rank.seeds_to_separate(d, 0.67) for d in (1.0, 0.5, 0.25)] == [9, 30, 114]
    assert rank.seeds_to_separate(-1.0, 0.67) == 9
    for difference, sd in ((0.0, 0.67), (math.nan, 1.0), (1.0, math.nan), (1.0, 0.0), (1e-9, 1.0)):
        assert rank.seeds_to_separate(difference, sd) is None


def test_seeds_needed_against_simulation() -> None:
    rng = np.random.default_rng(0)
    n = rank.seeds_to_separate(1.0, 0.67)
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
    assert rank.sampling_error(0.81, 2518) == pytest.approx(0.0153, abs=5e-5)
    assert rank.sampling_error(0.885, 4185) == pytest.approx(0.0097, abs=5e-5)
    assert math.isnan(rank.sampling_error(0.8, None)) and math.isnan(rank.sampling_error(math.nan, 10))


def confirmed(scores: dict[int, list[float]], **changes: Any) -> pd.DataFrame:
    rows = [
        folders.run(trial, score, repeat=i + 1, **changes)
        for trial, all_ in scores.items()
        for i, score in enumerate(all_)
    ]
    return pd.DataFrame(rows)


def ranked(runs: pd.DataFrame, **changes: Any) -> rank.Ranking:
    return rank.ranking(
        runs, **({"epochs": 9, "test_metric": "test/scene_accuracy", "test_clips": 100} | changes)
    )


def test_ranking_by_validation_means() -> None:
    result = ranked(confirmed({3: [0.70, 0.72], 1: [0.80, 0.82, 0.81], 2: [0.81, 0.80, 0.805]}))
    assert [(s.rank, s.trial, s.validation.n) for s in result.standings] == [(1, 1, 3), (2, 2, 3), (3, 3, 2)]
    assert result.test == "Welch t-test"
    best, near, far = result.standings
    assert best.comparison is None and not best.tied and math.isnan(best.p)
    assert near.tied and not far.tied and far.p < 0.05
    raw = [rank.compare([0.80, 0.82, 0.81], other).p for other in ([0.81, 0.80, 0.805], [0.70, 0.72])]
    assert [near.p, far.p] == pytest.approx(rank.holm(raw))
    assert best.test.mean == pytest.approx(0.80) and best.tests["scene_accuracy"] == best.test
    assert best.sampling_error == pytest.approx(1.96 * math.sqrt(0.8 * 0.2 / 100), abs=1e-4)
    assert result.tied == (near,)


def test_the_test_column_never_decides() -> None:
    runs = confirmed({0: [0.80, 0.81], 1: [0.70, 0.71]})
    runs["test/scene_accuracy"] = [0.1, 0.1, 0.9, 0.9]
    assert [s.trial for s in ranked(runs).standings] == [0, 1]


def test_lower_is_better_when_asked() -> None:
    assert [s.trial for s in ranked(confirmed({0: [0.8, 0.9], 1: [0.3, 0.2]}), mode="min").standings] == [
        1,
        0,
    ]


def test_only_finished_full_length_runs_are_ranked() -> None:
    rows = [
        folders.run(0, 0.70, repeat=1),
        folders.run(0, 0.99, repeat=2, epochs=3),
        folders.run(0, 0.99, repeat=3, state="PRUNED"),
        folders.run(0, math.nan, repeat=4),
        folders.run(0, 0.99, repeat=5, state="DIVERGED"),
        folders.run(1, 0.99, repeat=1, state="FAIL"),
        folders.run(2, 0.99),  # a search run
    ]
    result = ranked(pd.DataFrame(rows))
    (only,) = result.standings
    assert (only.trial, only.validation.mean, only.validation.n) == (0, 0.70, 1)
    assert only.lost == {"SHORT": 1, "PRUNED": 1, "NAN": 1, "DIVERGED": 1}
    assert result.waiting == {1: {"FAIL": 1}}


@pytest.mark.parametrize("runs", [pd.DataFrame([folders.run(0, 0.7)]), confirmed({0: [0.7]}, state="FAIL")])
def test_nothing_confirmed(runs: pd.DataFrame) -> None:
    result = ranked(runs)
    assert result.standings == () and result.best is None and result.tied == ()
    assert ranked(runs.iloc[:0]).standings == ()


def test_single_seeds_are_ties_and_equal_means_share_a_rank() -> None:
    result = ranked(confirmed({0: [0.8], 1: [0.8], 2: [0.7]}))
    assert [(s.rank, s.trial, s.tied) for s in result.standings] == [
        (1, 0, False),
        (1, 1, True),
        (3, 2, True),
    ]
    assert all(math.isnan(s.p) for s in result.standings)


def test_pairing_needs_the_same_seeds() -> None:
    runs = confirmed({0: [0.80, 0.82, 0.81], 1: [0.79, 0.81, 0.805]})
    assert ranked(runs).test == "Welch t-test"
    runs["seed"] = runs["repeat"]
    result = ranked(runs)
    expected = stats.ttest_rel([0.80, 0.82, 0.81], [0.79, 0.81, 0.805]).pvalue
    assert result.test == "paired t-test" and result.standings[1].p == pytest.approx(expected)


def test_differing_knobs_and_labels() -> None:
    rows = [
        folders.run(0, 0.8, repeat=1, knobs={"framework": "csem", "lr": 0.001, "schedule": "none"}),
        folders.run(1, 0.7, repeat=1, knobs={"framework": "moe", "lr": 0.002, "schedule": "cosine"}),
    ]
    result = ranked(pd.DataFrame(rows))
    assert result.differing == ("framework", "lr", "schedule")
    assert [rank.label(result, s) for s in result.standings] == ["csem", "moe"]
    assert rank.differing([{"a": 1, "b": None}, {"a": 1.0}, {"b": math.nan}]) == ("a",)


def test_search_runs_have_their_own_table() -> None:
    rows = [
        folders.run(0, 0.7),
        folders.run(1, 0.9),
        folders.run(2, 0.95, epochs=3, state="PRUNED"),
        folders.run(3, math.nan),
        folders.run(1, 0.99, repeat=1),
    ]
    found = rank.search_table(pd.DataFrame(rows), epochs=9)
    assert [(r.trial, r.score) for r in found] == [(1, 0.9), (0, 0.7)]


# --- against the papers -------------------------------------------------------------------------------------

ROW = folders.PUBLISHED[1]


def verdict(row: dict[str, Any], scores: list[float], corpus: str = "TUT 2018") -> rank.Verdict:
    runs = confirmed({4: [0.9] * len(scores)}, knobs={"framework": "csem"})
    runs["test/scene_accuracy"] = scores
    return rank.verdict(row, ranked(runs), corpus=corpus)


def test_verdicts_on_a_published_row() -> None:
    near = [0.785, 0.795, 0.79, 0.80]
    assert verdict(ROW, near).word == "reproduced"
    assert verdict(ROW, [v + 0.03 for v in near]).word == "better"
    assert verdict(ROW, [v - 0.03 for v in near]).word == "worse"
    same = verdict(ROW, near)
    assert (same.trial, same.against) == (4, "the same configuration")
    assert verdict(ROW | {"values": {"framework": "moe"}}, near).against == "the winner"
    sd = 0.0089 / rank.deviation_factor(10)
    expected = stats.ttest_ind_from_stats(
        np.mean(near), np.std(near, ddof=1), 4, 0.7912, sd, 10, equal_var=False
    )
    error = np.sqrt(np.var(near, ddof=1) / 4 + sd**2 / 10)
    assert same.difference / error == pytest.approx(expected.statistic)


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"corpus": "tau2019"}, "other corpus (tau2019, ours is TUT 2018)"),
        ({"split": "validation"}, "other split (validation, not test)"),
        ({"metric": "event_map"}, "ours has no test runs, a comparison needs 2"),
        ({"spread": None}, "its ± is unknown"),
        ({"spread_kind": "unknown"}, "its ± is unknown"),
        ({"value": None}, "it prints no value"),
    ],
)
def test_rows_that_cannot_be_compared(changes: dict[str, Any], why: str) -> None:
    found = verdict(ROW | changes, [0.79, 0.80])
    assert found.word == f"not comparable: {why}" and found.trial is None and math.isnan(found.difference)


def test_another_source_of_event_labels_is_another_configuration() -> None:
    runs = confirmed({4: [0.9] * 4}, knobs={"framework": "csem"})
    runs["test/scene_accuracy"] = [0.785, 0.795, 0.79, 0.80]
    row = ROW | {"events": "labels@0.8"}
    for ours, against in {
        "labels": "the winner", "labels@0.8:0": "the same configuration", "": "the same configuration",
    }.items():  # fmt: skip
        found = rank.verdict(row, ranked(runs), corpus="TUT 2018", events=ours)
        assert (found.word, found.against) == ("reproduced", against)


def test_no_verdict_on_one_run_or_none() -> None:
    assert verdict(ROW, [0.79]).word == "not comparable: ours has 1 test run, a comparison needs 2"
    empty = rank.Ranking((), {}, "", ())
    assert (
        rank.verdict(ROW, empty, corpus="tut2018").word == "not comparable: nothing of ours is confirmed yet"
    )


def test_what_a_printed_spread_means() -> None:
    assert rank.deviation_factor(10) == pytest.approx(1.79, abs=0.01)
    assert rank.published_spread(0.01, "standard deviation of 5 runs") == (0.01, 5)
    sd, n = rank.published_spread(0.0089, "max deviation of 10 runs") or (0.0, 0)
    assert n == 10 and sd == pytest.approx(0.0089 / 1.79, rel=0.01)
    assert rank.published_spread(0.01, "max deviation of 1 runs") is None
    assert rank.published_spread(math.nan, "max deviation of 10 runs") is None
