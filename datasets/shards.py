"""Shard sets: tar files in WebDataset's layout and one index.json.

    SHARDS/index.json             written last: a folder without it is an unfinished preparation
    SHARDS/<split>-000000.tar …   one run of members per clip, all named after the clip's key:
        <key>.json                {"scene": str | null, "events": [names] | null, "location": str | null,
                                   "strong": [[onset s, offset s, name], …] | null};
                                  null = unknown, [] = known to hold no event; and "curated": false where
                                  nobody has checked the events (absent = not said, else true)
        <key>.flac or <key>.wav   the waveform, loudness untouched (.ogg and .mp3 are read too)
        <key>.tags.npy            a teacher's probabilities (K,) for the clip, float16 or float32; in every
                                  clip or in none
        <key>.frames.npy          optional, (T, E') the same for each frame

index.json holds `format` (1), `corpus`, `sample_rate` (Hz), `channels`, `samples` (the longest clip's),
`sample_type` ("int16" when every clip is 16-bit, else "float32"), `scenes` and `events` in index order,
`ignored_events` (absent = none; names in the clips' labels that a subset left out), `licence`, `citation`,
`dropped` ([{file, reason}]), `checksum`, `tags` (absent = none; {names, model, checksum}: the K names, and
the teacher they come from with the SHA-256 of its weights) and `splits`: {name: {clips, hours, shards:
[{name, bytes, sha256, clips: [[key, offset, size, samples], …]}]}}. `offset` and `size` are the bytes of all
members of a clip, tar headers included: that byte range is itself a tar stream. `checksum` is a SHA-256 over
the shards' SHA-256, the labels, the audio format and, where there are any, the tags: equal checksums mean
equal clips.

A key has no '.' (WebDataset cuts the key from the suffix there) and no '/'. A clip's number in its split is
its place in the index, shard after shard.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from datasets import storage
from datasets.flush import flush
from datasets.labels import LabelSpace
from datasets.members import CLIP_BYTES, ShardError, clip_members, expand_tar
from datasets.prefetch import map_ahead

FORMAT = 1
LABEL_HEAD = 4096
WAVEFORM_SAMPLES = 2**28
SAMPLE_TYPES = ("int16", "float32")


@dataclass(frozen=True)
class ClipLabels:
    """What is known of one clip. None = unknown; `events == ()` = known to hold none.

    `strong` holds (onset in s, offset in s, event name). `curated`: whether people have checked the events.
    """

    scene: str | None = None
    events: tuple[str, ...] | None = None
    strong: tuple[tuple[float, float, str], ...] | None = None
    location: str | None = None
    curated: bool | None = None

    def to_json(self) -> bytes:
        strong = None if self.strong is None else [list(span) for span in self.strong]
        events = None if self.events is None else list(self.events)
        record = {"scene": self.scene, "events": events, "strong": strong, "location": self.location}
        return json.dumps(record | ({} if self.curated is None else {"curated": self.curated})).encode()

    @staticmethod
    def from_json(data: bytes) -> ClipLabels:
        """Raises ValueError (or its subclasses) when `data` is not the JSON of the module's docstring."""
        try:
            record = json.loads(data)
        except ValueError as error:
            raise ValueError(f"its labels are not JSON: {error}") from error
        if not isinstance(record, dict):
            raise ValueError(f"labels are a JSON {type(record).__name__}, expected an object")
        events, strong = record.get("events"), record.get("strong")
        if not isinstance(events, list | None) or not isinstance(strong, list | None):
            raise ValueError("'events' and 'strong' must be lists or null")
        if not isinstance(curated := record.get("curated"), bool | None):
            raise ValueError(f"'curated' is {curated!r}, expected true, false or null")
        return ClipLabels(
            scene=record.get("scene"),
            events=None if events is None else tuple(events),
            strong=None if strong is None else tuple((float(a), float(b), name) for a, b, name in strong),
            location=record.get("location"),
            curated=curated,
        )


