"""Kill every kind of process of a study, at random moments and at every write, and check what is left.

    python -m tests.kill_matrix --rounds 5              every victim five times on a Ray cluster of two nodes
    python -m tests.kill_matrix --rounds 0 --writes     the driver at every one of its writes, without Ray

The study of a round runs on a real cluster (Ray's own test utility: a head and two nodes on this machine)
through the real ledger, conductor, run folders and Tune; the trial is the trivial one of tests/every_write.py
with a pause in every epoch. A round passes if no finished trial is lost or changed, none counts twice, and
the whole study (states, scores, curves, reasons) is the one that was left alone. One trial runs at a time
with TPE and ASHA (rungs and sampler must go on), or two with random search.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import ray
import tyro

import trainables.folder
from searchspace import record
from searchspace.hold import hold
from searchspace.methods import PRUNERS, SAMPLERS
from searchspace.storage import open_storage, sqlite_url
from searchspace.study import Ledger, Proposals
from tests import every_write
from tests.every_write import GOAL, Walk
from trainables import retention
from trainables.cluster import Room, Share
from trainables.folder import RunFolder
from trainables.phase import run_phase
from trainables.progress import Progress
from trainables.trial import Place, WarmTrial

ROOT = Path(__file__).resolve().parents[1]
VICTIMS = ("driver", "trial process", "any Ray worker", "raylet of a node")
TRIALS, EPOCHS, PAUSE = 6, 3, 0.3
STAY = "stay"  # a file in the study's folder, while which trials wait after their first epoch
PATIENCE = {  # Ray's own, on a machine with much else to do
    "RAY_raylet_start_wait_time_s": "300",
    "RAY_gcs_server_request_timeout_seconds": "300",
    "RAY_gcs_rpc_server_connect_timeout_s": "60",
    "RAY_agent_register_timeout_ms": "300000",
    "RAY_AUTH_MODE": "disabled",
}


@dataclass(frozen=True)
class Request:
    rounds: int = 1
    """Rounds for each victim."""
    writes: bool = False
    """Then kill, tear, zero, reorder and fill the disk at every write of a sequential study."""
    every: int = 1
    """Of the writes only every n-th."""
    seed: int = 0


class WalkTrial(WarmTrial):
    """The trivial trial in a warm process of its own."""

    def open(self) -> RunFolder:
        trainables.folder.CHECKPOINT_EVERY = 0.0
        walk = SlowWalk(self.job.values, self.job.seed, self.job.epochs)
        walk.stays = Path(self.place.study) / STAY
        return RunFolder(
            Path(self.place.study) / self.job.folder,
            walk,  # type: ignore[arg-type]
            {"node": ray.get_runtime_context().get_node_id()},
        )


class At(Room):
    """Room for so many trials of one CPU, however many nodes are up."""

    def __init__(self, many: int, gpus: float = 0.0) -> None:
        super().__init__(Share(1, 1.0, gpus), print)
        self.many = many

    def __call__(self) -> int:
        return self.many


class SlowWalk(Walk):
    """Takes its time, and after its first epoch goes no further while the file `stays` is there."""

    stays: Path

    def next_epoch(self) -> dict[str, float]:
        time.sleep(PAUSE)
        end = time.monotonic() + 300
        while self.epoch and self.stays.exists() and time.monotonic() < end:
            time.sleep(0.05)
        return super().next_epoch()


def open_ledger(study: Path, together: int) -> Ledger:
    proposals = Proposals(
        suggest=every_write.suggest,
        complete=every_write.complete,
        sampler=SAMPLERS["tpe" if together == 1 else "random"],
        pins={},
        trials=TRIALS,
        epochs=EPOCHS,
        seed=5,
    )
    pruner = every_write.PRUNER if together == 1 else PRUNERS["none"]
    storage = open_storage(sqlite_url(study / "study.db"))
    return Ledger(storage, "search", pruner=pruner, proposals=proposals)


def drive(study: Path, together: int) -> None:
    """The driver, in a process of its own; `together` 0 is as many trials at a time as the nodes hold."""
    ray.init(address=os.environ["RAY_ADDRESS"], log_to_driver=False, logging_level="ERROR")
    with hold(study):
        book = open_ledger(study, together)
        room = At(together) if together else Room(Share(1, 1.0, 0.0), print)
        place = Place("walk", "none", str(study), GOAL)
        with record.Tables(study, book.rows) as tables, Progress("search", TRIALS, EPOCHS) as progress:
            run_phase(
                book,
                place,
                progress,
                room=room,
                ended=tables.refresh,
                kept=retention.best(2),
                trial=WalkTrial,
            )
    record.write(study, {"format": 1, "status": "complete"})


class Bench:
    """A cluster, the studies left alone on it, and rounds of killing."""

    def __init__(self, folder: Path, seed: int) -> None:
        self._before = dict(os.environ)
        os.environ |= PATIENCE
        from ray.cluster_utils import Cluster

        self.folder, self.random = folder, random.Random(seed)
        self.cluster = Cluster(
            initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False}
        )
        self.nodes = [self.cluster.add_node(num_cpus=2) for _ in range(2)]
        self.cluster.wait_for_nodes()
        self.alone: dict[int, Any] = {}
        self.lengths: dict[int, float] = {}

    def left_alone(self, together: int) -> Any:
        if together not in self.alone:
            study = self._new(f"alone-{together}")
            began = time.monotonic()
            assert self._start(study, together).wait(600) == 0, self._said(study)
            self.lengths[together] = time.monotonic() - began
            self.alone[together] = decided(study, together)
        return self.alone[together]

    def round(self, number: int, victim: str) -> dict[str, Any]:
        together = 1 + number % 2
        expected = self.left_alone(together)
        study = self._new(f"{victim.replace(' ', '-')}-{number}")
        driver = self._start(study, together)
        after = self.random.randrange(TRIALS - 1)
        self._wait(driver, lambda: list(study.glob("runs/*/epochs.jsonl")))
        self._wait(driver, lambda: len(finished(study, together)) >= after)
        time.sleep(self.random.uniform(0, PAUSE))
        before = finished(study, together)
        killed = self._kill(victim, driver, study, together)
        code = driver.wait(600)
        if victim == "driver" and code != 0:
            code = self._start(study, together).wait(600)
        self._repair()
        after = finished(study, together) if code == 0 else {}
        result = decided(study, together) if code == 0 else None
        rows = open_ledger(study, together).rows()
        return {
            "victim": victim,
            "together": together,
            "killed": killed,
            "ended before": len(before),
            "lost": sum(after.get(key) != row for key, row in before.items()),
            "twice": len(rows) - len({row["trial"] for row in rows}),
            "retries": sum(row["retries"] for row in rows),
            "preemptions": sum(row["preemptions"] for row in rows),
            "same": result == expected,
            "study": str(study),
        }

    def nodes_that_come_and_go(self) -> dict[str, Any]:
        """A study on two nodes. One has a spot notice and is gone 2 s later, a third joins, and when that has
        trials the second is stopped as `ray stop` does it."""
        study = self._new("come-and-go")
        (study / STAY).touch()
        driver = self._start(study, 0)
        first, second = self.nodes
        spread = self._wait(driver, lambda: all(trials_on(study, node) for node in (first, second)))
        gone = trials_on(study, first)
        self._spot_notice(first)
        new = self._replace(first)
        joined = self._wait(driver, lambda: trials_on(study, new))
        gone |= trials_on(study, second)
        raylet(second).terminate()
        raylet(second).wait(60)
        (study / STAY).unlink()
        code = driver.wait(300)
        self._repair()
        rows = open_ledger(study, 0).rows()
        return {
            "code": code,
            "nodes used": bool(spread and joined),
            "were on nodes that went": gone,
            "ended": {row["trial"]: row["state"] for row in rows},
            "retries": sum(row["retries"] for row in rows),
            "preemptions": {row["trial"]: row["preemptions"] for row in rows if row["preemptions"]},
            "said": self._said(study),
        }

    def _spot_notice(self, node: Any, seconds: float = 2.0) -> None:
        """What the cloud's agent tells Ray, and what the cloud does then."""
        from ray.core.generated import autoscaler_pb2

        gone = time.time() + seconds
        accepted, why = ray._raylet.GcsClient(address=self.cluster.address).drain_node(
            node.node_id, autoscaler_pb2.DRAIN_NODE_REASON_PREEMPTION, "spot", int(gone * 1000)
        )
        assert accepted, why
        time.sleep(seconds + 0.5)
        raylet(node).terminate()

    def close(self) -> None:
        self.cluster.shutdown()
        os.environ.clear()
        os.environ |= self._before

    def _new(self, name: str) -> Path:
        study = self.folder / name
        study.mkdir()
        record.write(study, {"format": 1, "status": "running"})
        return study

    def _start(self, study: Path, together: int) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "tests.kill_matrix", "drive", str(study), str(together)]
        with open(study / "driver.log", "ab") as log:
            return subprocess.Popen(
                command,
                cwd=ROOT,
                env=os.environ | {"RAY_ADDRESS": self.cluster.address},
                stdout=log,
                stderr=log,
            )

    def _said(self, study: Path) -> str:
        return (study / "driver.log").read_text()[-2000:]

    def _wait(self, driver: subprocess.Popen[bytes], what: Callable[[], Any]) -> Any:
        end = time.monotonic() + 300
        while not (found := what()) and driver.poll() is None and time.monotonic() < end:
            time.sleep(0.05)
        return found

    def _kill_raylet(self, driver: subprocess.Popen[bytes], study: Path, together: int) -> str:
        """Of a node with a trial. Its workers outlive it, and what they do is not lost until Ray gives the
        node up: so long all trials wait."""
        (study / STAY).touch()
        time.sleep(2 * PAUSE)  # a trial in its last epoch comes to its end
        at_work = self._wait(driver, lambda: self._at_work(study, together))
        if not at_work or driver.poll() is not None:
            (study / STAY).unlink()
            return "nothing"
        chosen = raylet(self.random.choice(at_work))
        chosen.kill()
        self._wait(driver, lambda: "starts again" in (study / "driver.log").read_text())
        (study / STAY).unlink()
        return str(chosen.pid)

    def _at_work(self, study: Path, together: int) -> list[Any]:
        """The nodes with trials that are under way and have ended an epoch."""
        rows = open_ledger(study, together).rows()
        running = {row["trial"] for row in rows if row["state"] == "RUNNING"}
        return [node for node in self.nodes if trials_on(study, node) & running]

    def _kill(self, victim: str, driver: subprocess.Popen[bytes], study: Path, together: int) -> str:
        """The process killed; "nothing" where the study had ended before."""
        if driver.poll() is not None:
            return "nothing"
        if victim == "driver":
            driver.kill()
            return str(driver.pid)
        if victim == "raylet of a node":
            return self._kill_raylet(driver, study, together)
        raylets = [raylet(node).pid for node in self.nodes]
        name = "ray::WalkTrial" if victim == "trial process" else "ray::"
        found = self._wait(driver, lambda: [one for pid in raylets for one in processes(pid, name)])
        if not found or driver.poll() is not None:
            return "nothing"
        chosen = self.random.choice(found)
        chosen.kill()
        return str(chosen.pid)

    def _repair(self) -> None:
        """A new node for each whose raylet was killed."""
        for node in list(self.nodes):
            if raylet(node).poll() is not None:
                self._replace(node)

    def _replace(self, node: Any) -> Any:
        self.nodes.remove(node)
        self.cluster.remove_node(node, allow_graceful=False)
        self.nodes.append(self.cluster.add_node(num_cpus=2))
        return self.nodes[-1]


