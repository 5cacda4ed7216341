"""Shards from anywhere: what is not a clip is refused with its name, on the streaming path, the cache path
and where one clip or the labels are read."""

from __future__ import annotations

import ast
import hashlib
import io
import json
import pickle
import shutil
import tarfile
import tracemalloc
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from sounds import tone
from test_decode import encoded

from datasets import plan, stream
from datasets.cache import open_cached
from datasets.labels import LabelSpace
from datasets.members import expand_tar
from datasets.shards import (
    Clip,
    ClipLabels,
    Index,
    Shard,
    ShardError,
    Split,
    make_index,
    read_labels,
    read_members,
)

PROJECT = Path(__file__).resolve().parents[2]
LABELS = ClipLabels("park", ("bird",)).to_json()
AUDIO = encoded(tone())  # 0.1 s at 8 kHz: 800 samples
Members = list[tuple[str, bytes, dict[str, Any]]]


class Bomb:
    """Makes a file where it is unpickled."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self._path,)


def shard_set(root: Path, members: Members, key: str = "k0", tail: bytes = b"") -> Index:
    """A set of one clip whose shard holds exactly `members`, with an index that is true to its bytes."""
    root.mkdir(parents=True)
    path = root / "train-000000.tar"
    with tarfile.open(path, "w", format=tarfile.GNU_FORMAT) as tar:
        for name, data, attributes in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            for attribute, value in attributes.items():
                setattr(info, attribute, value)
            tar.addfile(info, io.BytesIO(data))
        end = tar.offset
    data = path.read_bytes()[:end] + tail + bytes(1024)
    path.write_bytes(data)
    shard = Shard(
        path.name, len(data), hashlib.sha256(data).hexdigest(), (Clip(key, 0, end + len(tail), 800),)
    )
    index = make_index(
        root, {"train": Split(1, 0.1 / 3600, (shard,))}, corpus="c", sample_rate=8000, channels=1,
        sample_type="int16", labels=LabelSpace(("park",), ("bird",)), licence="", citation="",
    )  # fmt: skip
    index.save()
    return Index.load(root)


def by_streaming(index: Index, cache: Path) -> tuple[str, ...]:
    (batch,) = stream.batches(index, "train", plan.eval_reading([1], 1))
    return tuple(name for name, on in zip(index.labels.events, batch.events[0]) if on)


def by_cache(index: Index, cache: Path) -> tuple[str, ...]:
    events = open_cached(index, "train", cache).events[0]
    return tuple(name for name, on in zip(index.labels.events, events) if on)


def by_members(index: Index, cache: Path) -> tuple[str, ...]:
    return ClipLabels.from_json(read_members(index, "train", 0)["json"]).events or ()


READERS = [by_streaming, by_cache, by_members]
HONEST: Members = [("k0.json", LABELS, {}), ("k0.flac", AUDIO, {})]
REFUSED: dict[str, tuple[Members, str]] = {
    "absolute": ([*HONEST, ("/etc/k0.json", b"", {})], "member '/etc/k0.json': a name is <key>.<suffix>"),
    "up": ([*HONEST, ("../k0.json", b"", {})], "member '../k0.json': a name is <key>.<suffix>"),
    "folder": ([*HONEST, ("sub/k0.json", b"", {})], "member 'sub/k0.json': a name is"),
    "backslash": ([*HONEST, ("..\\k0.json", b"", {})], "a name is <key>.<suffix>"),
    "symbolic link": (
        [*HONEST, ("k0.wav", b"", {"type": tarfile.SYMTYPE, "linkname": "/etc/passwd"})],
        "member 'k0.wav': is a symbolic link",
    ),
    "hard link": (
        [*HONEST, ("k0.tags.npy", b"", {"type": tarfile.LNKTYPE, "linkname": "k0.flac"})],
        "member 'k0.tags.npy': is a hard link",
    ),
    "device": ([*HONEST, ("k0.wav", b"", {"type": tarfile.CHRTYPE})], "member 'k0.wav': is a device"),
    "fifo": ([*HONEST, ("k0.wav", b"", {"type": tarfile.FIFOTYPE})], "member 'k0.wav': is a device"),
    "directory": ([*HONEST, ("k0.wav", b"", {"type": tarfile.DIRTYPE})], "member 'k0.wav': is a folder"),
    "pickle": ([*HONEST, ("k0.pyd", b"PICKLE", {})], "member 'k0.pyd': member .pyd is not one of"),
    "pickle by another name": ([*HONEST, ("k0.pickle", b"PICKLE", {})], "member .pickle is not one of"),
    "torch file": ([*HONEST, ("k0.pth", b"PICKLE", {})], "member .pth is not one of"),
    "labels too large": ([("k0.json", b" " * (2**20 + 1), {})], "has 1048577 bytes, the limit is 1048576"),
    "twice": ([*HONEST, ("k0.flac", AUDIO, {})], "k0.flac"),
    "another clip": ([*HONEST, ("k1.json", LABELS, {})], "k1"),
}  # fmt: skip


@pytest.mark.parametrize("read", READERS)
@pytest.mark.parametrize("kind", REFUSED)
def test_what_is_not_a_clip_is_refused_by_name(
    tmp_path: Path, kind: str, read: Callable[[Index, Path], None]
) -> None:
    members, message = REFUSED[kind]
    bomb = pickle.dumps(Bomb(tmp_path / "went-off"))
    index = shard_set(tmp_path / "s", [(n, bomb if d == b"PICKLE" else d, a) for n, d, a in members])
    with pytest.raises(ShardError) as error:
        read(index, tmp_path / "cache")
    text = str(error.value)
    assert text.startswith("train-000000.tar: ") and message in text and "\n" not in text
    assert not (tmp_path / "went-off").exists()
    assert not list(tmp_path.rglob("*.npy"))


@pytest.mark.parametrize("read", READERS)
def test_an_honest_clip_is_read(tmp_path: Path, read: Callable[[Index, Path], None]) -> None:
    index = shard_set(tmp_path / "s", HONEST)
    assert read(index, tmp_path / "cache") == ClipLabels.from_json(LABELS).events


def sparse(name: str, size: int) -> bytes:
    """A GNU sparse member of `size` zeros that takes 512 bytes of the tar."""
    header = bytearray(tarfile.TarInfo(name).tobuf(tarfile.GNU_FORMAT))
    header[156:157] = tarfile.GNUTYPE_SPARSE
    header[483:495] = b"%011o\0" % size
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header[:512])
    return bytes(header)


def promising(name: str, size: int) -> bytes:
    """The header of a member of `size` bytes that don't follow."""
    info = tarfile.TarInfo(name)
    info.size = size
    return info.tobuf(tarfile.GNU_FORMAT)


