"""Why a trial's process ended before the trial did, and how often it is started again.

A retry is for what may have been the trial's own fault; a preemption (its node died) never is, so preemptions
leave the retries alone. They are bounded too: PREEMPTIONS in a row without one new epoch.
"""

from __future__ import annotations

import re
import shutil
from dataclasses import dataclass, field
from pathlib import Path

from trainables.watch import STACKS

RETRIES = 2  # a trial whose process failed is started again this often in its life, from its checkpoint
MEMORY_RETRIES = 1  # of these, after running out of memory: once, for a neighbour may have taken it
PREEMPTIONS = 10

ERRORS = "error.txt"
FULL = ("No space left on device", "Disk quota exceeded", "File too large", "Read-only file system")
ROOM = 16 * 2**20  # bytes free, below which a disk counts as full
NODE = ("actor's node was terminated", "node has died", "NodeDiedError", "ActorPlacementGroupRemoved")
MONITOR = ("low on memory", "OutOfMemoryError: Task was killed", "worker's memory usage", "memory monitor")
MEMORY = re.compile(
    r"^(MemoryError|.*OutOfMemoryError|.*CUDA out of memory|.*can't allocate memory|.*Cannot allocate memory)"
)


class DiskFull(OSError):
    """The study's disk is full: no trial can go on, and none is to blame."""

    def __init__(self, reason: str, study: Path) -> None:
        super().__init__(
            f"the disk of {study} is full ({reason}); nothing finished is lost: make room and go on with "
            "--resume"
        )


@dataclass(frozen=True)
class Failure:
    """`kind` is "error" (an exception), "memory", "hang", "died" (killed, crashed), "preempted" or "disk"."""

    kind: str
    reason: str


@dataclass(frozen=True)
class Notes:
    """What a run folder's notes held when an attempt began, so that the attempt's own can be told from it."""

    folder: Path
    sizes: dict[str, int] = field(default_factory=dict)
    kernel_kills: int = 0

    @classmethod
    def at(cls, folder: Path) -> Notes:
        return cls(folder, {name: _size(folder / name) for name in (ERRORS, STACKS)}, _kernel_kills())

    def since(self, name: str) -> str:
        path = self.folder / name
        if _size(path) <= self.sizes.get(name, 0):
            return ""
        with open(path, "rb") as file:
            file.seek(self.sizes.get(name, 0))
            return file.read().decode(errors="replace").strip()


def failure_of(notes: Notes, study: Path, said: str = "") -> Failure:
    """What ended an attempt: by its own notes, then by what the cluster `said` of its process."""
    error, stacks = notes.since(ERRORS), notes.since(STACKS)
    line = error.splitlines()[-1] if error else ""
    full = full_disk_line(line) or full_disk_line(said)
    if full and _is_full(study, full):
        return Failure("disk", full)
    if stacks:
        waited = re.search(r"Timeout \(([\d:]+)", stacks)
        reason = f"no progress for {waited[1] if waited else 'too long'}; where it hung is in {STACKS}"
        return Failure("hang", reason)
    if MEMORY.match(line):
        return Failure("memory", f"out of memory: {line}")
    if line:
        return Failure("error", line)
    if any(words in said for words in NODE):
        return Failure("preempted", "its node died")
    if any(words in said for words in MONITOR):
        return Failure("memory", "out of memory: Ray's memory monitor killed its process")
    if _kernel_kills() > notes.kernel_kills:
        return Failure("memory", "out of memory: the kernel has killed a process on this machine meanwhile")
    return Failure("died", "its process died")


def full_disk_line(text: str) -> str:
    """The line of `text` that tells of a full disk; empty if none does."""
    return next((line.strip() for line in text.splitlines() if any(words in line for words in FULL)), "")


def _is_full(study: Path, text: str) -> bool:
    """Whether it is the study's disk, and not one of a node's own, that is full."""
    return str(study) in text or shutil.disk_usage(study).free < ROOM


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0


def _kernel_kills() -> int:
    """How many processes the kernel has killed on this machine since it started, for want of memory."""
    try:
        text = Path("/proc/vmstat").read_text()
    except OSError:  # not Linux
        return 0
    found = re.search(r"^oom_kill (\d+)$", text, re.MULTILINE)
    return int(found[1]) if found else 0