def raylet(node: Any) -> subprocess.Popen[bytes]:
    return node.all_processes["raylet"][0].process


def trials_on(study: Path, node: Any) -> set[int]:
    """The numbers of the trials that run, or last ran, on a node and have ended an epoch."""
    ended = [path.parent for path in study.glob("runs/*/epochs.jsonl") if path.read_text()]
    where = {run.name: json.loads((run / "run.json").read_text())["node"] for run in ended}
    return {int(name[1:5]) for name, place in where.items() if place == node.node_id}


def processes(pid: int, name: str) -> list[psutil.Process]:
    """The workers of the raylet `pid` whose title begins with `name`."""
    found = []
    with suppress(psutil.NoSuchProcess):
        for child in psutil.Process(pid).children(recursive=True):
            with suppress(psutil.NoSuchProcess, IndexError):
                if child.cmdline()[0].startswith(name):
                    found.append(child)
    return found


def finished(study: Path, together: int) -> dict[int, tuple[Any, ...]]:
    """{trial: what is told of it} of the trials that have ended."""
    rows = open_ledger(study, together).rows()
    ended = [row for row in rows if row["state"] not in ("RUNNING", "PAUSED")]
    return {row["trial"]: (row["state"], row["score"], row["epochs"], row["started"]) for row in ended}


