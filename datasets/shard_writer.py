"""Shards on their way to the disk: each tar and each set is there whole or not at all."""

from __future__ import annotations

import errno
import hashlib
import io
import os
import re
import shutil
import tarfile
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from datasets.members import ShardError, clip_members
from datasets.shards import Clip, ClipLabels, Index, Shard, Split, Tags, make_index

SHARD_BYTES = 64 * 2**20
KEY_LENGTH = 120


@dataclass(frozen=True)
class Sample:
    """One clip on its way into a shard: `audio` is an encoded file of `samples` samples per channel."""

    key: str
    audio: bytes
    extension: str
    samples: int
    labels: ClipLabels


class ShardWriter:
    """Writes one split, shard after shard; each tar appears under its name only when it is whole.

    `done` are the split's first shards, written before; `on_shard` is told of every new one.
    """

    def __init__(
        self,
        folder: Path,
        split: str,
        sample_rate: int,
        shard_bytes: int = SHARD_BYTES,
        *,
        done: Sequence[Shard] = (),
        on_shard: Callable[[Shard], None] | None = None,
    ) -> None:
        self._folder, self._split, self._sample_rate, self._shard_bytes = (
            folder,
            split,
            sample_rate,
            shard_bytes,
        )
        self._shards: list[Shard] = list(done)
        self._on_shard = on_shard
        self._clips: list[Clip] = []
        self._keys: set[str] = {clip.key for shard in done for clip in shard.clips}
        self._tar: tarfile.TarFile | None = None

    def add(self, sample: Sample) -> None:
        """Raises ValueError for a key that holds '.' or '/' or was used before in this split."""
        tar = self._begin_clip(sample.key)
        start = tar.offset
        # The labels come first, so that they can be read without the audio.
        _add_member(tar, f"{sample.key}.json", sample.labels.to_json())
        _add_member(tar, f"{sample.key}.{sample.extension}", sample.audio)
        self._end_clip(Clip(sample.key, start, tar.offset - start, sample.samples))

    def copy(self, clip: Clip, data: bytes, shard: str) -> None:
        """Add a clip as it lies in another shard, `data` its byte range there. Raises ShardError where that
        does not hold the clip."""
        clip_members(data, shard, clip.key)
        if len(data) != clip.size:
            raise ShardError(
                f"{shard}: clip {clip.key} has {len(data)} of the {clip.size} bytes in the index"
            )
        tar = self._begin_clip(clip.key)
        start = tar.offset
        tar.fileobj.write(data)
        tar.offset += len(data)
        self._end_clip(Clip(clip.key, start, len(data), clip.samples))

    def close(self) -> Split:
        self._finish_shard()
        total = sum(clip.samples for shard in self._shards for clip in shard.clips)
        count = sum(len(shard.clips) for shard in self._shards)
        return Split(count, total / self._sample_rate / 3600, tuple(self._shards))

    def _begin_clip(self, key: str) -> tarfile.TarFile:
        if not key or "." in key or "/" in key or key in self._keys:
            raise ValueError(
                f"clip key {key!r}: must be new, not empty, and without '.' and '/'; see clip_key"
            )
        self._keys.add(key)
        if self._tar is None:
            self._tar = tarfile.open(self._partial, "w")  # noqa: SIM115 - open until the shard is full
        return self._tar

    def _end_clip(self, clip: Clip) -> None:
        self._clips.append(clip)
        if self._tar is not None and self._tar.offset >= self._shard_bytes:
            self._finish_shard()

    @property
    def _partial(self) -> Path:
        return self._folder / f".{self._split}-{len(self._shards):06d}.tar.{os.getpid()}"

    def _finish_shard(self) -> None:
        if self._tar is None:
            return
        self._tar.close()
        name = f"{self._split}-{len(self._shards):06d}.tar"
        self._shards.append(_named(self._partial, self._folder / name, self._clips))
        self._clips, self._tar = [], None
        if self._on_shard is not None:
            self._on_shard(self._shards[-1])


