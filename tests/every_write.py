"""A whole sequential study with a trivial trial, killed at any one of its writes.

The ledger, the conductor, the run folders, the checkpoints and the tables are the real ones; the model is one
vector that each epoch moves, so that an epoch repeated or left out shows in every number after it. There is
no Ray: a plain loop does what Tune does. Each study runs in a fork of a process that has loaded everything
and has no threads; in it every statement and commit of the database, every file opened for writing, flushed,
renamed or removed below the study folder is counted, and at the chosen one the process dies or finds the disk
full.
"""

from __future__ import annotations

import errno
import faulthandler
import functools
import gc
import importlib
import io
import json
import math
import os
import sqlite3
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NoReturn

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
from trainables.conductor import Conductor
from trainables.engine import Diverged
from trainables.folder import RunFolder, read_epochs
from trainables.progress import Progress
from trainables.trial import Place, advance, ends, noted

GOAL = "val/score"
EPOCHS, TRIALS, KILLED, ENDED = 3, 8, 9, 0
PRUNER = Asha(grace=1)


class Walk:
    """Stands in for trainables.run.Run: a vector that takes one step an epoch, and a score of where it is."""

    start = None
    parameter_count = 4

    def __init__(self, values: Mapping[str, Any], seed: int, epochs: int) -> None:
        self.values, self.seed, self.epochs, self.epoch = dict(values), seed, epochs, 0
        self.at = torch.zeros(64, dtype=torch.float64)
        self.source = SimpleNamespace(index=SimpleNamespace(checksum="none"))

    def next_epoch(self) -> dict[str, float]:
        if self.values["lr"] > 0.035:
            raise Diverged("non-finite loss: scene_ce=nan")
        draw = torch.Generator().manual_seed(self.seed + self.epoch)
        self.at = 0.9 * self.at + torch.randn(64, generator=draw, dtype=torch.float64)
        self.epoch += 1
        goal = 1 - abs(math.log10(self.values["lr"]) + 2) / 4 - 0.5 / self.epoch
        return {GOAL: goal + 0.01 * float(self.at.mean()), "train/at": float(self.at.sum())}

    def save(self, folder: Path) -> None:
        checkpoint.save(folder, {"at": self.at}, {"epoch": self.epoch, "seed": self.seed})

    def load(self, folder: Path, *, written: int | None = None) -> None:
        tensors, state = checkpoint.load(folder)
        assert state["seed"] == self.seed, "another run's checkpoint"
        checkpoint.check_written(folder, state["epoch"], written)
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


At = int | tuple[str, int]  # the n-th write of all, or of those to files of a name
Fault = Callable[[Path | None, Path | None], None]
DECIDED = ("state", "reason", "origin", "epochs", "score", "seed", "repeat", "parameters")


@dataclass
class Writes:
    """Counts the writes of this process below `study`; before the one that is `at` it calls `then` with the
    file (None for the database) and, of a rename, where to."""

    study: str
    at: At
    then: Fault
    seen: int = 0
    of: Counter[str] = field(default_factory=Counter)

    def one(self, path: Path | None = None, to: Path | None = None) -> None:
        name = path.name if path else ""
        self.seen += 1
        self.of[name] += 1
        if self.at in (self.seen, (name, self.of[name])):
            self.then(path, to)

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
        self.one(Path(path), Path(arguments[1]) if event == "os.rename" else None)


def die(path: Path | None, to: Path | None) -> None:
    os._exit(KILLED)


