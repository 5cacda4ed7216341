"""The database a study lives in: opened by URL, and waited for when it does not answer for a while.

A locked file, a share that is away for a minute, a server that restarts: each operation is tried again with
growing pauses for PATIENCE seconds. Only then does the study stop, with one line; what was written down stays
written down, and `--resume` goes on from it. A full disk is not waited for.
"""

from __future__ import annotations

import functools
import re
import sqlite3
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
import sqlalchemy
from sqlalchemy.exc import DatabaseError, DBAPIError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout

PATIENCE = 120.0  # seconds an operation is tried again before the study stops
BUSY = 2.0  # seconds SQLite itself waits for another process's lock
PAUSES = (0.05, 5.0)  # seconds between attempts, the first and the longest
FULL = ("disk is full", "No space left", "Disk quota exceeded")

# The operations that reach the database, those that Optuna's cache calls among them
OPERATIONS = (
    "create_new_study",
    "get_study_id_from_name",
    "get_study_name_from_id",
    "get_study_directions",
    "get_study_user_attrs",
    "get_study_system_attrs",
    "set_study_user_attr",
    "set_study_system_attr",
    "get_all_studies",
    "_create_new_trial",
    "_set_trial_param",
    "set_trial_param",
    "set_trial_state_values",
    "set_trial_intermediate_value",
    "set_trial_user_attr",
    "set_trial_system_attr",
    "get_trial_id_from_study_id_trial_number",
    "get_trial_user_attrs",
    "get_trial_system_attrs",
    "get_trial_param",
    "get_trial",
    "_get_trials",
    "_get_best_trial_id",
)


class StoreUnavailable(OSError):
    """The study database did not answer for PATIENCE seconds, its disk is full, or it is damaged."""


def open_storage(url: str, *, patience: float = PATIENCE) -> optuna.storages.RDBStorage:
    """The study database. Raises ValueError naming the URL if it can't be opened."""
    try:
        return PatientStorage(url, _engine_options(url), patience)
    except Exception as error:  # SQLAlchemy's, the driver's or alembic's: all mean the same to the user
        raise ValueError(
            f"cannot open the study database {without_password(url)}: {error}".splitlines()[0]
        ) from error


def sqlite_url(path: Path) -> str:
    return f"sqlite:///{path.resolve()}"


def without_password(url: str) -> str:
    """A database URL fit to be shown and kept; other text as it is."""
    head, at, tail = url.rpartition("@")
    shown = f"{head.split('://')[0]}://…@{tail}" if at and "://" in head else url
    return re.sub(r"([?&][^=&]*(?:pass|secret|token|key)[^=&]*=)[^&]*", r"\1…", shown, flags=re.IGNORECASE)


class PatientStorage(optuna.storages.RDBStorage):
    """Optuna's storage, each of whose OPERATIONS is tried again for `patience` seconds.

    Trying again is safe: an operation is one transaction, and each sets what it sets to a given value. Where
    a server breaks the connection between doing and answering, a trial told twice is told once; one created
    twice leaves a trial without a job, which the ledger tells FAIL when it is next opened.
    """

    def __init__(self, url: str, engine_options: dict[str, Any], patience: float) -> None:
        self.patience = patience
        super().__init__(url, engine_kwargs=engine_options)

    def attempt(self, operation: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        began, pause, tried = time.monotonic(), PAUSES[0], False
        while True:
            try:
                return operation(self, *args, **kwargs)
            except optuna.exceptions.UpdateFinishedTrialError:
                if tried and operation.__name__ == "set_trial_state_values":
                    return True  # the attempt before this one had been carried out
                raise
            except (optuna.exceptions.StorageInternalError, DBAPIError, PoolTimeout) as error:
                reason = _passing(error)
                waited = time.monotonic() - began
                if waited > self.patience:
                    raise StoreUnavailable(self._gave_up(waited, reason)) from error
            if not tried:
                print(f"{self._name()} does not answer ({reason}); waiting for it", file=sys.stderr)
            tried = True
            self.engine.dispose()  # a file that was moved, a server that restarted: connect anew
            time.sleep(pause)
            pause = min(2 * pause, PAUSES[1])

    def _gave_up(self, waited: float, reason: str) -> str:
        return (
            f"{self._name()} has not answered for {waited:.0f} s ({reason}); nothing finished is lost: go on "
            "with --resume when it is back"
        )

    def _name(self) -> str:
        return f"the study database {without_password(str(self.url))}"


def _patient(operation: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(operation)
    def patiently(self: PatientStorage, *args: Any, **kwargs: Any) -> Any:
        return self.attempt(operation, *args, **kwargs)

    return patiently


for _name in OPERATIONS:
    setattr(PatientStorage, _name, _patient(getattr(optuna.storages.RDBStorage, _name)))


def _passing(error: Exception) -> str:
    """What the database said, if it may pass. Raises StoreUnavailable for a full disk, and what no waiting
    helps against as it is."""
    cause = error if isinstance(error, DBAPIError | PoolTimeout) else error.__cause__
    said = str(getattr(cause, "orig", None) or cause).splitlines()[0]
    if any(words in said for words in FULL):
        raise StoreUnavailable(
            f"no space is left for the study database ({said}); nothing finished is lost: make room and "
            "go on with --resume"
        ) from error
    lost = isinstance(cause, DBAPIError) and cause.connection_invalidated
    if lost or isinstance(cause, OperationalError | InterfaceError | PoolTimeout):
        return said
    if type(cause) is DatabaseError:  # SQLite: "file is not a database", "malformed"
        raise StoreUnavailable(f"the study database is damaged ({said})") from error
    raise error


def _engine_options(url: str) -> dict[str, Any]:
    """SQLite must not make an empty database in the place of one that was moved away."""
    if not url.startswith("sqlite"):
        return {"pool_pre_ping": True}
    database = sqlalchemy.make_url(url).database
    if database in (None, "", ":memory:"):
        return {}
    path = Path(database)
    sqlite3.connect(path).close()

    def connect() -> sqlite3.Connection:
        address = f"{path.resolve().as_uri()}?mode=rw"
        return sqlite3.connect(address, uri=True, timeout=BUSY, check_same_thread=False)

    return {"creator": connect}
