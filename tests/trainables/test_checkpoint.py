from __future__ import annotations

import os
import resource
import shutil
import signal
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from trainables import checkpoint
from trainables.checkpoint import CheckpointError


def test_what_is_saved_is_loaded(tmp_path: Path) -> None:
    tensors = {"a": torch.randn(3, 2), "b/c": torch.arange(4)}
    checkpoint.save(tmp_path / "c", tensors, {"epoch": 2})
    checkpoint.save(tmp_path / "c", tensors, {"epoch": 3})
    loaded, state = checkpoint.load(tmp_path / "c")
    assert state == {"epoch": 3} and all(torch.equal(loaded[k], v) for k, v in tensors.items())
    assert sorted(p.name for p in tmp_path.iterdir()) == ["c"]


@pytest.mark.parametrize("suffix", [".new", ".old"])
def test_a_kill_between_the_renames_leaves_a_whole_checkpoint(tmp_path: Path, suffix: str) -> None:
    checkpoint.save(tmp_path / "c", {"a": torch.ones(1)}, {"epoch": 5})
    shutil.move(tmp_path / "c", tmp_path / f"c{suffix}")
    assert checkpoint.exists(tmp_path / "c")
    assert checkpoint.load(tmp_path / "c")[1] == {"epoch": 5}


def test_a_half_written_new_one_does_not_hide_the_old_one(tmp_path: Path) -> None:
    checkpoint.save(tmp_path / "c", {"a": torch.ones(1)}, {"epoch": 5})
    (tmp_path / "c.new").mkdir()
    (tmp_path / "c.new" / "tensors.safetensors").write_bytes(b"\0" * 100)
    assert checkpoint.load(tmp_path / "c")[1] == {"epoch": 5}
    checkpoint.save(tmp_path / "c", {"a": torch.ones(1)}, {"epoch": 6})
    assert checkpoint.load(tmp_path / "c")[1] == {"epoch": 6}


def test_damage_and_absence_are_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no checkpoint there"):
        checkpoint.load(tmp_path / "nothing")
    checkpoint.save(tmp_path / "c", {"a": torch.ones(100)}, {})
    whole = (tmp_path / "c" / "tensors.safetensors").read_bytes()
    (tmp_path / "c" / "tensors.safetensors").write_bytes(whole[:50])
    with pytest.raises(CheckpointError, match="damaged checkpoint"):
        checkpoint.load(tmp_path / "c")


def test_tensors_without_their_contents_are_no_checkpoint(tmp_path: Path) -> None:
    """The header and the length are right: safetensors alone would give back zeros."""
    checkpoint.save(tmp_path / "c", {"a": torch.ones(1000)}, {"epoch": 1})
    shutil.copytree(tmp_path / "c", tmp_path / "c.old")
    file = tmp_path / "c" / "tensors.safetensors"
    whole = file.read_bytes()
    file.write_bytes(whole[:-4000] + bytes(4000))
    assert not load_file(file)["a"].any()
    assert checkpoint.load(tmp_path / "c")[0]["a"].all()  # of what is left of the one before
    shutil.rmtree(tmp_path / "c.old")
    with pytest.raises(checkpoint.Damaged, match="SHA-256 of tensors.safetensors is .*…, state.json says"):
        checkpoint.load(tmp_path / "c")
    state = tmp_path / "c" / "state.json"
    state.write_bytes(bytes(state.stat().st_size))
    with pytest.raises(checkpoint.Damaged, match="damaged checkpoint"):
        checkpoint.load(tmp_path / "c")


def test_a_checkpoint_of_before_there_were_checksums_is_read(tmp_path: Path) -> None:
    checkpoint.save(tmp_path / "c", {"a": torch.ones(1)}, {"epoch": 1})
    (tmp_path / "c" / "state.json").write_text('{"epoch": 1}')
    assert checkpoint.load(tmp_path / "c")[1] == {"epoch": 1}


def test_a_write_that_fails_is_an_oserror_and_leaves_the_old_one(tmp_path: Path) -> None:
    checkpoint.save(tmp_path / "c", {"a": torch.ones(1)}, {"epoch": 1})
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))  # as on a full disk, the write comes back short
    try:
        with pytest.raises(OSError, match="cannot write the checkpoint"):
            checkpoint.save(tmp_path / "c", {"a": torch.ones(10_000)}, {"epoch": 2})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, before)
    assert checkpoint.load(tmp_path / "c")[1] == {"epoch": 1}
    assert sorted(p.name for p in tmp_path.iterdir()) == ["c"]


def test_others_may_read_a_checkpoint_as_the_umask_says(tmp_path: Path) -> None:
    before = os.umask(0o022)
    try:
        checkpoint.save(tmp_path / "c", {"a": torch.zeros(3)}, {})
    finally:
        os.umask(before)
    assert {path.stat().st_mode & 0o777 for path in (tmp_path / "c").iterdir()} == {0o644}


def test_an_optimiser_comes_back_exactly(tmp_path: Path) -> None:
    torch.manual_seed(0)
    a, b = torch.nn.Linear(3, 2), torch.nn.Linear(3, 2)
    b.load_state_dict(a.state_dict())
    first, second = torch.optim.RAdam(a.parameters(), lr=0.1), torch.optim.RAdam(b.parameters(), lr=0.1)
    x = torch.randn(5, 3)

    def step(model: torch.nn.Module, optimiser: torch.optim.Optimizer) -> None:
        optimiser.zero_grad()
        model(x).square().sum().backward()
        optimiser.step()

    for _ in range(7):
        step(a, first)
    b.load_state_dict(a.state_dict())
    tensors, plain = checkpoint.flatten_optimiser(first)
    checkpoint.save(tmp_path / "c", tensors, plain)
    checkpoint.restore_optimiser(second, *checkpoint.load(tmp_path / "c"))
    for _ in range(3):
        step(a, first)
        step(b, second)
    assert all(torch.equal(p, q) for p, q in zip(a.parameters(), b.parameters()))
