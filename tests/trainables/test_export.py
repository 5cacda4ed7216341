"""A run folder becomes a model that loads by itself."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from datasets.source import Source, open_source
from trainables.checkpoint import CheckpointError
from trainables.export import export_run, load_model
from trainables.folder import RunFolder
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
