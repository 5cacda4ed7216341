"""A run on disk: safetensors for numbers, JSON for the rest, never a pickle.

A checkpoint folder is written beside its place and renamed into it, so that a kill at any moment leaves
either the old one or the new one whole. `load` reads only what `save` wrote.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

TENSORS, STATE = "tensors.safetensors", "state.json"


class CheckpointError(ValueError):
    """A checkpoint that is missing, half there, or of another shape than the run asking for it."""


class Damaged(CheckpointError):
    """A checkpoint that was whole once and can't be read any more."""


def save(folder: Path, tensors: Mapping[str, Tensor], state: Mapping[str, Any]) -> None:
    """Write `tensors` and `state` to `folder`, replacing what is there in one step. Raises OSError on a full
    disk."""
    folder = Path(folder)
    _, fresh, stale = _places(folder)
    if not folder.exists() and (only := _whole(folder)):  # left by a kill between the two renames below
        os.replace(only, folder)
    for leftover in (fresh, stale):
        shutil.rmtree(leftover, ignore_errors=True)
    fresh.mkdir(parents=True)
    try:
        save_file({name: t.detach().cpu().contiguous() for name, t in tensors.items()}, fresh / TENSORS)
    except SafetensorError as error:  # how safetensors reports a full disk
        shutil.rmtree(fresh, ignore_errors=True)
        raise OSError(f"{folder}: cannot write the checkpoint: {error}") from error
    _flush(fresh / TENSORS)
    partial = fresh / f"{STATE}.partial"
    partial.write_text(json.dumps(state, indent=1))
    _flush(partial)
    os.replace(partial, fresh / STATE)  # last: a folder that has it is whole
    if folder.exists():
        os.replace(folder, stale)
    os.replace(fresh, folder)
    _flush(folder.parent)
    shutil.rmtree(stale, ignore_errors=True)


def load(folder: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """(tensors on the CPU, state). A kill between the two renames of `save` leaves `folder.new` whole: it is
    taken.

    Raises CheckpointError if there is none or it is damaged.
    """
    found = _whole(Path(folder))
    if found is None:
        raise CheckpointError(f"{folder}: no checkpoint there (expected {TENSORS} and {STATE})")
    try:
        return load_file(found / TENSORS), json.loads((found / STATE).read_text())
    except (SafetensorError, ValueError) as error:  # ValueError: not JSON, not even text
        raise Damaged(f"{found}: damaged checkpoint: {error}") from error


def exists(folder: Path) -> bool:
    return _whole(Path(folder)) is not None


def remove(folder: Path) -> None:
    """Delete the checkpoint and what a kill may have left of others."""
    for each in _places(folder):
        shutil.rmtree(each, ignore_errors=True)


def _whole(folder: Path) -> Path | None:
    for candidate in _places(folder):
        if (candidate / STATE).is_file() and (candidate / TENSORS).is_file():
            return candidate
    return None


def _places(folder: Path) -> tuple[Path, Path, Path]:
    return folder, folder.with_name(folder.name + ".new"), folder.with_name(folder.name + ".old")


def flatten_optimiser(optimiser: torch.optim.Optimizer) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """An optimiser's state as named tensors ("3/exp_avg") and plain values, ready for `save`."""
    state = optimiser.state_dict()
    tensors: dict[str, Tensor] = {}
    plain: dict[str, Any] = {}
    for index, slots in state["state"].items():
        for slot, value in slots.items():
            (tensors if torch.is_tensor(value) else plain)[f"{index}/{slot}"] = value
    return tensors, {"slots": plain, "groups": state["param_groups"]}


def restore_optimiser(
    optimiser: torch.optim.Optimizer, tensors: Mapping[str, Tensor], plain: Mapping[str, Any]
) -> None:
    slots: dict[int, dict[str, Any]] = {}
    for name, value in [*tensors.items(), *plain["slots"].items()]:
        index, slot = name.split("/", 1)
        slots.setdefault(int(index), {})[slot] = value
    optimiser.load_state_dict({"state": slots, "param_groups": plain["groups"]})


def _flush(path: Path) -> None:
    """Onto the disk itself: a rename is only as good as what it points at after a power cut."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
