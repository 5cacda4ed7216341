"""Generated shard sets shared by all tests, and one thread for each of them: two runs of a test must agree
bit for bit."""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from datasets import synthetic
from datasets.source import Source, open_source

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as of what a shell starts with "&", and its children
    signal.signal(signal.SIGINT, signal.default_int_handler)


# Ray gives its workers way (nice 15) before every other program: beside another busy test they stand still.
os.environ.setdefault("RAY_worker_niceness", "0")

if "PYTEST_XDIST_WORKER" in os.environ:  # where programs on this machine look for a cluster to join
    os.environ["RAY_TMPDIR"] = tempfile.mkdtemp(prefix="ray")


@pytest.fixture(scope="session", autouse=True)
def _own_folder_for_ray() -> Iterator[None]:
    yield
    if "PYTEST_XDIST_WORKER" in os.environ:
        shutil.rmtree(os.environ["RAY_TMPDIR"], ignore_errors=True)


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A corpus of 60 training, 24 validation and 24 test clips of 1.7 s at 8 kHz; 10 scenes, 12 events."""
    out = tmp_path_factory.mktemp("corpus") / "shards"
    synthetic.build(out, train=60, val=24, test=24, seconds=1.7, sample_rate=8000, seed=3)
    return out


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="session")
def source(shards: Path, cache: Path) -> Source:
    return open_source(shards, cache=cache)