@dataclass(frozen=True)
class Tags:
    """What the K numbers in every clip's tags.npy are: probabilities of the events `names`, given by the
    model called `model` whose weights have the SHA-256 `checksum`."""

    names: tuple[str, ...]
    model: str
    checksum: str


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

    root: str | Path
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
    tags: Tags | None = None

    def __post_init__(self) -> None:
        """`labels.tags` are the tags these clips hold, whatever the label space was made from."""
        names = self.tags.names if self.tags else ()
        if self.labels.tags != names:
            object.__setattr__(self, "labels", replace(self.labels, tags=names))

    @staticmethod
    def load(root: str | Path) -> Index:
        """Read and check SHARDS/index.json, in a folder or at a URL (datasets.storage).

        Raises ShardError: no such folder, no index, another format, an index that can't be true, or a tar
        that is missing or has another size than the index says. Raises StorageError where that can't be
        known.
        """
        root = storage.parse(root)
        index = _parse(root, _read_index(root))
        _check_sizes(root, [shard for split in index.splits.values() for shard in split.shards])
        return index

    @property
    def place(self) -> str:
        """`root` for messages and records: absolute, and a URL without password and tokens."""
        return str(self.root.resolve()) if isinstance(self.root, Path) else storage.shown(self.root)

    def split(self, name: str) -> Split:
        if name not in self.splits:
            raise ShardError(
                f"{storage.shown(self.root)}: no split {name!r}; there are: {', '.join(self.splits)}"
            )
        return self.splits[name]

    def save(self) -> None:
        """Write index.json into a local folder, whole or not at all. Call it last: it is what makes the
        folder a shard set."""
        record = {
            "format": FORMAT,
            "corpus": self.corpus,
            "sample_rate": self.sample_rate,
            "channels": self.channels,
            "samples": self.samples,
            "sample_type": self.sample_type,
            "scenes": list(self.labels.scenes),
            "events": list(self.labels.events),
            "ignored_events": sorted(self.labels.ignored),
            "licence": self.licence,
            "citation": self.citation,
            "checksum": self.checksum,
            "splits": {name: _split_record(split) for name, split in self.splits.items()},
            "dropped": [{"file": file, "reason": reason} for file, reason in self.dropped],
        }
        if self.tags is not None:
            record["tags"] = asdict(self.tags)
        unnamed = Path(self.root) / f".index.json.{os.getpid()}"
        unnamed.write_text(json.dumps(record), encoding="utf-8")
        flush(unnamed)  # what has an index.json is complete, after a power cut too
        os.replace(unnamed, Path(self.root) / "index.json")


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
    tags: Tags | None = None,
) -> Index:
    """The index of freshly written `splits`, its longest clip and its checksum filled in. `save` it to finish
    the set."""
    if sample_type not in SAMPLE_TYPES:
        raise ValueError(f"sample type {sample_type!r} is not one of: {', '.join(SAMPLE_TYPES)}")
    samples = max((clip.samples for split in splits.values() for _, clip in split.entries()), default=0)
    index = Index(
        root, corpus, sample_rate, channels, samples, sample_type, labels, licence, citation, "",
        dict(splits), tuple(dropped), tags,
    )  # fmt: skip
    return replace(index, checksum=_checksum(index))


def _checksum(index: Index) -> str:
    """What `Index.checksum` is for a shard set as it was written."""
    identity: list[Any] = [index.sample_rate, index.channels, index.samples, index.sample_type]
    identity += [index.labels.scenes, index.labels.events]
    identity += [[name, [shard.sha256 for shard in split.shards]] for name, split in index.splits.items()]
    identity += [] if index.tags is None else [asdict(index.tags)]
    return hashlib.sha256(json.dumps(identity).encode()).hexdigest()


def read_members(index: Index, split: str, number: int) -> dict[str, bytes]:
    """The members of clip `number` of a split: {suffix: bytes}. For looking at one clip; training reads whole
    runs."""
    shard, clip = _entry(index, split, number)
    check_clip_size(shard, clip)
    data = storage.read_range(index.root, shard.name, clip.offset, clip.size)
    return clip_members(data, shard.name, clip.key)


