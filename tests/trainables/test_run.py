"""A run is repeatable, and one taken up from its checkpoint is the one that never stopped."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from datasets.mix import open_sources
from datasets.shards import ShardError
from datasets.source import Source
from trainables.checkpoint import CheckpointError
from trainables.folder import Displaced, RunFolder, read_epochs, read_record
from trainables.run import Run
from trainables.train import Request, train

SMALL = {
    "backbone": "tinycnn", "framework": "csem", "width": 0.25, "batch_size": 16, "accumulate": 2,
    "mixup": 0.2, "spec_augment": True, "schedule": "cosine", "optimiser": "adamw", "lr": 0.003,
}  # fmt: skip
CLOCK = ("train/seconds", "train/clips_per_second", "train/data_wait")


def start(source: Source, seed: int = 1, epochs: int = 4, **values: Any) -> Run:
    return Run("csem", SMALL | values, source, seed=seed, epochs=epochs)


def numbers(metrics: dict[str, float]) -> dict[str, float]:
    return {k: v for k, v in metrics.items() if k not in CLOCK}


def test_same_seed_same_numbers_and_another_seed_others(source: Source) -> None:
    first, second, other = (start(source, seed=s).next_epoch() for s in (1, 1, 2))
    assert numbers(first) == numbers(second)
    assert first["train/loss"] != other["train/loss"]


def test_a_run_on_a_mixture_trains_on_all_of_it_and_is_repeatable(shards: Path, cache: Path) -> None:
    mixed = open_sources(shards, [f"{shards}:8"], cache=cache)
    run = start(mixed, epochs=1)
    assert run.steps == 4 and run.source.index.splits["val"].clips == 48
    first, second = run.next_epoch(), start(mixed, epochs=1).next_epoch()
    assert numbers(first) == numbers(second)


def test_numbers_do_not_depend_on_what_ran_before_in_the_process(source: Source) -> None:
    fresh = start(source).next_epoch()
    torch.rand(1000)
    assert numbers(start(source).next_epoch()) == numbers(fresh)


def test_a_restored_run_goes_on_bit_for_bit(source: Source, tmp_path: Path) -> None:
    whole = start(source)
    expected = [numbers(whole.next_epoch()) for _ in range(4)]
    broken = start(source)
    assert [numbers(broken.next_epoch()) for _ in range(2)] == expected[:2]
    broken.save(tmp_path / "checkpoint")
    resumed = start(source)
    resumed.load(tmp_path / "checkpoint")
    assert [numbers(resumed.next_epoch()) for _ in range(2)] == expected[2:]
    for (name, a), b in zip(whole.model.state_dict().items(), resumed.model.state_dict().values()):
        assert torch.equal(a, b), name


def test_the_checkpoint_of_another_run_is_refused(source: Source, tmp_path: Path) -> None:
    start(source).save(tmp_path / "checkpoint")
    with pytest.raises(CheckpointError, match="seed of the checkpoint is 1, this run's is 2"):
        start(source, seed=2).load(tmp_path / "checkpoint")
    with pytest.raises(CheckpointError, match="values of the checkpoint"):
        start(source, lr=0.1).load(tmp_path / "checkpoint")


def test_feature_statistics_are_kept_and_reused(source: Source, tmp_path: Path) -> None:
    def make(**values: Any) -> Run:
        return Run("csem", SMALL | values, source, seed=1, epochs=1, statistics_folder=tmp_path)

    first = make().model.frontend.normalise.mean
    (kept,) = tmp_path.glob("statistics-*.json")
    assert torch.equal(make().model.frontend.normalise.mean, first)
    mean, std = json.loads(kept.read_text())
    kept.write_text(json.dumps([[m + 1 for m in mean], std]))
    assert torch.allclose(make().model.frontend.normalise.mean, first + 1)  # it really is what is read
    kept.write_bytes(bytes(kept.stat().st_size))  # after a power cut
    assert torch.equal(make().model.frontend.normalise.mean, first)
    assert json.loads(kept.read_text()) == [mean, std]
    make(f_min=100.0)
    assert len(list(tmp_path.glob("statistics-*.json"))) == 2  # another front end, other statistics


def test_statistics_that_cannot_be_kept_stop_nothing(
    source: Source, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A cache on a full disk: the clips are streamed then, and training goes on."""
    (tmp_path / "file").write_text("")
    run = Run("csem", SMALL, source, seed=1, epochs=1, statistics_folder=tmp_path / "file" / "cache")
    assert torch.isfinite(run.model.frontend.normalise.mean).all()
    (line,) = [record.getMessage() for record in caplog.records]
    assert "file/cache/statistics-" in line and "not kept" in line and "\n" not in line


