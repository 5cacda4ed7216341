"""Files where they lie: in a local folder or at http(s)://, s3:// or gs://, read in byte ranges.

A remote file is read in ranges of BLOCK_BYTES, each one request, the next one under way while the last is
being decoded. One long response would be fewer requests, but a reader that decodes is slow, servers cut
connections that idle, and what is lost of a range is only that range. datasets.remote makes the requests.
"""

from __future__ import annotations

import io
import os
import re
import shutil
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, BinaryIO, TypeVar
from urllib.parse import unquote, urlsplit, urlunsplit

from datasets import remote
from datasets.remote import NotFoundError, Retry, StorageError, shown

__all__ = [
    "NotFoundError", "Retry", "StorageError", "check_writable", "exists", "is_url", "join", "open_stream",
    "parse", "put", "read_bytes", "read_range", "shown", "size", "sizes",
]  # fmt: skip

A = TypeVar("A")

BLOCK_BYTES = 8 * 2**20
BUFFER_BYTES = 2**16
CONNECTIONS = 16
SCHEMES = ("file", "http", "https", "s3", "gs", "gcs", "memory")


def is_url(place: str | Path) -> bool:
    """Whether `place` is a URL and not a local path; file:// counts as one."""
    return isinstance(place, str) and "://" in place


def is_remote(place: str | Path) -> bool:
    return not isinstance(parse(place), Path)


def parse(place: str | Path) -> str | Path:
    """A Path for a local place (file:// too), else the URL without a '/' at its end.

    Raises ValueError for a URL of another scheme than SCHEMES, fsspec's chains (`simplecache::s3://`)
    included.
    """
    if not is_url(place):
        return Path(place)
    url = urlsplit(str(place))
    if url.scheme not in SCHEMES or "::" in str(place).split("://")[0]:
        accepted = ", ".join(f"{scheme}://" for scheme in SCHEMES if scheme != "memory")
        raise ValueError(f"{shown(place)}: accepted are local folders and {accepted}")
    if url.scheme == "file":
        if url.netloc not in ("", "localhost"):
            raise ValueError(f"{shown(place)}: a file:// URL has three slashes before its path, file:///…")
        return Path(unquote(url.path))
    return urlunsplit(url._replace(path=url.path.rstrip("/")))


def join(root: str | Path, name: str) -> str | Path:
    """The place of `name` below `root`; a token in the URL's query stays behind it.

    Raises ValueError for a name that leads out of `root`: absolute, with `..`, or a URL.
    """
    if not name or name[0] == "/" or "\\" in name or ".." in name.split("/") or re.match(r"\w+:", name):
        raise ValueError(f"name {name!r} leads out of {shown(root)}")
    place = parse(root)
    if isinstance(place, Path):
        return place / name
    url = urlsplit(place)
    return urlunsplit(url._replace(path=f"{url.path}/{name}"))


def read_range(root: str | Path, name: str, offset: int, size: int, *, retry: Retry | None = None) -> bytes:
    """Exactly `size` bytes from `offset` on. Raises StorageError, also where the file ends before."""
    place = join(root, name)
    if isinstance(place, Path):
        with _local_errors(), open(place, "rb", buffering=0) as file:
            file.seek(offset)
            data = file.read(size)
        if len(data) != size:
            raise StorageError(f"{place}: ends after {offset + len(data)} bytes, {offset + size} are wanted")
        return data
    if size == 0:
        return b""
    return remote.retried(place, lambda: remote.fetch(place, offset, size), retry)


def read_bytes(root: str | Path, name: str, *, retry: Retry | None = None) -> bytes:
    """A whole (small) file. Raises NotFoundError, StorageError."""
    place = join(root, name)
    if isinstance(place, Path):
        with _local_errors():
            return place.read_bytes()
    return remote.retried(place, lambda: remote.fetch(place, 0, None), retry)


def size(root: str | Path, name: str, *, retry: Retry | None = None) -> int | None:
    """Bytes of a file; None where the server does not say. Raises NotFoundError, StorageError."""
    place = join(root, name)
    if isinstance(place, Path):
        with _local_errors():
            return place.stat().st_size
    return remote.retried(place, lambda: remote.size(place), retry)


def sizes(root: str | Path, names: Sequence[str]) -> list[int | None]:
    """`size` of many files, CONNECTIONS at a time where they are remote."""
    if isinstance(parse(root), Path):
        return [size(root, name) for name in names]
    with ThreadPoolExecutor(CONNECTIONS) as pool:
        return list(pool.map(lambda name: size(root, name), names))


