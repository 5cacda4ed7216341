"""Simulated studies are real ones in everything but the training."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest

from searchspace import simulate
from searchspace.methods import PRUNERS, SAMPLERS
from searchspace.recorded import Dimension, Parametric, Recorded, dimensions_of
from searchspace.simulate import Plan, Study, play, reached
from searchspace.study import Job, Ledger, Proposals, open_storage, sqlite_url

WORLD = Parametric(epochs=9)


def ledger(trials: int, sampler: str = "tpe", pruner: str = "asha", storage: Any = None) -> Ledger:
    proposals = Proposals(WORLD.suggest, dict, SAMPLERS[sampler], {}, trials, WORLD.epochs, 3)
    store = storage or optuna.storages.InMemoryStorage()
    return Ledger(store, "search", pruner=PRUNERS[pruner], proposals=proposals)


def plain_loop(book: Ledger) -> int:
    """One job after another, no clock, no queue; the epochs it took."""
    spent = 0
    while (job := book.next_job()) is not None:
        reason = None
        for epoch in range(1, job.epochs + 1):
            spent += 1
            score = WORLD.score(job.values, job.seed, epoch)
            if not math.isfinite(score):
                book.finish(job, "DIVERGED")
                break
            if reason := book.report(job, epoch, score):
                book.finish(job, "PRUNED", reason)
                break
        else:
            book.finish(job, "COMPLETE")
    return spent


def told(book: Ledger) -> list[Any]:
    return [(r["state"], r["epochs"], r["score"], r["seed"], r["config.lr"]) for r in book.rows()]


def test_with_one_worker_it_decides_what_a_plain_loop_decides() -> None:
    looped, played = ledger(25), ledger(25)
    spent, ended = plain_loop(looped), play(played, WORLD, 1)
    assert told(played) == told(looped) and ended[-1].spent == spent
    assert {r["state"] for r in played.rows()} >= {"COMPLETE", "PRUNED"}


@pytest.mark.parametrize("pruner", ["asha", "promotion"])
def test_workers_share_the_work_and_every_epoch_is_spent_once(pruner: str) -> None:
    clocks = {}
    for workers in (1, 4):
        book = ledger(30, "random", pruner)
        ended = play(book, WORLD, workers)
        reported = sum(len(t.intermediate_values) for t in book.study.trials)
        lost = sum(r["state"] == "DIVERGED" for r in book.rows())  # the epoch that diverged is not reported
        assert ended[-1].spent == reported + lost  # what waited went on from where it was
        clocks[workers] = ended[-1].seconds
        assert all(t.state.is_finished() or pruner == "promotion" for t in book.study.trials)
    assert clocks[4] < clocks[1] / 2


def test_a_budget_starts_nothing_new() -> None:
    book = ledger(10**6, "random", "none")
    ended = play(book, WORLD, 3, budget=50)
    assert 50 <= ended[-1].spent < 50 + 3 * WORLD.epochs
    assert all(e.outcome in ("COMPLETE", "DIVERGED") for e in ended)


def test_a_whole_study_repeats_itself_and_its_headline_is_honest() -> None:
    plan = Plan("ours", "tpe", "asha", confirm=3, seeds=4)
    made = [
        simulate.simulate(WORLD, plan, trials=10**6, workers=2, seed=seed, budget=400) for seed in (1, 1, 2)
    ]
    assert made[0] == made[1] != made[2]
    for one in made:
        assert abs(one.reported - one.chosen) < 4 * WORLD.noise / 2  # of four seeds
        assert one.epochs <= 400 + 2 * WORLD.epochs


def test_the_grid_tries_the_worlds_own_configurations() -> None:
    plan = Plan("grid", "grid", "none")
    study = simulate.simulate(WORLD, plan, trials=1, workers=2, seed=0, budget=10**6)
    assert study.runs == len(WORLD.grid) == 36 and study.epochs == 36 * WORLD.epochs


def test_when_a_target_was_reached() -> None:
    study = Study(((9, 0.5), (20, 0.7), (33, 0.6)), 0.6, 0.6, 40, 1.0, 4)
    assert [reached(study, t) for t in (0.4, 0.7, 0.8)] == [9.0, 20.0, math.inf]


def test_the_space_is_read_from_recorded_trials() -> None:
    book = ledger(40, "random", "none")
    play(book, WORLD, 1)
    found = dimensions_of(book.study.trials)
    assert [(d.name, d.parent, d.given) for d in found] == [
        ("framework", "", frozenset()),
        ("lr", "", frozenset()),
        ("dropout", "", frozenset()),
        ("w_event", "framework", frozenset({"csem"})),
    ]
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=1))
    for _ in range(20):
        ours, theirs = study.ask(), study.ask()
        values: dict[str, Any] = {}
        for one in found:
            if not one.parent or values.get(one.parent) in one.given:
                values[one.name] = one.ask(ours)
        assert WORLD.suggest(theirs).keys() <= values.keys() | {"w_event"}
        assert ("w_event" in values) == (values["framework"] == "csem")
        for name, distribution in ours.distributions.items():
            assert distribution == book.study.trials[0].distributions.get(name, distribution)


def test_a_presence_that_no_choice_explains_is_refused() -> None:
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    for number in range(6):
        trial = study.ask()
        trial.suggest_categorical("kind", ["a"])
        if number % 2:
            trial.suggest_float("sometimes", 0, 1)
    with pytest.raises(ValueError, match="'sometimes' is asked in some trials"):
        dimensions_of(study.trials)
    assert Dimension("x", study.trials[1].distributions["sometimes"]).parent == ""


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study of random configurations and two seeds of six of them, in the world whose truth is known."""
    folder = tmp_path_factory.mktemp("recorded")
    storage = optuna.storages.InMemoryStorage()
    book = ledger(60, "random", "none", storage)
    play(book, WORLD, 1)
    confirm = Ledger(storage, "confirm", pruner=PRUNERS["none"])
    confirm.plan(
        Job(-1, one.trial, n, "confirm", one.values, 50 + n, WORLD.epochs, f"runs/t{one.trial}-r{n}")
        for one in book.best(6)
        for n in (1, 2, 3)
    )
    play(confirm, WORLD, 1)
    store = open_storage(sqlite_url(folder / "study.db"))
    for name in ("search", "confirm"):
        optuna.copy_study(from_study_name=name, from_storage=storage, to_storage=store, to_study_name=name)
    return folder


