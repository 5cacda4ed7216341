"""Sentences, tables and markup: what they say for every state of a study, and that data stays text."""

import json
import math
import shlex
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
import study_folders as folders

from reports import again, collect, findings, markup, tables, units


def study(folder: Path, runs: Any = (), **changes: Any) -> collect.Study:
    return collect.load(folders.write(folder, runs, **changes))


def finding(one: collect.Study) -> findings.Finding:
    return findings.finding(one, findings.ranked(one))


def confirmed(scores: dict[int, list[float]], **changes: Any) -> list[dict[str, Any]]:
    return [
        folders.run(t, s, repeat=i + 1, **changes) for t, all_ in scores.items() for i, s in enumerate(all_)
    ]


def test_a_clear_winner(tmp_path: Path) -> None:
    runs = confirmed({4: [0.80, 0.81, 0.82]}) + confirmed(
        {2: [0.70, 0.71, 0.72]}, **{"config.framework": "moe"}
    )
    found = finding(study(tmp_path, runs))
    assert found.status == ""
    assert found.headline == "Trial 4 (csem) wins with 80.0 ± 1.0 % scene accuracy on test"
    assert (
        found.meaning == "Mean ± standard deviation over 3 seeds; 95 % interval of the mean 77.5 to 82.5 %."
    )
    assert found.sure[0].startswith(
        "As far as seeds go, yes: the other one is clearly worse on validation (Welch"
    )
    assert found.sure[1].startswith(
        "The choice of the 2,518 test clips alone adds ± 1.6 points (95 %, binomial)"
    )


def test_a_tie_says_so_and_what_it_would_take(tmp_path: Path) -> None:
    found = finding(
        study(tmp_path, confirmed({4: [0.80, 0.81, 0.82], 2: [0.80, 0.805, 0.82], 7: [0.5, 0.51, 0.5]}))
    )
    assert found.headline.endswith("on test, but cannot be told apart from trial 2")
    assert "Their validation means lie 0.2 points apart" in found.sure[0]
    assert "trials 4 and 2 cannot be told apart" in found.sure[0]
    assert found.sure[1].startswith("About ") and "more seeds each (" in found.sure[1]
    assert "would separate trials 4 and 2, if they differ by what was seen (" in found.sure[1]


def test_the_interval_of_a_share_stays_within_it_and_says_so(tmp_path: Path) -> None:
    """Two seeds: Student's t has one degree of freedom, and an interval of 12.7 standard errors."""
    one = study(tmp_path, confirmed({0: [0.06, 0.16]}))
    found = finding(one)
    assert "interval of the mean 0.0 to 73.5 %. Intervals that reach beyond 0 or 100 %" in found.meaning
    board = tables.leaderboard(one, findings.ranked(one))
    assert board.rows[0][board.columns.index("test, 95 % interval")] == "0.0 to 73.5"
    assert units.CUT_OFF in board.note
    loss = units.scale("val/loss")
    assert units.mean_interval(-0.1, 1.2, loss) == "−0.100 to 1.200" and not units.reaches_out(-1, 2, loss)
    assert units.mean_interval(math.nan, math.nan, units.scale("val/event_map")) == units.NONE


def test_why_a_tie_has_no_test(tmp_path: Path) -> None:
    single = finding(study(tmp_path / "a", confirmed({4: [0.8], 2: [0.7]})))
    assert single.sure[0].endswith("With a single seed there is no test.")
    flat = finding(study(tmp_path / "b", confirmed({4: [0.8, 0.8], 2: [0.7, 0.7]})))
    assert flat.sure[0].endswith("Seeds that show no spread allow no test.")


def test_one_configuration_and_one_seed(tmp_path: Path) -> None:
    found = finding(study(tmp_path, confirmed({0: [0.7]})))
    assert found.headline == "Trial 0 reaches 69.0 % scene accuracy on test"
    assert found.meaning == "One seed (n = 1), so there is no standard deviation and no interval."
    assert found.sure[0].startswith("Only one configuration is confirmed")
    tied = finding(study(tmp_path, confirmed({0: [0.7], 1: [0.6]})))
    assert "there is no test" in tied.sure[0]


