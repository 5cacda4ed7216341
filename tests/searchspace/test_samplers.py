"""Every sampler made anew for each proposal proposes what one that lives through the study would."""

from __future__ import annotations

from typing import Any

import cmaes
import numpy as np
import optuna
import pytest
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.storages import InMemoryStorage
from scipy.stats import qmc

from searchspace.methods import SAMPLERS
from searchspace.proposals import Proposals, seed_for
from searchspace.pruners import NoPruning
from searchspace.samplers import POPULATION, at, points_of, quantile
from searchspace.study import Ledger


def suggest(trial: Any) -> dict[str, Any]:
    kind = trial.suggest_categorical("kind", ["a", "b"])
    knobs = {"kind": kind, "lr": trial.suggest_float("lr", 1e-4, 1e-1, log=True)}
    knobs["width"] = trial.suggest_float("width", 0.25, 1.0)
    if kind == "b":
        knobs["layers"] = trial.suggest_int("layers", 1, 4)
    return knobs


def discrete(trial: Any) -> dict[str, Any]:
    kind = trial.suggest_categorical("kind", ["a", "b"])
    knobs = {"kind": kind, "mixup": trial.suggest_float("mixup", 0.0, 0.2, step=0.1)}
    return knobs | ({"layers": trial.suggest_int("layers", 1, 4)} if kind == "b" else {})


def book(storage: Any, name: str, trials: int = 14, space: Any = suggest, **changes: Any) -> Ledger:
    options = {"suggest": space, "complete": dict, "sampler": SAMPLERS[name], "pins": {}, "epochs": 1}
    return Ledger(
        storage,
        "search",
        pruner=NoPruning(),
        proposals=Proposals(**options | {"trials": trials, "seed": 3} | changes),
    )


def score(values: dict[str, Any]) -> float:
    return -((np.log10(values.get("lr", 0.01)) + 2) ** 2) - (values.get("width", 0.5) - 0.6) ** 2


def run(ledger: Ledger, most: int = 999) -> list[dict[str, Any]]:
    """`most` jobs, one after another; the whole study's configurations."""
    while most and (job := next(iter(ledger.unfinished()), None) or ledger.next_job()) is not None:
        ledger.report(job, 1, score(job.values))
        ledger.finish(job, "COMPLETE")
        most -= 1
    return [t.user_attrs["values"] for t in ledger.study.get_trials() if "values" in t.user_attrs]


@pytest.mark.parametrize("name", [n for n in SAMPLERS if n != "grid"])
def test_a_driver_restarted_after_every_trial_proposes_the_same(name: str) -> None:
    whole = run(book(InMemoryStorage(), name))
    storage, seen = InMemoryStorage(), []
    for count in (4, 5, 11, 14):
        book(storage, name).study.ask()  # one died in the middle of asking
        seen = run(book(storage, name), most=count - len(seen))
        assert len(seen) == count
    assert seen == whole and len({v["lr"] for v in whole}) >= 12  # NSGA-II passes values on


@pytest.mark.parametrize(
    "distribution",
    [
        FloatDistribution(0.1, 2.0),
        FloatDistribution(1e-4, 1e-1, log=True),
        FloatDistribution(0.0, 0.5, step=0.1),
        IntDistribution(1, 6),
        IntDistribution(10, 400, log=True),
        IntDistribution(2, 10, step=4),
        CategoricalDistribution(["x", "y", "z"]),
    ],
    ids=str,
)
def test_quantiles_of_a_distribution_there_and_back(distribution: BaseDistribution) -> None:
    """Against Optuna's own random draws: the same values with the same shares."""
    ours = [at(distribution, u) for u in np.random.default_rng(0).random(2000)]
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=1))
    theirs = [study.ask({"x": distribution}).params["x"] for _ in range(2000)]
    if isinstance(distribution, FloatDistribution) and distribution.step is None:
        shares = [np.quantile(found, [0.1, 0.5, 0.9]) for found in (ours, theirs)]
        assert shares[0] == pytest.approx(shares[1], rel=0.2)
    elif isinstance(distribution, CategoricalDistribution) or not distribution.log:
        rounded = [[v if isinstance(v, str) else round(v, 9) for v in found] for found in (ours, theirs)]
        for value in set(rounded[1]):
            assert rounded[0].count(value) == pytest.approx(rounded[1].count(value), rel=0.2)
    else:
        assert np.quantile(ours, [0.2, 0.5, 0.8]) == pytest.approx(
            np.quantile(theirs, [0.2, 0.5, 0.8]), rel=0.2
        )
    for value in ours:
        again = at(distribution, quantile(distribution, value))
        assert again == value if isinstance(value, str) else again == pytest.approx(value)


