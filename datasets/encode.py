"""From a recording on disk to a clip in a shard: read the header, decode in full, convert if asked, encode.

What can't be read, is cut off, has no samples or holds NaN is `Damaged` with a reason. 16-bit audio stays
16-bit and 24-bit stays 24-bit (FLAC); floating-point audio stays so (WAV). Compressed audio (OGG, MP3, Opus)
is kept as 16-bit: it is decoded to floating point first, since libsndfile's own 16-bit output wraps around
where a decoder overshoots full scale. Samples beyond full scale are limited there and counted. A clip that is
a part of a recording is converted on its own, with silence around it for the filter.
"""

from __future__ import annotations

import io
import struct
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile

from datasets.convert import AS_IT_IS, Conversion
from datasets.corpora.corpus import Recording
from datasets.decode import flac_intact
from datasets.prefetch import map_ahead
from datasets.progress import Progress
from datasets.shard_writer import Sample


@dataclass(frozen=True)
class Keep:
    """How a sample format is kept: member suffix, libsndfile's format and subtype, bits (0 = floating
    point)."""

    extension: str
    container: str
    subtype: str
    bits: int


FLAC_16, FLAC_24 = Keep("flac", "FLAC", "PCM_16", 16), Keep("flac", "FLAC", "PCM_24", 24)
FLOAT = Keep("wav", "WAV", "FLOAT", 0)
LOSSY = ("VORBIS", "OPUS", "MPEG_LAYER_I", "MPEG_LAYER_II", "MPEG_LAYER_III")
KEEP = {**dict.fromkeys(("PCM_16", "PCM_U8", "PCM_S8", *LOSSY), FLAC_16), "PCM_24": FLAC_24}


# Headers of fewer files are read too quickly for a progress bar.
MANY_FILES = 5000


@dataclass(frozen=True)
class AudioFile:
    """A file to prepare. `path` is where it lies, `recording.file` its name inside the corpus."""

    key: str
    path: Path
    recording: Recording


@dataclass(frozen=True)
class Damaged:
    file: str
    reason: str


@dataclass(frozen=True)
class Encoded:
    """`limited` samples lay beyond full scale."""

    sample: Sample
    limited: int


@dataclass(frozen=True)
class Headers:
    """What the files' headers say: the format of all clips after conversion, and which files are damaged."""

    sample_rate: int
    channels: int
    sample_type: str
    damaged: Mapping[str, str]


def probe(
    files: Sequence[AudioFile], conversion: Conversion, jobs: int, *, progress: bool = False
) -> Headers:
    """Read every file's header. Raises ValueError with one line when no file can be read, one can't be
    converted, or they differ after conversion in sampling rate or channels from what most have."""
    found: dict[str, tuple[int, int, str]] = {}
    damaged: dict[str, str] = {}
    with Progress(len(files), progress and len(files) >= MANY_FILES, things="headers") as bar:
        for file, header in zip(files, map_ahead(_header, files, jobs, ahead=64)):
            bar.step()
            if isinstance(header, Damaged):
                damaged[header.file] = header.reason
            else:
                found[file.recording.name] = header
    if not found:
        first = "".join(f": {name}: {why}" for name, why in list(damaged.items())[:1])
        raise ValueError(f"none of the {len(files)} files could be read{first}")
    formats = {}
    for name, (rate, channels, _) in found.items():
        try:
            formats[name] = conversion.format_of(rate, channels)
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from error
    rate, channels = _common(formats)
    whole = all(KEEP.get(subtype, FLOAT).bits == 16 for _, _, subtype in found.values())
    return Headers(rate, channels, "int16" if whole else "float32", damaged)


def _common(formats: Mapping[str, tuple[int, int]]) -> tuple[int, int]:
    counts = Counter(formats.values())
    (rate, channels), agreeing = counts.most_common(1)[0]
    odd = next((name for name, found in formats.items() if found != (rate, channels)), None)
    if odd is None:
        return rate, channels
    options = []
    if len({rate for rate, _ in formats.values()}) > 1:
        options.append(f"--rate {rate} resamples all to that")
    if len({channels for _, channels in formats.values()}) > 1:
        options.append("--channels mono mixes all to one channel (stereo, mid_side … are other ways)")
    raise ValueError(
        f"{odd} has {formats[odd][0]} Hz and {formats[odd][1]} channel(s); expected {rate} Hz and {channels} "
        f"channel(s) as {agreeing} of {len(formats)} files have ({len(formats) - agreeing} differ); "
        + "; ".join(options)
    )


