"""Real recordings through the whole program: rendered, prepared, searched, reported.

Needs shared/ beside the checkout.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

ROOT = Path(__file__).resolve().parents[1]
CORPUS = ROOT.parent / "shared" / "corpus-tiny"
LISTS = ("meta.csv", "evaluation_setup", "events_strong.tsv", "events_weak.tsv", "labels.csv")


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.skipif(not CORPUS.is_dir(), reason=f"no recordings at {CORPUS}")
def test_real_recordings_are_prepared_and_searched(tmp_path: Path) -> None:
    environment = os.environ | {"SCENETUNE_CACHE": str(tmp_path / "cache"), "OMP_NUM_THREADS": "1"}

    def run(*arguments: str | Path) -> str:
        done = subprocess.run(
            [sys.executable, *map(str, arguments)],
            capture_output=True,
            text=True,
            cwd=ROOT,
            env=environment,
            timeout=280,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    source, shards, study = tmp_path / "source", tmp_path / "shards", tmp_path / "study"
    assert "160 mixtures, 0 differ" in run(CORPUS / "render.py", "--out", source, "--verify")
    for name in LISTS:
        (shutil.copytree if (CORPUS / name).is_dir() else shutil.copy)(CORPUS / name, source / name)
    run("-m", "datasets.prepare", "tau-like", "--source", source, "--out", shards)
    index = json.loads((shards / "index.json").read_text())
    assert {name: split["clips"] for name, split in index["splits"].items()} == {
        "train": 80,
        "val": 40,
        "test": 40,
    }
    assert (
        sorted(index["scenes"]) == ["airfield", "beach", "campsite", "living_room"]
        and len(index["events"]) == 6
    )

    knobs = ("--set", "width=0.5", "batch_size=16", "framework=csem,scene_only")
    run(
        ROOT / "tune_csem.py", "--data", shards, "--study", study, "--trials", "3", "--epochs", "3",
        "--confirm", "1", "--seeds", "2", "--no-dashboard", *knobs,
    )  # fmt: skip
    runs = pd.read_parquet(study / "trials.parquet")
    confirmed = runs[runs["phase"] == "confirm"]
    assert len(confirmed) == 2 and (confirmed["state"] == "COMPLETE").all()
    curves = pd.read_parquet(study / "curves.parquet")
    losses = curves[curves["phase"] == "confirm"].pivot(index="repeat", columns="epoch", values="train/loss")
    assert (losses[3] < losses[1]).all()  # 80 clips are too few to ask for more than that it learns
    assert confirmed["test/scene_accuracy"].notna().all() and (study / "report.html").stat().st_size > 10_000
