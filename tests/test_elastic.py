"""A data-parallel trial goes on with fewer workers where a node is gone: Ray Train's elastic range."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest

from searchspace.methods import PRUNERS
from searchspace.proposals import seed_for
from searchspace.storage import open_storage, sqlite_url
from searchspace.study import Job, Ledger
from tests.kill_matrix import processes
from trainables.folder import read_epochs, read_record

VALUES = {
    "backbone": "tinycnn", "framework": "csem", "width": 0.25, "batch_size": 21, "dropout": 0.0,
    "embedding_dropout": 0.0,
}  # fmt: skip
EPOCHS = 12
CLOCK = ("train/seconds", "train/clips_per_second", "train/data_wait")


@pytest.mark.ray
@pytest.mark.slow
def test_a_trial_of_two_workers_goes_on_with_one_when_a_node_is_killed(
    shards: Path, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import ray
    from ray.cluster_utils import Cluster

    from datasets.source import open_source
    from trainables.cluster import Room, Share
    from trainables.phase import run_phase
    from trainables.progress import Progress
    from trainables.run import Run
    from trainables.trial import Place

    monkeypatch.setenv("RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S", "20")  # Ray still counts the lost node once
    ledger = Ledger(open_storage(sqlite_url(tmp_path / "study.db")), "confirm", pruner=PRUNERS["none"])
    folder = "runs/t0000-r1"
    ledger.plan([Job(-1, 0, 1, "confirm", VALUES, seed_for(0, VALUES, 1), EPOCHS, folder)])
    place = Place(
        "csem", str(shards), str(tmp_path), "val/scene_accuracy", str(cache), workers=2, least_workers=1
    )
    share = Share(2, 1.0, 0.0, least=1)
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
    nodes = [cluster.add_node(num_cpus=1) for _ in range(2)]
    cluster.wait_for_nodes()

    def kill_a_node() -> None:
        """Not the one with the trial's controller: what that held is given back after three minutes only."""
        run, end = tmp_path / folder, time.monotonic() + 120
        while len(read_epochs(run) if run.is_dir() else []) < 3 and time.monotonic() < end:
            time.sleep(0.05)
        raylets = {node: node.all_processes["raylet"][0].process.pid for node in nodes}
        without = [node for node, raylet in raylets.items() if not processes(raylet, "ray::TrainController")]
        cluster.remove_node(without[0], allow_graceful=False)

    killer = threading.Thread(target=kill_a_node)
    try:
        ray.init(address=cluster.address, log_to_driver=False, logging_level="ERROR")
        killer.start()
        with Progress("confirm", 1, EPOCHS) as progress:
            run_phase(ledger, place, progress, room=Room(share, progress.say))
        killer.join()
    finally:
        ray.shutdown()
        cluster.shutdown()
    (row,) = ledger.rows()
    assert row["state"] == "COMPLETE" and row["epochs"] == EPOCHS
    found = read_epochs(tmp_path / folder)
    assert [line["epoch"] for line in found] == list(range(1, EPOCHS + 1))  # none twice
    assert read_record(tmp_path / folder)["workers"] == 1 and row["preemptions"] + row["retries"] >= 1
    alone = Run("csem", VALUES, open_source(shards, cache=cache), seed=row["seed"], epochs=EPOCHS)
    for line in found[:8]:
        for name, value in alone.next_epoch().items():
            if name not in CLOCK:
                assert line[name] == pytest.approx(value, rel=5e-3, abs=2e-3), (line["epoch"], name)
