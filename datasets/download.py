"""Corpora that have public archives.

    python -m datasets.download list
    python -m datasets.download NAME --out DIR [--only meta]

datasets/archives.json has the places, sizes and checksums. Each archive is downloaded to DIR/archives (gone
on with where it broke off), checked, unpacked into DIR and deleted, unless --keep-archives; a record,
DIR/archives/<file>.json, says that it was, so that the same command again does what is left. A checksum that
archives.json lacks is asked of the record that the corpus' place keeps. Where that can't be had either,
the file's SHA-256 is printed: compare it with a colleague's.
"""

from __future__ import annotations

import json
import re
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import tyro
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, TextColumn, TimeRemainingColumn, TransferSpeedColumn
from rich.progress import Progress as Bars

from datasets import remote
from datasets.checksums import from_record
from datasets.command import asked, exit_code
from datasets.fetch import Fetched, Progress, fetch
from datasets.unpack import unpack

DATA = Path(__file__).with_name("archives.json")
ARCHIVES = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")


@dataclass(frozen=True)
class Archive:
    """A file of a corpus; `bytes` and `md5` are None where they are not known."""

    name: str
    url: str
    bytes: int | None
    md5: str | None


@dataclass(frozen=True)
class Request:
    """Download a corpus that has public archives."""

    name: tyro.conf.Positional[str]
    """The corpus; `list` shows which there are."""
    out: Path | None = None
    """Folder to unpack into; left out only with `list`."""
    only: tuple[str, ...] = ()
    """Only files with these parts in their names, e.g. meta or audio.3."""
    mirror: str | None = None
    """URL of a folder that has the same files."""
    keep_archives: bool = False
    """Do not delete an archive when it is unpacked."""


def corpora() -> dict[str, dict[str, Any]]:
    """What archives.json lists, by name."""
    return json.loads(DATA.read_text(encoding="utf-8"))["corpora"]


def archives(corpus: Mapping[str, Any], mirror: str | None = None) -> list[Archive]:
    """The files of a corpus at their own place or at `mirror`."""
    pattern = corpus["url"] if mirror is None else mirror.rstrip("/").replace("{", "%7B") + "/{name}"
    return [
        Archive(file["name"], pattern.replace("{name}", file["name"]), file["bytes"], file["md5"])
        for file in corpus["files"]
    ]


def chosen(files: Sequence[Archive], only: Sequence[str]) -> list[Archive]:
    """Those that have one of the parts `only` in their names, between dots; all for none."""
    kept = [file for file in files if not only or any(f".{part}." in f".{file.name}." for part in only)]
    if not kept:
        names = ", ".join(file.name for file in files)
        raise ValueError(f"--only {' '.join(only)}: no file has that part in its name: {names}")
    return kept


def download(
    corpus: Mapping[str, Any], files: Sequence[Archive], out: Path, keep_archives: bool = False
) -> None:
    """Fetch, check and unpack `files` into `out`; what an earlier call finished is left out.

    Raises StorageError, UnpackError or OSError with one line; what came before is kept.
    """
    folder = out / "archives"
    folder.mkdir(parents=True, exist_ok=True)
    there = [file for file in files if _record(folder, file).is_file()]
    for file in there:
        print(f"{file.name}: there already", flush=True)
    todo = _completed([file for file in files if file not in there], corpus.get("record"))
    _check_room(todo, out)
    for file in todo:
        with _progress(file.name) as progress:
            fetched = fetch(file.url, folder / file.name, size=file.bytes, md5=file.md5, progress=progress)
        print(f"{file.name}: {fetched.bytes:,} bytes, {_verdict(fetched)}", flush=True)
        if not is_piece(file.name, corpus):
            _place(file, fetched, out, keep_archives)
        about = {"url": remote.shown(file.url), "bytes": fetched.bytes, "sha256": fetched.sha256}
        _record(folder, file).write_text(json.dumps(about | {"verified": fetched.verified}) + "\n")
    _report(corpus, {file.name for file in files}, out)


