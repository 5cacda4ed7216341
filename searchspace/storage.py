"""The database a study lives in: opened by URL, and waited for when it does not answer for a while.

A locked file, a share that is away for a minute, a server that restarts: each operation is tried again with
growing pauses for PATIENCE seconds. Only then does the study stop, with one line; what was written down stays
written down, and `--resume` goes on from it. A full disk is not waited for.
"""

from __future__ import annotations

import bisect
import copy
import functools
import json
import re
import sqlite3
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, closing, contextmanager, nullcontext
from pathlib import Path
from typing import Any

import optuna
import sqlalchemy
from optuna.distributions import BaseDistribution, check_distribution_compatibility
from optuna.storages._rdb.models import BaseModel, TrialModel, TrialUserAttributeModel
from optuna.trial import FrozenTrial
from sqlalchemy import delete, insert, select, update
from sqlalchemy.exc import DatabaseError, DBAPIError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from searchspace.changes import CHANGES, differences, without

PATIENCE = 120.0  # seconds an operation is tried again before the study stops
BUSY = 2.0  # seconds SQLite itself waits for another process's lock
PAUSES = (0.05, 5.0)  # seconds between attempts, the first and the longest
DETAILS = "details"  # of an ended trial, that only tables ask for: not kept in memory beside the database
FULL = ("disk is full", "No space left", "Disk quota exceeded")

WRITES = (  # to one trial, their first argument
    "_set_trial_param",
    "set_trial_param",
    "set_trial_state_values",
    "set_trial_intermediate_value",
    "set_trial_user_attr",
    "set_trial_system_attr",
)

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
    *WRITES,
    "write_change",
    "get_trial_id_from_study_id_trial_number",
    "get_trial_user_attrs",
    "get_trial_system_attrs",
    "get_trial_param",
    "get_trial",
    "read_attribute",
    "_get_trials",
    "_get_best_trial_id",
)


class StoreUnavailable(OSError):
    """The study database did not answer for PATIENCE seconds, its disk is full, or it is damaged."""


def open_storage(url: str, *, patience: float = PATIENCE) -> optuna.storages.RDBStorage:
    """The study database. Raises ValueError naming the URL if it can't be opened."""
    try:
        storage = PatientStorage(url, _engine_options(url), patience)
        _complete_indexes(storage.engine)
        return storage
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


def trials_of(study: optuna.Study) -> Sequence[FrozenTrial]:
    """All trials by number, as they are now. Not to be changed."""
    storage = _own(study)
    return storage.trials(study._study_id) if storage else study.get_trials(deepcopy=False)


def at_once(study: optuna.Study, trial_id: int) -> AbstractContextManager[None]:
    """What is written to the trial inside, in one transaction at the end where the study's storage is a
    PatientStorage: after a kill either all of it is there or nothing."""
    storage = _own(study)
    return storage.at_once(study._study_id, trial_id) if storage else nullcontext()


def set_attributes(study: optuna.Study, trial_id: int, attributes: Mapping[str, Any]) -> None:
    with at_once(study, trial_id):
        for name, value in attributes.items():
            study._storage.set_trial_user_attr(trial_id, name, value)


def details_of(study: optuna.Study) -> Mapping[int, Any]:
    """{number: its DETAILS} of all trials that have some."""
    storage = _own(study)
    if storage:
        return storage.read_attribute(study._study_id, DETAILS)
    trials = study.get_trials(deepcopy=False)
    return {t.number: t.user_attrs[DETAILS] for t in trials if DETAILS in t.user_attrs}


def _own(study: optuna.Study) -> PatientStorage | None:
    """The study's storage below Optuna's cache, if it is one of ours (a simulation's is Optuna's)."""
    storage = getattr(study._storage, "_backend", study._storage)
    return storage if isinstance(storage, PatientStorage) else None


