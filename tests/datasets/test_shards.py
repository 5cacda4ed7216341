import hashlib
import json
import os
import shutil
import tarfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from datasets.labels import LabelSpace
from datasets.shard_writer import Sample, clip_key, unique_keys, write_split
from datasets.shards import ClipLabels, Index, ShardError, make_index, read_labels, read_members

FACTS = {
    "corpus": "c",
    "sample_rate": 8000,
    "channels": 1,
    "sample_type": "int16",
    "licence": "l",
    "citation": "",
}
LABELS = ClipLabels("park", ("bird",), ((0.1, 0.2, "bird"),), "lisbon-1")


def samples(count: int, size: int = 3000) -> list[Sample]:
    return [Sample(f"k{i}", bytes([i]) * (size + i), "flac", 100 + i, LABELS) for i in range(count)]


def make_set(root: Path, count: int = 7) -> Index:
    root.mkdir()
    splits = {"train": write_split(root, "train", samples(count), 8000, shard_bytes=10000)}
    index = make_index(
        root, splits, labels=LabelSpace(("park",), ("bird",)), dropped=[("a.wav", "cut off")], **FACTS
    )
    index.save()
    return index


def copy_set(index: Index, to: Path) -> Path:
    shutil.copytree(index.root, to)
    return to


def test_saved_index_loads_as_it_was(tmp_path: Path) -> None:
    index = make_set(tmp_path / "s")
    assert Index.load(tmp_path / "s") == index
    assert (
        index.samples == 106 and index.splits["train"].clips == 7 and len(index.splits["train"].shards) == 3
    )
    assert index.splits["train"].hours == pytest.approx(sum(100 + i for i in range(7)) / 8000 / 3600)