def test_a_killed_run_repeats_only_what_its_checkpoint_lacks(
    source: Source, tmp_path: Path, monkeypatch: Any
) -> None:
    whole = RunFolder(tmp_path / "whole", start(source), {})
    expected = [numbers(whole.next_epoch()) for _ in range(4)]
    monkeypatch.setattr("trainables.folder.CHECKPOINT_EVERY", 0.0)
    killed = RunFolder(tmp_path / "killed", start(source), {})
    killed.next_epoch(), killed.next_epoch()
    monkeypatch.setattr("trainables.folder.CHECKPOINT_EVERY", 1e9)
    killed.next_epoch()  # written down, but not in the checkpoint
    with open(tmp_path / "killed" / "epochs.jsonl", "a") as log:
        log.write('{"epoch": 4, "train/lo')  # torn by the kill
    assert len(read_epochs(tmp_path / "killed")) == 3
    again = RunFolder(tmp_path / "killed", start(source), {})
    assert again.run.epoch == 2 and len(read_epochs(tmp_path / "killed")) == 2
    again.next_epoch(), again.next_epoch()
    assert [numbers(line) for line in read_epochs(tmp_path / "killed")] == expected
    assert (
        again.finished and numbers(again.next_epoch()) == expected[-1]
    )  # a finished run repeats its last line


@pytest.mark.parametrize(
    "damage", [lambda text: text[: len(text) // 2], lambda text: bytes(len(text)), lambda _: b""]
)
def test_a_run_whose_numbers_are_lost_is_trained_again(
    source: Source, tmp_path: Path, damage: Callable[[bytes], bytes]
) -> None:
    folder = RunFolder(tmp_path / "run", start(source, epochs=2), {})
    expected = [numbers(folder.next_epoch()) for _ in range(2)]
    tested, log = folder.test(), tmp_path / "run" / "epochs.jsonl"
    for name in ("epochs.jsonl", "test.json", "run.json"):
        path = tmp_path / "run" / name
        path.write_bytes(damage(path.read_bytes()))
    assert read_record(tmp_path / "run") == {}
    again = RunFolder(tmp_path / "run", start(source, epochs=2), {})
    assert again.run.epoch == 0 and log.read_bytes() == b""
    assert (
        [numbers(again.next_epoch()) for _ in range(2)]
        == expected
        == [*map(numbers, read_epochs(again.path))]
    )
    assert again.test() == tested and read_record(tmp_path / "run")["epochs"] == 2


def test_another_run_is_refused_and_leaves_the_folder_as_it_is(source: Source, tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run", start(source, epochs=1), {"command": ["first"]})
    folder.next_epoch()
    before = {p.name: p.read_bytes() for p in folder.path.iterdir() if p.is_file()}
    message = "values of the checkpoint is {.lr.: 0.003}, this run.s is {.lr.: 0.5}"
    with pytest.raises(CheckpointError, match=message):
        RunFolder(tmp_path / "run", start(source, epochs=1, lr=0.5), {"command": ["second"]})
    assert {p.name: p.read_bytes() for p in folder.path.iterdir() if p.is_file()} == before


def test_a_process_given_up_for_dead_does_not_write_beside_the_one_in_its_place(
    source: Source, tmp_path: Path
) -> None:
    def opened() -> RunFolder:
        return RunFolder(tmp_path / "run", Run("csem", SMALL, source, seed=1, epochs=3), {})

    orphan = opened()
    orphan.next_epoch()
    heir = opened()  # no checkpoint yet: it begins anew
    expected = heir.next_epoch()
    for writes in (orphan.next_epoch, orphan.save):
        with pytest.raises(Displaced, match="another process has taken this run up"):
            writes()
    assert read_epochs(tmp_path / "run") == [expected] and not (tmp_path / "run/checkpoint").exists()
    heir.next_epoch(), heir.next_epoch()
    assert heir.finished and len(read_epochs(tmp_path / "run")) == 3


def test_a_run_is_not_begun_in_a_folder_that_holds_something_else(tmp_path: Path) -> None:
    (tmp_path / "study.json").write_text("{}")
    with pytest.raises(FileExistsError, match="holds something else; expected a new folder, or a run's"):
        train(Request("csem", data="nowhere", out=tmp_path))
    with pytest.raises(NotADirectoryError, match="study.json is a file, not a folder"):
        train(Request("csem", data="nowhere", out=tmp_path / "study.json" / "run"))
    (tmp_path / "study.json").rename(tmp_path / "run.json.new")  # what a kill leaves of a run's first moment
    with pytest.raises(ShardError, match="nowhere: no such folder"):
        train(Request("csem", data="nowhere", out=tmp_path))


def test_the_test_split_is_read_once(source: Source, tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run", start(source, epochs=1), {"command": ["x"]})
    folder.next_epoch()
    metrics = folder.test()
    written = json.loads((tmp_path / "run" / "test.json").read_text())
    assert (
        written["metrics"] == metrics
        and sum(map(sum, written["confusion"])) == source.index.splits["test"].clips
    )
    folder.run.score = None  # type: ignore[assignment,method-assign]
    assert folder.test() == metrics
    about = json.loads((tmp_path / "run" / "run.json").read_text())
    assert (
        about["seed"] == 1 and about["data_checksum"] == source.index.checksum and about["command"] == ["x"]
    )


def test_a_model_without_event_branch_writes_a_null_for_every_event(source: Source, tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run", start(source, epochs=1, framework="scene_only"), {})
    folder.next_epoch()
    folder.test()
    assert json.loads((tmp_path / "run" / "test.json").read_text())["event_ap"] == [None] * 12
