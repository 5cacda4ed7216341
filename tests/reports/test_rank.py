"""Who leads, who ties, and what is not ranked."""

import math

import pandas as pd
import pytest
import study_folders as folders
from scipy import stats
from study_folders import confirmed, ranked

from reports import rank, statistics


def test_ranking_by_validation_means() -> None:
    result = ranked(confirmed({3: [0.70, 0.72], 1: [0.80, 0.82, 0.81], 2: [0.81, 0.80, 0.805]}))
    assert [(s.rank, s.trial, s.validation.n) for s in result.standings] == [(1, 1, 3), (2, 2, 3), (3, 3, 2)]
    assert result.test == "Welch t-test"
    best, near, far = result.standings
    assert best.comparison is None and not best.tied and math.isnan(best.p)
    assert near.tied and not far.tied and far.p < 0.05
    raw = [statistics.compare([0.80, 0.82, 0.81], other).p for other in ([0.81, 0.80, 0.805], [0.70, 0.72])]
    assert [near.p, far.p] == pytest.approx(statistics.holm(raw))
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
