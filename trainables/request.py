"""What a user asks of a study: the options of tune_csem.py, checked before anything is made or run.

A study's folder keeps its request. When it is resumed the request is read from there.
"""

from __future__ import annotations

import os
import re
import time
import uuid
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from statistics import mode
from typing import Annotated, Any, Literal, NamedTuple

import tyro

from datasets.events import parse_events, with_events
from datasets.frames import untimed
from datasets.mix import resolved
from datasets.shards import Index
from datasets.source import Source
from datasets.storage import is_url
from searchspace import record
from searchspace import tables as paper_tables
from searchspace.families import prefixed
from searchspace.methods import PRUNERS, SAMPLERS, Pruner, choose
from searchspace.pins import parse_settings
from searchspace.population import Population
from searchspace.pruners import Promotion
from searchspace.published import Published
from searchspace.race import EVERYONE
from searchspace.study import Second, Spending, now, without_password
from trainables import goals, names
from trainables.registry import family
from trainables.space import families_of, pins_across

EXTENSIBLE = ("trials", "budget_time", "budget_epochs", "set")  # what a study resumed may have more of


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
    """Model family; several, as in csem,bigru_mtl, are searched side by side, the family being a knob."""
    data: str | None = None
    """Shard set (made by python -m datasets.prepare), a folder or a URL; the built-in corpus by default."""
    mix: Annotated[tuple[str, ...], tyro.conf.UseAppendAction] = ()
    """Shard set to mix in and how many of its clips go into every batch: --mix shards/audioset:128."""
    events: str | None = None
    """Event labels: labels (the default), tags (a teacher's, soft), tags>0.1 (hard), labels@0.8 (made 80 %
    right); with --table as the paper's by default."""
    objective: Annotated[tuple[str, ...], tyro.conf.UseAppendAction] = ()
    """What the search makes as high as it can, on the validation split; val/scene_accuracy by default. Given
    twice, the second is weighed against it: macs, parameters, memory, latency (each as low as it can) or
    another of the validation split."""
    limit: Annotated[tuple[tuple[str, ...], ...], tyro.conf.UseAppendAction] = ()
    """What a model may need at most: --limit macs=1e9 parameters=1e6 memory=2e9 (bytes of a training step). A
    configuration that needs more is not run."""
    trials: int | None = None
    """Configurations to try; 16 by default. A finished study resumed with more goes on."""
    budget_time: Annotated[str | None, tyro.conf.arg(name="budget")] = None
    """Time for the search, e.g. 8h or 30m. What is running when it is spent is stopped and never ranked as
    complete; resumed with a larger one it goes on. The confirmation is not counted."""
    budget_epochs: int | None = None
    """The same in epochs trained, over all trials."""
    epochs: int | None = None
    """Full length of a training; 9 by default, with --table as many as the paper's, where it gives them."""
    confirm: int | None = None
    """How many of the best race over fresh seeds; 0 for none, 3 by default."""
    seeds: int | None = None
    """Seeds of each of those at most, and as many further ones for the winner, which are tested; 3 by
    default; with --table seeds of every row, 10 by default."""
    race: str | None = None
    """drop: a configuration that another one clearly beats on the validation split gets no more seeds; full:
    all get all, and the further, tested ones too. drop by default, with --table full."""
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
    """Who proposes: tpe, gp, cmaes, nsga2, nsga3, random, qmc (evenly spread), grid (every point once)."""
    pruner: str = "asha"
    """Who stops early: asha, promotion (all wait at a rung, the best go on from their checkpoints),
    hyperband, median, patience, none; pbt replaces the worst by changed copies of the best."""
    rung_seeds: int = 1
    """With --pruner promotion: seeds that a configuration is trained from up to a rung before it goes on."""
    prior: float = 0.5
    """Probability that a proposal is made near a published row, at the study's start; it halves with every 10
    finished trials. 0 for none."""
    duplicates: Literal["reuse", "reseed"] = "reuse"
    """A configuration proposed again is answered with its result (reuse), or run from another seed."""
    warm_start: Path | None = None
    """An earlier study on the same data: the sampler knows its finished trials."""
    seed: int = 0
    """Seed of the study: proposals, initial weights, order of clips."""
    cpus_per_trial: Annotated[int, tyro.conf.arg(aliases=["--cpus-per-worker"])] = 1
    """CPU cores (and torch threads) of one worker."""
    gpus_per_trial: Annotated[float | None, tyro.conf.arg(aliases=["--gpus-per-worker"])] = None
    """GPUs of one worker, fractions allowed; 1 where there is a GPU, else 0."""
    workers_per_trial: int = 1
    """Data-parallel workers of one trial; more than one run through Ray Train."""
    least_workers: int | None = None
    """Workers with which such a trial begins, or goes on where a node is gone, until more come; all of them
    by default. The batch stays the same."""
    sync_batchnorm: bool = True
    """Normalise over the clips of all workers of a trial, as one worker does; else each worker by its own."""
    trials_at_once: int | None = None
    """Trials at a time, also ones that wait for nodes still to come; by default as many as the nodes hold."""
    stream: bool = False
    """Read the shards anew every epoch instead of decoding them once into a cache."""
    database: str | None = None
    """Optuna database URL, better as $SCENETUNE_DATABASE: a command's words can be read by everybody on the
    machine. A SQLite file in the study folder by default."""
    dashboard: bool = True
    """Start the Ray dashboard (on 127.0.0.1) with a local cluster."""

    def budget(self) -> Budget:
        """How long and how often, with the defaults. Raises ValueError for what is not at least 1, and for a
        table whose paper gives no epochs."""
        if self.table is None:
            usual = Budget(trials=16, epochs=9, confirm=3, seeds=3)
        else:
            rows = self.printed()
            printed = [row.epochs for row in rows if row.epochs]
            if not printed and self.epochs is None and any(row.trainable for row in rows):
                raise ValueError(
                    f"--table {self.table}: {rows[0].paper} gives no epochs; say how many: --epochs N"
                )
            usual = Budget(trials=0, epochs=mode(printed or [1]), confirm=0, seeds=10)
        for name in ("trials", "epochs", "seeds", "budget_epochs"):
            if (asked := getattr(self, name)) is not None and asked < 1:
                raise ValueError(f"--{name.replace('_', '-')} {asked}: expected at least 1")
        if self.confirm is not None and self.confirm < 0:
            raise ValueError(f"--confirm {self.confirm}: expected 0 or more")
        asked = {name: getattr(self, name) for name in Budget._fields if getattr(self, name) is not None}
        return usual._replace(**asked)

    def everyone(self) -> bool:
        """Whether a configuration that another one clearly beats gets its seeds all the same."""
        return choose("race", self.race or ("drop" if self.table is None else "full"), EVERYONE)

    def printed(self) -> list[Published]:
        """The rows of --table that are asked for."""
        return paper_tables.rows_of(family(self.family).published, self.table or "", self.rows)

    def pins(self) -> dict[str, Any]:
        return pins_across(self.families(), parse_settings([one for group in self.set for one in group]))

    def families(self) -> tuple[str, ...]:
        return families_of(self.family)

    def goals(self) -> tuple[str, Second | None]:
        """The objective, and the second one if there is."""
        asked = [family(name) for name in self.families()]
        frames, scenes = all(f.frame_hop is not None for f in asked), all(f.scenes for f in asked)
        return goals.objectives(self.objective or (asked[0].objective,), frames=frames, scenes=scenes)

    def limits(self) -> dict[str, float]:
        return goals.limits([one for group in self.limit for one in group])

    def spending(self) -> Spending:
        return Spending(self.budget_epochs, goals.seconds(self.budget_time) if self.budget_time else None)

    def method(self) -> Pruner:
        """Who stops early. Raises ValueError for what it can't do."""
        pruner = choose("pruner", self.pruner, PRUNERS)
        if isinstance(pruner, Population) and (trials := self.budget().trials) < pruner.share:
            raise ValueError(
                f"--trials {trials}: --pruner pbt replaces a quarter, expected at least {pruner.share}"
            )
        if self.goals()[1] and pruner.objectives < 2:
            able = [name for name, one in PRUNERS.items() if one.objectives > 1]
            raise ValueError(
                f"--pruner {self.pruner} compares one objective; with two take {', '.join(able)}"
            )
        if self.rung_seeds < 1:
            raise ValueError(f"--rung-seeds {self.rung_seeds}: expected at least 1")
        if self.rung_seeds > 1 and not isinstance(pruner, Promotion):
            raise ValueError(f"--rung-seeds {self.rung_seeds}: only with --pruner promotion")
        return replace(pruner, seeds=self.rung_seeds) if isinstance(pruner, Promotion) else pruner


