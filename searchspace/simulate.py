"""Whole studies in seconds: the search's own sampler, pruner, race and store, on curves already known.

    python -m searchspace.simulate                                    parametric curves, 1,000 trials
    python -m searchspace.simulate --recorded studies/NAME --compare 20 --out tables

No training runs and no GPU is used. Workers are an event queue: each takes a job from the ledger, lives
through its epochs at their recorded cost, and reports. With --compare the methods are held against each other
on the same curves over that many study seeds: how many epochs until the best configuration known by then is
as good as the best published row, or as the best recorded one.
"""

from __future__ import annotations

import heapq
import itertools
import json
import math
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import numpy as np
import optuna
import tyro

from searchspace.methods import PRUNERS, SAMPLERS, choose
from searchspace.race import Race
from searchspace.recorded import Parametric, Recorded, World
from searchspace.study import Job, Ledger, Proposals, run_folder, seed_for


class Ended(NamedTuple):
    """A run that ended: when (simulated seconds), after how many epochs of the whole study, how."""

    seconds: float
    spent: int
    job: Job
    outcome: str
    score: float


def play(
    ledger: Ledger,
    world: World,
    workers: int,
    *,
    spent: int = 0,
    seconds: float = 0.0,
    budget: float = math.inf,
) -> list[Ended]:
    """Run a ledger's jobs on `workers` simulated machines until it has no more, or nothing new once `budget`
    epochs are spent (what runs then is run to its end). `spent` and `seconds`: what went before."""
    ended: list[Ended] = []
    queue: list[tuple[float, int, Job, int]] = []
    done: dict[int, int] = {}  # epochs of each job; one that waited goes on from there
    order, now, idle = itertools.count(), seconds, workers

    def start() -> bool:
        job = ledger.next_job() if spent < budget else None
        if job is not None:
            heapq.heappush(
                queue, (now + world.cost(job.values), next(order), job, done.get(job.number, 0) + 1)
            )
        return job is not None

    while True:
        while idle and start():
            idle -= 1
        if not queue:
            return ended
        now, _, job, epoch = heapq.heappop(queue)
        spent, done[job.number] = spent + 1, epoch
        score = world.score(job.values, job.seed, epoch)
        if not math.isfinite(score):
            outcome = ledger.finish(job, "DIVERGED", f"the score is {score} after epoch {epoch}")
        elif reason := ledger.report(job, epoch, score):
            outcome = ledger.finish(job, "PRUNED", reason)
        elif epoch >= job.epochs:
            outcome = ledger.finish(job, "COMPLETE")
        else:
            heapq.heappush(queue, (now + world.cost(job.values), next(order), job, epoch + 1))
            continue
        idle += 1
        ended.append(Ended(now, spent, job, outcome, score))


@dataclass(frozen=True)
class Plan:
    """One way to search: `sampler` "grid" tries the world's own configurations in an order by chance. With
    `confirm` 0 there is no race, and the best single run is what is reported."""

    name: str
    sampler: str
    pruner: str
    confirm: int = 0
    seeds: int = 0


class Study(NamedTuple):
    """A simulated study: `known` (epochs spent, truth of the best known by then) whenever that changed, what
    it chose and reports, and what it cost."""

    known: tuple[tuple[int, float], ...]
    chosen: float
    reported: float
    epochs: int
    seconds: float
    runs: int


def simulate(world: World, plan: Plan, *, trials: int, workers: int, seed: int, budget: float) -> Study:
    """One whole study. Of its `budget` epochs, what the race may need at most is set aside."""
    storage = optuna.storages.InMemoryStorage()
    race_cost = (plan.confirm + 1) * plan.seeds * world.epochs
    searching = _searching(storage, world, plan, trials, seed)
    ended = play(searching, world, workers, budget=budget - race_cost)
    known = _best_known(world, ended)
    last = ended[-1]
    if not plan.confirm or not known:
        best = max((e for e in ended if e.outcome == "COMPLETE"), key=lambda e: e.score, default=None)
        chosen, reported = (world.truth(best.job.values), best.score) if best else (math.nan, math.nan)
        return Study(known, chosen, reported, last.spent, last.seconds, len(ended))
    race = Race(searching.best(plan.confirm), plan.seeds, plan.seeds, seed)
    confirming = Ledger(storage, "confirm", pruner=PRUNERS["none"])
    confirming.more = race.next_jobs
    confirmed = play(confirming, world, workers, spent=last.spent, seconds=last.seconds)
    rows = confirming.rows()
    winner = race.standing(rows).winner
    values = next((job.values for job in race.finalists if job.trial == winner), None)
    further = [r["score"] for r in rows if r["trial"] == winner and r["repeat"] in race.headline_repeats]
    chosen = world.truth(values) if values else math.nan
    end = confirmed[-1] if confirmed else last
    known = (*known, (end.spent, chosen))
    reported = statistics.fmean(further) if further else math.nan
    return Study(known, chosen, reported, end.spent, end.seconds, len(ended) + len(confirmed))


