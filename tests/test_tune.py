"""The program itself, as a user runs it: a real search on real Ray, killed and taken up again."""

from __future__ import annotations

import html
import json
import os
import re
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pandas as pd
import psutil
import pytest

import tune_csem
from datasets.shards import ShardError
from datasets.source import Source, open_source
from searchspace.methods import PRUNERS
from searchspace.study import Job, Ledger, open_storage, seed_for, sqlite_url
from trainables.export import load_model
from trainables.folder import read_epochs
from trainables.request import Request, begin

pytestmark = pytest.mark.xdist_group("tune")
ROOT = Path(__file__).resolve().parents[1]
QUICK = ["--set", "width=0.25", "batch_size=16", "--no-dashboard"]
CLOCK = ("train/seconds", "train/clips_per_second", "train/data_wait", "trial", "repeat", "phase")


def command(*arguments: str | Path) -> list[str]:
    return [sys.executable, str(ROOT / "tune_csem.py"), *map(str, arguments)]


def tune(cache: Path, *arguments: str | Path, folder: Path = ROOT) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(
            command(*arguments),
            capture_output=True,
            text=True,
            timeout=240,
            cwd=folder,
            env=environment(cache),
        )
    except subprocess.TimeoutExpired as late:
        pytest.fail(f"{late}; it had said: {late.stdout!r} {late.stderr!r}")


def started(cache: Path, *arguments: str | Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        command(*arguments), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT,
        env=environment(cache),
    )  # fmt: skip


def environment(cache: Path) -> dict[str, str]:
    return os.environ | {"SCENETUNE_CACHE": str(cache), "OMP_NUM_THREADS": "1"}