def test_before_the_test_split_is_read_the_headline_is_of_validation(tmp_path: Path) -> None:
    runs = confirmed({0: [0.7, 0.72]}, **{"test/scene_accuracy": math.nan})
    assert (
        finding(study(tmp_path, runs)).headline == "Trial 0 reaches 71.0 ± 1.4 % scene accuracy on validation"
    )


def test_search_runs_alone_are_no_answer(tmp_path: Path) -> None:
    found = finding(study(tmp_path, [folders.run(3, 0.8), folders.run(4, 0.7)], status="interrupted"))
    assert found.headline.startswith(
        "Trial 3 is the best search run with 80.0 % scene accuracy on validation;"
    )
    assert found.sure[0].startswith("No: it was chosen among 2 full-length runs")
    assert found.status.startswith("This study was interrupted: 2 of 40 search runs have ended.")


def test_nothing_has_finished(tmp_path: Path) -> None:
    found = finding(study(tmp_path / "a", status="running"))
    assert (found.headline, found.meaning) == ("No run has finished yet", "Nothing has run so far.")
    assert found.status.startswith("This study is still running: 0 of 40 search runs")
    failed = [folders.run(0, math.nan, state="FAIL"), folders.run(1, math.nan, state="DIVERGED")]
    all_failed = finding(study(tmp_path / "b", failed))
    assert all_failed.headline == "No run finished at full length"
    assert all_failed.meaning == "2 runs so far; 1 diverged, 1 failed."


def test_lost_seeds_are_named(tmp_path: Path) -> None:
    runs = confirmed({0: [0.7, 0.72]}) + [folders.run(0, math.nan, repeat=3, state="DIVERGED")]
    found = finding(study(tmp_path, runs))
    assert (
        found.sure[-1]
        == "Not in the mean of trial 0: 1 diverged. A mean without its diverged runs is too good."
    )


def test_a_loss_is_written_as_a_number_and_less_is_better(tmp_path: Path) -> None:
    runs = confirmed({0: [0.7, 0.72], 1: [0.2, 0.21]}, **{"val/loss": 0.1})
    for row in runs:
        row["test/loss"] = row["score"]
    one = study(tmp_path, runs, objective={"metric": "val/loss", "mode": "min"})
    found = finding(one)
    assert found.headline == "Trial 1 wins with 0.205 ± 0.007 loss on test"
    assert all("clips" not in sentence for sentence in found.sure)  # a loss is not a share of clips


def test_cost_and_reasons(tmp_path: Path) -> None:
    cut = "0.612 < 0.640, the cut-off at epoch {} among {} trials"
    runs = [
        folders.run(0, 0.7),
        folders.run(1, 0.6, state="PRUNED", epochs=3, reason=cut.format(3, 14)),
        folders.run(2, 0.6, state="PRUNED", epochs=3, reason=cut.format(3, 15)),
        folders.run(3, 0.6, state="PRUNED", epochs=1, reason=cut.format(1, 16)),
        folders.run(4, math.nan, state="DIVERGED", epochs=2, reason="loss is nan at step 41"),
        folders.run(5, math.nan, state="FAIL", epochs=0, reason=""),
        folders.run(0, 0.7, repeat=1),
    ]
    one = study(tmp_path, runs)
    assert findings.cost(one) == (
        "6 configurations searched (1 finished, 1 diverged, 1 failed, 3 stopped early); 1 run to confirm "
        "1 configuration (1 finished). 27 epochs in all, 1 min 28 s of training (0.024 CPU-hours)."
    )
    assert [(r.state, r.runs, r.trials) for r in findings.reasons(one.runs)] == [
        ("FAIL", 1, (5,)),
        ("DIVERGED", 1, (4,)),
        ("PRUNED", 2, (1, 2)),
        ("PRUNED", 1, (3,)),
    ]
    table = tables.reason_table(one)
    assert table.rows[0] == ("failed", "1", "no reason written down", "5")
    assert table.rows[2] == ("stopped early", "2", cut.format(3, 14), "1, 2")
    assert [row[2] for row in tables.all_runs(one).rows[:2]] == ["failed", "diverged"]


