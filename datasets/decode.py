"""Members of a clip to arrays, safely: an allow-list of suffixes, no pickle, nothing larger than its label
says.

A shard may come from anywhere. The audio goes through libsndfile from memory, arrays are read as plain
numbers, and a clip must have the rate, channels and length that index.json promises before its samples are
allocated.
"""

from __future__ import annotations

import hashlib
import io
import os
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import soundfile
from numpy.lib import format as npy

from datasets.members import check_members
from datasets.shards import ClipLabels, ShardError

AUDIO_FORMATS = {
    "flac": ("FLAC",),
    "wav": ("WAV", "WAVEX", "RF64"),
    "ogg": ("OGG",),
    "mp3": ("MP3", "MPEG"),
}


@dataclass(frozen=True)
class ClipFormat:
    """What a clip must be: `sample_rate` in Hz, `channels`, `samples` per channel."""

    sample_rate: int
    channels: int
    samples: int


def decode_clip(
    members: Mapping[str, bytes], wanted: ClipFormat, out: np.ndarray, *, shard: str, key: str
) -> ClipLabels:
    """Decode a clip's audio into `out` and return its labels.

    members  {suffix: bytes} as they lie in the tar
    out      (C, samples or more) int16 or float32; filled with the waveform, then zeros
    Raises ShardError naming the shard and the clip.
    """
    try:
        check_members(members)
        suffix = next(name for name in members if name in AUDIO_FORMATS)
        _decode_audio(members[suffix], suffix, wanted, out)
        return ClipLabels.from_json(members["json"])
    except (ValueError, TypeError, soundfile.SoundFileError) as error:
        raise ShardError(f"{shard}: clip {key}: {' '.join(str(error).split())}") from error


def decode_tags(members: Mapping[str, bytes], count: int, *, shard: str, key: str) -> np.ndarray:
    """A clip's tags.npy as (count,) float32. Raises ShardError naming the shard and the clip when it is not
    there, or not `count` probabilities."""
    if "tags.npy" not in members:
        raise ShardError(f"{shard}: clip {key}: no tags.npy; index.json promises {count} tags in every clip")
    try:
        tags = decode_array(members["tags.npy"])
    except ValueError as error:
        raise ShardError(f"{shard}: clip {key}: tags.npy: {error}") from error
    if tags.shape != (count,) or tags.dtype not in (np.float16, np.float32):
        found = f"{tags.dtype} {tags.shape}"
        raise ShardError(f"{shard}: clip {key}: tags.npy is {found}, expected float16 or float32 ({count},)")
    if not ((tags >= 0) & (tags <= 1)).all():  # NaN is neither
        raise ShardError(f"{shard}: clip {key}: tags.npy holds {tags.min()} to {tags.max()}, expected 0 to 1")
    return tags.astype(np.float32)


def flac_intact(data: bytes) -> bool | None:
    """Whether a FLAC file's samples have the MD5 that its header promises; None where it promises none.

    libsndfile does not look at it, and says nothing of some damage (to a clip of one frame, for example).
    """
    if data[:4] != b"fLaC" or not any(data[26:42]):
        return None
    try:
        with soundfile.SoundFile(io.BytesIO(data)) as file:
            subtype, samples = file.subtype, file.read(dtype="int32", always_2d=True)
    except soundfile.SoundFileError:
        return False
    width = {"PCM_S8": 1, "PCM_16": 2, "PCM_24": 3}.get(subtype)
    if width is None:
        return None
    # libsndfile puts a sample into the upper bytes of 32 bits; the MD5 is over its own bytes, low end first.
    own = np.ascontiguousarray(samples).view(np.uint8).reshape(-1, 4)[:, 4 - width :]
    return hashlib.md5(own.tobytes(), usedforsecurity=False).digest() == data[26:42]


def decode_array(data: bytes) -> np.ndarray:
    """The numbers of a .npy file. Raises ValueError for objects, for text, and for a header that promises
    another size."""
    stream = io.BytesIO(data)
    version = npy.read_magic(stream)
    if version not in ((1, 0), (2, 0)):
        raise ValueError(f".npy version {version}, expected (1, 0) or (2, 0)")
    read_header = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
    shape, fortran, dtype = read_header(stream)
    if dtype.kind not in "fiub":
        raise ValueError(f".npy holds {dtype}, expected plain numbers")
    count = 1
    for size in shape:
        count *= size
    left = len(data) - stream.tell()
    if min(shape, default=0) < 0 or count * dtype.itemsize != left:
        raise ValueError(f".npy promises shape {shape} of {dtype}, {left} bytes follow")
    return np.frombuffer(data, dtype, offset=stream.tell()).reshape(shape, order="F" if fortran else "C")


_memory = threading.local()  # each thread's file in memory


@contextmanager
def _sound_file(data: bytes) -> Iterator[soundfile.SoundFile]:
    """`data` opened by libsndfile.

    From Python's memory libsndfile reads by calling Python back, a hundred times a clip and each time waiting
    for the interpreter lock: two threads then decode little more than one. A file in memory (Linux) is read
    without.
    """
    if not hasattr(os, "memfd_create"):
        with soundfile.SoundFile(io.BytesIO(data)) as file:
            yield file
        return
    if getattr(_memory, "process", None) != os.getpid():  # a fork shares its parent's file, and place in it
        # closed when its thread ends
        _memory.file = os.fdopen(os.memfd_create("clip"), "r+b", buffering=0)
        _memory.process = os.getpid()
    number = _memory.file.fileno()
    os.ftruncate(number, len(data))
    os.pwrite(number, data, 0)
    os.lseek(number, 0, os.SEEK_SET)
    with soundfile.SoundFile(number, closefd=False) as file:
        yield file


def _decode_audio(data: bytes, suffix: str, wanted: ClipFormat, out: np.ndarray) -> None:
    with _sound_file(data) as file:
        if file.format not in AUDIO_FORMATS[suffix]:
            raise ValueError(f"the .{suffix} member is {file.format} audio")
        found = (file.samplerate, file.channels, file.frames)
        expected = (wanted.sample_rate, wanted.channels, wanted.samples)
        if found != expected:
            raise ValueError(
                "has {} Hz, {} channel(s), {} samples".format(*found)
                + "; the index says {} Hz, {} channel(s), {} samples".format(*expected)
            )
        decoded = _read_into(file, wanted.samples, out)
    if decoded != wanted.samples:
        raise ValueError(f"damaged: {decoded} of {wanted.samples} samples could be decoded")
    out[:, wanted.samples :] = 0


def _read_into(file: soundfile.SoundFile, samples: int, out: np.ndarray) -> int:
    """Decode into out (C, ≥ samples), returning how many samples came. Mono needs no copy."""
    if len(out) == 1:
        return len(file.read(samples, dtype=out.dtype.name, out=out[0, :samples]))
    frames = file.read(samples, dtype=out.dtype.name, always_2d=True)  # (n, C)
    out[:, : len(frames)] = frames.T
    return len(frames)
