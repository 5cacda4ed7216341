"""A place for shards: a local folder or an fsspec URL. A stand-in until branch `remote` brings its own file
with these names."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import BinaryIO

import fsspec


class StorageError(OSError):
    """A place that can't be read or written; the message is one line."""


def is_url(place: str | Path) -> bool:
    return "://" in str(place)


def join(root: str | Path, name: str) -> str | Path:
    return f"{str(root).rstrip('/')}/{name}" if is_url(root) else Path(root) / name


def exists(root: str | Path, name: str) -> bool:
    system, path = fsspec.core.url_to_fs(str(join(root, name)))
    return bool(system.exists(path))


def read_bytes(root: str | Path, name: str) -> bytes:
    system, path = fsspec.core.url_to_fs(str(join(root, name)))
    return bytes(system.cat_file(path))


def open_stream(root: str | Path, name: str) -> BinaryIO:
    system, path = fsspec.core.url_to_fs(str(join(root, name)))
    stream: BinaryIO = system.open(path, "rb")
    return stream


def put(local: Path, root: str | Path, name: str) -> None:
    system, path = fsspec.core.url_to_fs(str(join(root, name)))
    system.makedirs(path.rsplit("/", 1)[0], exist_ok=True)
    with open(local, "rb") as source, system.open(path, "wb") as target:
        shutil.copyfileobj(source, target)