def decided(study: Path, together: int) -> Any:
    found = every_write.outcome(study, open_ledger(study, together))
    return sorted(found["trials"], key=repr) if together > 1 else found


def table(results: list[dict[str, Any]]) -> str:
    lines = ["| victim | rounds | ended before | lost | counted twice | retries | preemptions | same study |"]
    lines.append("|---|---|---|---|---|---|---|---|")
    for victim in VICTIMS:
        mine = [one for one in results if one["victim"] == victim]
        if mine:
            sums = [
                sum(one[k] for one in mine)
                for k in ("ended before", "lost", "twice", "retries", "preemptions", "same")
            ]
            cells = [victim, str(len(mine)), *map(str, sums[:-1]), f"{sums[-1]} of {len(mine)}"]
            lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def at_every_write(folder: Path, every: int) -> list[str]:
    """The table of the sequential study, each fault done at each `every`-th write."""
    whole = folder / "whole"
    whole.mkdir()
    code, writes, said = every_write.forked(whole, at=0)
    assert code == every_write.ENDED, said
    expected = every_write.outcome(whole)
    lines = [f"{writes} writes", "| at a write | points | same study |", "|---|---|---|"]
    for then in every_write.FAULTS:
        same, points = 0, range(1, writes + 1, every)
        for at in points:
            study = folder / f"{then.__name__}-{at}"
            study.mkdir()
            every_write.forked(study, at, then)
            code, _, said = every_write.forked(study, at=0)
            ok = code == every_write.ENDED and every_write.outcome(study) == expected
            same += ok
            if ok:
                shutil.rmtree(study)
            else:
                print(f"{then.__name__} at write {at}: {study} differs {said}", flush=True)
        lines.append(f"| {then.__name__} | {len(points)} | {same} |")
    return lines


def main(request: Request) -> int:
    folder, results = Path(tempfile.mkdtemp(prefix="kill-matrix-")), []
    if request.rounds:
        bench = Bench(folder, request.seed)
        try:
            for number in range(request.rounds):
                for victim in VICTIMS:
                    results.append(bench.round(number, victim))
                    print(results[-1], flush=True)
        finally:
            bench.close()
        print(table(results))
    if request.writes:
        print("\n".join(at_every_write(folder, request.every)))
    return int(not all(one["same"] and not one["lost"] and not one["twice"] for one in results))


if __name__ == "__main__":
    if sys.argv[1:2] == ["drive"]:  # the driver of a round
        sys.exit(drive(Path(sys.argv[2]), int(sys.argv[3])))
    sys.exit(main(tyro.cli(Request)))
