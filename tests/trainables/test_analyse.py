"""A trained model over a split: the arrays are the model's own, and whatever is missing is said."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from datasets import synthetic
from datasets.shards import Index, read_labels
from datasets.source import Source, StreamSource
from trainables import analyse, export
from trainables.analyse import event_share, main, run_over
from trainables.dependence import pearson
from trainables.engine import evaluate
from trainables.folder import RunFolder
from trainables.parts.coupling import infer
from trainables.run import Run

SMALL = {"backbone": "tinycnn", "framework": "csem", "width": 0.25, "batch_size": 16, "lr": 0.01}


def train(source: Source, home: Path, **values: Any) -> RunFolder:
    """One epoch of a small model, kept as trainables.train keeps it."""
    run = Run("csem", SMALL | values, source, seed=1, epochs=1)
    folder = RunFolder(home, run, {"git": {"commit": "4567ef"}})
    folder.next_epoch()
    return folder


@pytest.fixture(scope="module")
def trained(source: Source, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    return train(source, tmp_path_factory.mktemp("runs") / "t0001-r1")


def read(folder: Path, split: str = "val") -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    with np.load(folder / f"{split}.npz", allow_pickle=False) as stored:
        return json.loads((folder / f"{split}.json").read_text()), dict(stored)


def test_a_run_folder_from_the_command_line(
    trained: RunFolder, shards: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(trained.path), "--data", str(shards)]) == 0
    about, arrays = read(trained.path / "analysis")
    printed = capsys.readouterr().out
    assert printed.startswith("24 val clips, scene accuracy ") and str(trained.path / "analysis") in printed
    metrics, scores = trained.run.score("val")
    mine = {k.removeprefix("val/"): v for k, v in about["metrics"].items()}
    assert mine == pytest.approx({k: v for k, v in metrics.items() if k in mine}, abs=1e-6)
    assert np.allclose(arrays["scene_logits"], scores.arrays()["scene_logits"], atol=1e-5)
    assert (arrays["clip"] == np.arange(24)).all() and arrays["event_logits"].shape == (24, 12)
    weight = trained.run.model.scene_classifier.weight.detach().numpy()
    assert np.array_equal(arrays["scene_weight"], weight) and arrays["label_map"].shape == (22, 2)
    index = Index.load(shards)
    assert [index.labels.scenes[s] for s in arrays["scene"]] == [c.scene for c in read_labels(index, "val")]
    assert about["coupled"] and about["left_out"] == [] and len(about["dependence"]) == 6
    assert about["model"] | {"values": {}, "sha256": ""} == {
        "family": "csem",
        "values": {},
        "seed": 1,
        "epoch": 1,
        "epochs": 1,
        "run": "t0001-r1",
        "commit": "4567ef",
        "trained_on": index.checksum,
        "file": "tensors.safetensors",
        "sha256": "",
    }
    assert about["model"]["values"] == trained.run.values and about["data"]["checksum"] == index.checksum


def test_the_coupling_is_the_models_own(trained: RunFolder, source: Source) -> None:
    """ỹ_s of Algorithm 1 from the arrays written equals what the model infers."""
    rows = run_over(trained.run.model, source.eval_batches("val", 7))
    arrays, found = analyse.numbers(trained.run.model, rows, seed=0, distance="cosine")
    assert np.allclose(arrays["coupling"], arrays["scene_weight"] @ arrays["event_weight"].T, atol=1e-5)
    assert np.allclose(arrays["event_attention"].sum(1), 1) and np.allclose(
        arrays["scene_attention"].sum(1), 1
    )
    by_hand = rows.event_embedding @ (arrays["event_attention"] @ arrays["event_weight"]).T
    embeddings = (torch.from_numpy(x) for x in (rows.scene_embedding, rows.event_embedding))
    weights = (torch.from_numpy(arrays[name]) for name in ("scene_weight", "event_weight"))
    assert np.allclose(by_hand, infer(*embeddings, *weights)[0].numpy(), atol=1e-5)
    clips = [
        pearson(a.astype(float), b.astype(float)) for a, b in zip(rows.scene_embedding, rows.event_embedding)
    ]
    clips = [r for r in clips if r == r]
    assert found["dependence"][0]["mean"] == pytest.approx(np.mean(clips)) and found["dependence"][0][
        "n"
    ] == len(clips)


def test_event_shares_are_counted_where_labels_are_known(trained: RunFolder, source: Source) -> None:
    rows = run_over(trained.run.model, source.eval_batches("val", 64))
    known = rows.event_known.copy()
    known[::3, ::2] = 0
    rows = rows._replace(event_known=known)
    share = event_share(rows)
    for s in range(10):
        for e in range(12):
            heard = [
                rows.events[n, e] >= 0.5 for n in range(24) if rows.scene[n].argmax() == s and known[n, e]
            ]
            assert share[s, e] == pytest.approx(np.mean(heard)) if heard else np.isnan(share[s, e])


def test_the_test_split_is_read_only_when_named(
    trained: RunFolder, shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[str] = []
    plain = StreamSource.eval_batches

    def watched(self: Any, split: str, *rest: Any, **options: Any) -> Any:
        seen.append(split)
        return plain(self, split, *rest, **options)

    monkeypatch.setattr(StreamSource, "eval_batches", watched)
    assert main([str(trained.path), "--data", str(shards), "--out", str(tmp_path / "a")]) == 0
    assert seen == ["val"] and not (tmp_path / "a" / "test.json").exists()
    assert (
        main([str(trained.path), "--data", str(shards), "--out", str(tmp_path / "a"), "--split", "test"]) == 0
    )
    assert seen == ["val", "test"]
    assert read(tmp_path / "a", "test")[0]["data"]["split"] == "test"
    assert sorted(p.name for p in (tmp_path / "a").iterdir()) == [
        "test.json",
        "test.npz",
        "val.json",
        "val.npz",
    ]


def exported(trained: RunFolder, index: Index, home: Path) -> Path:
    """best/ as export_best writes it, from a study of one run."""
    import pandas as pd

    shutil.copytree(trained.path, home / "runs" / "t0001-r1")
    row = {
        "trial": 1,
        "repeat": 1,
        "phase": "confirm",
        "state": "COMPLETE",
        "score": 0.5,
        "seed": 1,
        "epochs": 1,
    }
    frame = pd.DataFrame([row | {"folder": "runs/t0001-r1", "val/scene_accuracy": 0.5}])
    frame.to_parquet(home / "trials.parquet")
    best = export.export_best(home, "csem", index)
    assert best is not None
    return best


def test_best_gives_the_same_numbers_as_its_run(trained: RunFolder, source: Source, tmp_path: Path) -> None:
    best = exported(trained, source.index, tmp_path)
    assert analyse.analyse_winner(best, source).startswith("analysed the best model: 24 val clips")
    about, arrays = read(best / "analysis")
    assert (about["model"]["commit"], about["model"]["epochs"]) == ("4567ef", 1)
    rows = run_over(trained.run.model, source.eval_batches("val", 64))
    assert np.allclose(arrays["scene_logits"], rows.scene_logits, atol=1e-5)
    again = export.export_best(tmp_path, "csem", source.index)  # as a resumed study does
    assert again == best and read(best / "analysis")[0] == about
    torch.save({}, best / "model.safetensors")  # damaged: one line, the study goes on
    said = analyse.analyse_winner(best, source)
    assert said.startswith("warning: the best model is not analysed") and "a damaged model" in said


@pytest.mark.parametrize("framework", ["scene_only", "moe", "mlhe"])
def test_what_a_framework_lacks_is_left_out_and_said(source: Source, tmp_path: Path, framework: str) -> None:
    folder = train(source, tmp_path / framework, framework=framework)
    written = analyse.analyse(folder.path, source.index, "val", source.eval_batches("val", 64))
    about, arrays = read(written.parent)
    assert not about["coupled"] and arrays["clip_map"].shape == (24, 2)
    if framework == "scene_only":
        assert about["left_out"] and "no event branch" in about["left_out"][0]
        assert about["dependence"] == [] and "coupling" not in arrays and "event_logits" not in arrays
    else:
        assert about["left_out"] == [] and "coupling" in arrays
    if framework == "moe":  # one embedding for both, as Table X has it
        assert about["dependence"][0]["mean"] == pytest.approx(1.0)


def test_mistakes_are_one_line(
    trained: RunFolder, shards: Path, source: Source, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def refused(folder: Path, data: Path = shards, *more: str) -> str:
        assert main([str(folder), "--data", str(data), *more]) == 2
        error = capsys.readouterr().err
        assert error.startswith("error: ") and error.count("\n") == 1 and "Traceback" not in error
        return error

    assert "no such folder" in refused(tmp_path / "none")
    assert "neither a run (run.json) nor an exported model" in refused(tmp_path)
    assert "no such folder" in refused(trained.path, tmp_path / "none")
    assert "no split 'tset'" in refused(trained.path, shards, "--split", "tset")
    assert "--threads 0: expected at least 1" in refused(trained.path, shards, "--threads", "0")
    assert "--seed -1: expected 0 to 4294967295" in refused(trained.path, shards, "--seed", "-1")
    file = trained.path / "run.json"
    assert "is a file, not a folder" in refused(trained.path, shards, "--out", str(file / "deep"))
    bare = tmp_path / "bare"
    shutil.copytree(trained.path, bare)
    shutil.rmtree(bare / "checkpoint")
    assert "no checkpoint was kept" in refused(bare)
    (tmp_path / "study").mkdir()
    (tmp_path / "study" / "study.json").write_text("{}")
    assert "is a study: name its best/ or one of its runs/" in refused(tmp_path / "study")
    other = tmp_path / "other"
    synthetic.build(other, train=10, val=10, test=10, seconds=1.7, sample_rate=8000, seed=4)
    assert "analysed on the shards it was trained on" in refused(trained.path, other)
    best = exported(trained, source.index, tmp_path / "whole")
    described = json.loads((best / "model.json").read_text())
    (best / "model.json").write_text(json.dumps(described | {"scenes": ["moon", *described["scenes"][1:]]}))
    assert "knows 10 scenes" in (error := refused(best)) and "'moon' is in one of them only" in error
    (best / "model.json").write_text(json.dumps(described | {"audio": described["audio"] | {"channels": 2}}))
    assert "takes clips of 1.7 s, 8000 Hz, 2 channel(s)" in refused(best)


def test_a_slow_machine_does_not_hold_a_finished_study(
    source: Source, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = iter(range(0, 10_000, 6))  # six seconds a batch of three clips
    monkeypatch.setattr(analyse.time, "monotonic", lambda: float(next(clock)))
    batches = list(source.eval_batches("val", 3))
    assert len(list(analyse.within(batches, 24, seconds=50))) == 8
    seen = []
    with pytest.raises(ValueError, match="about 1 min on this machine"):
        for batch in analyse.within(batches, 24, seconds=40):
            seen.append(batch)
    assert len(seen) == 2  # not before ten seconds have passed


def test_a_diverged_model_is_refused(trained: RunFolder, source: Source) -> None:
    rows = run_over(trained.run.model, source.eval_batches("val", 64))
    logits = rows.scene_logits.copy()
    logits[3, 1] = np.nan
    with pytest.raises(ValueError, match="scene_logits is not finite for 1 of 24 clips"):
        analyse._refuse_diverged(Path("run"), rows._replace(scene_logits=logits))


def test_batches_of_any_size_give_the_rows_in_order(trained: RunFolder, source: Source) -> None:
    batches = list(source.eval_batches("val", 5))
    rows = run_over(trained.run.model, reversed(batches))
    assert (rows.clip == np.arange(24)).all()
    _, scores = evaluate(trained.run.model, {}, {}, source.eval_batches("val", 64))
    assert np.allclose(rows.scene_logits, scores.arrays()["scene_logits"], atol=1e-5)
    assert dataclasses.is_dataclass(source.index)


def test_a_graph_of_events_is_averaged_over_each_scene(source: Source, tmp_path: Path) -> None:
    values = {"width": 0.05, "n_events": 4, "node_width": 8, "n_mels": 32, "batch_size": 16}
    folder = RunFolder(tmp_path / "run", Run("ergl", values, source, seed=1, epochs=1), {})
    folder.next_epoch()
    analyse.analyse(tmp_path / "run", source.index, "val", source.eval_batches("val", 7))
    about, arrays = read(tmp_path / "run" / "analysis")
    model = folder.run.model.eval()
    assert about["events"] == [source.index.labels.events[column] for column in model.columns.tolist()]
    assert arrays["event_logits"].shape == (24, 4) and arrays["event_share"].shape == (10, 4)
    (whole,) = source.eval_batches("val", 24)
    with torch.no_grad():
        shares = model.event_relations(whole.waveform).numpy()
        certain = model(whole.waveform).scene_logits.softmax(1).numpy()
    truth = whole.scene.argmax(1).numpy()
    scenes = sorted(set(truth.tolist()))
    for scene in range(10):
        if scene in scenes:
            assert np.allclose(arrays["relation"][scene], shares[truth == scene].mean(0), atol=1e-5)
        else:
            assert np.isnan(arrays["relation"][scene]).all()
    for place, scene in enumerate(scenes):
        clip = int(arrays["relation_clip"][place])
        assert truth[clip] == scene and certain[clip, scene] == certain[truth == scene, scene].max()
        assert np.allclose(arrays["clip_relation"][place], shares[clip], atol=1e-3)


def test_a_model_that_says_nothing_of_scenes_is_refused(source: Source, tmp_path: Path) -> None:
    values = {"width": 0.05, "n_mels": 32, "crop_frames": 40}
    folder = RunFolder(tmp_path / "run", Run("tagger", values, source, seed=1, epochs=1), {})
    folder.next_epoch()
    with pytest.raises(ValueError, match="this model says nothing of scenes"):
        analyse.analyse(tmp_path / "run", source.index, "val", source.eval_batches("val", 7))