def write_shard(folder: Path, name: str, clips: Iterable[tuple[Clip, Mapping[str, bytes]]]) -> Shard:
    """One tar of members {suffix: bytes} as they are, in the order given; `offset` and `size` of the clips
    that come in are not looked at. The tar appears under its name only when it is whole."""
    partial, written = folder / f".{name}.{os.getpid()}", []
    try:
        with tarfile.open(partial, "w") as tar:
            for clip, members in clips:
                start = tar.offset
                for suffix, data in members.items():
                    _add_member(tar, f"{clip.key}.{suffix}", data)
                written.append(Clip(clip.key, start, tar.offset - start, clip.samples))
        return _named(partial, folder / name, written)
    finally:
        partial.unlink(missing_ok=True)  # not there any more when all went well


def _named(partial: Path, path: Path, clips: Sequence[Clip]) -> Shard:
    """Give a finished tar its name; what the index says of it."""
    with open(partial, "rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    os.replace(partial, path)
    return Shard(path.name, path.stat().st_size, digest, tuple(clips))


def rewritten_index(
    index: Index,
    splits: Mapping[str, Split],
    folder: Path,
    *,
    tags: Tags | None,
    dropped: Iterable[tuple[str, str]] = (),
) -> Index:
    """The index of `splits` written into `folder` from the clips of `index`; its notices are copied where it
    is local. `save` it."""
    if isinstance(index.root, Path):
        for notice in sorted([*index.root.glob("LICEN[SC]E*"), *index.root.glob("EULA*")]):
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
        dropped=dropped,
        tags=tags,
    )


def write_split(
    folder: Path,
    split: str,
    samples: Iterable[Sample],
    sample_rate: int,
    shard_bytes: int = SHARD_BYTES,
    *,
    done: Sequence[Shard] = (),
    on_shard: Callable[[Shard], None] | None = None,
) -> Split:
    """Write `samples` in the order given, after the shards `done` of the same split. The streaming reader
    mixes clips that lie near each other, so give them shuffled."""
    writer = ShardWriter(folder, split, sample_rate, shard_bytes, done=done, on_shard=on_shard)
    for sample in samples:
        writer.add(sample)
    return writer.close()


def check_unused(out: Path) -> None:
    """Raises FileExistsError unless `out` is an empty folder or nothing yet, NotADirectoryError if it can't
    become one."""
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise FileExistsError(f"{out} exists and is not an empty folder; give another --out or delete it")
    check_no_file(out)


def check_no_file(out: Path) -> None:
    """Raises NotADirectoryError where a file stands in the way of a folder `out`."""
    if files := [place for place in (out, *out.parents) if place.is_file()]:
        raise NotADirectoryError(f"--out {out}: {files[0]} is a file, not a folder")


@contextmanager
def unfinished(out: Path) -> Iterator[Path]:
    """A folder beside `out` to write a shard set into. It gets the name `out` when the block ends well and is
    deleted when it does not; what a killed process leaves is named .<out>-*.unfinished.

    Raises FileExistsError when `out` is in use, OSError when the disk fills up.
    """
    check_unused(out)
    out.parent.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix=f".{out.name}-", suffix=".unfinished", dir=out.parent))
    try:
        yield folder
        folder.chmod(0o755)
        folder.replace(out)
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise OSError(f"{out.parent}: the disk is full; nothing of the shards was kept") from error
        raise
    finally:
        shutil.rmtree(folder, ignore_errors=True)  # not there any more when all went well


def clip_key(path: str) -> str:
    """A file's name as a key: its stem with everything but letters, digits, '_' and '-' replaced by '_'."""
    stem = re.sub(r"\.[^./]*$", "", path.replace("\\", "/").rstrip("/").rsplit("/", 1)[-1])
    return re.sub(r"[^A-Za-z0-9_-]", "_", stem)[:KEY_LENGTH] or "_"


def unique_keys(paths: Iterable[str]) -> list[str]:
    """One key for each path, all different: a key met before gets -2, -3 … appended."""
    taken: set[str] = set()
    keys = []
    for path in paths:
        stem = key = clip_key(path)
        count = 1
        while key in taken:
            count += 1
            key = f"{stem}-{count}"
        taken.add(key)
        keys.append(key)
    return keys


def _add_member(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    # A bare TarInfo has no owner and time 0, so the same clips give the same bytes.
    member = tarfile.TarInfo(name)
    member.size = len(data)
    tar.addfile(member, io.BytesIO(data))
