"""Two sets of runs in one sentence: the 20 published runs, the choice of the test, and what is refused."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import study_folders as folders
from scipy import stats

from reports import compare
from reports.compare import CompareError, Runs, compare_places, main, mann_whitney, outcome, sentence

CSEM = (78.39, 79.39, 78.62, 78.23, 79.99, 79.56, 78.85, 79.53, 79.76, 78.88)
MLHE = (77.79, 76.69, 78.28, 77.98, 76.93, 78.41, 78.43, 76.87, 76.66, 77.65)


def side(name: str, values: Any, seeds: Any = (), **changes: Any) -> Runs:
    runs = Runs(name, "test/scene_accuracy", tuple(values), tuple(seeds), "5e", 9)
    return runs._replace(**changes)


def test_the_twenty_runs_behind_table_iii(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, values in (("csem", CSEM), ("mlhe", MLHE)):
        (tmp_path / f"{name}.txt").write_text("\n".join(map(str, values)))
    places = [str(tmp_path / "csem.txt"), str(tmp_path / "mlhe.txt")]
    assert main([*places, "--test", "student"]) == 0
    said = capsys.readouterr().out.splitlines()
    assert said[0] == "csem is 1.55 above mlhe (p = 5.9e-05)."
    assert said[1] == "79.12 ± 0.61 (sd, n = 10) against 77.57 ± 0.72 (sd, n = 10)"
    assert said[2].startswith("Student's t-test, two-sided: t(18) = 5.21, p = 5.9e-05, 95 % interval of the")
    assert len(said) == 3
    by_default = compare_places(*places)
    assert by_default.test == "welch" and by_default.found.p == pytest.approx(
        stats.ttest_ind(CSEM, MLHE, equal_var=False).pvalue
    )
    assert by_default.rank_p == pytest.approx(stats.mannwhitneyu(CSEM, MLHE).pvalue)
    paired = compare_places(*places, test="paired")
    assert paired.found.p == pytest.approx(stats.ttest_rel(CSEM, MLHE).pvalue) and math.isnan(paired.rank_p)


def test_mann_whitney_counts_the_pairs_in_order() -> None:
    """Exact: of all ways to deal out the ranks, the share at least as far from the middle."""
    from itertools import combinations

    a, b = (5.0, 6.1, 7.2, 9.0), (1.0, 2.0, 5.5, 3.0)
    ranks = sorted(a + b)
    far = abs(sum(x > y for x in a for y in b) - 8)
    deals = list(combinations(ranks, 4))
    as_far = sum(
        abs(sum(x > y for x in deal for y in ranks if y not in deal) - 8) >= far for deal in deals
    ) / len(deals)
    assert mann_whitney(a, b) == pytest.approx(as_far)
    assert math.isnan(mann_whitney([1, 1, 1, 1], [1, 1, 1, 1]))


def test_runs_of_the_same_seeds_are_paired_by_seed_and_others_are_not() -> None:
    seeds = range(10)
    backwards = side("b", reversed(MLHE), reversed(seeds))
    found = outcome(side("a", CSEM, seeds), backwards)
    assert found.test == "paired"
    assert found.found.p == pytest.approx(stats.ttest_rel(CSEM, MLHE).pvalue)
    other = outcome(side("a", CSEM, seeds), side("b", MLHE, range(5, 15)))
    assert other.test == "welch"
    with pytest.raises(CompareError, match="do not share their seeds"):
        outcome(side("a", CSEM, seeds), side("b", MLHE, range(5, 15)), "paired")


def test_what_is_said_when_nothing_is_seen_or_nothing_can_be() -> None:
    level = outcome(side("a", [0.80, 0.82, 0.78]), side("b", [0.81, 0.80, 0.80]))
    assert sentence(level).startswith(
        "a and b cannot be told apart in test scene accuracy: the difference is 0.33 points (p = 0.80)."
    )
    same = outcome(side("a", [0.8, 0.8]), side("b", [0.7, 0.7]))
    assert sentence(same).startswith("a and b cannot be tested: their runs do not vary.")
    worse = outcome(side("a", [0.70, 0.71, 0.72, 0.71]), side("b", [0.8, 0.81, 0.82, 0.81], epochs=27))
    assert sentence(worse).splitlines()[0].startswith("a is 10.00 points below b in test scene accuracy")
    assert "note: trained for 9 and 27 epochs" in sentence(worse)
    ranks = outcome(side("a", CSEM), side("b", MLHE), "mann-whitney")
    assert sentence(ranks).splitlines()[2] == "Mann-Whitney test, two-sided: p = 7.7e-04"


def test_two_tests_that_disagree_say_so() -> None:
    outlier = side("a", [1, 2, 3, 4, 5, 100], metric="")
    clear = side("b", [-1, -2, -3, -4, -5, -6], metric="")
    assert "the two tests disagree at 5 %" in sentence(outcome(outlier, clear))


@pytest.mark.parametrize(
    ("a", "b", "test", "why"),
    [
        (side("a", [0.8]), side("b", [0.8, 0.9]), "auto", "a: 1 run; a comparison needs 2"),
        (side("a", [1, 2]), side("b", [1, 3], data="77"), "auto", "other clips, no comparison"),
        (side("a", [1, 2]), side("b", [1, 3]), "mann-whitney", "needs 4 runs a side"),
    ],
)
def test_refused(a: Runs, b: Runs, test: str, why: str) -> None:
    with pytest.raises(CompareError, match=why):
        outcome(a, b, test)


def test_configurations_of_studies_by_trial_number(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = [
        folders.run(
            trial, mean + n / 100, repeat=n, seed=100 * trial + n, **{"test/scene_accuracy": mean + n / 50}
        )
        for trial, mean in ((0, 0.6), (4, 0.8))
        for n in (1, 2, 3)
    ] + [folders.run(9, 0.99)]
    one = folders.write(tmp_path / "one", runs)
    two = folders.write(tmp_path / "two", runs[:3], name="another", data={"clips": {}})
    assert main([f"{one}:4", f"{one}:0"]) == 0
    assert (
        "trial 4 is 20.00 points above csem on tut2018 trial 0 in test scene accuracy"
        in capsys.readouterr().out
    )
    assert main([str(one), str(two), "--metric", "val/event_auc"]) == 2
    assert "have no 'val/event_auc'" in capsys.readouterr().err
    found = compare_places(str(one), str(two))
    assert found.first.name == "csem on tut2018 trial 4" and found.second.name == "another trial 0"
    assert main([f"{one}:9", f"{one}:0"]) == 2
    assert "trial 9 has no confirmed full-length runs; confirmed trials: 4, 0" in capsys.readouterr().err


def kept(home: Path, name: str, values: list[float], *, split: str = "val", **changes: Any) -> str:
    """Run folders as trainables.train --out leaves them."""
    for seed, value in enumerate(values):
        folder = home / name / f"seed{seed}"
        folder.mkdir(parents=True)
        record = {"values": {"lr": 0.1}, "seed": seed, "epochs": 3, "data_checksum": "5e"} | changes
        (folder / "run.json").write_text(json.dumps(record))
        lines = [{"epoch": 2, "val/scene_accuracy": 0.1}, {"epoch": 3, "val/scene_accuracy": value}]
        (folder / "epochs.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        if split == "test":
            (folder / "test.json").write_text(json.dumps({"metrics": {"test/scene_accuracy": value}}))
    return str(home / name)


def test_folders_of_single_trainings(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    a, b = kept(tmp_path, "a", [0.7, 0.8, 0.75]), kept(tmp_path, "b", [0.5, 0.61, 0.53])
    found = compare_places(a, b)
    assert (found.test, found.first.metric) == ("paired", "val/scene_accuracy")  # no run has a test result
    tested = [kept(tmp_path, name, [0.7, 0.8, 0.75], split="test") for name in "cd"]
    assert compare_places(*tested).first.metric == "test/scene_accuracy"
    (tmp_path / "b" / "seed1" / "epochs.jsonl").write_text('{"epoch": 2, "val/scene_accuracy": 0.5}\n')
    assert main([a, b]) == 2
    assert capsys.readouterr().err == f"error: {tmp_path}/b/seed1: 2 of 3 epochs are done\n"


def test_a_folder_of_unlike_trainings_is_no_set_of_runs(tmp_path: Path) -> None:
    kept(tmp_path, "a", [0.7, 0.8])
    record = tmp_path / "a" / "seed1" / "run.json"
    record.write_text(record.read_text().replace("0.1", "0.2"))
    with pytest.raises(CompareError, match="its runs differ in their knobs"):
        compare_places(str(tmp_path / "a"), str(tmp_path / "a"))


@pytest.mark.parametrize(
    ("text", "why"), [("1 2 three", "a file of numbers is expected"), ("1 nan", "must be finite")]
)
def test_files_of_something_else(tmp_path: Path, text: str, why: str) -> None:
    (tmp_path / "x.txt").write_text(text)
    with pytest.raises(CompareError, match=why):
        compare.read(str(tmp_path / "x.txt"), "")


def test_places_that_hold_no_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for place, why in ((tmp_path / "none", "no such study"), (tmp_path, "neither a study")):
        assert main([str(place), str(place)]) == 2
        error = capsys.readouterr().err
        assert why in error and error.count("\n") == 1
    study = folders.write(tmp_path / "study")
    assert main([str(study), str(study)]) == 2
    assert "no configuration is confirmed" in capsys.readouterr().err