def test_an_index_is_on_the_disk_before_it_has_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What has an index.json is complete, and the manifest of its making is deleted then."""
    done, sync, replace_file = [], os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda handle: (done.append("flushed"), sync(handle)))
    monkeypatch.setattr(os, "replace", lambda *names: (done.append("named"), replace_file(*names)))
    index = make_set(tmp_path / "s")
    done.clear()
    index.save()
    assert done == ["flushed", "named"] and Index.load(tmp_path / "s") == index


def test_every_byte_range_is_the_clip(tmp_path: Path) -> None:
    index = make_set(tmp_path / "s")
    for number, sample in enumerate(samples(7)):
        members = read_members(index, "train", number)
        assert members == {"json": sample.labels.to_json(), "flac": sample.audio}
    assert list(read_labels(index, "train")) == [LABELS] * 7
    with pytest.raises(IndexError, match="0 to 6, asked for 7"):
        read_members(index, "train", 7)


def test_shards_are_plain_tars_with_true_checksums(tmp_path: Path) -> None:
    index = make_set(tmp_path / "s")
    names = []
    for shard in index.splits["train"].shards:
        data = (index.root / shard.name).read_bytes()
        assert hashlib.sha256(data).hexdigest() == shard.sha256 and len(data) == shard.bytes
        with tarfile.open(index.root / shard.name) as tar:
            names += tar.getnames()
    assert names == [f"k{i}.{suffix}" for i in range(7) for suffix in ("json", "flac")]
    assert sorted(p.name for p in index.root.iterdir()) == [
        "index.json", "train-000000.tar", "train-000001.tar", "train-000002.tar",
    ]  # fmt: skip


def test_checksum_follows_clips_and_labels(tmp_path: Path) -> None:
    index = make_set(tmp_path / "a")
    assert make_set(tmp_path / "b").checksum == index.checksum
    assert make_set(tmp_path / "c", count=6).checksum != index.checksum
    other = make_index(index.root, index.splits, labels=LabelSpace(("tram",), ("bird",)), **FACTS)
    assert other.checksum != index.checksum


@pytest.mark.parametrize("key", ["", "a.b", "a/b", "k0"])
def test_writer_refuses_keys_that_would_not_come_back(tmp_path: Path, key: str) -> None:
    with pytest.raises(ValueError, match="clip key"):
        write_split(tmp_path, "train", [*samples(1), replace(samples(1)[0], key=key)], 8000)


@pytest.mark.parametrize(
    ("break_it", "message"),
    [
        (lambda r: shutil.rmtree(r), "no such folder"),
        (lambda r: (shutil.rmtree(r), r.write_text("")), "a file, not a folder; expected a shard set"),
        (lambda r: edit(r, scenes=3), "a field holds another kind of thing than it should"),
        (lambda r: (r / "index.json").unlink(), "no index.json"),
        (lambda r: (r / "index.json").write_text("{"), "not JSON"),
        (lambda r: (r / "index.json").write_text("[]"), "format None, this version reads format 1"),
        (lambda r: edit(r, format=2), "format 2, this version reads format 1"),
        (lambda r: edit(r, scenes=["a", "a"]), "scene labels must be distinct"),
        (lambda r: edit(r, splits=3), "index.json: "),
        (lambda r: edit(r, checksum="../../x"), "checksum is not a SHA-256"),
        (lambda r: edit(r, checksum="0" * 64), "is not that of the shards, labels and format listed"),
        (lambda r: edit(r, scenes=["b", "a"]), "the index was changed after it was written"),
        (lambda r: edit(r, samples=10**12), "the limit is 268435456 samples in all channels"),
        (lambda r: edit(r, channels=0), "channels 0: at least 1"),
        (lambda r: edit(r, sample_type="object"), "sample_type 'object' is not one of: int16, float32"),
        (lambda r: edit_split(r, lambda s: {"../x": s}), "split name '../x'"),
        (lambda r: edit_clip(r, 1, ["k0", 10240, 10240, 101]), "'k0' is listed twice"),
        (lambda r: edit_clip(r, 1, ["k1", 100, 4096, 101]), "overlap another clip"),
        (lambda r: edit_clip(r, 0, ["k0", -512, 4096, 101]), "overlap another clip or lie outside"),
        (lambda r: edit_clip(r, 1, ["k1", 4608, 10**9, 101]), "overlap another clip or lie outside"),
        (lambda r: edit_clip(r, 1, ["k1/x", 4608, 4608, 101]), "without '.' and '/'"),
        (lambda r: edit_clip(r, 1, ["k1", 4608, 4608, 999]), "999 samples; the longest is said to have 106"),
        (lambda r: (r / "train-000001.tar").unlink(), "missing; index.json lists it"),
        (lambda r: cut(r / "train-000001.tar", 100), "truncated: 20380 bytes there, 20480 in index.json"),
        (lambda r: cut(r / "train-000001.tar", -1), "changed: 20481 bytes there, 20480 in index.json"),
    ],
)
def test_a_broken_set_is_one_clear_line(tmp_path: Path, break_it, message: str) -> None:
    root = make_set(tmp_path / "s").root
    break_it(root)
    with pytest.raises(ShardError) as error:
        Index.load(root)
    assert message in str(error.value) and str(root) in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize(
    "name",
    ["../train-000000.tar", "/etc/passwd", "..", "pipe:cat x", "s3://b/x.tar", "a\\b", ".x", "", "a b"],
)
def test_missing_field_and_escaping_shard_are_named(tmp_path: Path, name: str) -> None:
    root = make_set(tmp_path / "s").root
    record = json.loads((root / "index.json").read_text())
    record["splits"]["train"]["shards"][0]["name"] = name
    (root / "index.json").write_text(json.dumps(record))
    with pytest.raises(ShardError, match="leads out of the folder"):
        Index.load(root)
    del record["licence"]
    (root / "index.json").write_text(json.dumps(record))
    with pytest.raises(ShardError, match="no field 'licence'"):
        Index.load(root)


def test_unknown_split_names_the_known(tmp_path: Path) -> None:
    with pytest.raises(ShardError, match="no split 'val'; there are: train"):
        make_set(tmp_path / "s").split("val")


def test_labels_that_are_not_there_or_not_json(tmp_path: Path) -> None:
    index = make_set(tmp_path / "s")
    path = index.root / "train-000000.tar"
    data = path.read_bytes()
    path.write_bytes(data.replace(b"k1.json", b"k1.jsom"))
    with pytest.raises(ShardError, match="train-000000.tar: clip k1"):
        list(read_labels(index, "train"))
    path.write_bytes(data.replace(b'{"scene"', b'["scene"'))
    with pytest.raises(ShardError, match="train-000000.tar: clip k0"):
        list(read_labels(index, "train"))


def test_unknown_labels_survive_the_round_trip() -> None:
    for labels in (ClipLabels(), ClipLabels("a", (), ()), LABELS):
        assert ClipLabels.from_json(labels.to_json()) == labels
    for bad in (b"[]", b'{"events": 3}', b'{"strong": [[1]]}', b"\xff"):
        with pytest.raises((ValueError, TypeError)):
            ClipLabels.from_json(bad)


def test_keys_are_safe_and_unique() -> None:
    assert clip_key("audio/airport-lisbon-1000-40000-a.wav") == "airport-lisbon-1000-40000-a"
    assert clip_key("audio\\home\\a b.c.wav") == "a_b_c"
    assert unique_keys(["x/a.wav", "y/a.wav", "a.flac", "a-2.wav"]) == ["a", "a-2", "a-3", "a-2-2"]


@given(st.lists(st.text(max_size=150), max_size=12))
def test_keys_of_any_names(names: list[str]) -> None:
    keys = unique_keys(names)
    assert len(set(keys)) == len(names)
    assert all(key and "." not in key and "/" not in key and len(key) < 140 for key in keys)


def edit(root: Path, **fields: object) -> None:
    record = json.loads((root / "index.json").read_text())
    (root / "index.json").write_text(json.dumps(record | fields))


def edit_split(root: Path, change: Callable[[dict], dict]) -> None:
    edit(root, splits=change(json.loads((root / "index.json").read_text())["splits"]["train"]))


def edit_clip(root: Path, place: int, clip: list) -> None:
    record = json.loads((root / "index.json").read_text())
    record["splits"]["train"]["shards"][0]["clips"][place] = clip
    (root / "index.json").write_text(json.dumps(record))


def cut(path: Path, count: int) -> None:
    data = path.read_bytes()
    path.write_bytes(data[: len(data) - count] if count > 0 else data + b"\0")
