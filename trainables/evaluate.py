"""Every metric of a trained model on a labelled split, with intervals.

    python -m trainables.evaluate studies/NAME/best SHARDS
    python -m trainables.evaluate studies/NAME/best SHARDS --split test --json

The numbers are those that the training itself gives for the split: the same clips, precision and metrics.
What the intervals are is said in trainables/intervals.py. The test split is read only when --split test asks
for it, and test_reads.jsonl in the model's folder (and so its card) says when, by which command and on which
data, before the first clip of it is read.
"""

from __future__ import annotations

import json
import math
import os
import shlex
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import tyro
from torch import nn

from datasets.batch import Batch
from datasets.command import asked, exit_code
from datasets.mix import open_sources
from datasets.shards import Index
from datasets.source import Source
from datasets.storage import shown
from searchspace.study import now
from trainables.calibration import Calibration
from trainables.engine import autocast_dtype, evaluate
from trainables.evaluators import choose_svm, codes
from trainables.frame_metrics import SEGMENT
from trainables.intervals import METHOD, Interval, intervals, wilson
from trainables.metrics import Scores
from trainables.model_folder import record_test_read
from trainables.recipe import configure
from trainables.registry import family
from trainables.run import EVAL_BATCH
from trainables.trained import Trained, open_trained

BATCH = EVAL_BATCH  # as in training, so that the numbers are those of the training to the last digit
LOSSES = ("loss", "loss/", "term/")


@dataclass(frozen=True)
class Measured:
    """`metrics` of a split as in training (trainables/run.py), {name: value}; `intervals` of those that have
    one, {name: (low, high)}; the `scores` that both are from."""

    metrics: dict[str, float]
    intervals: dict[str, Interval]
    scores: Scores


def measure(model: nn.Module, about: Mapping[str, Any], split: str, batches: Iterable[Batch]) -> Measured:
    """`about` names the "family" and its "values"; `batches` are those of `split`, on the model's device.

    Raises ValueError where the split holds no clip.
    """
    found = family(about["family"])
    config, recipe = configure(about["family"], about["values"])
    losses, scores = evaluate(
        model,
        found.terms(config),
        found.weights(config),
        batches,
        autocast=autocast_dtype(recipe.precision, next(model.parameters()).device),
        segment=round(SEGMENT / found.frame_hop) if found.frame_hop else 1,
    )
    if not len(scores):
        raise ValueError(f"split {split!r} has no clips")
    return Measured(losses | scores.compute(), intervals(scores), scores)


@dataclass(frozen=True)
class Request:
    """Which model, on which clips."""

    model: tyro.conf.Positional[Path]
    """A study's best/, a folder of trainables.export, one of a study's runs/ or a folder of
    trainables.train."""
    data: tyro.conf.Positional[str]
    """Shard set, a folder or a URL, with the labels and the audio format that the model knows."""
    split: str = "val"
    """train, val or test; the test split is read only when named here, and this is written down."""
    mix: Annotated[tuple[str, ...], tyro.conf.UseAppendAction] = ()
    """Shard sets mixed in, SHARDS:CLIPS, where the model was trained on a mixture."""
    events: str | None = None
    """Event labels: labels, tags, tags>0.1; by default those it was trained with."""
    json: bool = False
    """Print JSON instead of a table."""
    threads: int = field(default_factory=lambda: max(1, int(os.environ.get("OMP_NUM_THREADS") or 1)))
    """CPU threads."""


def main(arguments: list[str] | None = None) -> int:
    request = asked(Request, "python -m trainables.evaluate", __doc__, arguments)
    command = sys.argv if arguments is None else ["trainables.evaluate", *arguments]

    def work() -> None:
        found = run(request, command)
        print(json.dumps(found, indent=1) if request.json else table(found))

    return exit_code(work)


def run(request: Request, command: list[str]) -> dict[str, Any]:
    """{"model", "data", "split", "clips", "metrics": {name: {"value", "low", "high"}}, "events": {name:
    {"average_precision", "auc"}}, "unsure", "method", "notes"}, ready for JSON: None for what is not a
    number.

    Raises ValueError or OSError in one line; a test split is then not read, or its reading is on record.
    """
    if request.threads < 1:
        raise ValueError(f"--threads {request.threads}: expected at least 1")
    torch.set_num_threads(request.threads)
    trained, source = _opened(request)
    index = source.index
    if request.split not in index.splits or not index.split(request.split).clips:
        raise ValueError(f"{index.place}: no {request.split} clips; splits: {', '.join(index.splits)}")
    if request.split == "test":
        _record_read(request, trained, index, command)
    model = trained.model.to(device())
    batches = source.eval_batches(request.split, BATCH, device=device())
    found = measure(model, trained.about, request.split, batches)
    svm, notes = _svm(trained, source, request.split)
    metrics, bounds = found.metrics | svm, dict(found.intervals)
    if svm:
        clips = int(found.scores.confusion().sum())
        bounds["svm_accuracy"] = wilson(round(svm["svm_accuracy"] * clips), clips)
    ap, auc = found.scores.per_event()
    return {
        "model": str(request.model),
        "weights": trained.about["sha256"],
        "data": {"place": index.place, "corpus": index.corpus, "checksum": index.checksum},
        "split": request.split,
        "clips": len(found.scores),
        "metrics": {
            name: dict(
                zip(("value", "low", "high"), map(_plain, (value, *bounds.get(name, (math.nan, math.nan)))))
            )
            for name, value in metrics.items()
        },
        "events": _per_event(index, found.scores, ap, auc),
        "confusion": found.scores.confusion().tolist(),
        "unsure": _unsure(request.model, found.scores),
        "method": METHOD,
        "notes": notes,
    }


