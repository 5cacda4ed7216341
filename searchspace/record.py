"""The study folder's record: study.json, and the tables a report is made of."""

from __future__ import annotations

import importlib.metadata
import itertools
import json
import math
import os
import platform
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from searchspace.code_id import code_id
from searchspace.freed import give_back

PACKAGES = (
    "torch",
    "torchaudio",
    "ray",
    "optuna",
    "numpy",
    "pandas",
    "pyarrow",
    "webdataset",
    "soundfile",
    "scikit-learn",
)


def create(folder: Path, record: Mapping[str, Any]) -> None:
    """Start a study folder. Raises FileExistsError if the folder already holds anything."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise FileExistsError(
            f"study folder {folder} already exists; continue it with --study {folder} --resume, or name "
            "another"
        )
    folder.mkdir(parents=True, exist_ok=True)
    write(folder, record)


def discard_unused(folder: Path) -> None:
    """Remove a study folder in which nothing has run yet, so that the same command can be given again."""
    if not (folder / "runs").exists():
        shutil.rmtree(folder, ignore_errors=True)


def write(folder: Path, record: Mapping[str, Any]) -> None:
    write_whole(folder / "study.json", json.dumps(record, indent=1, default=str))


def write_whole(path: Path, text: str) -> None:
    """A kill or a power cut at any moment leaves the old file or the new one, never part of one."""
    fresh = path.with_name(path.name + ".new")
    fresh.write_text(text)
    put_in_place(fresh, path)


def put_in_place(fresh: Path, path: Path) -> None:
    """Rename after what is renamed is on the disk: some file systems order them the other way round."""
    flush(fresh)
    os.replace(fresh, path)


def flush(path: Path) -> None:
    """A file's contents, or a folder's names, onto the disk itself: a rename is only as good as what it
    points at after a power cut."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The epochs of an epochs.jsonl in order, each once: of an epoch written twice the last, and nothing from
    a torn or damaged line on."""
    text = path.read_bytes().decode(errors="replace") if path.is_file() else ""
    epochs: list[dict[str, Any]] = []
    for line in text.splitlines():
        try:
            one = json.loads(line)
            epochs = [*(known for known in epochs if known["epoch"] < one["epoch"]), one]
        except (ValueError, TypeError, KeyError):
            break
    return epochs


def read(folder: Path) -> dict[str, Any]:
    """study.json. Raises FileNotFoundError or ValueError saying what is expected there."""
    path = folder / "study.json"
    if not path.is_file():
        raise FileNotFoundError(f"{folder} is not a study: it has no study.json")
    try:
        record = json.loads(path.read_text())
    except json.JSONDecodeError as error:
        raise ValueError(f"{path} is damaged: {error}") from error
    if record.get("format") != 1:
        raise ValueError(f"{path}: format {record.get('format')!r}, this version reads 1")
    return record


class Tables:
    """trials.parquet (one row a run, from `rows`) and curves.parquet (one row a run and epoch, from the run
    folders)."""

    def __init__(self, folder: Path, rows: Callable[[], Iterable[Mapping[str, Any]]]) -> None:
        self._folder, self._rows = folder, rows
        self._written, self._took = -math.inf, 0.0

    def refresh(self) -> None:
        """Write them again if that costs less than a fiftieth of the time since the last writing."""
        if time.monotonic() - self._written > 50 * self._took:
            self.write()

    def __enter__(self) -> Tables:
        return self

    def __exit__(self, *_: object) -> None:
        self.write()

    def write(self) -> None:
        began = time.monotonic()
        self._write()
        give_back()
        self._written = time.monotonic()
        self._took = self._written - began

    def _write(self) -> None:
        rows = list(self._rows())
        curves = joined(line for row in rows for line in _epochs(self._folder, row))
        for name, table in (("trials", pd.DataFrame(rows)), ("curves", curves)):
            if table.empty:  # it has no columns either; readers take its absence for that
                continue
            fresh = self._folder / f"{name}.parquet.new"
            table.to_parquet(fresh, index=False)
            put_in_place(fresh, self._folder / f"{name}.parquet")


def joined(records: Iterable[Mapping[str, Any]], piece: int = 5000) -> pd.DataFrame:
    """pandas' table of the records, made of pieces of so many: a long study's epochs are never all there as
    dictionaries, which take ten times a table's memory."""
    left, pieces, names = iter(records), [], dict[str, None]()
    while part := list(itertools.islice(left, piece)):
        table = pd.DataFrame(part)
        names |= dict.fromkeys(table.columns)
        pieces.append(table.dropna(axis=1, how="all"))  # nothing in a piece: no say in the column's type
    return pd.concat(pieces, ignore_index=True).reindex(columns=list(names)) if pieces else pd.DataFrame()


def disk_use(folder: Path) -> dict[str, float]:
    """{"all": MB below a study's folder, "checkpoints": those of its runs among them}."""
    sizes = {path: path.stat().st_size / 1e6 for path in folder.rglob("*") if path.is_file()}
    kept = sum(size for path, size in sizes.items() if path.parent.name == "checkpoint")
    return {"all": round(sum(sizes.values()), 3), "checkpoints": round(kept, 3)}


def newest(studies: Path) -> Path:
    """The study last written to. Raises FileNotFoundError if there is none."""
    found = sorted(studies.glob("*/study.json"), key=lambda path: path.stat().st_mtime)
    if not found:
        raise FileNotFoundError(f"--resume: there is no study under {studies}/; name one with --study")
    return found[-1].parent


def provenance(root: Path) -> dict[str, Any]:
    """{"git", "packages", "hardware"} of this process; `root` is the project's folder."""
    return {
        "git": {
            "commit": _git(root, "rev-parse", "HEAD"),
            "dirty": bool(_git(root, "status", "--porcelain")),
            "code": code_id(root),
        },
        "packages": {name: importlib.metadata.version(name) for name in PACKAGES if _installed(name)},
        "hardware": {
            "cpus": os.cpu_count(),
            "platform": platform.platform(),
            "python": sys.version.split()[0],
        },
    }


def _epochs(folder: Path, row: Mapping[str, Any]) -> list[dict[str, Any]]:
    who = {name: row[name] for name in ("trial", "repeat", "phase")}
    lines = read_lines(folder / row["folder"] / "epochs.jsonl")
    return [who | line for line in lines if line["epoch"] <= row["epochs"]]  # workers may run on past a stop


def _git(root: Path, *arguments: str) -> str | None:
    """What git says about the project's own checkout; None outside one (an installed package inside
    somebody's repository)."""
    if not (root / ".git").exists():
        return None
    try:
        done = subprocess.run(
            ["git", "-C", str(root), *arguments], capture_output=True, text=True, timeout=10
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def _installed(name: str) -> bool:
    try:
        importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True
