"""What ended a trial's process is told apart, and a process that hangs ends itself with its stacks."""

from __future__ import annotations

import functools
import os
import re
import resource
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from searchspace.study import Job
from trainables.failures import ERRORS, DiskFull, Notes, failure_of
from trainables.trial import Place, noted
from trainables.watch import STACKS, hang_limit, progress, progressing

JOB = Job(-1, 0, 0, "search", {}, 0, 1, "runs/t0000-r0")


def attempt(study: Path, body: Callable[[], object], hang: float = 900.0) -> tuple[int, Notes]:
    """(exit code, notes from before) of a fork of this process that runs `body` as a trial's step."""
    notes = Notes.at(study / JOB.folder)
    child = os.fork()
    if child == 0:
        code = 2
        try:
            with noted(JOB, Place("csem", "", str(study), "x", hang=hang)):
                body()
            code = 0
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), notes


def sleeps() -> None:
    progress()
    time.sleep(60)


def holds_the_interpreter() -> None:
    progress()
    re.match("(a+)+$", "a" * 60 + "b")


def keeps_on() -> None:
    for _ in progressing(range(20)):
        time.sleep(0.2)


def wants(allocate: Callable[[int], object]) -> None:
    resource.setrlimit(resource.RLIMIT_AS, (6 * 2**30, resource.RLIM_INFINITY))
    allocate(20 * 2**30)


def is_damaged() -> None:
    raise ValueError("shard 3 is damaged")


@pytest.mark.slow
@pytest.mark.parametrize("body", [sleeps, holds_the_interpreter])
def test_a_hanging_process_writes_down_its_stacks_and_ends(
    tmp_path: Path, body: Callable[[], object]
) -> None:
    began = time.monotonic()
    code, notes = attempt(tmp_path, body, hang=1.0)
    assert code == 1 and time.monotonic() - began < 60
    failure = failure_of(notes, tmp_path)
    assert failure.kind == "hang" and "no progress for 0:00:01" in failure.reason
    stacks = (tmp_path / JOB.folder / STACKS).read_text()
    assert "most recent call first" in stacks and f"in {body.__name__}" in stacks


@pytest.mark.slow
def test_progress_puts_the_alarm_off_and_leaves_nothing_behind(tmp_path: Path) -> None:
    code, notes = attempt(tmp_path, keeps_on, hang=2.0)
    assert code == 0 and not (tmp_path / JOB.folder / STACKS).exists()
    assert failure_of(notes, tmp_path).kind == "died"


@pytest.mark.slow
def test_running_out_of_memory_is_told_from_other_errors(tmp_path: Path) -> None:
    for allocate in (bytearray, torch.empty):
        code, notes = attempt(tmp_path, functools.partial(wants, allocate))
        failure = failure_of(notes, tmp_path)
        assert code == 2 and failure.kind == "memory" and "memory" in failure.reason.lower()
    code, notes = attempt(tmp_path, is_damaged)
    failure = failure_of(notes, tmp_path)
    assert (failure.kind, failure.reason) == ("error", "ValueError: shard 3 is damaged")


def test_an_earlier_attempts_notes_are_not_taken_for_this_ones(tmp_path: Path) -> None:
    place = Place("csem", "", str(tmp_path), "x")
    with pytest.raises(ValueError), noted(JOB, place):
        raise ValueError("the first time")
    notes = Notes.at(tmp_path / JOB.folder)
    assert failure_of(notes, tmp_path).kind == "died"
    with pytest.raises(KeyError), noted(JOB, place):
        raise KeyError("the second")
    assert failure_of(notes, tmp_path).reason == "KeyError: 'the second'"
    assert (tmp_path / JOB.folder / ERRORS).read_text().count("Traceback") == 2


def test_what_the_cluster_says_tells_a_dead_node_from_a_dead_process(tmp_path: Path) -> None:
    notes = Notes.at(tmp_path / "runs")
    node = "The actor died unexpectedly.\n\tthe actor's node was terminated unexpectedly: health check failed"
    assert failure_of(notes, tmp_path, node).kind == "preempted"
    assert failure_of(notes, tmp_path, "Worker unexpectedly exits with a connection error").kind == "died"
    full = f"OSError: [Errno 28] No space left on device: '{tmp_path}/runs/t0000-r0/epochs.jsonl'"
    assert failure_of(notes, tmp_path, full).kind == "disk"
    elsewhere = "OSError: [Errno 28] No space left on device: '/scratch/cache/clips.bin'"
    assert failure_of(notes, tmp_path, elsewhere).kind == "died"  # a node's own disk: tried again elsewhere
    assert "\n" not in str(DiskFull("no room", tmp_path)) and str(tmp_path) in str(DiskFull("", tmp_path))


def test_the_limit_of_a_hang_is_set_by_an_environment_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SCENETUNE_HANG_LIMIT", raising=False)
    assert Place("csem", "", "", "x").hang == 900.0
    monkeypatch.setenv("SCENETUNE_HANG_LIMIT", "30")
    assert Place("csem", "", "", "x").hang == 30.0
    for text in ("soon", "0", "-1", "nan", "inf"):
        monkeypatch.setenv("SCENETUNE_HANG_LIMIT", text)
        with pytest.raises(ValueError, match=f"SCENETUNE_HANG_LIMIT={text}: expected a number of seconds"):
            hang_limit()