def read_labels(index: Index, split: str) -> Iterator[ClipLabels]:
    """The labels of every clip of a split in order, without reading the audio."""
    connections = storage.CONNECTIONS if storage.is_remote(index.root) else 1
    yield from map_ahead(partial(_labels_of, index.root), index.split(split).entries(), connections)


def check_clip_size(shard: Shard, clip: Clip) -> None:
    """Raises ShardError for a clip that would take too much memory."""
    if clip.size > CLIP_BYTES:
        raise ShardError(f"{shard.name}: clip {clip.key} has {clip.size} bytes, the limit is {CLIP_BYTES}")


def _labels_of(root: str | Path, entry: tuple[Shard, Clip]) -> ClipLabels:
    """The labels come first in a clip, so its beginning is enough; where it is not, the rest is read too."""
    shard, clip = entry
    check_clip_size(shard, clip)
    for size in (min(clip.size, LABEL_HEAD), clip.size):
        head = io.BytesIO(storage.read_range(root, shard.name, clip.offset, size))
        try:
            for name, content in expand_tar(head, f"{shard.name}: clip {clip.key}", bufsize=512):
                if name == f"{clip.key}.json":
                    return ClipLabels.from_json(content)
        except ShardError:
            if size == clip.size:
                raise
        except (ValueError, TypeError) as error:
            raise ShardError(f"{shard.name}: clip {clip.key}: {error}") from error
    raise ShardError(f"{shard.name}: clip {clip.key} has no {clip.key}.json")


def _entry(index: Index, split: str, number: int) -> tuple[Shard, Clip]:
    left = number
    for shard in index.split(split).shards:
        if 0 <= left < len(shard.clips):
            return shard, shard.clips[left]
        left -= len(shard.clips)
    raise IndexError(f"split {split!r} has clips 0 to {index.split(split).clips - 1}, asked for {number}")


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


def _read_index(root: str | Path) -> dict[str, Any]:
    if isinstance(root, Path) and not root.is_dir():
        what = "a file, not a folder" if root.exists() else "no such folder"
        raise ShardError(f"{root}: {what}; expected a shard set made by `python -m datasets.prepare`")
    path = storage.shown(storage.join(root, "index.json"))
    try:
        record = json.loads(storage.read_bytes(root, "index.json").decode("utf-8"))
    except storage.NotFoundError as error:
        raise ShardError(
            f"{storage.shown(root)}: no index.json; an empty folder or an unfinished preparation, not a "
            "shard set"
        ) from error
    except (ValueError, RecursionError) as error:
        raise ShardError(f"{path}: not JSON: {error}") from error
    found = record.get("format") if isinstance(record, dict) else None
    if found != FORMAT:
        raise ShardError(f"{path}: format {found!r}, this version reads format {FORMAT}")
    return record


def _parse(root: str | Path, record: dict[str, Any]) -> Index:
    path = storage.shown(storage.join(root, "index.json"))
    try:
        index = Index(
            root=root,
            corpus=record["corpus"],
            sample_rate=int(record["sample_rate"]),
            channels=int(record["channels"]),
            samples=int(record["samples"]),
            sample_type=record["sample_type"],
            labels=LabelSpace(
                tuple(record["scenes"]), tuple(record["events"]), frozenset(record.get("ignored_events", ()))
            ),
            licence=record["licence"],
            citation=record["citation"],
            checksum=record["checksum"],
            splits={name: _parse_split(split) for name, split in record["splits"].items()},
            dropped=tuple((item["file"], item["reason"]) for item in record["dropped"]),
            tags=_parse_tags(record.get("tags")),
        )
        _check_index(index)
        return index
    except KeyError as error:
        raise ShardError(f"{path}: no field {error}") from error
    except ValueError as error:
        raise ShardError(f"{path}: {error}") from error
    except (TypeError, AttributeError, OverflowError) as error:
        raise ShardError(f"{path}: a field holds another kind of thing than it should: {error}") from error


