"""What Tune says, turned into the ledger's words: without a cluster, with a real ledger."""

from __future__ import annotations

import io
import json
import math
from pathlib import Path
from typing import Any

import pytest

from searchspace.methods import Asha
from searchspace.study import Job, Ledger, open_storage, sqlite_url
from trainables.cluster import trials_at_once
from trainables.conductor import Conductor
from trainables.failures import PREEMPTIONS, RETRIES, DiskFull
from trainables.progress import Progress
from trainables.trial import STOP, Place, noted
from trainables.watch import STACKS

GOAL = "val/scene_accuracy"


def conductor(folder: Path, jobs: int = 4, workers: int = 1) -> Conductor:
    ledger = Ledger(open_storage(sqlite_url(folder / "study.db")), "search", pruner=Asha())
    ledger.plan([Job(-1, n, 0, "search", {"lr": 0.1 * n}, n, 9, f"runs/t{n:04d}-r0") for n in range(jobs)])
    place = Place("csem", "shards", str(folder), GOAL, workers=workers)
    return Conductor(ledger, place, Progress("search", jobs, 9, stream=io.StringIO()), lambda: None)


def run(conductor: Conductor, trial: str, score: float, epochs: range) -> bool:
    for epoch in epochs:
        metrics = {"epoch": epoch, GOAL: score, "parameters": 7}
        if epoch == 9:  # Tune keeps the last result from the scheduler
            conductor.complete(trial, metrics)
        elif not conductor.result(trial, metrics):
            conductor.complete(trial, metrics)
            return False
    return True


def states(conductor: Conductor) -> list[tuple[str, int, str]]:
    return [(r["state"], r["epochs"], r["reason"]) for r in conductor.ledger.rows()]


def test_complete_and_pruned(tmp_path: Path) -> None:
    c = conductor(tmp_path)
    assert c.next_job("a")["job"]["trial"] == 0 and c.next_job("b")["job"]["trial"] == 1
    assert run(c, "a", 0.5, range(1, 10)) and run(c, "b", 0.6, range(1, 10))
    c.next_job("c")
    assert not run(c, "c", 0.1, range(1, 10))
    reason = "0.1000 < 0.6000, the cut-off at epoch 3 among 3 trials"
    assert states(c) == [("COMPLETE", 9, ""), ("COMPLETE", 9, ""), ("PRUNED", 3, reason)]
    assert c.ledger.rows()[0]["parameters"] == 7 and c.live == {}
    assert c.result("c", {"epoch": 4, GOAL: 0.9}) is False  # a last word of a process already given up


@pytest.mark.parametrize(
    ("metrics", "reason"),
    [
        ({"epoch": 2, "diverged": "non-finite loss: scene_ce=nan"}, "non-finite loss: scene_ce=nan"),
        ({"epoch": 2, GOAL: math.nan}, "val/scene_accuracy is nan after epoch 2"),
        ({"epoch": 2, "val/loss": 0.1}, "val/scene_accuracy is not measured of such a model"),
        ({"epoch": 2, GOAL: math.inf}, "val/scene_accuracy is inf after epoch 2"),
    ],
)
def test_a_diverged_trial_ends_at_once(tmp_path: Path, metrics: dict[str, Any], reason: str) -> None:
    c = conductor(tmp_path)
    c.next_job("a")
    c.result("a", {"epoch": 1, GOAL: 0.9})
    assert not c.result("a", metrics)
    c.complete("a", metrics)
    assert states(c) == [("DIVERGED", 1, reason)] and c.ledger.best(3) == []


def test_a_failed_job_is_started_again_then_told_fail(tmp_path: Path) -> None:
    c = conductor(tmp_path)
    first = c.next_job("a")
    c.next_job("b")
    for attempt in range(RETRIES):
        c.fail("a" if attempt == 0 else f"a{attempt}")
        again = c.next_job(f"a{attempt + 1}")
        assert again == first
    job = c.live[f"a{RETRIES}"]
    with pytest.raises(ValueError), noted(job, c.place):
        raise ValueError("shard 3 is damaged")
    c.fail(f"a{RETRIES}")
    assert states(c)[0] == ("FAIL", 0, "ValueError: shard 3 is damaged") and states(c)[1][0] == "RUNNING"
    assert "Traceback" in (tmp_path / job.folder / "error.txt").read_text()


NODE_DIED = "the actor's node was terminated unexpectedly: health check failed"


def test_a_dead_node_costs_no_retry_and_both_are_in_the_table(tmp_path: Path) -> None:
    c = conductor(tmp_path)
    for attempt, said in enumerate([NODE_DIED] * 3 + [""] * RETRIES + [NODE_DIED] * 2):
        c.next_job(f"a{attempt}")
        c.fail(f"a{attempt}", said)
    (row,) = c.ledger.rows()
    assert (row["state"], row["retries"], row["preemptions"]) == ("RUNNING", RETRIES, 5)
    again = conductor(tmp_path)  # a killed driver is a preemption too, and the retries stay spent
    again.next_job("a")
    again.fail("a")
    (row,) = again.ledger.rows()
    assert (row["state"], row["reason"], row["preemptions"]) == ("FAIL", "its process died", 6)