def test_the_command_survives_a_shell(tmp_path: Path) -> None:
    path = '/data/\'; rm -rf ~ $(x) `y` "z"'
    knobs = {"lr": 0.0023416715, "w_event": 1.0, "pretrained": None, "note": "a b;c"}
    one = study(tmp_path, confirmed({0: [0.7]}, knobs=knobs), data={"path": path})
    result = findings.ranked(one)
    assert result.best is not None
    (seed,) = again.winner_seeds(one, 0)
    text = again.train_command(one, result.best.config, seed)
    words = shlex.split(text.replace("\\\n", " "))
    assert words[:4] == ["python", "-m", "trainables.train", "csem"]
    assert words[words.index("--data") + 1] == path
    assert words[words.index("--seed") + 1] == "1" and words[words.index("--epochs") + 1] == "9"
    settings = words[words.index("--set") + 1 :]
    assert {"lr=0.0023416715", "w_event=1", "pretrained=none", "note=a b;c", "spec_augment=true"} <= set(
        settings
    )
    assert len(settings) == len(folders.config()) + 1
    assert max(len(line) for line in text.splitlines()) < 100


def test_the_command_has_the_seed_whose_run_was_scored_on_test(tmp_path: Path) -> None:
    runs = confirmed({0: [0.70, 0.71, 0.72]}, knobs={"pretrained": math.nan})
    runs[0]["test/scene_accuracy"] = runs[1]["test/scene_accuracy"] = math.nan  # they chose the winner
    one = study(tmp_path, runs, request={"cpus_per_trial": 2, "events": "tags>0.1", "mix": ["/e:128"]})
    assert again.winner_seeds(one, 0) == (3, 1, 2)
    text = again.train_command(one, findings.ranked(one).standings[0].config, 3, out="again")
    words = shlex.split(text.replace("\\\n", " "))
    assert words[words.index("--mix") + 1] == "/e:128" and words[words.index("--events") + 1] == "tags>0.1"
    assert words[words.index("--threads") + 1] == "2" and words[words.index("--out") + 1] == "again"
    assert "--test" in words and "pretrained=none" in words


def test_of_several_families_only_the_knobs_of_its_own_are_told(tmp_path: Path) -> None:
    """A column of another family's is NaN where it holds numbers and None where it holds truth values."""
    knobs = {"family": "ergl", "lr": 0.01, "n_mels": math.nan, "detach": None}
    other = {"family": "csem", "lr": 0.01, "n_mels": 64, "detach": True}
    runs = confirmed({0: [0.7, 0.71]}, knobs=knobs) + confirmed({1: [0.6, 0.61]}, knobs=other)
    one = study(tmp_path, runs)
    result = findings.ranked(one)
    assert result.best is not None
    words = shlex.split(again.train_command(one, result.best.config, 1).replace("\\\n", " "))
    assert "lr=0.01" in words and not [word for word in words if word.startswith(("n_mels=", "detach="))]
    assert not {"n_mels", "detach"} & {row[0] for row in tables.best_knobs(one, result.best.config).rows}