def exists(root: str | Path, name: str, *, retry: Retry | None = None) -> bool:
    """Raises StorageError where that can't be known."""
    try:
        size(root, name, retry=retry)
    except NotFoundError:
        return False
    return True


def put(local: Path, root: str | Path, name: str, *, retry: Retry | None = None) -> None:
    """Copy a local file to `root`, where it appears under its name only when it is whole."""
    place = join(root, name)
    if isinstance(place, Path):
        with _local_errors():
            place.parent.mkdir(parents=True, exist_ok=True)
            partial = place.with_name(f".{place.name}.{os.getpid()}")
            shutil.copyfile(local, partial)
            os.replace(partial, place)
        return
    check_writable(place)
    remote.retried(place, lambda: remote.put(local, place), retry)


def check_writable(place: str | Path) -> None:
    """Raises StorageError for a place of a kind that is only read."""
    if isinstance(place, str) and place.startswith("http"):
        raise StorageError(f"{shown(place)}: http servers can't be written to; use a folder, s3:// or gs://")


def open_stream(
    root: str | Path,
    name: str,
    offset: int = 0,
    size: int | None = None,
    *,
    buffer_bytes: int = BUFFER_BYTES,
    retry: Retry | None = None,
) -> BinaryIO:
    """The bytes [offset, offset + size) as a stream of its own; `size=None` = to the end of the file.

    Reading may raise StorageError. Close it: a local file stays open until then.
    """
    place = join(root, name)
    if isinstance(place, Path):
        with _local_errors():
            file = open(place, "rb", buffering=0)  # noqa: SIM115 - the stream closes it
            left = os.fstat(file.fileno()).st_size - offset if size is None else size
        return io.BufferedReader(_FileRange(file, offset, left), buffer_bytes)
    if size is None:
        size = _known_size(root, name, retry) - offset
    return io.BufferedReader(_RemoteRange(root, name, offset, size, retry), buffer_bytes)


class _FileRange(io.RawIOBase):
    """A stretch of an unbuffered file; what lies beyond does not exist for its reader."""

    def __init__(self, file: BinaryIO, offset: int, size: int) -> None:
        file.seek(offset)
        self._file, self._left = file, size

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer)[: self._left]
        count = self._file.readinto(view)  # type: ignore[attr-defined]
        self._left -= count
        return count

    def close(self) -> None:
        self._file.close()
        super().close()


class _RemoteRange(io.RawIOBase):
    """A stretch of a remote file, block by block; the next block is fetched while this one is read."""

    def __init__(self, root: str | Path, name: str, offset: int, size: int, retry: Retry | None) -> None:
        edges = [*range(offset, offset + size, BLOCK_BYTES), offset + size]
        self._ranges = iter([(start, stop - start) for start, stop in zip(edges, edges[1:])])
        self._read = lambda start, count: read_range(root, name, start, count, retry=retry)
        self._block = memoryview(b"")
        self._next = self._ask()

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        if not self._block and self._next is not None:
            self._block = memoryview(self._next.result())
            self._next = self._ask()
        count = min(len(buffer), len(self._block))
        buffer[:count] = self._block[:count]
        self._block = self._block[count:]
        return count

    def _ask(self) -> Future[bytes] | None:
        wanted = next(self._ranges, None)
        return None if wanted is None else _in_thread(lambda: self._read(*wanted))


def _in_thread(function: Callable[[], A]) -> Future[A]:
    """Its own daemon thread: a pool's would be waited for at exit, through all the pauses of a failing
    read."""
    future: Future[A] = Future()

    def work() -> None:
        try:
            future.set_result(function())
        except BaseException as error:  # noqa: B036 - handed to the reader, who raises it
            future.set_exception(error)

    threading.Thread(target=work, name="read-ahead", daemon=True).start()
    return future


def _known_size(root: str | Path, name: str, retry: Retry | None) -> int:
    found = size(root, name, retry=retry)
    if found is None:
        raise StorageError(f"{shown(join(root, name))}: the server does not say how many bytes it has")
    return found


class _local_errors:
    """Local files fail with the system's own words and no second attempt."""

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        if isinstance(error, FileNotFoundError):
            raise NotFoundError(f"{error.filename}: no such file") from error
        if isinstance(error, OSError) and not isinstance(error, StorageError):
            failed = StorageError(error.errno, f"{error.filename}: {error.strerror}")
            raise failed from error