def wait_for(what: Callable[[], object], process: subprocess.Popen[str], seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while not what():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < end, "it never came to that"
        time.sleep(0.1)


@pytest.fixture(scope="module")
def study(shards: Path, cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("studies") / "whole"
    arguments = [
        "--data",
        shards,
        "--study",
        folder,
        "--trials",
        "6",
        "--epochs",
        "9",
        "--confirm",
        "2",
        "--seeds",
        "2",
    ]
    done = tune(cache, *arguments, *QUICK)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "search 6/6" in done.stdout and "confirm 6/6" in done.stdout and "report:" in done.stdout
    assert "Traceback" not in done.stderr
    return folder


@pytest.mark.ray
@pytest.mark.slow
def test_a_study_leaves_everything_behind(study: Path, shards: Path) -> None:
    about = json.loads((study / "study.json").read_text())
    assert about["status"] == "complete" and about["data"]["clips"] == {"train": 60, "val": 24, "test": 24}
    assert (
        about["pins"]["width"] == 0.25 and about["packages"]["ray"] and "tune_csem.py" in about["command"][0]
    )
    runs, curves = pd.read_parquet(study / "trials.parquet"), pd.read_parquet(study / "curves.parquet")
    assert len(runs) == 12 and set(runs["state"]) <= {"COMPLETE", "PRUNED", "DIVERGED"}
    race = about["race"]
    assert race["over"] and race["seeds"] == 2 and race["headline"] == [3, 4] and not race["dropped"]
    confirmed = runs[runs["phase"] == "confirm"]
    by_trial = confirmed[confirmed["repeat"] <= 2].groupby("trial")["score"].mean()
    assert len(by_trial) == 2 and by_trial[race["winner"]] == by_trial.max()
    assert set(confirmed[confirmed["repeat"] > 2]["trial"]) == {race["winner"]} and len(confirmed) == 6
    assert (confirmed.groupby("repeat")["seed"].nunique() == 1).all()  # paired
    assert runs["origin"].str.startswith("published: Hou et al. 2023").sum() >= 1
    assert runs["seed"].nunique() == 6 + 4
    assert len(curves) == runs["epochs"].sum()
    last = curves.groupby(["trial", "repeat"])["val/scene_accuracy"].last()
    assert all(last[row.trial, row.repeat] == row.score for row in runs.itertuples())
    pruned = runs[runs["state"] == "PRUNED"]
    assert (pruned["epochs"] == 3).all() and pruned["reason"].str.contains("the cut-off at epoch").all()
    assert (runs[runs["state"] == "COMPLETE"]["epochs"] == 9).all()
    for name in ("report.ipynb", "report.html", "study.db"):
        assert (study / name).stat().st_size > 1000, name
    assert not (study / ".ray").exists()


@pytest.mark.ray
@pytest.mark.slow
def test_only_the_winners_further_seeds_saw_the_test_split(study: Path) -> None:
    runs = pd.read_parquet(study / "trials.parquet")
    further = runs["repeat"] > 2
    assert runs.loc[further, "test/scene_accuracy"].notna().all() and further.sum() == 2
    assert runs.loc[~further, "test/scene_accuracy"].isna().all()
    assert {p.parent.name for p in study.glob("runs/*/test.json")} == {
        Path(f).name for f in runs.loc[further, "folder"]
    }


@pytest.mark.ray
@pytest.mark.slow
def test_the_exported_model_scores_what_it_says(study: Path, source: Source) -> None:
    from trainables.engine import evaluate
    from trainables.recipe import configure
    from trainables.registry import family

    model, about = load_model(study / "best")
    race = json.loads((study / "study.json").read_text())["race"]
    assert about["run"]["trial"] == race["winner"] and about["run"]["repeat"] in race["headline"]
    config, _ = configure(about["family"], about["values"])
    fam = family(about["family"])
    _, scores = evaluate(model, fam.terms(config), fam.weights(config), source.eval_batches("test", 64))
    assert scores.compute()["scene_accuracy"] == pytest.approx(about["metrics"]["test/scene_accuracy"])


@pytest.mark.ray
@pytest.mark.slow
def test_one_trial_can_be_trained_again_to_the_same_numbers(
    study: Path, shards: Path, cache: Path, tmp_path: Path
) -> None:
    runs = pd.read_parquet(study / "trials.parquet")
    row = runs[runs["state"] == "COMPLETE"].iloc[0]
    asked = json.loads((study / row["folder"] / "run.json").read_text())
    settings = [f"{k}={'none' if v is None else v}" for k, v in asked["values"].items()]
    again = [
        sys.executable,
        "-m",
        "trainables.train",
        "csem",
        "--data",
        str(shards),
        "--epochs",
        "9",
        "--seed",
        str(row["seed"]),
    ]
    done = subprocess.run(
        [*again, "--out", str(tmp_path / "again"), "--set", *settings],
        capture_output=True, text=True, cwd=ROOT, env=environment(cache), timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    ours = [{k: v for k, v in line.items() if k not in CLOCK} for line in read_epochs(tmp_path / "again")]
    theirs = [
        {k: v for k, v in line.items() if k not in CLOCK} for line in read_epochs(study / row["folder"])
    ]
    assert ours == theirs


@pytest.mark.ray
@pytest.mark.slow
def test_the_command_in_the_report_trains_the_winner_again_to_the_same_numbers(
    study: Path, cache: Path, tmp_path: Path
) -> None:
    shown = re.findall(r'<pre class="command"><code>(.*?)</code>', (study / "report.html").read_text(), re.S)
    (command,) = [html.unescape(text) for text in shown if "trainables.train " in text]
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    done = subprocess.run(
        ["bash", "-c", command],
        capture_output=True, text=True, cwd=tmp_path, timeout=120,
        env=environment(cache) | {"PATH": path, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    (again,) = tmp_path.iterdir()
    seed = json.loads((again / "run.json").read_text())["seed"]
    runs = pd.read_parquet(study / "trials.parquet")
    winner = json.loads((study / "best" / "model.json").read_text())["run"]["trial"]
    same = (runs["phase"] == "confirm") & (runs["seed"] == seed) & (runs["trial"] == winner)
    (first,) = [study / folder for folder in runs.loc[same, "folder"]]
    ours, theirs = (
        [{k: v for k, v in line.items() if k not in CLOCK} for line in read_epochs(run)]
        for run in (again, first)
    )
    assert ours == theirs and ours
    ours, theirs = (json.loads((run / "test.json").read_text()) for run in (again, first))
    assert ours == theirs and ours["metrics"]


def trial_processes(driver: int) -> list[psutil.Process]:
    """Ray names a process after its actor while it waits and after the method while it works."""
    found = []
    for child in psutil.Process(driver).children(recursive=True):
        with suppress(psutil.NoSuchProcess):
            if any(
                name in " ".join(child.cmdline()) for name in ("ray::WarmTrial", "ray::ResourceTrainable")
            ):
                found.append(child)
    return found


@pytest.mark.ray
@pytest.mark.slow
def test_killed_at_any_level_and_resumed_nothing_finished_is_lost(
    shards: Path, cache: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "killed"
    arguments = [
        "--data",
        shards,
        "--study",
        folder,
        "--trials",
        "5",
        "--epochs",
        "20",
        "--confirm",
        "1",
        "--seeds",
        "2",
    ]

    def ended() -> int:
        """Looks into the database without touching it: the program may be making it just now."""
        query = "select count(*) from trials join studies using (study_id) where study_name = 'search' and "
        try:
            with sqlite3.connect(f"file:{folder / 'study.db'}?mode=ro", uri=True) as database:
                return database.execute(query + "state in ('COMPLETE', 'PRUNED', 'FAIL')").fetchone()[0]
        except sqlite3.OperationalError:
            return 0

    def finished_rows() -> pd.DataFrame:
        book = Ledger(open_storage(sqlite_url(folder / "study.db")), "search", pruner=PRUNERS["none"])
        return pd.DataFrame([r for r in book.rows() if r["state"] != "RUNNING"])

    first = started(cache, *arguments, *QUICK, "--pruner", "none")
    wait_for(lambda: ended() >= 1, first)
    first.kill()
    first.wait()
    finished = finished_rows()

    second = started(cache, "--study", folder, "--resume")
    # A trial that was done but not yet told when the driver died counts before any process is up again.
    wait_for(lambda: ended() >= len(finished) + 1 and trial_processes(second.pid), second)
    workers = trial_processes(second.pid)
    assert workers and all(worker.environ()["MALLOC_ARENA_MAX"] == "1" for worker in workers)
    for worker in workers:  # the trials' own processes die too: Tune starts them again
        worker.kill()
    wait_for(lambda: ended() >= len(finished) + 2, second)
    second.send_signal(signal.SIGINT)
    out, err = second.communicate(timeout=60)
    assert second.returncode == 130 and "--resume" in out and "Traceback" not in err, f"{out}\n{err}"
    assert "confirm" not in out.split("fixed")[1]  # half a search has no finalists
    assert json.loads((folder / "study.json").read_text())["status"] == "interrupted"

    done = tune(cache, "--study", folder, "--resume")
    assert done.returncode == 0, done.stdout + done.stderr
    runs = pd.read_parquet(folder / "trials.parquet").set_index(["trial", "repeat"])
    assert len(runs) == 7 and (runs["state"] == "COMPLETE").all() and (runs["epochs"] == 20).all()
    for row in finished.itertuples():
        assert (
            runs.loc[(row.trial, 0), "score"] == row.score
            and runs.loc[(row.trial, 0), "started"] == row.started
        )
    assert len(pd.read_parquet(folder / "curves.parquet")) == 7 * 20
    again = tune(cache, "--study", folder, "--resume")  # a finished study has nothing left to run
    assert again.returncode == 0 and "search 5/5" not in again.stdout


@pytest.mark.ray
@pytest.mark.slow
def test_a_driver_that_lost_its_study_in_mid_search_ends_there(
    shards: Path, cache: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "lost"
    asked = ["--data", shards, "--study", folder, "--trials", "6", "--epochs", "60", "--pruner", "none"]
    driver = started(cache, *asked, *QUICK)
    wait_for(lambda: list(folder.glob("runs/*/epochs.jsonl")), driver)
    named = json.loads((folder / "driver.json").read_text())
    (folder / "driver.json").write_text(
        json.dumps(named | {"token": "0" * 32, "host": "elsewhere", "pid": 7})
    )
    out, err = driver.communicate(timeout=90)
    assert driver.returncode == 2 and "is being run by process 7 on elsewhere" in err, f"{out}\n{err}"
    # Tune's own handler of that signal ended the search only; a report followed, and could have been the race
    assert "report:" not in out and not (folder / "report.html").exists()
    assert json.loads((folder / "study.json").read_text())["status"] != "complete"


@pytest.mark.ray
@pytest.mark.slow
def test_both_runners_give_the_same_numbers(shards: Path, cache: Path, tmp_path: Path) -> None:
    """One warm process against two Ray Train workers: same seed, same global batches, same curve within
    rounding."""
    import ray

    from trainables.cluster import Room, Share
    from trainables.phase import run_phase
    from trainables.progress import Progress
    from trainables.trial import Place

    values = {
        "backbone": "tinycnn",
        "framework": "csem",
        "width": 0.25,
        "accumulate": 2,
        "batch_size": 21,
        "dropout": 0.0,
        "embedding_dropout": 0.0,
    }
    curves = {}
    ray.init(
        num_cpus=4,
        include_dashboard=True,
        dashboard_host="127.0.0.1",
        log_to_driver=False,
        logging_level="ERROR",
    )
    try:
        for workers in (1, 2):
            folder = tmp_path / f"workers{workers}"
            folder.mkdir()
            ledger = Ledger(open_storage(sqlite_url(folder / "study.db")), "confirm", pruner=PRUNERS["none"])
            ledger.plan(
                [Job(-1, 0, 1, "confirm", values, seed_for(0, values, 1), 3, "runs/t0000-r1", test=True)]
            )
            place = Place("csem", str(shards), str(folder), "val/scene_accuracy", str(cache), workers=workers)
            with Progress("confirm", 1, 3) as progress:
                run_phase(
                    ledger, place, progress, room=Room(Share(workers, 1.0, 0.0, at_once=1), progress.say)
                )
            (row,) = ledger.rows()
            assert row["state"] == "COMPLETE" and row["test/scene_accuracy"] is not None
            curves[workers] = read_epochs(folder / "runs" / "t0000-r1")
        end = time.monotonic() + 60
        while ray.available_resources().get("CPU") != 4.0:  # everything is given back, if not at once
            assert time.monotonic() < end, ray.available_resources()
            time.sleep(0.5)
    finally:
        ray.shutdown()
    for one, two in zip(curves[1], curves[2], strict=True):
        for name, value in one.items():
            if name not in CLOCK:
                assert two[name] == pytest.approx(value, rel=2e-3, abs=2e-4), name


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--data", "/no/such/shards"], "/no/such/shards: no such folder"),
        (["--family", "csme"], "family 'csme' is not known; known: csem"),
        (
            ["--set", "backbone=resnet"],
            "'resnet' is not accepted; expected tinycnn, cnnt, pann, ast, dcase2018 or scattering",
        ),
        (["--set", "learning_rate=1"], "unknown knob 'learning_rate'"),
        (["--set", "lr"], "expected key=value"),
        (["--sampler", "bo"], "sampler 'bo' is not known; known: tpe, random, gp"),
        (["--pruner", "mean"], "pruner 'mean' is not known; known: asha, promotion"),
        (["--gpus-per-trial", "1.5"], "--gpus-per-trial 1.5: expected 0, a share of one GPU, or whole GPUs"),
        (
            ["--workers-per-trial", "2", "--least-workers", "3"],
            "--least-workers 3: expected 1 to 2, --workers-per-trial",
        ),
        (["--race", "none"], "race 'none' is not known; known: drop, full"),
        (["--trials", "0"], "--trials 0: expected at least 1"),
        (["--seed", "-1"], "--seed -1: expected 0 to 4294967295"),
        (["--events", "tags>=0.1"], "events 'tags>=0.1': expected labels, tags, tags>THRESHOLD"),
        (["--events", "tags"], "--events tags: the built-in corpus has no tags; tag a shard set with"),
        (["--resume", "--study", "/no/such/study"], "/no/such/study is not a study"),
    ],
)
def test_a_users_mistake_gets_one_line(
    arguments: list[str],
    message: str,
    cache: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for name, value in environment(cache).items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["tune_csem.py", *arguments])
    assert tune_csem.main() == 2
    said = capsys.readouterr()
    assert not said.out
    assert said.err.startswith("error: ") and message in said.err and said.err.count("\n") == 1
    assert not (tmp_path / "studies").exists()  # nothing is left of a study that never began


def test_a_folder_that_holds_something_is_no_new_study(
    shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "precious.txt").write_text("mine")
    monkeypatch.setattr(sys, "argv", ["tune_csem.py", "--data", str(shards), "--study", str(tmp_path)])
    assert tune_csem.main() == 2
    said = capsys.readouterr()
    assert said.err.startswith("error: ") and "already exists" in said.err and said.err.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["precious.txt"]


def test_after_a_mistake_the_program_ends_with_2(cache: Path, tmp_path: Path) -> None:
    done = tune(cache, "--data", "/no/such/shards", folder=tmp_path)
    assert done.returncode == 2 and not done.stdout
    assert done.stderr.startswith("error: /no/such/shards: no such folder; expected a shard set")
    assert done.stderr.count("\n") == 1


@pytest.mark.slow
@pytest.mark.ray
def test_impossible_plans_are_refused_with_the_sums(
    shards: Path, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanting = ["--data", shards, "--no-dashboard"]
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
        monkeypatch.delenv(name, raising=False)
    done = tune(cache, *wanting, "--study", tmp_path / "a", "--cpus-per-trial", "999")
    token = tmp_path / ".ray" / "auth_token"  # which Ray made for this cluster
    assert (token.stat().st_mode & 0o777, token.parent.stat().st_mode & 0o777) == (0o600, 0o700)
    assert (
        done.returncode == 2 and "a trial needs 1 x 999 = 999 CPUs, the cluster's nodes have" in done.stderr
    )
    done = tune(cache, *wanting, "--study", tmp_path / "b", "--set", "backbone=pann", "n_mels=8")
    assert done.returncode == 2 and "the search space has no valid point: n_mels=8" in done.stderr


def test_a_study_keeps_its_event_labels_and_goes_on_with_no_others(shards: Path, tmp_path: Path) -> None:
    study = tmp_path / "study"
    begin(Request(study=study, data=shards, events="labels@0.80"))
    assert json.loads((study / "study.json").read_text())["request"]["events"] == "labels@0.8:0"
    for events in (None, "labels@0.8", "labels@0.8:0"):
        assert begin(Request(study=study, resume=True, events=events))[1].events == "labels@0.8:0"
    for events in ("labels", "tags", "labels@0.8:1"):
        with pytest.raises(ValueError, match=f"{events}: the study was begun with --events labels@0"):
            begin(Request(study=study, resume=True, events=events))
    record = json.loads((study / "study.json").read_text())
    del record["request"]["events"]  # as written before there was a choice
    (study / "study.json").write_text(json.dumps(record))
    assert begin(Request(study=study, resume=True))[1].events is None  # the default
    for option, value in {"trials": 7, "family": "ergl", "table": "VII", "seed": 3}.items():
        with pytest.raises(ValueError, match=f"--{option} {value}: the study was begun with"):
            begin(Request(study=study, resume=True, **{option: value}))  # type: ignore[arg-type]
    with pytest.raises(ShardError, match="this shard set has no tags"):
        begin(Request(study=tmp_path / "other", data=shards, events="tags"))
    assert not (tmp_path / "other").exists()


def test_the_source_fixture_is_what_the_program_reads(shards: Path, cache: Path) -> None:
    assert open_source(shards, cache=cache).index.labels.scenes
