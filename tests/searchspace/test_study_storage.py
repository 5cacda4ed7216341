"""A study database that is locked, moved away, full or dropped by its server."""

from __future__ import annotations

import itertools
import sqlite3
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import optuna
import pytest
import sqlalchemy

from searchspace.methods import PRUNERS
from searchspace.storage import (
    StoreUnavailable,
    _check_whole,
    at_once,
    open_storage,
    sqlite_url,
    trials_of,
)
from searchspace.study import Job, Ledger


def ledger(folder: Path, patience: float = 30.0) -> Ledger:
    book = Ledger(
        open_storage(sqlite_url(folder / "study.db"), patience=patience), "search", pruner=PRUNERS["none"]
    )
    book.plan([Job(-1, n, 0, "search", {"lr": 0.1 * n}, n, 3, f"runs/t{n:04d}-r0") for n in range(2)])
    return book


def lock(folder: Path) -> sqlite3.Connection:
    other = sqlite3.connect(folder / "study.db", isolation_level=None, check_same_thread=False)
    other.execute("begin exclusive")
    return other


def test_a_lock_that_another_process_holds_for_a_while_is_waited_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    book = ledger(tmp_path)
    job = book.next_job()
    other = lock(tmp_path)
    release = threading.Timer(3.0, other.rollback)  # longer than SQLite's own patience
    release.start()
    book.report(job, 1, 0.5)
    release.join()
    assert book.rows()[0]["score"] == 0.5
    (line,) = capsys.readouterr().err.splitlines()
    assert "does not answer (" in line and "locked" in line


def test_a_lock_that_stays_stops_the_study_with_one_line(tmp_path: Path) -> None:
    book = ledger(tmp_path, patience=1.0)
    job = book.next_job()
    other = lock(tmp_path)
    with pytest.raises(StoreUnavailable, match=r"has not answered for \d+ s \(.*locked\); nothing finished"):
        book.report(job, 1, 0.5)
    other.rollback()
    book.report(job, 1, 0.5)  # as soon as it is back, so is the ledger
    assert book.rows()[0]["score"] == 0.5


def test_a_database_moved_away_and_back_is_waited_for_and_not_made_anew(tmp_path: Path) -> None:
    book = ledger(tmp_path)
    job = book.next_job()
    (tmp_path / "study.db").rename(tmp_path / "elsewhere.db")
    seen = []

    def back() -> None:
        seen.append((tmp_path / "study.db").exists())
        (tmp_path / "elsewhere.db").rename(tmp_path / "study.db")

    timer = threading.Timer(1.5, back)
    timer.start()
    book.report(job, 1, 0.5)
    timer.join()
    assert seen == [False]  # nothing was put in its place
    assert ledger(tmp_path).rows()[0]["score"] == 0.5


def test_a_database_that_stays_away_stops_the_study_with_one_line(tmp_path: Path) -> None:
    book = ledger(tmp_path, patience=0.5)
    (tmp_path / "study.db").unlink()
    with pytest.raises(StoreUnavailable, match="nothing finished is lost: go on with --resume when it is"):
        book.next_job()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=400k", "tmpfs", str(folder)], capture_output=True
    )
    if mounted.returncode:
        pytest.skip(f"this process may not mount a small disk: {mounted.stderr.decode().strip()}")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.mark.parametrize("damage", ["torn", "zeroed", "empty"])
def test_a_damaged_database_is_refused_with_one_line(tmp_path: Path, damage: str) -> None:
    ledger(tmp_path)
    (tmp_path / "runs").mkdir()
    path = tmp_path / "study.db"
    whole = path.read_bytes()
    half = len(whole) // 2
    path.write_bytes({"torn": whole[:half], "zeroed": whole[:half] + bytes(half), "empty": b""}[damage])
    said = "it is not there or empty, and" if damage == "empty" else r"it is damaged \("
    with pytest.raises(ValueError, match=f"^cannot open the study database .*study.db: {said}"):
        ledger(tmp_path)
    path.write_bytes(whole)
    assert ledger(tmp_path).next_job()


