"""A whole sequential study with a trivial trial, killed at any one of its writes.

The ledger, the conductor, the run folders, the checkpoints and the tables are the real ones; the model is one
vector that each epoch moves, so that an epoch repeated or left out shows in every number after it. There is
no Ray: a plain loop does what Tune does. Each study runs in a fork of this process, in which every statement
and commit of the database, every file opened for writing, flushed, renamed or removed below the study folder
is counted, and at the chosen one the process dies or finds the disk full.
"""

from __future__ import annotations

import errno
import io
import json
import math
import os
import sqlite3
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import sqlalchemy
import torch

import trainables.folder
from searchspace import record
from searchspace.hold import hold
from searchspace.methods import SAMPLERS
from searchspace.pruners import Asha
from searchspace.published import Published
from searchspace.storage import open_storage, sqlite_url
from searchspace.study import Job, Ledger, Proposals
from trainables import checkpoint, retention
from trainables.engine import Diverged
from trainables.folder import RunFolder, read_epochs
from trainables.progress import Progress
from trainables.trial import Conductor, Place, advance, ends, noted

GOAL = "val/score"
EPOCHS, TRIALS, KILLED, ENDED = 3, 8, 9, 0
PRUNER = Asha(grace=1)


class Walk:
    """Stands in for trainables.run.Run: a vector that takes one step an epoch, and a score of where it is."""

    start = None
    parameter_count = 4

    def __init__(self, values: Mapping[str, Any], seed: int, epochs: int) -> None:
        self.values, self.seed, self.epochs, self.epoch = dict(values), seed, epochs, 0
        self.at = torch.zeros(4, dtype=torch.float64)
        self.source = SimpleNamespace(index=SimpleNamespace(checksum="none"))

    def next_epoch(self) -> dict[str, float]:
        if self.values["lr"] > 0.035:
            raise Diverged("non-finite loss: scene_ce=nan")
        draw = torch.Generator().manual_seed(self.seed + self.epoch)
        self.at = 0.9 * self.at + torch.randn(4, generator=draw, dtype=torch.float64)
        self.epoch += 1
        goal = 1 - abs(math.log10(self.values["lr"]) + 2) / 4 - 0.5 / self.epoch
        return {GOAL: goal + 0.01 * float(self.at.mean()), "train/at": float(self.at.sum())}

    def save(self, folder: Path) -> None:
        checkpoint.save(folder, {"at": self.at}, {"epoch": self.epoch, "seed": self.seed})

    def load(self, folder: Path) -> None:
        tensors, state = checkpoint.load(folder)
        assert state["seed"] == self.seed, "another run's checkpoint"
        self.at, self.epoch = tensors["at"], state["epoch"]


def suggest(trial: Any) -> dict[str, Any]:
    kind = trial.suggest_categorical("kind", ["a", "b"])
    knobs = {"kind": kind, "lr": trial.suggest_float("lr", 1e-4, 1e-1, log=True)}
    if kind == "b":
        knobs["layers"] = trial.suggest_int("layers", 1, 3)
    return knobs


def complete(values: Mapping[str, Any]) -> dict[str, Any]:
    if values.get("layers") == 3:
        raise ValueError("layers=3 can't be built")
    return {"kind": "a", "lr": 1e-3, "layers": 1} | dict(values)


ROWS = [
    Published(
        "A", "I", f"row {n}", "none", "validation", GOAL, 0.5, None, "unknown", {"kind": "a", "lr": lr}, True
    )
    for n, lr in enumerate((1e-3, 3e-2))
]


def open_ledger(study: Path) -> Ledger:
    proposals = Proposals(
        suggest=suggest,
        complete=complete,
        sampler=SAMPLERS["tpe"],
        pins={},
        trials=TRIALS,
        epochs=EPOCHS,
        seed=5,
    )
    storage = open_storage(sqlite_url(study / "study.db"))
    return Ledger(storage, "search", pruner=PRUNER, proposals=proposals)


def drive(study: Path) -> None:
    """What tune_csem.py and Tune do, one trial at a time: a new study, or the one that is there resumed."""
    trainables.folder.CHECKPOINT_EVERY = 0.0  # after every epoch
    if not (study / "study.json").exists():
        record.write(study, {"format": 1, "name": "walk", "status": "running"})
    with hold(study):
        book = open_ledger(study)
        place = Place("walk", "none", str(study), GOAL)
        progress = Progress("search", TRIALS, EPOCHS, stream=io.StringIO())
        book.enqueue(ROWS, at_most=2)
        with record.Tables(study, book.rows) as tables:
            conductor = Conductor(book, place, progress, tables.refresh, retention.best(2))
            while (config := conductor.next_job("one")) is not None:
                job = Job(**config["job"])
                with noted(job, place):
                    train(conductor, job, study)
        record.write(study, record.read(study) | {"status": "complete"})


