"""Studies side by side: order, tests and what is refused; the same runs on both sides of a comparison."""

import math
from pathlib import Path
from typing import Any

import pytest
import study_folders as folders
from scipy import stats

from reports import collect, comparison, figures, tables
from reports.__main__ import main
from reports.compare import main as compare

FIRST, SECOND = [0.80, 0.81, 0.82, 0.80], [0.79, 0.795, 0.81, 0.785]


def confirmed(scores: list[float], trial: int = 3, seeds: tuple[int, ...] = (11, 12, 13, 14)) -> list[Any]:
    runs = [folders.run(trial, max(scores))]
    runs += [folders.run(trial, s, repeat=i + 1, seed=seeds[i]) for i, s in enumerate(scores)]
    return runs


def study(home: Path, name: str, runs: Any = (), **changes: Any) -> collect.Study:
    return collect.load(folders.write(home / name, runs, name=name, **changes))


def test_studies_of_the_same_seeds_are_tested_pair_by_pair(tmp_path: Path) -> None:
    one = study(tmp_path, "one", confirmed(SECOND, trial=3))
    two = study(tmp_path, "two", confirmed(FIRST, trial=9), family="ergl")
    found = comparison.contest([one, two])
    assert [c.study.record["name"] for c in found.contestants] == ["two", "one"]
    first, second = found.contestants
    assert first.against is None and not first.tied and second.against is not None
    assert second.against.test == "paired"
    assert second.p == pytest.approx(stats.ttest_rel(FIRST, SECOND).pvalue)
    board = comparison.board(found)
    assert board.rows[0][:4] == ("1", "two", "ergl", "9") and board.rows[0][9] == "first"
    assert board.rows[1][9] == "worse, p = 0.003 (paired t-test)" and board.rows[1][8].startswith("−1.")
    assert (
        comparison.headline(found).headline == "two (ergl) is ahead with 80.8 % scene accuracy on validation"
    )
    rows = figures.contest_rows(found).rows
    assert [(r.label, r.best, r.tied) for r in rows] == [("two", True, False), ("one", False, False)]


def test_of_a_study_of_several_families_the_winners_is_told(tmp_path: Path) -> None:
    runs = [row | {"config.family": "ergl"} for row in confirmed(FIRST, trial=9)]
    found = comparison.contest(
        [study(tmp_path, "many", runs, family="csem,ergl"), study(tmp_path, "one", confirmed(SECOND))]
    )
    assert [row[2] for row in comparison.board(found).rows] == ["ergl", "csem"]
    assert comparison.headline(found).headline.startswith("many (ergl) is ahead")


def test_p_values_are_corrected_for_their_number_and_other_seeds_are_not_paired(tmp_path: Path) -> None:
    names = ("a", "b", "c")
    samples = (FIRST, SECOND, [0.70, 0.73, 0.71, 0.72])
    studies = [
        study(tmp_path, name, confirmed(sample, seeds=tuple(range(10 * i, 10 * i + 4))))
        for i, (name, sample) in enumerate(zip(names, samples))
    ]
    found = comparison.contest(studies)
    ps = [stats.ttest_ind(FIRST, other, equal_var=False).pvalue for other in samples[1:]]
    assert [c.p for c in found.contestants[1:]] == pytest.approx([max(ps[0], 2 * ps[1]), 2 * ps[1]])
    assert found.contestants[1].tied and not found.contestants[2].tied
    assert comparison.headline(found).sure == ("No: it cannot be told apart from b.",)


def test_a_study_without_a_confirmed_one_or_with_a_single_seed_stays_untested(tmp_path: Path) -> None:
    full, empty = study(tmp_path, "full", confirmed(FIRST)), study(tmp_path, "empty")
    single = study(tmp_path, "single", confirmed([0.5]))
    found = comparison.contest([empty, single, full])
    assert [c.study.record["name"] for c in found.contestants] == ["full", "single"]
    assert found.contestants[1].tied and math.isnan(found.contestants[1].p)
    board = comparison.board(found)
    assert board.note == "Nothing is confirmed yet in: empty." and board.rows[1][9] == "tied (no test)"
    assert tables.as_text(comparison.board(comparison.contest([empty])))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            {"data": {"checksum": "sha256:00"}},
            "clips (data checksum): sha256:00 and sha256:5e",
        ),
        (
            {"objective": {"metric": "val/event_map", "mode": "max"}},
            "objective: val/event_map (max) and",
        ),
        ({"epochs": 27}, "training length in epochs: 27 and 9"),
    ],
)
def test_studies_of_other_clips_objectives_or_lengths_are_refused(
    tmp_path: Path, changes: dict[str, Any], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    study(tmp_path, "one")
    study(tmp_path, "two", **changes)
    assert main([str(tmp_path / "one"), str(tmp_path / "two")]) == 2
    error = capsys.readouterr().err
    assert said in error and error.count("\n") == 1
    assert not list(tmp_path.glob("*/report.html"))


def test_the_same_runs_are_not_compared_with_themselves(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one = str(study(tmp_path, "one", confirmed(FIRST)).folder)
    (tmp_path / "again").symlink_to(one)
    for first, second in ((one, one), (one + "/", one), (one, str(tmp_path / "again"))):
        assert compare([first, second]) == 2
        assert "are the same runs: there is nothing to compare" in capsys.readouterr().err
    assert compare([one, f"{one}:3"]) == 2
    assert "stands on both sides" in capsys.readouterr().err
    assert main([one, one]) == 2
    assert capsys.readouterr().err == f"error: {one}: given twice\n"


@pytest.mark.slow
def test_several_studies_get_a_page_and_a_notebook(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    evil = "<script>x</script> `q` $x$ =cmd()"
    for name, scores in (("one", FIRST), ("two", SECOND)):
        folders.write(tmp_path / name, confirmed(scores), name=name + evil)
    assert main([str(tmp_path / "one"), str(tmp_path / "two")]) == 0
    printed = capsys.readouterr().out
    assert "worse, p = 0.003" in printed and str(tmp_path / "comparison.html") in printed
    page = (tmp_path / "comparison.html").read_text()
    assert "<script" not in page and "one&lt;script&gt;x&lt;/script&gt; `q` $x$ =cmd()" in page
    assert page.count("<picture>") == 1 and (tmp_path / "comparison.ipynb").is_file()