def test_every_page_of_a_database_that_was_zeroed_is_noticed_or_was_empty(tmp_path: Path) -> None:
    ledger(tmp_path)
    path, unnoticed = tmp_path / "study.db", []
    whole = path.read_bytes()
    with sqlite3.connect(path) as database:
        expected = list(database.iterdump())
    for page in range(len(whole) // 4096):
        path.write_bytes(whole[: page * 4096] + bytes(4096) + whole[(page + 1) * 4096 :])
        try:
            _check_whole(path)
        except ValueError:
            continue
        unnoticed.append(page)
        with sqlite3.connect(path) as database:
            assert list(database.iterdump()) == expected
    assert len(unnoticed) < len(whole) // 4096 / 2


class Cut(BaseException):
    """Stands in for a kill: nothing catches it."""


def test_a_database_whose_making_was_cut_off_at_any_write_is_completed(tmp_path: Path) -> None:
    for at in itertools.count(1):
        (tmp_path / str(at)).mkdir()
        asked = itertools.count(1)

        def cut(
            _: object, __: object, statement: str, *rest: object, at: int = at, asked: Any = asked
        ) -> None:
            if statement.split()[0] in ("CREATE", "INSERT") and next(asked) == at:
                raise Cut

        sqlalchemy.event.listen(sqlalchemy.Engine, "before_cursor_execute", cut)
        try:
            ledger(tmp_path / str(at))
        except Cut:
            pass
        finally:
            sqlalchemy.event.remove(sqlalchemy.Engine, "before_cursor_execute", cut)
        job = ledger(tmp_path / str(at)).next_job()
        again = ledger(tmp_path / str(at))
        assert [one.study_name for one in again.study._storage.get_all_studies()] == ["search"], at
        assert again.unfinished() == [job], at
        if next(asked) <= at:
            break
    assert at > 20


def test_a_full_disk_is_one_line_at_once_and_nothing_written_down_is_lost(small_disk: Path) -> None:
    book = ledger(small_disk)
    job = book.next_job()
    book.report(job, 1, 0.5)
    ballast = small_disk / "ballast"
    with open(ballast, "wb", buffering=0) as file, pytest.raises(OSError):
        while True:
            file.write(bytes(1024))
    began = time.monotonic()
    with pytest.raises(StoreUnavailable, match="no space is left for the study database"):
        for epoch in range(2, 100):
            book.report(job, epoch, 0.5)
    assert time.monotonic() - began < 5
    known = book.rows()[0]["epochs"]
    ballast.unlink()
    again = ledger(small_disk)
    assert again.rows()[0]["epochs"] == known >= 1
    assert [one.number for one in again.unfinished()] == [job.number]
    again.report(job, known + 1, 0.6)
    assert again.rows()[0]["score"] == 0.6


def test_what_a_server_did_before_it_dropped_the_connection_is_not_done_twice(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A database server's drop, as SQLAlchemy shows it: after the commit, the answer never comes."""
    storage = open_storage(sqlite_url(tmp_path / "study.db"), patience=10)
    book = Ledger(storage, "search", pruner=PRUNERS["none"])
    book.plan([Job(-1, 0, 0, "search", {"lr": 0.1}, 0, 3, "runs/t0000-r0")])
    job = book.next_job()
    book.report(job, 1, 0.5)
    turns = iter(range(10**6))

    def drop_every_other(connection: sqlalchemy.Connection) -> None:
        if next(turns) % 2 == 0:
            connection.connection.dbapi_connection.commit()  # type: ignore[union-attr]
            raise sqlalchemy.exc.OperationalError("", {}, Exception("server closed the connection"))

    sqlalchemy.event.listen(storage.engine, "commit", drop_every_other)
    book.report(job, 2, 0.7)
    book.finish(job, "COMPLETE")
    (row,) = book.rows()
    assert (row["state"], row["score"], row["epochs"]) == ("COMPLETE", 0.7, 2)
    assert capsys.readouterr().err.count("server closed the connection") == 2  # of each of the two writes
    assert [t.state for t in book.study.trials] == [optuna.trial.TrialState.COMPLETE]


def test_what_is_written_at_once_is_seen_at_once_and_in_the_database_whole_at_the_end(tmp_path: Path) -> None:
    book = ledger(tmp_path)
    ranges = optuna.distributions.FloatDistribution(0.0, 1.0)
    for ends in (True, False):
        trial = book.study.ask()
        before = _seen_by_another(tmp_path, trial.number)
        try:
            with at_once(book.study, trial._trial_id):
                trial.suggest_float("lr", 0.0, 1.0)
                trial.set_user_attr("reason", "first")
                trial.set_user_attr("reason", "second")
                trial.set_constraint("macs", 0.5)
                trial.report(0.25, 1)
                book.study.tell(trial, state=optuna.trial.TrialState.PRUNED)
                assert trials_of(book.study)[trial.number].state == optuna.trial.TrialState.PRUNED
                assert _seen_by_another(tmp_path, trial.number) == before
                if not ends:
                    raise LookupError
        except LookupError:
            pass
        after = _seen_by_another(tmp_path, trial.number)
        assert after == trials_of(book.study)[trial.number] != before
        assert after.distributions == {"lr": ranges} and after.constraints == {"macs": 0.5}
        assert (after.user_attrs["reason"], after.values) == ("second", [0.25])
    with pytest.raises(optuna.exceptions.UpdateFinishedTrialError):
        trial.set_user_attr("reason", "third")
    with pytest.raises(ValueError, match="Cannot set different distribution kind"):
        book.study.ask().suggest_int("lr", 0, 1)
    assert trials_of(book.study)[trial.number] == _seen_by_another(tmp_path, trial.number)


def _seen_by_another(study: Path, number: int) -> optuna.trial.FrozenTrial:
    fresh = open_storage(sqlite_url(study / "study.db"))
    return optuna.load_study(study_name="search", storage=fresh).get_trials()[number]


def test_what_no_waiting_helps_against_is_said_at_once(tmp_path: Path) -> None:
    book = ledger(tmp_path)
    (tmp_path / "study.db").write_bytes(b"not a database at all, " * 400)
    began = time.monotonic()
    with pytest.raises(StoreUnavailable, match="the study database is damaged"):
        book.next_job()
    assert time.monotonic() - began < 10
