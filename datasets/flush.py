"""Onto the disk itself, before a name or a log says that it is there: after a power cut that may be all that
is."""

from __future__ import annotations

import os
from pathlib import Path


def flush(path: Path) -> None:
    """Have the system write a file's contents, or a folder's names, to the disk. Raises OSError where the
    disk can't take them."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
