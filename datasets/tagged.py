"""The same shard set with a teacher's tags in every clip.

Shards keep their names, clips their order; labels and audio are copied byte for byte, after the check that
the bytes read are the ones the index promises. Tags that were there before are replaced.
"""

from __future__ import annotations

import io
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

from datasets.cache import shard_members
from datasets.shards import Clip, Index, Shard, Split, Tags, make_index, write_shard


def write_tagged(index: Index, shard: Shard, tags: np.ndarray, folder: Path) -> Shard:
    """Write `shard` into `folder` with tags (clips, K) float16 or float32, a row for each clip.

    Raises ShardError where the shard is not what the index says, OSError when the disk fills up.
    """
    if len(tags) != len(shard.clips):
        raise ValueError(f"{shard.name}: {len(tags)} rows of tags for {len(shard.clips)} clips")

    def clips() -> Iterator[tuple[Clip, Mapping[str, bytes]]]:
        # The members first: their end is where the shard's SHA-256 is checked.
        for (_, clip, members), row in zip(shard_members(index.root, shard), tags):
            rest = {suffix: data for suffix, data in members.items() if suffix not in ("json", "tags.npy")}
            yield clip, {"json": members["json"], "tags.npy": _npy(row), **rest}

    return write_shard(folder, shard.name, clips())


def tagged_index(index: Index, splits: Mapping[str, Split], tags: Tags, folder: Path) -> Index:
    """The index of the tagged shards in `folder`, which gets the corpus's notices too. `save` it."""
    for notice in sorted([*Path(index.root).glob("LICEN[SC]E*"), *Path(index.root).glob("EULA*")]):
        shutil.copyfile(notice, folder / notice.name)
    return make_index(
        folder,
        splits,
        corpus=index.corpus,
        sample_rate=index.sample_rate,
        channels=index.channels,
        sample_type=index.sample_type,
        labels=index.labels,
        licence=index.licence,
        citation=index.citation,
        dropped=index.dropped,
        tags=tags,
    )


def _npy(array: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, np.ascontiguousarray(array), allow_pickle=False)
    return file.getvalue()