def _completed(files: Sequence[Archive], record: str | None) -> Sequence[Archive]:
    """`files` with the sizes and checksums that are published where they come from, if they can be had;
    nobody is asked where none is missing."""
    if record is None or all(file.md5 is not None for file in files):
        return files
    try:
        known = from_record(record)
    except remote.StorageError as error:
        print(f"note: {error}; files without a known checksum can't be verified", file=sys.stderr)
        known = {}
    return [
        replace(file, bytes=known[file.name][0], md5=known[file.name][1])
        if file.md5 is None and file.name in known
        else file
        for file in files
    ]


def _record(folder: Path, file: Archive) -> Path:
    return folder / f"{file.name}.json"


def _verdict(fetched: Fetched) -> str:
    if fetched.verified:
        return "MD5 as expected"
    return f"could not be verified (no checksum is known); SHA-256 {fetched.sha256}"


def _place(file: Archive, fetched: Fetched, out: Path, keep_archives: bool) -> None:
    """Unpack an archive; anything else is moved to `out`."""
    if file.name.endswith(ARCHIVES):
        unpack(fetched.path, out)
        if not keep_archives:
            fetched.path.unlink()
    else:
        shutil.move(fetched.path, out / file.name)


def split_zips(corpus: Mapping[str, Any]) -> list[str]:
    """The last pieces of zips that are split over X.z01, X.z02 … X.zip."""
    names = [file["name"] for file in corpus["files"]]
    return [name for name in names if name.removesuffix(".zip") + ".z01" in names]


def is_piece(name: str, corpus: Mapping[str, Any]) -> bool:
    """Whether a file is a piece of a split zip, which only a joining tool unpacks."""
    return name in split_zips(corpus) or re.search(r"\.z\d\d$", name) is not None


def _check_room(files: Sequence[Archive], out: Path) -> None:
    """What is unpacked is at least as large as the archives, and the largest lies beside it meanwhile."""
    sizes = [file.bytes or 0 for file in files]
    needed, free = sum(sizes) + max(sizes, default=0), shutil.disk_usage(out).free
    if needed > free:
        raise ValueError(
            f"{out}: about {needed / 1e9:.1f} GB are needed, {free / 1e9:.1f} GB are free; --only downloads "
            "parts"
        )


def _report(corpus: Mapping[str, Any], names: set[str], out: Path) -> None:
    for last in split_zips(corpus):
        if last in names:
            joined = last.replace(".zip", ".joined.zip")
            print(
                f"{last} is the last piece of a split zip; when all are there, join and unpack them:\n"
                f"  cd {out / 'archives'} && zip -s 0 {last} --out {joined} && unzip {joined} -d .."
            )
    print(f"{corpus['title']}: in {out}; terms of use: {corpus['page']}")
    if "prepare" in corpus:
        source = out / corpus["folder"]
        print(f"next: python -m datasets.prepare {corpus['prepare']} --source {source} --out SHARDS")


@contextmanager
def _progress(name: str) -> Iterator[Progress]:
    """A bar on a terminal, silence elsewhere."""
    console = Console(stderr=True)
    columns = (
        TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn(),
        TimeRemainingColumn(),
    )  # fmt: skip
    with Bars(*columns, console=console, disable=not console.is_terminal, transient=True) as bars:
        task = bars.add_task(name, total=None)
        yield lambda done, total: bars.update(task, completed=done, total=total)


def run(request: Request) -> None:
    known = corpora()
    if request.name == "list":
        for name, corpus in known.items():
            gigabytes = sum(file["bytes"] or 0 for file in corpus["files"]) / 1e9
            size = f"{gigabytes:6.1f} GB" if gigabytes else "  size unknown"
            print(f"{name:24}{size:>14}  {corpus['title']}")
        return
    if request.name not in known:
        raise ValueError(f"corpus {request.name!r} is not one of: {', '.join(known)}")
    if request.out is None:
        raise ValueError("--out is missing: the folder to unpack into")
    if request.mirror is not None and not re.match("https?://", request.mirror):
        raise ValueError(f"--mirror {request.mirror}: expected an http:// or https:// URL")
    corpus = known[request.name]
    files = chosen(archives(corpus, request.mirror), request.only)
    download(corpus, files, request.out, request.keep_archives)


def main(argv: list[str] | None = None) -> int:
    request = asked(Request, "python -m datasets.download", __doc__, argv)
    return exit_code(lambda: run(request), stopped="stopped; the same command goes on with what is left")


if __name__ == "__main__":
    sys.exit(main())