@pytest.mark.parametrize("read", READERS)
@pytest.mark.parametrize(
    ("tail", "message"),
    [
        (sparse("k0.wav", 2**33), "member 'k0.wav': is a sparse file"),
        (promising("k0.wav", 2**40), "member .wav has 1099511627776 bytes, the limit is 268435456"),
        (promising("k0.tags.npy", 2**27), "has 134217728 bytes, the limit is 67108864"),
        (promising("k0.wav", 2**27), "not a readable tar"),
    ],
)  # fmt: skip
def test_zeros_without_end_take_no_memory(
    tmp_path: Path, tail: bytes, message: str, read: Callable[[Index, Path], None]
) -> None:
    index = shard_set(tmp_path / "s", HONEST, tail=tail)
    tracemalloc.start()
    try:
        with pytest.raises(ShardError) as error:
            read(index, tmp_path / "cache")
        assert tracemalloc.get_traced_memory()[1] < 32 * 2**20
    finally:
        tracemalloc.stop()
    assert message in str(error.value) and "train-000000.tar" in str(error.value)


def test_a_compressed_tar_is_not_unpacked() -> None:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as tar:
        info = tarfile.TarInfo("k0.wav")
        info.size = 10_000_000
        tar.addfile(info, io.BytesIO(bytes(info.size)))
    packed.seek(0)
    with pytest.raises(ShardError, match="x.tar: not a readable tar"):
        list(expand_tar(packed, "x.tar"))


