"""What code ran, where git can't say: on a cluster's nodes, which get the project's files alone, and in a
checkout with changes that no commit holds."""

from __future__ import annotations

import functools
import hashlib
import os
from collections.abc import Iterable
from pathlib import Path

CODE = ("datasets", "reports", "searchspace", "trainables", "tune_csem.py")


@functools.cache  # a process goes on with what it has read
def code_id(root: Path) -> str:
    """Git's own name for the CODE below the project's folder `root`, as the files are when first asked, so
    that a commit can be found by it: `git ls-tree COMMIT datasets reports … | git mktree` prints it."""
    return _named("tree", _listed(root / name for name in CODE if (root / name).exists())).hex()


def _listed(paths: Iterable[Path]) -> bytes:
    shown = [path for path in paths if not path.name.startswith((".", "__pycache__"))]
    shown.sort(key=lambda path: f"{path.name}/" if path.is_dir() else path.name)  # git's order
    return b"".join(map(_entry, shown))


def _entry(path: Path) -> bytes:
    if path.is_dir():
        listed = _listed(path.iterdir())
        return b"40000 " + _line(path, "tree", listed) if listed else b""  # git knows no empty folders
    mode = b"100755 " if os.access(path, os.X_OK) else b"100644 "
    return mode + _line(path, "blob", path.read_bytes())


def _line(path: Path, kind: str, content: bytes) -> bytes:
    return path.name.encode() + b"\0" + _named(kind, content)


def _named(kind: str, content: bytes) -> bytes:
    return hashlib.sha1(f"{kind} {len(content)}\0".encode() + content, usedforsecurity=False).digest()
