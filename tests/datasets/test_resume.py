"""Preparations that are killed, interrupted or go to a URL."""

import hashlib
import io
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import fsspec
import numpy as np
import pytest
import soundfile
from filelock import FileLock

from datasets import build, prepare, staging
from datasets.corpora import read_tau_like
from datasets.encode import encode
from datasets.shards import Index

Make = Callable[..., Path]
SHARD = "0.005"  # MiB: two or three clips

# A preparation in a process of its own, slow enough to be killed in the middle.
SLOW = """
import sys, time
from datasets import build, prepare
real = build.encode
def slow(*args, **kwargs):
    time.sleep(0.03)
    return real(*args, **kwargs)
build.encode = slow
sys.exit(prepare.main(sys.argv[1:]))
"""


@pytest.fixture(autouse=True)
def _staging_in_tmp(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))


@pytest.fixture
def source(tau_folder: Make) -> Path:
    """With a damaged file in the training list."""
    root = tau_folder()
    soundfile.write(root / "audio/park-lisbon-0-1-a.wav", np.full((800, 1), np.nan), 8000, subtype="FLOAT")
    return root


def arguments(source: Path, out: Path | str, *more: str) -> list[str]:
    options = ["--jobs", "2", "--max-damaged", "0.1", "--corpus", "c", "--shard-mb", SHARD, *more]
    return ["tau-like", "--source", str(source), "--out", str(out), *options]


def content(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}


def kill_after(shards: int, command: list[str], unfinished: Path) -> None:
    process = subprocess.Popen([sys.executable, "-c", SLOW, *command], stderr=subprocess.DEVNULL)
    manifest = unfinished / staging.MANIFEST
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and process.poll() is None:
        if manifest.is_file() and manifest.read_bytes().count(b"\n") > shards:
            break
        time.sleep(0.005)
    os.kill(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL


@pytest.mark.parametrize("shards", [0, 1, 5])
def test_a_killed_preparation_goes_on_and_ends_with_the_same_bytes(
    source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], shards: int
) -> None:
    assert prepare.main(arguments(source, tmp_path / "whole")) == 0
    out, unfinished = tmp_path / "out", tmp_path / ".out.unfinished"
    kill_after(shards, arguments(source, out), unfinished)
    assert not out.exists() and unfinished.is_dir()
    before = {path.name: path.stat().st_mtime_ns for path in unfinished.glob("[!.]*.tar")}
    assert len(before) >= shards
    capsys.readouterr()
    assert prepare.main(arguments(source, out)) == 0
    assert (f"note: going on after {len(before)} finished" in capsys.readouterr().err) == (len(before) > 0)
    assert content(out) == content(tmp_path / "whole") and len(content(out)) > 8
    # What was finished has not been made again.
    assert {name: (out / name).stat().st_mtime_ns for name in before} == before
    assert [file for file, _ in Index.load(out).dropped] == ["audio/park-lisbon-0-1-a.wav"]
    assert not unfinished.exists()