def test_configurations_of_several_families_are_set_apart_in_a_row_each(tmp_path: Path) -> None:
    """By the knobs that their own family searched or differs in; 50 knobs beside each other read nobody."""
    csem = {"family": "csem", "lr": 0.01, "n_mels": None, "detach": True, "mixup": 0.2}
    ergl = {"family": "ergl", "lr": 0.01, "n_mels": 64, "detach": None, "mixup": 0.2}
    runs = confirmed({0: [0.7, 0.71]}, knobs=csem, macs=math.nan)
    runs += confirmed({1: [0.6, 0.61]}, knobs=ergl, origin="published: Hou 2023")
    runs += confirmed({2: [0.5, 0.51]}, knobs={**ergl, "n_mels": 32})
    runs += [folders.run(0, 0.6, knobs=csem, macs=2e6), folders.run(1, 0.7, knobs=ergl)]
    one = study(tmp_path, runs, family="csem,ergl", space=["csem.lr", "csem.detach", "ergl.lr", "family"])
    result = findings.ranked(one)
    assert tables.apart(one, result).rows == (
        ("0", "csem", "lr=0.01, detach=true", "sampler"),
        ("1", "ergl", "lr=0.01, n_mels=64", "published: Hou 2023"),
        ("2", "ergl", "lr=0.01, n_mels=32", "sampler"),
    )
    board = tables.leaderboard(one, result)
    assert [row[board.columns.index("family")] for row in board.rows] == ["csem", "ergl", "ergl"]
    assert [row[board.columns.index("MACs a clip")] for row in board.rows] == ["2.0 M", "–", "–"]
    leaders = tables.search_leaders(one)
    assert leaders.columns[4:] == ("family", "its knobs", "parameters")
    assert leaders.rows[0][4:6] == ("ergl", "lr=0.01")
    chosen = {row[0]: row[2] for row in tables.best_knobs(one, result.standings[0].config).rows}
    assert chosen["lr"] == "searched" and chosen["mixup"] == "default" and "n_mels" not in chosen


def test_many_knobs_of_a_search_run_share_a_column(tmp_path: Path) -> None:
    few = [folders.run(t, 0.5, knobs={"lr": 0.1 * t, "mixup": 0.1 * t}) for t in (1, 2)]
    leaders = tables.search_leaders(study(tmp_path / "few", few))
    assert leaders.columns[4:6] == ("lr", "mixup") and leaders.rows[0][4:6] == ("0.1", "0.1")
    many = [folders.run(t, 0.5, knobs={f"knob_{k}": t for k in range(7)}) for t in range(1, 8)]
    leaders = tables.search_leaders(study(tmp_path / "many", many))
    assert len(leaders.rows) == 5 and leaders.note == "The best 5 of 7."
    assert leaders.columns[4] == "its knobs" and leaders.rows[0][4].startswith("knob_0=1, knob_1=1")


def test_leaderboard(tmp_path: Path) -> None:
    runs = confirmed({4: [0.80, 0.81, 0.82], 2: [0.70, 0.71, 0.72]}, origin="published: Hou 2023")
    runs += [
        folders.run(4, math.nan, repeat=4, state="FAIL"),
        folders.run(9, math.nan, repeat=1, state="FAIL"),
    ]
    one = study(tmp_path, runs)
    table = tables.leaderboard(one, findings.ranked(one))
    assert table.columns[:5] == ("rank", "trial", "test, %", "seeds", "against the best")
    assert table.rows[0] == (
        *(
            "1",
            "4",
            "80.0 ± 1.0",
            "3 (1 failed)",
            "best",
            "77.5 to 82.5",
            "1.0",
            "81.0 ± 1.0",
            "78.5 to 83.5",
        ),
        *("297 k", "0.0035"),
    )
    assert table.rows[1][4] == "worse, p < 0.001"
    assert table.note == "Without a finished run: trial 9 (1 failed)."
    single = study(tmp_path / "b", confirmed({0: [0.7]}))
    (row,) = tables.leaderboard(single, findings.ranked(single)).rows
    assert row == (
        "1",
        "0",
        "69.0",
        "1",
        "best",
        "–",
        "–",
        "70.0",
        "–",
        "297 k",
        "0.0035",
    )
    assert tables.apart(one, findings.ranked(one)).rows == (("from", *["published: Hou 2023"] * 2),)
    assert not tables.apart(single, findings.ranked(single)).rows  # every origin is the sampler


