"""A trained model as a folder that loads without its study (trainables/model_folder.py).

A study ends with one, best/. Another of its trials, or a run of trainables.train, gives one too:

    python -m trainables.export studies/NAME --trial 7
    python -m trainables.export RUN --data SHARDS --out FOLDER --format torch-export

The validation split is read once more, for intervals, the temperature of its probabilities and the threshold
below which it is unsure; the test split is not.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import pandas as pd
import torch
import tyro
from scipy import stats
from torch import nn

from datasets import synthetic
from datasets.command import asked, exit_code
from datasets.mix import open_sources
from datasets.shard_writer import check_unused
from datasets.shards import Index
from datasets.source import Source, default_cache
from searchspace import record
from searchspace.study import now
from trainables import checkpoint
from trainables.analyse import WINNER_BATCH, WINNER_SECONDS, within
from trainables.calibration import calibrate
from trainables.contract import tags_read
from trainables.evaluate import BATCH, device, measure
from trainables.folder import read_epochs, read_record, read_test
from trainables.intervals import METHOD, Interval, macro_recall, wilson
from trainables.model_folder import build_model, load_model, write_description, write_model
from trainables.program import write_program
from trainables.registry import family

__all__ = ["load_model"]


def export_best(
    study: Path, family_name: str, index: Index, race: Mapping[str, Any] | None = None
) -> Path | None:
    """Write best/ from the run `winning_run` picks; None if no run was completed. `race`: study.json's."""
    runs = pd.read_parquet(study / "trials.parquet")
    run = winning_run(runs, race)
    return None if run is None else export_trial(study, runs, run, index, study / "best")


def export_trial(study: Path, runs: pd.DataFrame, run: Mapping[str, Any], index: Index, out: Path) -> Path:
    """Write `out` from the row `run` of a study's `runs`, with what its configuration reached over seeds.

    Raises CheckpointError where the run's checkpoint was not kept.
    """
    asked = _request_of(study)
    about = {
        "run": {name: run[name] for name in ("folder", "trial", "repeat", "seed", "epochs")},
        "metrics": _scores(run),
        "seeds": over_seeds(runs, run),
        "event_labels": asked.get("events") or "labels",
        "mix": list(asked.get("mix") or ()),
    }
    return _write(study / run["folder"], out, about, index)


def export_run(
    run: Path, index: Index, out: Path, *, events: str = "labels", mix: Sequence[str] = ()
) -> Path:
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
        "run": {"folder": str(run), "seed": state["seed"], "epochs": state["epoch"]},
        "metrics": _scores(
            (epochs[state["epoch"] - 1] if len(epochs) >= state["epoch"] > 0 else {}) | _tested(run)
        ),
        "event_labels": events,
        "mix": list(mix),
    }
    return _write(run, out, about, index)


def _tested(run: Path) -> dict[str, float]:
    """The metrics of the test split, where the run has read it."""
    return read_test(run).get("metrics", {})


