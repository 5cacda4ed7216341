"""Where a shard set is made before it has its name, and how a killed preparation goes on.

Shards are written into a folder beside the output, .NAME.unfinished (for a URL: a local folder), with a
manifest: first what is being made, then one line a finished shard, with what of the source it used up. The
same command finds the manifest and goes on after its last line; what is not in it is made again, with the
same bytes. A folder output gets its name when everything is in place; to a URL shards go one by one as they
are finished, and index.json last, so that what has an index.json is complete.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from datasets import storage
from datasets.flush import flush
from datasets.shard_writer import check_unused
from datasets.shards import Clip, Index, Shard

MANIFEST = "manifest.jsonl"
LOCK = ".lock"


@dataclass(frozen=True)
class Finished:
    """A shard that is in place. Up to its end `files` files of its split were used up, `damaged` of them were
    left out ({file: reason}) and `limited` clips had samples beyond full scale."""

    split: str
    shard: Shard
    files: int
    damaged: Mapping[str, str]
    limited: int


@dataclass
class Staging:
    """The folder to write into; `finished` grows with `record`."""

    folder: Path
    out: str | Path
    finished: list[Finished] = field(default_factory=list)

    def of_split(self, split: str) -> list[Finished]:
        return [item for item in self.finished if item.split == split]

    def record(self, item: Finished) -> None:
        """Put the shard where it belongs and remember it. A kill between the two has it made again."""
        path = self.folder / item.shard.name
        if storage.is_url(self.out):
            storage.put(path, self.out, item.shard.name)
        else:
            flush(path)
        self._append(asdict(item))
        self.finished.append(item)
        if storage.is_url(self.out):
            path.unlink()

    def discard(self) -> None:
        """Keep nothing for another try: with these files it would end in the same way."""
        self.finished.clear()

    def publish(self, index: Index) -> None:
        """The last step: the set gets its index, and what is local gets its name."""
        index.save()
        if storage.is_url(self.out):
            names = {path.name for path in self.folder.iterdir()} - {MANIFEST, LOCK, "index.json"}
            for name in (*sorted(names), "index.json"):
                storage.put(self.folder / name, self.out, name)
            shutil.rmtree(self.folder)
        else:
            # The manifest goes after the renaming, so that a kill before it loses nothing.
            self.folder.replace(Path(self.out))
            for name in (MANIFEST, LOCK):
                (Path(self.out) / name).unlink(missing_ok=True)

    def begin(self, what: Mapping[str, Any]) -> None:
        """Go on from the manifest when it is about `what`. Raises FileExistsError when it is about something
        else."""
        lines = self._lines()
        if len(lines) > 1:
            self._check_same(lines[0]["what"], what, len(lines) - 1)
        for line in lines[1:]:
            item = _from_json(line)
            if not self._in_place(item.shard):
                break
            self.finished.append(item)
        self._clear_rest()
        self._rewrite([{"what": dict(what)}, *(asdict(item) for item in self.finished)])

    def _check_same(self, before: Mapping[str, Any], what: Mapping[str, Any], shards: int) -> None:
        for name in what:
            if before.get(name) != what[name]:
                raise FileExistsError(
                    f"{self.folder}: an earlier preparation stopped there after {shards} shards, and its "
                    f"{name} was {_short(before.get(name))}, not {_short(what[name])}; give the same again "
                    "to go on, or delete that folder"
                )

    def _clear_rest(self) -> None:
        """What a killed process left half written."""
        keep = {MANIFEST, LOCK, *(item.shard.name for item in self.finished)}
        for path in self.folder.iterdir():
            if path.name not in keep:
                path.unlink()

    def _in_place(self, shard: Shard) -> bool:
        if storage.is_url(self.out):
            return storage.exists(self.out, shard.name)
        path = self.folder / shard.name
        return path.is_file() and path.stat().st_size == shard.bytes

    def _lines(self) -> list[dict[str, Any]]:
        """The manifest's lines up to the first that was not written to its end."""
        path = self.folder / MANIFEST
        lines = []
        for text in path.read_text(encoding="utf-8").splitlines() if path.is_file() else []:
            try:
                lines.append(json.loads(text))
            except ValueError:
                break
        return lines

    def _append(self, record: Mapping[str, Any]) -> None:
        with open(self.folder / MANIFEST, "a", encoding="utf-8") as file:
            file.write(json.dumps(record) + "\n")
            file.flush()
            os.fsync(file.fileno())

    def _rewrite(self, records: list[dict[str, Any]]) -> None:
        partial = self.folder / f"{MANIFEST}.new"
        partial.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
        os.replace(partial, self.folder / MANIFEST)


@contextmanager
def staging(out: str | Path, what: Mapping[str, Any]) -> Iterator[Staging]:
    """The staging folder of `out`, new or as an earlier run left it. `what` names what decides the bytes.

    An error or a kill leaves it with its finished shards; without any it is deleted. Raises FileExistsError
    when `out` is in use, another process is at work on it or an earlier run made something else.
    """
    check_free(out)
    folder = staging_folder(out)
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / LOCK, timeout=0)
    try:
        lock.acquire()
    except Timeout:
        raise FileExistsError(f"{folder}: another preparation is at work there; wait for it") from None
    stage = Staging(folder, out)
    try:
        stage.begin(what)
        yield stage
    except BaseException as error:
        _leave(stage, error)
        if isinstance(error, OSError) and error.errno == errno.ENOSPC:
            full = OSError(f"{folder.parent}: the disk is full")
            for note in getattr(error, "__notes__", ()):
                full.add_note(note)
            raise full from error
        raise
    finally:
        lock.release()


def check_free(out: str | Path) -> None:
    """Raises FileExistsError unless `out` is an empty folder, nothing yet, or a URL without an index.json;
    StorageError for a URL that can't be written to."""
    if not storage.is_url(out):
        check_unused(Path(out))
        return
    storage.check_writable(out)
    if storage.exists(out, "index.json"):
        raise FileExistsError(f"{out} holds a shard set; give another --out or delete it")


def staging_folder(out: str | Path) -> Path:
    if not storage.is_url(out):
        path = Path(out)
        return path.parent / f".{path.name}.unfinished"
    digest = hashlib.sha256(str(out).encode()).hexdigest()[:16]
    return Path(tempfile.gettempdir()) / f"scenetune-{os.getuid()}-{digest}.unfinished"


def _from_json(line: Mapping[str, Any]) -> Finished:
    shard = line["shard"]
    clips = tuple(Clip(**clip) for clip in shard["clips"])
    return Finished(**{**line, "shard": Shard(**{**shard, "clips": clips})})


def _leave(stage: Staging, error: BaseException) -> None:
    """Say on the error what is kept, or clear away a folder that holds nothing of worth."""
    if stage.finished:
        where = stage.out if storage.is_url(stage.out) else stage.folder
        error.add_note(
            f"{len(stage.finished)} finished shards are kept in {where}: the same command goes on from there"
        )
    elif not isinstance(error, FileExistsError):
        shutil.rmtree(stage.folder, ignore_errors=True)


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else text[:57] + "..."
