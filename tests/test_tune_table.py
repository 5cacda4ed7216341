"""--table as a user runs it: a table on real Ray, interrupted and taken up again; and its refusals."""

from __future__ import annotations

import json
import signal
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
from test_tune import started, tune, wait_for

from searchspace import record
from searchspace import tables as paper_tables
from searchspace.methods import PRUNERS
from searchspace.study import Job, Ledger, open_storage, sqlite_url
from searchspace.tables import Configuration
from trainables import confirm
from trainables.progress import Progress
from trainables.request import Request, begin

SMALL = ["--set", "width=0.05", "--no-dashboard"]


@pytest.mark.ray
@pytest.mark.slow
def test_a_table_run_is_taken_up_again_and_stands_beside_the_papers(
    shards: Path, cache: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "table"
    rows = ["--table", "viii", "--rows", "1,6", "--seeds", "2", "--epochs", "2"]
    first = started(cache, "--data", shards, "--study", folder, *rows, *SMALL)
    wait_for(lambda: any(folder.glob("runs/*/epochs.jsonl")), first)
    first.send_signal(signal.SIGINT)
    out, err = first.communicate(timeout=60)
    assert first.returncode == 130 and "--resume" in out and "Traceback" not in err, (out, err)
    begun = json.loads((folder / "study.json").read_text())
    assert begun["status"] == "interrupted" and begun["table"]["name"] == "VIII"

    done = tune(cache, "--study", folder, "--resume")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "table 4/4" in done.stdout and "Ours differs from the paper's in every row" in done.stdout
    runs = pd.read_parquet(folder / "trials.parquet")
    assert len(runs) == 4 and set(runs["state"]) == {"COMPLETE"} and set(runs["phase"]) == {"table"}
    assert runs.groupby("repeat")["seed"].nunique().tolist() == [1, 1] and runs["seed"].nunique() == 2
    assert not [name for name in runs if str(name).startswith("test/")]  # printed for validation
    assert not list(folder.glob("runs/*/test.json"))
    kept = json.loads((folder / "table.json").read_text())
    assert [(row["line"], row["value"], row["ours"]["n"]) for row in kept["rows"]] == [
        (1, 0.7681, 2),
        (6, 0.7712, 2),
    ]
    for row in kept["rows"]:
        ours = runs[runs["trial"] == row["trial"]]["val/scene_accuracy_macro"]
        assert row["ours"]["mean"] == pytest.approx(ours.mean())
        assert "altered (width=0.05)" in row["verdict"] and "reduced epochs (2, theirs 100)" in row["verdict"]
    assert [pair["baseline"] for pair in kept["pairs"]] == [0]
    page = (folder / "report.html").read_text()
    assert "Table VIII of Hou et al. 2023" in page and "Ours beside the paper" in page
    models = {path.parent.name for path in folder.glob("runs/*/checkpoint")}
    assert models == {"t0000-r1", "t0001-r1"}  # the first seed's of every row


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"table": "VII", "sampler": "random"}, "--sampler random: with --table nothing is searched"),
        ({"table": "VII", "race": "all"}, "race 'all' is not known; known: drop, full"),
        ({"baseline": 0}, "--baseline 0: only with --table"),
        ({"table": "XX"}, "--table XX: Hou et al. 2023 has no such table; known: I, II, III, IV, V"),
        ({"table": "VII", "trials": 5}, "--trials 5: with --table nothing is searched or selected"),
        ({"table": "VII", "confirm": 0}, "--confirm 0: with --table nothing is searched or selected"),
        (
            {"table": "VII", "objective": "val/event_map"},
            "--objective val/event_map: with --table nothing is searched or selected",
        ),
        ({"table": "VII", "rows": "15"}, "--rows 15: '15' is no row of this table"),
        ({"table": "VII", "seeds": 0}, "--seeds 0: expected at least 1"),
        ({"rows": "1"}, "--rows 1: only with --table"),
        ({"baseline": 2}, "--baseline 2: only with --table"),
        ({"table": "VII", "set": (("lambda=1",),)}, "unknown knob 'lambda'"),
        (
            {"family": "resnet_aet", "table": "fig2"},
            "--table fig2: Parikh et al. 2022 gives no epochs; say how many: --epochs N",
        ),
        ({"family": "tagvector", "table": "6"}, "--table 6: Jung et al. 2020 gives no epochs"),
        (
            {"table": "VII,VIII"},
            "--table VII,VIII: row 1 is '#1 ast, pretrained' in VII and '#1 pann, pretrained'",
        ),
    ],
)
def test_what_a_table_cannot_be_asked_is_refused_before_anything_begins(
    asked: dict, message: str, tmp_path: Path
) -> None:
    with pytest.raises(ValueError) as refused:
        begin(Request(**asked, study=tmp_path / "study"))
    assert message in str(refused.value) and "\n" not in str(refused.value)
    assert not (tmp_path / "study").exists()


