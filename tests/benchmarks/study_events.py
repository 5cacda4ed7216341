"""The comparisons of issue 5 on a tagged corpus: the same seeds for every cell, a line of JSON a training,
and tables with paired differences.

    python tests/benchmarks/study_events.py ergl TAGGED --out FOLDER      edges and their readings, three n
    python tests/benchmarks/study_events.py jung TAGGED --out FOLDER      where the tags enter
    python tests/benchmarks/study_events.py table --out FOLDER

Cells are trained seed after seed, so that whatever is done when it is stopped can be compared; the same
command goes on. Any number of processes may share a folder. In `ergl` the front end has nothing random and is
the same for all cells, so that its features are computed once; else a training is `trainables.train`'s.
Small models of few epochs: what they show is which of them learns faster at this size, and no more.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy import stats
from torch import Tensor, nn

from datasets.batch import Batch
from datasets.mix import open_sources
from datasets.source import Source, default_cache
from trainables.allocator import keep_freed_pages
from trainables.run import Run

SEEDS = (1, 2, 3, 4, 5)
EPOCHS = {"ergl": 5, "jung": 4}
COMMON: dict[str, dict[str, Any]] = {
    "ergl": {
        "width": 0.0625, "n_mels": 32, "hop": 0.032, "node_width": 16,
        "dropout": 0.0, "embedding_dropout": 0.2, "optimiser": "adamw", "weight_decay": 0.01,
        "lr": 0.002, "schedule": "cosine", "batch_size": 16,
    },
    "jung": {
        "width": 0.125, "crop": 2.0, "tag_width": 256, "code_width": 256, "mixup": 0.1,
        "optimiser": "adam", "weight_decay": 1e-3, "lr": 0.003, "schedule": "cosine", "batch_size": 12,
    },
}  # fmt: skip
FAMILY = {"ergl": "ergl", "jung": "tagvector"}
EVENTS = {"ergl": "tags", "jung": "labels"}
BASELINE = {"ergl": "without MEL", "jung": "baseline"}


def cells(study: str) -> dict[str, dict[str, Any]]:
    if study == "jung":
        joined = {"concat": "before_code", "concat_layers": 3}
        return {
            "baseline": {"tag_use": "none"},
            "concatenation": {"tag_use": "concat", **joined},
            "attention": {"tag_use": "attention", "heads": 2, "attention_layers": 1},
            "both": {"tag_use": "both", "heads": 4, "shared_tag_layers": True, **joined},
        }
    kinds = {
        "time": {"edge_tokens": "time"},
        "channel": {"edge_tokens": "channel"},
        "without MEL": {"edges": "constant", "edge_tokens": "time"},
    }
    return {f"n={n} {name}": {"n_events": n} | knobs for n in (8, 16, 32) for name, knobs in kinds.items()}


class Features:
    """A source whose batches have features (B, 1, T, F) for waveforms."""

    def __init__(self, source: Any, frontend: Any) -> None:
        self.source, self.index = source, source.index
        self.kept: dict[str, Tensor] = {}
        with torch.no_grad():
            for split in ("train", "val", "test"):
                batches = source.eval_batches(split, 64)
                self.kept[split] = torch.cat([frontend.raw(batch.waveform) for batch in batches])

    def steps(self, *given: Any, **options: Any) -> int:
        return self.source.steps(*given, **options)

    def train_batches(self, *given: Any, **options: Any) -> Iterator[Batch]:
        return self._with("train", self.source.train_batches(*given, **options))

    def eval_batches(self, split: str, *given: Any, **options: Any) -> Iterator[Batch]:
        return self._with(split, self.source.eval_batches(split, *given, **options))

    def _with(self, split: str, batches: Iterator[Batch]) -> Iterator[Batch]:
        for batch in batches:
            yield replace(batch, waveform=self.kept[split][batch.clip])


class Normalised(nn.Module):
    def __init__(self, normalise: nn.Module) -> None:
        super().__init__()
        self.normalise = normalise

    def forward(self, x: Tensor) -> Tensor:
        return self.normalise(x)


def train(study: str, data: Path, out: Path) -> None:
    cache = default_cache()
    source: Source = open_sources(data, cache=cache, events=EVENTS[study])
    features: Features | None = None
    for seed in SEEDS:
        for name, knobs in cells(study).items():
            if not claimed(out / study / f"{name} seed {seed}".replace(" ", "_")):
                continue
            began = time.process_time()
            values = COMMON[study] | knobs
            run = Run(FAMILY[study], values, source, seed=seed, epochs=EPOCHS[study], statistics_folder=cache)
            if study == "ergl":
                features = features or Features(source, run.model.frontend)
                run.source = features  # type: ignore[assignment]
                run.model.frontend = Normalised(run.model.frontend.normalise)
            while run.epoch < run.epochs:
                metrics = run.next_epoch()
            said = {f"test/{metric}": value for metric, value in run.score("test")[0].items()} | metrics
            wanted = ("val/scene_accuracy", "test/scene_accuracy", "val/svm_accuracy", "test/svm_accuracy")
            row: dict[str, Any] = {"cell": name, "seed": seed, "cpu": time.process_time() - began}
            row |= {metric: said[metric] for metric in wanted if metric in said}
            with open(out / f"{study}.jsonl", "a") as log:
                log.write(json.dumps(row) + "\n")
            print(row, flush=True)


def claimed(path: Path) -> bool:
    """Whether this process is the first to take on a training; what was cut off stays claimed until its file
    is deleted."""
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.close(os.open(path, os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        return False
    return True


def table(study: str, out: Path, metric: str) -> list[str]:
    """Markdown: mean ± sd of every cell, and its difference from the baseline by seed with the p of a paired
    t-test."""
    rows = [json.loads(line) for line in (out / f"{study}.jsonl").read_text().splitlines()]
    found: dict[str, dict[int, Mapping[str, float]]] = {}
    for row in rows:
        found.setdefault(row["cell"], {})[row["seed"]] = row
    lines = [
        f"| {study}: {metric}, % | seeds | validation | test | test, less the baseline | p |",
        "|---|---|---|---|---|---|",
    ]
    for name in cells(study):
        if name not in found:
            continue
        first = name.split(" ")[0] if study == "ergl" else ""
        base = found.get(f"{first} {BASELINE[study]}".strip(), {})
        both = sorted(base.keys() & found[name].keys()) if base is not found[name] else []
        gaps = [100 * (found[name][s][f"test/{metric}"] - base[s][f"test/{metric}"]) for s in both]
        p = stats.ttest_1samp(gaps, 0).pvalue if len(gaps) > 1 else float("nan")
        means = [
            spread([100 * row[f"{split}/{metric}"] for row in found[name].values()])
            for split in ("val", "test")
        ]
        less = f"{spread(gaps)} | {p:.2f}" if gaps else "– | –"
        lines.append(f"| {name} | {len(found[name])} | {means[0]} | {means[1]} | {less} |")
    if study == "ergl":
        lines += ["", readings(found)]
    cost = sum(row["cpu"] for row in rows) / 60
    return [*lines, "", f"{len(rows)} trainings of {EPOCHS[study]} epochs, {cost:.1f} CPU minutes."]


def readings(found: Mapping[str, Mapping[int, Mapping[str, float]]]) -> str:
    """Channel tokens less time tokens on test: the mean over the n of each seed that has all, paired."""
    sizes = sorted({name.split(" ")[0] for name in found})
    pairs = [(found.get(f"{n} channel", {}), found.get(f"{n} time", {})) for n in sizes]
    seeds = [s for s in SEEDS if all(s in one for pair in pairs for one in pair)]
    key = "test/scene_accuracy"
    gaps = [float(np.mean([100 * (c[s][key] - t[s][key]) for c, t in pairs])) for s in seeds]
    if len(gaps) < 2:
        return f"channel less time: {len(gaps)} seeds have both at every n, too few to compare."
    p = stats.ttest_1samp(gaps, 0).pvalue
    return f"channel less time, mean over n: {spread(gaps)} points over {len(gaps)} seeds, p = {p:.2f}."


def spread(values: list[float]) -> str:
    sd = f" ± {np.std(values, ddof=1):.1f}" if len(values) > 1 else ""
    return f"{np.mean(values):.1f}{sd}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("what", choices=["ergl", "jung", "table"])
    parser.add_argument("data", type=Path, nargs="?")
    parser.add_argument("--out", type=Path, required=True)
    asked = parser.parse_args()
    if asked.what != "table":
        if asked.data is None:
            parser.error(f"{asked.what} needs the tagged shard set")
        torch.set_num_threads(1)
        keep_freed_pages()
        train(asked.what, asked.data, asked.out)
        return 0
    for study, metric in (("ergl", "scene_accuracy"), ("jung", "svm_accuracy"), ("jung", "scene_accuracy")):
        if (asked.out / f"{study}.jsonl").is_file():
            print("\n".join([*table(study, asked.out, metric), ""]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
