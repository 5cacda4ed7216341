"""One request to a web server or an object store, tried again where that may help.

What the network or the server may get over (5xx, 429, timeouts, resets, short answers) is tried again with
growing pauses; what they won't (403, 404, expired credentials) is an error at once. Every error is one
StorageError line, without passwords and tokens.

Filesystems are fsspec's and belong to a process: its event loop runs in a thread, and threads don't survive a
fork.

    SCENETUNE_RETRY_FIRST     the first pause in s; each next one is twice as long (0.5)
    SCENETUNE_RETRY_TOTAL     no new attempt after this many s (120)
    SCENETUNE_READ_TIMEOUT    s without a byte after which a connection counts as dead (30)

Credentials, endpoints and proxies come from where each library looks for them: AWS_* (AWS_ENDPOINT_URL for
other servers than Amazon's), GOOGLE_APPLICATION_CREDENTIALS, ~/.netrc, HTTPS_PROXY.
"""

from __future__ import annotations

import logging
import os
import random
import re
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

from datasets.waits import seconds_of

A = TypeVar("A")

READ_LIMIT = 2**30
NOTED_ATTEMPT = 4

log = logging.getLogger(__name__)

_EXPIRED = ("ExpiredToken", "ExpiredTokenException", "TokenRefreshRequired", "RequestExpired")
_TRANSIENT_STATUS = (408, 425, 429)
_TRANSIENT_CODES = ("SlowDown", "Throttling", "ThrottlingException", "RequestTimeout", "InternalError")
# Errors of aiohttp, botocore and google-auth that mean a broken or slow connection, by name: none of the
# three need be installed.
_BROKEN = {
    *("ClientConnectionError", "ClientPayloadError", "ConnectionError", "HTTPClientError", "TimeoutError"),
    *("IncompleteReadError", "HTTPException", "ResponseStreamingError", "TransportError", "FSTimeoutError"),
}
_UNTRUSTED = {"SSLCertVerificationError", "ClientConnectorCertificateError"}
_NO_CREDENTIALS = {"NoCredentialsError", "PartialCredentialsError", "DefaultCredentialsError"}


class StorageError(OSError):
    """A place that can't be read or written. One line: where, what happened, how often tried, what to do."""


class NotFoundError(StorageError):
    """The place answered, and there is no such file."""


@dataclass(frozen=True)
class Retry:
    """Pauses of `first` s, 2 `first` s, … up to `longest` s, each shortened by up to half at random so that
    many readers don't come back together; no attempt begins later than `total` s after the first."""

    first: float = 0.5
    longest: float = 30.0
    total: float = 120.0

    @staticmethod
    def from_environment() -> Retry:
        return Retry(
            first=seconds_of("SCENETUNE_RETRY_FIRST", Retry.first, zero=True),
            total=seconds_of("SCENETUNE_RETRY_TOTAL", Retry.total, zero=True),
        )

    def pauses(self) -> Iterator[float]:
        pause = self.first
        while True:
            yield min(pause, self.longest) * random.uniform(0.5, 1.0)
            pause *= 2


def shown(text: str | Path) -> str:
    """`text` as it may appear in messages and records: a URL in it loses user, password, query and
    fragment."""
    if "://" not in str(text):
        return str(text)
    return re.split(r"[?#]", re.sub(r"://[^/]*@", "://", str(text)))[0]


class Failure(Exception):
    """What went wrong with one request of ours, in words. `transient` = worth trying again."""

    def __init__(self, what: str, *, transient: bool, missing: bool = False) -> None:
        super().__init__(what)
        self.transient, self.missing = transient, missing


def retried(place: str, function: Callable[[], A], retry: Retry | None) -> A:
    retry = retry or Retry.from_environment()
    start = time.monotonic()
    for attempt, pause in enumerate(retry.pauses(), start=1):
        try:
            return function()
        except Exception as error:
            failure = error if isinstance(error, Failure) else _explained(error)
            if failure.missing:
                raise NotFoundError(f"{shown(place)}: {failure}") from error
            if not failure.transient:
                raise StorageError(f"{shown(place)}: {failure}") from error
            if attempt == NOTED_ATTEMPT:
                log.warning("%s: %s; trying again for up to %g s", shown(place), failure, retry.total)
            passed = time.monotonic() - start
            if passed + pause > retry.total:
                raise StorageError(
                    f"{shown(place)}: {failure}; tried {attempt} times in {passed:.0f} s "
                    f"(SCENETUNE_RETRY_TOTAL={retry.total:g}); is the server up and the network there? "
                    "Run the same command again"
                ) from error
            time.sleep(pause)
    raise AssertionError("pauses() does not end")