def test_a_recorded_world_resembles_the_one_it_was_recorded_in(recorded: Path) -> None:
    world = Recorded(recorded)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=5))
    drawn = [world.suggest(study.ask()) for _ in range(200)]
    fine = [v for v in drawn if v["lr"] < 0.03]
    truth, guess = np.array([(WORLD.truth(v), world.truth(v)) for v in fine]).T
    usual = np.isfinite(guess)
    assert usual.mean() > 0.9 and np.corrcoef(truth[usual], guess[usual])[0, 1] > 0.95
    error, spread = world.error
    assert error < spread / 2
    assert world.noise == pytest.approx(WORLD.noise, rel=0.5)
    high = [world.truth(v) == -math.inf for v in drawn if v["lr"] > 0.07]  # beside some that diverged
    assert np.mean(high) > 0.3 and np.mean([world.truth(v) == -math.inf for v in fine]) < 0.1
    values = world.grid[0]
    assert world.score(values, 1, 9) == world.score(values, 1, 9) != world.score(values, 2, 9)
    seeds = np.array([[world.score(v, seed, 9) for seed in range(300)] for v in world.grid[:2]])
    assert seeds.std(axis=1) == pytest.approx([world.noise] * 2, rel=0.2)
    assert abs(np.corrcoef(seeds)[0, 1]) < 0.2


def test_methods_are_compared_on_it_and_written_down(
    recorded: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = ["simulate", "--recorded", str(recorded), "--compare", "2", "--workers", "2", "--budget", "200"]
    monkeypatch.setattr(sys, "argv", [*asked, "--out", str(tmp_path / "out")])
    assert simulate.main() == 0
    shown = capsys.readouterr().out
    assert (tmp_path / "out" / "simulation.md").read_text() == shown
    data = json.loads((tmp_path / "out" / "simulation.json").read_text())
    assert [m["name"] for m in data["methods"]] == [p.name for p in simulate.plans(3, 3)]
    assert list(data["targets"]) == ["the best of the grid"]  # nothing published was recorded
    assert shown.count("\n| ") == 2 + len(data["methods"]) and "root mean square" in shown


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--recorded", "/no/such/study"], "/no/such/study: no recorded study (it has no study.db)"),
        (["--trials", "0"], "--trials 0: expected at least 1"),
        (["--seed", "-1"], "--seed -1: expected 0 to 4294967295"),
        (["--compare", "-1"], "--compare -1: expected 0 or more"),
        (["--sampler", "psychic"], "sampler 'psychic' is not known; known:"),
    ],
)
def test_a_users_mistake_gets_one_line(
    arguments: list[str],
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(sys, "argv", ["simulate", *arguments])
    assert simulate.main() == 2
    said = capsys.readouterr().err
    assert said.startswith("error: ") and message in said and said.count("\n") == 1


def test_too_little_recorded_is_refused(tmp_path: Path) -> None:
    store = open_storage(sqlite_url(tmp_path / "study.db"))
    optuna.create_study(storage=store, study_name="search")
    with pytest.raises(ValueError, match="0 search runs at full length .* at least 12 are needed"):
        Recorded(tmp_path)


def test_no_torch_and_no_ray_are_loaded() -> None:
    code = "import searchspace.simulate, sys; print({'torch', 'ray', 'trainables'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.stdout.strip() == "set()", done.stderr
