"""A trained model as a folder that loads without its study: safetensors and JSON.

A study ends with one, best/. A single run folder gives one too:

    python -m trainables.export RUN --data SHARDS --out FOLDER
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import tyro
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from datasets.events import parse_events, with_events
from datasets.labels import LabelSpace
from datasets.shard_writer import check_unused
from datasets.shards import Index
from trainables import checkpoint
from trainables.contract import AudioFormat
from trainables.folder import read_epochs
from trainables.pretrained import DESCRIPTION, WEIGHTS
from trainables.recipe import configure
from trainables.registry import family


def load_model(folder: Path) -> tuple[nn.Module, dict[str, Any]]:
    """(model in eval mode on the CPU, its description) from a folder `export_best` wrote.

    The description holds "family", "values", "scenes", "events", "tags" of the shards (None, or {names,
    model, checksum}: a model with `reads_tags` needs those of this teacher), "audio" {sample_rate Hz,
    channels, samples}, "run" and "metrics". Raises FileNotFoundError if the folder holds no model, ValueError
    if what it holds is damaged.
    """
    folder = Path(folder)
    if not (folder / WEIGHTS).is_file() or not (folder / DESCRIPTION).is_file():
        raise FileNotFoundError(f"{folder}: no model there (expected {WEIGHTS} and {DESCRIPTION})")
    try:
        about = json.loads((folder / DESCRIPTION).read_text())
        tags = tuple((about.get("tags") or {}).get("names", ()))
        labels = LabelSpace(tuple(about["scenes"]), tuple(about["events"]), tags=tags)
        config, _ = configure(about["family"], about["values"])
        model = family(about["family"]).build(config, labels, AudioFormat(**about["audio"]))
        model.load_state_dict(load_file(folder / WEIGHTS))
    except (SafetensorError, RuntimeError, KeyError, TypeError, ValueError) as error:
        reason = " ".join(str(error).split())[:300]
        raise ValueError(f"{folder}: a damaged model ({type(error).__name__}): {reason}") from error
    return model.eval(), about


def export_best(study: Path, family_name: str, index: Index) -> Path | None:
    """Write best/ from the run `winning_run` picks; None if no run was completed."""
    run = winning_run(pd.read_parquet(study / "trials.parquet"))
    if run is None:
        return None
    about = {
        "family": family_name,
        "run": {name: run[name] for name in ("folder", "trial", "repeat", "seed", "epochs")},
        "metrics": _scores(run),
    }
    return _write(study / run["folder"], study / "best", about, index)


def export_run(run: Path, index: Index, out: Path) -> Path:
    """Write `out` from the run folder `run`, which was trained on `index` (its event labels included).

    Raises FileExistsError for an `out` in use, CheckpointError for a run without a checkpoint, ValueError for
    one that was trained on other data.
    """
    check_unused(out)
    _, state = checkpoint.load(run / "checkpoint")
    if state["data"] != index.checksum:
        raise ValueError(
            f"{run}: trained on data {state['data'][:12]}, {index.root} with these --events is "
            f"{index.checksum[:12]}"
        )
    epochs = read_epochs(run)
    about = {
        "family": state["family"],
        "run": {"folder": str(run), "seed": state["seed"], "epochs": state["epoch"]},
        "metrics": _scores(epochs[state["epoch"] - 1]) if len(epochs) >= state["epoch"] > 0 else {},
    }
    out.parent.mkdir(parents=True, exist_ok=True)
    return _write(run, out, about, index)


def _scores(row: Mapping[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in row.items() if str(k).startswith(("val/", "test/")) and v == v}


def _write(run: Path, out: Path, about: Mapping[str, Any], index: Index) -> Path:
    """The model in the run's checkpoint as the folder `out`, in place of what is there."""
    tensors, state = checkpoint.load(run / "checkpoint")
    fresh = out.with_name(f"{out.name}.new")
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir()
    weights = {name.removeprefix("model/"): t for name, t in tensors.items() if name.startswith("model/")}
    save_file(weights, fresh / WEIGHTS)
    description = dict(about) | {
        "family": state["family"],
        "values": state["values"],
        "scenes": list(index.labels.scenes),
        "events": list(index.labels.events),
        "tags": asdict(index.tags) if index.tags else None,
        "features": state.get("features", ""),
        "audio": {"sample_rate": index.sample_rate, "channels": index.channels, "samples": index.samples},
        "data": {"corpus": index.corpus, "checksum": index.checksum, "licence": index.licence},
    }
    (fresh / DESCRIPTION).write_text(json.dumps(description, indent=1, default=lambda number: number.item()))
    if (out / "analysis").is_dir():  # each says which weights it was made from
        shutil.copytree(out / "analysis", fresh / "analysis")
    shutil.rmtree(out, ignore_errors=True)
    os.replace(fresh, out)
    return out


def winning_run(runs: pd.DataFrame) -> dict[str, Any] | None:
    """The run to keep: of the configuration with the best mean validation score among the confirmed, its best
    seed by validation; without confirmed runs, the best search run. The test split has no say."""
    if runs.empty:
        return None
    complete = runs[runs["state"] == "COMPLETE"]
    confirmed = complete[complete["phase"] == "confirm"]
    if len(confirmed):
        means = confirmed.groupby("trial")["score"].mean()
        complete = confirmed[confirmed["trial"] == means.idxmax()]
    if complete.empty:
        return None
    return complete.loc[complete["score"].idxmax()].to_dict()


@dataclass(frozen=True)
class Request:
    """Which run to make a model folder of."""

    run: tyro.conf.Positional[Path]
    """Run folder: --out of trainables.train, or runs/… of a study."""
    data: Path
    """Shard set it was trained on."""
    out: Path
    """Folder for the model; must not exist or be empty."""
    events: str = "labels"
    """Event labels it was trained with."""


def main() -> int:
    request = tyro.cli(Request, prog="python -m trainables.export", description=__doc__)
    try:
        index = with_events(Index.load(request.data), parse_events(request.events))
        print(export_run(request.run, index, request.out))
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
