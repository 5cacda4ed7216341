"""What the report says of a race agrees with the race, and its figures with plain arithmetic."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import study_folders as folders
from scipy import stats

from reports import collect, comparison, findings, race, statistics, tables
from reports.__main__ import summary
from searchspace.race import Race
from searchspace.study import Job

SEARCHED = {0: 0.86, 1: 0.85, 2: 0.84}


def raced(folder: Path, scores: np.ndarray, *, everyone: bool = False, rounds: int | None = None) -> Any:
    """A study whose search ended in SEARCHED and whose race saw `scores` (trials, all seeds)."""
    seeds = scores.shape[1] // 2
    finalists = [Job(t, t, 0, "search", {}, t, 9, f"runs/t{t:04d}-r0") for t in SEARCHED]
    one = Race(finalists, seeds, seeds, 0, everyone)
    rows: list[dict[str, Any]] = []
    while len(rows) < (10**6 if rounds is None else 3 * rounds) and (jobs := one.next_jobs(rows)):
        (job,) = jobs
        row = folders.run(job.trial, float(scores[job.trial, job.repeat - 1]), repeat=job.repeat)
        row |= {"seed": job.seed}
        if not job.test:
            del row["test/scene_accuracy"]
        rows.append(row)
    search = [folders.run(t, s) for t, s in SEARCHED.items()]
    folders.write(folder, search + rows, confirm=3, seeds=seeds, race=one.as_record(rows))
    return collect.load(folder), one.standing(rows), rows


@pytest.fixture
def scores() -> np.ndarray:
    rng = np.random.default_rng(2)
    return rng.normal([[0.80], [0.83], [0.826]], 0.004, (3, 10))


def test_the_order_and_the_headline_are_the_races(tmp_path: Path, scores: np.ndarray) -> None:
    study, standing, rows = raced(tmp_path / "s", scores)
    result = findings.ranked(study)
    assert [s.trial for s in result.standings] == [*standing.alive, *(d.trial for d in standing.dropped)]
    assert [d.trial for d in standing.dropped] == [0] and standing.winner == 1
    best, tied, out = result.standings
    assert best.validation.values == pytest.approx(scores[1, :5]) and tied.tied and not out.tied
    assert best.headline.values == pytest.approx(scores[1, 5:])
    assert best.test.values == pytest.approx(scores[1, 5:] - 0.01)
    assert tied.test.n == 0 and tied.headline.n == 0
    drop = standing.dropped[0]
    assert out.validation.n == drop.after and out.p == pytest.approx(drop.p * 0.05 / drop.level)
    gap = stats.ttest_rel(scores[1, :5], scores[2, :5]).pvalue
    assert tied.p == pytest.approx(min(1, gap * 3 / 0.5)) and tied.p > 0.05


def test_the_race_is_told_line_by_line(tmp_path: Path, scores: np.ndarray) -> None:
    study, standing, _ = raced(tmp_path / "s", scores)
    info = race.race_info(study, findings.ranked(study))
    assert info is not None and info.over and info.level == 0.05
    assert [lane.fate.split(":")[0] for lane in info.lanes] == [
        "the winner",
        "tied with trial 1",
        f"out after {standing.dropped[0].after} seeds",
    ]
    assert "below trial" in info.lanes[2].fate and info.saved == 5 - standing.dropped[0].after
    over = info.over_report
    assert over is not None and over.search == pytest.approx(0.85 - scores[1, 5:].mean())
    assert over.race == pytest.approx(scores[1, :5].mean() - scores[1, 5:].mean())
    low, high = stats.t.interval(0.95, 4, loc=scores[1, 5:].mean(), scale=stats.sem(scores[1, 5:]))
    assert (over.low, over.high) == (pytest.approx(0.85 - high), pytest.approx(0.85 - low))
    text = tables.as_text(race.race_table(info))
    assert len(text.splitlines()) == 4 and "–" in text
    sentences = race.said(info)
    assert sentences[0].startswith("The search said 85.0 % of trial 1, its 5 further seeds 8")
    assert "over-reported by +" in sentences[0] and len(sentences) == 1
    told = findings.finding(study, findings.ranked(study)).sure
    assert len([text for text in told if "more seeds each" in text]) == 1 and told[1] in summary(study)
    assert "the winner" in summary(study) and "out after" in summary(study)


def test_the_seeds_still_needed_are_those_of_a_paired_test(tmp_path: Path, scores: np.ndarray) -> None:
    study, _, _ = raced(tmp_path / "s", scores)
    needed = findings.needed_seeds(findings.ranked(study))
    assert needed and needed > 5
    told = findings.finding(study, findings.ranked(study)).sure[1]
    assert told.startswith(
        f"About {needed - 5:,} more seeds each ({needed:,} in all) would separate trials 1"
    )
    gaps = scores[1, :5] - scores[2, :5]
    rng, n = np.random.default_rng(0), needed
    seen = {
        size: float(
            np.mean(
                stats.ttest_1samp(rng.normal(gaps.mean(), gaps.std(ddof=1), (20_000, size)), 0, axis=1).pvalue
                < 0.05
            )
        )
        for size in (n - 1, n)
    }
    assert seen[n - 1] < 0.805 and seen[n] > 0.795


def test_a_race_under_way_and_one_for_everyone(tmp_path: Path, scores: np.ndarray) -> None:
    study, standing, _ = raced(tmp_path / "half", scores, rounds=2)
    assert not standing.over
    info = race.race_info(study, findings.ranked(study))
    assert info is not None and not info.over and {lane.fate for lane in info.lanes} == {"still in"}
    assert race.race_table(info).note.startswith("Still racing, 2 rounds of 5 done.")
    assert info.over_report is None
    study, _, rows = raced(tmp_path / "full", scores, everyone=True)
    result = findings.ranked(study)
    assert len(rows) == 30 and {s.test.n for s in result.standings} == {5}
    everyone = race.race_info(study, result)
    assert everyone is not None and everyone.saved == 0


def test_a_study_without_a_race_is_told_as_before(tmp_path: Path) -> None:
    folders.write(tmp_path / "old", [folders.run(0, 0.8, repeat=r) for r in (1, 2)])
    study = collect.load(tmp_path / "old")
    result = findings.ranked(study)
    assert race.race_info(study, result) is None and result.standings[0].test.n == 2


def test_the_interval_with_the_choice_of_clips_covers_what_it_says() -> None:
    """Test sets of 400 clips drawn anew, five seeds each: the mean over both is covered 95 % of the time."""
    rng, hits, rounds = np.random.default_rng(1), 0, 2000
    truth = 0.8
    for _ in range(rounds):
        rates = rng.beta(8, 2, 400)  # of each clip to be right
        rights = rng.random((5, 400)) < np.clip(rates + rng.normal(0, 0.01, (5, 1)), 0, 1)
        low, high = statistics.with_clips(statistics.summarise(rights.mean(axis=1).tolist()), 400)
        hits += low <= truth <= high
    assert hits / rounds > 0.95
    assert all(math.isnan(x) for x in statistics.with_clips(statistics.summarise([0.8]), 400))
    assert all(math.isnan(x) for x in statistics.with_clips(statistics.summarise([0.8, 0.9]), None))
    seeds_only = statistics.summarise([0.80, 0.81, 0.79])
    wide = statistics.with_clips(seeds_only, 10**9)
    assert wide == (pytest.approx(seeds_only.low, abs=1e-4), pytest.approx(seeds_only.high, abs=1e-4))


def test_studies_are_compared_on_the_seeds_of_the_race_alone(tmp_path: Path, scores: np.ndarray) -> None:
    one, _, rows = raced(tmp_path / "one", scores)
    seeds = [row["seed"] for row in rows if row["trial"] == 1][:5]
    others = [0.80, 0.81, 0.79, 0.82, 0.80]
    runs = [folders.run(3, 0.82)]
    runs += [folders.run(3, s, repeat=i, seed=seed) for i, (s, seed) in enumerate(zip(others, seeds), 1)]
    found = comparison.contest([one, collect.load(folders.write(tmp_path / "two", runs, name="two"))])
    first, second = found.contestants
    assert first.study is one and first.best.headline.n == 5 and second.against is not None
    assert second.against.test == "paired"
    assert second.p == pytest.approx(stats.ttest_rel(scores[1, :5], others).pvalue)
