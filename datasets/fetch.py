"""One file from a web server to a folder: gone on with where it broke off, and checked.

NAME.part            what has come so far
NAME.part.validator  the server's ETag for it: a file that was changed since is begun anew
NAME.bad             whole, but not what the checksum says; kept to be looked at
"""

from __future__ import annotations

import hashlib
import http.client
import shutil
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from datasets.remote import Failure, Retry, StorageError, retried

CHUNK_BYTES = 2**18
TIMEOUT = 60.0
SPARE_BYTES = 64 * 2**20

Progress = Callable[[int, int | None], None]
"""Called with the bytes that are there and the bytes of the whole, None where the server does not say."""


@dataclass(frozen=True)
class Fetched:
    """`verified`: the file has the MD5 that was expected of it; False where none is known."""

    path: Path
    bytes: int
    sha256: str
    verified: bool


def fetch(
    url: str,
    path: Path,
    *,
    size: int | None = None,
    md5: str | None = None,
    progress: Progress = lambda done, total: None,
    retry: Retry | None = None,
) -> Fetched:
    """Download `url` to `path`, going on with what an earlier call left. `size` in bytes.

    A break after which something came is not counted as an attempt: a long download may break often. Raises
    StorageError with one line: no such file, a server that stays silent, no room, another size or checksum.
    """
    part = path.with_name(path.name + ".part")
    while not retried(url, lambda: _attempt(url, part, size, progress), retry):
        pass
    found = part.stat().st_size
    digests = _digests(part)
    if (size is not None and found != size) or (md5 is not None and digests["md5"] != md5):
        bad = path.with_name(path.name + ".bad")
        part.replace(bad)
        _validator(part).unlink(missing_ok=True)
        expected = f"{size if size is not None else '?'} bytes, MD5 {md5}"
        raise StorageError(
            f"{path.name}: has {found} bytes, MD5 {digests['md5']}; expected {expected}; kept as {bad}. Was "
            "it damaged on the way, or is there a new version? Run again to download it anew"
        )
    part.replace(path)
    _validator(part).unlink(missing_ok=True)
    return Fetched(path, found, digests["sha256"], md5 is not None)


def _attempt(url: str, part: Path, size: int | None, progress: Progress) -> bool:
    """One request for what is missing. Whether all is there now; False = it broke, but something came."""
    have = part.stat().st_size if part.exists() else 0
    if size is not None and have == size:
        return True
    with _opened(url, part, have) as response:
        if response.status == 416:
            if _total(response) == have:
                return True
            raise _begin_anew(part, "the server has a shorter file than what had come")
        if have and response.status != 206:  # no ranges here, or another file than before
            part.unlink()
            have = 0
        total = _total(response)
        _check_room(part, total, have)
        etag = response.headers.get("ETag", "")
        _validator(part).write_text("" if etag.startswith("W/") else etag)
        came, broke = _receive(response, part, have, total, progress)
    if not broke and total in (None, have + came):
        return True
    if total is not None and have + came > total:
        raise _begin_anew(part, f"the server sent {have + came} bytes of {total}")
    if came:
        return False
    raise Failure(f"the connection broke after {have} bytes", transient=True)


def _begin_anew(part: Path, why: str) -> Failure:
    part.unlink()
    return Failure(f"{why}; begun anew", transient=True)


def _opened(url: str, part: Path, have: int) -> Any:
    headers = {"Accept-Encoding": "identity", "User-Agent": "scenetune"}
    if have:
        headers["Range"] = f"bytes={have}-"
        if _validator(part).exists() and (etag := _validator(part).read_text()):
            headers["If-Range"] = etag
    try:
        return urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=TIMEOUT)
    except urllib.error.HTTPError as error:
        if error.code == 416:
            return error  # it is the response, too
        raise


def _receive(response: Any, part: Path, have: int, total: int | None, progress: Progress) -> tuple[int, bool]:
    """Append the body to the part: (bytes that came, whether it broke before its end)."""
    came = 0
    with open(part, "ab") as file:
        while True:
            try:
                data = response.read(CHUNK_BYTES)
            except (OSError, http.client.HTTPException):
                if came:
                    return came, True
                raise
            if not data:
                return came, False
            _write(file, data, part)
            came += len(data)
            progress(have + came, total)


def _write(file: IO[bytes], data: bytes, part: Path) -> None:
    try:
        file.write(data)
        file.flush()
    except OSError as error:
        raise Failure(f"{part.parent}: {error.strerror}; what has come is kept", transient=False) from error


def _total(response: Any) -> int | None:
    """Bytes of the whole file, of which the response may be a range."""
    spread = response.headers.get("Content-Range", "").rpartition("/")[2]
    if spread.isdigit():
        return int(spread)
    length = response.headers.get("Content-Length", "")
    return int(length) if length.isdigit() and response.status == 200 else None


def _check_room(part: Path, total: int | None, have: int) -> None:
    free = shutil.disk_usage(part.parent).free
    if total is not None and total - have + SPARE_BYTES > free:
        needs = (
            f"{(total - have) / 1e9:.2f} GB are still to come, {free / 1e9:.2f} GB are free in {part.parent}"
        )
        raise Failure(f"{needs}; what has come is kept", transient=False)


def _validator(part: Path) -> Path:
    return part.with_name(part.name + ".validator")


def _digests(path: Path) -> dict[str, str]:
    digests = {"md5": hashlib.md5(usedforsecurity=False), "sha256": hashlib.sha256()}
    with open(path, "rb") as file:
        while data := file.read(2**20):
            for digest in digests.values():
                digest.update(data)
    return {name: digest.hexdigest() for name, digest in digests.items()}
