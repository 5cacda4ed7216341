"""A study folder read back, and every way in which it can be unreadable."""

import json
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import study_folders as folders

from reports import collect


def test_a_study_is_read_back(tmp_path: Path) -> None:
    runs = [folders.run(0, 0.7), folders.run(0, 0.71, repeat=1)]
    result = {
        "metrics": {"test/scene_accuracy": 0.7},
        "confusion": np.eye(4, dtype=int).tolist(),
        "event_ap": [0.5, None, 0.1, 0.2, 0.3, 0.4],
        "event_auc": [],
    }
    study = collect.load(folders.write(tmp_path, runs, folders.curve(runs[0], [0.5, 0.7]), {(0, 1): result}))
    assert (study.metric, study.test_metric, study.mode, study.epochs) == (
        "val/scene_accuracy",
        "test/scene_accuracy",
        "max",
        9,
    )
    assert study.scenes == folders.SCENES and study.events == folders.EVENTS and study.test_clips == 2518
    assert study.knobs[:2] == ("backbone", "framework")
    assert study.runs["score"].tolist() == [0.7, 0.71]
    assert study.curves["val/scene_accuracy"].tolist() == [0.5, 0.7]
    found = study.tests[0, 1]
    assert found.confusion.tolist() == np.eye(4).tolist()
    np.testing.assert_array_equal(found.event_ap, [0.5, math.nan, 0.1, 0.2, 0.3, 0.4])
    assert (
        found.event_auc.shape == (6,) and np.isnan(found.event_auc).all()
    )  # a model without an event branch


def test_a_running_study_without_a_finished_run_has_empty_frames(tmp_path: Path) -> None:
    study = collect.load(folders.write(tmp_path, status="running"))
    assert study.runs.empty and set(collect.RUN_COLUMNS) <= set(study.runs.columns)
    assert study.curves.empty and "val/scene_accuracy" in study.curves.columns
    assert study.tests == {}


def test_missing_numbers_and_texts_are_nan_and_empty(tmp_path: Path) -> None:
    runs = [folders.run(0, math.nan, parameters=None, reason=None), folders.run(1, 0.7)]
    study = collect.load(folders.write(tmp_path, runs))
    assert math.isnan(study.runs["parameters"][0]) and math.isnan(study.runs["score"][0])
    assert study.runs["reason"].tolist() == ["", ""]


def test_unreadable_folders_end_in_one_line(tmp_path: Path) -> None:
    def message(folder: Path) -> str:
        with pytest.raises(collect.StudyError) as caught:
            collect.load(folder)
        assert "\n" not in str(caught.value)
        return str(caught.value)

    assert message(tmp_path / "none").endswith("none: no such folder")
    assert "not a study folder (it has no study.json)" in message(tmp_path)
    (tmp_path / "study.json").write_text("{")
    assert "not readable as JSON" in message(tmp_path)
    (tmp_path / "study.json").write_text("[1]")
    assert "format 'list' is not known; this version reads format 1" in message(tmp_path)
    folders.write(tmp_path, format=2)
    assert "format 2 is not known; this version reads format 1" in message(tmp_path)
    record = folders.record()
    del record["objective"]
    (tmp_path / "study.json").write_text(json.dumps(record))
    assert message(tmp_path).endswith("lacks objective")
    folders.write(tmp_path, objective={"metric": "val/loss", "mode": "down"})
    assert "mode 'down'; accepted: 'max', 'min'" in message(tmp_path)
    folders.write(tmp_path)
    (tmp_path / "trials.parquet").write_bytes(b"PAR1 torn")
    assert "trials.parquet: not readable as parquet" in message(tmp_path)
    pd.DataFrame({"trial": [1]}).to_parquet(tmp_path / "trials.parquet")
    assert "lacks the columns repeat, phase" in message(tmp_path)


def test_a_test_result_of_another_size_is_refused(tmp_path: Path) -> None:
    result = {"metrics": {}, "confusion": [[1, 0], [0, 1]], "event_ap": [], "event_auc": []}
    folders.write(tmp_path, [folders.run(0, 0.7, repeat=1)], tests={(0, 1): result})
    with pytest.raises(collect.StudyError, match="not a test result for 4 scenes and 6 events"):
        collect.load(tmp_path)


def test_the_folder_column_cannot_lead_out_of_the_study(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "test.json").write_text(json.dumps(folders.scored_test(4, 6, 0.8, seed=0)))
    study = folders.write(tmp_path / "study", [folders.run(0, 0.7, repeat=1, folder="../outside")])
    assert collect.load(study).tests == {}


def test_importing_reports_loads_no_torch_ray_or_optuna() -> None:
    code = (
        "import sys, reports, reports.__main__, reports.notebook, reports.markup, reports.figures\n"
        "heavy = {'torch', 'ray', 'optuna', 'trainables', 'searchspace', 'datasets'} & set(sys.modules)\n"
        "sys.exit(str(heavy) if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
