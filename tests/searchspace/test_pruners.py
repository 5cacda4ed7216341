"""Each rule that ends a training early, against a slow statement of it."""

from __future__ import annotations

import random
import statistics
from collections import Counter
from typing import Any

import pytest
from optuna.storages import InMemoryStorage

from searchspace.methods import SAMPLERS
from searchspace.population import Population, together
from searchspace.proposals import Proposals
from searchspace.pruners import (
    Asha,
    Curve,
    Entry,
    Hyperband,
    Median,
    NoPruning,
    Patience,
    Promotion,
    Step,
    dominators,
)
from searchspace.study import Ledger, Second, Spending


def curves(count: int, epochs: int, seed: int = 0, two: bool = False) -> list[Curve]:
    chance = random.Random(seed)
    found = []
    for number in range(count):
        length = chance.choice([3, 9, epochs])
        values = {e: round(chance.random(), 2) for e in range(1, length + 1)}
        found.append(Curve(number, values, dict.fromkeys(values, -chance.random()) if two else {}))
    return found


def test_asha_equals_a_slow_statement_of_the_rule() -> None:
    rule = Asha()
    assert [rule.rungs(n) for n in (27, 9, 12, 81, 3)] == [[3, 9], [3], [4], [3, 9, 27], []]
    for seed in range(20):
        seen = curves(random.Random(seed).randint(1, 12), 27, seed)
        for own in seen:
            others = [c for c in seen if c.number != own.number]
            for epoch in set(own.values) & {3, 9}:
                there = [c.values[epoch] for c in seen if epoch in c.values]
                better = sum(v > own.values[epoch] for v in there)
                goes_on = len(there) < 3 or better < len(there) // 3
                reason = rule.stop_reason(own, epoch, 27, others)
                assert (reason is None) == goes_on
                if reason:
                    cut_off = sorted(there)[-(len(there) // 3)]
                    assert reason == (
                        f"{own.values[epoch]:.4f} < {cut_off:.4f}, the cut-off at epoch {epoch} among "
                        f"{len(there)} trials"
                    )
    assert not rule.judges(2, 27) and rule.judges(9, 27) and not rule.judges(27, 27)
    nan = [Curve(1, {3: float("nan")}), Curve(2, {3: 0.9})]
    assert rule.stop_reason(Curve(0, {3: 0.1}), 3, 27, nan) is None  # two finite values say nothing


def test_with_two_objectives_the_least_dominated_third_goes_on() -> None:
    rule = Asha()
    for seed in range(20):
        seen = curves(random.Random(seed).randint(3, 12), 27, seed, two=True)
        points = {c.number: (c.values[3], c.second[3]) for c in seen}

        def beaten(own: int, points: dict[int, Any] = points) -> int:
            a, b = points[own]
            return sum(x >= a and y >= b and (x > a or y > b) for x, y in points.values())

        assert list(dominators(list(points.values()))) == [beaten(n) for n in points]
        for own in seen:
            fewer = sum(beaten(n) < beaten(own.number) for n in points)
            reason = rule.stop_reason(own, 3, 27, [c for c in seen if c.number != own.number])
            assert (reason is None) == (fewer < len(points) // 3)
            if reason:
                assert reason.startswith(
                    f"dominated by {beaten(own.number)} of {len(points)} trials at epoch 3"
                )


def test_hyperband_compares_within_brackets_that_cost_about_the_same() -> None:
    rule, epochs = Hyperband(), 81
    share = Counter(rule.bracket(n, epochs) for n in range(4000))
    weights = [27 / 4, 9 / 3, 3 / 2, 1]  # s = 3, 2, 1, 0 rungs
    for bracket, weight in enumerate(weights):
        assert share[bracket] / 4000 == pytest.approx(weight / sum(weights), abs=0.005)
    some = [rule.bracket(n, epochs) for n in range(20)]
    assert set(some[:8]) >= {0, 1}  # early trials are spread over the brackets
    same = [n for n in range(200) if rule.bracket(n, epochs) == 1]
    seen = [Curve(n, {3: 0.9, 9: 0.5}) for n in same[1:4]] + [Curve(n, {9: 0.9}) for n in range(1000, 1060)]
    seen = [c for c in seen if c.number < 1000 or rule.bracket(c.number, epochs) != 1]
    own = Curve(same[0], {3: 0.0, 9: 0.4})
    assert rule.stop_reason(own, 3, epochs, seen) is None  # bracket 1 has its first rung at 9
    assert rule.stop_reason(own, 9, epochs, seen) == (
        "0.4000 < 0.5000, the cut-off at epoch 9 among 4 trials of bracket 1"
    )


def test_median_equals_a_slow_statement_of_the_rule() -> None:
    rule, stopped = Median(), 0
    for seed in range(30):
        seen = curves(random.Random(seed).randint(1, 9), 12, seed)
        for own in seen:
            for epoch in range(3, max(own.values) + 1):
                others = [c for c in seen if c.number != own.number and epoch in c.values]
                means = [sum(c.values[e] for e in range(1, epoch + 1)) / epoch for c in others]
                best = max(own.values[e] for e in range(1, epoch + 1))
                stops = (
                    len(means) >= 4 and best < sorted(means)[len(means) // 2 - 1 : len(means) // 2 + 1][-1]
                )
                stops = len(means) >= 4 and best < statistics.median(means)
                reason = rule.stop_reason(own, epoch, 12, [c for c in seen if c is not own])
                assert (reason is not None) == stops
                stopped += stops
    assert stopped and [rule.judges(e, 12) for e in (2, 3, 11, 12)] == [False, True, True, False]


def test_patience_equals_a_slow_statement_of_the_rule() -> None:
    rule = Patience(epochs=3)
    values = dict(enumerate([0.1, 0.5, 0.5, 0.4, 0.6, 0.3, 0.2, 0.6, 0.1, 0.2], start=1))
    stops = []
    for epoch in range(1, 11):
        last_gain = max(e for e in range(1, epoch + 1) if all(values[e] > values[b] for b in range(1, e)))
        reason = rule.stop_reason(Curve(0, values), epoch, 20, [])
        assert (reason is not None) == (epoch - last_gain >= 3)
        stops += [epoch] if reason else []
    assert stops == [8, 9, 10]  # equalling the best is no gain
    assert rule.stop_reason(Curve(0, values), 8, 20, []) == "not above 0.6000 of epoch 5 for 3 epochs"


def ledger(storage: Any, pruner: Any, **changes: Any) -> Ledger:
    options: dict[str, Any] = {
        "suggest": lambda t: {"x": t.suggest_float("x", 0.0, 1.0)}, "complete": dict, "pins": {},
        "sampler": SAMPLERS["random"], "trials": 9, "epochs": 27, "seed": 1,
    }  # fmt: skip
    spending = changes.pop("spending", Spending())
    second = changes.pop("second", None)
    return Ledger(
        storage,
        "search",
        pruner=pruner,
        proposals=Proposals(**options | changes),
        spending=spending,
        second=second,
    )


def run(book: Ledger, most: int = 10**6, noise: float = 0.0) -> list[tuple[int, int, int]]:
    """A plain driver that is killed after `most` epochs; (trial, from, to) of every stint."""
    stints = []
    while (job := next(iter(book.unfinished()), None) or book.next_job()) is not None:
        first = max(book.study.trials[job.number].intermediate_values, default=0)
        reason = None
        for epoch in range(first + 1, job.epochs + 1):
            value = job.values["x"] - 0.5 / epoch + noise * random.Random(job.seed).gauss(0, 1)
            reason = book.report(job, epoch, value)
            most -= 1
            if most == 0:
                return stints
            if reason:
                break
        stints.append((job.number, first, epoch))
        book.finish(job, "PRUNED" if reason else "COMPLETE", reason or "")
    return stints


def test_promotion_pauses_and_goes_on_with_the_best_third() -> None:
    book = ledger(InMemoryStorage(), Promotion())
    stints = run(book)
    rows = {r["trial"]: r for r in book.rows()}
    x = [rows[n]["config.x"] for n in range(9)]
    best = sorted(range(9), key=lambda n: -x[n])
    assert stints[:3] == [(0, 0, 3), (1, 0, 3), (2, 0, 3)]  # then the best of three goes on
    leader = max(range(3), key=lambda n: x[n])
    assert stints[3] == (leader, 3, 9)
    # the slow statement, on what was seen at each moment
    there: dict[int, list[int]] = {3: [], 9: []}
    for number, start, end in stints:
        if start:
            ranked = sorted(there[start], key=lambda n: -x[n])
            assert number in ranked[: max(1, len(ranked) // 3)]
        if end in there:
            there[end].append(number)
    assert rows[best[0]]["state"] == "COMPLETE" and rows[best[0]]["epochs"] == 27
    paused = [r for r in rows.values() if r["state"] == "PRUNED"]
    assert {r["epochs"] for r in paused} <= {3, 9} and len(paused) >= 6
    assert rows[best[-1]]["reason"] == "paused at epoch 3: 9 of 9 there, where the best 3 go on"
    assert [j.number for j in book.best(1)] == [best[0]]


def test_promotion_killed_at_any_epoch_and_reopened_takes_the_same_steps() -> None:
    whole = ledger(InMemoryStorage(), Promotion())
    run(whole)
    expected = [(r["state"], r["epochs"], r["score"], r["reason"]) for r in whole.rows()]
    storage = InMemoryStorage()
    for kill_after in (1, 3, 8, 3, 4, 2, 9, 1):
        run(ledger(storage, Promotion()), kill_after)
    again = ledger(storage, Promotion())
    run(again)
    assert [(r["state"], r["epochs"], r["score"], r["reason"]) for r in again.rows()] == expected


def test_a_study_with_more_trials_goes_on_with_those_that_waited() -> None:
    storage = InMemoryStorage()
    run(ledger(storage, Promotion(), trials=4))
    run(ledger(storage, Promotion(), trials=9))
    whole = ledger(InMemoryStorage(), Promotion())
    run(whole)
    rows = ledger(storage, Promotion()).rows()
    assert [r["score"] for r in rows if r["epochs"] == 3] == [
        r["score"] for r in whole.rows() if r["epochs"] == 3
    ]
    assert max(rows, key=lambda r: r["score"])["state"] == "COMPLETE"


def test_rungs_over_epochs_and_seeds() -> None:
    """A configuration goes on only with its mean over two seeds among the best."""
    book = ledger(InMemoryStorage(), Promotion(seeds=2))
    stints = run(book, noise=0.3)
    rows = {r["trial"]: r for r in book.rows()}
    seeds = [r for r in rows.values() if r["origin"].startswith("seed 2 of trial ")]
    assert seeds and len(rows) == 9 + len(seeds)  # --trials counts configurations
    for row in seeds:
        lead = rows[int(row["origin"].split()[-1])]
        assert row["config.x"] == lead["config.x"] and row["seed"] != lead["seed"]
    for at, (number, start, _) in enumerate(stints):
        if start == 3 and rows[number] not in seeds:  # before it goes on, its second seed was there
            twin = next(r["trial"] for r in seeds if r["origin"] == f"seed 2 of trial {number}")
            assert any(n == twin for n, *_ in stints[:at])
    mean = Promotion(seeds=2)._ranked(
        [Entry(0, 0, Curve(0, {3: 0.9}), 3, True), Entry(0, 1, Curve(2, {3: 0.1}), 3, True),
         Entry(1, 0, Curve(1, {3: 0.6}), 3, True)], 3)  # fmt: skip
    assert [c for c, _ in mean] == [1, 0]


def test_a_second_seed_comes_before_more_epochs() -> None:
    entries = [Entry(n, 0, Curve(n, {3: 0.1 * n}), 3, True) for n in range(3)]
    rule = Promotion(seeds=2)
    assert rule.step(entries, 9, closing=False) == Step(3, None, 2, 1)
    twin = Entry(2, 1, Curve(3, {}), 3, True)
    assert rule.step([*entries, twin], 9, closing=False) is None  # it is on its way
    done = Entry(2, 1, Curve(3, {3: 0.19}), 3, True)
    assert rule.step([*entries, done], 9, closing=False) == Step(9, 2)
    worse = Entry(2, 1, Curve(3, {3: -0.9}), 3, True)
    assert rule.step([*entries, worse], 9, closing=False) == Step(3, None, 1, 1)  # the next best is tried


def test_a_budget_of_epochs_truncates_and_a_larger_one_goes_on() -> None:
    storage = InMemoryStorage()
    book = ledger(storage, NoPruning(), epochs=9, trials=4, spending=Spending(epochs=12))
    run(book)
    assert [(r["state"], r["epochs"]) for r in book.rows()] == [("COMPLETE", 9), ("PRUNED", 3)]
    assert book.rows()[1]["reason"] == "truncated at epoch 3 of 9: the budget of 12 epochs is spent"
    assert [j.number for j in book.best(9)] == [0]
    assert run(ledger(storage, NoPruning(), epochs=9, trials=4, spending=Spending(epochs=12))) == []
    more = ledger(storage, NoPruning(), epochs=9, trials=4, spending=Spending(epochs=20))
    assert run(more)[0] == (1, 3, 9)
    assert [(r["state"], r["epochs"]) for r in more.rows()][1:] == [("COMPLETE", 9), ("PRUNED", 2)]


def test_a_budget_of_time_counts_over_restarts() -> None:
    storage = InMemoryStorage()
    book = ledger(storage, NoPruning(), epochs=3, spending=Spending(seconds=3600))
    run(book, most=4)
    book._began -= 3000.0
    run(book, most=1)
    assert ledger(storage, NoPruning(), epochs=3, spending=Spending(seconds=3600)).spent() is None
    late = ledger(storage, NoPruning(), epochs=3, spending=Spending(seconds=3000))
    assert late.spent() == "the budget of 50m is spent" and late.next_job() is None


def test_two_objectives_are_told_and_the_front_is_marked() -> None:
    book = ledger(
        InMemoryStorage(),
        NoPruning(),
        epochs=1,
        trials=12,
        second=Second("macs", maximize=False),
        predict=lambda values: {"macs": round(100 * (values["x"] - 0.5) ** 2), "parameters": 7, "memory": 1},
    )
    run(book)
    rows = book.rows()
    points = [(r["score"], -r["macs"]) for r in rows]
    slow = [not any(a >= x and b >= y and (a, b) != (x, y) for a, b in points) for x, y in points]
    assert [r["pareto"] for r in rows] == slow and 0 < sum(slow) < 12
    assert [t.values for t in book.study.get_trials()] == [[r["score"], r["macs"]] for r in rows]
    first = book.best(sum(slow))
    assert {j.number for j in first} == {r["trial"] for r in rows if r["pareto"]}
    assert [rows[j.number]["score"] for j in first] == sorted(r["score"] for r in rows if r["pareto"])[::-1]
    assert rows[0]["parameters"] == 7 and rows[0]["memory"] == 1


def test_a_population_replaces_its_worst_by_changed_copies_of_its_best() -> None:
    book = ledger(InMemoryStorage(), Population(), trials=8, epochs=9)
    stints = run(book)
    rows = {r["trial"]: r for r in book.rows()}
    assert stints[:8] == [(n, 0, 3) for n in range(8)] and len(rows) == 12  # two in each of two generations
    first = sorted(range(8), key=lambda n: rows[n]["config.x"])
    for loser, copy, parent in ((first[0], 8, first[-1]), (first[1], 9, first[-2])):
        assert rows[loser]["state"] == "PRUNED" and rows[loser]["epochs"] == 3
        assert rows[loser]["reason"].startswith(
            f"{rows[loser]['score']:.4f} is among the worst 2 of 8 at epoch 3; a copy of trial {parent} ("
        )
        assert rows[copy]["origin"] == f"copy of trial {parent} at epoch 3"
        changed = rows[copy]["config.x"] / rows[parent]["config.x"]
        assert (
            changed == pytest.approx(0.8)
            or changed == pytest.approx(1.25)
            or changed == 1 / rows[parent]["config.x"]
        )
        trials = book.study.get_trials()
        assert {e: v for e, v in trials[copy].intermediate_values.items() if e <= 3} == {
            e: v for e, v in trials[parent].intermediate_values.items() if e <= 3
        }
    assert sum(r["state"] == "COMPLETE" for r in rows.values()) == 8
    # no survivor went on before the copies had begun
    assert [s[0] for s in stints[8:10]] == [8, 9]
    assert book.spent() is None and sum(end - start for _, start, end in stints) == 8 * 9
    assert book.started() == 8


def test_a_population_killed_at_any_epoch_decides_the_same() -> None:
    whole = ledger(InMemoryStorage(), Population(), trials=5, epochs=9)
    run(whole)
    storage = InMemoryStorage()
    for kill_after in (2, 5, 9, 1, 3, 8, 2):
        run(ledger(storage, Population(), trials=5, epochs=9), kill_after)
    again = ledger(storage, Population(), trials=5, epochs=9)
    run(again)
    outcome = [[(r["state"], r["epochs"], r["score"], r["reason"]) for r in b.rows()] for b in (whole, again)]
    assert outcome[0] == outcome[1]


def test_a_crash_between_a_copy_and_the_end_of_what_it_replaces(monkeypatch: pytest.MonkeyPatch) -> None:
    storage = InMemoryStorage()
    book = ledger(storage, Population(), trials=4, epochs=9)
    for _ in range(4):
        job = book.next_job()
        for epoch in (1, 2, 3):
            reason = book.report(job, epoch, job.values["x"])
        book.finish(job, "PRUNED", reason)
    with monkeypatch.context() as patch:
        patch.setattr(book.study, "tell", lambda *a, **k: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            book.next_job()
    again = ledger(storage, Population(), trials=4, epochs=9)
    (copy,) = again.unfinished()
    assert copy.number == 4 and copy.born == 3 and copy.until == 6
    run(again)
    assert len([r for r in again.rows() if r["origin"].endswith("at epoch 3")]) == 1
    assert sum(r["state"] == "COMPLETE" for r in again.rows()) == 4


def test_a_generation_waits_for_all_of_it() -> None:
    assert together([3, 3, 3], [3, 3]) is None and together([3, 3, 3], [3, 3, 3]) == 3
    assert together([3, 6, 6], [3]) == 3 and together([6, 6], []) is None
    assert together([3, 6], [6]) is None