def _parse_tags(record: dict[str, Any] | None) -> Tags | None:
    if record is None:
        return None
    names = LabelSpace((), tuple(record["names"])).events  # distinct, as they may become the event labels
    return Tags(names, record["model"], record["checksum"])


def _parse_split(record: dict[str, Any]) -> Split:
    shards = []
    for item in record["shards"]:
        if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9._-]*", item["name"]):
            raise ValueError(f"shard name {item['name']!r} leads out of the folder or is no file name")
        clips = tuple(Clip(key, int(offset), int(size), int(n)) for key, offset, size, n in item["clips"])
        shards.append(Shard(item["name"], int(item["bytes"]), item["sha256"], clips))
    listed = sum(len(shard.clips) for shard in shards)
    if listed != record["clips"]:
        raise ValueError(f"a split says {record['clips']} clips and lists {listed}")
    return Split(listed, float(record["hours"]), tuple(shards))


def _check_index(index: Index) -> None:
    """What an honest index.json can't say: it may come from anywhere, and names and sizes in it are used."""
    if index.sample_type not in SAMPLE_TYPES:
        raise ValueError(f"sample_type {index.sample_type!r} is not one of: {', '.join(SAMPLE_TYPES)}")
    for name in ("sample_rate", "channels"):
        if getattr(index, name) < 1:
            raise ValueError(f"{name} {getattr(index, name)}: at least 1")
    if not 0 <= index.samples * index.channels <= WAVEFORM_SAMPLES:
        raise ValueError(
            f"clips of {index.samples} samples and {index.channels} channel(s): the limit is "
            f"{WAVEFORM_SAMPLES} samples in all channels"
        )
    if not isinstance(index.checksum, str) or not re.fullmatch("[0-9a-f]{64}", index.checksum):
        raise ValueError("checksum is not a SHA-256 of 64 hexadecimal digits")
    for name, split in index.splits.items():
        if not re.fullmatch(r"[A-Za-z0-9_-]{1,64}", name):
            raise ValueError(f"split name {name!r}: expected letters, digits, '_' and '-'")
        keys: set[str] = set()
        for shard in split.shards:
            _check_clips(index, shard, keys)
    # The cache goes by it: with another set's, a run would be given that set's clips.
    if index.checksum != _checksum(index):
        raise ValueError(
            f"checksum {index.checksum[:16]}… is not that of the shards, labels and format listed, "
            f"{_checksum(index)[:16]}…: the index was changed after it was written"
        )


def _check_clips(index: Index, shard: Shard, keys: set[str]) -> None:
    """`keys` are those met before in the split."""
    end = 0
    for clip in shard.clips:
        where = f"{shard.name}: clip {clip.key!r}"
        if not isinstance(clip.key, str) or not clip.key or re.search(r"[./\\]", clip.key):
            raise ValueError(f"{where}: a key is text without '.' and '/'")
        if clip.key in keys:
            raise ValueError(f"{where} is listed twice")
        if clip.offset < end or clip.size < 1 or clip.offset + clip.size > shard.bytes:
            stretch = f"bytes {clip.offset} to {clip.offset + clip.size}"
            raise ValueError(f"{where}: {stretch} overlap another clip or lie outside of {shard.bytes} bytes")
        if not 0 <= clip.samples <= index.samples:
            raise ValueError(
                f"{where} has {clip.samples} samples; the longest is said to have {index.samples}"
            )
        keys.add(clip.key)
        end = clip.offset + clip.size


def _check_sizes(root: str | Path, shards: Sequence[Shard]) -> None:
    try:
        found = storage.sizes(root, [shard.name for shard in shards])
    except storage.NotFoundError as error:
        raise ShardError(
            f"{str(error).removesuffix(': no such file')}: missing; index.json lists it"
        ) from error
    for shard, size in zip(shards, found):
        if size is not None and size != shard.bytes:
            state = "truncated" if size < shard.bytes else "changed"
            path = storage.shown(storage.join(root, shard.name))
            raise ShardError(f"{path}: {state}: {size} bytes there, {shard.bytes} in index.json")
