"""Tags in a shard set: copied shards, both readers, and files that lie about them."""

import io
import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from datasets.cache import open_cached
from datasets.decode import decode_array, decode_tags
from datasets.shards import Index, ShardError, Tags, make_index, read_members
from datasets.source import open_source
from datasets.tagged import tagged_index, write_tagged


def every(index: Index, split: str, cache: Path | None) -> torch.Tensor:
    """(N, K) of a split in the clips' order."""
    batches = list(open_source(index.root, cache=cache).eval_batches(split, 4))
    return torch.cat([batch.tags for batch in batches])


def npy(array: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def one_by_one(index: Index, split: str) -> np.ndarray:
    count = index.splits[split].clips
    return np.stack([decode_array(read_members(index, split, n)["tags.npy"]) for n in range(count)])


@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_cache_and_stream_give_the_tags_that_lie_in_the_tars(tagged: Index, cache: Path, split: str) -> None:
    wanted = torch.from_numpy(one_by_one(tagged, split)).float()
    assert wanted.shape == (tagged.splits[split].clips, 5) and wanted.std() > 0.1
    for place in (cache, None):
        got = every(tagged, split, place)
        assert got.dtype == torch.float32 and torch.equal(got, wanted)


def test_shuffled_batches_keep_a_clips_tags_with_it(tagged: Index, cache: Path) -> None:
    wanted = torch.from_numpy(one_by_one(tagged, "train")).float()
    for place in (cache, None):
        for batch in open_source(tagged.root, cache=place).train_batches(8, epoch=2, seed=1):
            assert torch.equal(batch.tags, wanted[batch.clip])


def test_a_shard_set_without_tags_gives_batches_with_none_of_them(tiny: Index, cache: Path) -> None:
    for place in (cache, None):
        assert every(tiny, "val", place).shape == (17, 0)


def test_all_else_is_copied_byte_for_byte_and_the_checksum_is_another(tiny: Index, tagged: Index) -> None:
    for split in tiny.splits:
        for n in range(tiny.splits[split].clips):
            mine = read_members(tagged, split, n)
            del mine["tags.npy"]
            assert mine == read_members(tiny, split, n)
    keys = [[clip.key for _, clip in index.splits["train"].entries()] for index in (tiny, tagged)]
    assert keys[0] == keys[1] and tagged.checksum != tiny.checksum


def test_the_checksum_covers_what_the_tags_mean(tagged: Index) -> None:
    def checksum(tags) -> str:
        about = {"corpus": "c", "sample_rate": 8000, "channels": 1, "sample_type": "int16", "licence": "",
                 "citation": ""}  # fmt: skip
        return make_index(tagged.root, tagged.splits, labels=tagged.labels, **about, tags=tags).checksum

    assert tagged.tags is not None
    others = [None, replace(tagged.tags, model="x"), replace(tagged.tags, checksum="1" * 64),
              replace(tagged.tags, names=tuple("abcde"))]  # fmt: skip
    assert len({tagged.checksum, *map(checksum, others)}) == 5
    assert checksum(tagged.tags) == tagged.checksum


def test_tags_can_be_replaced(tagged: Index, tmp_path: Path) -> None:
    shard = tagged.splits["val"].shards[0]
    fresh = np.full((len(shard.clips), 2), 0.25, np.float32)
    written = write_tagged(tagged, shard, fresh, tmp_path)
    assert written.name == shard.name and written.sha256 != shard.sha256
    index = replace(tagged, root=tmp_path, splits={"val": replace(tagged.splits["val"], shards=(written,))})
    members = read_members(index, "val", 3)
    assert decode_array(members["tags.npy"]).tolist() == [0.25, 0.25] and list(members)[:2] == [
        "json",
        "tags.npy",
    ]


def test_a_damaged_shard_is_not_copied(tiny: Index, tmp_path: Path) -> None:
    root = tmp_path / "shards"
    shutil.copytree(tiny.root, root)
    shard = tiny.splits["val"].shards[0]
    data = bytearray((root / shard.name).read_bytes())
    clip = shard.clips[-1]
    data[clip.offset + clip.size - 700] ^= 0xFF  # in the last clip's audio
    (root / shard.name).write_bytes(bytes(data))
    (tmp_path / "out").mkdir()
    with pytest.raises(ShardError, match=rf"{shard.name}: .*SHA-256"):
        write_tagged(replace(tiny, root=root), shard, np.zeros((len(shard.clips), 3)), tmp_path / "out")
    assert not any((tmp_path / "out").iterdir())
    with pytest.raises(ValueError, match=f"2 rows of tags for {len(shard.clips)} clips"):
        write_tagged(tiny, shard, np.zeros((2, 3)), tmp_path / "out")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (None, "no tags.npy; index.json promises 3 tags"),
        (npy(np.zeros(4, np.float32)), r"tags.npy is float32 \(4,\), expected float16 or float32 \(3,\)"),
        (npy(np.zeros((1, 3), np.float32)), r"\(1, 3\), expected"),
        (npy(np.zeros(3)), "tags.npy is float64"),
        (npy(np.array([0, 1.5, 0], np.float32)), "holds 0.0 to 1.5, expected 0 to 1"),
        (npy(np.array([0, np.nan, 0], np.float16)), "holds nan to nan"),
        (npy(np.array(["a", "b", "c"])), "expected plain numbers"),
        (b"not an array", "tags.npy: "),
    ],
)
def test_what_is_not_k_probabilities_is_refused_with_the_clips_name(data: bytes | None, message: str) -> None:
    with pytest.raises(ShardError, match=f"val-0.tar: clip a: .*{message}"):
        decode_tags({} if data is None else {"tags.npy": data}, 3, shard="val-0.tar", key="a")


def test_an_index_that_promises_tags_the_tars_do_not_hold_is_found_out(tiny: Index, tmp_path: Path) -> None:
    root = tmp_path / "shards"
    shutil.copytree(tiny.root, root)
    tagged_index(Index.load(root), tiny.splits, Tags(("a", "b"), "m", "0"), root).save()
    record = json.loads((root / "index.json").read_text())
    with pytest.raises(ShardError, match="no tags.npy; index.json promises 2 tags"):
        next(open_source(root, cache=None).eval_batches("val", 4))
    with pytest.raises(ShardError, match="no tags.npy; index.json promises 2 tags"):
        open_cached(Index.load(root), "val", tmp_path / "cache")
    record["tags"]["names"] = ["a", "a"]
    (root / "index.json").write_text(json.dumps(record))
    with pytest.raises(ShardError, match="must be distinct; repeated: a"):
        Index.load(root)
