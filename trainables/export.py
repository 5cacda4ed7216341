"""The winner as a folder that loads without the study: best/ holds safetensors and JSON."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from safetensors.torch import load_file, save_file
from torch import nn

from datasets.labels import LabelSpace
from datasets.shards import Index
from searchspace.study import Job, Ledger
from trainables import checkpoint
from trainables.contract import AudioFormat
from trainables.names import OBJECTIVE
from trainables.recipe import configure
from trainables.registry import family

WEIGHTS, DESCRIPTION = "model.safetensors", "model.json"


def load_model(folder: Path) -> tuple[nn.Module, dict[str, Any]]:
    """(model in eval mode on the CPU, its description) from a folder `export_best` wrote.

    The description holds "family", "values", "scenes", "events", "audio" {sample_rate Hz, channels, samples},
    "run" and "metrics". Raises FileNotFoundError if the folder holds no model.
    """
    folder = Path(folder)
    if not (folder / WEIGHTS).is_file() or not (folder / DESCRIPTION).is_file():
        raise FileNotFoundError(f"{folder}: no model there (expected {WEIGHTS} and {DESCRIPTION})")
    about = json.loads((folder / DESCRIPTION).read_text())
    labels = LabelSpace(tuple(about["scenes"]), tuple(about["events"]))
    config, _ = configure(about["family"], about["values"])
    model = family(about["family"]).build(config, labels, AudioFormat(**about["audio"]))
    model.load_state_dict(load_file(folder / WEIGHTS))
    return model.eval(), about


def export_best(study: Path, family_name: str, index: Index) -> Path | None:
    """Write best/ from the run `winning_run` picks; None if no run was completed."""
    run = winning_run(pd.read_parquet(study / "trials.parquet"))
    if run is None:
        return None
    tensors, state = checkpoint.load(study / run["folder"] / "checkpoint")
    fresh = study / "best.new"
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir()
    weights = {name.removeprefix("model/"): t for name, t in tensors.items() if name.startswith("model/")}
    save_file(weights, fresh / WEIGHTS)
    metrics = {k: v for k, v in run.items() if str(k).startswith(("val/", "test/")) and v == v}
    about = {
        "family": family_name,
        "values": state["values"],
        "scenes": list(index.labels.scenes),
        "events": list(index.labels.events),
        "audio": {"sample_rate": index.sample_rate, "channels": index.channels, "samples": index.samples},
        "run": {name: run[name] for name in ("folder", "trial", "repeat", "seed", "epochs")},
        "metrics": metrics,
        "data": {"corpus": index.corpus, "checksum": index.checksum, "licence": index.licence},
    }
    (fresh / DESCRIPTION).write_text(json.dumps(about, indent=1, default=lambda number: number.item()))
    if (study / "best" / "analysis").is_dir():  # each says which weights it was made from
        shutil.copytree(study / "best" / "analysis", fresh / "analysis")
    shutil.rmtree(study / "best", ignore_errors=True)
    os.replace(fresh, study / "best")
    return study / "best"


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
    return complete.loc[complete[OBJECTIVE].idxmax()].to_dict()


def keep_checkpoints(study: Path, searching: Ledger, finalists: Sequence[Job]) -> None:
    """Delete the search runs' checkpoints, but for the finalists' and, without any, the best one's."""
    kept = {job.folder for job in finalists or searching.best(1)}
    for row in searching.rows():
        if row["state"] != "RUNNING" and row["folder"] not in kept:
            shutil.rmtree(study / row["folder"] / "checkpoint", ignore_errors=True)
