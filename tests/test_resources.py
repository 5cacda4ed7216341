"""After a search whose trials were stopped early the cluster has everything back: CPUs and shares of GPUs."""

from __future__ import annotations

import gc
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import ray
from ray.tune.experiment import Trial

from datasets.shards import Index
from searchspace.methods import PRUNERS, Asha
from searchspace.record import read_lines
from searchspace.storage import open_storage, sqlite_url
from searchspace.study import Job, Ledger
from tests.every_write import GOAL
from tests.kill_matrix import At, SlowWalk, WalkTrial, open_ledger
from trainables.cluster import Room, Share
from trainables.folder import RunFolder
from trainables.phase import run_phase
from trainables.progress import Progress
from trainables.space import pins_across, proposals_of
from trainables.trial import Place
from trainables.watch import progress

ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])  # workers can't import a test module
pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.xdist_group("resources")]
SMALL = {"backbone": "tinycnn", "width": "0.25", "batch_size": "16"}


@pytest.fixture(scope="module", autouse=True)
def cluster() -> Iterator[None]:
    """Three CPUs, and two GPUs that only Ray believes in; Train's clean-up needs the dashboard."""
    ray.init(
        num_cpus=3, num_gpus=2, include_dashboard=True, dashboard_host="127.0.0.1", log_to_driver=False,
        logging_level="ERROR",
    )  # fmt: skip
    yield
    ray.shutdown()


def everything_comes_back(seconds: float = 60) -> None:
    total, end = ray.cluster_resources(), time.monotonic() + seconds
    assert (total["CPU"], total["GPU"]) == (3.0, 2.0)
    while any(ray.available_resources().get(kind) != total[kind] for kind in ("CPU", "GPU", "memory")):
        assert time.monotonic() < end, (ray.available_resources(), total)
        time.sleep(0.2)
    assert not [g for g in ray.util.placement_group_table().values() if g["state"] != "REMOVED"]


def test_of_one_worker_with_half_a_gpu(tmp_path: Path) -> None:
    book = open_ledger(tmp_path, together=1)
    place = Place("walk", "none", str(tmp_path), GOAL, gpus=0.5)
    held: list[int] = []

    def count_held() -> None:
        gc.collect()
        held.append(sum(type(one) is Trial for one in gc.get_objects()))

    with Progress("search", 6, 3) as progress:
        run_phase(book, place, progress, room=At(1, gpus=0.5), trial=WalkTrial, ended=count_held)
    assert "PRUNED" in {row["state"] for row in book.rows()}
    assert len(held) >= 6 and max(held) <= 3  # one runs at a time: Tune keeps none for long that have ended
    everything_comes_back()


def test_what_goes_wrong_when_a_trial_ends_ends_the_study(tmp_path: Path) -> None:
    """Tune takes an exception there for the trial's and goes on."""
    book, place = open_ledger(tmp_path, together=1), Place("walk", "none", str(tmp_path), GOAL)
    ended: list[int] = []

    def full() -> None:
        ended.append(1)
        raise OSError(28, "No space left on device", "trials.parquet")

    with Progress("search", 6, 3) as shown, pytest.raises(OSError, match="No space left"):
        run_phase(book, place, shown, room=At(1), trial=WalkTrial, ended=full)
    assert len(ended) == 1
    everything_comes_back()


class Sticks(SlowWalk):
    """Hangs in the second epoch of its first life."""

    def next_epoch(self) -> dict[str, float]:
        lives = self.stays.parent / "lives"
        if self.epoch == 1 and len(lives.read_text().split()) == 1:
            progress()
            time.sleep(600)
        return super().next_epoch()


class SticksTrial(WalkTrial):
    def open(self) -> RunFolder:
        with open(Path(self.place.study) / "lives", "a") as lives:
            print(os.getpid(), file=lives)
        folder = super().open()
        folder.run.__class__ = Sticks
        return folder


def test_of_one_that_hangs_and_is_tried_again_in_another_process(tmp_path: Path) -> None:
    book = Ledger(open_storage(sqlite_url(tmp_path / "study.db")), "search", pruner=PRUNERS["none"])
    book.plan([Job(-1, 0, 0, "search", {"lr": 0.01}, 7, 3, "runs/t0000-r0")])
    place = Place("walk", "none", str(tmp_path), GOAL, hang=2.0)
    with Progress("search", 1, 3) as shown:
        run_phase(book, place, shown, room=Room(Share(1, 1.0, 0.0), shown.say), trial=SticksTrial)
    (row,) = book.rows()
    assert (row["state"], row["epochs"], row["retries"], row["preemptions"]) == ("COMPLETE", 3, 1, 0)
    assert [line["epoch"] for line in read_lines(tmp_path / "runs/t0000-r0/epochs.jsonl")] == [1, 2, 3]
    assert "in next_epoch" in (tmp_path / "runs/t0000-r0/hang.txt").read_text()
    first, second = (tmp_path / "lives").read_text().split()
    assert first != second
    everything_comes_back()


def test_of_two_workers_each(shards: Path, cache: Path, tmp_path: Path) -> None:
    proposals = proposals_of(
        ("csem",), Index.load(shards), sampler="random", pins=pins_across(("csem",), SMALL), trials=2,
        epochs=3, seed=0, limits={}, strength=0.0, reseed=False,
    )  # fmt: skip
    storage = open_storage(sqlite_url(tmp_path / "study.db"))
    book = Ledger(storage, "search", pruner=Asha(grace=1, reduction=2), proposals=proposals)
    place = Place("csem", str(shards), str(tmp_path), "val/scene_accuracy", str(cache), workers=2)
    with Progress("search", 2, 3) as progress:
        run_phase(book, place, progress, room=Room(Share(2, 1.0, 0.0), progress.say))
    assert "PRUNED" in {row["state"] for row in book.rows()}
    everything_comes_back()
