"""The ledger tells the truth: states, values, reasons, seeds; and reopening the database is resuming."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from optuna.trial import TrialState

from searchspace.methods import PRUNERS, SAMPLERS
from searchspace.pins import agrees, parse_settings
from searchspace.published import Published
from searchspace.study import Job, Ledger, Proposals, open_storage, seed_for, sqlite_url


def suggest(trial: Any) -> dict[str, Any]:
    kind = trial.suggest_categorical("kind", ["a", "b"])
    knobs = {"kind": kind, "lr": trial.suggest_float("lr", 1e-4, 1e-1, log=True)}
    if kind == "b":
        knobs["layers"] = trial.suggest_int("layers", 1, 4)
    return knobs


def complete(values: Mapping[str, Any]) -> dict[str, Any]:
    if values.get("layers", 1) > 9:
        raise ValueError(f"layers={values['layers']} is outside 1..9")
    return {"kind": "a", "lr": 1e-3, "layers": 1} | dict(values)


def proposals(**changes: Any) -> Proposals:
    options: dict[str, Any] = {
        "suggest": suggest, "complete": complete, "sampler": SAMPLERS["tpe"], "pins": {}, "trials": 8,
        "epochs": 9, "seed": 5,
    }  # fmt: skip
    return Proposals(**options | changes)


def ledger(path: Path, pruner: str = "asha", **changes: Any) -> Ledger:
    return Ledger(
        open_storage(sqlite_url(path / "study.db")),
        "search",
        pruner=PRUNERS[pruner],
        proposals=proposals(**changes),
    )


def curve(job: Job, epoch: int) -> float:
    return 1 - abs(math.log10(job.values["lr"]) + 2) / 4 - 0.5 / epoch


def run_all(book: Ledger, stop_after: int | None = None) -> None:
    """A plain sequential driver; `stop_after` reports it is killed."""
    reports = 0
    while (job := next(iter(book.unfinished()), None) or book.next_job()) is not None:
        reason, done = None, max(book.study.trials[job.number].intermediate_values, default=0)
        for epoch in range(max(1, done), job.epochs + 1):  # the run folder's last line is told again
            reason = book.report(job, epoch, curve(job, epoch))
            reports += 1
            if reports == stop_after:
                return
            if reason:
                break
        book.finish(job, "PRUNED" if reason else "COMPLETE", reason or "")


def decisions(book: Ledger) -> list[Any]:
    return [
        (r["state"], r["epochs"], r["score"], r["seed"], r["reason"], r["config.lr"]) for r in book.rows()
    ]


def test_states_are_told_truthfully(tmp_path: Path) -> None:
    book = ledger(tmp_path, pruner="none")
    complete_job, pruned, diverged, failed, running = (book.next_job() for _ in range(5))
    for epoch in (1, 2):
        book.report(complete_job, epoch, 0.1 * epoch)
        book.report(pruned, epoch, 0.3)
        book.report(diverged, epoch, 0.9)
    book.finish(complete_job, "COMPLETE", details={"metrics": {"val/x": math.nan}, "parameters": 7})
    book.finish(pruned, "PRUNED", "0.3 < 0.4")
    book.finish(diverged, "DIVERGED", "non-finite loss: a=nan")
    book.finish(failed, "FAIL", "the node went away")
    trials = book.study.trials
    assert [t.state for t in trials] == [
        TrialState.COMPLETE,
        TrialState.PRUNED,
        TrialState.PRUNED,
        TrialState.FAIL,
        TrialState.RUNNING,
    ]
    assert trials[0].value == 0.2 and trials[1].value == 0.3
    assert trials[2].constraints == {"diverged": 1.0}  # so that the sampler learns to keep away
    rows = book.rows()
    assert [r["state"] for r in rows] == ["COMPLETE", "PRUNED", "DIVERGED", "FAIL", "RUNNING"]
    assert [r["epochs"] for r in rows] == [2, 2, 2, 0, 0]
    assert rows[2]["reason"] == "non-finite loss: a=nan" and rows[0]["parameters"] == 7
    assert [j.number for j in book.best(5)] == [complete_job.number]
    book.finish(complete_job, "FAIL", "told twice")  # a finished job stays as it is
    assert book.rows()[0]["state"] == "COMPLETE"


def test_the_sampler_keeps_away_from_where_trials_diverge(tmp_path: Path) -> None:
    """The best region borders the diverging one, and trials diverge late, having outlived the pruned ones."""
    book = ledger(tmp_path, trials=60, epochs=9, suggest=lambda t: {"lr": t.suggest_float("lr", 0.0, 1.0)})
    diverged = []
    while (job := book.next_job()) is not None:
        bad, reason = job.values["lr"] > 0.5, None
        for epoch in range(1, 9 if bad else 10):
            reason = reason or book.report(job, epoch, job.values["lr"])
        book.finish(job, "DIVERGED" if bad else "PRUNED" if reason else "COMPLETE")
        diverged.append(bad)
    assert sum(diverged[30:]) < 15


def test_killed_and_reopened_makes_the_same_decisions(tmp_path: Path) -> None:
    (tmp_path / "whole").mkdir()
    whole = ledger(tmp_path / "whole")
    run_all(whole)
    expected = decisions(whole)
    assert {d[0] for d in expected} == {"COMPLETE", "PRUNED"}
    for kill_at in (1, 4, 9, 10, 17):
        folder = tmp_path / f"killed{kill_at}"
        folder.mkdir()
        run_all(ledger(folder), stop_after=kill_at)
        again = ledger(folder)
        run_all(again)
        assert decisions(again) == expected, kill_at


def test_a_proposal_cut_off_before_it_was_written_down_is_not_run(tmp_path: Path) -> None:
    book = ledger(tmp_path)
    book.study.ask()  # the driver dies here
    again = ledger(tmp_path)
    assert again.unfinished() == [] and again.started() == 0
    run_all(again)
    assert len(again.rows()) == 8


def test_proposals_that_cannot_be_built_are_drawn_again_and_named_when_all_are(tmp_path: Path) -> None:
    book = ledger(tmp_path, complete=lambda v: complete(v | {"layers": 10 if v["lr"] > 1e-2 else 1}))
    run_all(book)
    assert len(book.rows()) == 8 and all(r["config.lr"] <= 1e-2 for r in book.rows())
    with pytest.raises(ValueError, match=r"no valid point: layers=10 is outside 1\.\.9"):
        proposals(pins={"layers": 10, "kind": "b"}).check()


def test_an_epoch_once_judged_is_not_judged_again(tmp_path: Path) -> None:
    book = ledger(tmp_path)
    early, late, later = (book.next_job() for _ in range(3))
    assert book.report(early, 3, 0.5) is None
    assert book.report(late, 3, 0.6) is None and book.report(later, 3, 0.1)
    assert book.report(early, 3, 0.5) is None  # it would be stopped by now
    assert book.report(later, 3, 0.1) == "0.1000 < 0.6000, the cut-off at epoch 3 among 3 trials"


def test_the_last_epoch_is_never_a_reason_to_stop(tmp_path: Path) -> None:
    book = ledger(tmp_path, epochs=3)
    first, second = book.next_job(), book.next_job()
    assert book.report(first, 3, 0.9) is None and book.report(second, 3, 0.1) is None


def test_seeds_depend_on_study_configuration_and_repeat() -> None:
    values = {"lr": 0.1, "kind": "a"}
    assert seed_for(0, values, 1) == seed_for(0, {"kind": "a", "lr": 0.1}, 1)
    different = {
        seed_for(0, values, 0),
        seed_for(1, values, 0),
        seed_for(0, values, 1),
        seed_for(0, values | {"lr": 0.2}, 0),
    }
    assert len(different) == 4 and all(0 <= s < 2**31 for s in different)


def test_enqueued_configurations_run_first_with_their_origin(tmp_path: Path) -> None:
    book = ledger(tmp_path)
    book.study.enqueue_trial(
        {"kind": "b", "lr": 0.05, "layers": 3}, user_attrs={"origin": "published: X, Table 1, row 2"}
    )
    job = book.next_job()
    assert (
        job.values == {"kind": "b", "lr": 0.05, "layers": 3} and job.origin == "published: X, Table 1, row 2"
    )
    assert book.next_job().origin == "sampler"


def test_pins_fix_and_narrow(tmp_path: Path) -> None:
    book = ledger(tmp_path, pins={"lr": 0.5, "kind": ("b",)})
    jobs = [book.next_job() for _ in range(4)]
    assert {j.values["lr"] for j in jobs} == {0.5} and {j.values["kind"] for j in jobs} == {"b"}
    assert "lr" not in book.study.trials[0].params
    assert list(proposals().searched()) == ["kind", "layers", "lr"]
    assert list(book.proposals.searched()) == ["kind", "layers"]


def test_a_pin_applies_only_where_its_knob_exists(tmp_path: Path) -> None:
    book = ledger(tmp_path, pins={"layers": 3, "width": (2, 4), "epochs": 7}, trials=24)
    jobs = []
    while (job := book.next_job()) is not None:
        jobs.append(job.values)
        book.finish(job, "FAIL")
    by_kind = {kind: {v["layers"] for v in jobs if v["kind"] == kind} for kind in "ab"}
    assert by_kind == {"a": {1}, "b": {3}}  # "a" has no layers to pin; the default stays
    assert {v["width"] for v in jobs} == {2, 4} and {v["epochs"] for v in jobs} == {7}  # outside the space
    assert list(book.proposals.searched()) == ["kind", "lr", "width"]


def test_a_configuration_is_tried_once(tmp_path: Path) -> None:
    book = ledger(tmp_path, pins={"lr": 0.01, "layers": (1, 2)}, trials=20, pruner="none", epochs=1)
    run_all(book)
    tried = [(r["config.kind"], r["config.layers"]) for r in book.rows()]
    assert sorted(tried) == [("a", 1), ("b", 1), ("b", 2)]  # and then the space is exhausted
    assert len({str(j.values) for j in book.best(9)}) == len(book.best(9)) == 3


def test_a_range_that_depends_on_another_knob_is_a_dimension_of_its_own(tmp_path: Path) -> None:
    """One name with two ranges would keep TPE within the first it met: PANN's 6 blocks within TinyCNN's 2."""

    def varying(trial: Any) -> dict[str, Any]:
        kind = trial.suggest_categorical("kind", ["a", "b"])
        return {"kind": kind, "layers": trial.suggest_int("layers", 1, 2 if kind == "a" else 6)}

    row = Published("P", "I", "1", "c", "test", "m", 0.5, None, "unknown", {"kind": "b", "layers": 5}, True)
    book = ledger(tmp_path, suggest=varying, trials=14, epochs=1, pruner="none")
    book.enqueue([row], at_most=1)
    while (job := book.next_job()) is not None:
        book.report(job, 1, job.values["layers"])
        book.finish(job, "COMPLETE")
    rows = book.rows()
    assert rows[0]["origin"] == "published: P, Table I, 1" and rows[0]["config.layers"] == 5
    assert {r["config.layers"] for r in rows if r["config.kind"] == "b"} >= {5, 6}  # beyond "a"'s range
    assert set(book.study.trials[0].params) == {"kind", "layers 1-6"}
    assert [len(ranges) for ranges in book.proposals.searched().values()] == [1, 2]
    (tmp_path / "pinned").mkdir()
    pinned = ledger(tmp_path / "pinned", suggest=varying, pins={"layers": 2})
    assert {pinned.next_job().values["layers"] for _ in range(2)} == {2}


def test_two_studies_in_one_database_do_not_meet(tmp_path: Path) -> None:
    storage = open_storage(sqlite_url(tmp_path / "shared.db"))
    one = Ledger(storage, "search", pruner=PRUNERS["none"], proposals=proposals(), study="a")
    two = Ledger(storage, "search", pruner=PRUNERS["none"], proposals=proposals(), study="b")
    one.next_job()
    assert one.started() == 1 and two.started() == 0
    assert agrees({"kind": "b", "lr": 0.5}, {"kind": ("a", "b"), "layers": 2}) and not agrees(
        {"kind": "c"}, {"kind": ("a", "b")}
    )


def test_settings_are_read_from_the_command_line() -> None:
    assert parse_settings(["lr=0.1", "name=a=b"]) == {"lr": "0.1", "name": "a=b"}
    for bad, message in (
        ("lr", "expected key=value"),
        ("=3", "expected key=value"),
    ):
        with pytest.raises(ValueError, match=message):
            parse_settings([bad])
    with pytest.raises(ValueError, match="given twice"):
        parse_settings(["lr=1", "lr=2"])


def test_a_database_that_cannot_be_opened_is_named_without_its_password(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="cannot open the study database"):
        open_storage(f"sqlite:///{tmp_path}/no/such/folder/study.db")
    with pytest.raises(ValueError) as caught:
        open_storage("postgresql://me:secret@127.0.0.1:1/db")
    assert "secret" not in str(caught.value)