def begin(request: Request) -> tuple[Path, Request]:
    """The study folder and the request to follow: a new one's, or the one written down when it was
    started."""
    if request.resume:
        study = request.study or record.newest(studies())
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
            | {name: tuple(map(tuple, asked.get(name, ()))) for name in ("set", "limit")}
            | {"objective": _words(asked["objective"]), "warm_start": _path(asked.get("warm_start"))}
        )
        refuse_other_options(request, begun)
        return study, extended(request, begun)
    for name in ("cpus_per_trial", "workers_per_trial", "trials_at_once"):
        if (asked_for := getattr(request, name)) is not None and asked_for < 1:
            raise ValueError(f"--{name.replace('_', '-')} {getattr(request, name)}: expected at least 1")
    if not 0 <= request.seed < 2**32:
        raise ValueError(f"--seed {request.seed}: expected 0 to {2**32 - 1}")
    least = request.least_workers
    if least is not None and not 1 <= least <= request.workers_per_trial:
        raise ValueError(
            f"--least-workers {least}: expected 1 to {request.workers_per_trial}, --workers-per-trial"
        )
    share = request.gpus_per_trial
    if share is not None and (share < 0 or (share > 1 and share != int(share))):
        raise ValueError(f"--gpus-per-trial {share:g}: expected 0, a share of one GPU, or whole GPUs")
    request.families(), choose("sampler", request.sampler, SAMPLERS)
    request.everyone()
    refuse_table_options(request)
    request.goals(), request.limits(), request.spending(), request.method()
    if not 0 <= request.prior <= 1:
        raise ValueError(f"--prior {request.prior:g}: expected a probability, 0 to 1")
    if request.warm_start:
        record.read(request.warm_start)
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
    kind = kind.replace(",", "-")
    study = request.study or studies() / f"{kind}-{time.strftime('%Y%m%d-%H%M%S')}"
    request = replace(request, database=request.database or os.environ.get("SCENETUNE_DATABASE"))
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