def test_published_rows_beside_ours(tmp_path: Path) -> None:
    runs = confirmed({0: [0.80, 0.805, 0.80]}, knobs={"framework": "csem"})
    one = study(tmp_path, runs)
    result = findings.ranked(one)
    judged = findings.published(one, result)
    first, second = tables.published_rows(judged, result)
    assert [row[1] for row in first.rows] == ["Table III, MlhE-PANN", "Table III, cSEM-PANN"]
    assert first.rows[1][3:6] == ("79.12 ± 0.89", "79.2 ± 0.3", "reproduced")
    assert first.rows[1][7] == "trial 0, the same configuration" and first.rows[0][7] == "trial 0, the winner"
    assert [row[-1] for row in second.rows] == ["its ± is unknown", "other corpus (tau2019, ours is tut2018)"]
    assert findings.beside_papers(judged) == (
        "Ours is better than 1 and level with 1 of the 2 comparable published rows; 2 rows cannot be "
        "compared. The configuration of Hou 2023 Table III, cSEM-PANN (trial 0): reproduced."
    )
    nothing = study(tmp_path / "b", runs, published=[])
    assert findings.beside_papers(findings.published(nothing, result)) == ""


def test_provenance(tmp_path: Path) -> None:
    facts = dict(tables.provenance(study(tmp_path)).rows)
    assert facts["commit"].endswith("4567 with uncommitted changes")
    assert "code" not in facts  # as studies from before it was recorded
    assert facts["command"] == "tune_csem.py --data /data/shards --trials 40"
    assert facts["clips"] == "train 4,897, val 1,225, test 2,518"
    assert facts["started"] == "2026-11-20 20:33 UTC" and facts["hardware"].startswith(
        "2 CPU cores, no GPU, Linux"
    )
    bare = {k: v for k, v in folders.record().items() if k not in ("git", "hardware", "packages", "command")}
    (tmp_path / "study.json").write_text(json.dumps(bare | {"data": {}}))
    assert dict(tables.provenance(collect.load(tmp_path)).rows)["commit"] == "not a git checkout"
    of_a_cluster = study(tmp_path / "b", git={"commit": None, "dirty": False, "code": "9bb391ea"})
    facts = dict(tables.provenance(of_a_cluster).rows)
    assert facts["commit"] == "not a git checkout" and facts["code"].startswith("9bb391ea (how to find")


def test_numbers_as_people_write_them() -> None:
    share, loss = units.scale("test/scene_accuracy"), units.scale("val/loss/scene_ce")
    assert units.score(0.8241, share, unit=True) == "82.4 %" and units.score(0.8241, loss) == "0.824"
    assert loss.label == "loss/scene ce" and share.split == "test"
    event = units.scale("test/frame_f/bird singing")
    assert (event.label, event.split, event.unit) == ("F-score over frames of bird singing", "test", "%")
    assert [units.number(x) for x in (math.nan, math.inf, None, -1.26, -0.01)] == [
        "–",
        "–",
        "–",
        "−1.3",
        "0.0",
    ]
    assert units.number(0.5, sign=True) == "+0.5"
    assert [units.knob(v) for v in (2.0, 1e-05, True, None, math.nan, "x", 0.1)] == [
        *("2", "1e-05", "true", "none", "none", "x", "0.1")
    ]
    assert [units.size(v) for v in (12, 297_349, 7_033_177, 160_188_249, math.nan)] == [
        *("12", "297 k", "7.0 M", "160 M", "–")
    ]
    assert [units.duration(v) for v in (0.84, 59.4, 125, 15_000, math.nan)] == [
        *("0.8 s", "59 s", "2 min 5 s", "4 h 10 min", "–")
    ]
    assert units.instant("2026-11-20T20:33:00+0100") == "2026-11-20 20:33 +01:00"
    assert [units.instant(v) for v in (None, "soon")] == ["–", "soon"]
    assert [units.p_value(p) for p in (0.0001, 0.0412, 0.5, math.nan)] == ["< 0.001", "0.041", "0.50", "–"]


