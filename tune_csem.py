"""Search a family of joint scene-event models, confirm the best over fresh seeds, and report.

    python tune_csem.py                                              the built-in corpus, on this machine
    python tune_csem.py --data SHARDS --trials 40 --epochs 27 --confirm 4 --seeds 5
    python tune_csem.py --table VII --data SHARDS                    a table of the paper, row by row
    python tune_csem.py --study studies/NAME --resume                after Ctrl-C, a crash, a kill

It joins the Ray cluster it is started on (RAY_ADDRESS, or one `ray start` made here) and starts one of its
own otherwise. See README.md for what it leaves behind.
"""

from __future__ import annotations

import functools
import os
import re
import shlex
import sys
import time
import uuid
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import mode
from typing import Annotated, Any, NamedTuple

import optuna
import ray
import torch
import tyro

import reports
from datasets import synthetic
from datasets.events import parse_events, with_events
from datasets.mix import open_sources, resolved
from datasets.shards import Index
from datasets.source import Source, default_cache
from datasets.storage import shown
from reports import collect, paper_table
from reports.__main__ import summary
from searchspace import record
from searchspace import tables as paper_tables
from searchspace.methods import PRUNERS, SAMPLERS, choose
from searchspace.pins import parse_settings
from searchspace.published import Published
from searchspace.study import (
    Ledger,
    Proposals,
    confirmation,
    now,
    open_storage,
    sqlite_url,
    without_password,
)
from trainables import names
from trainables.analyse import analyse_winner
from trainables.contract import AudioFormat
from trainables.export import export_best, keep_checkpoints, keep_first_seeds
from trainables.printed import analyse_rows, here
from trainables.progress import Progress
from trainables.recipe import complete, parse_pins
from trainables.registry import family
from trainables.trial import Place, run_phase, trials_at_once

PROJECT = Path(__file__).resolve().parent


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
    objective: str = names.OBJECTIVE
    """What the search makes as high as it can, on the validation split, e.g. val/frame_f_micro."""
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


def main() -> int:
    request, study = tyro.cli(Request, description=__doc__), None
    try:
        study, request = begin(request)
        with record.hold(study):
            return search(study, request) if request.table is None else rerun(study, request)
    except (ValueError, OSError, optuna.exceptions.OptunaError, ray.exceptions.RayError) as error:
        if os.environ.get("SCENETUNE_DEBUG"):
            raise
        if study and not request.resume:
            record.discard_unused(study)
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        if study is None:
            return 130
        record.write(study, record.read(study) | {"status": "interrupted"})
        go_on = f"python tune_csem.py --study {shlex.quote(str(study))} --resume"
        print(f"\nstopped; nothing finished is lost. Go on with:\n  {go_on}")
        return 130
    finally:
        with suppress(KeyboardInterrupt):
            ray.shutdown()


