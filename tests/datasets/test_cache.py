import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from test_decode import encoded

from datasets import cache
from datasets.cache import CachedSplit, CacheError, open_cached
from datasets.shards import Index, ShardError, read_members


def damaged_copy(tiny: Index, to: Path, old: bytes, new: bytes) -> Index:
    shutil.copytree(tiny.root, to)
    path = to / tiny.splits["val"].shards[0].name
    data = path.read_bytes()
    assert old in data and len(old) == len(new)
    path.write_bytes(data.replace(old, new))
    return replace(tiny, root=to)


def test_built_once_and_mapped_after(tiny: Index, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = open_cached(tiny, "val", tmp_path, threads=2)
    monkeypatch.setattr(cache, "_build", None)  # calling it again would fail
    second = open_cached(tiny, "val", tmp_path)
    assert torch.equal(first.waveforms, second.waveforms) and first.waveforms.dtype == torch.int16
    assert first.waveforms.shape == (17, 1, tiny.samples) and len(second) == 17


def test_rows_and_index_select_agree(tiny: Index, tmp_path: Path) -> None:
    split = open_cached(tiny, "val", tmp_path)
    numbers = torch.tensor([3, 0, 16, 3])
    (batch,) = split.batches([numbers], "cpu")
    assert torch.equal(batch.waveform, split.waveforms[numbers].float() / 32768)
    assert torch.equal(batch.waveform, split._selected(numbers, "cpu"))
    assert torch.equal(batch.scene, split.scene[numbers]) and torch.equal(batch.clip, numbers)


def test_float_splits_stay_float() -> None:
    sounds = torch.randn(4, 2, 10)
    split = CachedSplit(
        sounds, torch.zeros(4, 1), torch.zeros(4, 1), torch.zeros(4, 1), torch.zeros(4, 0), torch.ones(4)
    )
    (batch,) = split.batches([torch.tensor([2, 1])], "cpu")
    assert torch.equal(batch.waveform, sounds[[2, 1]])


def test_another_shard_set_never_meets_this_cache(tiny: Index, tmp_path: Path) -> None:
    open_cached(tiny, "val", tmp_path)
    open_cached(replace(tiny, checksum="0" * 64), "val", tmp_path)
    assert len(list(tmp_path.iterdir())) == 2


def test_a_damaged_clip_names_shard_and_clip_and_leaves_no_cache(tiny: Index, tmp_path: Path) -> None:
    audio = read_members(tiny, "val", 2)["flac"]
    noise = np.random.default_rng(0).integers(0, 255, len(audio) - 60).astype(np.uint8).tobytes()
    index = damaged_copy(tiny, tmp_path / "s", audio, audio[:60] + noise)
    clip = tiny.splits["val"].shards[0].clips[2].key
    for threads in (1, 2):
        with pytest.raises(ShardError, match=f"val-000000.tar: clip {clip}: "):
            open_cached(index, "val", tmp_path / "cache", threads)
        (home,) = (tmp_path / "cache").iterdir()
        assert not any(path.is_dir() for path in home.iterdir())


def test_other_clips_than_the_index_says_are_noticed(tiny: Index, tmp_path: Path) -> None:
    """A valid clip in another's place: only the checksum can tell."""
    audio = read_members(tiny, "val", 2)["flac"]
    sound = np.random.default_rng(0).integers(-9, 9, (tiny.samples, 1)).astype(np.int16)
    other = encoded(sound)
    assert len(other) < len(audio)
    index = damaged_copy(tiny, tmp_path / "s", audio, other + bytes(len(audio) - len(other)))
    with pytest.raises(ShardError, match="val-000000.tar: SHA-256 .* on disk, .* in the index"):
        open_cached(index, "val", tmp_path / "cache")


def test_too_little_room(tiny: Index, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache.shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10, 9, 34000))
    needed = 17 * (2 * tiny.samples + 4 * (10 + 24))
    assert needed > 34000 > needed * 0.3
    with pytest.raises(CacheError, match="needs 0.000 GB, 0.000 GB are free"):
        open_cached(tiny, "val", tmp_path)
    monkeypatch.setattr(cache.shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10, 9, needed))
    open_cached(tiny, "val", tmp_path)


