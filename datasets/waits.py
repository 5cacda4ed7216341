"""Waiting with a limit that is said: for another process, and how long environment variables allow."""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

SILENT = 10.0  # s, after which a wait for another process is said
LOCK_WAIT = 4 * 3600.0  # s; AudioSet takes hours to decode


def seconds_of(variable: str, usual: float, *, zero: bool = False) -> float:
    """How long to wait, in s, as an environment variable says. Raises ValueError for no number above 0 (or 0,
    where `zero` is a sense)."""
    text = os.environ.get(variable) or str(usual)
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 <= value < math.inf or (value == 0 and not zero):
        expected = "0 or more" if zero else "above 0"
        raise ValueError(f"{variable}={text}: expected a number of seconds {expected}")
    return value


@contextmanager
def alone(lock: Path, making: str) -> Iterator[None]:
    """While no other process holds `lock`; one that does is waited for, aloud.

    Raises OSError after SCENETUNE_LOCK_WAIT seconds (4 h): `making` was not done by then.
    """
    held = FileLock(lock)
    try:
        held.acquire(timeout=min(SILENT, limit := seconds_of("SCENETUNE_LOCK_WAIT", LOCK_WAIT)))
    except Timeout:
        print(f"waiting up to {limit / 60:.0f} min for another process that is {making}", file=sys.stderr)
        try:
            held.acquire(timeout=max(0.0, limit - SILENT))
        except Timeout:
            raise OSError(
                f"another process has been {making} for {limit / 60:.0f} min (SCENETUNE_LOCK_WAIT, in s)"
            ) from None
    try:
        yield
    finally:
        held.release()
