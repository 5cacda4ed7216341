"""The same shard set with a teacher's tags in every clip.

Shards keep their names, clips their order; labels and audio are copied byte for byte, after the check that
the bytes read are the ones the index promises. Tags that were there before are replaced.
"""

from __future__ import annotations

import errno
import hashlib
import io
import json
import os
import shutil
import tarfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import astuple, replace
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from filelock import FileLock, Timeout

from datasets.cache import shard_members
from datasets.decode import decode_tags
from datasets.members import ARRAY_BYTES
from datasets.shard_writer import check_unused, rewritten_index, write_shard
from datasets.shards import Clip, Index, Shard, ShardError, Split, Tags


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
    return rewritten_index(index, splits, folder, tags=tags, dropped=index.dropped)


def read_tags(index: Index, split: str) -> np.ndarray:
    """(N, K) float32, the tags of a split in a local folder, in the clips' order; the audio is not read."""
    if index.tags is None:
        raise ShardError(f"{index.root}: this shard set has no tags")
    count = len(index.tags.names)
    rows = []
    for shard in index.split(split).shards:
        with open(Path(index.root) / shard.name, "rb") as file:
            for clip in shard.clips:
                members = {"tags.npy": found} if (found := _tags_member(file, shard, clip)) else {}
                rows.append(decode_tags(members, count, shard=shard.name, key=clip.key))
    return np.array(rows, dtype=np.float32).reshape(-1, count)


def _tags_member(file: BinaryIO, shard: Shard, clip: Clip) -> bytes:
    """A clip's tags.npy, found by the members' headers; b"" where there is none."""
    file.seek(clip.offset)
    try:
        with tarfile.open(fileobj=file, mode="r:") as tar:
            while (member := tar.next()) and member.name.startswith(f"{clip.key}."):
                if member.name == f"{clip.key}.tags.npy" and (content := tar.extractfile(member)):
                    return content.read(ARRAY_BYTES)
    except tarfile.TarError as error:
        raise ShardError(f"{shard.name}: clip {clip.key}: not a readable tar: {error}") from error
    return b""


class Unfinished:
    """A tagged shard set in the making, which can be gone on with: a hidden folder beside `out` that gets its
    name when the block ends well, and stays when it does not and holds a finished shard.

        .<out>.tagging/asked.json    what was asked; going on with anything else is refused
                       done.jsonl    a line for each finished shard
                       <shards>
        .<out>.tagging.lock          held while a process writes

    Raises FileExistsError when `out` is in use or an earlier attempt is there and `resume` is False,
    ValueError when that attempt was asked something else, OSError with what to do when the disk is full.
    """

    def __init__(self, out: Path, asked: Mapping[str, Any], *, resume: bool) -> None:
        self.out, self.folder = out, out.parent / f".{out.name}.tagging"
        self._asked, self._resume = dict(asked), resume
        self._lock = FileLock(out.parent / f".{out.name}.tagging.lock", timeout=0)
        self._done: dict[tuple[str, int], Shard] = {}

    def __enter__(self) -> Unfinished:
        check_unused(self.out)
        self.out.parent.mkdir(parents=True, exist_ok=True)
        try:
            self._lock.acquire()
        except Timeout as error:
            raise FileExistsError(f"{self.out}: another process is making it") from error
        try:
            self._begin()
        except BaseException:
            self._lock.release()
            raise
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: object) -> None:
        try:
            if error is None:
                for name in ("asked.json", "done.jsonl"):
                    (self.folder / name).unlink(missing_ok=True)
                self.folder.replace(self.out)
                Path(self._lock.lock_file).unlink(missing_ok=True)
                return
            if not self._done:
                shutil.rmtree(self.folder, ignore_errors=True)
                Path(self._lock.lock_file).unlink(missing_ok=True)
            if isinstance(error, OSError) and error.errno == errno.ENOSPC:
                kept = f"{len(self._done)} finished shards are kept in {self.folder}; make room and go on "
                raise OSError(
                    f"{self.out.parent}: the disk is full; "
                    + (f"{kept}with --resume" if self._done else "nothing was kept")
                ) from error
        finally:
            self._lock.release()

    def has(self, split: str, number: int) -> bool:
        """Whether that shard is finished."""
        return (split, number) in self._done

    def keep(self, split: str, number: int, shard: Shard) -> None:
        """Note a shard that was written into `folder`."""
        clips = [list(astuple(clip)) for clip in shard.clips]
        record = {"split": split, "number": number, "name": shard.name, "bytes": shard.bytes}
        with open(self.folder / "done.jsonl", "a") as log:
            log.write(json.dumps(record | {"sha256": shard.sha256, "clips": clips}) + "\n")
            log.flush()
            os.fsync(log.fileno())
        self._done[split, number] = shard

    def splits(self, index: Index, names: Iterable[str]) -> dict[str, Split]:
        """The finished splits, shards in the order of `index`."""
        return {
            name: replace(
                index.splits[name],
                shards=tuple(self._done[name, number] for number in range(len(index.splits[name].shards))),
            )
            for name in names
        }

    def _begin(self) -> None:
        asked = self.folder / "asked.json"
        if self.folder.exists() and not self._resume:
            raise FileExistsError(
                f"{self.folder}: an earlier attempt was stopped there; go on with --resume, or delete it"
            )
        self.folder.mkdir(exist_ok=True)
        for partial in self.folder.glob(".*"):  # tars and records that a kill cut off: we hold the lock
            partial.unlink()
        if not asked.is_file():
            fresh = self.folder / ".asked.json"
            fresh.write_text(json.dumps(self._asked))
            os.replace(fresh, asked)
        before = json.loads(asked.read_text())
        for name, value in self._asked.items():
            if before.get(name) != value:
                raise ValueError(
                    f"--resume: {self.folder} was begun with {name} {before.get(name)!s:.60}, now it is "
                    f"{value!s:.60}"
                )
        for line in _lines(self.folder / "done.jsonl"):
            shard = Shard(line["name"], line["bytes"], line["sha256"], tuple(Clip(*c) for c in line["clips"]))
            if _intact(self.folder, shard):
                self._done[line["split"], line["number"]] = shard


def _lines(path: Path) -> list[dict[str, Any]]:
    """The lines of a log; a last one torn by a kill is cut off."""
    whole = path.read_text().splitlines(keepends=True) if path.is_file() else []
    if whole and not whole[-1].endswith("\n"):
        path.write_text("".join(whole[:-1]))
        whole = whole[:-1]
    return [json.loads(line) for line in whole]


def _intact(folder: Path, shard: Shard) -> bool:
    try:
        with open(folder / shard.name, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest() == shard.sha256
    except FileNotFoundError:
        return False


def _npy(array: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, np.ascontiguousarray(array), allow_pickle=False)
    return file.getvalue()
