"""Decode once per node: a split's waveforms as one memory-mapped file that all trials on the node share.

    CACHE/<corpus>-<checksum>/<split>/waveforms.npy   (N, C, samples) int16 or float32, zero-padded
                                      scene.npy (N, S)  events.npy (N, E)  event_known.npy (N, E)   float32
                                      tags.npy (N, K) float32, where the shard set has tags
                                      curated.npy (N,) float32, where not all are 1
    CACHE/<corpus>-<checksum>/<split>.lock            held while the split is being built

A split is built in a folder of another name, with every shard's SHA-256 checked on the way, and renamed when
it is whole and on the disk: what has the right name is complete. The key is the shard set's checksum, so a
changed set never meets an old cache.
"""

from __future__ import annotations

import errno
import hashlib
import itertools
import os
import re
import shutil
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.lib import format as npy
from torch import Tensor

from datasets import storage
from datasets.batch import Batch
from datasets.flush import flush
from datasets.members import ShardError, clip_members
from datasets.prefetch import map_ahead
from datasets.shards import Clip, ClipLabels, Index, Shard, Split, check_clip_size
from datasets.waits import alone

INT16_SCALE = 1.0 / 32768.0
RESIDENT_FRACTION = 0.25
READ_BYTES = 2**20
NAMES = ("waveforms", "scene", "events", "event_known")


class CacheError(OSError):
    """The cache can't be used: no room, no permission, or a damaged file. Streaming still works."""


@dataclass(frozen=True)
class CachedSplit:
    """N clips.

    waveforms             (N, C, samples) int16 or float32
    scene                 (N, S) float32
    events, event_known   (N, E) float32
    tags                  (N, K) float32
    curated               (N,) float32
    """

    waveforms: Tensor
    scene: Tensor
    events: Tensor
    event_known: Tensor
    tags: Tensor
    curated: Tensor

    def __len__(self) -> int:
        return self.waveforms.shape[0]

    @property
    def bytes(self) -> int:
        return sum(getattr(self, field.name).nbytes for field in fields(self))

    def to(self, device: str) -> CachedSplit:
        return CachedSplit(*(getattr(self, field.name).to(device) for field in fields(self)))

    def batches(self, clips: Iterable[Tensor], device: str) -> Iterator[Batch]:
        """A batch on `device` for each (B,) int64 of clip numbers; 16-bit becomes float in [-1, 1)."""
        for numbers in clips:
            at = numbers.to(self.waveforms.device)
            here = device == "cpu" and not at.is_cuda
            waveform = self._rows(numbers.tolist()) if here else self._selected(at, device)
            kept = (self.scene, self.events, self.event_known, self.tags, self.curated)
            scene, events, known, tags, curated = (t.index_select(0, at).to(device) for t in kept)
            yield Batch(waveform, scene, events, known, numbers.to(device), tags, curated=curated)

    def _rows(self, numbers: list[int]) -> Tensor:
        """Row by row, so that each sample is touched once."""
        waveform = torch.empty(len(numbers), *self.waveforms.shape[1:])
        for row, number in enumerate(numbers):
            if self.waveforms.dtype == torch.int16:
                torch.mul(self.waveforms[number], INT16_SCALE, out=waveform[row])
            else:
                waveform[row].copy_(self.waveforms[number])
        return waveform

    def _selected(self, at: Tensor, device: str) -> Tensor:
        waveform = self.waveforms.index_select(0, at).to(device, non_blocking=True)
        return waveform if waveform.is_floating_point() else waveform.to(torch.float32).mul_(INT16_SCALE)


