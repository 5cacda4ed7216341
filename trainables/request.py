"""What a user asks of a study: the options of tune_csem.py, checked before anything is made or run.

A study's folder keeps its request. When it is resumed the request is read from there.
"""

from __future__ import annotations

import os
import re
import time
import uuid
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from statistics import mode
from typing import Annotated, Any, NamedTuple

import tyro

from datasets.events import parse_events, with_events
from datasets.mix import resolved
from datasets.shards import Index
from searchspace import record
from searchspace import tables as paper_tables
from searchspace.methods import PRUNERS, SAMPLERS, choose
from searchspace.pins import parse_settings
from searchspace.published import Published
from searchspace.study import now, without_password
from trainables import names
from trainables.recipe import parse_pins
from trainables.registry import family


class Budget(NamedTuple):
    """Configurations, epochs of each, how many are confirmed, seeds of each of those (or of a table's
    rows)."""

    trials: int
    epochs: int
    confirm: int
    seeds: int


@dataclass(frozen=True)
class Request:
    """What to search. Everything but --study and --resume is read from the study itself when it is
    resumed."""

    study: Path | None = None
    """Folder for all results; a new one under studies/ by default."""
    resume: bool = False
    """Continue the study (the newest under studies/ if --study is not given)."""
    family: str = "csem"
    """Model family."""
    data: str | None = None
    """Shard set (made by python -m datasets.prepare), a folder or a URL; the built-in corpus by default."""
    mix: Annotated[tuple[str, ...], tyro.conf.UseAppendAction] = ()
    """Shard set to mix in and how many of its clips go into every batch: --mix shards/audioset:128."""
    events: str | None = None
    """Event labels: labels (the default), tags (a teacher's, soft), tags>0.1 (hard), labels@0.8 (made 80 %
    right); with --table as the paper's by default."""
    objective: str | None = None
    """What the search makes as high as it can, on the validation split, e.g. val/frame_f_micro;
    val/scene_accuracy by default, where a family says nothing of scenes an event metric."""
    trials: int | None = None
    """Configurations to try; 16 by default."""
    epochs: int | None = None
    """Full length of a training; 9 by default, with --table as many as the paper's."""
    confirm: int | None = None
    """How many of the best are trained again over fresh seeds and tested; 0 for none, 3 by default."""
    seeds: int | None = None
    """Fresh seeds for each of those, 3 by default; with --table seeds of every row, 10 by default."""
    table: str | None = None
    """Instead of a search: train the rows of this table of the family's paper, e.g. VII, as printed."""
    rows: str = ""
    """Of that table only these rows, by their printed numbers: 1,2,14."""
    baseline: int | None = None
    """The table's row that the others are compared with; its first by default."""
    set: Annotated[tuple[tuple[str, ...], ...], tyro.conf.UseAppendAction] = ()
    """Fix knobs or narrow their choices: --set lr=0.001 backbone=tinycnn,cnnt. With --table: knobs that the
    rows leave open; rows that have another value are left out."""
    sampler: str = "tpe"
    """Who proposes: tpe, random."""
    pruner: str = "asha"
    """Who stops early: asha, none."""
    seed: int = 0
    """Seed of the study: proposals, initial weights, order of clips."""
    cpus_per_trial: int = 1
    """CPU cores (and torch threads) of one worker."""
    gpus_per_trial: float | None = None
    """GPUs of one worker, fractions allowed; 1 where there is a GPU, else 0."""
    workers_per_trial: int = 1
    """Data-parallel workers of one trial; more than one run through Ray Train."""
    stream: bool = False
    """Read the shards anew every epoch instead of decoding them once into a cache."""
    database: str | None = None
    """Optuna database URL; a SQLite file in the study folder by default."""
    dashboard: bool = True
    """Start the Ray dashboard (on 127.0.0.1) with a local cluster."""

    def budget(self) -> Budget:
        """How long and how often, with the defaults. Raises ValueError for what is not at least 1."""
        if self.table is None:
            usual = Budget(trials=16, epochs=9, confirm=3, seeds=3)
        else:
            printed = [row.epochs for row in self.printed() if row.epochs]
            usual = Budget(trials=0, epochs=mode(printed or [1]), confirm=0, seeds=10)
        for name in ("trials", "epochs", "seeds"):
            if (asked := getattr(self, name)) is not None and asked < 1:
                raise ValueError(f"--{name} {asked}: expected at least 1")
        if self.confirm is not None and self.confirm < 0:
            raise ValueError(f"--confirm {self.confirm}: expected 0 or more")
        asked = {name: getattr(self, name) for name in Budget._fields if getattr(self, name) is not None}
        return usual._replace(**asked)

    def printed(self) -> list[Published]:
        """The rows of --table that are asked for."""
        return paper_tables.rows_of(family(self.family).published, self.table or "", self.rows)

    def pins(self) -> dict[str, Any]:
        return parse_pins(self.family, parse_settings([one for group in self.set for one in group]))