def test_what_to_train_again(tmp_path: Path) -> None:
    empty = study(tmp_path / "a", status="running")
    assert again.best_again(empty, findings.ranked(empty)) is None
    search = study(tmp_path / "b", [folders.run(3, 0.8, seed=11), folders.run(4, 0.7)])
    found = again.best_again(search, findings.ranked(search))
    assert found is not None and (found.trial, found.confirmed, found.seeds) == (3, False, (11,))
    runs = [folders.run(3, 0.8), *confirmed({4: [0.7, 0.71]}), folders.run(4, 0.9, repeat=3, epochs=2)]
    full = study(tmp_path / "c", runs)
    best = again.best_again(full, findings.ranked(full))
    assert best is not None and (best.trial, best.confirmed, best.seeds) == (4, True, (4001, 4002))


def test_how_exactly_the_winner_is_trained_again(tmp_path: Path) -> None:
    one = study(tmp_path / "a", git={"commit": "1" * 40, "dirty": False})
    top, below = again.exactness(one)
    assert top.endswith("trains it again to the same numbers.") and "to the last digit, in epochs" in below
    dirty = study(tmp_path / "b", git={"commit": "1" * 40, "dirty": True})
    assert again.exactness(dirty)[0].endswith("uncommitted changes, which the commit below does not hold.")
    gpu = study(tmp_path / "c", request={"gpus_per_trial": 1})
    assert "but for rounding" in again.exactness(gpu)[0] and "on a GPU" in again.exactness(gpu)[0]
    assert "up to rounding" in again.exactness(gpu)[1]
    spread = study(tmp_path / "d", request={"workers_per_trial": 2})
    assert "on 2 workers" in again.exactness(spread)[0]


def test_reasons_for_no_comparison_are_counted(tmp_path: Path) -> None:
    one = study(tmp_path, confirmed({0: [0.8, 0.81]}), data={"corpus": "mine"})
    result = findings.ranked(one)
    _, others = tables.published_rows(findings.published(one, result), result)
    assert tables.why_not(others).rows == (
        ("other corpus (tut2018, ours is mine)", "3"),
        ("other corpus (tau2019, ours is mine)", "1"),
    )


# --- markup -------------------------------------------------------------------------------------------------

EVIL = "<script>alert('x')</script> `rm` $x^2$ \"q\" & <img src=x onerror=y>\x1b[2J\u202e"


class Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[str] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.tags.append(tag)
        self.attributes += [name for name, _ in attrs]

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.mark.parametrize(
    "block",
    [
        markup.paragraph(EVIL, markup.Tint(EVIL, "#000000")),
        markup.command(EVIL),
        markup.folded(EVIL, markup.paragraph(EVIL)),
        markup.table(tables.Table((EVIL, "b"), ((EVIL, EVIL),), note=EVIL)),
        markup.header(EVIL, EVIL, findings.Finding(EVIL, EVIL, EVIL, (EVIL,)), {EVIL: EVIL}),
    ],
)
def test_data_is_shown_as_text(block: markup.Block) -> None:
    seen = Tags()
    seen.feed(block._repr_mimebundle_()["text/html"])
    assert not {"script", "img"} & set(seen.tags)
    assert not {"src", "onerror"} & set(seen.attributes)
    assert "<script>alert('x')</script> `rm` $x^2$ \"q\" & <img src=x onerror=y>" in seen.text
    assert "\x1b" not in seen.text and "\u202e" not in seen.text
    assert 'class="tex2jax_ignore mathjax_ignore"' in block._repr_mimebundle_()["text/html"]


def test_tables_for_a_terminal_stay_in_their_lines() -> None:
    table = tables.Table(("name", "score, %"), (("a\x1b[2J\nb", "1.5"), ("c", "10.0")), frozenset({1}))
    assert tables.as_text(table).splitlines() == [
        "name     score, %",
        "a [2J b       1.5",
        "c            10.0",
    ]
    assert tables.as_text(table, ("score",)).splitlines()[1] == "     1.5"


def test_a_table_without_rows_says_so() -> None:
    assert "Nothing to show." in markup.table(tables.Table(("a",), ())).html