def open_cached(index: Index, split: str, cache: Path, threads: int = 1) -> CachedSplit:
    """The split from the cache, built first if it is not there. Of several processes one builds and the
    others wait.

    Raises CacheError where the cache can't be written or read, ShardError for a damaged shard or clip,
    StorageError for one that can't be read.
    """
    corpus = re.sub(r"[^A-Za-z0-9_-]", "_", index.corpus)
    home = cache / f"{corpus}-{index.checksum[:16]}"
    try:
        home.mkdir(parents=True, exist_ok=True)
        if not (home / split).is_dir():
            with alone(home / f"{split}.lock", f"decoding split {split} into {home}"):
                if not (home / split).is_dir():
                    _build(index, split, home, threads)
        return _open(index, split, home / split)
    except (CacheError, storage.StorageError):  # a shard that can't be read can't be streamed either
        raise
    except OSError as error:
        raise CacheError(f"cache {home}: {error.strerror or error}") from error


def resident(cached: CachedSplit, device: str) -> CachedSplit:
    """The split on a CUDA device when it fits a quarter of the memory free there, else as it is."""
    if not device.startswith("cuda"):
        return cached
    free, _ = torch.cuda.mem_get_info(torch.device(device))
    return cached.to(device) if cached.bytes <= free * RESIDENT_FRACTION else cached


def _build(index: Index, split: str, home: Path, threads: int) -> None:
    for leftover in home.glob(f"{split}.partial*"):
        shutil.rmtree(leftover)  # ours: we hold the lock, so whoever made it is gone
    content = index.split(split)
    _check_room(index, content.clips, home)
    partial_folder = home / f"{split}.partial"
    partial_folder.mkdir()
    try:
        labels, tags = _write_waveforms(index, content, partial_folder / "waveforms.npy", threads)
        _write_labels(index, labels, partial_folder)
        if index.tags:
            np.save(partial_folder / "tags.npy", np.array(tags, np.float32).reshape(-1, _tag_count(index)))
        _keep_through_a_power_cut(partial_folder)
        partial_folder.rename(home / split)
    except OSError as error:
        shutil.rmtree(partial_folder, ignore_errors=True)
        if error.errno == errno.ENOSPC:
            raise CacheError(
                f"cache {home}: the disk filled up while split {split!r} was being written"
            ) from error
        raise
    except BaseException:
        shutil.rmtree(partial_folder, ignore_errors=True)
        raise


def _keep_through_a_power_cut(folder: Path) -> None:
    """The name of a finished split must not reach the disk before what is in it: zeros have the right shape,
    and trials would be ranked on them."""
    for path in [*folder.iterdir(), folder]:
        flush(path)


def _check_room(index: Index, clips: int, home: Path) -> None:
    per_clip = index.channels * index.samples * np.dtype(index.sample_type).itemsize
    per_clip += 4 * (len(index.labels.scenes) + 2 * len(index.labels.events) + _tag_count(index))
    free = shutil.disk_usage(home).free
    if clips * per_clip > free:
        raise CacheError(f"cache {home}: needs {clips * per_clip / 1e9:.3f} GB, {free / 1e9:.3f} GB are free")


def _tag_count(index: Index) -> int:
    return len(index.tags.names) if index.tags else 0


def _write_waveforms(
    index: Index, content: Split, path: Path, threads: int
) -> tuple[list[ClipLabels], list[np.ndarray]]:
    """Decode every clip into its place in one .npy file; give back their labels, and their tags (K,)."""
    labels, tags = [], []
    header = {
        "descr": npy.dtype_to_descr(np.dtype(index.sample_type)),
        "fortran_order": False,
        "shape": (content.clips, index.channels, index.samples),
    }
    # Written, not memory-mapped: a full disk is then an error and not a SIGBUS.
    with open(path, "w+b", buffering=0) as file:
        npy.write_array_header_1_0(file, header)
        clips = itertools.chain.from_iterable(shard_members(index.root, shard) for shard in content.shards)
        decode = partial(_decode, index, file.fileno(), file.tell())
        for clip_labels, clip_tags in map_ahead(decode, enumerate(clips), threads):
            labels.append(clip_labels)
            tags.append(clip_tags)
    return labels, tags