class PatientStorage(optuna.storages.RDBStorage):
    """Optuna's storage, each of whose OPERATIONS is tried again for `patience` seconds.

    Trying again is safe: an operation is one transaction, and each sets what it sets to a given value. Where
    a server breaks the connection between doing and answering, a trial told twice is told once; one created
    twice leaves a trial without a job, which the ledger tells FAIL when it is next opened.
    """

    def __init__(self, url: str, engine_options: dict[str, Any], patience: float) -> None:
        self.patience = patience
        self._known: dict[int, _Known] = {}
        self._stale: set[int] = set()  # trials that were written to and are to be read again
        self._grown: set[int] = set()  # studies that have trials which were not read yet
        self._held: dict[int, FrozenTrial] = {}  # trials inside `at_once`, as the database has them
        super().__init__(url, engine_kwargs=engine_options)

    def _get_trials(
        self, study_id: int, states: Any, included_trial_ids: set[int], trial_id_greater_than: int
    ) -> list[FrozenTrial]:
        """Optuna reads everything that is running anew each time anybody looks at the study; here only what
        this process has written since is read: no other one writes (searchspace.hold)."""
        if states is not None:
            return super()._get_trials(study_id, states, included_trial_ids, trial_id_greater_than)
        known = self._read(study_id)
        wanted = known.after(trial_id_greater_than)
        wanted += [i for i in sorted(included_trial_ids) if i <= trial_id_greater_than and i in known.trials]
        return [known.trials[i] for i in wanted]

    def trials(self, study_id: int) -> Sequence[FrozenTrial]:
        """All of a study's, by number, as they are now; it costs no more the more there are. Not to be
        changed."""
        self.attempt(PatientStorage._read, study_id)
        return self._known[study_id].by_number

    def _read(self, study_id: int) -> _Known:
        known = self._known.get(study_id)
        if known is None or study_id in self._grown or any(i in known.trials for i in self._stale):
            known = known or _Known()
            for trial in super()._get_trials(study_id, None, set(self._stale), known.last()):
                known.keep(trial)
                self._stale.discard(trial._trial_id)
            self._known[study_id] = known
            self._grown.discard(study_id)
        return known

    def get_trial(self, trial_id: int) -> FrozenTrial:
        known = self._of(trial_id)
        return copy.deepcopy(known.trials[trial_id]) if known else super().get_trial(trial_id)

    def _of(self, trial_id: int) -> _Known | None:
        """The trials as they are now of the study that the trial belongs to, if that was ever read."""
        for study_id, known in self._known.items():
            if trial_id in known.trials:
                return self._read(study_id)
        return None

    @contextmanager
    def at_once(self, study_id: int, trial_id: int) -> Iterator[None]:
        """What is written to the trial inside is seen at once, and is in the database, whole, at the end."""
        if trial_id in self._held:
            yield
            return
        self.trials(study_id)
        known = self._known[study_id]
        self._held[trial_id] = before = known.trials[trial_id]
        try:
            yield
        finally:
            del self._held[trial_id]
            self._put(known, before, known.trials[trial_id])

    def change(self, name: str, trial_id: int, *args: Any, **kwargs: Any) -> bool:
        """Carry out one of Optuna's WRITES by what it changes of a trial. False where that is not known
        beforehand."""
        known = self._of(trial_id)
        before = known.trials[trial_id] if known else None
        after = CHANGES[name](before, *args, **kwargs) if before and name in CHANGES else None
        if known is None or before is None or after is None:
            assert trial_id not in self._held, f"{name} inside at_once"
            return False
        if name == "_set_trial_param":
            known.check(args[0], args[2])
        if trial_id in self._held:
            known.keep(after)
        else:
            self._put(known, before, after)
        return True

    def _put(self, known: _Known, before: FrozenTrial, after: FrozenTrial) -> None:
        known.keep(before)  # what is known is what the database has, should it give no answer
        if after is not before:
            self.write_change(before, after)
            known.keep(without(after, DETAILS) if after.state.is_finished() else after)

    def write_change(self, before: FrozenTrial, after: FrozenTrial) -> None:
        """What differs between the two, in one transaction."""
        trials: Any = TrialModel.__table__
        this = trials.c.trial_id == after._trial_id
        with self.engine.begin() as database:
            state = database.execute(select(trials.c.state).where(this)).scalar_one()
            self.check_trial_is_updatable(after._trial_id, state)
            for table, key, rows in differences(before, after):
                # Those that are replaced, or that an attempt before this one has written after all
                written = table.c[key].in_([row[key] for row in rows])
                database.execute(delete(table).where(table.c.trial_id == after._trial_id, written))
                database.execute(insert(table), rows)
            if after.state != before.state:
                ended = {"state": after.state, "datetime_complete": after.datetime_complete}
                database.execute(update(trials).where(this).values(ended))

    def read_attribute(self, study_id: int, name: str) -> dict[int, Any]:
        """{number: value} of one of the trials' own attributes."""
        trials: Any = TrialModel.__table__
        attributes: Any = TrialUserAttributeModel.__table__
        asked = (
            select(trials.c.number, attributes.c.value_json)
            .join(attributes, attributes.c.trial_id == trials.c.trial_id)
            .where(trials.c.study_id == study_id, attributes.c.key == name)
        )
        with self.engine.connect() as database:
            return {number: json.loads(value) for number, value in database.execute(asked)}

    def get_all_trials(self, study_id: int, deepcopy: bool = True, states: Any = None) -> list[FrozenTrial]:
        trials = super()._get_trials(study_id, states, set(), -1)
        return copy.deepcopy(trials) if deepcopy else trials

    def attempt(self, operation: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        name, began, pause, tried = operation.__name__, time.monotonic(), PAUSES[0], False
        if name in WRITES:
            if self.change(name, *args, **kwargs):
                return True
            self._stale.add(args[0])
        while True:
            try:
                done = operation(self, *args, **kwargs)
                if name == "_create_new_trial":
                    self._created(args[0], done, *args[1:], **kwargs)
                return done
            except optuna.exceptions.UpdateFinishedTrialError:
                if tried and name in ("set_trial_state_values", "write_change"):
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

    def _created(self, study_id: int, trial: FrozenTrial, template: FrozenTrial | None = None) -> None:
        """A new trial is known without reading it, unless there are others, or it was made from a template,
        which the database may give back in other words."""
        known = self._known.get(study_id)
        whole = known is not None and study_id not in self._grown and trial.number == len(known.by_number)
        if known is not None and whole and template is None:
            known.keep(copy.deepcopy(trial))
        else:
            self._grown.add(study_id)

    def _gave_up(self, waited: float, reason: str) -> str:
        return (
            f"{self._name()} has not answered for {waited:.0f} s ({reason}); nothing finished is lost: go on "
            "with --resume when it is back"
        )

    def _name(self) -> str:
        return f"the study database {without_password(str(self.url))}"


class _Known:
    """A study's trials as they were last read: by id, and in the order of their ids, which is that of their
    numbers."""

    def __init__(self) -> None:
        self.trials: dict[int, FrozenTrial] = {}
        self.by_number: list[FrozenTrial] = []
        self._ids: list[int] = []
        self._distributions: dict[str, BaseDistribution] = {}

    def check(self, name: str, distribution: BaseDistribution) -> None:
        """Raises ValueError for a parameter whose ranges can't be those of the same name in other trials."""
        if name not in self._distributions:
            found = (t.distributions[name] for t in self.by_number if name in t.distributions)
            self._distributions[name] = next(found, distribution)
        check_distribution_compatibility(self._distributions[name], distribution)

    def keep(self, trial: FrozenTrial) -> None:
        if trial._trial_id in self.trials:
            self.by_number[trial.number] = trial
        else:
            self._ids.append(trial._trial_id)
            self.by_number.append(trial)
        self.trials[trial._trial_id] = trial

    def last(self) -> int:
        return self._ids[-1] if self._ids else -1

    def after(self, trial_id: int) -> list[int]:
        return self._ids[bisect.bisect_right(self._ids, trial_id) :]


def _patient(operation: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(operation)
    def patiently(self: PatientStorage, *args: Any, **kwargs: Any) -> Any:
        return self.attempt(operation, *args, **kwargs)

    return patiently


for _name in OPERATIONS:
    setattr(PatientStorage, _name, _patient(getattr(PatientStorage, _name)))


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
    path = Path(str(database))
    _check_whole(path)

    def connect() -> sqlite3.Connection:
        address = f"{path.resolve().as_uri()}?mode=rw"
        return sqlite3.connect(address, uri=True, timeout=BUSY, check_same_thread=False)

    return {"creator": connect}


def _complete_indexes(engine: sqlalchemy.Engine) -> None:
    """Of a database whose making was cut off between a table and its indexes SQLAlchemy completes the tables
    alone. Without the one on their names Optuna makes a second study of the name, empty, beside the first."""
    for table in BaseModel.metadata.tables.values():
        for index in table.indexes:
            index.create(engine, checkfirst=True)


def _check_whole(path: Path) -> None:
    """Make the database if it is not there. Raises ValueError for one with pages that are not SQLite's: a
    damaged page would otherwise be met in the middle of the study, or be read as fewer trials; so would an
    empty file."""
    if (path.parent / "runs").is_dir() and not (path.is_file() and path.stat().st_size):
        raise ValueError(f"it is not there or empty, and {path.parent / 'runs'} is of a study that had begun")
    with closing(sqlite3.connect(path, timeout=BUSY)) as database:
        try:
            (said,) = database.execute("PRAGMA quick_check(1)").fetchone()
        except sqlite3.OperationalError:  # locked: whoever holds it can read it
            return
        except sqlite3.DatabaseError as error:
            said = str(error)
    if said != "ok":
        raise ValueError(f"it is damaged ({said.splitlines()[-1]})")
