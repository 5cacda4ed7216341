"""A search that is watched: the figures Grafana draws are at the metrics endpoint, and nothing told in
confidence is written anywhere."""

from __future__ import annotations

import json
import os
import re
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from searchspace.storage import open_storage
from trainables.request import Request, begin

ROOT = Path(__file__).resolve().parents[2]
SECRETS = {"AWS_SECRET_ACCESS_KEY": "wJalr-not-for-anyone", "AWS_SESSION_TOKEN": "FwoG-not-for-anyone"}


def queried() -> set[str]:
    """Every metric that clusters/grafana.json asks Prometheus for."""
    dashboard = json.loads((ROOT / "clusters" / "grafana.json").read_text())
    asked = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    return {name for line in asked for name in re.findall(r"\bray_\w+", line)}


def exported(session: Path) -> str:
    """What all metrics agents of the cluster answer; Ray names them in a file."""
    places = json.loads((session / "prom_metrics_service_discovery.json").read_text())
    addresses = [address for entry in places for address in entry["targets"]]
    answers = []
    for address in addresses:
        with suppress(OSError), urllib.request.urlopen(f"http://{address}/metrics", timeout=10) as answer:
            answers.append(answer.read().decode())
    return "\n".join(answers)


def names_on_the_dashboard(driver: int) -> set[str]:
    """Of the trials that are running; its Cluster page shows what psutil gives as a process's first word."""
    words = []
    for process in psutil.Process(driver).children(recursive=True):
        with suppress(psutil.NoSuchProcess, IndexError):
            words.append(process.cmdline()[0])
    return set(re.findall(r"ray::WarmTrial:([^:]+):epoch-[1-9]\d*/5000", "\n".join(words)))


@pytest.mark.alone
@pytest.mark.ray
@pytest.mark.slow
def test_a_search_is_seen_by_those_who_may_and_keeps_its_secrets(
    shards: Path, cache: Path, tmp_path: Path
) -> None:
    study, token = tmp_path / "watched", secrets.token_hex(32)
    # Ray's sockets need a short path.
    session = Path(tempfile.mkdtemp(prefix="seen.", dir="/tmp"))
    (session / "token").write_text(token)
    environment = os.environ | SECRETS | {
        "SCENETUNE_CACHE": str(cache), "RAY_ADDRESS": "local",
        "OMP_NUM_THREADS": "1", "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": str(session / "token"), "RAY_TMPDIR": str(session),
        "RAY_METRICS_EXPORT_INTERVAL_MS": "1000", "RAY_metrics_report_interval_ms": "1000",
        "RAY_memory_monitor_refresh_ms": "0",
    }  # fmt: skip
    asked = ["--data", shards, "--study", study, "--trials", "2", "--epochs", "5000", "--confirm", "0"]
    asked += ["--set", "width=0.25", "batch_size=16", "--pruner", "none"]
    driver = subprocess.Popen(
        [sys.executable, ROOT / "tune_csem.py", *map(str, asked)], cwd=ROOT, env=environment,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    try:
        found, end = "", time.monotonic() + 150
        while not all(f"\n{name}{{" in found for name in queried()):
            assert driver.poll() is None, driver.communicate()[0]
            assert time.monotonic() < end, sorted(n for n in queried() if f"\n{n}{{" not in found)
            time.sleep(1)
            if (session / "ray" / "prom_metrics_service_discovery.json").is_file():
                found = exported(session / "ray")
        assert f'study="{study.name}"' in found and 'phase="search"' in found
        while not {"t0000-r0", "t0001-r0"} <= names_on_the_dashboard(driver.pid):
            assert time.monotonic() < end, names_on_the_dashboard(driver.pid)
            time.sleep(0.1)
        driver.send_signal(signal.SIGINT)
        output = driver.communicate(timeout=120)[0]
        assert driver.returncode == 130, output
    finally:
        driver.kill()
        driver.wait()
    written = [p for p in (*study.rglob("*"), *session.rglob("*")) if p.is_file() and p.name != "token"]
    for secret in (*SECRETS.values(), token):
        assert secret not in output
        holders = [str(p) for p in written if secret.encode() in p.read_bytes()]
        assert not holders, f"{secret} is in {holders}"
    shutil.rmtree(session)  # kept, with Ray's logs, where something failed


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://me:hunter2@database/studies",
        "postgresql://database/studies?user=me&password=hunter2",
        "mysql://database/studies?sslkey_password=hunter2&charset=utf8",
    ],
)
def test_the_databases_password_is_used_and_not_kept(
    url: str, shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SCENETUNE_DATABASE", url)
    _, request = begin(Request(study=tmp_path / "study", data=str(shards)))
    assert request.database == url
    assert "hunter2" not in (tmp_path / "study" / "study.json").read_text()
    with pytest.raises(ValueError, match="cannot open the study database") as refused:
        open_storage(url, patience=0.1)
    assert "hunter2" not in str(refused.value)
