"""What a search proposes: several families side by side, limits, priors, duplicates, other studies."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.storages import InMemoryStorage
from optuna.trial import TrialState

from searchspace import record
from searchspace.families import complete_across, rows_across, split, suggest_across
from searchspace.methods import SAMPLERS
from searchspace.prior import HALF_LIFE, Prior
from searchspace.proposals import Proposals
from searchspace.pruners import NoPruning
from searchspace.published import Published
from searchspace.study import Ledger, open_storage, sqlite_url
from searchspace.warm_start import warm_started


def row(paper: str, **values: Any) -> Published:
    return Published(paper, "I", "1", "c", "test", "m", 0.5, None, "unknown", values, True)


def tree(trial: Any) -> dict[str, Any]:
    deep = trial.suggest_categorical("deep", [False, True])
    return {"deep": deep, "lr": trial.suggest_float("lr", 1e-4, 1e-1, log=True)} | (
        {"layers": trial.suggest_int("layers", 1, 6 if deep else 2)}
    )


def line(trial: Any) -> dict[str, Any]:
    return {"lr": trial.suggest_float("lr", 1e-3, 1.0, log=True)}


BOTH: dict[str, Any] = {
    "suggest": suggest_across({"tree": tree, "line": line}),
    "complete": complete_across(
        {
            "tree": lambda v: {"deep": False, "lr": 0.1, "layers": 1, "width": 1.0} | dict(v),
            "line": lambda v: {"lr": 0.1, "width": 1.0} | dict(v),
        }
    ),
}


def book(storage: Any = None, sampler: str = "random", **changes: Any) -> Ledger:
    second = changes.pop("second", None)
    options: dict[str, Any] = {
        "suggest": tree, "complete": dict, "sampler": SAMPLERS[sampler], "pins": {}, "trials": 12,
        "epochs": 1, "seed": 1,
    }  # fmt: skip
    return Ledger(
        storage or InMemoryStorage(),
        "search",
        pruner=NoPruning(),
        proposals=Proposals(**options | changes),
        second=second,
    )


def run(ledger: Ledger) -> list[dict[str, Any]]:
    while (job := ledger.next_job()) is not None:
        ledger.report(job, 1, job.values["lr"])
        ledger.finish(job, "COMPLETE")
    return [j.values for j in sorted(ledger.best(999), key=lambda j: j.number)]


@pytest.mark.parametrize("sampler", ["tpe", "qmc", "nsga2"])
def test_families_are_searched_side_by_side_with_knobs_apart(sampler: str) -> None:
    ledger = book(sampler=sampler, trials=30, **BOTH)
    found = run(ledger)
    assert {v["family"] for v in found} == {"tree", "line"}
    for values, trial in zip(found, ledger.study.get_trials()):
        others = "line." if values["family"] == "tree" else "tree."
        assert not any(name.startswith(others) for name in trial.params)
        low, high = (1e-4, 1e-1) if values["family"] == "tree" else (1e-3, 1.0)
        assert low <= values["lr"] <= high and ("layers" in values) == (values["family"] == "tree")
    assert {n for n in ledger.proposals.searched() if "layers" in n} == {"tree.layers"}
    assert split(found[0], "") == (found[0]["family"], {k: v for k, v in found[0].items() if k != "family"})
    assert split({"lr": 1}, "only") == ("only", {"lr": 1})


def test_pins_of_one_family_and_rows_of_both() -> None:
    rows = rows_across({"tree": [row("T", lr=0.05, deep=True, layers=5), row("U", lr=0.01)],
                        "line": [row("L", lr=0.5)]})  # fmt: skip
    assert [one.paper for one in rows] == ["T", "L", "U"]
    pins = {"tree.width": 0.25, "tree.deep": True}
    ledger = book(pins=pins, trials=20, published=rows, **BOTH)
    ledger.enqueue(rows, at_most=2)
    found = run(ledger)
    assert [v["width"] for v in found] == [0.25 if v["family"] == "tree" else 1.0 for v in found]
    assert all(v["deep"] for v in found if v["family"] == "tree")
    assert found[0] == {"family": "tree", "lr": 0.05, "deep": True, "layers": 5, "width": 0.25}
    assert found[1] == {"family": "line", "lr": 0.5, "width": 1.0}
    assert ledger.rows()[0]["origin"] == "published: T, Table I, 1, with tree.width=0.25, tree.deep=True" or (
        ledger.rows()[0]["origin"].startswith("published: T")
    )


def test_what_is_over_a_limit_is_not_run_but_told_and_listed(monkeypatch: pytest.MonkeyPatch) -> None:
    limited = {"predict": lambda v: {"macs": 1e6 * v["layers"], "memory": 1.0}, "limits": {"macs": 3.5e6}}
    ledger = book(trials=10, **limited)
    found = run(ledger)
    assert len(found) == 10 and max(v["layers"] for v in found) == 3
    refused = ledger.refused()
    assert refused and all(r["values"]["layers"] > 3 for r in refused)
    assert refused[0]["reason"] == f"macs {refused[0]['values']['layers']}e+06 > 3.5e+06, the --limit macs"
    trial = ledger.study.get_trials()[refused[0]["trial"]]
    assert trial.state == TrialState.PRUNED and trial.constraints["macs"] == pytest.approx(
        refused[0]["values"]["layers"] / 3.5 - 1
    )
    assert {r["trial"] for r in refused}.isdisjoint(r["trial"] for r in ledger.rows())
    monkeypatch.setattr("searchspace.proposals.REFUSALS", 40)
    none_fits = book(trials=1, predict=limited["predict"], limits={"macs": 1.0})
    with pytest.raises(ValueError, match=r"40 proposals in a row can't be run; .* > 1, the --limit macs"):
        none_fits.next_job()


def test_the_sampler_learns_a_limit() -> None:
    counts = {}
    for sampler in ("random", "tpe"):
        ledger = book(
            sampler=sampler,
            trials=30,
            suggest=lambda t: {"lr": t.suggest_float("lr", 0.0, 1.0)},
            predict=lambda v: {"macs": v["lr"]},
            limits={"macs": 0.3},
        )
        run(ledger)
        counts[sampler] = len(ledger.refused())
    assert counts["tpe"] < counts["random"] * 0.75


def test_the_prior_fades() -> None:
    prior = Prior(0.5, [{"lr": 0.01}])
    assert [prior.probability(n * HALF_LIFE) for n in range(4)] == [0.5, 0.25, 0.125, 0.0625]
    assert Prior(0.5, []).probability(0) == 0.0
    for finished, expected in ((0, 0.5), (20, 0.125)):
        drawn = sum(prior.draw(finished, seed) is not None for seed in range(2000))
        assert drawn / 2000 == pytest.approx(expected, abs=0.03)


def test_proposals_of_the_prior_lie_near_a_published_row() -> None:
    rows = [row("P", deep=True, lr=0.003, layers=5)]
    ledger = book(sampler="tpe", strength=1.0, published=rows, trials=24)
    first = [ledger.next_job().values for _ in range(20)]  # none has finished, so all are the prior's
    near = [v for v in first if v["deep"] and 1e-3 < v["lr"] < 1e-2 and v["layers"] >= 4]
    assert len(near) > 10 and len({v["lr"] for v in first}) == 20
    uniform = book(sampler="random", strength=1.0, published=rows, trials=24)  # a random search stays one
    assert sum(1e-3 < uniform.next_job().values["lr"] < 1e-2 for _ in range(20)) < 12


def test_a_configuration_proposed_again_is_answered_or_run_from_another_seed() -> None:
    def two(trial: Any) -> dict[str, Any]:
        return {"lr": trial.suggest_categorical("lr", [0.1, 0.2])}

    assert len(run(book(suggest=two, trials=6))) == 2
    ledger = book(suggest=two, trials=6, reseed=True)
    assert len(run(ledger)) == 2  # configurations, each by its first trial
    rows = ledger.rows()
    assert len(rows) == 6 and len({r["seed"] for r in rows}) == 6 == len({r["folder"] for r in rows})


def earlier(folder: Path, **changes: Any) -> dict[str, Any]:
    """A finished study on disk; what a study like it says of itself."""
    about = {
        "format": 1, "name": folder.name, "id": "x", "family": "tree", "request": {"database": None},
        "objective": {"metric": "val/a", "mode": "max"}, "second": None, "data": {"checksum": "abc"},
    }  # fmt: skip
    folder.mkdir()
    record.write(folder, about)
    run(book(open_storage(sqlite_url(folder / "study.db")), **changes))
    return about


def test_a_warm_start_is_known_to_the_sampler_and_not_ranked(tmp_path: Path) -> None:
    about = earlier(tmp_path / "old", trials=20)
    ledger = book(sampler="tpe", trials=3)
    said = warm_started(tmp_path / "old", ledger.study, ledger.proposals, about, ("tree",))
    assert said == f"20 trials of {tmp_path / 'old'} are known to the sampler"
    warm_started(tmp_path / "old", ledger.study, ledger.proposals, about, ("tree",))  # resumed: not twice
    known = ledger.study.get_trials()
    assert len(known) == 20 and {t.state for t in known} == {TrialState.COMPLETE}
    assert known[3].user_attrs["origin"] == "warm start: old, trial 3"
    assert ledger.rows() == [] and ledger.best(3) == [] and ledger.started() == 0
    found = run(ledger)
    assert len(found) == len(ledger.rows()) == 3
    assert [j.number for j in ledger.best(1)][0] >= 20
    cold = run(book(sampler="tpe", trials=3))
    assert [v["lr"] for v in found] != [v["lr"] for v in cold]


def test_a_warm_start_takes_what_lies_in_the_space_and_says_what_does_not(tmp_path: Path) -> None:
    about = earlier(tmp_path / "old", trials=20)
    ledger = book(pins={"deep": True}, epochs=4)
    said = warm_started(tmp_path / "old", ledger.study, ledger.proposals, about, ("tree",))
    inside = ledger.study.get_trials()
    assert said.startswith(f"{len(inside)} trials") and f"{20 - len(inside)} lie outside" in said
    assert {t.state for t in inside} == {TrialState.PRUNED}  # of another length
    across = book(**BOTH)
    both = warm_started(tmp_path / "old", across.study, across.proposals, about, ("tree", "line"))
    assert both.startswith("0 trials")  # "width" is no knob of the earlier study's
    with pytest.raises(ValueError, match="its data is abc, this study's is xyz"):
        warm_started(
            tmp_path / "old", ledger.study, ledger.proposals, about | {"data": {"checksum": "xyz"}}, ("tree",)
        )


def choices(*kinds: str) -> dict[str, Any]:
    return {"suggest": lambda t: {"kind": t.suggest_categorical("kind", ["a", "b", "c"])} | tree(t),
            "pins": {"kind": kinds if len(kinds) > 1 else kinds[0]}}  # fmt: skip


def test_a_running_study_goes_on_in_a_wider_space() -> None:
    storage = InMemoryStorage()
    narrow = book(storage, "tpe", trials=12, **choices("a", "b"))
    run(narrow)
    before, unfinished = narrow.rows(), book(storage, "tpe", trials=13, **choices("a", "b")).next_job()
    wider = book(storage, "tpe", trials=30, **choices("a", "b", "c"))
    assert wider.rows()[:12] == before and wider.unfinished() == [unfinished]
    assert wider.study.get_trials()[0].params["kind"] == before[0]["config.kind"]
    wider.finish(unfinished, "FAIL")
    run(wider)
    assert {r["config.kind"] for r in wider.rows()[13:]} >= {"c"} and len(wider.rows()) == 30
    reopened = book(storage, "tpe", trials=30, **choices("a", "b", "c"))
    assert reopened.rows() == wider.rows() and reopened.study.study_name == "search, extended 2"
    again = book(
        storage, "tpe", trials=31, **choices("a", "b", "c") | {"pins": {}}
    )  # the same space, unpinned
    assert len(again.rows()) == 30


def test_an_extension_that_was_cut_off_is_made_again() -> None:
    storage = InMemoryStorage()
    run(book(storage, trials=5, **choices("a")))
    optuna.create_study(storage=storage, study_name="search, extended 2")  # the driver died here
    wider = book(storage, trials=5, **choices("a", "b"))
    assert len(wider.rows()) == 5 and wider.study.study_name == "search, extended 2"
