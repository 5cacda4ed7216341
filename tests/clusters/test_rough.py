"""A rough machine: what ends a process must not end the search."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.ray
@pytest.mark.slow
def test_trials_killed_by_rays_memory_monitor_fail_and_the_search_ends_in_order(
    shards: Path, cache: Path, tmp_path: Path
) -> None:
    environment = os.environ | {
        "SCENETUNE_CACHE": str(cache), "OMP_NUM_THREADS": "1", "RAY_ADDRESS": "local",
        "RAY_memory_usage_threshold": "0.001", "RAY_memory_monitor_refresh_ms": "100",
    }  # fmt: skip
    asked = [
        "--data",
        shards,
        "--study",
        tmp_path / "rough",
        "--trials",
        "1",
        "--epochs",
        "30",
        "--confirm",
        "0",
    ]
    asked += ["--set", "width=0.25", "batch_size=16", "--no-dashboard"]
    done = subprocess.run(
        [sys.executable, ROOT / "tune_csem.py", *map(str, asked)], cwd=ROOT, env=environment,
        capture_output=True, text=True, timeout=280,
    )  # fmt: skip
    assert done.returncode == 1 and "Traceback" not in done.stderr, done.stdout + done.stderr
    assert "none, for no trial was completed" in done.stdout
    runs = pd.read_parquet(tmp_path / "rough" / "trials.parquet")
    assert list(runs["state"]) == ["FAIL"]