def search(study: Path, request: Request) -> int:
    # The data, decoded once here so that the trials find it ready
    events, budget = request.events or "labels", request.budget()
    source = opened(request, events)
    index = source.index
    refuse_unfit(index, record.read(study), test=budget.confirm > 0)

    # The machines, how many trials they hold at once, and the space to search on them
    concurrent, gpus = machines(request)
    proposals = proposals_for(request, index, pins_of(request, record.read(study), gpus))
    proposals.check()
    space = {"pins": dict(proposals.pins), "space": proposals.searched()}
    about = describe_study(study, request, index, concurrent, space)
    record.write(study, about)
    print_plan(study, about)
    place = place_for(study, request, index, about, gpus, events)
    storage = open_storage(request.database or sqlite_url(study / "study.db"))
    name = about["id"] if request.database else ""
    searching = Ledger(storage, "search", pruner=PRUNERS[request.pruner], proposals=proposals, study=name)
    confirming = Ledger(storage, "confirm", pruner=PRUNERS["none"], study=name)
    tables = record.Tables(study, lambda: searching.rows() + confirming.rows())
    run = functools.partial(
        run_phase, place=place, concurrent=concurrent, cpus=request.cpus_per_trial, ended=tables.refresh
    )

    with tables:  # brought up to date on every way out
        # Search: many configurations, one seed each, stopped early where hopeless
        searching.enqueue(family(request.family).published, at_most=max(1, budget.trials // 2))
        with Progress("search", budget.trials, budget.epochs, already=searching.finished()) as progress:
            run(searching, progress=progress)
        finalists = searching.best(budget.confirm)
        keep_checkpoints(study, searching, finalists)

        # Confirm: the best ones at full length over fresh seeds; only these ever see the test split
        confirming.plan(confirmation(finalists, budget.seeds, request.seed))
        jobs = len(finalists) * budget.seeds
        with Progress("confirm", jobs, budget.epochs, already=confirming.finished()) as progress:
            run(confirming, progress=progress)

    # The winner, the report
    model = export_best(study, request.family, index)
    if model:
        print(analyse_winner(model, source))
    record.write(study, about | {"status": "complete", "finished": now()})
    page = reports.build(study)
    print(summary(collect.load(study)))
    print(
        f"report: {page}\nmodel:  {model or 'none, for no trial was completed; the report gives the reasons'}"
    )
    return 0 if model else 1


def rerun(study: Path, request: Request) -> int:
    # The rows that can be trained on these shards, and the machines
    budget, index = request.budget(), opened(request, "labels").index
    made = paper_tables.plan(
        request.printed(), request.pins(), here(index, request.family, request.events, budget.epochs)
    )
    refuse_unfit(index, record.read(study), test=any(one.test for one in made.configurations))
    baseline = paper_tables.baseline_line(made, request.baseline)
    concurrent, gpus = machines(request)
    planned = {"pins": request.pins(), "space": {}, "table": paper_tables.as_record(made, baseline)}
    about = describe_study(study, request, index, concurrent, planned)
    record.write(study, about)
    print_plan(study, about)
    storage = open_storage(request.database or sqlite_url(study / "study.db"))
    name = about["id"] if request.database else ""
    ledgers = {  # one for each source of event labels
        source: Ledger(storage, paper_tables.PHASE, pruner=PRUNERS["none"], study=f"{name} {source}".strip())
        for source in dict.fromkeys(one.events for one in made.configurations)
    }
    tables = record.Tables(study, lambda: [row for ledger in ledgers.values() for row in ledger.rows()])

    with tables:  # Every row from the same seeds to its full length: nothing is stopped early or selected
        for source, ledger in ledgers.items():
            mine = [one for one in made.configurations if one.events == source]
            jobs = paper_tables.jobs(mine, budget.seeds, request.seed, budget.epochs)
            ledger.plan(jobs)

            def ended(ledger: Ledger = ledger) -> None:
                keep_first_seeds(study, ledger)
                tables.refresh()

            with Progress("table", len(jobs), budget.epochs, already=ledger.finished()) as progress:
                run_phase(
                    ledger,
                    place_for(study, request, index, about, gpus, source),
                    progress,
                    concurrent=concurrent,
                    cpus=request.cpus_per_trial,
                    ended=ended,
                )

    # Ours beside the paper's
    analyse_rows(study, made, functools.partial(opened, request))
    record.write(study, about | {"status": "complete", "finished": now()})
    done = collect.load(study)
    paper_table.write(done)
    page = reports.build(study)
    print(f"\n{summary(done)}\nreport: {page}\nmodels: the first seed's of every row, under {study}/runs")
    return 0 if (done.runs["state"] == "COMPLETE").any() else 1


def opened(request: Request, events: str) -> Source:
    """The study's data, decoded once here so that the trials find it ready."""
    data = request.data or synthetic.ensure(default_cache())
    cache = None if request.stream else default_cache()
    frames = family(request.family).frame_hop
    return open_sources(data, request.mix, cache=cache, events=events, frames=frames)


def machines(request: Request) -> tuple[int, float]:
    """(trials at once, GPUs of each) on the Ray cluster, which is joined or started."""
    connect(request)
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    on_gpus = any("GPU" in node for node in nodes)
    gpus = float(on_gpus) if request.gpus_per_trial is None else request.gpus_per_trial
    return trials_at_once(nodes, request.workers_per_trial, float(request.cpus_per_trial), gpus), gpus


def place_for(
    study: Path, request: Request, index: Index, about: dict[str, Any], gpus: float, events: str
) -> Place:
    return Place(
        family=request.family,
        data=index.place if isinstance(index.root, Path) else index.root,
        study=str(study.resolve()),
        objective=request.objective,
        cache=None if request.stream else str(default_cache()),
        events=events,
        mix=request.mix,
        threads=request.cpus_per_trial,
        gpus=gpus,
        workers=request.workers_per_trial,
        provenance={name: about[name] for name in ("git", "packages", "command")},
    )


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
        return study, Request(
            **asked
            | {"study": study, "resume": True, "mix": tuple(asked.get("mix", ()))}
            | {"set": tuple(map(tuple, asked["set"]))}
        )
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
    names.check_objective(request.objective, frames=family(request.family).frame_hop is not None)
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
    return study, request


def refuse_table_options(request: Request) -> None:
    """Raises ValueError for options of a search given with --table, or of a table given without."""
    search_only = ("trials", "confirm")
    given = [name for name in search_only if getattr(request, name) is not None]
    if request.table is not None and given:
        raise ValueError(
            f"--{given[0]} {getattr(request, given[0])}: with --table nothing is searched or selected; its "
            "rows are fixed, --rows picks some and --seeds says how often each is trained"
        )
    if request.table is not None and request.objective != names.OBJECTIVE:
        raise ValueError(f"--objective {request.objective}: with --table nothing is searched or selected")
    given = [name for name in ("rows", "baseline") if getattr(request, name)]
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


def proposals_for(request: Request, index: Index, pins: dict[str, Any]) -> Proposals:
    fam, audio = family(request.family), AudioFormat(index.sample_rate, index.channels, index.samples)
    return Proposals(
        suggest=lambda trial: fam.suggest(trial, index.labels),
        complete=functools.partial(complete, request.family, labels=index.labels, audio=audio),
        sampler=choose("sampler", request.sampler, SAMPLERS),
        pins=pins,
        trials=request.budget().trials,
        epochs=request.budget().epochs,
        seed=request.seed,
    )


def connect(request: Request) -> None:
    """Join the Ray cluster this runs on (RAY_ADDRESS, or one `ray start` made here); else start one on this
    machine."""
    ray.init(
        include_dashboard=request.dashboard or request.workers_per_trial > 1,  # Train's clean-up needs it
        dashboard_host="127.0.0.1",
        log_to_driver=False,
        logging_level="ERROR",
    )


def describe_study(
    study: Path, request: Request, index: Index, concurrent: int, planned: dict[str, Any]
) -> dict[str, Any]:
    """study.json: what was asked, of what, with what."""
    about = record.read(study) | record.provenance(PROJECT)
    about["hardware"] |= {"gpus": [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]}
    about |= {name: getattr(request, name) for name in ("family", "sampler", "pruner", "seed")}
    about |= request.budget()._asdict()
    return (
        about
        | planned
        | {
            "status": "running",
            "command": about.get("command", [shown(word) for word in sys.argv]),
            "objective": {"metric": request.objective, "mode": "max"},
            "concurrent": concurrent,
            "data": about_data(index),
            "published": [
                asdict(row) for row in family(request.family).published if row.metric in names.METRICS
            ],
        }
    )


def about_data(index: Index) -> dict[str, Any]:
    return {
        "path": index.place,
        "seconds": index.samples / index.sample_rate,
        "scenes": list(index.labels.scenes),
        "events": list(index.labels.events),
        "clips": {name: split.clips for name, split in index.splits.items()},
    } | {name: getattr(index, name) for name in ("corpus", "checksum", "licence", "sample_rate", "channels")}


def print_plan(study: Path, about: dict[str, Any]) -> None:
    data, clips = about["data"], about["data"]["clips"]
    print(f"study    {study}  (seed {about['seed']}, commit {(about['git']['commit'] or 'unknown')[:10]})")
    print(
        f"data     {data['corpus']}: {clips.get('train', 0)} training, {clips.get('val', 0)} validation "
        f"clips of {data['seconds']:g} s"
    )
    if about["request"]["events"] not in (None, "labels"):
        print(f"events   {about['request']['events']}: {len(data['events'])} event labels")
    if "table" in about:
        print_rows(about)
    else:
        print(
            f"search   {about['trials']} configurations x up to {about['epochs']} epochs, {about['sampler']} "
            f"+ {about['pruner']}, {about['concurrent']} at a time"
        )
        print(f"confirm  the best {about['confirm']} over {about['seeds']} fresh seeds each")
    if about["pins"]:
        print(
            "fixed    "
            + ", ".join(
                f"{k}={'|'.join(map(str, v)) if isinstance(v, tuple) else v}"
                for k, v in about["pins"].items()
            )
        )


def print_rows(about: dict[str, Any]) -> None:
    table = about["table"]
    running = [row["trial"] for row in table["rows"] if row["trial"] is not None]
    print(
        f"table    {table['name']} of {table['paper']}: {len(running)} of {len(table['rows'])} rows are "
        f"{len(set(running))} configurations x {about['seeds']} seeds x {about['epochs']} epochs, "
        f"{about['concurrent']} at a time"
    )
    for row in table["rows"]:
        if row["why"]:
            print(f"not run  #{row['line']} {row['row']} ({row['corpus']}): {row['why']}")


if __name__ == "__main__":
    sys.exit(main())
