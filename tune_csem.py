"""Search a family of joint scene-event models, confirm the best over fresh seeds, and report.

    python tune_csem.py                                              the built-in corpus, on this machine
    python tune_csem.py --data SHARDS --trials 40 --epochs 27 --confirm 4 --seeds 5
    python tune_csem.py --study studies/NAME --resume                after Ctrl-C, a crash, a kill

It joins the Ray cluster it is started on (RAY_ADDRESS, or one `ray start` made here) and starts one of its
own otherwise. See README.md for what it leaves behind.
"""

from __future__ import annotations

import functools
import os
import shlex
import sys
import time
import uuid
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import optuna
import ray
import torch
import tyro

import reports
from datasets import synthetic
from datasets.events import parse_events, with_events
from datasets.mix import open_sources, resolved
from datasets.shards import Index
from datasets.source import default_cache
from datasets.storage import shown
from reports import collect
from reports.__main__ import summary
from searchspace import record
from searchspace.methods import PRUNERS, SAMPLERS, choose
from searchspace.pins import parse_settings
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
from trainables.contract import AudioFormat
from trainables.export import export_best, keep_checkpoints
from trainables.progress import Progress
from trainables.recipe import complete, parse_pins
from trainables.registry import family
from trainables.trial import Place, run_phase, trials_at_once

PROJECT = Path(__file__).resolve().parent


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
    events: str | None = None
    """Event labels: labels (the default), tags (a teacher's, soft), tags>0.1 (hard), labels@0.8 (made 80 %
    right)."""
    mix: Annotated[tuple[str, ...], tyro.conf.UseAppendAction] = ()
    """Shard set to mix in and how many of its clips go into every batch: --mix shards/audioset:128."""
    trials: int = 16
    """Configurations to try."""
    epochs: int = 9
    """Full length of a training."""
    confirm: int = 3
    """How many of the best are trained again over fresh seeds and tested; 0 for none."""
    seeds: int = 3
    """Fresh seeds for each of those."""
    set: Annotated[tuple[tuple[str, ...], ...], tyro.conf.UseAppendAction] = ()
    """Fix knobs or narrow their choices: --set lr=0.001 backbone=tinycnn,cnnt."""
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

    def pins(self) -> dict[str, Any]:
        return parse_pins(self.family, parse_settings([one for group in self.set for one in group]))