def studies() -> Path:
    """Where studies lie that are not named with --study: $SCENETUNE_STUDIES, or studies/ here."""
    return Path(os.environ.get("SCENETUNE_STUDIES") or "studies")


def refuse_other_options(request: Request, begun: Request) -> None:
    """Raises ValueError for an option that a resumed study was begun without; it would not be looked at."""
    looked_at = ("study", "resume", "data", "events", "database", *EXTENSIBLE)
    for option in fields(Request):
        given, kept = getattr(request, option.name), getattr(begun, option.name)
        if option.name not in looked_at and given not in (option.default, kept):
            name = _option(option.name)
            raise ValueError(
                f"{name} {given}: the study was begun with {kept} and goes on as it was begun; leave out "
                f"{name}, or begin another study"
            )


def extended(request: Request, begun: Request) -> Request:
    """`begun` with what a resumed study may have more of: trials, budgets, and choices of knobs. Raises
    ValueError for less."""
    if begun.table is not None:
        given = [n for n in EXTENSIBLE if getattr(request, n) not in (None, (), getattr(begun, n))]
        if given:
            raise ValueError(f"{_option(given[0])}: the rows of a table are fixed when it is begun")
        return begun
    had = begun.budget().trials
    if request.trials is not None and request.trials < had:
        raise ValueError(f"--trials {request.trials}: the study was begun with {had}; give as many, or more")
    more = {
        name: getattr(request, name)
        for name in ("trials", "budget_time", "budget_epochs")
        if getattr(request, name) is not None
    }
    wider = replace(begun, **more)
    wider.budget(), wider.spending()
    if not request.set:
        return wider
    old = parse_settings([one for group in begun.set for one in group])
    new = parse_settings([one for group in request.set for one in group])
    for name, text in new.items():
        if name not in old:
            raise ValueError(
                f"--set {name}={text}: the study was begun with {name} open; an extended space is a wider one"
            )
        lost = [word for word in old[name].split(",") if word not in text.split(",")]
        if lost:
            raise ValueError(
                f"--set {name}={text}: the study was begun with {name}={old[name]}; an extended space keeps "
                f"what was searched, as in --set {name}={old[name]},{text}"
            )
    merged = replace(wider, set=(tuple(f"{name}={text}" for name, text in (old | new).items()),))
    merged.pins()
    return merged