def _explained(error: Exception) -> Failure:
    """What an error of aiohttp, s3fs, gcsfs or the system says. Raises what is none of the place's doing."""
    chain = _chain(error)
    names = {kind.__name__ for link in chain for kind in type(link).__mro__}
    if names & _UNTRUSTED:
        return Failure("the server's certificate is not accepted", transient=False)
    if _BROKEN & {kind.__name__ for kind in type(error).__mro__}:
        what = "no answer in time" if any("Timeout" in name for name in names) else "the connection broke"
        return Failure(f"{what} ({type(error).__name__})", transient=True)
    status, code = next(filter(any, map(_status, chain)), (0, ""))
    told = f" ({code or status})" if code or status else ""
    if code in _EXPIRED:
        return Failure(f"the credentials have expired{told}; renew them and run again", transient=False)
    if names & _NO_CREDENTIALS:
        return Failure("no credentials found; set AWS_* or GOOGLE_APPLICATION_CREDENTIALS", transient=False)
    if status in _TRANSIENT_STATUS or status >= 500 or code in _TRANSIENT_CODES:
        return Failure(f"the server failed{told}", transient=True)
    if code == "NoSuchBucket":
        return Failure(f"there is no such bucket{told}", transient=False)
    if status == 404 or "FileNotFoundError" in names:
        return Failure("no such file", transient=False, missing=True)
    if status == 416:
        return Failure("is shorter than the index says (416)", transient=False)
    if status == 401:
        return Failure(f"asks for credentials{told}; set those of this server", transient=False)
    if status == 403 or "PermissionError" in names:
        advice = "the credentials in use may not read it, or it does not exist"
        return Failure(f"access denied{told}: {advice}", transient=False)
    if isinstance(error, ImportError):
        return Failure(f"{_words(error)}; pip install 'scenetune[remote]'", transient=False)
    if status:
        return Failure(f"the server refused the request{told}", transient=False)
    if "InvalidURL" in names:
        return Failure("is not a URL that can be asked for", transient=False)
    if isinstance(error, OSError) or names & _BROKEN:
        return Failure(f"the connection broke ({type(error).__name__})", transient=True)
    raise error


def _chain(error: BaseException) -> list[BaseException]:
    """The error and what caused it."""
    found: list[BaseException] = []
    link: BaseException | None = error
    while link is not None and link not in found:
        found.append(link)
        link = link.__cause__ or link.__context__
    return found


def _status(error: BaseException) -> tuple[int, str]:
    """(HTTP status, code) as aiohttp, botocore and gcsfs keep them; (0, "") = none."""
    response = getattr(error, "response", None)
    if isinstance(response, dict):
        status = response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
        return status, response.get("Error", {}).get("Code", "")
    status = str(getattr(error, "status", None) or getattr(error, "code", None))
    return (int(status), "") if status.isdigit() else (0, "")


def _words(error: BaseException) -> str:
    return " ".join(str(error).split())


_filesystems: dict[tuple[int, str], Any] = {}
_filesystems_lock = threading.Lock()


def forget() -> None:
    """Make filesystems anew, with the settings that the environment has now."""
    with _filesystems_lock:
        _filesystems.clear()


def _after_fork() -> None:
    """A child may find the lock held. It makes filesystems of its own, and must keep its parent's: closing
    them would take their sockets out of the epoll set that the two share, and the parent would wait for
    ever."""
    global _filesystems_lock
    _filesystems_lock = threading.Lock()


os.register_at_fork(after_in_child=_after_fork)


