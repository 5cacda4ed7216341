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
import shlex
import sys
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import optuna
import ray

import reports
from datasets import synthetic
from datasets.command import asked, plain
from datasets.mix import open_sources
from datasets.shards import Index
from datasets.source import Source, default_cache
from reports import collect, paper_table
from reports.__main__ import summary
from searchspace import record
from searchspace import tables as paper_tables
from searchspace.hold import hold
from searchspace.methods import PRUNERS
from searchspace.race import Race
from searchspace.study import (
    Ledger,
    Proposals,
    now,
    open_storage,
    sqlite_url,
)
from searchspace.warm_start import warm_started
from trainables import confirm, demand, retention
from trainables.about import describe_study, list_refused, print_plan
from trainables.analyse import analyse_winner
from trainables.cluster import (
    Room,
    Share,
    check_nodes,
    concerns,
    connect,
    live_nodes,
    plan_of,
    possible_nodes,
)
from trainables.export import export_best, measure_winner
from trainables.goals import PREDICTED
from trainables.phase import run_phase
from trainables.printed import analyse_rows, here
from trainables.progress import Progress
from trainables.registry import family
from trainables.request import Request, begin, local_folders, pins_of, refuse_unfit
from trainables.space import frames_of, notes_of, predictor, proposals_of
from trainables.trial import Place