def test_preemptions_are_bounded_where_nothing_is_achieved_between_them(tmp_path: Path) -> None:
    c = conductor(tmp_path, jobs=1)
    for attempt in range(2 * PREEMPTIONS - 1):
        c.next_job(f"a{attempt}")
        if attempt == PREEMPTIONS - 1:
            c.result(f"a{attempt}", {"epoch": 1, GOAL: 0.5})  # then it has as many again
        c.fail(f"a{attempt}", NODE_DIED)
    assert states(c)[0][0] == "RUNNING"
    c.next_job("b"), c.fail("b", NODE_DIED)
    reason = f"its node died, {PREEMPTIONS + 1} times in a row without a new epoch"
    assert states(c) == [("FAIL", 1, reason)] and c.next_job("c") is None


def test_out_of_memory_is_tried_once_more_and_then_held_against_the_configuration(tmp_path: Path) -> None:
    c = conductor(tmp_path, jobs=1)
    for attempt in range(2):
        c.next_job(f"a{attempt}")
        with pytest.raises(MemoryError), noted(c.live[f"a{attempt}"], c.place):
            raise MemoryError
        c.fail(f"a{attempt}")
    assert states(c) == [("FAIL", 0, "out of memory: MemoryError")] and c.again == []
    assert c.ledger.study.trials[0].constraints == {"memory": 1.0}  # so that the sampler keeps away


def test_a_full_disk_ends_the_study_and_no_trial(tmp_path: Path) -> None:
    c = conductor(tmp_path)
    job = c.next_job("a")["job"]
    said = f"OSError: [Errno 28] No space left on device: '{tmp_path}/{job['folder']}/epochs.jsonl'"
    with pytest.raises(DiskFull, match=f"the disk of {tmp_path} is full .*go on with --resume"):
        c.fail("a", said)
    assert conductor(tmp_path).next_job("b")["job"] == job


def test_a_bad_configuration_of_every_kind_ends_itself_and_not_the_study(tmp_path: Path) -> None:
    """Not a number, infinite, not measured, an exception, no memory, a hang, a process that dies: each in its
    own trial, and then a good one."""
    c, hang = conductor(tmp_path, jobs=8), "Timeout (0:15:00)!\nThread 0x1 (most recent call first):\n"
    measured = [{GOAL: math.nan}, {GOAL: math.inf}, {"val/loss": 0.1}]
    while config := c.next_job("a"):
        job = Job(**config["job"])
        if job.trial < 3:
            c.complete("a", {"epoch": 1} | measured[job.trial])
        elif job.trial < 5:
            error = (ValueError("no such layer"), MemoryError())[job.trial - 3]
            with pytest.raises(type(error)), noted(job, c.place):
                raise error
            c.fail("a")
        elif job.trial < 7:
            if job.trial == 5:
                (tmp_path / job.folder).mkdir(parents=True, exist_ok=True)
                with open(tmp_path / job.folder / STACKS, "a") as file:
                    file.write(hang)
            c.fail("a")
        else:
            assert run(c, "a", 0.5, range(1, 10))
    told = {row["trial"]: (row["state"], row["reason"], row["retries"]) for row in c.ledger.rows()}
    assert [told[n] for n in range(8)] == [
        ("DIVERGED", "val/scene_accuracy is nan after epoch 1", 0),
        ("DIVERGED", "val/scene_accuracy is inf after epoch 1", 0),
        ("DIVERGED", "val/scene_accuracy is not measured of such a model", 0),
        ("FAIL", "ValueError: no such layer", RETRIES),
        ("FAIL", "out of memory: MemoryError", 1),
        ("FAIL", "no progress for 0:15:00; where it hung is in hang.txt", RETRIES),
        ("FAIL", "its process died", RETRIES),
        ("COMPLETE", "", 0),
    ]
    assert [job.trial for job in c.ledger.best(9)] == [7]


def test_a_copy_whose_parent_has_no_checkpoint_left_is_a_fail_and_the_next_job_begins(tmp_path: Path) -> None:
    ledger = Ledger(open_storage(sqlite_url(tmp_path / "study.db")), "search", pruner=Asha())
    copy = Job(-1, 0, 0, "search", {}, 0, 9, "runs/t0000-r0", parent="runs/t0009-r0", born=3)
    ledger.plan([copy, Job(-1, 1, 0, "search", {}, 1, 9, "runs/t0001-r0")])
    c = Conductor(
        ledger, Place("csem", "shards", str(tmp_path), GOAL), Progress("search", 2, 9), lambda: None
    )
    config = c.next_job("a")
    assert config and config["job"]["trial"] == 1
    ((state, _, reason), _) = states(c)
    assert state == "FAIL" and "no checkpoint there" in reason