def test_a_clip_that_is_said_to_be_huge_is_not_read(tmp_path: Path) -> None:
    index = shard_set(tmp_path / "s", HONEST)
    shard = replace(index.splits["train"].shards[0], clips=(Clip("k0", 0, 2**29, 800),))
    huge = replace(index, splits={"train": replace(index.splits["train"], shards=(shard,))})
    for read in READERS:
        with pytest.raises(ShardError, match="train-000000.tar: clip k0 has 536870912 bytes, the limit is"):
            read(huge, tmp_path / "cache")
    with pytest.raises(ShardError, match="the limit is"):
        list(read_labels(huge, "train"))


@pytest.mark.parametrize("read", READERS)
@pytest.mark.parametrize("clip", [["k9", 0, 0], ["k0", 512, 0], ["k0", 0, -512], ["k0", 0, -1024]])
def test_an_index_that_is_not_the_tar_is_noticed(
    tmp_path: Path, clip: list, read: Callable[[Index, Path], None]
) -> None:
    """Another key; a clip that begins later; one that ends earlier."""
    index = shard_set(tmp_path / "s", HONEST)
    key, later, shorter = clip
    record = json.loads((tmp_path / "s/index.json").read_text())
    size = index.splits["train"].shards[0].clips[0].size
    record["splits"]["train"]["shards"][0]["clips"] = [[key, later, size - later + shorter, 800]]
    (tmp_path / "s/index.json").write_text(json.dumps(record))
    with pytest.raises(ShardError, match="train-000000.tar"):
        read(Index.load(tmp_path / "s"), tmp_path / "cache")


def test_a_tar_that_was_exchanged_is_noticed_by_the_cache(tmp_path: Path) -> None:
    index = shard_set(tmp_path / "s", HONEST)
    path = tmp_path / "s/train-000000.tar"
    path.write_bytes(path.read_bytes().replace(b"bird", b"bell"))
    with pytest.raises(ShardError, match="SHA-256 .* on disk, .* in the index"):
        open_cached(index, "train", tmp_path / "cache")


def test_a_cache_folder_is_never_outside_of_the_cache(tmp_path: Path) -> None:
    index = shard_set(tmp_path / "s", HONEST)
    for field, value in {"corpus": "../../x", "checksum": "../" * 8}.items():
        record = json.loads((tmp_path / "s/index.json").read_text())
        root = tmp_path / f"bad-{field}"
        shutil.copytree(index.root, root)
        (root / "index.json").write_text(json.dumps(record | {field: value}))
        try:
            open_cached(Index.load(root), "train", tmp_path / "deep/cache")
        except ShardError as error:
            assert "checksum" in str(error)
    assert {path.name for path in tmp_path.iterdir()} <= {"s", "deep", "bad-corpus", "bad-checksum"}
    assert {path.name for path in (tmp_path / "deep").iterdir()} == {"cache"}


def project_files() -> list[Path]:
    folders = ("datasets", "trainables", "searchspace", "reports")
    return [*PROJECT.glob("*.py"), *(path for folder in folders for path in (PROJECT / folder).rglob("*.py"))]


@pytest.mark.parametrize("path", project_files(), ids=lambda path: str(path.relative_to(PROJECT)))
def test_nothing_unpickles(path: Path) -> None:
    """No module that does; no np.load that allows objects; no torch.load but with weights_only."""
    for node in ast.walk(ast.parse(path.read_text())):
        where = f"{path}:{getattr(node, 'lineno', 0)}"
        if isinstance(node, ast.ImportFrom) and [name.name for name in node.names] == ["UnpicklingError"]:
            continue  # what a refused file raises
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = {alias.name for alias in node.names} | {getattr(node, "module", "") or ""}
            roots = {name.split(".")[0] for name in names}
            assert not roots & {"pickle", "marshal", "shelve", "dill", "joblib", "cloudpickle"}, where
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "load":
            given = {word.arg: getattr(word.value, "value", None) for word in node.keywords}
            owner = getattr(node.func.value, "id", "")
            assert owner != "torch" or given.get("weights_only") is True, where
            assert not given.get("allow_pickle"), where