def _scores(row: Mapping[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in row.items() if str(k).startswith(("val/", "test/")) and v == v}


def over_seeds(runs: pd.DataFrame, run: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """{metric: mean, sd, n and the 95 % interval of the mean (Student's t)} over the finished repeats of the
    run's configuration at full length in its phase; None for what one repeat does not tell."""
    same = runs[(runs["trial"] == run["trial"]) & (runs["phase"] == run["phase"])]
    same = same[(same["state"] == "COMPLETE") & (same["epochs"] == run["epochs"])]
    found = {}
    for name in same.columns:
        values = same[name].dropna().astype(float) if name.startswith(("val/", "test/")) else ()
        if len(values):
            found[name] = _summary(np.asarray(values))
    return found


def _summary(values: np.ndarray) -> dict[str, Any]:
    n, mean = len(values), float(values.mean())
    if n < 2:
        return {"mean": mean, "sd": None, "n": n, "low": None, "high": None}
    sd = float(values.std(ddof=1))
    half = float(stats.t.ppf(0.975, n - 1)) * sd / n**0.5
    return {"mean": mean, "sd": sd, "n": n, "low": mean - half, "high": mean + half}


def _write(run: Path, out: Path, about: Mapping[str, Any], index: Index) -> Path:
    """The model in the run's checkpoint as the folder `out`, in place of what is there."""
    tensors, state = checkpoint.load(run / "checkpoint")
    weights = {name.removeprefix("model/"): t for name, t in tensors.items() if name.startswith("model/")}
    description = dict(about) | {
        "family": state["family"],
        "values": state["values"],
        "scenes": list(index.labels.scenes),
        "events": list(index.labels.events),
        "tags": asdict(index.tags) if index.tags else None,
        "features": state.get("features", ""),
        "audio": {"sample_rate": index.sample_rate, "channels": index.channels, "samples": index.samples},
        "data": {
            "corpus": index.corpus,
            "checksum": index.checksum,
            "licence": index.licence,
            "citation": index.citation,
            "path": index.place,
            "clips": {name: split.clips for name, split in index.splits.items()},
        },
        "conversion": _conversion(index),
        "intervals": _test_intervals(run),
        "interval_method": METHOD,
        "calibration": {"absent": "its validation clips were not read yet"},
        "provenance": _provenance(run),
    }
    model = build_model(description)
    description["front_end"] = " ".join(repr(model.frontend).split())
    description["reads_tags"] = tags_read(model)  # shards may have tags that this model doesn't read
    description["event_outputs"] = _event_outputs(model, index)
    return write_model(out, weights, description)


def _event_outputs(model: nn.Module, index: Index) -> int:
    """How many events the model answers: 0 without an event branch, whatever its shards have."""
    tags = (torch.zeros(1, count),) if (count := tags_read(model)) else ()
    with torch.no_grad():
        logits = model.eval()(torch.zeros(1, index.channels, index.samples), *tags).event_logits
    return 0 if logits is None else logits.shape[1]


def _provenance(run: Path) -> dict[str, Any]:
    told = read_record(run)
    git = told.get("git") or {}
    return {
        "commit": git.get("commit"),
        "dirty": git.get("dirty"),
        "code": git.get("code"),
        "command": told.get("command"),
        "packages": told.get("packages"),
        "pretrained": told.get("pretrained"),
        "exported": now(),
    }


def _conversion(index: Index) -> dict[str, Any] | None:
    """{"rate", "channels"} that the shards were prepared with, where a local set says so (datasets.build)."""
    path = Path(index.root) / "prepared.json" if isinstance(index.root, Path) else None
    if path is None or not path.is_file():
        return None
    found = json.loads(path.read_text(encoding="utf-8")).get("conversion") or {}
    return {"rate": found.get("rate"), "channels": found.get("channels", "keep")}


def _test_intervals(run: Path) -> dict[str, Interval]:
    """Of the test metrics that the counts in test.json give; the split is not read again for the rest."""
    confusion = np.array(read_test(run).get("confusion", []))
    if confusion.ndim != 2 or not confusion.sum():
        return {}
    return {
        "test/scene_accuracy": wilson(int(np.trace(confusion)), int(confusion.sum())),
        "test/scene_accuracy_macro": macro_recall(confusion),
    }


def measure_model(folder: Path, source: Source, *, seconds: float | None = None) -> str:
    """Read the validation split with the model of `folder` and write down its intervals and its calibration;
    what was found, in one line. `seconds`: give up where it would take longer.

    Raises ValueError for a model that does not fit the source, or too long a time.
    """
    model, about = load_model(folder)
    clips = source.index.split("val").clips
    batches = source.eval_batches("val", WINNER_BATCH if seconds else BATCH, device=device())
    if seconds:
        batches = within(batches, clips, seconds)
    found = measure(model.to(device()), about, "val", batches)
    about["intervals"] |= {f"val/{name}": bounds for name, bounds in found.intervals.items()}
    rows = found.scores.arrays()
    if not rows["scene_logits"].shape[1]:  # of a corpus with scenes it may have learned the events only
        about["scenes"] = []
    try:
        if not about["scenes"]:
            raise ValueError("it knows no scenes")
        scene = np.where(rows["scene"].sum(1) > 0, rows["scene"].argmax(1), -1)
        calibration = calibrate(rows["scene_logits"], scene)
        about["calibration"] = calibration.record()
        said = f"{100 * calibration.coverage:.0f} % of validation answered surely"
        if calibration.coverage:
            said += f", of these {100 * calibration.sure_accuracy:.1f} % rightly"
        said += f" (all: {100 * calibration.accuracy:.1f} %)"
    except ValueError as error:
        about["calibration"] = {"absent": str(error)}
        said = f"not calibrated: {error}"
    write_description(folder, about)
    return said


def measure_winner(best: Path, source: Source) -> str:
    """`measure_model` of a study's best model; why not, where it can't be done or would take more than three
    minutes here: the study is finished all the same."""
    try:
        return f"calibrated the best model: {measure_model(best, source, seconds=WINNER_SECONDS)}"
    except (ValueError, OSError, RuntimeError) as error:
        return (
            f"warning: the best model is not calibrated: {error}. To do it: python -m trainables.export "
            f"{best.parent} --out {best.parent / 'model'}"
        )


def winning_run(runs: pd.DataFrame, race: Mapping[str, Any] | None = None) -> dict[str, Any] | None:
    """The run to keep: of the race's winner the best seed by validation among its tested runs, or without
    such among all its confirmation runs; without a winner the best search run. The test split has no say."""
    if runs.empty:
        return None
    complete = runs[runs["state"] == "COMPLETE"]
    confirmed = complete[complete["phase"] == "confirm"]
    if race and race["winner"] is not None and len(confirmed):
        mine = confirmed[confirmed["trial"] == race["winner"]]
        tested = mine[mine["repeat"].isin(race["headline"])]
        complete = tested if len(tested) else mine
    elif len(confirmed):
        means = confirmed.groupby("trial")["score"].mean()
        complete = confirmed[confirmed["trial"] == means.idxmax()]
    if complete.empty:
        return None
    return complete.loc[complete["score"].idxmax()].to_dict()


@dataclass(frozen=True)
class Request:
    """Which run to make a model folder of."""

    run: tyro.conf.Positional[Path]
    """A study's folder, or a run's: --out of trainables.train, runs/… of a study."""
    trial: int | None = None
    """Of a study: which trial; the winner by default. Of its runs that were kept, the confirmed one with the
    best validation score."""
    repeat: int | None = None
    """Which repeat of the trial."""
    data: str | None = None
    """Shard set it was trained on; by default the study's."""
    mix: Annotated[tuple[str, ...], tyro.conf.UseAppendAction] = ()
    """Shard sets mixed in, as in training; by default the study's."""
    events: str | None = None
    """Event labels it was trained with; by default the study's, or labels."""
    out: Path | None = None
    """Folder for the model; must not exist or be empty. By default model/ in the run's folder, for a study
    models/tTRIAL-rREPEAT in its folder."""
    format: Literal["torch-export", "onnx"] | None = None
    """Write the model for other programs as well, its outputs checked against the model's own."""


def main(arguments: list[str] | None = None) -> int:
    request = asked(Request, "python -m trainables.export", __doc__, arguments)
    return exit_code(lambda: export(request))


def export(request: Request) -> int:
    """Raises ValueError or OSError in one line; what was written before it stays."""
    study = request.run if (request.run / "study.json").is_file() else None
    if study is None and (request.trial, request.repeat) != (None, None):
        raise ValueError(f"--trial, --repeat: {request.run} is not a study (it has no study.json)")
    if study is None and not (request.run / "run.json").is_file():
        raise ValueError(f"{request.run}: neither a study (study.json) nor a run (run.json)")
    if study is None:
        out = _free(request.out or request.run / "model")
        asked = _request_of(request.run.resolve().parent.parent)
        source = _source(request, asked, request.run)
        events, mix = request.events or asked.get("events") or "labels", request.mix or asked.get("mix") or ()
        written = export_run(request.run, source.index, out, events=events, mix=tuple(mix))
    else:
        runs = _trials(study)
        row = _chosen(study, runs, request)
        out = _free(request.out or study / "models" / Path(row["folder"]).name)
        source = _source(request, _request_of(study), study / row["folder"])
        written = export_trial(study, runs, row, source.index, out)
    print(f"{written}\n{measure_model(written, source)}")
    if request.format:
        print(write_program(written, request.format))
    return 0


def _free(out: Path) -> Path:
    check_unused(out)
    return out


def _trials(study: Path) -> pd.DataFrame:
    if not (study / "trials.parquet").is_file():
        raise ValueError(f"{study}: no trial has ended yet (it has no trials.parquet)")
    return pd.read_parquet(study / "trials.parquet")


def _chosen(study: Path, runs: pd.DataFrame, request: Request) -> dict[str, Any]:
    """The row of the run to export: confirmed before searched, then by validation score."""
    if request.trial is None:
        winner = winning_run(runs, record.read(study).get("race"))
        if winner is None:
            raise ValueError(f"{study}: no trial was completed")
        return winner
    mine = runs[runs["trial"] == request.trial]
    if mine.empty:
        raise ValueError(f"--trial {request.trial}: {study} has trials {_listed(runs['trial'].unique())}")
    if request.repeat is not None:
        mine = mine[mine["repeat"] == request.repeat]
    kept = mine[[checkpoint.exists(study / folder / "checkpoint") for folder in mine["folder"]]]
    if kept.empty:
        there = [f for f in runs["folder"] if checkpoint.exists(study / f / "checkpoint")]
        which = f"--trial {request.trial}" + (
            f" --repeat {request.repeat}" if request.repeat is not None else ""
        )
        raise ValueError(
            f"{which}: no such run whose checkpoint was kept; {study} kept {', '.join(there) or 'none'}"
        )
    kept = kept.assign(searched=kept["phase"] == "search").sort_values(
        ["searched", "score"], ascending=[True, False]
    )
    return kept.drop(columns="searched").iloc[0].to_dict()


def _listed(trials: Sequence[int]) -> str:
    numbers = sorted(int(trial) for trial in trials)
    return f"{numbers[0]} to {numbers[-1]}" if len(numbers) > 12 else ", ".join(map(str, numbers))


def _request_of(study: Path) -> dict[str, Any]:
    """What was asked of the study; {} where there is none."""
    return record.read(study).get("request", {}) if (study / "study.json").is_file() else {}


def _source(request: Request, asked: Mapping[str, Any], run: Path) -> Source:
    """The shards that the run was trained on."""
    data = request.data or asked.get("data")
    if data is None and not asked:
        raise ValueError(f"{run}: --data SHARDS is needed, the shard set it was trained on")
    _, state = checkpoint.load(run / "checkpoint")
    return open_sources(
        data or synthetic.ensure(default_cache()),
        request.mix or tuple(asked.get("mix") or ()),
        cache=None,
        events=request.events or asked.get("events") or "labels",
        frames=family(state["family"]).frame_hop,
    )


if __name__ == "__main__":
    torch.set_num_threads(max(1, int(os.environ.get("OMP_NUM_THREADS", "1"))))
    sys.exit(main())
