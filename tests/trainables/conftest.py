"""What several tests of models share: a trained one as users have it, and a source that guards the held-out
splits."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from datasets.batch import Batch
from datasets.source import Source
from trainables.export import export_run, measure_model
from trainables.folder import RunFolder
from trainables.run import Run

SMALL = {"backbone": "tinycnn", "framework": "csem", "width": 0.25, "batch_size": 16, "lr": 0.01}


@pytest.fixture
def only_training(source: Source) -> Any:
    class OnlyTraining:
        index, steps = source.index, source.steps
        train_batches = staticmethod(source.train_batches)

        def eval_batches(self, split: str, *args: object, **options: object) -> Iterator[Batch]:
            assert split == "train", f"the {split} split was read before training"
            return source.eval_batches(split, *args, **options)

    return OnlyTraining()


@pytest.fixture(scope="session")
def tested_run(source: Source, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """Two epochs of a small cSEM, which has read the test split as a confirmed run does."""
    run = Run("csem", SMALL, source, seed=1, epochs=2)
    folder = RunFolder(tmp_path_factory.mktemp("models") / "run", run, {"git": {"commit": "89abcd"}})
    while not folder.finished:
        folder.next_epoch()
    folder.test()
    return folder


@pytest.fixture(scope="session")
def model(tested_run: RunFolder, source: Source, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """That run's model folder. Read only."""
    out = export_run(tested_run.path, source.index, tmp_path_factory.mktemp("exported") / "model")
    measure_model(out, source)
    return out


@pytest.fixture(scope="session")
def recordings(shards: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[Path, str]:
    """The test split's clips as files, and the scene of each."""
    out = tmp_path_factory.mktemp("recordings")
    found: dict[str, dict[str, bytes]] = {}
    for shard in sorted(shards.glob("test-*.tar")):
        with tarfile.open(shard) as tar:
            for member in tar:
                key, _, suffix = member.name.partition(".")
                content = tar.extractfile(member)
                assert content is not None
                found.setdefault(key, {})[suffix] = content.read()
    scenes = {}
    for key, members in found.items():
        suffix = next(name for name in members if name in ("flac", "wav"))
        (out / f"{key}.{suffix}").write_bytes(members[suffix])
        scenes[out / f"{key}.{suffix}"] = json.load(io.BytesIO(members["json"]))["scene"]
    return scenes
