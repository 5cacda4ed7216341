"""Runs that start from another run's weights, and what they write down about it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from safetensors.torch import save_file

from datasets import subset
from datasets.labels import LabelSpace
from datasets.shard_writer import Sample, write_split
from datasets.shards import ClipLabels, make_index
from datasets.source import Source, open_source
from trainables import checkpoint
from trainables.checkpoint import CheckpointError
from trainables.contract import AudioFormat
from trainables.export import load_model
from trainables.folder import RunFolder
from trainables.pretrained import features_of
from trainables.pretrained import open_source as open_weights
from trainables.recipe import complete, parse_pins
from trainables.run import Run
from trainables.train import main

TINY = {"backbone": "tinycnn", "width": 0.25, "batch_size": 8}


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Source:
    """Clips of the same length as the `source` fixture's, of 3 other scenes and 5 other events."""
    folder = tmp_path_factory.mktemp("other")
    labels = LabelSpace(("hill", "lake", "cave"), ("a", "b", "c", "d", "e"))
    rng, splits = np.random.default_rng(0), {}
    for split, clips in (("train", 16), ("val", 8), ("test", 8)):
        samples = []
        for n in range(clips):
            soundfile.write(folder / "clip.wav", 0.1 * rng.standard_normal(13600), 8000, "PCM_16")
            known = ClipLabels(labels.scenes[n % 3], (labels.events[n % 5],))
            audio = (folder / "clip.wav").read_bytes()
            samples.append(Sample(f"{split}{n}", audio, "wav", 13600, known))
        splits[split] = write_split(folder, split, samples, 8000)
    make_index(
        folder, splits, corpus="other", sample_rate=8000, channels=1, sample_type="int16", labels=labels,
        licence="", citation="",
    ).save()  # fmt: skip
    return open_source(folder, cache=None)


def start(source: Source, **values: Any) -> Run:
    return Run("csem", TINY | values, source, seed=1, epochs=1)


