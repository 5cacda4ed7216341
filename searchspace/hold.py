"""One driver a study: a lock where the file system has locks, and a sign of life where it has not.

`.lock` is locked by the operating system for as long as the driver's process lives: on one machine, and on
shared folders whose file system passes locks on (NFS 4, Lustre and CephFS do), a second driver is refused at
once and a dead one's study is free at once. `driver.json` names the driver and changes every BEAT seconds.
Where it names another host, a second driver looks at it for SILENCE seconds: if it changes, the study is
being run; if it does not, that driver is taken for dead. Only changes are looked at, never times of day, so
that clocks need not agree.

What is assumed: a change becomes visible to other hosts within SILENCE seconds (NFS keeps folder entries for
at most 60 s by default), and a driver is not stopped for longer than that and then goes on. One that was
finds at its next beat that the study is another's, and ends.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

BEAT = 5.0  # seconds
SILENCE = 65.0  # seconds


@contextmanager
def hold(
    folder: Path, *, beat: float = BEAT, silence: float = SILENCE, host: str | None = None
) -> Iterator[None]:
    """Hold the study while a driver works on it. Raises ValueError with host and pid if another one does, or
    if another has taken the study over meanwhile. `host` is this machine's name."""
    host = host or socket.gethostname()
    lock = FileLock(folder / ".lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise ValueError(_refusal(folder, read_driver(folder))) from None
    except NotImplementedError:  # a file system without locks: the sign of life alone decides
        pass
    try:
        _wait_for_silence(folder, host, silence, locked=lock.is_locked)
        with _Heart(folder, host, beat):
            yield
    finally:
        lock.release()


def read_driver(folder: Path) -> dict[str, Any] | None:
    """{"host", "pid", "since", "token", "beat"} of the study's driver; None if none is named."""
    try:
        return json.loads((folder / "driver.json").read_text())
    except (FileNotFoundError, json.JSONDecodeError):
        return None


class _Heart:
    """Changes driver.json every `beat` seconds for as long as it names this process."""

    def __init__(self, folder: Path, host: str, beat: float) -> None:
        self._folder, self._beat, self._ended, self._lost = folder, beat, threading.Event(), False
        self._me: dict[str, Any] = {
            "host": host,
            "pid": os.getpid(),
            "since": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
            "token": uuid.uuid4().hex,
        }
        self._thread = threading.Thread(target=self._run, name="sign of life", daemon=True)

    def __enter__(self) -> None:
        # Not SIGINT: a program started in the background by a script ignores that.
        self._before = signal.signal(signal.SIGUSR1, _interrupt)
        self._write(0)
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()
        signal.signal(signal.SIGUSR1, self._before)
        if self._lost:
            raise ValueError(
                f"{_refusal(self._folder, read_driver(self._folder))}, which took it over from this driver"
            ) from None
        with suppress(OSError):
            (self._folder / "driver.json").unlink()

    def _run(self) -> None:
        count = 0
        while not self._ended.wait(self._beat):
            now = read_driver(self._folder)
            if now is not None and now["token"] != self._me["token"]:
                self._lost = True
                signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGUSR1)  # wakes it up too
                return
            count += 1
            with suppress(OSError):  # a full or absent disk: the study itself will say so
                self._write(count)

    def _write(self, count: int) -> None:
        fresh = self._folder / f"driver.json.{self._me['token'][:8]}"
        try:
            fresh.write_text(json.dumps(self._me | {"beat": count}))
            os.replace(fresh, self._folder / "driver.json")
        finally:
            with suppress(FileNotFoundError):
                fresh.unlink()


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def _wait_for_silence(folder: Path, host: str, silence: float, *, locked: bool) -> None:
    """Raises ValueError if the driver that the folder names is alive."""
    named = read_driver(folder)
    if named is None or (named["host"] == host and (locked or not _alive(named["pid"]))):
        return
    print(
        f"study {folder}: its last driver, process {named['pid']} on {named['host']}, has not signed off; "
        f"looking for a sign of life for {silence:g} s",
        file=sys.stderr,
    )
    end = time.monotonic() + silence
    while time.monotonic() < end:
        time.sleep(min(0.5, silence / 10))
        now = read_driver(folder)
        if now is None:  # it has signed off
            return
        if now != named:
            raise ValueError(_refusal(folder, now))


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


def _refusal(folder: Path, driver: dict[str, Any] | None) -> str:
    who = "another process"
    if driver:
        who = f"process {driver['pid']} on {driver['host']} (since {driver['since']})"
    return f"study {folder} is being run by {who}"
