"""A recording on disk as a model hears it: decoded, mixed and resampled as `datasets.prepare` would have done
it for the model's shards, and cut into windows of the model's length.

Length   a recording as long as the model's clips is one window; a shorter one is followed by zeros, as short
         clips are in training batches. A longer one is cut into windows laid end to end, the last one ending
         with the recording; a window's weight is how much it adds to those before it, so that every second
         counts once.
Rate     datasets/convert.py's Kaiser low-pass: up to 0.91 of the lower Nyquist frequency within 0.001 dB,
         from there on 100 dB down. A long recording is resampled in blocks that overlap by the filter's
         length, which gives the same samples.
Channels to one: the mean of all. One becomes two by being doubled. More than two become two by the mean of
         all, doubled, for which is left and which right is not known. What else the shards were prepared with
         (mid_side, left_right_difference) is done again.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import numpy as np

from datasets.convert import Channels, low_pass, mix_channels, ratio, resample
from datasets.corpora.corpus import Recording
from datasets.encode import FLOAT, KEEP, LOSSY, AudioFile, Damaged, decode_file, quantise
from datasets.shards import ClipLabels

SUFFIXES = (".wav", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".aiff", ".aif", ".aifc", ".au", ".caf", ".w64")
BLOCK_SECONDS = 60


class Unreadable(ValueError):
    """A file that is no recording to predict on; the message says why, without the file's name."""


@dataclass(frozen=True)
class Listening:
    """What a model takes: `sample_rate` in Hz, `channels`, `samples` of a window; `mixing`, the channels word
    that its shards were prepared with ("keep" where they were taken as they are)."""

    sample_rate: int
    channels: int
    samples: int
    mixing: Channels = "keep"

    @staticmethod
    def of(about: Mapping[str, Any]) -> Listening:
        """From a model's description."""
        mixing = (about.get("conversion") or {}).get("channels", "keep")
        if mixing not in get_args(Channels):
            raise ValueError(
                f"model.json: channels {mixing!r}, expected one of {', '.join(get_args(Channels))}"
            )
        return Listening(**about["audio"], mixing=mixing)


@dataclass(frozen=True)
class Heard:
    """`samples` (C, N) float32 at the model's rate; `seconds` of the file; `notes` on what was changed."""

    samples: np.ndarray
    seconds: float
    notes: tuple[str, ...]


def hear(path: Path, listening: Listening) -> Heard:
    """Raises Unreadable for what is missing, no audio, damaged, empty, silent throughout or not a number."""
    if path.is_dir():
        raise Unreadable("a folder, not a file")
    try:
        if path.stat().st_size == 0:
            raise Unreadable("the file is empty")
    except OSError as error:
        raise Unreadable(error.strerror or type(error).__name__) from error
    try:
        decoded = decode_file(AudioFile("", path, Recording(path.name, ClipLabels())))
    except MemoryError as error:
        raise Unreadable("too long for this machine's memory; cut it") from error
    if isinstance(decoded, Damaged):
        raise Unreadable(re.sub(r"^Error opening <[^>]*>", "no audio", decoded.reason))
    samples, rate, subtype = decoded
    if not len(samples):
        raise Unreadable("no samples")
    if not np.any(samples != samples[0]):
        raise Unreadable("silent: all its samples are the same")
    mix, how = _mixing(samples.shape[1], listening)
    changes = [f"resampled from {rate} to {listening.sample_rate} Hz"] * (rate != listening.sample_rate)
    changes += [how] if how else []
    bits = KEEP.get(subtype, FLOAT).bits if changes or subtype in LOSSY else 0
    scale = np.float64(2 ** (8 * samples.itemsize - 1) if samples.dtype.kind == "i" else 1)
    try:
        found = in_blocks(samples, rate, listening.sample_rate, lambda block: mix(block / scale), bits)
    except ValueError as error:  # two rates without a filter between them
        raise Unreadable(str(error)) from error
    return Heard(np.ascontiguousarray(found.T), len(samples) / rate, tuple(changes))


def _mixing(found: int, listening: Listening) -> tuple[Callable[[np.ndarray], np.ndarray], str]:
    """((n, `found`) → (n, C) with the model's channels, what that does in words, "" for nothing)."""
    wanted, way = listening.channels, listening.mixing
    if wanted == 3 and found != 3 and way == "keep":
        way = "left_right_difference"
    if way in ("mid_side", "left_right_difference"):
        if found > 2:
            raise Unreadable(f"{found} channels can't become {way}: accepted are mono and stereo files")
        return lambda block: mix_channels(block, way), f"{found} channel(s) to {way}"
    if found == wanted:
        return lambda block: block, ""
    if wanted > 2:
        raise Unreadable(
            f"{found} channel(s); this model takes {wanted}, and how they were made is not known"
        )
    words = "one channel doubled" if found == 1 else f"mean of {found} channels" + ", doubled" * (wanted == 2)
    return lambda block: np.repeat(block.mean(axis=1, keepdims=True), wanted, axis=1), words


def in_blocks(
    samples: np.ndarray, rate: int, wanted: int, mix: Callable[[np.ndarray], np.ndarray], bits: int
) -> np.ndarray:
    """(n, C) at `rate` Hz, mixed to (n, C') and resampled, (ceil(n * wanted / rate), C') float32. With
    `bits` of 16 or 24 rounded to these, as a preparation keeps it.

    A minute at a time, so that an hour takes little more memory than it does decoded.
    """
    up, down = ratio(rate, wanted)
    block = max(1, BLOCK_SECONDS * rate // down) * down
    reach = len(low_pass(max(up, down))) // 2 // up + 1 if rate != wanted else 0  # inputs beside an output
    margin = -(-reach // down) * down
    parts = []
    for first in range(0, len(samples), block):
        start = max(0, first - margin)
        piece = resample(mix(samples[start : first + block + margin]), rate, wanted)
        skip = (first - start) // down * up
        piece = piece[skip : skip + block // down * up]
        if bits:
            piece = quantise(piece, bits)[0] / 2.0 ** (15 if bits == 16 else 31)
        parts.append(piece.astype(np.float32))
    return np.concatenate(parts)[: -(-len(samples) * up // down)]


@dataclass(frozen=True)
class Window:
    """`samples` from `start` on; `weight` is the share of the recording that no earlier window has."""

    start: int
    weight: float


def windows(total: int, length: int, step: int = 1) -> list[Window]:
    """Windows of `length` samples that cover `total`. All start at multiples of `step`, which divides the
    distance between them: at most step - 1 samples more than the rest of the last one are zeros."""
    stride = max(step, length // step * step)
    if total <= length:
        return [Window(0, 1.0)]
    starts = list(range(0, total - length + 1, stride))
    covered = starts[-1] + length
    if covered < total:
        last = math.ceil((total - length) / step) * step
        starts.append(last)
    ends = [start + length for start in starts]
    gains = [min(end, total) - before for end, before in zip(ends, [0, *ends])]
    return [Window(start, gain / total) for start, gain in zip(starts, gains)]


def cut(samples: np.ndarray, window: Window, length: int) -> np.ndarray:
    """(C, `length`) of (C, N), followed by zeros where the recording ends."""
    piece = samples[:, window.start : window.start + length]
    return np.pad(piece, ((0, 0), (0, length - piece.shape[1])))
