"""A run folder becomes a model that loads by itself."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from datasets.shards import Tags
from datasets.source import Source, open_source
from trainables.card import card
from trainables.checkpoint import CheckpointError
from trainables.export import export_run, load_model, main, measure_model
from trainables.folder import RunFolder
from trainables.intervals import wilson
from trainables.model_folder import CARD, reads, record_test_read, write_model
from trainables.run import Run

SMALL = {"backbone": "tinycnn", "framework": "mlhe", "width": 0.25, "batch_size": 32}


@pytest.fixture(scope="module")
def trained(source: Source, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    folder = RunFolder(
        tmp_path_factory.mktemp("run") / "run", Run("csem", SMALL, source, seed=1, epochs=1), {}
    )
    folder.next_epoch()
    return folder


def test_the_model_of_a_run_folder_answers_as_the_run_does(
    trained: RunFolder, source: Source, tmp_path: Path
) -> None:
    out = export_run(trained.path, source.index, tmp_path / "deep" / "model")
    model, about = load_model(out)
    batch = next(source.eval_batches("val", 8))
    with torch.no_grad():
        trained.run.model.eval()
        ours, theirs = model(batch.waveform), trained.run.model(batch.waveform)
    assert torch.equal(ours.event_logits, theirs.event_logits)
    assert about["run"] == {"folder": str(trained.path), "seed": 1, "epochs": 1}
    assert about["metrics"]["val/scene_accuracy"] == trained.next_epoch()["val/scene_accuracy"]


def test_other_data_other_event_labels_and_an_unfinished_run_are_refused(
    trained: RunFolder, shards: Path, cache: Path, source: Source, tmp_path: Path
) -> None:
    degraded = open_source(shards, cache=cache, events="labels@0.8")
    with pytest.raises(ValueError, match="with these --events is"):
        export_run(trained.path, degraded.index, tmp_path / "out")
    with pytest.raises(CheckpointError):
        export_run(tmp_path, source.index, tmp_path / "out")
    (tmp_path / "used").mkdir()
    (tmp_path / "used" / "file").write_text("mine")
    with pytest.raises(FileExistsError, match="used exists"):
        export_run(trained.path, source.index, tmp_path / "used")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["used"]


def test_a_checkpoint_never_meets_other_event_labels(trained: RunFolder, shards: Path, cache: Path) -> None:
    degraded = open_source(shards, cache=cache, events="labels@0.8")
    with pytest.raises(CheckpointError, match=r"data of the checkpoint .* or other --events"):
        RunFolder(trained.path, Run("csem", SMALL, degraded, seed=1, epochs=1), {})


@pytest.mark.parametrize("damage", ["weights", "description", "field"])
def test_a_damaged_model_is_said_to_be_one(
    trained: RunFolder, source: Source, tmp_path: Path, damage: str
) -> None:
    out = export_run(trained.path, source.index, tmp_path / "model")
    description, weights = out / "model.json", out / "model.safetensors"
    if damage == "weights":
        weights.write_bytes(weights.read_bytes()[:1000])
    elif damage == "description":
        description.write_text("{")
    else:
        record = json.loads(description.read_text())
        del record["audio"]
        description.write_text(json.dumps(record))
    with pytest.raises(ValueError, match="model: a damaged model"):
        load_model(out)


def study_of(run: RunFolder, home: Path) -> Path:
    """A study of two trials: one searched whose checkpoint is gone, one confirmed over two seeds, tested."""
    home.mkdir(parents=True)
    rows = []
    for trial, repeat, phase, score in (
        (0, 0, "search", 0.9),
        (1, 1, "confirm", 0.4),
        (1, 2, "confirm", 0.5),
    ):
        folder = f"runs/t{trial:04}-r{repeat}"
        shutil.copytree(run.path, home / folder)
        rows.append(
            {"trial": trial, "repeat": repeat, "phase": phase, "state": "COMPLETE", "score": score, "seed": 1}
            | {"epochs": 2, "folder": folder, "val/scene_accuracy": score, "test/event_map": score / 2}
        )
    shutil.rmtree(home / "runs" / "t0000-r0" / "checkpoint")
    pd.DataFrame(rows).to_parquet(home / "trials.parquet")
    return home


def test_any_kept_trial_of_a_study_becomes_a_model(
    tested_run: RunFolder, shards: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    study = study_of(tested_run, tmp_path / "study")
    asked = {"data": str(shards), "events": None, "mix": []}
    (study / "study.json").write_text(json.dumps({"format": 1, "request": asked}))
    assert main([str(study), "--trial", "1"]) == 0
    out = study / "models" / "t0001-r2"
    assert capsys.readouterr().out.startswith(f"{out}\n")
    _, about = load_model(out)
    assert about["run"] == {"folder": "runs/t0001-r2", "trial": 1, "repeat": 2, "seed": 1, "epochs": 2}
    seeds = about["seeds"]["val/scene_accuracy"]
    assert (seeds["mean"], seeds["n"]) == (pytest.approx(0.45), 2)
    assert seeds["sd"] == pytest.approx(0.1 / 2**0.5)
    assert seeds["high"] - seeds["mean"] == pytest.approx(
        12.7062 * 0.05, rel=1e-4
    )  # t of 1 degree of freedom
    confusion = np.array(json.loads((tested_run.path / "test.json").read_text())["confusion"])
    assert tuple(about["intervals"]["test/scene_accuracy"]) == wilson(np.trace(confusion), confusion.sum())
    assert about["calibration"]["clips"] == 24 and about["intervals"]["val/event_map"][0] > 0
    assert main([str(study), "--out", str(tmp_path / "winner")]) == 0
    assert load_model(tmp_path / "winner")[1]["run"]["folder"] == "runs/t0001-r2"

    def refused(*arguments: str) -> str:
        capsys.readouterr()
        assert main(list(arguments)) == 2
        error = capsys.readouterr().err
        assert error.startswith("error: ") and error.count("\n") == 1
        return error

    assert "--trial 7:" in (error := refused(str(study), "--trial", "7")) and "has trials 0, 1" in error
    assert "--trial 0: no such run whose checkpoint was kept" in refused(str(study), "--trial", "0")
    assert "kept runs/t0001-r1, runs/t0001-r2" in refused(str(study), "--trial", "1", "--repeat", "3")
    assert "exists" in refused(str(study), "--trial", "1")
    assert "--data SHARDS is needed" in refused(str(tested_run.path), "--out", str(tmp_path / "m"))
    assert "is not a study" in refused(str(tested_run.path), "--trial", "1")
    assert "neither a study (study.json) nor a run (run.json)" in refused(str(shards))
    assert "neither a study" in refused(str(tmp_path / "nothing"))


def test_the_card_says_what_the_model_is(model: Path, tested_run: RunFolder, source: Source) -> None:
    text = (model / CARD).read_text()
    _, about = load_model(model)
    tested = json.loads((tested_run.path / "test.json").read_text())["metrics"]
    low, high = about["intervals"]["test/scene_accuracy"]
    line = f"| scene_accuracy | test | {tested['test/scene_accuracy']:.4f} | {low:.4f} to {high:.4f} |"
    assert line in text and "| event_map | validation |" in text
    for said in (source.index.checksum, "`89abcd`", "seed 1, 2 epochs", "`synthetic`", "8000 Hz", "LogMel("):
        assert said in text, said
    assert all(f"`{name}`" in text for name in about["scenes"] + about["events"])
    assert "Licence of the data" in text and "Intended use" in text and "Not for decisions" in text
    found = about["calibration"]
    if found["threshold"] is not None:
        assert f"below {found['threshold']:.2f} is marked unsure" in text
    assert "read once by the training run itself" in text


def test_tags_beside_the_clips_are_not_what_a_model_reads_that_reads_none(
    trained: RunFolder, source: Source, tmp_path: Path
) -> None:
    """Shards of a teacher hold its tags, but csem learns from them as labels and needs no teacher later."""
    tags = Tags(("dog", "rain"), "teacher-1", "a" * 64)
    out = export_run(trained.path, replace(source.index, tags=tags), tmp_path / "model")
    _, about = load_model(out)
    text = (out / CARD).read_text()
    assert about["event_outputs"] == len(about["events"]) == len(source.index.labels.events)
    assert about["reads_tags"] == 0 and about["tags"]["model"] == "teacher-1"
    assert "It reads" not in text and "--teacher" not in text and "which sound events" in text


def test_names_make_no_markup_in_the_card(model: Path) -> None:
    _, about = load_model(model)
    nasty = "`<script>alert(1)</script>`\n# head | cell"
    text = card(about | {"scenes": [nasty], "data": {"corpus": nasty}}, [{"command": nasty}])
    for line in text.splitlines():
        outside = "".join(line.split("`")[::2])  # what is not code
        assert "<script>" not in outside and not line.startswith("# head")
    assert text.count("<script>") == 3


def test_a_kill_while_writing_leaves_a_whole_model(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    best = shutil.copytree(model, tmp_path / "best")
    record_test_read(best, {"time": "then", "command": "evaluate"})
    net, about = load_model(best)
    moved: list[str] = []

    def killed(source: Any, target: Any) -> None:
        moved.append(Path(source).name)
        if len(moved) > stop:
            raise KeyboardInterrupt
        plain(source, target)

    plain = os.replace
    for stop in range(5):
        moved.clear()
        with monkeypatch.context() as patched:
            patched.setattr("os.replace", killed)
            try:
                write_model(best, net.state_dict(), about | {"note": stop})
                break
            except KeyboardInterrupt:
                pass
        there = best if best.is_dir() else best.with_name("best.old")
        load_model(there)
        assert reads(there) == [{"time": "then", "command": "evaluate"}]
        write_model(best, net.state_dict(), about)  # and the next writing mends it
        assert load_model(best)[0].state_dict().keys() == net.state_dict().keys()
        assert [p.name for p in tmp_path.iterdir()] == ["best"] and reads(best)
    assert stop == 4 and load_model(best)[1]["note"] == 4


@pytest.mark.parametrize(("mask", "mode"), [(0o022, 0o644), (0o002, 0o664), (0o077, 0o600)])
def test_others_may_read_a_model_as_the_umask_says(model: Path, tmp_path: Path, mask: int, mode: int) -> None:
    net, about = load_model(model)
    before = os.umask(mask)
    try:
        out = write_model(tmp_path / "m", net.state_dict(), about)
    finally:
        os.umask(before)
    assert {path.name: path.stat().st_mode & 0o777 for path in out.iterdir()} == dict.fromkeys(
        ("model.safetensors", "model.json", "MODEL_CARD.md"), mode
    )


def test_too_few_validation_clips_are_told(tested_run: RunFolder, source: Source, tmp_path: Path) -> None:
    out = export_run(tested_run.path, source.index, tmp_path / "model")
    about = load_model(out)[1]
    few = replace(
        source.index, splits=source.index.splits | {"val": replace(source.index.split("val"), clips=8)}
    )
    batches = [next(iter(source.eval_batches("val", 8)))]
    view = SimpleNamespace(index=few, eval_batches=lambda *_, **__: iter(batches))
    said = measure_model(out, view)  # type: ignore[arg-type]
    assert said == "not calibrated: 8 validation clips of known scene; at least 20 are needed"
    assert about["calibration"] == {"absent": "its validation clips were not read yet"}
    assert load_model(out)[1]["calibration"]["absent"].startswith("8 validation clips")
    assert "Not calibrated: 8 validation clips" in (out / CARD).read_text()