def main() -> int:
    request, study = asked(Request, "python tune_csem.py", __doc__), None
    try:
        study, request = begin(request)
        with hold(study):
            return search(study, request) if request.table is None else rerun(study, request)
    except (ValueError, OSError, optuna.exceptions.OptunaError, ray.exceptions.RayError) as error:
        if os.environ.get("SCENETUNE_DEBUG"):
            raise
        if study and not request.resume:
            record.discard_unused(study)
        print(f"error: {plain(error)}", file=sys.stderr)
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
    objective, second = request.goals()
    columns = [objective, *([second.name] if second else [])]
    refuse_unfit(source, record.read(study), test=budget.confirm > 0, columns=columns)

    # The machines, how many trials they hold at once, and the space to search on them
    share = machines(request, study, index)
    proposals = proposals_for(request, index, pins_of(request, record.read(study), share.gpus))
    drawn = proposals.check()
    families = request.families()
    memory = demand.of_search(proposals, drawn, share.workers)
    process = demand.of_process(memory, index.samples * index.channels)
    said = notes(request, proposals) + concerns(share, process)
    space = {
        "pins": dict(proposals.pins),
        "space": proposals.searched(),
        "memory": memory | {"process": process},
        "notes": said,
    }
    about = describe_study(study, request, index, plan_of(share), space)
    record.write(study, about)
    print_plan(study, about)
    place = place_for(study, request, index, about, share.gpus, events)
    storage = open_storage(request.database or sqlite_url(study / "study.db"))
    name = about["id"] if request.database else ""
    searching = Ledger(
        storage,
        "search",
        pruner=request.method(),
        proposals=proposals,
        study=name,
        second=second,
        spending=request.spending(),
    )
    confirming = Ledger(storage, "confirm", pruner=PRUNERS["none"], study=name)
    tables = record.Tables(study, lambda: searching.rows() + confirming.rows())
    run = functools.partial(run_phase, place=place, ended=tables.refresh)

    with tables:  # brought up to date on every way out
        # Search: many configurations, one seed each, stopped early where hopeless
        if request.warm_start:
            print(f"note     {warm_started(request.warm_start, searching.study, proposals, about, families)}")
        searching.enqueue(proposals.published, at_most=max(1, budget.trials // 2))
        with Progress("search", budget.trials, budget.epochs, already=searching.finished()) as progress:
            room = Room(share, progress.say)
            run(searching, progress=progress, room=room, kept=retention.best(budget.confirm))
        list_refused(study, searching.refused())
        finalists = searching.best(budget.confirm)

        # Confirm: the best race over fresh seeds; the winner's further seeds alone ever see the test split
        race = Race(finalists, budget.seeds, budget.seeds, request.seed, request.everyone())
        jobs = race.at_most(confirming.rows())
        with Progress("confirm", jobs, budget.epochs, already=confirming.finished()) as progress:
            room = Room(share, progress.say)
            ended = confirm.follow(study, race, confirming, progress, tables.refresh)
            run(confirming, progress=progress, room=room, ended=ended, kept=retention.best_seeds)

    # The winner, the report
    model = export_best(study, request.family, index, record.read(study).get("race"))
    if model:
        print(analyse_winner(model, source))
        print(measure_winner(model, source))
    record.write(
        study,
        record.read(study) | {"status": "complete", "finished": now(), "disk": record.disk_use(study)},
    )
    page = reports.build(study)
    print(summary(collect.load(study)))
    print(
        f"report: {page}\nmodel:  {model or 'none, for no trial was completed; the report gives the reasons'}"
    )
    return 0 if model else 1


def rerun(study: Path, request: Request) -> int:
    # The rows that can be trained on these shards, and the machines
    budget, data = request.budget(), opened(request, "labels")
    index = data.index
    if not index.labels.scenes:  # a run whose objective is not a number counts as diverged
        request = replace(request, objective=("val/event_map",))
    made = paper_tables.plan(
        request.printed(), request.pins(), here(data, request.family, request.events, budget.epochs)
    )
    refuse_unfit(data, record.read(study), test=any(one.test for one in made.configurations))
    baseline = paper_tables.baseline_line(made, request.baseline)
    share = machines(request, study, index)
    table = paper_tables.as_record(made, baseline, family(request.family).published)
    predict = functools.partial(predictor, request.family, index)
    memory = demand.of_table(made.configurations, predict, share.workers)
    process = demand.of_process(memory, index.samples * index.channels)
    planned = {
        "pins": request.pins(),
        "space": {},
        "table": table,
        "memory": memory | {"process": process},
        "notes": concerns(share, process),
    }
    about = describe_study(study, request, index, plan_of(share), planned)
    record.write(study, about)
    print_plan(study, about)
    storage = open_storage(request.database or sqlite_url(study / "study.db"))
    name = about["id"] if request.database else ""
    ledgers = {  # one for each source of event labels
        source: Ledger(storage, paper_tables.PHASE, pruner=PRUNERS["none"], study=f"{name} {source}".strip())
        for source in dict.fromkeys(one.events for one in made.configurations)
    }
    tables = record.Tables(study, lambda: [row for ledger in ledgers.values() for row in ledger.rows()])

    with tables:  # Every row from the same seeds to its full length; a race may spare a beaten one the rest
        for source, ledger in ledgers.items():
            mine = [one for one in made.configurations if one.events == source]
            jobs = paper_tables.jobs(mine, budget.seeds, request.seed, budget.epochs)

            with Progress("table", len(jobs), budget.epochs, already=ledger.finished()) as progress:
                ended = tables.refresh
                if request.everyone():
                    ledger.plan(jobs)
                else:
                    race = paper_tables.race(jobs, budget.seeds, request.seed)
                    ended = confirm.follow(study, race, ledger, progress, ended, among=source)
                run_phase(
                    ledger,
                    place_for(study, request, index, about, share.gpus, source),
                    progress,
                    room=Room(share, progress.say),
                    ended=ended,
                    kept=retention.first_seeds,
                )

    # Ours beside the paper's
    analyse_rows(study, made, functools.partial(opened, request))
    record.write(
        study,
        record.read(study) | {"status": "complete", "finished": now(), "disk": record.disk_use(study)},
    )
    done = collect.load(study)
    paper_table.write(done)
    page = reports.build(study)
    print(f"\n{summary(done)}\nreport: {page}\nmodels: the first seed's of every row, under {study}/runs")
    return 0 if (done.runs["state"] == "COMPLETE").any() else 1


def opened(request: Request, events: str) -> Source:
    """The study's data, decoded once here so that the trials find it ready."""
    data = request.data or synthetic.ensure(default_cache())
    cache = None if request.stream else default_cache()
    frames = frames_of(request.families())
    return open_sources(data, request.mix, cache=cache, events=events, frames=frames)


def machines(request: Request, study: Path, index: Index) -> Share:
    """What each trial takes of the Ray cluster, which is joined or started. Raises ValueError where it can't
    be placed."""
    connect(request.dashboard or request.workers_per_trial > 1)  # Train's clean-up needs the dashboard
    nodes = possible_nodes(live_nodes())
    gpus = (
        float(any("GPU" in node for node in nodes))
        if request.gpus_per_trial is None
        else request.gpus_per_trial
    )
    share = Share(
        request.workers_per_trial,
        float(request.cpus_per_trial),
        gpus,
        request.trials_at_once,
        least=request.least_workers,
    )
    share.fits(nodes)
    check_nodes(study, local_folders(index, request.mix))
    return share


def place_for(
    study: Path, request: Request, index: Index, about: dict[str, Any], gpus: float, events: str
) -> Place:
    objective, second = request.goals()
    return Place(
        family=request.family,
        data=index.place if isinstance(index.root, Path) else index.root,
        study=str(study.resolve()),
        objective=objective,
        second=second.name if second and second.name not in PREDICTED else "",
        cache=None if request.stream else str(default_cache()),
        events=events,
        mix=request.mix,
        threads=request.cpus_per_trial,
        gpus=gpus,
        workers=request.workers_per_trial,
        least_workers=request.least_workers,
        sync_batchnorm=request.sync_batchnorm,
        provenance={name: about[name] for name in ("git", "packages", "command")},
    )


def notes(request: Request, proposals: Proposals) -> list[str]:
    objectives = 2 if request.goals()[1] else 1
    return notes_of(proposals, request.sampler, request.pruner, objectives=objectives)


def proposals_for(request: Request, index: Index, pins: dict[str, Any]) -> Proposals:
    return proposals_of(
        request.families(),
        index,
        sampler=request.sampler,
        pins=pins,
        trials=request.budget().trials,
        epochs=request.budget().epochs,
        seed=request.seed,
        limits=request.limits(),
        strength=request.prior,
        reseed=request.duplicates == "reseed",
    )


if __name__ == "__main__":
    sys.exit(main())