def _filesystem(place: str) -> Any:
    scheme = urlsplit(place).scheme
    with _filesystems_lock:
        if (os.getpid(), scheme) not in _filesystems:
            _filesystems[os.getpid(), scheme] = _make_filesystem(scheme)
        return _filesystems[os.getpid(), scheme]


def _make_filesystem(scheme: str) -> Any:
    """A filesystem that tries once and gives up after SCENETUNE_READ_TIMEOUT s of silence: trying again is
    done here, for all of them alike."""
    import fsspec

    timeout = seconds_of("SCENETUNE_READ_TIMEOUT", 30.0)
    options: dict[str, Any] = {"skip_instance_cache": True}
    if scheme in ("http", "https"):
        import aiohttp

        patience = aiohttp.ClientTimeout(total=None, sock_connect=timeout, sock_read=timeout)
        options |= {"client_kwargs": {"timeout": patience, "trust_env": True}}
    elif scheme == "s3":
        waits = {"connect_timeout": timeout, "read_timeout": timeout}
        options |= {"config_kwargs": {**waits, "retries": {"total_max_attempts": 1}}}
    elif scheme in ("gs", "gcs"):
        logging.getLogger("gcsfs").setLevel(logging.CRITICAL)  # a traceback for what is one line here
    filesystem = fsspec.filesystem(scheme, use_listings_cache=False, **options)
    if scheme == "s3":
        filesystem.retries = 1
    return filesystem


def fetch(place: str, offset: int, size: int | None) -> bytes:
    """One request for `size` bytes from `offset` on, or for the whole file."""
    filesystem = _filesystem(place)
    if place.startswith("http"):
        from fsspec.asyn import sync

        data = sync(filesystem.loop, _http_get, filesystem, place, offset, size)
    elif size is None:
        data = filesystem.cat_file(place)
    else:
        data = filesystem.cat_file(place, start=offset, end=offset + size)
    if size is not None and len(data) != size:
        raise Failure(f"answered {len(data)} bytes, asked for {size}", transient=True)
    return data


def put(local: Path, place: str) -> None:
    """Object stores show an object when it is whole."""
    _filesystem(place).put_file(str(local), place)


async def _http_get(filesystem: Any, url: str, offset: int, size: int | None) -> bytes:
    """Never more bytes than asked for, whatever the server sends."""
    session = await filesystem.set_session()
    headers = {"Accept-Encoding": "identity"}
    if size is not None:
        headers["Range"] = f"bytes={offset}-{offset + size - 1}"
    async with session.get(filesystem.encode_url(url), headers=headers) as response:
        response.raise_for_status()
        if size is not None and response.status != 206:
            raise Failure(
                "the server ignores ranges (as `python -m http.server` does); use one that honours them "
                "(nginx, Apache, caddy) or copy the shards here",
                transient=False,
            )
        limit = READ_LIMIT if size is None else size
        chunks, count = [], 0
        async for chunk in response.content.iter_chunked(2**18):
            chunks.append(chunk)
            count += len(chunk)
            if count > limit:
                raise Failure(f"the server sends more than {limit} bytes", transient=False)
        return b"".join(chunks)


def size(place: str) -> int | None:
    filesystem = _filesystem(place)
    if place.startswith("http"):
        from fsspec.asyn import sync

        return sync(filesystem.loop, _http_size, filesystem, place)
    try:
        return filesystem.info(place)["size"]
    except OSError:
        # S3's answer to a HEAD has no body that could say why: expired credentials, no such bucket.
        filesystem.cat_file(place, start=0, end=1)
        raise


async def _http_size(filesystem: Any, url: str) -> int | None:
    """A GET of one byte: HEAD is often forbidden, and fsspec's `info` takes every failure for a missing
    file."""
    session = await filesystem.set_session()
    headers = {"Accept-Encoding": "identity", "Range": "bytes=0-0"}
    async with session.get(filesystem.encode_url(url), headers=headers) as response:
        total = response.headers.get("Content-Range", "").rpartition("/")[2]
        if response.status == 416:  # an empty file has no byte 0
            return int(total) if total.isdigit() else None
        response.raise_for_status()
        if response.status == 206:
            return int(total) if total.isdigit() else None
        return response.content_length