def interrupt_after(clips: int, monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    seen = []

    def failing(*args: object, **kwargs: object) -> object:
        seen.append(1)
        if len(seen) > clips:
            raise error
        return encode(*args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(build, "encode", failing)


def test_what_is_kept_is_said_and_other_arguments_are_refused(
    source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    interrupt_after(8, monkeypatch, KeyboardInterrupt())
    assert prepare.main(arguments(source, out)) == 130
    said = capsys.readouterr().err.splitlines()[-1]
    assert said.startswith("stopped; ") and said.endswith("the same command goes on from there")
    monkeypatch.setattr(build, "encode", encode)
    assert prepare.main(arguments(source, out, "--rate", "4000")) == 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert "its --rate was null, not 4000; give the same again to go on, or delete that folder" in line
    soundfile.write(source / "audio/tram-lisbon-0-0-a.wav", np.zeros((800, 1)), 8000, subtype="PCM_16")
    assert prepare.main(arguments(source, out)) == 2
    assert "list of files, with their labels, sizes and dates, was" in capsys.readouterr().err
    assert not out.exists()


def test_an_option_that_does_not_change_the_bytes_may_change(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert prepare.main(arguments(source, tmp_path / "whole")) == 0
    out = tmp_path / "out"
    interrupt_after(8, monkeypatch, OSError(28, "No space left on device"))
    assert prepare.main(arguments(source, out)) == 2
    monkeypatch.setattr(build, "encode", encode)
    assert prepare.main(arguments(source, out, "--jobs", "1", "--max-damaged", "0.5")) == 0
    assert content(out) == content(tmp_path / "whole")


def test_a_torn_manifest_and_a_truncated_shard_are_made_again(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert prepare.main(arguments(source, tmp_path / "whole")) == 0
    out, unfinished = tmp_path / "out", tmp_path / ".out.unfinished"
    interrupt_after(10, monkeypatch, KeyboardInterrupt())
    assert prepare.main(arguments(source, out)) == 130
    monkeypatch.setattr(build, "encode", encode)
    manifest = unfinished / staging.MANIFEST
    lines = manifest.read_bytes().splitlines(keepends=True)
    assert len(lines) >= 3
    second = unfinished / json.loads(lines[2])["shard"]["name"]
    second.write_bytes(second.read_bytes()[:512])
    manifest.write_bytes(b"".join(lines) + b'{"split": "tr')
    (unfinished / ".train-000009.tar.123").write_bytes(b"half")
    assert prepare.main(arguments(source, out)) == 0
    assert content(out) == content(tmp_path / "whole")


def test_a_kill_between_the_index_and_the_renaming_loses_nothing(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert prepare.main(arguments(source, tmp_path / "whole")) == 0
    out = tmp_path / "out"

    def killed(self: Path, target: Path) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", killed)
        assert prepare.main(arguments(source, out)) == 130
    interrupt_after(0, monkeypatch, AssertionError("a clip was encoded again"))
    assert prepare.main(arguments(source, out)) == 0
    assert content(out) == content(tmp_path / "whole")


def test_two_at_once_are_refused(source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    unfinished = tmp_path / ".out.unfinished"
    unfinished.mkdir()
    with FileLock(unfinished / staging.LOCK):
        assert prepare.main(arguments(source, tmp_path / "out")) == 2
    assert "another preparation is at work there" in capsys.readouterr().err


@pytest.mark.parametrize("kind", ["file", "memory"])
def test_to_a_url(source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], kind: str) -> None:
    assert prepare.main(arguments(source, tmp_path / "whole")) == 0
    url = f"file://{tmp_path}/remote/set" if kind == "file" else f"memory://{tmp_path.name}/set"
    assert prepare.main(arguments(source, url)) == 0
    assert url in capsys.readouterr().out
    system, path = fsspec.core.url_to_fs(url)
    found = {Path(name).name: system.cat_file(name) for name in system.ls(path, detail=False)}
    assert {name: hashlib.sha256(data).hexdigest() for name, data in found.items()} == content(
        tmp_path / "whole"
    )
    assert not list(tmp_path.glob("*.unfinished"))
    assert prepare.main(arguments(source, url)) == 2
    assert "holds a shard set; give another --out or delete it" in capsys.readouterr().err


def test_a_killed_preparation_to_a_url_has_no_index_and_goes_on(source: Path, tmp_path: Path) -> None:
    assert prepare.main(arguments(source, tmp_path / "whole")) == 0
    url, remote = f"file://{tmp_path}/remote/set", tmp_path / "remote/set"
    command = arguments(source, url)
    kill_after(2, command, staging.staging_folder(url))
    assert not (remote / "index.json").exists()
    before = {path.name: path.stat().st_mtime_ns for path in remote.iterdir()}
    assert prepare.main(command) == 0
    assert content(remote) == content(tmp_path / "whole")
    again = [name for name, time in before.items() if (remote / name).stat().st_mtime_ns != time]
    assert len(again) <= 1  # at most the one that was put and not yet written down


def test_mixed_downloads_are_made_alike(tmp_path: Path, tau_folder: Make) -> None:
    """Several rates, mono and stereo, another codec, a few samples off length."""
    root = tau_folder()
    rng = np.random.default_rng(0)
    for number, path in enumerate(sorted(root.glob("audio/*.wav"))):
        rate, channels = ((8000, 1), (16000, 2), (11025, 1))[number % 3]
        sound = rng.normal(0, 0.1, (rate // 10 - number % 5, channels))
        soundfile.write(path, sound, rate, subtype=("PCM_16", "PCM_24")[number % 2])
    out = tmp_path / "out"
    assert prepare.main(arguments(root, out, "--rate", "8000", "--channels", "mono")) == 0
    index = Index.load(out)
    assert (index.sample_rate, index.channels, index.sample_type) == (8000, 1, "float32")
    assert 790 <= index.samples <= 800
    record = json.loads((out / "prepared.json").read_text())
    assert record["conversion"]["rate"] == 8000 and "Kaiser" in record["conversion"]["how"]
    corpus = read_tau_like(root)
    (name, data) = next(iter(members(out, "train").items()))
    file = next(r.file for r in corpus.splits["train"] if Path(r.file).stem == name)
    info = soundfile.info(io.BytesIO(data))
    assert info.samplerate == 8000 and abs(info.duration - soundfile.info(root / file).duration) < 2 / 8000


def members(shards: Path, split: str) -> dict[str, bytes]:
    from datasets.shards import read_members

    index = Index.load(shards)
    found = {}
    for number, (_, clip) in enumerate(index.splits[split].entries()):
        found[clip.key] = next(d for n, d in read_members(index, split, number).items() if n != "json")
    return found
