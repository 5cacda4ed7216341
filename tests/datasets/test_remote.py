"""A shard set over HTTP, S3 and Google's storage: the same batches as from a folder, through faults, or one
line."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import fields
from pathlib import Path

import pytest
import torch
from servers import Faults, Files, Proxy, credentials, free_port, moto, serving, wait_for

from datasets import build, remote, storage
from datasets.batch import Batch
from datasets.cache import open_cached
from datasets.inspect import main as inspect
from datasets.prepare import main as prepare
from datasets.shards import Index, ShardError, read_labels, read_members
from datasets.source import open_source
from datasets.storage import StorageError

PROJECT = Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def brief(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Short pauses, and filesystems of this test's own: their settings come from the environment."""
    monkeypatch.setenv("SCENETUNE_RETRY_FIRST", "0.01")
    monkeypatch.setenv("SCENETUNE_RETRY_TOTAL", "20")
    remote.forget()
    yield
    remote.forget()


@pytest.fixture(scope="module")
def s3_port() -> Iterator[int]:
    pytest.importorskip("moto")
    with moto() as port:
        yield port


@pytest.fixture
def s3(s3_port: int, tiny: Index, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[str, Faults]]:
    """The tiny corpus in a bucket, behind a proxy that spoils answers."""
    pytest.importorskip("s3fs")
    with serving(Proxy, port=s3_port) as (url, faults):
        for name, value in credentials(url).items():
            monkeypatch.setenv(name, value)
        import s3fs

        files = s3fs.S3FileSystem(skip_instance_cache=True)
        if not files.exists("bucket"):
            files.mkdir("bucket")
            for path in Path(tiny.root).iterdir():
                storage.put(path, "s3://bucket/shards", path.name)
        faults.seen.clear()
        yield "s3://bucket/shards", faults


@pytest.fixture
def web(tiny: Index) -> Iterator[tuple[str, Faults]]:
    with serving(Files, folder=tiny.root) as (url, faults):
        yield url, faults


@pytest.fixture(params=["http", "s3"])
def far(request: pytest.FixtureRequest) -> tuple[str, Faults]:
    """(URL of the tiny corpus, faults of its server)."""
    return request.getfixturevalue({"http": "web", "s3": "s3"}[request.param])


def equal(one: list[Batch], other: list[Batch]) -> bool:
    return len(one) == len(other) and all(
        torch.equal(getattr(a, field.name), getattr(b, field.name))
        for a, b in zip(one, other)
        for field in fields(Batch)
    )


def epoch(root: str | Path, workers: int = 0, cache: Path | None = None) -> list[Batch]:
    source = open_source(root, cache=cache, workers=workers)
    return [*source.train_batches(8, epoch=1, seed=2), *source.eval_batches("val", 8)]


def test_an_index_labels_and_members_are_the_local_ones(far: tuple[str, Faults], tiny: Index) -> None:
    url, _ = far
    index = Index.load(url)
    assert index.root == url and index.checksum == tiny.checksum and index.splits == tiny.splits
    assert list(read_labels(index, "train")) == list(read_labels(tiny, "train"))
    assert read_members(index, "train", 17) == read_members(tiny, "train", 17)


@pytest.mark.parametrize("workers", [0, 2])
def test_streamed_batches_are_the_local_ones(far: tuple[str, Faults], tiny: Index, workers: int) -> None:
    assert equal(epoch(far[0], workers), epoch(tiny.root, workers))


def test_cached_batches_are_the_local_ones(far: tuple[str, Faults], tiny: Index, tmp_path: Path) -> None:
    assert equal(epoch(far[0], cache=tmp_path / "far"), epoch(tiny.root, cache=tmp_path / "near"))


def test_batches_through_faults_are_the_local_ones(far: tuple[str, Faults], tiny: Index) -> None:
    url, faults = far
    source = open_source(url, cache=None)
    faults.next = [503, "cut", 500, "reset", 503, 500, "cut"]
    found = [*source.train_batches(8, epoch=1, seed=2), *source.eval_batches("val", 8)]
    assert faults.next == [] and equal(found, epoch(tiny.root))


