"""A trained model as a folder that loads without its study: best/, and whatever `trainables.export` wrote.

model.safetensors   weights, the front end's mean and deviation among them
model.json          what it is: family, knobs, labels, audio, training, metrics, calibration, provenance
MODEL_CARD.md       the same for people (trainables/card.py), written anew whenever model.json changes
test_reads.jsonl    a line for every time that `trainables.evaluate` read the test split
analysis/           what it has learned (trainables/analyse.py)
model.pt2, model.onnx   the same model for other programs, where asked for (trainables/program.py)
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from datasets.labels import LabelSpace
from trainables import card
from trainables.contract import AudioFormat
from trainables.pretrained import DESCRIPTION, WEIGHTS
from trainables.recipe import configure
from trainables.registry import family

CARD, READS = "MODEL_CARD.md", "test_reads.jsonl"
KEPT = ("analysis", READS)  # what a model folder keeps when its model is written anew


def load_model(folder: Path) -> tuple[nn.Module, dict[str, Any]]:
    """(model in eval mode on the CPU, its description) from a folder that `write_model` made.

    The description holds "family", "values", "scenes", "events", "tags" of the shards (None, or {names,
    model, checksum}), "reads_tags" (how many of them the model needs; 0 for most), "audio" {sample_rate Hz,
    channels, samples}, "run", "metrics" and "calibration". Raises FileNotFoundError if the folder holds no
    model, ValueError if what it holds is damaged.
    """
    folder = Path(folder)
    if not (folder / WEIGHTS).is_file() or not (folder / DESCRIPTION).is_file():
        raise FileNotFoundError(
            f"{folder}: no model there (expected {WEIGHTS} and {DESCRIPTION}){_nearby(folder)}"
        )
    try:
        about = json.loads((folder / DESCRIPTION).read_text())
        model = build_model(about)
        model.load_state_dict(load_file(folder / WEIGHTS))
    except (SafetensorError, RuntimeError, KeyError, TypeError, ValueError) as error:
        reason = " ".join(str(error).split())[:300]
        raise ValueError(f"{folder}: a damaged model ({type(error).__name__}): {reason}") from error
    return model.eval(), about


def build_model(about: Mapping[str, Any]) -> nn.Module:
    """The model that a description is of, with fresh weights."""
    tags = tuple((about.get("tags") or {}).get("names", ()))
    labels = LabelSpace(tuple(about["scenes"]), tuple(about["events"]), tags=tags)
    config, _ = configure(about["family"], about["values"])
    return family(about["family"]).build(config, labels, AudioFormat(**about["audio"]))


def write_model(out: Path, weights: Mapping[str, Tensor], about: Mapping[str, Any]) -> Path:
    """The folder `out` with these weights and this description, in place of a model that is there.

    It is written beside its place and renamed into it: a kill leaves the old model, or the new one, or for a
    moment the old one as `out`.old.
    """
    fresh, stale = out.with_name(f"{out.name}.new"), out.with_name(f"{out.name}.old")
    if stale.is_dir() and not out.exists():
        os.replace(stale, out)  # a kill between the two renames below
    for leftover in (fresh, stale):
        shutil.rmtree(leftover, ignore_errors=True)
    fresh.mkdir(parents=True)
    for name in KEPT:  # an analysis says which weights it was made from
        if (out / name).is_dir():
            shutil.copytree(out / name, fresh / name)
        elif (out / name).is_file():
            shutil.copyfile(out / name, fresh / name)
    save_file(dict(weights), fresh / WEIGHTS)
    write_description(fresh, about)
    shutil.copymode(fresh / DESCRIPTION, fresh / WEIGHTS)  # safetensors' own files are for their owner alone
    if out.exists():
        os.replace(out, stale)
    os.replace(fresh, out)
    shutil.rmtree(stale, ignore_errors=True)
    return out


def write_description(folder: Path, about: Mapping[str, Any]) -> None:
    """Write model.json and the card that follows from it."""
    _write(folder / DESCRIPTION, json.dumps(about, indent=1, default=lambda number: number.item()))
    _write(folder / CARD, card.card(about, reads(folder)))


def record_test_read(folder: Path, line: Mapping[str, Any]) -> None:
    """Write down that the test split is about to be read; on disk before it is. Raises OSError where that
    can't be written: then the split must not be read."""
    with open(folder / READS, "a", encoding="utf-8") as log:
        log.write(json.dumps(line) + "\n")
        log.flush()
        os.fsync(log.fileno())
    if (folder / DESCRIPTION).is_file():
        _write(folder / CARD, card.card(json.loads((folder / DESCRIPTION).read_text()), reads(folder)))


def reads(folder: Path) -> list[dict[str, Any]]:
    """The lines of test_reads.jsonl; one that is torn counts as a read of which nothing else is known."""
    path = folder / READS
    found = []
    for line in path.read_text(encoding="utf-8").splitlines() if path.is_file() else ():
        try:
            found.append(json.loads(line))
        except json.JSONDecodeError:
            found.append({"command": "(the line is damaged)"})
    return found


def _nearby(folder: Path) -> str:
    """Where the model that was meant may be."""
    if (folder / "study.json").is_file():
        there = "its best/" if (folder / "best" / WEIGHTS).is_file() else "a model made of one of its runs/"
        return f"; this is a study: name {there}"
    if (folder / "run.json").is_file():
        return f"; this is a run: python -m trainables.export {folder} makes a model of it"
    return ""


def _write(path: Path, text: str) -> None:
    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    fresh.write_text(text, encoding="utf-8")
    os.replace(fresh, path)
