"""A rough machine: what ends a process must not end the search."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest

from tests.datasets.servers import Proxy, credentials, moto, serving

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.alone
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


@pytest.mark.alone
@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.timeout(600)
def test_an_object_store_that_fails_for_longer_than_reads_are_tried_costs_retries_and_no_trial(
    shards: Path, cache: Path, tmp_path: Path
) -> None:
    study, screen = tmp_path / "far", tmp_path / "screen"
    environment = os.environ | {
        "SCENETUNE_CACHE": str(cache), "OMP_NUM_THREADS": "1", "RAY_ADDRESS": "local",
        "SCENETUNE_RETRY_FIRST": "0.1", "SCENETUNE_RETRY_TOTAL": "3", "PYTHONUNBUFFERED": "1",
    }  # fmt: skip
    asked = ["--study", study, "--trials", "2", "--epochs", "30", "--confirm", "0", "--pruner", "none"]
    asked += ["--stream", "--set", "width=0.25", "batch_size=16", "--no-dashboard"]
    with moto() as port, serving(Proxy, port=port) as (url, faults), open(screen, "w") as log:
        in_bucket(shards, credentials(f"http://127.0.0.1:{port}"))
        driver = subprocess.Popen(
            [sys.executable, ROOT / "tune_csem.py", "--data", "s3://bucket/shards", *map(str, asked)],
            cwd=ROOT, env=environment | credentials(url), stdout=log, stderr=log,
        )  # fmt: skip

        def wait_until(words: str, *places: Path) -> None:
            end = time.monotonic() + 200
            while not any(
                words in place.read_text() for place in places or study.glob("runs/*/epochs.jsonl")
            ):
                assert driver.poll() is None and time.monotonic() < end, screen.read_text()
                time.sleep(0.05)

        try:
            wait_until('"epoch": 2')
            faults.always = 503
            wait_until("starts again", screen)
            faults.always = None
            assert driver.wait(350) == 0, screen.read_text()
        finally:
            driver.kill()
            driver.wait()
    runs = pd.read_parquet(study / "trials.parquet")
    assert list(runs["state"]) == ["COMPLETE"] * 2 and list(runs["epochs"]) == [30] * 2
    assert 1 <= runs["retries"].sum() <= 4 and runs["preemptions"].sum() == 0
    errors = "".join(path.read_text() for path in study.glob("runs/*/error.txt"))
    assert "the server failed (503); tried" in errors and "SCENETUNE_RETRY_TOTAL=3" in errors
    for name in ("study.json", "report.html"):
        assert "test-secret" not in (study / name).read_text()
    assert "test-secret" not in errors + screen.read_text()


def in_bucket(folder: Path, environment: dict[str, str]) -> None:
    """The folder's files as s3://bucket/shards/…"""
    import boto3

    client = boto3.client(
        "s3",
        endpoint_url=environment["AWS_ENDPOINT_URL"],
        aws_access_key_id=environment["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=environment["AWS_SECRET_ACCESS_KEY"],
        region_name=environment["AWS_DEFAULT_REGION"],
    )
    client.create_bucket(Bucket="bucket")
    for path in folder.iterdir():
        client.upload_file(str(path), "bucket", f"shards/{path.name}")