def _opened(request: Request) -> tuple[Trained, Source]:
    """The model, and the shards as it reads them. Nothing but labels is read of any split."""
    about = _told(request.model)
    events = request.events or about.get("event_labels") or "labels"
    options: dict[str, Any] = {"cache": None, "events": events}
    if about.get("family"):
        options["frames"] = family(about["family"]).frame_hop
    source = open_sources(request.data, request.mix, **options)
    return open_trained(request.model, source.index), source


def _told(folder: Path) -> dict[str, Any]:
    """What the folder says of itself before its model is loaded; {} where it is no model's."""
    for path in (folder / "model.json", folder / "checkpoint" / "state.json"):
        try:
            return json.loads(path.read_text())
        except (OSError, json.JSONDecodeError):
            continue
    return {}


def _record_read(request: Request, trained: Trained, index: Index, command: list[str]) -> None:
    line = {
        "time": now(),
        "command": shlex.join(shown(word) for word in command),
        "data": index.checksum,
        "place": index.place,
        "weights": trained.about["sha256"],
    }
    try:
        record_test_read(request.model, line)
    except OSError as error:
        raise ValueError(f"the test split is not read: that can't be written down ({error})") from error


def _svm(trained: Trained, source: Source, split: str) -> tuple[dict[str, float], list[str]]:
    """({"svm_accuracy": …}, notes): the SVMs of a family that has them are fitted again, as in training."""
    found = family(trained.about["family"])
    config, recipe = configure(trained.about["family"], trained.about["values"])
    kernels = found.svm_kernels(config)
    if not kernels:
        return {}, []
    if trained.about["trained_on"] != source.index.checksum:
        return {}, ["svm_accuracy is left out: its SVM is fitted on the shards that the model was trained on"]
    autocast = autocast_dtype(recipe.precision, torch.device(device()))
    read = {
        name: codes(trained.model, source.eval_batches(name, BATCH, device=device()), autocast=autocast)
        for name in {"train", "val", split}
    }
    return {"svm_accuracy": choose_svm(read["train"], read["val"], kernels).accuracy(read[split])}, []


def _unsure(folder: Path, scores: Scores) -> dict[str, Any] | None:
    """How its flag does on these clips; None for a model without calibration."""
    calibration = Calibration.read(_told(folder).get("calibration"))
    rows = scores.arrays()
    known = rows["scene"].sum(1) > 0
    if calibration is None or not known.any():
        return None
    logits, scene = rows["scene_logits"][known], rows["scene"][known].argmax(1)
    right, sure = logits.argmax(1) == scene, calibration.sure(calibration.probabilities(logits).max(1))
    low, high = wilson(int(right[sure].sum()), int(sure.sum()))
    return {
        "threshold": calibration.threshold,
        "temperature": calibration.temperature,
        "coverage": float(sure.mean()),
        "sure_accuracy": _plain(float(right[sure].mean()) if sure.any() else math.nan),
        "sure_low": _plain(low),
        "sure_high": _plain(high),
        "unsure_accuracy": _plain(float(right[~sure].mean()) if not sure.all() else math.nan),
    }


def _per_event(index: Index, scores: Scores, ap: np.ndarray, auc: np.ndarray) -> dict[str, Any]:
    if len(ap) != len(index.labels.events):  # none, or those of its own choice
        return {}
    f = scores.per_event_frame_f()
    return {
        name: {"average_precision": _plain(ap[e]), "auc": _plain(auc[e])}
        | ({"frame_f": _plain(f[e])} if len(f) else {})
        for e, name in enumerate(index.labels.events)
    }


def table(found: Mapping[str, Any]) -> str:
    """The same for a terminal; losses and single events are in the JSON only."""
    data = found["data"]
    lines = [f"{found['clips']} {found['split']} clips of {data['corpus']} ({data['checksum'][:12]})", ""]
    for name, value in found["metrics"].items():
        if value["value"] is None or name.startswith(LOSSES):
            continue
        interval = "" if value["low"] is None else f"   {value['low']:.4f} to {value['high']:.4f}"
        lines.append(f"{name:24}{value['value']:.4f}{interval}")
    lines += ["", f"intervals: {found['method']}"]
    if (flag := found["unsure"]) is None:
        lines.append("unsure: the model is not calibrated")
    elif flag["threshold"] is None:
        lines.append("unsure: always, for no threshold halved its errors on validation")
    elif not flag["coverage"]:
        lines.append(f"unsure: always on these clips, of which {_share(flag['unsure_accuracy'])} are right")
    else:
        lines.append(
            f"unsure: {100 * flag['coverage']:.0f} % are answered surely, {_share(flag['sure_accuracy'])} "
            f"of these "
            f"rightly ({_share(flag['sure_low'])} to {_share(flag['sure_high'])}), of the others "
            f"{_share(flag['unsure_accuracy'])}"
        )
    return "\n".join([*lines, *found["notes"]])


def device() -> str:
    return "cuda" if torch.cuda.is_available() else "cpu"


def _plain(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None


def _share(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.1f} %"


if __name__ == "__main__":
    sys.exit(main())
