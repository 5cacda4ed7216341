"""A run on disk: safetensors for numbers, JSON for the rest, never a pickle.

A checkpoint folder is written beside its place and renamed into it, so that a kill at any moment leaves
either the old one or the new one whole. `load` reads only what `save` wrote: the state holds the tensors'
SHA-256, for a file that has its length but not its contents is what some disks leave after a power cut.
"""

from __future__ import annotations

import hashlib
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

from searchspace.record import flush

TENSORS, STATE = "tensors.safetensors", "state.json"
SHA256 = "tensors_sha256"  # in the state; earlier versions wrote none


class CheckpointError(ValueError):
    """A checkpoint that is missing, half there, or of another shape than the run asking for it."""


class Damaged(CheckpointError):
    """A checkpoint that was whole once and can't be read any more."""


def save(folder: Path, tensors: Mapping[str, Tensor], state: Mapping[str, Any]) -> None:
    """Write `tensors` and `state` to `folder`, replacing what is there in one step. Raises OSError on a full
    disk."""
    folder = Path(folder)
    _, fresh, stale = _places(folder)
    if not folder.exists() and (there := _whole(folder)):  # left by a kill between the two renames below
        os.replace(there[0], folder)
    for leftover in (fresh, stale):
        shutil.rmtree(leftover, ignore_errors=True)
    fresh.mkdir(parents=True)
    try:
        save_file({name: t.detach().cpu().contiguous() for name, t in tensors.items()}, fresh / TENSORS)
    except SafetensorError as error:  # how safetensors reports a full disk
        shutil.rmtree(fresh, ignore_errors=True)
        raise OSError(f"{folder}: cannot write the checkpoint: {error}") from error
    flush(fresh / TENSORS)
    partial = fresh / f"{STATE}.partial"
    partial.write_text(json.dumps({**state, SHA256: _sha256(fresh / TENSORS)}, indent=1))
    shutil.copymode(partial, fresh / TENSORS)  # safetensors' own files are for their owner alone
    flush(partial)
    os.replace(partial, fresh / STATE)  # last: a folder that has it is whole
    if folder.exists():
        os.replace(folder, stale)
    os.replace(fresh, folder)
    flush(folder.parent)
    shutil.rmtree(stale, ignore_errors=True)


def load(folder: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """(tensors on the CPU, state). A kill between the two renames of `save` leaves `folder.new` whole: it is
    taken, or `folder.old` if that one is damaged.

    Raises CheckpointError if there is none, Damaged if none can be read.
    """
    damage: Damaged | None = None
    for found in _whole(Path(folder)):
        try:
            return _read(found)
        except Damaged as error:
            damage = damage or error
    raise damage or CheckpointError(f"{folder}: no checkpoint there (expected {TENSORS} and {STATE})")


def exists(folder: Path) -> bool:
    return bool(_whole(Path(folder)))


def _read(found: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    try:
        state = json.loads((found / STATE).read_text())
        wanted = state.pop(SHA256, None)
        if wanted and wanted != (there := _sha256(found / TENSORS)):
            raise ValueError(f"SHA-256 of {TENSORS} is {there[:16]}…, {STATE} says {wanted[:16]}…")
        return load_file(found / TENSORS), state
    except (SafetensorError, ValueError, AttributeError) as error:  # not JSON, not even text, no object
        raise Damaged(f"{found}: damaged checkpoint: {error}") from error


def check_written(folder: Path, epoch: int, written: int | None) -> None:
    """Raises Damaged if the run's own record has fewer epochs than its checkpoint: numbers that were on the
    disk are lost, and only training again brings them back."""
    if written is not None and epoch > written:
        raise Damaged(f"{folder} is of epoch {epoch}, and epochs.jsonl has only {written} undamaged")


def remove(folder: Path) -> None:
    """Delete the checkpoint and what a kill may have left of others."""
    for each in _places(folder):
        shutil.rmtree(each, ignore_errors=True)


def _whole(folder: Path) -> list[Path]:
    """The places that have both files, the one to be read first."""
    return [p for p in _places(folder) if (p / STATE).is_file() and (p / TENSORS).is_file()]


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


def _sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