def test_a_disk_that_fills_up(tiny: Index, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*args: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(cache, "_write_labels", full)
    with pytest.raises(CacheError, match="the disk filled up while split 'val' was being written"):
        open_cached(tiny, "val", tmp_path)
    assert not any(path.is_dir() for path in next(tmp_path.iterdir()).iterdir())


@pytest.mark.parametrize("damage", ["cut", "gone", "shape"])
def test_a_damaged_cache_says_what_to_delete(tiny: Index, tmp_path: Path, damage: str) -> None:
    open_cached(tiny, "val", tmp_path)
    (path,) = tmp_path.glob("*/val/waveforms.npy")
    if damage == "cut":
        path.write_bytes(path.read_bytes()[:-1000])
    elif damage == "gone":
        path.unlink()
    else:
        np.save(path, np.zeros((3, 1, 4), dtype=np.int16))
    with pytest.raises(CacheError, match=f"delete {path.parent} to have it"):
        open_cached(tiny, "val", tmp_path)


def _build_slowly(root: Path, folder: Path, log: Path) -> None:
    real = cache._build

    def slow(*args: object) -> None:
        with open(log, "a") as file:
            file.write("built\n")
        time.sleep(0.3)
        real(*args)  # type: ignore[arg-type]

    cache._build = slow
    open_cached(Index.load(root), "val", folder)


def test_what_is_written_is_on_the_disk_before_it_has_its_name(
    tiny: Index, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A power cut after the rename must find the waveforms there, not zeros of the right shape."""
    synced, sync = [], os.fsync

    def noted(handle: int) -> None:
        synced.append(Path(os.readlink(f"/proc/self/fd/{handle}")))
        sync(handle)

    monkeypatch.setattr(os, "fsync", noted)
    open_cached(tiny, "val", tmp_path)
    (split,) = tmp_path.glob("*/val")
    assert {path.name for path in synced} == {path.name for path in split.iterdir()} | {"val.partial"}


def test_of_two_processes_one_builds(tiny: Index, tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    args = (tiny.root, tmp_path / "cache", tmp_path / "log")
    processes = [context.Process(target=_build_slowly, args=args) for _ in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(30)
        assert process.exitcode == 0
    assert (tmp_path / "log").read_text() == "built\n"


def _build_and_hang(root: Path, folder: Path) -> None:
    cache._write_labels = lambda *args: time.sleep(60)  # the waveforms are written by now
    open_cached(Index.load(root), "val", folder)


def test_a_build_that_was_killed_is_never_used(tiny: Index, tmp_path: Path) -> None:
    process = multiprocessing.get_context("fork").Process(target=_build_and_hang, args=(tiny.root, tmp_path))
    process.start()
    deadline = time.monotonic() + 20
    while not list(tmp_path.glob("*/val.partial/waveforms.npy")) and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(0.1)
    os.kill(process.pid or 0, signal.SIGKILL)
    process.join()
    assert list(tmp_path.glob("*/val.partial")) and not list(tmp_path.glob("*/val"))
    assert len(open_cached(tiny, "val", tmp_path)) == 17
    assert not list(tmp_path.glob("*/val.partial"))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_small_splits_live_on_the_device(tiny: Index, tmp_path: Path) -> None:
    here = open_cached(tiny, "val", tmp_path)
    there = cache.resident(here, "cuda")
    assert there.waveforms.is_cuda and there.waveforms.dtype == torch.int16
    numbers = [torch.tensor([3, 0, 16])]
    (a,), (b,), (c,) = (
        list(split.batches(numbers, device))
        for split, device in ((here, "cpu"), (there, "cuda"), (here, "cuda"))
    )
    assert torch.equal(a.waveform, b.waveform.cpu()) and torch.equal(a.waveform, c.waveform.cpu())
    assert b.clip.is_cuda and c.events.is_cuda


def test_a_write_that_fails_half_way_falls_back_to_streaming(tiny: Index, tmp_path: Path) -> None:
    """A file may not grow beyond 40 kB in that process, and the kernel says so in the middle of a write."""
    code = (
        "import resource, signal, sys, torch; from pathlib import Path\n"
        "from datasets.source import open_source\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (40_000, resource.RLIM_INFINITY))\n"
        "near = open_source(sys.argv[1], cache=Path(sys.argv[2])).eval_batches('val', 8)\n"
        "far = open_source(sys.argv[1], cache=None).eval_batches('val', 8)\n"
        "print(all(torch.equal(a.waveform, b.waveform) for a, b in zip(near, far, strict=True)))"
    )
    command = [sys.executable, "-c", code, str(tiny.root), str(tmp_path)]
    found = subprocess.run(command, cwd=Path(__file__).parents[2], capture_output=True, text=True)
    assert found.stdout == "True\n", found.stderr
    assert "File too large; streaming split 'val' instead" in found.stderr
    assert not list(tmp_path.rglob("*.npy"))
