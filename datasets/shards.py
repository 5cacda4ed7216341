"""Shard sets: tar files in WebDataset's layout and one index.json.

    SHARDS/index.json             written last: a folder without it is an unfinished preparation
    SHARDS/<split>-000000.tar …   one run of members per clip, all named after the clip's key:
        <key>.json                {"scene": str | null, "events": [names] | null, "location": str | null,
                                   "strong": [[onset s, offset s, name], …] | null};
                                  null = unknown, [] = known to hold no event
        <key>.flac or <key>.wav   the waveform, loudness untouched (.ogg and .mp3 are read too)
        <key>.tags.npy            optional, (E',) a teacher's probabilities for the clip
        <key>.frames.npy          optional, (T, E') the same for each frame

index.json holds `format` (1), `corpus`, `sample_rate` (Hz), `channels`, `samples` (the longest clip's),
`sample_type` ("int16" when every clip is 16-bit, else "float32"), `scenes` and `events` in index order,
`licence`, `citation`, `dropped` ([{file, reason}]), `checksum` and `splits`: {name: {clips, hours, shards:
[{name, bytes, sha256, clips: [[key, offset, size, samples], …]}]}}. `offset` and `size` are the bytes of all
members of a clip, tar headers included: that byte range is itself a tar stream. `checksum` is a SHA-256 over
the shards' SHA-256, the labels and the audio format: equal checksums mean equal clips.

A key has no '.' (WebDataset cuts the key from the suffix there) and no '/'. A clip's number in its split is
its place in the index, shard after shard.
"""

from __future__ import annotations

import errno
import hashlib
import io
import json
import os
import re
import shutil
import tarfile
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from datasets.labels import LabelSpace

FORMAT = 1
SHARD_BYTES = 64 * 2**20
KEY_LENGTH = 120
SAMPLE_TYPES = ("int16", "float32")


class ShardError(ValueError):
    """A shard set that is missing, unfinished, damaged or not what its index says. The message is one
    line."""


@dataclass(frozen=True)
class ClipLabels:
    """What is known of one clip. None = unknown; `events == ()` = known to hold none.

    `strong` holds (onset in s, offset in s, event name).
    """

    scene: str | None = None
    events: tuple[str, ...] | None = None
    strong: tuple[tuple[float, float, str], ...] | None = None
    location: str | None = None

    def to_json(self) -> bytes:
        strong = None if self.strong is None else [list(span) for span in self.strong]
        events = None if self.events is None else list(self.events)
        return json.dumps(
            {"scene": self.scene, "events": events, "strong": strong, "location": self.location}
        ).encode()

    @staticmethod
    def from_json(data: bytes) -> ClipLabels:
        """Raises ValueError (or its subclasses) when `data` is not the JSON of the module's docstring."""
        record = json.loads(data)
        if not isinstance(record, dict):
            raise ValueError(f"labels are a JSON {type(record).__name__}, expected an object")
        events, strong = record.get("events"), record.get("strong")
        if not isinstance(events, list | None) or not isinstance(strong, list | None):
            raise ValueError("'events' and 'strong' must be lists or null")
        return ClipLabels(
            scene=record.get("scene"),
            events=None if events is None else tuple(events),
            strong=None if strong is None else tuple((float(a), float(b), name) for a, b, name in strong),
            location=record.get("location"),
        )


@dataclass(frozen=True)
class Sample:
    """One clip on its way into a shard: `audio` is an encoded file of `samples` samples per channel."""

    key: str
    audio: bytes
    extension: str
    samples: int
    labels: ClipLabels


@dataclass(frozen=True)
class Clip:
    key: str
    offset: int
    size: int
    samples: int


@dataclass(frozen=True)
class Shard:
    name: str
    bytes: int
    sha256: str
    clips: tuple[Clip, ...]


@dataclass(frozen=True)
class Split:
    """`clips` is their number, `hours` their duration."""

    clips: int
    hours: float
    shards: tuple[Shard, ...]

    def entries(self) -> Iterator[tuple[Shard, Clip]]:
        """Every clip with its shard, in the order of the clips' numbers."""
        for shard in self.shards:
            for clip in shard.clips:
                yield shard, clip