def _searching(
    storage: optuna.storages.BaseStorage, world: World, plan: Plan, trials: int, seed: int
) -> Ledger:
    if plan.sampler == "grid":
        ledger = Ledger(storage, "search", pruner=choose("pruner", plan.pruner, PRUNERS))
        order = np.random.default_rng(seed).permutation(len(world.grid))
        ledger.plan(_job(number, world.grid[int(i)], world.epochs, seed) for number, i in enumerate(order))
        return ledger
    proposals = Proposals(
        suggest=world.suggest,
        complete=dict,
        sampler=choose("sampler", plan.sampler, SAMPLERS),
        pins={},
        trials=trials,
        epochs=world.epochs,
        seed=seed,
    )
    return Ledger(storage, "search", pruner=choose("pruner", plan.pruner, PRUNERS), proposals=proposals)


def _job(number: int, values: Mapping[str, Any], epochs: int, seed: int) -> Job:
    own = seed_for(seed, values, 0)
    return Job(-1, number, 0, "search", dict(values), own, epochs, run_folder(number, 0), "grid")


def _best_known(world: World, ended: Sequence[Ended]) -> tuple[tuple[int, float], ...]:
    """(epochs spent, truth of the completed run with the highest score so far) whenever there is a higher."""
    best, known = -math.inf, []
    for one in ended:
        if one.outcome == "COMPLETE" and one.score > best:
            best = one.score
            known.append((one.spent, world.truth(one.job.values)))
    return tuple(known)


def reached(study: Study, target: float) -> float:
    """Epochs until the best known is as good as `target`; inf if it never was."""
    return next((float(spent) for spent, truth in study.known if truth >= target), math.inf)


# --- methods against each other -----------------------------------------------------------------------------


def plans(confirm: int, seeds: int) -> tuple[Plan, ...]:
    """The methods that are compared; the first is the one the others are held against."""
    return (
        Plan("TPE + ASHA + race", "tpe", "asha", confirm, seeds),
        Plan("TPE + promotion + race", "tpe", "promotion", confirm, seeds),
        Plan("random + ASHA + race", "random", "asha", confirm, seeds),
        Plan("TPE + ASHA, no race", "tpe", "asha"),
        Plan("TPE, no stopping, no race", "tpe", "none"),
        Plan("random search", "random", "none"),
        Plan("the recorded grid", "grid", "none"),
    )


class Line(NamedTuple):
    """A method over all study seeds: medians of epochs to each target (inf: reached in fewer than half),
    shares of studies that reached it, means of what was chosen and of reported - chosen."""

    name: str
    epochs: tuple[float, ...]
    share: tuple[float, ...]
    chosen: float
    over_report: float
    total: float


def compare(
    world: World,
    methods: Sequence[Plan],
    targets: Mapping[str, float],
    studies: int,
    *,
    workers: int,
    budget: float,
    seed: int = 0,
    tell: Callable[[str], None] = lambda text: None,
) -> list[Line]:
    lines = []
    for plan in methods:
        began = time.perf_counter()
        made = [
            simulate(world, plan, trials=10**6, workers=workers, seed=seed + n, budget=budget)
            for n in range(studies)
        ]
        waits = {name: [reached(one, target) for one in made] for name, target in targets.items()}
        lines.append(
            Line(
                plan.name,
                tuple(statistics.median(found) for found in waits.values()),
                tuple(sum(map(math.isfinite, found)) / studies for found in waits.values()),
                statistics.fmean(one.chosen for one in made),
                statistics.fmean(one.reported - one.chosen for one in made),
                statistics.fmean(one.epochs for one in made),
            )
        )
        tell(f"{plan.name}: {studies} studies in {time.perf_counter() - began:.0f} s")
    return lines


def as_markdown(lines: Sequence[Line], targets: Mapping[str, float]) -> str:
    """The comparison as a table; "n x" is how many times the first method's epochs a method takes."""
    head = ["method", *(f"epochs to {name} ({target:.4f})" for name, target in targets.items())]
    head += ["chosen, true score", "over-report, points", "epochs in all"]
    rows = [head, ["---"] * len(head)]
    for line in lines:
        cells = []
        for own, first, share in zip(line.epochs, lines[0].epochs, line.share):
            text = f"{own:,.0f}" if math.isfinite(own) else "not reached"
            times = f", {own / first:.1f} x" if math.isfinite(own) and line is not lines[0] else ""
            cells.append(f"{text} ({share:.0%} of studies{times})")
        tail = [f"{line.chosen:.4f}", f"{100 * line.over_report:+.2f}", f"{line.total:,.0f}"]
        rows.append([line.name, *cells, *tail])
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