def tear(path: Path | None, to: Path | None) -> None:
    """Half of what was written is on the disk, and the other half never will be."""
    for file in _files(path):
        os.truncate(file, file.stat().st_size // 2)
    os._exit(KILLED)


def zero(path: Path | None, to: Path | None) -> None:
    """The file has its length on the disk, and not yet its contents: what a power cut leaves."""
    for file in _files(path):
        size = file.stat().st_size
        with open(file, "r+b") as handle:
            handle.seek(size // 2)
            handle.write(bytes(size - size // 2))
    os._exit(KILLED)


def outrun(path: Path | None, to: Path | None) -> None:
    """The rename is on the disk, and none of what was renamed: from a disk that does not keep the order."""
    if path and to and to.name != "study.json":  # without it there is no study to go on with
        os.rename(path, to)
        for file in _files(to):
            file.write_bytes(bytes(file.stat().st_size))
    os._exit(KILLED)


def _files(path: Path | None) -> list[Path]:
    """What a fault at `path` hits: a file, or the tensors of a checkpoint."""
    if path is None or path.is_file():
        return [path] if path else []
    return [
        file
        for file in (path / checkpoint.TENSORS, path / "checkpoint" / checkpoint.TENSORS)
        if file.exists()
    ]


def no_space(path: Path | None, to: Path | None) -> None:
    if path is None:
        full = sqlite3.OperationalError("database or disk is full")
        raise sqlalchemy.exc.OperationalError("", {}, full)
    raise OSError(errno.ENOSPC, "No space left on device", str(path))


FAULTS = (die, tear, zero, outrun, no_space)


def forked(study: Path, at: At = 0, then: Fault = die) -> tuple[int, int, str]:
    """(exit code, writes seen, what it said) of `drive`, with `then` done at write `at` (0: at none)."""
    asked = _server()
    assert asked.stdin and asked.stdout
    print(json.dumps([str(study), at, then.__name__]), file=asked.stdin, flush=True)
    code, seen, said = json.loads(asked.stdout.readline())
    return code, seen, said


@functools.cache
def _server() -> subprocess.Popen[str]:
    """A process that has loaded everything and has no thread but its first, from which each study is forked:
    a fork of a process with threads holds whatever locks they held."""
    return subprocess.Popen(
        [sys.executable, "-c", "from tests.every_write import serve; serve()"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).resolve().parents[1],
        env=os.environ | {"JE_ARROW_MALLOC_CONF": "background_thread:false", "OMP_NUM_THREADS": "1"},
    )


def serve() -> None:
    """Answer the questions of `forked` until they end."""
    open_storage("sqlite://")  # with the line below: what each study would load on its way
    importlib.import_module("pyarrow.parquet")
    gc.freeze()  # no collection in a fork touches, and so copies, what is shared
    for line in sys.stdin:
        study, at, name = json.loads(line)
        at = tuple(at) if isinstance(at, list) else at
        threads = [path.read_text().strip() for path in Path("/proc/self/task").glob("*/comm")]
        assert len(threads) == 1, f"the process that is forked has threads: {threads}"
        print(json.dumps(_fork(Path(study), at, globals()[name])), flush=True)


def _fork(study: Path, at: At, then: Fault) -> tuple[int, int, str]:
    study.mkdir(exist_ok=True)
    read, write = os.pipe()
    errors = study.with_name(study.name + ".stderr")
    child = os.fork()
    if child == 0:
        os.close(read)
        _child(study, Writes(str(study), at, then), write, errors)
    os.close(write)
    with os.fdopen(read) as file:
        told = file.read()
    _, status = os.waitpid(child, 0)
    code = os.waitstatus_to_exitcode(status)
    seen, said = json.loads(told) if told else (0, errors.read_text()[-2000:])
    return code, seen, said


def _child(study: Path, writes: Writes, tell: int, errors: Path) -> NoReturn:
    os.dup2(os.open(errors, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), 2)
    os.dup2(2, 1)  # it is the server's answers that go there
    faulthandler.enable()
    code, said = ENDED, ""
    writes.install()
    try:
        drive(study)
    except (OSError, ValueError) as error:
        code, said = 2, str(error)
    except BaseException as error:
        code, said = 1, f"{type(error).__name__}: {error}"
    os.write(tell, json.dumps([writes.seen, said]).encode())
    os._exit(code)