@pytest.fixture(scope="module")
def trained(other: Source, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run of one epoch on the other corpus."""
    folder = RunFolder(tmp_path_factory.mktemp("runs") / "pretraining", start(other), {})
    folder.next_epoch()
    return folder.path


def test_a_run_starts_from_one_on_another_label_space(trained: Path, source: Source, tmp_path: Path) -> None:
    tensors, _ = checkpoint.load(trained / "checkpoint")
    fresh = start(source)
    run = start(source, pretrained=str(trained), accept_mismatch=True)
    own, random = run.model.state_dict(), fresh.model.state_dict()
    for name, value in own.items():
        if name.startswith(("scene_classifier", "event_classifier", "frontend")):
            assert torch.equal(value, random[name]), name  # its own classes, its own statistics
        else:
            assert torch.equal(value, tensors[f"model/{name}"]), name
    assert {ours.split(".")[0] for ours, *_ in run.start.fit.refused} == {
        "scene_classifier",
        "event_classifier",
    }
    assert "3 scenes there are not the 10 here" in "\n".join(run.start.report())
    folder = RunFolder(tmp_path / "run", run, {})
    assert np.isfinite(folder.next_epoch()["train/loss"])
    about = json.loads((tmp_path / "run" / "run.json").read_text())["pretrained"]
    assert about["path"] == str(trained) and len(about["sha256"]) == 64 and len(about["refused"]) == 4


def test_without_acceptance_it_does_not_start(trained: Path, source: Source) -> None:
    with pytest.raises(ValueError, match="5 events there are not the 12 here; set accept_mismatch=true"):
        start(source, pretrained=str(trained))


def test_the_same_label_space_takes_the_classifiers_too(trained: Path, other: Source) -> None:
    run = start(other, pretrained=str(trained / "checkpoint"))
    tensors, _ = checkpoint.load(trained / "checkpoint")
    assert run.start.fit.exact and not run.start.remarks
    for name, value in run.model.state_dict().items():
        torch.testing.assert_close(value, tensors[f"model/{name}"], msg=name)


def test_as_many_classes_of_other_names_are_other_classes(
    trained: Path, other: Source, tmp_path: Path
) -> None:
    tensors, state = checkpoint.load(trained / "checkpoint")
    renamed = state | {"scenes": ["x", "y", "z"]}
    checkpoint.save(tmp_path / "checkpoint", tensors, renamed)
    run = start(other, pretrained=str(tmp_path), accept_mismatch=True)
    assert [ours for ours, *_ in run.start.fit.refused] == [
        "scene_classifier.weight",
        "scene_classifier.bias",
    ]


def test_a_single_task_run_fills_trunk_and_both_branches(source: Source, tmp_path: Path) -> None:
    single = start(source, framework="scene_only")
    single.save(tmp_path / "single")
    run = start(source, pretrained=str(tmp_path / "single"), accept_mismatch=True, shared_layers=1)
    own, theirs = run.model.state_dict(), single.model.state_dict()
    for task in ("scene", "event"):
        assert torch.equal(own[f"{task}.block2.conv.weight"], theirs["shared.block2.conv.weight"])
        assert torch.equal(own[f"{task}.fc1.weight"], theirs["scene.fc1.weight"])
    assert run.start.fit.unmatched == ("event_classifier.weight", "event_classifier.bias")


def test_events_alone_start_every_framework_of_scenes(shards: Path, source: Source, tmp_path: Path) -> None:
    """The authors' TinyCNN: trained on AudioSet, which has no scenes."""
    assert subset.main([str(shards), "--only", "events", "--out", str(tmp_path / "events")]) == 0
    events = open_source(tmp_path / "events", cache=None)
    assert not events.index.labels.scenes
    first = RunFolder(tmp_path / "run", start(events, framework="event_only"), {})
    epoch = first.next_epoch()
    assert epoch["val/event_map"] > 0 and "train/term/scene_ce" not in epoch
    theirs = first.run.model.state_dict()
    assert not any(name.startswith("scene_classifier") for name in theirs)
    for framework in ("scene_only", "moe", "csem"):
        knobs = {"framework": framework, "pretrained": str(tmp_path / "run"), "accept_mismatch": True}
        run = start(source, **knobs)
        own = run.model.state_dict()
        for block in ("block1", "block2"):
            assert torch.equal(own[f"shared.{block}.conv.weight"], theirs[f"shared.{block}.conv.weight"])
        assert torch.equal(own["scene.fc1.weight"], theirs["scene.fc1.weight"])
        assert run.start.fit.unmatched == ("scene_classifier.weight", "scene_classifier.bias")
        if framework != "scene_only":  # the same events in the same order
            assert torch.equal(own["event_classifier.weight"], theirs["event_classifier.weight"])


def test_a_best_folder_is_a_start_and_loads_without_the_file_it_started_from(
    trained: Path, source: Source, tmp_path: Path
) -> None:
    shutil.copytree(trained, tmp_path / "gone")
    run = start(source, pretrained=str(tmp_path / "gone"), accept_mismatch=True)
    run.next_epoch()
    run.save(tmp_path / "checkpoint")
    tensors, state = checkpoint.load(tmp_path / "checkpoint")
    shutil.rmtree(tmp_path / "gone")
    best, index = tmp_path / "best", source.index
    best.mkdir()
    save_file({n.removeprefix("model/"): t for n, t in tensors.items()}, best / "model.safetensors")
    audio = {"sample_rate": index.sample_rate, "channels": index.channels, "samples": index.samples}
    (best / "model.json").write_text(json.dumps(state | {"audio": audio}))
    model, _ = load_model(best)
    again = start(source, pretrained=str(best))
    assert again.start.fit.exact and again.start.kind == "model of family csem"
    for name, value in model.state_dict().items():
        torch.testing.assert_close(again.model.state_dict()[name], value, msg=name)


def test_a_resumed_run_checks_the_file_it_started_from(trained: Path, other: Source, tmp_path: Path) -> None:
    shutil.copytree(trained, tmp_path / "base")
    run = start(other, pretrained=str(tmp_path / "base"))
    run.save(tmp_path / "checkpoint")
    start(other, pretrained=str(tmp_path / "base")).load(tmp_path / "checkpoint")
    tensors, state = checkpoint.load(trained / "checkpoint")
    tensors["model/scene.fc1.bias"] += 1
    checkpoint.save(tmp_path / "base" / "checkpoint", tensors, state)
    with pytest.raises(CheckpointError, match="pretrained of the checkpoint is"):
        start(other, pretrained=str(tmp_path / "base")).load(tmp_path / "checkpoint")


def test_checkpoints_from_before_the_knob_are_those_of_random_starts(other: Source, tmp_path: Path) -> None:
    run = start(other)
    run.save(tmp_path / "checkpoint")
    tensors, state = checkpoint.load(tmp_path / "checkpoint")
    for name in ("pretrained", "scenes", "events", "features"):
        del state[name]
    checkpoint.save(tmp_path / "checkpoint", tensors, state)
    start(other).load(tmp_path / "checkpoint")
    source = open_weights(tmp_path / "checkpoint")
    assert source.features == "" and source.classes == {
        "scenes": (),
        "events": (),
    }  # unknown


def test_what_a_run_writes_tells_features_apart(trained: Path, other: Source) -> None:
    assert (
        open_weights(trained).features
        == "LogMel, 64 bins, 50-4000 Hz"
        == features_of(start(other).model.frontend)
    )
    run = start(other, pretrained=str(trained), f_min=100.0)
    assert run.start.remarks == (
        "warning: these weights were trained on other features: LogMel, 64 bins, 50-4000 Hz; here LogMel, 64 "
        "bins, 100-4000 Hz",
    )  # fmt: skip


def test_a_damaged_folder_is_named(trained: Path, tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"half")
    (tmp_path / "model.json").write_text("{")
    with pytest.raises(ValueError, match="model.json: damaged: Expecting property name") as error:
        open_weights(tmp_path)
    assert "\n" not in str(error.value)
    (tmp_path / "model.json").write_text("{}")
    with pytest.raises(ValueError, match="model.safetensors: neither a torch file nor a whole safetensors"):
        open_weights(tmp_path)


def test_a_pin_is_read_before_anything_runs_and_keeps_its_place(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(trained.parent)
    assert parse_pins("csem", {"pretrained": trained.name}) == {"pretrained": str(trained)}
    with pytest.raises(FileNotFoundError, match="pretrained=nothing: no such file or folder"):
        parse_pins("csem", {"pretrained": "nothing"})
    with pytest.raises(FileNotFoundError, match="no weights there; expected a file, a best/ folder"):
        parse_pins("csem", {"pretrained": str(tmp_path)})


def test_a_proposal_that_the_weights_do_not_fit_is_refused_before_it_runs(
    trained: Path, source: Source
) -> None:
    index = source.index
    audio = AudioFormat(index.sample_rate, index.channels, index.samples)
    values = {"backbone": "tinycnn", "width": 0.25, "pretrained": str(trained)}
    with pytest.raises(ValueError, match="set accept_mismatch=true"):
        complete("csem", values, index.labels, audio)
    accepted = complete("csem", values | {"accept_mismatch": True}, index.labels, audio)
    assert accepted["pretrained"] == str(trained)
    with pytest.raises(ValueError, match="nothing in it fits the model"):
        complete("csem", values | {"accept_mismatch": True, "width": 0.3}, index.labels, audio)


def test_the_search_never_suggests_it() -> None:
    from searchspace.pins import Replayed
    from trainables.families import csem

    class Asked(Replayed):
        def _answer(self, name: str, distribution: Any) -> Any:
            asked.add(name)
            return {"backbone": "ast", "framework": "csem", "optimiser": "adamw"}.get(name.split(" ")[0], 1)

    asked: set[str] = set()
    csem.suggest(Asked({}), LabelSpace(("a", "b"), ("c",)))
    assert "lr" in asked and not asked & {"pretrained", "accept_mismatch"}


def test_the_command_prints_how_the_weights_fitted_once(
    trained: Path, shards: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch, cache: Path
) -> None:
    monkeypatch.setenv("SCENETUNE_CACHE", str(cache))
    arguments = [
        "train",
        "csem",
        "--data",
        str(shards),
        "--epochs",
        "1",
        "--set",
        "backbone=tinycnn",
        "width=0.25",
    ]
    monkeypatch.setattr("sys.argv", [*arguments, f"pretrained={trained}"])
    assert main() == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "set accept_mismatch=true" in error
    monkeypatch.setattr("sys.argv", [*arguments, f"pretrained={trained}", "accept_mismatch=yes"])
    assert main() == 0
    out = capsys.readouterr().out
    assert out.count("pretrained: model of family csem") == 1
    assert (
        out.count("not loaded: event_classifier.* (2) ← event_classifier.*, 5 events there are not the 12")
        == 1
    )