def train(conductor: Conductor, job: Job, study: Path) -> None:
    folder = RunFolder(study / job.folder, Walk(job.values, job.seed, job.epochs), {})  # type: ignore[arg-type]
    while True:
        result = advance(folder, job)
        done = ends(folder, job) or "diverged" in result
        if done or not conductor.result("one", result):
            return conductor.complete("one", result)


def outcome(study: Path, ledger: Ledger | None = None) -> dict[str, Any]:
    """Everything a study decided and computed, but for times and the numbers of its trials."""
    book = ledger or open_ledger(study)
    trials = []
    for row in book.rows():
        folder = study / row["folder"]
        kept = checkpoint.exists(folder / "checkpoint")
        tensors, _ = checkpoint.load(folder / "checkpoint") if kept else ({}, {})
        trials.append(
            {name: value for name, value in row.items() if name in DECIDED or name.startswith("config.")}
            | {"curve": [[line["epoch"], line[GOAL], line["train/at"]] for line in read_epochs(folder)]}
            | {name: tensor.tolist() for name, tensor in tensors.items()}
        )
    told = [
        (t.state.name, t.value, t.user_attrs.get("reason"))
        for t in book.study.get_trials(deepcopy=False)
        if t.state.is_finished() and t.params and ("values" in t.user_attrs or t.state.name != "FAIL")
    ]
    return {"trials": trials, "told": told, "status": record.read(study)["status"]}


DECIDED = ("state", "reason", "origin", "epochs", "score", "seed", "repeat", "parameters")


@dataclass
class Writes:
    """Counts the writes of this process below `study`; at the `at`-th it calls `then` with the file (None for
    the database) before the write is done, or with `after` once it is half done."""

    study: str
    at: int
    then: Callable[[Path | None], None]
    seen: int = 0

    def one(self, path: Path | None = None) -> None:
        self.seen += 1
        if self.seen == self.at:
            self.then(path)

    def install(self) -> None:
        sqlalchemy.event.listen(sqlalchemy.Engine, "before_cursor_execute", self._statement)
        sqlalchemy.event.listen(sqlalchemy.Engine, "commit", lambda _: self.one())
        flush = os.fsync

        def fsync(handle: int) -> None:
            self.one(Path(os.readlink(f"/proc/self/fd/{handle}")))
            flush(handle)

        os.fsync = fsync
        sys.addaudithook(self._audit)

    def _statement(self, connection: Any, cursor: Any, statement: str, *rest: Any) -> None:
        if statement.split(maxsplit=1)[0].upper() in ("INSERT", "UPDATE", "DELETE", "CREATE"):
            self.one()

    def _audit(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event not in ("open", "os.rename", "os.remove", "os.rmdir", "os.mkdir"):
            return
        path = arguments[0]
        if not isinstance(path, str) or not path.startswith(self.study) or "driver.json" in path:
            return
        if event == "open" and not (isinstance(arguments[1], str) and set(arguments[1]) & set("wax+")):
            return
        self.one(Path(path))


def die(path: Path | None) -> None:
    os._exit(KILLED)


def tear(path: Path | None) -> None:
    """Half of what was written is on the disk, and the other half never will be."""
    if path is not None and path.is_file():
        os.truncate(path, path.stat().st_size // 2)
    os._exit(KILLED)


def zero(path: Path | None) -> None:
    """The file has its length on the disk, and not yet its contents: what a power cut leaves."""
    if path is not None and path.is_file():
        size = path.stat().st_size
        with open(path, "r+b") as file:
            file.seek(size // 2)
            file.write(bytes(size - size // 2))
    os._exit(KILLED)


def no_space(path: Path | None) -> None:
    if path is None:
        full = sqlite3.OperationalError("database or disk is full")
        raise sqlalchemy.exc.OperationalError("", {}, full)
    raise OSError(errno.ENOSPC, "No space left on device", str(path))


def forked(study: Path, at: int, then: Callable[[Path | None], None] = die) -> tuple[int, int, str]:
    """(exit code, writes seen, what it said) of `drive` in a fork."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(read)
        writes, code, said = Writes(str(study), at, then), ENDED, ""
        writes.install()
        try:
            os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
            drive(study)
        except (OSError, ValueError) as error:
            code, said = 2, str(error)
        except BaseException as error:
            code, said = 1, f"{type(error).__name__}: {error}"
        os.write(write, json.dumps([writes.seen, said]).encode())
        os._exit(code)
    os.close(write)
    with os.fdopen(read) as file:
        told = file.read()
    _, status = os.waitpid(child, 0)
    seen, said = json.loads(told) if told else (at, "")
    return os.waitstatus_to_exitcode(status), seen, said