def test_a_worker_group_is_asked_to_stop_not_killed(tmp_path: Path) -> None:
    c = conductor(tmp_path, workers=2)
    for name, score in (("a", 0.5), ("b", 0.6), ("c", 0.1)):
        (tmp_path / c.next_job(name)["job"]["folder"]).mkdir(parents=True)
        for epoch in (1, 2, 3):
            assert c.result(name, {"epoch": epoch, GOAL: score})  # Tune is never told to stop it
    assert (tmp_path / "runs/t0002-r0" / STOP).exists() and not (tmp_path / "runs/t0001-r0" / STOP).exists()
    assert c.result("c", {"epoch": 4, GOAL: 0.9})  # it had begun another epoch
    c.complete("c", {"epoch": 4, GOAL: 0.9})
    assert states(c)[2][:2] == ("PRUNED", 3)


def test_what_the_ledger_missed_in_a_crash_is_made_up_from_the_run_folders(tmp_path: Path) -> None:
    c = conductor(tmp_path)
    for name, score in (("a", 0.5), ("b", 0.6), ("c", 0.1)):
        job = c.next_job(name)["job"]
        known = 3 if name != "c" else 2  # the driver dies before c's third epoch is reported
        for epoch in range(1, known + 1):
            c.result(name, {"epoch": epoch, GOAL: score})
        folder = tmp_path / job["folder"]
        folder.mkdir(parents=True)
        lines = [json.dumps({"epoch": epoch, GOAL: score}) for epoch in (1, 2, 3)]
        (folder / "epochs.jsonl").write_text("\n".join(lines) + "\n")
    again = conductor(tmp_path)
    assert [job.trial for job in again.again] == [0, 1]  # c is judged and over
    assert states(again)[2][:2] == ("PRUNED", 3)
    assert again.next_job("x")["job"]["trial"] == 0 and again.next_job("y")["job"]["trial"] == 1
    assert again.next_job("z")["job"]["trial"] == 3 and again.next_job("none left") is None


def test_what_a_dead_process_had_written_down_and_not_reported_is_made_up_before_it_starts_again(
    tmp_path: Path,
) -> None:
    c = conductor(tmp_path, jobs=3)
    for name, score in (("a", 0.5), ("b", 0.6), ("c", 0.1)):
        job = Job(**c.next_job(name)["job"])  # type: ignore[index]
        c.result(name, {"epoch": 1, GOAL: score})
        known = 2 if name != "c" else 3  # c's process dies in its third epoch, that of the first rung
        (tmp_path / job.folder).mkdir(parents=True)
        lines = [json.dumps({"epoch": epoch, GOAL: score}) for epoch in range(1, known + 1)]
        (tmp_path / job.folder / "epochs.jsonl").write_text("\n".join(lines) + "\n")
        if name != "c":
            c.fail(name)
            assert sorted(c.ledger.study.trials[job.number].intermediate_values) == [1, 2]
            c.next_job(name)
            c.result(name, {"epoch": 3, GOAL: score})
    c.fail("c")
    assert states(c)[2] == ("PRUNED", 3, "0.1000 < 0.6000, the cut-off at epoch 3 among 3 trials")
    assert [row["retries"] for row in c.ledger.rows()] == [1, 1, 0] and c.again == []


def test_a_process_that_dies_as_it_is_stopped_stays_stopped(tmp_path: Path) -> None:
    c = conductor(tmp_path, jobs=3)
    for name, score in (("a", 0.5), ("b", 0.6), ("c", 0.1)):
        job = Job(**c.next_job(name)["job"])  # type: ignore[index]
        (tmp_path / job.folder).mkdir(parents=True)
        with open(tmp_path / job.folder / "epochs.jsonl", "w") as log:
            for epoch in (1, 2, 3):
                log.write(json.dumps({"epoch": epoch, GOAL: score}) + "\n")
                goes_on = c.result(name, {"epoch": epoch, GOAL: score})
    assert not goes_on
    c.fail("c")
    assert states(c)[2][:2] == ("PRUNED", 3) and c.again == []


def test_how_many_trials_a_cluster_holds() -> None:
    assert trials_at_once([{"CPU": 8.0}], 1, 1.0, 0.0) == 8
    assert trials_at_once([{"CPU": 16.0, "GPU": 2.0}], 1, 1.0, 0.25) == 8
    assert trials_at_once([{"CPU": 16.0, "GPU": 4.0}], 2, 3.0, 1.0) == 2
    assert trials_at_once([{"CPU": 2.0}, {"CPU": 5.0}], 1, 2.0, 0.0) == 3
    with pytest.raises(ValueError, match="needs 2 x 1 = 2 CPUs and 2 x 1 = 2 GPUs, the cluster's nodes have"):
        trials_at_once([{"CPU": 16.0, "GPU": 1.0}], 2, 1.0, 1.0)
    with pytest.raises(ValueError, match="needs 1 x 3 = 3 CPUs, the cluster's nodes have 2 CPUs; 2 CPUs"):
        trials_at_once([{"CPU": 2.0}, {"CPU": 2.0}], 1, 3.0, 0.0)  # four in all, but no node holds three
