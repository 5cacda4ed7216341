"""A corpus to shards: probe every file, then encode split after split into a staging folder, and publish.

What `datasets.prepare` does once a reader has said which files, splits and labels there are.
"""

from __future__ import annotations

import functools
import hashlib
import json
import shutil
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import scipy
import soundfile

from datasets.convert import AS_IT_IS, Conversion
from datasets.corpora.corpus import Corpus
from datasets.encode import AudioFile, Damaged, Encoded, Headers, encode, probe
from datasets.prefetch import map_ahead
from datasets.progress import Progress
from datasets.shard_writer import SHARD_BYTES, Sample, unique_keys, write_split
from datasets.shards import Index, Shard, Split, make_index
from datasets.staging import Finished, Staging, check_free, staging

SHUFFLE = 20261120
RECORD = "prepared.json"


@dataclass(frozen=True)
class Built:
    """A shard set and sentences about what was left out, looked odd or was converted."""

    index: Index
    notes: tuple[str, ...]


def build_shards(
    corpus: Corpus,
    source: Path,
    out: str | Path,
    *,
    name: str,
    conversion: Conversion = AS_IT_IS,
    max_damaged: float = 0.01,
    jobs: int = 1,
    progress: bool = True,
    shard_bytes: int = SHARD_BYTES,
) -> Built:
    """Write the shards of `corpus`, whose files lie below `source`, to the folder or URL `out`.

    Raises ValueError or OSError with one line when `out` is in use, the files differ after `conversion` in
    sampling rate or channels, or more than the fraction `max_damaged` of them is damaged. Nothing is at `out`
    then; finished shards are kept for the next try.
    """
    _check_options(max_damaged, jobs, shard_bytes)
    check_free(out)
    files = _files(corpus, source)
    headers = probe(
        [file for members in files.values() for file in members], conversion, jobs, progress=progress
    )
    tally = Tally({}, sum(map(len, files.values())), max_damaged)
    tally.add(headers.damaged, 0)
    with staging(out, _what(corpus, name, files, conversion, shard_bytes)) as stage:
        encoder = functools.partial(encode, conversion=conversion)
        splits = _write_splits(files, headers, encoder, stage, tally, jobs, progress, shard_bytes)
        index = make_index(
            stage.folder,
            splits,
            corpus=name,
            sample_rate=headers.sample_rate,
            channels=headers.channels,
            sample_type=headers.sample_type,
            labels=corpus.labels,
            licence=corpus.about.licence,
            citation=corpus.about.citation,
            dropped=sorted(tally.damaged.items()),
        )
        _write_documents(corpus, source, stage.folder, conversion, tally.limited)
        stage.publish(index)
    notes = list(corpus.notes)
    if not conversion.nothing:
        notes.append(conversion.describe())
    if tally.limited:
        notes.append(f"{tally.limited} clips had samples beyond full scale, which are limited to it")
    root: Any = out
    return Built(replace(index, root=root), tuple(notes))


def _check_options(max_damaged: float, jobs: int, shard_bytes: int) -> None:
    if not 0 <= max_damaged < 1:
        raise ValueError(f"--max-damaged {max_damaged}: accepted are fractions from 0 to below 1")
    if jobs < 1:
        raise ValueError(f"--jobs {jobs}: at least 1")
    if shard_bytes < 1:
        raise ValueError(f"--shard-mb {shard_bytes / 2**20:g}: more than 0")


@dataclass
class Tally:
    """What was odd so far: {damaged file: reason}, and how many clips had samples beyond full scale."""

    damaged: dict[str, str]
    total: int
    max_damaged: float
    limited: int = 0

    def add(self, damaged: Mapping[str, str], limited: int) -> None:
        """Raises ValueError when it becomes too much damage."""
        self.limited += limited
        self.damaged |= damaged
        if damaged and len(self.damaged) > self.max_damaged * self.total:
            shown = "; ".join(f"{file}: {reason}" for file, reason in list(self.damaged.items())[:3])
            more = f"; and {len(self.damaged) - 3} more" if len(self.damaged) > 3 else ""
            raise ValueError(
                f"{len(self.damaged)} of {self.total} clips are damaged so far, more than --max-damaged "
                f"{self.max_damaged:g} allows: {shown}{more}"
            )