# --- the command --------------------------------------------------------------------------------------------


Folder = Annotated[Path | None, tyro.conf.arg(help_behavior_hint="")]  # its help says what None is


@dataclass(frozen=True)
class Request:
    """What to simulate."""

    recorded: Folder = None
    """Study folder whose curves make the world; parametric curves by default."""
    compare: int = 0
    """Hold the methods against each other over this many study seeds; 0: one study of --trials."""
    trials: int = 1000
    """Trials of the one study."""
    sampler: str = "tpe"
    """Who proposes in it, as in tune_csem.py."""
    pruner: str = "asha"
    """Who stops early in it, as in tune_csem.py."""
    confirm: int = 3
    """How many of its best race; 0 for none."""
    seeds: int = 3
    """Racing seeds of each at most, and further ones of the winner."""
    workers: int = 8
    """Machines at work at a time."""
    budget: int = 0
    """Epochs of a study in the comparison; 0: as many as the grid takes."""
    seed: int = 0
    """Seed of the (first) study."""
    out: Folder = None
    """Folder for simulation.md and simulation.json; by default they are not written."""


def main() -> int:
    request = tyro.cli(
        Request,
        prog="python -m searchspace.simulate",
        description=__doc__,
        config=(tyro.conf.DisallowNone,),
    )
    try:
        for name in ("trials", "workers", "seeds"):
            if getattr(request, name) < 1:
                raise ValueError(f"--{name} {getattr(request, name)}: expected at least 1")
        for name in ("compare", "confirm", "budget"):
            if getattr(request, name) < 0:
                raise ValueError(f"--{name} {getattr(request, name)}: expected 0 or more")
        if not 0 <= request.seed < 2**32:
            raise ValueError(f"--seed {request.seed}: expected 0 to {2**32 - 1}")
        world: World = Recorded(request.recorded) if request.recorded else Parametric()
        text, data = _comparison(request, world) if request.compare else _one_study(request, world)
        print(text)
        if request.out:
            request.out.mkdir(parents=True, exist_ok=True)
            (request.out / "simulation.md").write_text(text + "\n")
            (request.out / "simulation.json").write_text(json.dumps(data, indent=1) + "\n")
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def _about(request: Request, world: World) -> str:
    if not isinstance(world, Recorded):
        return f"Parametric curves of {world.epochs} epochs, {request.workers} workers."
    error, spread = world.error
    return (
        f"Curves of {request.recorded}: {len(world.grid)} recorded configurations of {world.epochs} epochs, "
        f"seed deviation {world.noise:.4f}. For configurations left out the stand-in is off by {error:.4f} "
        f"(root mean square, one seed's noise included), the mean of all as a guess by {spread:.4f}. "
        f"{request.workers} workers."
    )


def _one_study(request: Request, world: World) -> tuple[str, dict[str, Any]]:
    plan = Plan("", request.sampler, request.pruner, request.confirm, request.seeds)
    wall, cpu = time.perf_counter(), time.process_time()
    study = simulate(
        world, plan, trials=request.trials, workers=request.workers, seed=request.seed, budget=math.inf
    )
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    text = (
        f"{_about(request, world)}\n{request.trials:,} trials and the race: {study.runs:,} runs, "
        f"{study.epochs:,} epochs, {study.seconds:,.0f} simulated seconds, in {wall:.1f} s ({cpu:.1f} s of "
        f"CPU).\n"
        f"Chosen: true score {study.chosen:.4f}, reported {study.reported:.4f}."
    )
    return text, study._asdict() | {"wall": wall, "cpu": cpu}


def _comparison(request: Request, world: World) -> tuple[str, dict[str, Any]]:
    budget = request.budget or len(world.grid) * world.epochs
    targets = {"the best published row": max(map(world.truth, world.published), default=math.nan)}
    targets["the best of the grid"] = max(map(world.truth, world.grid))
    targets = {name: value for name, value in targets.items() if math.isfinite(value)}
    lines = compare(
        world,
        plans(request.confirm, request.seeds),
        targets,
        request.compare,
        workers=request.workers,
        budget=budget,
        seed=request.seed,
        tell=lambda text: print(text, file=sys.stderr),
    )
    text = (
        f"{_about(request, world)} {request.compare} studies of {budget:,} epochs each.\n\n"
        f"{as_markdown(lines, targets)}"
    )
    data = {"targets": targets, "budget": budget, "methods": [_plain(line._asdict()) for line in lines]}
    return text, data


def _plain(line: Mapping[str, Any]) -> dict[str, Any]:
    return dict(line) | {"epochs": [e if math.isfinite(e) else None for e in line["epochs"]]}


if __name__ == "__main__":
    sys.exit(main())
