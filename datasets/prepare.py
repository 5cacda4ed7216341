"""Raw recordings to shards.

    python -m datasets.prepare NAME --source DIR --out SHARDS [--validation location] …
    python -m datasets.prepare --help                 the NAMEs

Every listed file is decoded in full: what can't be read, is cut off or has no samples is damaged. Damaged
clips are left out, counted and named, and above `--max-damaged` the preparation fails. The loudness of a
recording is not touched, 16-bit audio stays 16-bit and 24-bit stays 24-bit (FLAC); floating-point audio stays
so (WAV). The shards are made in a folder beside `--out` that gets its name when everything is in place, so
what has that name is complete.
"""

from __future__ import annotations

import io
import os
import shutil
import struct
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import soundfile
import tyro
from tyro.extras import SubcommandApp

from datasets.corpora import (
    ABOUT,
    UNKNOWN,
    Corpus,
    Recording,
    TrainingLists,
    TrainingPart,
    Validation,
    read_audioset,
    read_fsdkaggle2019,
    read_listing,
    read_tau2019,
    read_tau_like,
    read_tut2018,
    read_tut_sed,
)
from datasets.decode import flac_intact
from datasets.prefetch import map_ahead
from datasets.shards import Index, Sample, check_unused, make_index, unfinished, unique_keys, write_split

# How a sample format is kept: (extension, libsndfile format, subtype, numpy type that loses nothing).
KEEP = {
    **dict.fromkeys(("PCM_16", "PCM_U8", "PCM_S8"), ("flac", "FLAC", "PCM_16", "int16")),
    **dict.fromkeys(("VORBIS", "OPUS", "MPEG_LAYER_III"), ("flac", "FLAC", "PCM_16", "int16")),
    "PCM_24": ("flac", "FLAC", "PCM_24", "int32"),
}
KEEP_FLOAT = ("wav", "WAV", "FLOAT", "float32")
SHUFFLE = 20261120
BAR_SECONDS = 1.0


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


def prepare(
    corpus: Corpus,
    source: Path,
    out: Path,
    *,
    name: str,
    max_damaged: float = 0.01,
    jobs: int = 1,
    progress: bool = True,
) -> Index:
    """Write the shards of `corpus`, whose files lie below `source`, into the folder `out`.

    Raises ValueError or OSError with one line when `out` is in use, the files differ in sampling rate or
    channels, or more than the fraction `max_damaged` of them is damaged; nothing is left at `out` then.
    """
    if not 0 <= max_damaged < 1:
        raise ValueError(f"--max-damaged {max_damaged}: accepted are fractions from 0 to below 1")
    if jobs < 1:
        raise ValueError(f"--jobs {jobs}: at least 1")
    _check_out(out)
    files = _files(corpus, source)
    rate, channels, damaged, sample_type = _probe(files, jobs)
    bar = Progress(sum(map(len, files.values())), progress)
    _check_damage(damaged, bar.total, max_damaged)
    with unfinished(out) as folder, bar:
        splits = {}
        for split, members in files.items():
            todo = [file for file in members if file.recording.name not in damaged]
            results = map_ahead(_encode, todo, jobs)
            splits[split] = write_split(folder, split, _undamaged(results, damaged, bar, max_damaged), rate)
            if splits[split].clips == 0:
                raise ValueError(f"split {split!r} has no clip left: {len(members)} files, all damaged")
        for notice in sorted([*source.glob("LICEN[SC]E*"), *source.glob("EULA*")]):
            shutil.copyfile(notice, folder / notice.name)
        index = make_index(
            folder,
            splits,
            corpus=name,
            sample_rate=rate,
            channels=channels,
            sample_type=sample_type,
            labels=corpus.labels,
            licence=corpus.about.licence,
            citation=corpus.about.citation,
            dropped=sorted(damaged.items()),
        )
        index.save()
    return replace(index, root=out)


