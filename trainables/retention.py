"""Which checkpoints a study keeps: those that its store still refers to, and no others.

A run that may go on (running, or waiting at a rung) needs its checkpoint; of those that have ended, a phase
says which are still asked for. The rest is deleted as soon as a run ends, so that the disk holds as many
checkpoints as there are runs under way and places to win, however long the study is.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from searchspace.study import Job, Ledger
from trainables import checkpoint

Kept = Callable[[Ledger], set[str]]


def best(count: int) -> Kept:
    """The `count` best of a search, at least one: they are confirmed, or exported."""
    return lambda ledger: {job.folder for job in ledger.best(max(1, count))}


def best_seeds(ledger: Ledger) -> set[str]:
    """Each confirmed configuration's best seed by validation: one of them is exported."""
    found: dict[int, Job] = {}
    for job in reversed(ledger.best(ledger.finished())):  # best last
        found[job.trial] = job
    return {job.folder for job in found.values()}


def first_seeds(ledger: Ledger) -> set[str]:
    """A table's first seed of every row."""
    return {row["folder"] for row in ledger.rows() if row["repeat"] == 1}


class Checkpoints:
    """The checkpoints of one phase's runs under a study's folder; `bytes` is what they take."""

    def __init__(self, study: Path, ledger: Ledger, kept: Kept) -> None:
        self._study, self._ledger, self._kept = study, ledger, kept
        self._sizes: dict[str, int] = {}
        wanted = kept(ledger) | ledger.going_on()
        for row in ledger.rows():  # a driver may have died between a run's end and its checkpoint's
            if row["folder"] in wanted:
                self._measure(row["folder"])
            else:
                checkpoint.remove(self._checkpoint(row["folder"]))

    @property
    def bytes(self) -> int:
        return sum(self._sizes.values())

    def ended(self, job: Job, outcome: str) -> None:
        """A run has ended, or waits: keep its checkpoint or delete it, and with it one that it displaces."""
        self._measure(job.folder)
        if outcome == "PAUSED":
            return
        if outcome == "COMPLETE":
            self._drop(self._sizes.keys() - self._kept(self._ledger) - self._ledger.going_on())
        else:
            self._drop({job.folder})

    def close(self) -> None:
        """The phase is over: nothing waits any more."""
        self._drop(self._sizes.keys() - self._kept(self._ledger) - self._ledger.going_on(closing=True))

    def _drop(self, folders: set[str]) -> None:
        for folder in folders:
            checkpoint.remove(self._checkpoint(folder))
            self._sizes.pop(folder, None)

    def _measure(self, folder: str) -> None:
        place = self._checkpoint(folder)
        if place.is_dir():
            self._sizes[folder] = sum(path.stat().st_size for path in place.iterdir())

    def _checkpoint(self, folder: str) -> Path:
        return self._study / folder / "checkpoint"
