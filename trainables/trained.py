"""A trained model and where it comes from: `best/` of a study, or a run's folder with its checkpoint."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any, NamedTuple

from safetensors import SafetensorError
from torch import nn

from datasets.shards import Index
from trainables import checkpoint
from trainables.contract import AudioFormat, tags_read
from trainables.model_folder import load_model
from trainables.pretrained import DESCRIPTION, WEIGHTS
from trainables.recipe import configure
from trainables.registry import family


class Trained(NamedTuple):
    """A model in eval mode on the CPU, and what is known of it.

    `about`: "family", "values" (every knob), "seed", "epoch" (how many are done), "epochs" (full length),
    "run" (its folder in the study), "commit", "trained_on" (checksum of the shards), "file" and its "sha256".
    None for what the folder does not say.
    """

    model: nn.Module
    about: dict[str, Any]


def open_trained(folder: str | Path, index: Index) -> Trained:
    """The model in `folder`, fit for the clips of `index`.

    Raises ValueError in one line: no such folder, neither a run nor an exported model, no checkpoint kept, a
    damaged one, other labels or tags, another audio format or (for a run, which knows no label names) other
    data than `index`.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise ValueError(f"{folder}: no such folder; expected a study's best/ or one of its runs/")
    try:
        if (folder / DESCRIPTION).is_file() and (folder / WEIGHTS).is_file():
            return _exported(folder, index)
        if (folder / "run.json").is_file():
            return _run(folder, index)
    except (SafetensorError, RuntimeError, KeyError) as error:  # RuntimeError: tensors of another model
        told = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        raise ValueError(f"{folder}: its model cannot be loaded ({told})") from error
    if (folder / "study.json").is_file():
        raise ValueError(f"{folder} is a study: name its best/ or one of its runs/")
    raise ValueError(f"{folder}: neither a run (run.json) nor an exported model ({WEIGHTS}, {DESCRIPTION})")


def _exported(folder: Path, index: Index) -> Trained:
    described = json.loads((folder / DESCRIPTION).read_text())
    _refuse_other_labels(folder, described, index)
    ours = {"sample_rate": index.sample_rate, "channels": index.channels, "samples": index.samples}
    if described["audio"] != ours:
        raise ValueError(f"{folder} takes {_audio(described['audio'])}; {index.root} holds {_audio(ours)}")
    model, described = load_model(folder)
    if tags_read(model):
        _refuse_other_tags(folder, described["tags"], index)
    run = described.get("run", {})
    record = _json(folder.parent / str(run.get("folder", "")) / "run.json")
    about = {
        "family": described["family"],
        "values": described["values"],
        "seed": run.get("seed"),
        "epoch": run.get("epochs"),
        "epochs": record.get("epochs", run.get("epochs")),
        "run": run.get("folder"),
        "commit": record.get("git", {}).get("commit"),
        "trained_on": described.get("data", {}).get("checksum"),
    }
    return Trained(model, about | _file(folder / WEIGHTS))


def _run(folder: Path, index: Index) -> Trained:
    if not checkpoint.exists(folder / "checkpoint"):
        raise ValueError(
            f"{folder}: no checkpoint was kept (a study keeps its finalists', and the winner as best/)"
        )
    tensors, state = checkpoint.load(folder / "checkpoint")
    if state["data"] != index.checksum:
        raise ValueError(
            f"{folder} was trained on data {state['data'][:12]}, {index.root} holds {index.checksum[:12]}; a "
            "run does not know its labels' names, so it is analysed on the shards it was trained on"
        )
    config, _ = configure(state["family"], state["values"])
    audio = AudioFormat(index.sample_rate, index.channels, index.samples)
    model = family(state["family"]).build(config, index.labels, audio)
    model.load_state_dict(
        {name.removeprefix("model/"): t for name, t in tensors.items() if name.startswith("model/")}
    )
    about = {name: state[name] for name in ("family", "values", "seed", "epoch", "epochs")}
    about |= {
        "run": folder.name,
        "commit": _json(folder / "run.json").get("git", {}).get("commit"),
        "trained_on": state["data"],
    }
    return Trained(model.eval(), about | _file(folder / "checkpoint" / checkpoint.TENSORS))


def _refuse_other_labels(folder: Path, described: dict[str, Any], index: Index) -> None:
    for kind, theirs, ours in (
        ("scenes", described["scenes"], index.labels.scenes),
        ("events", described["events"], index.labels.events),
    ):
        says_no_scenes = kind == "scenes" and not theirs
        if tuple(theirs) == tuple(ours) or says_no_scenes:
            continue
        only = [name for name in theirs if name not in ours] or [name for name in ours if name not in theirs]
        why = f"{only[0]!r} is in one of them only" if only else "their order differs"
        raise ValueError(f"{folder} knows {len(theirs)} {kind}, {index.root} has {len(ours)}: {why}")


def _refuse_other_tags(folder: Path, theirs: dict[str, Any], index: Index) -> None:
    read = f"{folder} reads the {len(theirs['names'])} tags of {theirs['model']} ({theirs['checksum'][:12]})"
    if index.tags is None:
        raise ValueError(f"{read}; {index.root} has none: python -m trainables.teacher writes them")
    if index.tags.checksum != theirs["checksum"] or index.tags.names != tuple(theirs["names"]):
        ours = f"{len(index.tags.names)} of {index.tags.model} ({index.tags.checksum[:12]})"
        raise ValueError(f"{read}; {index.root} holds {ours}")


def _audio(audio: dict[str, int]) -> str:
    seconds = audio["samples"] / audio["sample_rate"]
    return f"clips of {seconds:g} s, {audio['sample_rate']} Hz, {audio['channels']} channel(s)"


def _file(path: Path) -> dict[str, str]:
    with open(path, "rb") as handle:
        return {"file": path.name, "sha256": hashlib.file_digest(handle, "sha256").hexdigest()}


def _json(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text()) if path.is_file() else {}