class Progress:
    """One line on stderr: rewritten on a terminal, else a line at every tenth of the way."""

    def __init__(self, total: int, shown: bool) -> None:
        self.total, self._shown = total, shown
        self._done, self._start, self._last = 0, time.monotonic(), 0.0
        self._live = sys.stderr.isatty()

    def step(self) -> None:
        self._done += 1
        if not self._shown:
            return
        now = time.monotonic()
        if self._live and now - self._last >= BAR_SECONDS:
            self._last = now
            print(f"\r{self._line(now)}   ", end="", file=sys.stderr, flush=True)
        elif not self._live and self._done * 10 // self.total > (self._done - 1) * 10 // self.total:
            print(self._line(now), file=sys.stderr, flush=True)

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *_: object) -> None:
        if self._shown and self._live and self._last:
            print(file=sys.stderr)

    def _line(self, now: float) -> str:
        elapsed = max(now - self._start, 1e-6)
        left = elapsed / max(self._done, 1) * (self.total - self._done)
        return f"{self._done}/{self.total} clips, {self._done / elapsed:.0f} a second, {left:.0f} s left"


def _check_out(out: Path) -> None:
    check_unused(out)
    for leftover in out.parent.glob(f".{out.name}-*.unfinished"):
        print(
            f"note: {leftover} is what an earlier preparation left when it was killed (or one that still "
            "runs)",
            file=sys.stderr,
        )


def _files(corpus: Corpus, source: Path) -> dict[str, list[AudioFile]]:
    """The files of each split, shuffled: the streaming reader mixes clips only within a window."""
    files = {}
    for split, recordings in corpus.splits.items():
        keys = unique_keys(recording.name for recording in recordings)
        found = [AudioFile(key, source / r.file, r) for key, r in zip(keys, recordings)]
        order = np.random.default_rng(SHUFFLE).permutation(len(found))
        files[split] = [found[place] for place in order]
    return files


def _probe(files: Mapping[str, Sequence[AudioFile]], jobs: int) -> tuple[int, int, dict[str, str], str]:
    """(sampling rate in Hz, channels, {damaged file: reason}, sample type) from the files' headers.

    The rate and channels of most files are what all must have.
    """
    every = [file for members in files.values() for file in members]
    found: dict[str, tuple[int, int, str]] = {}
    damaged: dict[str, str] = {}
    for file, header in zip(every, map_ahead(_header, every, jobs, ahead=64)):
        if isinstance(header, Damaged):
            damaged[header.file] = header.reason
        else:
            found[file.recording.name] = header
    if not found:
        raise ValueError(f"none of the {len(every)} files could be read; {next(iter(damaged.items()), '')}")
    counts = Counter((rate, channels) for rate, channels, _ in found.values())
    (rate, channels), agreeing = counts.most_common(1)[0]
    for name, header in found.items():
        if header[:2] != (rate, channels):
            raise ValueError(
                f"{name} has {header[0]} Hz and {header[1]} channel(s); expected {rate} Hz and {channels} "
                f"channel(s) as {agreeing} of {len(found)} files have ({len(found) - agreeing} differ); "
                "resample it first"
            )
    whole = all(KEEP.get(subtype, KEEP_FLOAT)[3] == "int16" for _, _, subtype in found.values())
    return rate, channels, damaged, "int16" if whole else "float32"


def _header(file: AudioFile) -> tuple[int, int, str] | Damaged:
    try:
        if file.path.stat().st_size == 0:
            return Damaged(file.recording.name, "the file is empty")
        with soundfile.SoundFile(file.path) as sound:
            if sound.frames == 0:
                return Damaged(file.recording.name, "no samples")
            return sound.samplerate, sound.channels, sound.subtype
    except (soundfile.SoundFileError, OSError) as error:
        return Damaged(file.recording.name, _reason(error, file.path))


def _encode(file: AudioFile) -> Sample | Damaged:
    """Decode the file, or the part of it that the clip is, and encode it for the shard."""
    name = file.recording.name
    try:
        data = file.path.read_bytes()
        with soundfile.SoundFile(io.BytesIO(data)) as sound:
            extension, container, subtype, dtype = KEEP.get(sound.subtype, KEEP_FLOAT)
            promised = max(sound.frames, wav_frames(data))
            rate = sound.samplerate
            if file.recording.seconds is None:
                samples = sound.read(dtype=dtype, always_2d=True)  # (n, C)
            else:
                if promised > sound.frames:
                    return Damaged(name, f"cut off: {sound.frames} of {promised} samples are there")
                first = round(file.recording.start * rate)
                promised = min(round(file.recording.seconds * rate), promised - first)
                sound.seek(min(first, sound.frames))
                samples = sound.read(promised, dtype=dtype, always_2d=True)
    except (soundfile.SoundFileError, OSError) as error:
        return Damaged(name, _reason(error, file.path))
    if len(samples) != promised:
        return Damaged(name, f"cut off: {len(samples)} of {promised} samples are there")
    if flac_intact(data) is False:
        return Damaged(name, "damaged: the samples do not have the MD5 that the file's header promises")
    if not np.isfinite(samples).all():
        return Damaged(name, "holds NaN or infinite samples")
    encoded = io.BytesIO()
    soundfile.write(encoded, samples, rate, format=container, subtype=subtype)
    return Sample(file.key, encoded.getvalue(), extension, len(samples), file.recording.labels)


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