def _write_splits(
    files: Mapping[str, Sequence[AudioFile]],
    headers: Headers,
    encoder: Callable[[AudioFile], Encoded | Damaged],
    stage: Staging,
    tally: Tally,
    jobs: int,
    progress: bool,
    shard_bytes: int,
) -> dict[str, Split]:
    """Raises ValueError when too many files are damaged, or all of a split."""
    if stage.finished and progress:
        print(f"note: going on after {len(stage.finished)} finished shards", file=sys.stderr)
    done = sum(max((item.files for item in stage.of_split(split)), default=0) for split in files)
    splits = {}
    with Progress(tally.total - len(headers.damaged), progress, done=done) as bar:
        for split, members in files.items():
            todo = [file for file in members if file.recording.name not in headers.damaged]
            before = stage.of_split(split)
            work = SplitWork(split, stage, tally, before[-1].files if before else 0)
            for item in before:
                tally.add(item.damaged, item.limited)
            results = map_ahead(encoder, todo[work.used :], jobs)
            splits[split] = write_split(
                stage.folder,
                split,
                work.samples(results, bar),
                headers.sample_rate,
                shard_bytes,
                done=[item.shard for item in before],
                on_shard=work.finish,
            )
            if splits[split].clips == 0:
                stage.discard()
                raise ValueError(f"split {split!r} has no clip left: {len(members)} files, all damaged")
    return splits


@dataclass
class SplitWork:
    """Where a split is: `used` of its files, and what was odd among those since its last finished shard."""

    split: str
    stage: Staging
    tally: Tally
    used: int
    damaged: dict[str, str] = field(default_factory=dict)
    limited: int = 0

    def samples(self, results: Iterable[Encoded | Damaged], bar: Progress) -> Iterator[Sample]:
        for result in results:
            bar.step()
            self.used += 1
            if isinstance(result, Damaged):
                self.damaged[result.file] = result.reason
                self.tally.add({result.file: result.reason}, 0)
            else:
                self.limited += result.limited > 0
                self.tally.add({}, int(result.limited > 0))
                yield result.sample

    def finish(self, shard: Shard) -> None:
        """A shard ends before the next file is taken, so what is recorded is exact."""
        self.stage.record(Finished(self.split, shard, self.used, dict(self.damaged), self.limited))
        self.damaged.clear()
        self.limited = 0


def _files(corpus: Corpus, source: Path) -> dict[str, list[AudioFile]]:
    """The files of each split, shuffled: the streaming reader mixes clips only within a window."""
    files = {}
    for split, recordings in corpus.splits.items():
        keys = unique_keys(recording.name for recording in recordings)
        found = [AudioFile(key, source / r.file, r) for key, r in zip(keys, recordings)]
        order = np.random.default_rng(SHUFFLE).permutation(len(found))
        files[split] = [found[place] for place in order]
    return files


def _what(
    corpus: Corpus,
    name: str,
    files: Mapping[str, Sequence[AudioFile]],
    conversion: Conversion,
    shard_bytes: int,
) -> dict[str, Any]:
    """What decides the bytes of the shards: only a preparation that agrees in all of it may go on."""
    digest = hashlib.sha256()
    for split, members in files.items():
        for file in members:
            try:
                stat = file.path.stat()
                state = [stat.st_size, stat.st_mtime_ns]
            except OSError:
                state = []
            r = file.recording
            record = [split, file.key, r.file, r.start, r.seconds, state, r.labels.to_json().decode()]
            digest.update(json.dumps(record).encode())
    return {
        "corpus": name,
        "--rate": conversion.rate,
        "--channels": conversion.channels,
        "classes": [len(corpus.labels.scenes), len(corpus.labels.events)],
        "list of files, with their labels, sizes and dates,": digest.hexdigest(),
        "shard size": shard_bytes,
        "software": _software(),
    }


def _software() -> dict[str, str]:
    return {
        "libsndfile": soundfile.__libsndfile_version__,
        "numpy": np.__version__,
        "scipy": scipy.__version__,
    }


def _write_documents(
    corpus: Corpus, source: Path, folder: Path, conversion: Conversion, limited: int
) -> None:
    """The source's licence notices, and how the set was made: prepared.json."""
    for notice in sorted([*source.glob("LICEN[SC]E*"), *source.glob("EULA*")]):
        if notice.is_file():
            shutil.copyfile(notice, folder / notice.name)
    record = {
        "conversion": {**asdict(conversion), "how": conversion.describe()},
        "clips_with_samples_limited_to_full_scale": limited,
        "notes": [note.replace(f"{source}/", "") for note in corpus.notes],
        "software": _software(),
    }
    if corpus.without_clip:
        record["segments_without_a_clip"] = corpus.without_clip
    (folder / RECORD).write_text(json.dumps(record, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