def _option(name: str) -> str:
    """A field as it is given on the command line."""
    return "--budget" if name == "budget_time" else f"--{name.replace('_', '-')}"


def _words(asked: str | list[str]) -> tuple[str, ...]:
    return (asked,) if isinstance(asked, str) else tuple(asked)


def _path(asked: str | None) -> Path | None:
    return None if asked is None else Path(asked)


def refuse_table_options(request: Request) -> None:
    """Raises ValueError for options of a search given with --table, or of a table given without."""
    usual = {option.name: option.default for option in fields(Request)}
    search_only = (
        "trials",
        "confirm",
        "sampler",
        "pruner",
        "objective",
        "limit",
        "budget_time",
        "budget_epochs",
        "prior",
        "rung_seeds",
        "duplicates",
        "warm_start",
    )
    if request.table is not None and len(request.families()) > 1:
        raise ValueError(f"--family {request.family}: a table is of one family's paper; name that one")
    given = [name for name in search_only if getattr(request, name) != usual[name]]
    if request.table is not None and given:
        raise ValueError(
            f"{_option(given[0])} {getattr(request, given[0])}: with --table nothing is searched or "
            "selected; its rows are fixed, --rows picks some and --seeds says how often each is trained"
        )
    given = [name for name in ("rows", "baseline") if getattr(request, name) != usual[name]]
    if request.table is None and given:
        raise ValueError(f"--{given[0]} {getattr(request, given[0])}: only with --table")


def refuse_unfit(source: Source, about: dict[str, Any], *, test: bool, columns: Sequence[str] = ()) -> None:
    """Raises ValueError for shards without the splits a study needs, or without the labels of its objectives,
    `columns`; and for others than the study was begun on."""
    index = source.index
    for split in ["val"] + ["test"] * test:
        if split not in index.splits or not index.splits[split].clips:
            raise ValueError(f"{index.place}: no {split} clips; splits: {', '.join(index.splits)}")
    for column in columns:
        if why := _unmeasured(source, column):
            raise ValueError(f"--objective {column}: {why}")
    begun_on = about.get("data", {}).get("checksum", index.checksum)
    if begun_on != index.checksum:
        raise ValueError(
            f"{index.place} holds other data ({index.checksum[:12]}) than the study was begun on "
            f"({begun_on[:12]})"
        )


def _unmeasured(source: Source, column: str) -> str:
    """Why no run on these shards has a number in the column, "" if one has."""
    split, _, metric = column.partition("/")
    labels, place = source.index.labels, source.index.place
    if metric in names.OF_SCENES and not labels.scenes:
        return f"{place} has no scenes; take one of events, such as --objective val/event_map"
    if metric.startswith("event_") and not labels.events:
        return f"{place} has no event labels; take one of scenes, such as --objective {names.OBJECTIVE}"
    return untimed(source, split) if metric.startswith(names.TIMED) else ""


def local_folders(index: Index, mix: Iterable[str]) -> list[Path]:
    """The shard sets of a study that are folders, which every machine must see."""
    places = [index.place, *(word.rpartition(":")[0] for word in mix)]
    return [Path(place) for place in places if not is_url(place)]


def pins_of(request: Request, about: dict[str, Any], gpus: float) -> dict[str, Any]:
    """The user's pins, with what was pinned by default when the study was begun; without a GPU, cSEM's
    backbone is TinyCNN by default."""
    pins = request.pins()
    if "pins" in about:
        begun = {name: tuple(pin) if isinstance(pin, list) else pin for name, pin in about["pins"].items()}
        return begun | pins
    families = request.families()
    backbone = "backbone" if families == ("csem",) else prefixed("csem", "backbone")
    return {backbone: "tinycnn", **pins} if "csem" in families and not gpus else pins