def _undamaged(
    results: Iterator[Sample | Damaged], damaged: dict[str, str], bar: Progress, max_damaged: float
) -> Iterator[Sample]:
    for result in results:
        bar.step()
        if isinstance(result, Damaged):
            damaged[result.file] = result.reason
            _check_damage(damaged, bar.total, max_damaged)
        else:
            yield result


def _check_damage(damaged: Mapping[str, str], total: int, max_damaged: float) -> None:
    if len(damaged) > max_damaged * total:
        shown = "; ".join(f"{file}: {reason}" for file, reason in list(damaged.items())[:3])
        more = f"; and {len(damaged) - 3} more" if len(damaged) > 3 else ""
        raise ValueError(
            f"{len(damaged)} of {total} clips are damaged so far, more than --max-damaged {max_damaged:g} "
            f"allows: {shown}{more}"
        )


def _reason(error: Exception, path: Path) -> str:
    text = " ".join(str(error).split()).replace(f"Error opening {str(path)!r}: ", "")
    return text or type(error).__name__


def summary(index: Index, notes: Sequence[str]) -> str:
    """What a preparation ends with."""
    lines = [
        f"{index.root}: corpus {index.corpus!r}, {index.sample_rate} Hz, {index.channels} channel(s), "
        f"{index.sample_type}"
    ]
    for name, split in index.splits.items():
        lines.append(f"  {name:5} {split.clips:6} clips  {split.hours:7.2f} h  {len(split.shards)} shard(s)")
    lines.append(f"  {len(index.labels.scenes)} scenes, {len(index.labels.events)} events")
    lines += [f"  note: {note}" for note in notes]
    lines.append(f"  {len(index.dropped)} damaged clips dropped")
    lines += [f"    {file}: {reason}" for file, reason in index.dropped]
    lines += [f"  licence: {index.licence}", f"  checksum {index.checksum}"]
    return "\n".join(lines)


app = SubcommandApp()


@dataclass(frozen=True)
class Work:
    """Where the shards go and how they are made."""

    out: Path
    """the folder for the shards; must not exist or be empty"""
    max_damaged: float = 0.01
    """the fraction of clips that may be damaged"""
    jobs: int = os.cpu_count() or 1
    """threads that decode and encode"""

    def run(self, listing: Corpus, source: Path, name: str) -> None:
        index = prepare(listing, source, self.out, name=name, max_damaged=self.max_damaged, jobs=self.jobs)
        print(summary(index, listing.notes))


@dataclass(frozen=True)
class HoldOut:
    """How a validation split is made where there is none."""

    validation: Validation = "auto"
    """auto = the corpus's val list if there is one, else by location; random is what the papers do"""
    validation_fraction: float = 0.2
    """how much of the training list is held out where there is no val list"""
    seed: int = 0
    """of the hold-out"""

    def options(self) -> dict[str, Any]:
        return vars(self)


WorkFlags = Annotated[Work, tyro.conf.arg(name="")]
HoldOutFlags = Annotated[HoldOut, tyro.conf.arg(name="")]
DEFAULT_HOLD_OUT = HoldOut()


@app.command(name="tau-like")
def tau_like(
    source: Path,
    work: WorkFlags,
    fold: int = 1,
    corpus: str | None = None,
    hold_out: HoldOutFlags = DEFAULT_HOLD_OUT,
) -> None:
    """A folder laid out like TAU Urban Acoustic Scenes 2019 (datasets/corpora/tau_like.py has the layout).

    Args:
        source: the corpus folder, with meta.csv, evaluation_setup/ and audio/
        fold: which of evaluation_setup/fold<k>_*.csv
        corpus: its name in reports (tau2019, tut2018, jssed: with licence, citation); default: the folder's
    """
    name = corpus or source.resolve().name
    listing = read_tau_like(source, fold=fold, about=ABOUT.get(name, UNKNOWN), **hold_out.options())
    work.run(listing, source, name)