def _decode(
    index: Index, file: int, origin: int, item: tuple[int, tuple[Shard, Clip, dict[str, bytes]]]
) -> tuple[ClipLabels, np.ndarray]:
    """Decode the clip of a number and write it where it lies from byte `origin` of `file` on."""
    # needs soundfile; a cache that is ready does not
    from datasets.decode import ClipFormat, decode_clip, decode_tags

    number, (shard, clip, members) = item
    waveform = np.empty((index.channels, index.samples), dtype=index.sample_type)
    wanted = ClipFormat(index.sample_rate, index.channels, clip.samples)
    labels = decode_clip(members, wanted, waveform, shard=shard.name, key=clip.key)
    count, tags = _tag_count(index), np.zeros(0, dtype=np.float32)
    if count:
        tags = decode_tags(members, count, shard=shard.name, key=clip.key)
    left, at = waveform.reshape(-1).view(np.uint8).data, origin + number * waveform.nbytes
    while left:  # the system may take a part
        written = os.pwrite(file, left, at)
        left, at = left[written:], at + written
    return labels, tags


def shard_members(root: str | Path, shard: Shard) -> Iterator[tuple[Shard, Clip, dict[str, bytes]]]:
    """Every clip's members, and after the last one the check that the bytes read were the shard's."""
    digest, at = hashlib.sha256(), 0
    with storage.open_stream(root, shard.name, 0, shard.bytes, buffer_bytes=READ_BYTES) as file:
        for clip in shard.clips:
            check_clip_size(shard, clip)
            digest.update(file.read(clip.offset - at))  # bytes between clips belong to the checksum too
            data = file.read(clip.size)
            digest.update(data)
            at = clip.offset + clip.size
            yield shard, clip, clip_members(data, shard.name, clip.key)
        digest.update(file.read(shard.bytes - at))
    if digest.hexdigest() != shard.sha256:
        clips = "".join(f"clip {key}: damaged audio; " for key in _damaged_clips(root, shard)[:1])
        there, expected = digest.hexdigest()[:16], shard.sha256[:16]
        raise ShardError(f"{shard.name}: {clips}SHA-256 {there}… on disk, {expected}… in the index")


def _damaged_clips(root: str | Path, shard: Shard) -> list[str]:
    """The keys whose FLAC no longer has its own checksum, once a shard is known to be damaged."""
    from datasets.decode import flac_intact

    found = []
    for clip in shard.clips:
        data = storage.read_range(root, shard.name, clip.offset, clip.size)
        if flac_intact(clip_members(data, shard.name, clip.key).get("flac", b"")) is False:
            found.append(clip.key)
    return found


def _write_labels(index: Index, labels: Sequence[ClipLabels], folder: Path) -> None:
    from datasets.stream import curated, label_arrays

    if not all(checked := curated(labels)):
        np.save(folder / "curated.npy", checked)
    for name, array in zip(NAMES[1:], label_arrays(labels, index.labels)):
        np.save(folder / f"{name}.npy", array)


def _open(index: Index, split: str, folder: Path) -> CachedSplit:
    clips, space = index.split(split).clips, index.labels
    waveforms = (clips, index.channels, index.samples)
    scene, events = (clips, len(space.scenes)), (clips, len(space.events))
    shapes = dict(zip(NAMES, (waveforms, scene, events, events)))
    if index.tags:
        shapes["tags"] = (clips, _tag_count(index))
    if (folder / "curated.npy").is_file():
        shapes["curated"] = (clips,)
    tensors = {"tags": torch.zeros(clips, 0), "curated": torch.ones(clips)}
    for name, shape in shapes.items():
        path = folder / f"{name}.npy"
        try:
            # "c" = copy on write: nobody writes, and torch wants memory that could be.
            array = npy.open_memmap(path, mode="c") if clips else np.load(path)
        except (ValueError, OSError) as error:
            raise CacheError(f"cache {path}: {error}; delete {folder} to have it built again") from error
        wanted = index.sample_type if name == "waveforms" else "float32"
        if array.shape != shape or array.dtype != wanted:
            raise CacheError(
                f"cache {path}: {array.dtype} {array.shape}, expected {wanted} {shape}; delete {folder} "
                "to have it rebuilt"
            )
        tensors[name] = torch.from_numpy(array)
    return CachedSplit(**tensors)
