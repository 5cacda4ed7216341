"""Printed rows beside our runs."""

import math
from typing import Any

import numpy as np
import pytest
import study_folders as folders
from scipy import stats
from study_folders import confirmed, ranked

from reports import rank, verdicts

ROW = folders.PUBLISHED[1]


def verdict(row: dict[str, Any], scores: list[float], corpus: str = "TUT 2018") -> verdicts.Verdict:
    runs = confirmed({4: [0.9] * len(scores)}, knobs={"framework": "csem"})
    runs["test/scene_accuracy"] = scores
    return verdicts.verdict(row, ranked(runs), corpus=corpus)


def test_verdicts_on_a_published_row() -> None:
    near = [0.785, 0.795, 0.79, 0.80]
    assert verdict(ROW, near).word == "reproduced"
    assert verdict(ROW, [v + 0.03 for v in near]).word == "better"
    assert verdict(ROW, [v - 0.03 for v in near]).word == "worse"
    same = verdict(ROW, near)
    assert (same.trial, same.against) == (4, "the same configuration")
    assert verdict(ROW | {"values": {"framework": "moe"}}, near).against == "the winner"
    sd = 0.0089 / verdicts.deviation_factor(10)
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
        found = verdicts.verdict(row, ranked(runs), corpus="TUT 2018", events=ours)
        assert (found.word, found.against) == ("reproduced", against)


def test_no_verdict_on_one_run_or_none() -> None:
    assert verdict(ROW, [0.79]).word == "not comparable: ours has 1 test run, a comparison needs 2"
    empty = rank.Ranking((), {}, "", ())
    assert (
        verdicts.verdict(ROW, empty, corpus="tut2018").word
        == "not comparable: nothing of ours is confirmed yet"
    )


def test_what_a_printed_spread_means() -> None:
    assert verdicts.deviation_factor(10) == pytest.approx(1.79, abs=0.01)
    assert verdicts.published_spread(0.01, "standard deviation of 5 runs") == (0.01, 5)
    sd, n = verdicts.published_spread(0.0089, "max deviation of 10 runs") or (0.0, 0)
    assert n == 10 and sd == pytest.approx(0.0089 / 1.79, rel=0.01)
    assert verdicts.published_spread(0.01, "max deviation of 1 runs") is None
    assert verdicts.published_spread(math.nan, "max deviation of 10 runs") is None