@app.command(name="tau2019")
def tau2019(source: Path, work: WorkFlags, hold_out: HoldOutFlags = DEFAULT_HOLD_OUT) -> None:
    """TAU Urban Acoustic Scenes 2019, development set, as it is unpacked.

    Args:
        source: TAU-urban-acoustic-scenes-2019-development/
    """
    work.run(read_tau2019(source, **hold_out.options()), source, "tau2019")


@app.command(name="audioset")
def audioset(
    source: Path,
    work: WorkFlags,
    train: TrainingLists = "balanced",
    hold_out: HoldOutFlags = DEFAULT_HOLD_OUT,
) -> None:
    """AudioSet: 527 events, no scenes, weak labels. Listed clips without a file are counted, not fatal.

    Args:
        source: the folder with class_labels_indices.csv, the segment lists and, anywhere below, the clips
        train: the training lists; eval_segments.csv is the test split
    """
    listing = read_audioset(source, train=train, **hold_out.options())
    work.run(listing, source, "audioset")


@app.command(name="fsdkaggle2019")
def fsdkaggle2019(
    source: Path,
    work: WorkFlags,
    train: TrainingPart = "curated",
    hold_out: HoldOutFlags = DEFAULT_HOLD_OUT,
) -> None:
    """FSDKaggle2019 (DCASE 2019 task 2): 80 events, no scenes.

    Args:
        source: the folder with FSDKaggle2019.meta/ and the FSDKaggle2019.audio_… folders
        train: the training clips; validation is held out of the curated ones where they are used
    """
    listing = read_fsdkaggle2019(source, train=train, **hold_out.options())
    work.run(listing, source, "fsdkaggle2019")


@app.command(name="tut2018")
def tut2018(source: Path, work: WorkFlags, hold_out: HoldOutFlags = DEFAULT_HOLD_OUT) -> None:
    """TUT Urban Acoustic Scenes 2018, development set (the mobile variant too), as it is unpacked.

    Args:
        source: TUT-urban-acoustic-scenes-2018-development/
    """
    work.run(read_tut2018(source, **hold_out.options()), source, "tut2018")


@app.command(name="tut-sed")
def tut_sed(
    source: Path,
    work: WorkFlags,
    fold: int = 1,
    clip_seconds: float = 10.0,
    merge_years: bool = False,
    hold_out: HoldOutFlags = DEFAULT_HOLD_OUT,
) -> None:
    """TUT Sound Events 2016 and 2017: scenes and events with onsets and offsets.

    Args:
        source: TUT-sound-events-2016-development/, that of 2017, or the folder that holds both
        fold: which of the four
        clip_seconds: the length of the clips that the recordings are cut into; 0 = whole recordings
        merge_years: "car passing by" and "children shouting" of 2016 become "car" and "children" of 2017
    """
    listing = read_tut_sed(
        source, fold=fold, clip_seconds=clip_seconds, merge_years=merge_years, **hold_out.options()
    )
    work.run(listing, source, "tut-sed")


@app.command(name="table")
def table(
    source: Path,
    work: WorkFlags,
    list_file: str | None = None,
    separator: str = ",",
    corpus: str | None = None,
    hold_out: HoldOutFlags = DEFAULT_HOLD_OUT,
) -> None:
    """Any recordings with one table: path, split, scene, events, onset, offset, location.

    datasets/corpora/listing.py has the rules.

    Args:
        source: the folder that the table's paths start from
        list_file: the table inside it; default: table.csv, table.tsv or table.parquet
        separator: between the names in a cell of events
        corpus: its name in reports; default: the folder's
    """
    listing = read_listing(source, table=list_file, separator=separator, **hold_out.options())
    work.run(listing, source, corpus or source.resolve().name)


def main(argv: list[str] | None = None) -> int:
    try:
        app.cli(args=argv, description="Raw recordings to shards.")
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("error: interrupted; nothing was written", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