def test_one_request_a_stretch_and_none_for_a_clip(far: tuple[str, Faults], tiny: Index) -> None:
    url, faults = far
    source = open_source(url, cache=None)
    faults.seen.clear()
    clips = sum(len(batch) for batch in source.train_batches(8, epoch=1, seed=2))
    assert clips == 43
    assert len(faults.seen) <= len(tiny.splits["train"].shards) + 1  # one shard may be cut by the turn
    assert all(spread.startswith("bytes=") for _, _, spread in faults.seen)


def test_large_stretches_are_read_in_blocks(
    web: tuple[str, Faults], tiny: Index, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(storage, "BLOCK_BYTES", 7000)
    assert equal(epoch(web[0]), epoch(tiny.root))


@pytest.mark.parametrize("workers", [0, 2])
def test_a_server_that_dies_in_an_epoch_is_one_line(
    far: tuple[str, Faults], workers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    url, faults = far
    source = open_source(url, cache=None, workers=workers)
    faults.always = 503
    monkeypatch.setenv("SCENETUNE_RETRY_TOTAL", "0.3")
    with pytest.raises(StorageError, match=r"/train-\d+.tar: the server failed .*503.*; tried \d+ times"):
        list(source.train_batches(8, epoch=0, seed=0))


def test_a_server_that_dies_while_a_cache_is_built_leaves_none(
    far: tuple[str, Faults], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url, faults = far
    monkeypatch.setenv("SCENETUNE_RETRY_TOTAL", "0.3")
    source = open_source(url, cache=None)
    faults.always = "reset"
    with pytest.raises(StorageError, match="tried"):
        open_cached(source.index, "train", tmp_path)
    assert not list(tmp_path.rglob("*.npy"))
    faults.always = None
    assert len(open_cached(source.index, "train", tmp_path)) == 43


def test_expired_credentials_are_said_at_once(s3: tuple[str, Faults]) -> None:
    url, faults = s3
    source = open_source(url, cache=None)
    faults.seen.clear()
    faults.always = "expired"
    with pytest.raises(StorageError) as error:
        list(source.train_batches(8, epoch=0, seed=0))
    text = str(error.value)
    assert (
        "s3://bucket/shards/train-" in text and "the credentials have expired (ExpiredToken); renew" in text
    )
    assert "test-secret" not in text and "test-key-id" not in text and "\n" not in text
    assert len(faults.seen) <= 2  # a stretch, and the next that was asked for beside it


def test_no_credentials_and_no_bucket(s3: tuple[str, Faults], monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(StorageError, match=r"s3://nowhere/x/index.json: there is no such bucket"):
        Index.load("s3://nowhere/x")
    with pytest.raises(ShardError, match="s3://bucket/x: no index.json"):
        Index.load("s3://bucket/x")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nowhere")
    monkeypatch.setenv("AWS_CONFIG_FILE", "/nowhere")
    remote.forget()
    with pytest.raises(StorageError, match="s3://bucket/shards/index.json: no credentials found; set AWS_"):
        Index.load("s3://bucket/shards")


@pytest.fixture
def prepared(tau_folder: Callable[..., Path], tmp_path: Path) -> Callable[[str], int]:
    """Prepares the corpus of `tau_folder` to a place; from a staging folder of this test's own."""
    command = ["tau-like", "--source", str(tau_folder()), "--corpus", "c", "--jobs", "1"]
    return lambda out: prepare([*command, "--shard-mb", "0.005", "--out", out])


def test_a_preparation_to_a_bucket_through_faults_has_the_local_bytes(
    s3: tuple[str, Faults], prepared: Callable[[str], int], tmp_path: Path
) -> None:
    _, faults = s3
    faults.next = [503, "reset", 500, 429, "cut"]
    assert prepared("s3://bucket/made") == 0 and faults.next == []
    assert prepared(str(tmp_path / "near")) == 0
    names = sorted(path.name for path in (tmp_path / "near").iterdir())
    assert names[-1] == "val-000001.tar" and "index.json" in names
    for name in names:
        assert storage.read_bytes("s3://bucket/made", name) == (tmp_path / "near" / name).read_bytes()


def test_a_bucket_that_takes_nothing_is_said_before_the_work(
    s3: tuple[str, Faults],
    web: tuple[str, Faults],
    prepared: Callable[[str], int],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(build, "encode", lambda *_, **__: pytest.fail("a clip was encoded"))
    assert prepared("s3://nowhere/x") == 2
    assert "s3://nowhere/x/index.json: there is no such bucket (NoSuchBucket)" in capsys.readouterr().err
    assert prepared(f"{web[0]}/x") == 2
    assert "http servers can't be written to" in capsys.readouterr().err
    s3[1].always = "expired"
    assert prepared("s3://bucket/y") == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and "the credentials have expired (ExpiredToken); renew" in said


def test_what_is_missing_or_truncated_there_is_named(tiny: Index, tmp_path: Path) -> None:
    shutil.copytree(tiny.root, tmp_path / "s")
    with serving(Files, folder=tmp_path / "s") as (url, _):
        path = tmp_path / "s" / tiny.splits["val"].shards[0].name
        path.write_bytes(path.read_bytes()[:-100])
        with pytest.raises(ShardError, match=f"{url}/{path.name}: truncated: "):
            Index.load(url)
        path.unlink()
        with pytest.raises(ShardError, match=f"{url}/{path.name}: missing; index.json lists it"):
            Index.load(url)
        (tmp_path / "s/index.json").unlink()
        with pytest.raises(ShardError, match=f"{url}: no index.json"):
            Index.load(url)


def test_inspect_reads_a_url(
    far: tuple[str, Faults], tiny: Index, capsys: pytest.CaptureFixture[str]
) -> None:
    assert inspect([str(tiny.root)]) == 0
    near = capsys.readouterr().out
    assert inspect([far[0]]) == 0
    assert capsys.readouterr().out.splitlines()[1:] == near.splitlines()[1:]


def test_a_fork_has_filesystems_of_its_own(far: tuple[str, Faults], tiny: Index) -> None:
    """fsspec's event loop does not run in a forked child, and its sockets are the parent's."""
    url, _ = far
    here = storage.read_bytes(url, "index.json")
    ours, theirs = os.pipe()
    child = os.fork()
    if child == 0:
        found = b"?"
        try:
            found = b"same" if storage.read_bytes(url, "index.json") == here else b"other"
        finally:
            os.write(theirs, found)
            os._exit(0)
    os.close(theirs)
    assert os.read(ours, 9) == b"same"
    os.waitpid(child, 0)
    assert storage.read_bytes(url, "index.json") == here


@pytest.mark.slow
@pytest.mark.parametrize("stream", [True, False])
def test_a_training_from_a_url_is_the_local_one(
    shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stream: bool
) -> None:
    """The whole command, through faults: the same losses and scores, and no token in what it keeps."""

    def train(data: str, out: str) -> list[str]:
        command = [
            sys.executable,
            "-m",
            "trainables.train",
            "csem",
            "--data",
            data,
            "--epochs",
            "2",
            "--test",
        ]
        command += ["--set", "backbone=tinycnn", "--out", str(tmp_path / out)] + ["--stream"] * stream
        environment = {**os.environ, "SCENETUNE_CACHE": str(tmp_path / f"cache-{out}")}
        found = subprocess.run(command, cwd=PROJECT, env=environment, capture_output=True, text=True)
        assert found.returncode == 0, found.stderr
        return [re.sub(r"train/clips_per_second \S+", "", line) for line in found.stdout.splitlines()]

    with serving(Files, folder=shards) as (url, faults):
        faults.next = [503, "cut", 500, "reset", "cut"]
        far = train(f"{url.replace('//', '//me:hunter2@')}?sig=t0ken", "far")
        assert faults.next == []
    assert far == train(str(shards), "near") and far[-1].startswith("test ")
    for path in (tmp_path / "far").rglob("*"):
        kept = path.read_bytes() if path.is_file() else b""
        assert b"hunter2" not in kept and b"t0ken" not in kept, path


@pytest.mark.slow
def test_google_storage_reads_alike(tiny: Index, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("gcsfs")
    pytest.importorskip("gcp_storage_emulator")
    port = free_port()
    command = [sys.executable, "-m", "gcp_storage_emulator", "start", f"--port={port}", "--in-memory"]
    command += ["--default-bucket=bucket"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", f"http://127.0.0.1:{port}")
    try:
        wait_for(port, process)
        for path in Path(tiny.root).iterdir():
            storage.put(path, "gs://bucket/shards", path.name)
        assert equal(epoch("gs://bucket/shards"), epoch(tiny.root))
        with pytest.raises(ShardError, match="gs://bucket/none: no index.json"):
            Index.load("gs://bucket/none")
    finally:
        process.terminate()
        process.wait(10)
