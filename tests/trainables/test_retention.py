"""Checkpoints on the disk are those the store refers to, after every run that ends."""

from __future__ import annotations

import io
from pathlib import Path

from searchspace.methods import PRUNERS
from searchspace.record import disk_use
from searchspace.study import Job, Ledger, open_storage, sqlite_url
from trainables import retention
from trainables.conductor import Conductor
from trainables.progress import Progress
from trainables.trial import Place


def ledger(folder: Path, jobs: list[Job]) -> Ledger:
    book = Ledger(open_storage(sqlite_url(folder / "study.db")), "search", pruner=PRUNERS["none"])
    book.plan(jobs)
    return book


def a_job(trial: int, repeat: int = 0) -> Job:
    folder = f"runs/t{trial:04d}-r{repeat}"
    return Job(-1, trial, repeat, "search", {"lr": 0.1}, trial, 2, folder, until=int(trial == 5))


def checkpointed(folder: Path, job: Job) -> None:
    place = folder / job.folder / "checkpoint"
    place.mkdir(parents=True)
    (place / "state.json").write_text("x" * 1000)


def on_disk(folder: Path) -> set[str]:
    return {path.parent.name for path in folder.glob("runs/*/checkpoint")}


def test_of_a_search_the_best_and_what_runs_keep_theirs(tmp_path: Path) -> None:
    book = ledger(tmp_path, [a_job(n) for n in range(8)])
    checkpoints = retention.Checkpoints(tmp_path, book, retention.best(2))
    running = book.next_job()
    assert running
    checkpointed(tmp_path, running)
    for score, outcome in ((0.5, "COMPLETE"), (0.7, "COMPLETE"), (0.9, "PRUNED"), (0.6, "COMPLETE")):
        job = book.next_job()
        assert job
        checkpointed(tmp_path, job)
        for epoch in (1, 2):
            book.report(job, epoch, score)
        checkpoints.ended(job, book.finish(job, outcome))
        assert len(on_disk(tmp_path)) <= 3
    assert on_disk(tmp_path) == {running.folder[5:], "t0002-r0", "t0004-r0"}
    assert checkpoints.bytes == 2000
    waiting = book.next_job()
    assert waiting
    checkpointed(tmp_path, waiting)
    book.report(waiting, 1, 0.1)
    checkpoints.ended(waiting, book.finish(waiting, "PRUNED", "paused at epoch 1"))
    better = book.next_job()
    assert better
    checkpointed(tmp_path, better)
    for epoch in (1, 2):
        book.report(better, epoch, 0.8)
    checkpoints.ended(better, book.finish(better, "COMPLETE"))  # displaces 0.6, and nothing that goes on
    going_on = {running.folder[5:], waiting.folder[5:]}
    assert on_disk(tmp_path) == {*going_on, "t0002-r0", "t0006-r0"}
    assert on_disk(tmp_path) == {Path(f).name for f in book.going_on()} | {"t0002-r0", "t0006-r0"}
    checkpoints.close()
    assert on_disk(tmp_path) == {running.folder[5:], "t0002-r0", "t0006-r0"}


def test_what_a_killed_driver_left_is_swept_when_the_study_is_opened(tmp_path: Path) -> None:
    book = ledger(tmp_path, [a_job(n) for n in range(4)])
    for score in (0.1, 0.2, 0.3):
        job = book.next_job()
        assert job
        checkpointed(tmp_path, job)
        book.report(job, 2, score)
        book.finish(job, "COMPLETE")
    running = book.next_job()
    assert running
    checkpointed(tmp_path, running)
    checkpoints = retention.Checkpoints(tmp_path, book, retention.best(1))
    assert on_disk(tmp_path) == {"t0002-r0", "t0003-r0"} and checkpoints.bytes == 2000


def test_confirmed_configurations_keep_their_best_seed_and_tables_the_first(tmp_path: Path) -> None:
    book = ledger(tmp_path, [a_job(n, repeat) for repeat in (1, 2) for n in (3, 4)])
    for score in (0.5, 0.6, 0.7, 0.1):
        job = book.next_job()
        assert job
        book.report(job, 2, score)
        book.finish(job, "COMPLETE")
    assert retention.best_seeds(book) == {"runs/t0003-r2", "runs/t0004-r1"}
    assert retention.first_seeds(book) == {"runs/t0003-r1", "runs/t0004-r1"}


def test_disk_use_is_bounded_by_what_is_kept_and_shown_on_the_way_and_at_the_end(tmp_path: Path) -> None:
    book, screen = ledger(tmp_path, [a_job(n) for n in range(12) if n != 5]), io.StringIO()
    progress = Progress("search", 11, 2, stream=screen)
    place = Place("csem", "shards", str(tmp_path), "val/score")
    conductor = Conductor(book, place, progress, lambda: None, retention.best(2))
    most = 0.0
    while config := conductor.next_job("a"):
        job = Job(**config["job"])
        checkpointed(tmp_path, job)
        most = max(most, disk_use(tmp_path)["checkpoints"])
        for epoch in (1, 2):
            conductor.result("a", {"epoch": epoch, "val/score": job.trial / 20})
        conductor.complete("a", {"epoch": 2, "val/score": job.trial / 20})
    used = disk_use(tmp_path)
    assert most == 0.003 and used["checkpoints"] == 0.002 < used["all"]  # two places and one that runs
    assert screen.getvalue().count("checkpoints 0.0 MB") == 11
