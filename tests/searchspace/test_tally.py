"""What is kept up as trials end, against the same counted over all trials again."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import optuna
import sqlalchemy
from optuna.trial import TrialState

from searchspace.changes import without
from searchspace.methods import PRUNERS, SAMPLERS, Pruner
from searchspace.objectives import Objectives, Second
from searchspace.proposals import waits
from searchspace.pruners import Promotion
from searchspace.storage import DETAILS, details_of, open_storage, sqlite_url, trials_of
from searchspace.study import Ledger, Proposals

PROMOTION = Promotion(grace=1, seeds=2)


def suggest(trial: Any) -> dict[str, Any]:
    return {"width": trial.suggest_int("width", 1, 12), "lr": trial.suggest_float("lr", 0.1, 0.5, step=0.1)}


def ledger(
    folder: Path,
    *,
    second: Second | None = None,
    trials: int = 36,
    seed: int = 0,
    pruner: Pruner | Promotion = PROMOTION,
) -> Ledger:
    proposals = Proposals(
        suggest=suggest,
        complete=dict,
        sampler=SAMPLERS["random"],
        pins={},
        trials=trials,
        epochs=9,
        seed=seed,
        reseed=True,
        predict=lambda values: {"macs": 13.0 - values["width"]},
    )
    storage = open_storage(sqlite_url(folder / "study.db"))
    return Ledger(storage, "search", pruner=pruner, proposals=proposals, second=second)


def steps(book: Ledger, seed: int) -> Any:
    """A study of random results, at most three jobs at a time; yields after every step."""
    chance, live = random.Random(seed), []
    while True:
        job = book.next_job() if len(live) < 3 else None
        if job is None and not live:
            return
        if job:
            live.append([job, book.reported(job)])
        else:
            place = chance.randrange(len(live))
            job, epoch = live[place]
            live[place][1] += 1
            reason = book.report(job, epoch + 1, round(chance.random(), 1))
            if reason or epoch + 1 == job.epochs or chance.random() < 0.02:
                del live[place]
                fails = not reason and epoch + 1 < job.epochs
                outcome = "PRUNED" if reason else "FAIL" if fails else "COMPLETE"
                book.finish(job, outcome, reason or "", {"seconds": job.number + 0.5})
        yield


def slow_best(book: Ledger, second: Second | None) -> list[int]:
    """Configurations by the means of their complete trials: fewest dominating ones, score, number."""
    groups: dict[int, list[Any]] = {}
    for t in book.study.get_trials(deepcopy=False):
        if t.state == TrialState.COMPLETE and "values" in t.user_attrs:
            groups.setdefault(t.user_attrs["configuration"], []).append(t)
    sign = Objectives(second).sign
    points = {}
    for same in groups.values():
        means = [sum(t.values[i] for t in same) / len(same) for i in range(len(same[0].values))]
        points[same[0].number] = (round(means[0], 9), *(sign * m for m in means[1:]))

    def beaten(n: int) -> int:
        mine = points[n]
        return sum(all(a >= b for a, b in zip(p, mine)) and p != mine for p in points.values())

    return sorted(points, key=lambda n: (beaten(n), -points[n][0], n))


def check(book: Ledger, second: Second | None) -> None:
    trials = book.study.get_trials(deepcopy=False)
    jobs = [t for t in trials if "values" in t.user_attrs]
    assert [t.number for t in book._tally.open()] == [t.number for t in trials if not t.state.is_finished()]
    assert book.finished() == sum(t.state.is_finished() or waits(t) for t in jobs)
    assert book.started() == sum(not t.user_attrs["origin"].startswith("seed ") for t in jobs)
    assert book._tally.sum("epochs") == sum(max(t.intermediate_values, default=0) for t in jobs)
    values = jobs[0].user_attrs["values"]
    alike = [t.number for t in jobs if t.user_attrs["values"] == values]
    assert [t.number for t in book._tally.alike(values)] == alike
    assert [j.number for j in book.best(9)] == slow_best(book, second)[:9]


def test_what_is_kept_up_is_what_counting_all_trials_again_gives(tmp_path: Path) -> None:
    for name, second in (("one", None), ("two", Second("macs", maximize=False))):
        (tmp_path / name).mkdir()
        book = ledger(tmp_path / name, second=second)
        for step, _ in enumerate(steps(book, seed=1)):
            if step % 7 == 0:
                check(book, second)
        check(book, second)
        assert len(book.best(99)) >= 3 and any("seed" in row["origin"] for row in book.rows())
        again = ledger(tmp_path / name, second=second)  # counts them in another order
        check(again, second)
        assert again.best(40) == book.best(40) and again.rows() == book.rows()


def test_trials_are_as_a_second_reader_of_the_database_sees_them(tmp_path: Path) -> None:
    book = ledger(tmp_path, trials=12)
    for step, _ in enumerate(steps(book, seed=2)):
        if step % 5 == 0:
            fresh = optuna.load_study(
                study_name="search", storage=open_storage(sqlite_url(tmp_path / "study.db"))
            )
            there = fresh.get_trials()
            held = {t.number: t for t in trials_of(book.study)}
            assert [held[t.number] for t in there] == [
                without(t, DETAILS) if t.state.is_finished() else t for t in there
            ]
            told = {t.number: t.user_attrs[DETAILS] for t in there if DETAILS in t.user_attrs}
            assert details_of(book.study) == told
    assert len(told) >= 9 and len(there) >= 12


def test_a_long_search_holds_each_word_and_each_trial_once(tmp_path: Path) -> None:
    book = ledger(tmp_path, trials=6, pruner=PRUNERS["none"])
    while job := book.next_job():
        book.report(job, 9, 0.5)
        book.finish(job, "COMPLETE", "it was given away", {"seconds": 1.0})
    book.rows()
    first, second, *_ = trials = trials_of(book.study)
    for words in ("values", "costs"):
        assert [*map(id, first.user_attrs[words])] == [*map(id, second.user_attrs[words])]
    assert first.user_attrs["reason"] is second.user_attrs["reason"]
    assert [*map(id, first.params)] == [*map(id, second.params)]
    optunas: Any = book.study._storage  # its cache
    assert all(optunas._studies[book.study._study_id].trials[t.number] is t for t in trials)
    assert not any(DETAILS in t.user_attrs for t in trials) and book.rows()[0]["seconds"] == 1.0


def statements(book: Ledger, trials: int) -> list[int]:
    """How often the database is asked for each of so many trials of one epoch."""
    asked, counts = [0], []
    sqlalchemy.event.listen(
        book._storage.engine, "before_cursor_execute", lambda *_: asked.__setitem__(0, asked[0] + 1)
    )
    for _ in range(trials):
        before = asked[0]
        job = book.next_job()
        assert job is not None
        book.report(job, 9, job.values["lr"])
        book.finish(job, "COMPLETE")
        book.best(3), book.going_on(), book.finished()
        counts.append(asked[0] - before)
    return counts


def test_a_trial_costs_the_database_no_more_after_many_others(tmp_path: Path) -> None:
    counts = statements(ledger(tmp_path, trials=80), 80)
    assert max(counts[10:]) <= max(counts[1:10])


def test_looking_again_at_what_nobody_wrote_to_asks_nothing(tmp_path: Path) -> None:
    book = ledger(tmp_path)
    job = book.next_job()
    asked = []
    sqlalchemy.event.listen(book._storage.engine, "before_cursor_execute", lambda *_: asked.append(1))
    first = book.reported(job), book.finished(), book.best(3), book.spent()
    assert first == (book.reported(job), book.finished(), book.best(3), book.spent()) and not asked
    book.report(job, 1, 0.5)
    assert book.reported(job) == 1 and asked