def _header(file: AudioFile) -> tuple[int, int, str] | Damaged:
    """(sampling rate in Hz, channels, libsndfile's subtype)"""
    try:
        if file.path.stat().st_size == 0:
            return Damaged(file.recording.name, "the file is empty")
        with soundfile.SoundFile(file.path) as sound:
            if sound.frames == 0:
                return Damaged(file.recording.name, "no samples")
            return sound.samplerate, sound.channels, sound.subtype
    except (soundfile.SoundFileError, OSError) as error:
        return Damaged(file.recording.name, reason(error, file.path))


def encode(file: AudioFile, conversion: Conversion = AS_IT_IS) -> Encoded | Damaged:
    """Decode the file, or the part of it that the clip is, convert it and encode it for the shard."""
    decoded = decode_file(file)
    if isinstance(decoded, Damaged):
        return decoded
    samples, rate, subtype = decoded
    keep = KEEP.get(subtype, FLOAT)
    limited = 0
    if subtype in LOSSY or not conversion.nothing:
        scale = 2.0 ** (8 * samples.itemsize - 1) if samples.dtype.kind == "i" else 1.0
        samples, limited = quantise(conversion.apply(samples / np.float64(scale), rate), keep.bits)
        rate = conversion.rate or rate
    stream = io.BytesIO()
    soundfile.write(stream, samples, rate, format=keep.container, subtype=keep.subtype)
    sample = Sample(file.key, stream.getvalue(), keep.extension, len(samples), file.recording.labels)
    return Encoded(sample, limited)


def quantise(samples: np.ndarray, bits: int) -> tuple[np.ndarray, int]:
    """(n, C) float64, full scale 1, as (int16, or int32 for 24 bits, or float32 for 0; how many samples were
    beyond full scale and are limited). Rounded to the nearest, without dither."""
    if bits == 0:
        return samples.astype(np.float32), 0
    scale = 2.0 ** (bits - 1)
    whole = np.rint(samples * scale)
    limited = int(np.count_nonzero((whole < -scale) | (whole > scale - 1)))
    whole = np.clip(whole, -scale, scale - 1)
    if bits == 16:
        return whole.astype(np.int16), limited
    # libsndfile takes 24-bit samples from the upper bytes of 32-bit ones.
    return (whole * 2.0 ** (32 - bits)).astype(np.int32), limited


def decode_file(file: AudioFile) -> tuple[np.ndarray, int, str] | Damaged:
    """((n, C) samples, rate in Hz, libsndfile's subtype); int16, int32 or float32, and float64 for lossy
    formats."""
    name = file.recording.name
    try:
        data = file.path.read_bytes()
        with soundfile.SoundFile(io.BytesIO(data)) as sound:
            keep, rate, subtype = KEEP.get(sound.subtype, FLOAT), sound.samplerate, sound.subtype
            dtype = "float64" if subtype in LOSSY else {16: "int16", 24: "int32", 0: "float32"}[keep.bits]
            promised = max(sound.frames, wav_frames(data))
            if file.recording.seconds is None:
                samples = sound.read(dtype=dtype, always_2d=True)
            else:
                if promised > sound.frames:
                    return Damaged(name, f"cut off: {sound.frames} of {promised} samples are there")
                first = round(file.recording.start * rate)
                promised = min(round(file.recording.seconds * rate), promised - first)
                sound.seek(min(first, sound.frames))
                samples = sound.read(promised, dtype=dtype, always_2d=True)
    except (soundfile.SoundFileError, OSError) as error:
        return Damaged(name, reason(error, file.path))
    if len(samples) != promised:
        return Damaged(name, f"cut off: {len(samples)} of {promised} samples are there")
    if flac_intact(data) is False:
        return Damaged(name, "damaged: the samples do not have the MD5 that the file's header promises")
    if not np.isfinite(samples).all():
        return Damaged(name, "holds NaN or infinite samples")
    return samples, rate, subtype


def wav_frames(data: bytes) -> int:
    """The frames a WAV's header promises; 0 for other files and for the open-ended headers of streamed WAVs.

    libsndfile quietly reads what is there of a WAV that was cut off.
    """
    if data[:4] != b"RIFF" or data[8:12] != b"WAVE":
        return 0
    at, block = 12, 0
    while at + 8 <= len(data):
        kind, size = data[at : at + 4], struct.unpack("<I", data[at + 4 : at + 8])[0]
        if kind == b"fmt " and at + 24 <= len(data):
            block = struct.unpack("<H", data[at + 20 : at + 22])[0]
        if kind == b"data":
            return 0 if size >= 0xFFFFFF00 or block == 0 else int(size) // block
        at += 8 + size + size % 2
    return 0


def reason(error: Exception, path: Path) -> str:
    """Why a file can't be read, in one line without its name."""
    text = " ".join(str(error).split()).replace(f"Error opening {str(path)!r}: ", "")
    return text or type(error).__name__
