"""A run that goes on from another's weights with other knobs."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch

from datasets.source import Source
from searchspace.study import Job
from trainables import checkpoint
from trainables.folder import RunFolder, read_epochs
from trainables.inherit import inherit
from trainables.recipe import configure
from trainables.run import Run
from trainables.trial import Place, open_run

KNOBS = {"backbone": "tinycnn", "width": 0.25, "batch_size": 16, "optimiser": "adamw", "weight_decay": 0.01}


def run_of(values: dict[str, Any], source: Source, seed: int, epochs: int = 3) -> Run:
    config, recipe = configure("csem", values)
    return Run("csem", asdict(config) | asdict(recipe), source, seed=seed, epochs=epochs)


def test_a_copy_goes_on_from_the_weights_with_its_own_knobs(source: Source, tmp_path: Path) -> None:
    parent = RunFolder(tmp_path / "runs/t0000-r0", run_of(KNOBS, source, 1), {})
    parent.next_epoch()
    parent.save()
    child_run = run_of(KNOBS | {"lr": 0.002, "weight_decay": 0.5}, source, 2)
    job = Job(4, 4, 0, "search", child_run.values, 2, 3, "runs/t0004-r0", parent="runs/t0000-r0", born=1)
    inherit(tmp_path, job)
    child = RunFolder(tmp_path / job.folder, child_run, {})
    assert child.run.epoch == 1 and read_epochs(child.path) == read_epochs(parent.path)
    ours, theirs = child.run.model.state_dict(), parent.run.model.state_dict()
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    state, before = (one.run.optimiser.state_dict()["state"] for one in (child, parent))
    assert state and all(
        torch.equal(state[i]["exp_avg"], parent.run.optimiser.state_dict()["state"][i]["exp_avg"])
        for i in state
    )
    assert {g["weight_decay"] for g in child.run.optimiser.param_groups} == {0.5}
    child.next_epoch()
    assert {g["lr"] for g in child.run.optimiser.param_groups} == {0.002}
    parent.next_epoch()
    inherit(tmp_path, job)  # after a crash: the copy has begun, and stays as it is
    assert [line["epoch"] for line in read_epochs(child.path)] == [1, 2]


def test_a_parent_that_has_gone_on_is_refused(source: Source, tmp_path: Path) -> None:
    parent = RunFolder(tmp_path / "runs/t0000-r0", run_of(KNOBS, source, 1), {})
    parent.next_epoch()
    parent.next_epoch()
    parent.save()
    job = Job(4, 4, 0, "search", parent.run.values, 2, 3, "runs/t0004-r0", parent="runs/t0000-r0", born=1)
    with pytest.raises(checkpoint.CheckpointError, match="is of epoch 2, .* was to begin at 1"):
        inherit(tmp_path, job)


def test_a_copy_whose_checkpoint_was_damaged_is_made_again_and_not_begun_anew(
    source: Source, shards: Path, cache: Path, tmp_path: Path
) -> None:
    parent = RunFolder(tmp_path / "runs/t0000-r0", run_of(KNOBS, source, 1), {})
    parent.next_epoch()
    parent.save()
    job = Job(4, 4, 0, "search", parent.run.values, 2, 3, "runs/t0004-r0", parent="runs/t0000-r0", born=1)
    inherit(tmp_path, job)
    tensors = tmp_path / job.folder / "checkpoint" / checkpoint.TENSORS
    tensors.write_bytes(bytes(tensors.stat().st_size))
    place = Place("csem", str(shards), str(tmp_path), "val/scene_accuracy", cache=str(cache))
    with pytest.raises(checkpoint.CheckpointError, match="its checkpoint of epoch 1 or later can't be read"):
        open_run(job, place)
    inherit(tmp_path, job)
    assert open_run(job, place).run.epoch == 1
