"""Models that know events and no scenes, used like the others: exported, asked, evaluated, on the page."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from datasets.source import Source
from datasets.subset import main as subset
from trainables.evaluate import main as evaluate
from trainables.export import export_run, measure_model
from trainables.folder import RunFolder
from trainables.predict import main as predict
from trainables.run import Run

EVENT_ONLY = {"backbone": "tinycnn", "framework": "event_only", "width": 0.25, "batch_size": 16}
TAGGER = {"width": 0.06, "n_mels": 32, "crop_frames": 40, "batch_size": 16}
TRAINED = {"csem": EVENT_ONLY, "tagger": TAGGER}


@pytest.fixture(scope="module", params=TRAINED)
def event_model(
    request: pytest.FixtureRequest, source: Source, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """One epoch on a corpus that has scenes too."""
    home = tmp_path_factory.mktemp(request.param)
    folder = RunFolder(home / "run", Run(request.param, TRAINED[request.param], source, seed=0, epochs=1), {})
    folder.next_epoch()
    out = export_run(folder.path, source.index, home / "model")
    assert measure_model(out, source) == "not calibrated: it knows no scenes"
    return out


def asked(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> list[dict[str, Any]]:
    assert predict([*map(str, arguments), "--json"]) == 0
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def test_it_names_events_and_no_scene(
    event_model: Path, recordings: dict[Path, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    soundfile.write(tmp_path / "long.wav", np.random.default_rng(0).normal(0, 0.1, (44100 * 5, 2)), 44100)
    short, long = asked(
        capsys, event_model, next(iter(recordings)), tmp_path / "long.wav", "--top-events", "3"
    )
    for one in (short, long):
        assert one["scene"] is one["probability"] is one["unsure"] is one["why"] is None
        assert one["scenes"] == {} and len(one["events"]) == 3
    assert long["notes"][-1] == "3 windows: the largest of each event"
    assert "\nScenes: none.\n" in (event_model / "MODEL_CARD.md").read_text()
    assert json.loads((event_model / "model.json").read_text())["scenes"] == []


def test_it_is_evaluated_on_a_corpus_with_scenes_by_its_events(
    event_model: Path, shards: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert evaluate([str(event_model), str(shards), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["metrics"]
    assert "scene_accuracy" not in found or found["scene_accuracy"]["value"] is None
    low, value, high = (found["event_map"][name] for name in ("low", "value", "high"))
    assert 0 < low < value < high <= 1
    assert evaluate([str(event_model), str(shards)]) == 0
    assert "event_map" in capsys.readouterr().out


def test_its_events_must_be_those_of_the_corpus(
    event_model: Path, shards: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    few = tmp_path / "few"
    assert subset([str(shards), "--events", "3", "--out", str(few)]) == 0
    assert evaluate([str(event_model), str(few)]) == 2
    assert "is in one of them only" in capsys.readouterr().err