def test_a_table_is_as_long_and_as_often_as_the_papers() -> None:
    assert Request(table="VII").budget() == (0, 100, 0, 10)
    assert Request(table="XI").budget().epochs == 100
    assert Request(table="VII", seeds=3, epochs=27).budget() == (0, 27, 0, 3)
    assert Request(family="resnet_aet", table="fig2", epochs=5).budget() == (0, 5, 0, 10)
    assert Request(family="bigru_mtl", table="3,4").budget() == (0, 300, 0, 10)
    assert Request().budget() == (16, 9, 3, 3)
    assert Request(trials=4, confirm=0).budget() == (4, 9, 0, 3)


def test_a_table_gives_every_row_its_seeds_unless_it_is_raced() -> None:
    assert Request(table="VII").everyone() and Request(table="VII", race="full").everyone()
    assert not Request(table="VII", race="drop").everyone()
    assert not Request().everyone() and Request(race="full").everyone()


def test_a_raced_table_spares_a_beaten_row_its_seeds_and_says_so_once(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    record.create(tmp_path / "s", {"format": 1, "status": "running", "races": {"tags": {"dropped": []}}})
    made = [Configuration(trial, {"lr": 0.1 + trial}, "labels", trial == 1, "") for trial in range(2)]
    jobs = paper_tables.jobs(made, seeds=6, study_seed=3, epochs=1)
    ledger = Ledger(open_storage(sqlite_url(tmp_path / "s" / "study.db")), "table", pruner=PRUNERS["none"])
    race = paper_tables.race(jobs, 6, 3)
    with Progress("table", len(jobs), 1) as progress:
        after = confirm.follow(tmp_path / "s", race, ledger, progress, lambda: None, among="labels")
        run: list[Job] = []
        while job := ledger.next_job():
            run.append(job)
            ledger.report(job, 1, 0.5 + 0.4 * job.trial + 0.001 * (job.seed % (5 + job.trial)))
            ledger.finish(job, "COMPLETE")
            after()
        assert progress.jobs == len(run)
    planned = {(job.trial, job.repeat): job for job in jobs}
    for job in run:  # the same runs, but fewer of them
        assert replace(job, number=-1) == planned[job.trial, job.repeat]
    assert sum(job.trial == 1 for job in run) == 6 and sum(job.trial == 0 for job in run) == 3
    races = record.read(tmp_path / "s")["races"]
    assert races.keys() == {"tags", "labels"}
    assert [(drop["trial"], drop["after"], drop["by"]) for drop in races["labels"]["dropped"]] == [(0, 3, 1)]
    assert capsys.readouterr().out.count("trial 0 is out") == 1


@pytest.mark.slow
def test_a_table_without_a_row_to_train_is_one_line(shards: Path, cache: Path, tmp_path: Path) -> None:
    done = tune(cache, "--data", shards, "--study", tmp_path / "v", "--table", "V")
    assert done.returncode == 2 and done.stderr.count("\n") == 1 and not (tmp_path / "v").exists()
    assert "error: --table V: none of its 12 rows can be run: nothing is trained for it" in done.stderr
