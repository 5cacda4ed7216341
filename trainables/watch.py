"""A process that makes no progress ends itself, with the stacks of all its threads written down.

A trial can wait for ever: for a share that has gone, for another rank, in a decoder. The process sets an
alarm before it starts and puts it off with every batch. The alarm is faulthandler's, a thread of its own in C
that needs neither the interpreter lock nor a working main thread.

    SCENETUNE_HANG_LIMIT      s without a batch after which a process counts as hung (900)
"""

from __future__ import annotations

import faulthandler
import os
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from datasets.waits import seconds_of

T = TypeVar("T")

LIMIT = 900.0  # seconds without a batch; the time to open and decode the data is OPENING times as long
OPENING = 10
STACKS = "hang.txt"

_limit, _stacks, _put_off = 0.0, -1, 0.0


def hang_limit() -> float:
    return seconds_of("SCENETUNE_HANG_LIMIT", LIMIT)


@contextmanager
def watched(folder: Path, limit: float) -> Iterator[None]:
    """End this process if no `progress` is made for `limit` seconds (OPENING times as long before the first),
    its stacks in `folder`/hang.txt."""
    global _limit, _stacks
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / STACKS
    _stacks, _limit = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND), limit
    faulthandler.dump_traceback_later(limit * OPENING, exit=True, file=_stacks)
    try:
        yield
    finally:
        faulthandler.cancel_dump_traceback_later()
        empty = os.fstat(_stacks).st_size == 0
        os.close(_stacks)
        _limit, _stacks = 0.0, -1
        if empty:
            path.unlink(missing_ok=True)


def progress() -> None:
    """Put the alarm off; at most ten times a `limit`, for it costs a thread."""
    global _put_off
    now = time.monotonic()
    if _limit and now - _put_off > _limit / 10:
        _put_off = now
        faulthandler.dump_traceback_later(_limit, exit=True, file=_stacks)


def progressing(items: Iterable[T]) -> Iterator[T]:
    for item in items:
        progress()
        yield item
