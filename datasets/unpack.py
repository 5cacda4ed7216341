"""Archives from the internet to a folder, safely.

Every member is looked at before the first is written: plain files and folders only, below the folder, and not
more in all than the disk holds or than an honest archive of that size unpacks to. zip and tar (compressed or
not). A file appears under its name only when it is whole; what is there by that name is replaced.
"""

from __future__ import annotations

import os
import re
import shutil
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from gzip import BadGzipFile
from lzma import LZMAError
from pathlib import Path, PurePosixPath
from typing import IO, Any

# An archive of audio unpacks to little more than its own size; of tables, to perhaps twenty times that.
MOST_TIMES = 100
ALWAYS_ALLOWED = 64 * 2**20
MOST_FILES = 1_000_000
SPARE_BYTES = 64 * 2**20

DAMAGED = (
    *(zipfile.BadZipFile, tarfile.TarError, BadGzipFile, zlib.error, LZMAError),
    *(EOFError, NotImplementedError, RuntimeError),
)


class UnpackError(ValueError):
    """An archive that is damaged, or that is not unpacked for safety. One line with archive and member."""


@dataclass(frozen=True)
class Member:
    """`refused` says what it is where it is not a plain file or a folder."""

    name: str
    size: int
    folder: bool
    refused: str
    handle: Any


def unpack(archive: Path, out: Path) -> list[Path]:
    """Write the files of a zip or tar below `out` and return their places. Raises UnpackError, OSError."""
    try:
        with _opened(archive) as (members, read):
            listed = list(members)
            _check(archive, listed, out)
            return [_write(archive, member, read(member), out) for member in listed if not member.folder]
    except DAMAGED as error:
        raise UnpackError(f"{archive.name}: can't be unpacked: {error}") from error


def _check(archive: Path, members: list[Member], out: Path) -> None:
    total, most = 0, ALWAYS_ALLOWED + MOST_TIMES * archive.stat().st_size
    if len(members) > MOST_FILES:
        raise UnpackError(f"{archive.name}: has {len(members)} members, the limit is {MOST_FILES}")
    for member in members:
        where = f"{archive.name}: member {member.name!r}"
        name = PurePosixPath(member.name)
        if name.is_absolute() or ".." in name.parts or re.search(r"[\\\0]|^[A-Za-z]:", member.name):
            raise UnpackError(f"{where}: leads out of the folder")
        if member.refused:
            raise UnpackError(f"{where}: is {member.refused}; only plain files are unpacked")
        total += member.size
        if member.size < 0 or total > most:
            raise UnpackError(
                f"{where}: unpacks to more than {most} bytes in all, {MOST_TIMES} times the archive: a bomb?"
            )
    free = shutil.disk_usage(out).free
    if total + SPARE_BYTES > free:
        raise UnpackError(
            f"{archive.name}: unpacks to {total / 1e9:.2f} GB, {free / 1e9:.2f} GB are free in {out}"
        )


def _write(archive: Path, member: Member, source: IO[bytes], out: Path) -> Path:
    path = out / member.name
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.parent.resolve().is_relative_to(out.resolve()):  # a link that was there before
        raise UnpackError(
            f"{archive.name}: member {member.name!r}: leads out of the folder by a link in {out}"
        )
    unnamed = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with source, open(unnamed, "wb") as file:
            left = member.size
            while data := source.read(min(2**20, left + 1)):
                left -= len(data)
                if left < 0:
                    raise UnpackError(f"{archive.name}: member {member.name!r}: is larger than it says")
                file.write(data)
        if left:
            raise UnpackError(f"{archive.name}: member {member.name!r}: ends {left} bytes too early")
        os.replace(unnamed, path)
    finally:
        unnamed.unlink(missing_ok=True)
    return path


@contextmanager
def _opened(archive: Path) -> Iterator[tuple[Iterator[Member], Any]]:
    """(the members, a function that opens one)."""
    if zipfile.is_zipfile(archive):
        with zipfile.ZipFile(archive) as opened:
            yield map(_zip_member, opened.infolist()), lambda member: opened.open(member.handle)
    elif tarfile.is_tarfile(archive):
        with tarfile.open(archive) as tar:
            yield _tar_members(tar), lambda member: tar.extractfile(member.handle)
    else:
        raise UnpackError(f"{archive.name}: is neither zip nor tar")


def _zip_member(info: zipfile.ZipInfo) -> Member:
    kind = stat.S_IFMT(info.external_attr >> 16)
    refused = "a link or a device" if kind not in (0, stat.S_IFREG, stat.S_IFDIR) else ""
    return Member(
        info.filename, info.file_size, info.is_dir(), "encrypted" if info.flag_bits & 1 else refused, info
    )


def _tar_members(tar: tarfile.TarFile) -> Iterator[Member]:
    yield from map(_tar_member, tar)
    while tar.fileobj and tar.fileobj.read(2**20):  # on to the checksum at the end of a compressed stream
        pass


def _tar_member(info: tarfile.TarInfo) -> Member:
    plain = (info.isreg() and not info.issparse()) or info.isdir()
    return Member(info.name, info.size, info.isdir(), "" if plain else "a link, a device or sparse", info)