def begin(request: Request) -> tuple[Path, Request]:
    """The study folder and the request to follow: a new one's, or the one written down when it was
    started."""
    if request.resume:
        study = request.study or record.newest(Path("studies"))
        asked = record.read(study)["request"]
        asked["data"] = request.data or asked["data"]  # a URL was kept without its password and token
        begun_with = asked.setdefault("events", None) or "labels"
        if request.events and str(parse_events(request.events)) != begun_with:
            raise ValueError(
                f"--events {request.events}: the study was begun with --events {begun_with}; resume it "
                "without --events, or begin another"
            )
        asked["database"] = request.database or os.environ.get("SCENETUNE_DATABASE") or asked["database"]
        begun = Request(
            **asked
            | {"study": study, "resume": True, "mix": tuple(asked.get("mix", ()))}
            | {"set": tuple(map(tuple, asked["set"]))}
        )
        refuse_other_options(request, begun)
        return study, begun
    for name in ("cpus_per_trial", "workers_per_trial"):
        if getattr(request, name) < 1:
            raise ValueError(f"--{name.replace('_', '-')} {getattr(request, name)}: expected at least 1")
    share = request.gpus_per_trial
    if share is not None and (share < 0 or (share > 1 and share != int(share))):
        raise ValueError(f"--gpus-per-trial {share:g}: expected 0, a share of one GPU, or whole GPUs")
    (
        family(request.family),
        choose("sampler", request.sampler, SAMPLERS),
        choose("pruner", request.pruner, PRUNERS),
    )
    refuse_table_options(request)
    fam = family(request.family)
    objective = request.objective or fam.objective
    request = replace(request, objective=objective)
    names.check_objective(objective, frames=fam.frame_hop is not None, scenes=fam.scenes)
    request.budget()
    request.pins()
    index = Index.load(request.data) if request.data else None
    events = parse_events(request.events or "labels")
    if index:
        with_events(index, events)
    elif events.origin == "tags":
        raise ValueError(
            f"--events {request.events}: the built-in corpus has no tags; tag a shard set with "
            "`python -m trainables.teacher` and give it as --data"
        )
    request = replace(request, mix=tuple(map(resolved, request.mix)))
    kind = "-".join(["table", *re.findall(r"\w+", request.table)]) if request.table else request.family
    study = request.study or Path("studies") / f"{kind}-{time.strftime('%Y%m%d-%H%M%S')}"
    secret_free = without_password(request.database) if request.database else None
    asked = asdict(request) | {
        "database": secret_free,
        "data": index.place if index else None,
        "events": str(events) if request.events else None,
    }
    record.create(
        study,
        {
            "format": 1,
            "name": study.name,
            "id": uuid.uuid4().hex[:12],
            "status": "running",
            "created": now(),
            "request": asked,
        },
    )
    return study, replace(request, events=asked["events"])


def refuse_other_options(request: Request, begun: Request) -> None:
    """Raises ValueError for an option that a resumed study was begun without; it would not be looked at."""
    looked_at = ("study", "resume", "data", "events", "database")
    for option in fields(Request):
        given, kept = getattr(request, option.name), getattr(begun, option.name)
        if option.name not in looked_at and given not in (option.default, kept):
            name = option.name.replace("_", "-")
            raise ValueError(
                f"--{name} {given}: the study was begun with {kept} and goes on as it was begun; leave out "
                f"--{name}, or begin another study"
            )


def refuse_table_options(request: Request) -> None:
    """Raises ValueError for options of a search given with --table, or of a table given without."""
    usual = {option.name: option.default for option in fields(Request)}
    search_only = ("trials", "confirm", "sampler", "pruner", "objective")
    given = [name for name in search_only if getattr(request, name) != usual[name]]
    if request.table is not None and given:
        raise ValueError(
            f"--{given[0]} {getattr(request, given[0])}: with --table nothing is searched or selected; its "
            "rows are fixed, --rows picks some and --seeds says how often each is trained"
        )
    given = [name for name in ("rows", "baseline") if getattr(request, name) != usual[name]]
    if request.table is None and given:
        raise ValueError(f"--{given[0]} {getattr(request, given[0])}: only with --table")


def refuse_unfit(index: Index, about: dict[str, Any], *, test: bool) -> None:
    """Raises ValueError for shards without the splits a study needs, or other than the study was begun on."""
    for split in ["val"] + ["test"] * test:
        if split not in index.splits or not index.splits[split].clips:
            raise ValueError(f"{index.place}: no {split} clips; splits: {', '.join(index.splits)}")
    begun_on = about.get("data", {}).get("checksum", index.checksum)
    if begun_on != index.checksum:
        raise ValueError(
            f"{index.place} holds other data ({index.checksum[:12]}) than the study was begun on "
            f"({begun_on[:12]})"
        )


def pins_of(request: Request, about: dict[str, Any], gpus: float) -> dict[str, Any]:
    """The user's pins, as they were when the study was begun; without a GPU, only TinyCNN by default."""
    if "pins" in about:
        return {name: tuple(pin) if isinstance(pin, list) else pin for name, pin in about["pins"].items()}
    pins = request.pins()
    return {"backbone": "tinycnn", **pins} if request.family == "csem" and not gpus else pins