@dataclass(frozen=True)
class Index:
    """What index.json says of the shard set at `root`."""

    root: Path
    corpus: str
    sample_rate: int
    channels: int
    samples: int
    sample_type: str
    labels: LabelSpace
    licence: str
    citation: str
    checksum: str
    splits: Mapping[str, Split]
    dropped: tuple[tuple[str, str], ...] = ()

    @staticmethod
    def load(root: str | Path) -> Index:
        """Read and check SHARDS/index.json. Raises ShardError: no such folder, no index, another format, or a
        tar that is missing or has another size than the index says."""
        root = Path(root)
        index = _parse(root, _read_index(root))
        for split in index.splits.values():
            for shard in split.shards:
                _check_size(root, shard)
        return index

    def split(self, name: str) -> Split:
        if name not in self.splits:
            raise ShardError(f"{self.root}: no split {name!r}; there are: {', '.join(self.splits)}")
        return self.splits[name]

    def save(self) -> None:
        """Write index.json, whole or not at all. Call it last: it is what makes the folder a shard set."""
        record = {
            "format": FORMAT,
            "corpus": self.corpus,
            "sample_rate": self.sample_rate,
            "channels": self.channels,
            "samples": self.samples,
            "sample_type": self.sample_type,
            "scenes": list(self.labels.scenes),
            "events": list(self.labels.events),
            "licence": self.licence,
            "citation": self.citation,
            "checksum": self.checksum,
            "splits": {name: _split_record(split) for name, split in self.splits.items()},
            "dropped": [{"file": file, "reason": reason} for file, reason in self.dropped],
        }
        partial = self.root / f".index.json.{os.getpid()}"
        partial.write_text(json.dumps(record), encoding="utf-8")
        os.replace(partial, self.root / "index.json")


def make_index(
    root: Path,
    splits: Mapping[str, Split],
    *,
    corpus: str,
    sample_rate: int,
    channels: int,
    sample_type: str,
    labels: LabelSpace,
    licence: str,
    citation: str,
    dropped: Iterable[tuple[str, str]] = (),
) -> Index:
    """The index of freshly written `splits`, its longest clip and its checksum filled in. `save` it to finish
    the set."""
    if sample_type not in SAMPLE_TYPES:
        raise ValueError(f"sample type {sample_type!r} is not one of: {', '.join(SAMPLE_TYPES)}")
    samples = max((clip.samples for split in splits.values() for _, clip in split.entries()), default=0)
    identity = [sample_rate, channels, samples, sample_type, labels.scenes, labels.events]
    identity += [[name, [shard.sha256 for shard in split.shards]] for name, split in splits.items()]
    checksum = hashlib.sha256(json.dumps(identity).encode()).hexdigest()
    return Index(
        root, corpus, sample_rate, channels, samples, sample_type, labels, licence, citation, checksum,
        dict(splits), tuple(dropped),
    )  # fmt: skip


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
        if not sample.key or "." in sample.key or "/" in sample.key or sample.key in self._keys:
            raise ValueError(
                f"clip key {sample.key!r}: must be new, not empty, and without '.' and '/'; see clip_key"
            )
        self._keys.add(sample.key)
        if self._tar is None:
            self._tar = tarfile.open(self._partial, "w")  # noqa: SIM115 - open until the shard is full
        start = self._tar.offset
        # The labels come first, so that they can be read without the audio.
        _add_member(self._tar, f"{sample.key}.json", sample.labels.to_json())
        _add_member(self._tar, f"{sample.key}.{sample.extension}", sample.audio)
        self._clips.append(Clip(sample.key, start, self._tar.offset - start, sample.samples))
        if self._tar.offset >= self._shard_bytes:
            self._finish_shard()

    def close(self) -> Split:
        self._finish_shard()
        total = sum(clip.samples for shard in self._shards for clip in shard.clips)
        count = sum(len(shard.clips) for shard in self._shards)
        return Split(count, total / self._sample_rate / 3600, tuple(self._shards))

    @property
    def _partial(self) -> Path:
        return self._folder / f".{self._split}-{len(self._shards):06d}.tar.{os.getpid()}"

    def _finish_shard(self) -> None:
        if self._tar is None:
            return
        self._tar.close()
        partial, name = self._partial, f"{self._split}-{len(self._shards):06d}.tar"
        with open(partial, "rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        os.replace(partial, self._folder / name)
        size = (self._folder / name).stat().st_size
        self._shards.append(Shard(name, size, digest, tuple(self._clips)))
        self._clips, self._tar = [], None
        if self._on_shard is not None:
            self._on_shard(self._shards[-1])


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
    """Raises FileExistsError unless `out` is an empty folder or nothing yet."""
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise FileExistsError(f"{out} exists and is not an empty folder; give another --out or delete it")


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


class ByteRange(io.RawIOBase):
    """The bytes [offset, offset + size) of an open file; what lies beyond does not exist for its reader. See
    `byte_range`."""

    def __init__(self, file: BinaryIO, offset: int, size: int) -> None:
        file.seek(offset)
        self._file, self._left = file, size

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer)[: self._left]
        count = self._file.readinto(view)  # type: ignore[attr-defined]
        self._left -= count
        return count


def byte_range(file: BinaryIO, offset: int, size: int, buffer_bytes: int = 2**16) -> io.BufferedReader:
    """A stretch of an unbuffered file as a stream of its own."""
    return io.BufferedReader(ByteRange(file, offset, size), buffer_bytes)