def test_cmaes_equals_one_optimiser_that_lives_through_the_study() -> None:
    ledger = book(InMemoryStorage(), "cmaes", trials=30)
    run(ledger)
    space = {"lr": FloatDistribution(1e-4, 1e-1, log=True), "width": FloatDistribution(0.25, 1.0)}
    live = cmaes.CMA(np.full(2, 0.5), 1 / 6, bounds=np.tile([0.0, 1.0], (2, 1)), seed=0, n_max_resampling=20)
    told: list[tuple[np.ndarray, float]] = []
    for number, trial in enumerate(ledger.study.get_trials()):
        live.reseed_rng(seed_for(3, {"trial": number}, 0))
        point = live.ask()
        for (name, one), u in zip(space.items(), point):
            assert trial.params[name] == pytest.approx(at(one, u), rel=1e-9), (number, name)
        told.append((point, -trial.value))
        if len(told) == live.population_size:
            live.tell(told)
            told = []
    assert live.generation == 5  # 30 trials, 6 a generation
    late = [t.value for t in ledger.study.get_trials()[-6:]]
    assert np.mean(late) > np.mean([t.value for t in ledger.study.get_trials()[:6]])


def test_no_sampler_keeps_a_pickle_in_the_database() -> None:
    ledger = book(InMemoryStorage(), "cmaes", trials=14)
    run(ledger)
    kept = [k for t in ledger.study.get_trials() for k in (*t.system_attrs, *t.user_attrs)]
    assert not any("optimizer" in name for name in kept)


def test_qmc_is_scipys_sequence_also_for_knobs_that_not_every_trial_has() -> None:
    ledger = book(InMemoryStorage(), "qmc", trials=16)
    run(ledger)
    whole = qmc.Sobol(4, scramble=True, rng=3).random(16)
    for trial, point in zip(ledger.study.get_trials(), whole):
        u = dict(zip(["kind", "layers", "lr", "width"], point))
        for name, one in trial.distributions.items():
            assert trial.params[name] == pytest.approx(at(one, u[name])) if name != "kind" else True
    assert sum(t.params["kind"] == "a" for t in ledger.study.get_trials()) == 8  # exactly half


def test_the_grid_is_every_point_once_and_then_ends() -> None:
    ledger = book(InMemoryStorage(), "grid", trials=99, space=discrete)
    found = run(ledger)
    slow = [{"kind": "a", "mixup": m} for m in (0.0, 0.1, 0.2)]
    slow += [{"kind": "b", "mixup": m, "layers": n} for m in (0.0, 0.1, 0.2) for n in (1, 2, 3, 4)]
    assert sorted(map(str, found)) == sorted(map(str, slow)) and ledger.next_job() is None
    assert found != slow  # shuffled: a part of it is spread over all of it
    assert run(book(InMemoryStorage(), "grid", trials=5, space=discrete)) == found[:5]


def test_the_grid_refuses_what_has_no_end() -> None:
    with pytest.raises(ValueError, match=r"lr is continuous \(0.0001 to 0.1\).* --set lr=0.0001,0.1, or fix"):
        points_of(suggest)
    with pytest.raises(ValueError, match="more than 20,000 points"):
        points_of(lambda t: [t.suggest_int(f"x{i}", 0, 9) for i in range(5)])


def test_nsga2_breeds_generations_from_the_best_of_the_last() -> None:
    ledger = book(InMemoryStorage(), "nsga2", trials=3 * POPULATION)
    run(ledger)
    trials = ledger.study.get_trials()
    generations = [t.system_attrs["NSGAIISampler:generation"] for t in trials]
    assert generations[: 3 * POPULATION] == [g for g in range(3) for _ in range(POPULATION)]
    first = {t.params["width"] for t in trials[:POPULATION]}
    bred = sum(t.params["width"] in first for t in trials[POPULATION : 2 * POPULATION])
    assert bred > POPULATION // 2  # the rest are mutations


def test_what_a_sampler_cannot_do_is_said() -> None:
    space = Proposals(suggest, dict, SAMPLERS["tpe"], {}, 1, 1, 0).searchable
    said = {name: SAMPLERS[name].notes(space, 1, True) for name in SAMPLERS if name != "grid"}
    assert said["tpe"] == said["random"] == said["qmc"] == []
    assert said["cmaes"][0] == "drawn at random, for it has no choices and conditional knobs: kind, layers"
    assert said["gp"][0] == "drawn at random, for it has no conditional knobs: layers"
    assert "completed trials only" in said["gp"][1]
    with pytest.raises(ValueError, match="one objective"):
        SAMPLERS["cmaes"].notes(space, 2, False)