def main() -> int:
    request, study = tyro.cli(Request, description=__doc__), None
    try:
        study, request = begin(request)
        with record.hold(study):
            return search(study, request)
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
    cache = None if request.stream else default_cache()
    data, events = request.data or synthetic.ensure(default_cache()), request.events or "labels"
    index = open_sources(data, request.mix, cache=cache, events=events).index
    refuse_unfit(index, request, record.read(study))

    # The machines, how many trials they hold at once, and the space to search on them
    connect(request)
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    on_gpus = any("GPU" in node for node in nodes)
    gpus = float(on_gpus) if request.gpus_per_trial is None else request.gpus_per_trial
    concurrent = trials_at_once(nodes, request.workers_per_trial, float(request.cpus_per_trial), gpus)
    proposals = proposals_for(request, index, pins_of(request, record.read(study), gpus))
    proposals.check()
    about = describe_study(study, request, index, proposals, concurrent)
    record.write(study, about)
    print_plan(study, about)
    place = Place(
        family=request.family,
        data=index.place if isinstance(index.root, Path) else index.root,
        study=str(study.resolve()),
        objective=names.OBJECTIVE,
        cache=str(cache) if cache else None,
        events=events,
        mix=request.mix,
        threads=request.cpus_per_trial,
        gpus=gpus,
        workers=request.workers_per_trial,
        provenance={name: about[name] for name in ("git", "packages", "command")},
    )
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
        searching.enqueue(family(request.family).published, at_most=max(1, request.trials // 2))
        with Progress("search", request.trials, request.epochs, already=searching.finished()) as progress:
            run(searching, progress=progress)
        finalists = searching.best(request.confirm)
        keep_checkpoints(study, searching, finalists)

        # Confirm: the best ones at full length over fresh seeds; only these ever see the test split
        confirming.plan(confirmation(finalists, request.seeds, request.seed))
        jobs = len(finalists) * request.seeds
        with Progress("confirm", jobs, request.epochs, already=confirming.finished()) as progress:
            run(confirming, progress=progress)

    # The winner, the report
    model = export_best(study, request.family, index)
    record.write(study, about | {"status": "complete", "finished": now()})
    page = reports.build(study)
    print(summary(collect.load(study)))
    print(
        f"report: {page}\nmodel:  {model or 'none, for no trial was completed; the report gives the reasons'}"
    )
    return 0 if model else 1


def begin(request: Request) -> tuple[Path, Request]:
    """The study folder and the request to follow: a new one's, or the one written down when it was
    started."""
    if request.resume:
        study = request.study or record.newest(Path("studies"))
        asked = record.read(study)["request"]
        asked["data"] = request.data or asked["data"]  # a URL was kept without its password and token
        asked["events"] = str(parse_events(asked.get("events") or "labels"))
        if request.events and str(parse_events(request.events)) != asked["events"]:
            raise ValueError(
                f"--events {request.events}: the study was begun with --events {asked['events']}; resume it "
                "without --events, or begin another"
            )
        asked["database"] = request.database or os.environ.get("SCENETUNE_DATABASE") or asked["database"]
        return study, Request(
            **asked
            | {"study": study, "resume": True, "mix": tuple(asked.get("mix", ()))}
            | {"set": tuple(map(tuple, asked["set"]))}
        )
    for name in ("trials", "epochs", "seeds", "cpus_per_trial", "workers_per_trial"):
        if getattr(request, name) < 1:
            raise ValueError(f"--{name.replace('_', '-')} {getattr(request, name)}: expected at least 1")
    share = request.gpus_per_trial
    if share is not None and (share < 0 or (share > 1 and share != int(share))):
        raise ValueError(f"--gpus-per-trial {share:g}: expected 0, a share of one GPU, or whole GPUs")
    if request.confirm < 0:
        raise ValueError(f"--confirm {request.confirm}: expected 0 or more")
    (
        family(request.family),
        choose("sampler", request.sampler, SAMPLERS),
        choose("pruner", request.pruner, PRUNERS),
    )
    request.pins()
    events = parse_events(request.events or "labels")
    index = Index.load(request.data) if request.data else None
    if index:
        with_events(index, events)
    elif events.origin == "tags":
        raise ValueError(
            f"--events {request.events}: the built-in corpus has no tags; tag a shard set with "
            "`python -m trainables.teacher` and give it as --data"
        )
    request = replace(request, mix=tuple(map(resolved, request.mix)))
    study = request.study or Path("studies") / f"{request.family}-{time.strftime('%Y%m%d-%H%M%S')}"
    secret_free = without_password(request.database) if request.database else None
    asked = asdict(request) | {
        "database": secret_free,
        "data": index.place if index else None,
        "events": str(events),
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


def refuse_unfit(index: Index, request: Request, about: dict[str, Any]) -> None:
    """Raises ValueError for shards without the splits a study needs, or other than the study was begun on."""
    for split in ["val"] + ["test"] * (request.confirm > 0):
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
        trials=request.trials,
        epochs=request.epochs,
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
    study: Path, request: Request, index: Index, proposals: Proposals, concurrent: int
) -> dict[str, Any]:
    """study.json: what was asked, of what, with what."""
    about = record.read(study) | record.provenance(PROJECT)
    about["hardware"] |= {"gpus": [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]}
    wanted = ("family", "trials", "epochs", "confirm", "seeds", "sampler", "pruner", "seed")
    about |= {name: getattr(request, name) for name in wanted}
    return about | {
        "status": "running",
        "command": about.get("command", [shown(word) for word in sys.argv]),
        "pins": dict(proposals.pins),
        "space": proposals.searched(),
        "objective": {"metric": names.OBJECTIVE, "mode": "max"},
        "concurrent": concurrent,
        "data": about_data(index),
        "published": [asdict(row) for row in family(request.family).published],
    }


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
    if about["request"]["events"] != "labels":
        print(f"events   {about['request']['events']}: {len(data['events'])} event labels")
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


if __name__ == "__main__":
    sys.exit(main())
