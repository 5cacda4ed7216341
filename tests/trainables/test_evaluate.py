"""A split's metrics with intervals: the run's own numbers, and a record of every look at the test split."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from datasets import synthetic
from datasets.source import StreamSource, open_source
from trainables.evaluate import main
from trainables.folder import RunFolder
from trainables.intervals import intervals, wilson
from trainables.model_folder import CARD, READS
from trainables.run import Run


def evaluated(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> dict[str, Any]:
    assert main([*map(str, arguments), "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_the_numbers_are_the_runs_own_on_either_split(
    model: Path, tested_run: RunFolder, shards: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = shutil.copytree(model, tmp_path / "model")
    metrics = json.loads((tested_run.path / "test.json").read_text())["metrics"]
    found = evaluated(capsys, folder, shards, "--split", "test")
    mine = {f"test/{name}": value["value"] for name, value in found["metrics"].items()}
    assert mine == {name: value for name, value in metrics.items() if not math.isnan(value)}
    assert found["confusion"] == json.loads((tested_run.path / "test.json").read_text())["confusion"]
    found = evaluated(capsys, folder, shards)
    last = tested_run.next_epoch()  # repeats its last line
    assert {f"val/{k}": v["value"] for k, v in found["metrics"].items()} == {
        k: v for k, v in last.items() if k.startswith("val/")
    }


def test_a_run_folder_is_evaluated_as_its_model_is(
    model: Path, tested_run: RunFolder, shards: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ours, theirs = evaluated(capsys, model, shards), evaluated(capsys, tested_run.path, shards)
    assert ours["metrics"] == theirs["metrics"] and theirs["unsure"] is None
    assert ours["unsure"]["threshold"] is None or 0.5 <= ours["unsure"]["threshold"] <= 1


def test_the_intervals_are_of_these_clips(
    model: Path, tested_run: RunFolder, shards: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = evaluated(capsys, model, shards)
    _, scores = tested_run.run.score("val")
    expected = intervals(scores)
    for name, (low, high) in expected.items():
        assert found["metrics"][name]["low"] == pytest.approx(low, abs=1e-6), name
        assert found["metrics"][name]["high"] == pytest.approx(high, abs=1e-6), name
    right = round(found["metrics"]["scene_accuracy"]["value"] * 24)
    assert found["metrics"]["scene_accuracy"]["low"] == wilson(right, 24)[0]
    assert found["metrics"]["loss"]["low"] is None
    ap, auc = scores.per_event()
    events = tested_run.run.source.index.labels.events
    for e, name in enumerate(events):
        ours = found["events"][name]
        assert (ours["average_precision"] is None) == np.isnan(ap[e])
        assert ours["auc"] is None or ours["auc"] == pytest.approx(auc[e])
    stored = json.loads((model / "model.json").read_text())["intervals"]
    assert stored["val/event_map"] == pytest.approx(expected["event_map"], abs=1e-6)


def test_the_test_split_is_read_only_when_named_and_every_look_is_on_record(
    model: Path,
    shards: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder = shutil.copytree(model, tmp_path / "model")
    seen: list[tuple[str, bool]] = []
    plain = StreamSource.eval_batches

    def watched(self: Any, split: str, *rest: Any, **options: Any) -> Any:
        seen.append((split, (folder / READS).is_file()))
        return plain(self, split, *rest, **options)

    monkeypatch.setattr(StreamSource, "eval_batches", watched)
    evaluated(capsys, folder, shards)
    assert seen == [("val", False)] and "never with this model since" in (folder / CARD).read_text()
    for _ in range(2):
        evaluated(capsys, folder, shards, "--split", "test")
    assert seen[1:] == [("test", True)] * 2  # written down before the first clip
    lines = [json.loads(line) for line in (folder / READS).read_text().splitlines()]
    assert (
        len(lines) == 2
        and lines[0]["data"] == json.loads((folder / "model.json").read_text())["data"]["checksum"]
    )
    assert f"{shards} --split test --json" in lines[0]["command"] and lines[0]["time"].startswith("20")
    card = (folder / CARD).read_text()
    assert card.count(f"{shards} --split test") == 2 and "read once by the training run itself" in card


def test_a_look_that_cannot_be_written_down_is_refused(
    model: Path, shards: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = shutil.copytree(model, tmp_path / "model")
    (folder / READS).mkdir()
    assert main([str(folder), str(shards), "--split", "test"]) == 2
    assert "the test split is not read: that can't be written down" in capsys.readouterr().err


def test_the_table_is_for_people(model: Path, shards: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(model), str(shards)]) == 0
    out = capsys.readouterr().out
    assert out.startswith("24 val clips of synthetic (") and "scene_accuracy " in out
    assert "Wilson for accuracy" in out and "unsure: " in out and "loss" not in out


def test_mistakes_are_one_line(
    model: Path, shards: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def refused(*arguments: object) -> str:
        assert main([str(word) for word in arguments]) == 2
        out, err = capsys.readouterr()
        assert err.startswith("error: ") and err.count("\n") == 1 and out == ""
        return err

    assert "no such folder" in refused(tmp_path / "none", shards)
    assert "no such folder" in refused(model, tmp_path / "none")
    assert "neither a run (run.json) nor an exported model" in refused(tmp_path, shards)
    (tmp_path / "study.json").write_text("{}")
    assert "is a study: name its best/" in refused(tmp_path, shards)
    assert "no tset clips; splits: train, val, test" in refused(model, shards, "--split", "tset")
    assert "--threads 0" in refused(model, shards, "--threads", "0")
    other = tmp_path / "other"
    synthetic.build(other, train=10, val=10, test=10, seconds=1.5, sample_rate=8000, seed=4)
    assert "takes clips of 1.7 s" in refused(model, other, "--split", "test")
    assert not (model / READS).exists()


def test_the_svm_of_a_family_that_has_one_is_measured_too(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    long = tmp_path / "shards"
    synthetic.build(long, train=24, val=12, test=12, seconds=3.5, sample_rate=8000, seed=4)
    values = {"width": 0.06, "tag_use": "none", "batch_size": 12}
    run = Run("tagvector", values, open_source(long, cache=None), seed=1, epochs=1)
    folder = RunFolder(tmp_path / "run", run, {})
    folder.next_epoch()
    stated = folder.test()
    found = evaluated(capsys, tmp_path / "run", long, "--split", "test")["metrics"]["svm_accuracy"]
    assert found["value"] == stated["test/svm_accuracy"]
    assert (found["low"], found["high"]) == wilson(round(found["value"] * 12), 12)