def read_members(index: Index, split: str, number: int) -> dict[str, bytes]:
    """The members of clip `number` of a split: {suffix: bytes}. For looking at one clip; training reads whole
    runs."""
    shard, clip = _entry(index, split, number)
    with open(index.root / shard.name, "rb", buffering=0) as file:
        with tarfile.open(fileobj=byte_range(file, clip.offset, clip.size), mode="r|") as tar:
            return {m.name.split(".", 1)[1]: _content(tar, m) for m in tar if m.isreg() and "." in m.name}


def read_labels(index: Index, split: str) -> Iterator[ClipLabels]:
    """The labels of every clip of a split in order, without reading the audio."""
    for shard in index.split(split).shards:
        with open(index.root / shard.name, "rb", buffering=0) as file:
            for clip in shard.clips:
                yield _labels_of(file, shard, clip)


def _labels_of(file: BinaryIO, shard: Shard, clip: Clip) -> ClipLabels:
    try:
        stream = byte_range(file, clip.offset, clip.size, 4096)
        with tarfile.open(fileobj=stream, mode="r|", bufsize=4096) as tar:
            for member in tar:
                if member.name == f"{clip.key}.json":
                    return ClipLabels.from_json(_content(tar, member))
    except (tarfile.TarError, ValueError, TypeError) as error:
        raise ShardError(f"{shard.name}: clip {clip.key}: {error}") from error
    raise ShardError(f"{shard.name}: clip {clip.key} has no {clip.key}.json")


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


def _entry(index: Index, split: str, number: int) -> tuple[Shard, Clip]:
    left = number
    for shard in index.split(split).shards:
        if 0 <= left < len(shard.clips):
            return shard, shard.clips[left]
        left -= len(shard.clips)
    raise IndexError(f"split {split!r} has clips 0 to {index.split(split).clips - 1}, asked for {number}")


def _add_member(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    # A bare TarInfo has no owner and time 0, so the same clips give the same bytes.
    member = tarfile.TarInfo(name)
    member.size = len(data)
    tar.addfile(member, io.BytesIO(data))


def _content(tar: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    file = tar.extractfile(member)
    return b"" if file is None else file.read()


def _split_record(split: Split) -> dict[str, Any]:
    shards = [
        {
            "name": shard.name,
            "bytes": shard.bytes,
            "sha256": shard.sha256,
            "clips": [[clip.key, clip.offset, clip.size, clip.samples] for clip in shard.clips],
        }
        for shard in split.shards
    ]
    return {"clips": split.clips, "hours": split.hours, "shards": shards}


def _read_index(root: Path) -> dict[str, Any]:
    path = root / "index.json"
    if not root.is_dir():
        raise ShardError(f"{root}: no such folder; expected a shard set made by `python -m datasets.prepare`")
    if not path.is_file():
        raise ShardError(
            f"{root}: no index.json; an empty folder or an unfinished preparation, not a shard set"
        )
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ShardError(f"{path}: not JSON: {error}") from error
    found = record.get("format") if isinstance(record, dict) else None
    if found != FORMAT:
        raise ShardError(f"{path}: format {found!r}, this version reads format {FORMAT}")
    return record


def _parse(root: Path, record: dict[str, Any]) -> Index:
    try:
        return Index(
            root=root,
            corpus=record["corpus"],
            sample_rate=int(record["sample_rate"]),
            channels=int(record["channels"]),
            samples=int(record["samples"]),
            sample_type=record["sample_type"],
            labels=LabelSpace(tuple(record["scenes"]), tuple(record["events"])),
            licence=record["licence"],
            citation=record["citation"],
            checksum=record["checksum"],
            splits={name: _parse_split(split) for name, split in record["splits"].items()},
            dropped=tuple((item["file"], item["reason"]) for item in record["dropped"]),
        )
    except KeyError as error:
        raise ShardError(f"{root / 'index.json'}: no field {error}") from error
    except (TypeError, ValueError, AttributeError) as error:
        raise ShardError(f"{root / 'index.json'}: {error}") from error


def _parse_split(record: dict[str, Any]) -> Split:
    shards = []
    for item in record["shards"]:
        if "/" in item["name"] or "\\" in item["name"]:
            raise ValueError(f"shard name {item['name']!r} leads out of the folder")
        clips = tuple(Clip(key, int(offset), int(size), int(n)) for key, offset, size, n in item["clips"])
        shards.append(Shard(item["name"], int(item["bytes"]), item["sha256"], clips))
    listed = sum(len(shard.clips) for shard in shards)
    if listed != record["clips"]:
        raise ValueError(f"a split says {record['clips']} clips and lists {listed}")
    return Split(listed, float(record["hours"]), tuple(shards))


def _check_size(root: Path, shard: Shard) -> None:
    path = root / shard.name
    if not path.is_file():
        raise ShardError(f"{path}: missing; index.json lists it with {shard.bytes} bytes")
    size = path.stat().st_size
    if size != shard.bytes:
        state = "truncated" if size < shard.bytes else "changed"
        raise ShardError(f"{path}: {state}: {size} bytes on disk, {shard.bytes} in index.json")
