"""Study folders as a search leaves them, written from a few numbers: reports depend on the format alone."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from reports import rank

SCENES = ("airport", "beach", "street_traffic", "living_room")
EVENTS = ("car_horn", "crow", "footsteps", "glass_breaking", "water_drops", "siren")

PUBLISHED = [
    {
        "paper": "Hou 2023",
        "table": "Table III",
        "row": row,
        "corpus": "tut2018",
        "split": "test",
        "metric": "scene_accuracy",
        "value": value,
        "spread": spread,
        "spread_kind": kind,
        "values": {"framework": name},
        "warm_start": warm,
    }
    for row, name, value, spread, kind, warm in (
        ("MlhE-PANN", "mlhe", 0.7757, 0.0091, "max deviation of 10 runs", True),
        ("cSEM-PANN", "csem", 0.7912, 0.0089, "max deviation of 10 runs", True),
        ("MoE", "moe", 0.7143, None, "unknown", False),
    )
] + [
    {
        "paper": "Hou 2023",
        "table": "Table XII",
        "row": "cSEM",
        "corpus": "tau2019",
        "split": "test",
        "metric": "scene_accuracy",
        "value": 0.889,
        "spread": 0.01,
        "spread_kind": "max deviation of 10 runs",
        "values": {},
        "warm_start": False,
    }
]


def record(**changes: Any) -> dict[str, Any]:
    """A complete study.json; `changes` replace its keys, `data` is merged."""
    data = {
        "path": "/data/shards",
        "corpus": "tut2018",
        "checksum": "sha256:" + "5e" * 32,
        "licence": "CC BY 4.0",
        "sample_rate": 48000,
        "channels": 1,
        "seconds": 10.0,
        "scenes": list(SCENES),
        "events": list(EVENTS),
        "clips": {"train": 4897, "val": 1225, "test": 2518},
    }
    base = {
        "format": 1,
        "name": "csem on tut2018",
        "status": "complete",
        "created": "2026-11-20T20:33:00+0000",
        "finished": "2026-11-20T22:45:10+0000",
        "command": ["tune_csem.py", "--data", "/data/shards", "--trials", "40"],
        "family": "csem",
        "pins": {"backbone": "tinycnn"},
        "space": ["framework", "lr", "w_event", "shared_layers", "mixup", "spec_augment"],
        "objective": {"metric": "val/scene_accuracy", "mode": "max"},
        "seed": 7,
        "trials": 40,
        "epochs": 9,
        "confirm": 4,
        "seeds": 5,
        "sampler": "tpe",
        "pruner": "asha",
        "git": {"commit": "0123456789abcdef0123456789abcdef01234567", "dirty": True},
        "packages": {
            "torch": "2.13.0",
            "ray": "2.60.0",
            "optuna": "5.0.0",
            "numpy": "2.4.6",
            "scipy": "1.17.1",
        },
        "hardware": {"cpus": 2, "gpus": [], "platform": "Linux-6.1-x86_64", "python": "3.11.7"},
        "data": data,
        "published": PUBLISHED,
    }
    data.update(changes.pop("data", {}))
    return base | changes


def config(**changes: Any) -> dict[str, Any]:
    """Every knob of a configuration."""
    knobs = {
        "backbone": "tinycnn",
        "framework": "csem",
        "shared_layers": 1,
        "lr": 0.001,
        "w_event": 0.5,
        "mixup": 0.2,
        "spec_augment": True,
        "optimiser": "adamw",
        "batch_size": 64,
        "pretrained": None,
    }
    return knobs | changes


def run(
    trial: int, score: float, *, repeat: int = 0, knobs: Mapping[str, Any] | None = None, **changes: Any
) -> dict[str, Any]:
    """One row of trials.parquet; a COMPLETE run of 9 epochs unless `changes` say otherwise."""
    row = {
        "trial": trial,
        "repeat": repeat,
        "phase": "confirm" if repeat else "search",
        "seed": 1000 * trial + repeat,
        "state": "COMPLETE",
        "reason": "",
        "origin": "sampler",
        "epochs": 9,
        "score": score,
        "parameters": 297_349,
        "seconds": 12.5,
        "started": f"2026-11-20T20:{33 + trial // 60:02d}:{trial % 60:02d}",
        "folder": f"runs/t{trial:04d}-r{repeat}",
        "val/scene_accuracy": score,
        "val/event_map": 0.4,
    }
    if repeat:
        row["test/scene_accuracy"] = score - 0.01
    return row | {f"config.{k}": v for k, v in config(**(knobs or {})).items()} | changes


def curve(row: Mapping[str, Any], scores: Sequence[float]) -> list[dict[str, Any]]:
    """A run's rows of curves.parquet."""
    same = {name: row[name] for name in ("trial", "repeat", "phase")}
    return [{**same, "epoch": i + 1, "val/scene_accuracy": s} for i, s in enumerate(scores)]


def rising(score: float, epochs: int, wobble: float = 0.0) -> list[float]:
    """A learning curve that ends at `score`."""
    return [
        score * (1 - 0.6 * math.exp(-3.0 * (e + 1) / epochs)) + wobble * (-1) ** e for e in range(epochs - 1)
    ] + [score]


def write(
    folder: Path,
    runs: Sequence[Mapping[str, Any]] = (),
    curves: Sequence[Mapping[str, Any]] = (),
    tests: Mapping[tuple[int, int], Mapping[str, Any]] | None = None,
    **changes: Any,
) -> Path:
    """Write a study folder; without runs there is no parquet file, as before the first finished run."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "study.json").write_text(json.dumps(record(**changes)))
    if runs:
        pd.DataFrame(list(runs)).to_parquet(folder / "trials.parquet")
    if curves:
        pd.DataFrame(list(curves)).to_parquet(folder / "curves.parquet")
    for (trial, repeat), result in (tests or {}).items():
        home = folder / f"runs/t{trial:04d}-r{repeat}"
        home.mkdir(parents=True, exist_ok=True)
        (home / "test.json").write_text(json.dumps(result))
    return folder


def scored_test(scenes: int, events: int, accuracy: float, seed: int, clips: int = 2518) -> dict[str, Any]:
    """A test.json: confusion matrix of `clips` clips, per-event figures, the last event without a clip."""
    rng = np.random.default_rng(seed)
    confusion = np.zeros((scenes, scenes), dtype=int)
    for truth, total in enumerate(rng.multinomial(clips, [1 / scenes] * scenes)):
        right = 0.15 + 0.85 * rng.beta(8, 2) * accuracy / 0.8
        off = rng.dirichlet([0.3] * max(scenes - 1, 1)) * max(0.0, 1 - min(right, 1.0))
        shares = np.insert(off[: scenes - 1], truth, min(right, 1.0))
        confusion[truth] = rng.multinomial(total, shares / shares.sum())
    quality = np.linspace(0.95, 0.08, events)
    ap = [float(np.clip(q + rng.normal(0, 0.03), 0, 1)) for q in quality]
    if events > 1:
        ap[-1] = None  # type: ignore[call-overload]
    return {
        "metrics": {"test/scene_accuracy": accuracy},
        "confusion": confusion.tolist(),
        "event_ap": ap,
        "event_auc": ap,
    }


def parameters(knobs: Mapping[str, Any]) -> int:
    """Two branches have more than one, sharing has fewer."""
    return 110_000 * (1 + knobs["framework"].startswith(("mlhe", "csem"))) // knobs["shared_layers"]


def occupy(free: list[float], row: dict[str, Any]) -> None:
    """Start a run in the place that is free first."""
    place = free.index(min(free))
    row["started"] = str(np.datetime64("2026-11-20T20:33:00") + np.timedelta64(int(free[place]), "s"))
    free[place] += row["seconds"] + 1.5


def searched(
    folder: Path,
    trials: int = 40,
    *,
    confirmed: int = 4,
    seeds: int = 5,
    epochs: int = 9,
    seed: int = 0,
    **changes: Any,
) -> Path:
    """A realistic whole study: search with early stopping, divergence and failures, then confirmation."""
    rng = np.random.default_rng(seed)
    runs: list[dict[str, Any]] = []
    curves: list[dict[str, Any]] = []
    tests: dict[tuple[int, int], dict[str, Any]] = {}
    full: list[tuple[float, int, dict[str, Any]]] = []
    free = [0.0] * 4  # seconds from the study's start at which each of four places is free
    data = record(**changes)["data"]
    for trial in range(trials):
        knobs = {
            "framework": str(rng.choice(["scene_only", "moe", "mlhe", "mlhe_plus", "csem"])),
            "lr": float(10 ** rng.uniform(-4.3, -2)),
            "w_event": float(rng.choice([0, 0.01, 0.5, 1.0])),
            "shared_layers": int(rng.integers(1, 3)),
            "mixup": float(rng.uniform(0, 0.5)),
            "spec_augment": bool(rng.integers(2)),
        }
        level = (
            0.80
            - 0.09 * abs(math.log10(knobs["lr"]) + 3) ** 2
            + 0.03 * (knobs["framework"] in ("csem", "mlhe"))
        )
        score = float(np.clip(level + rng.normal(0, 0.012), 0.1, 0.98))
        row = run(trial, score, knobs=knobs, epochs=epochs, seconds=float(rng.uniform(8, 20) * epochs))
        row["parameters"] = parameters(knobs)
        if trial < 2:
            row["origin"] = "published: Hou 2023 Table III " + ("cSEM-PANN" if trial else "MlhE-PANN")
        if trial > 1 and trial % 17 == 5:
            row |= {
                "state": "DIVERGED",
                "epochs": 2,
                "score": math.nan,
                "reason": "loss is nan at step 41: scene_ce nan, event_bce 0.31",
            }
        elif trial > 1 and trial % 23 == 7:
            row |= {
                "state": "FAIL",
                "epochs": 1,
                "score": math.nan,
                "reason": "RuntimeError: worker died (signal 9), retried 2 times",
            }
        elif trial > 5 and score < 0.80:
            stop = 1 if score < 0.72 else 3
            last = rising(score, epochs)[stop - 1]
            row |= {"state": "PRUNED", "epochs": stop, "score": last, "seconds": 15.0 * stop}
            row["reason"] = (
                f"{last:.3f} < {last + 0.04:.3f}, the cut-off at epoch {stop} among {trial} trials"
            )
        else:
            full.append((score, trial, knobs))
        occupy(free, row)
        runs.append(row)
        curves += curve(row, rising(score, epochs, 0.01)[: row["epochs"]])
    for score, trial, knobs in sorted(full, reverse=True)[:confirmed]:
        origin = runs[trial]["origin"]
        for repeat in range(1, seeds + 1):
            value = float(score - 0.01 + rng.normal(0, 0.0067))
            row = run(trial, value, repeat=repeat, knobs=knobs, epochs=epochs, seconds=160.0, origin=origin)
            row["test/scene_accuracy"] = value - 0.02 + float(rng.normal(0, 0.004))
            row["parameters"] = parameters(knobs)
            occupy(free, row)
            runs.append(row)
            curves += curve(row, rising(value, epochs, 0.01))
            size = (len(data["scenes"]), len(data["events"]))
            tests[trial, repeat] = scored_test(*size, row["test/scene_accuracy"], seed=100 * trial + repeat)
    (folder / "best").mkdir(parents=True, exist_ok=True)
    changes = {"concurrent": 4} | changes
    return write(
        folder, runs, curves, tests, epochs=epochs, trials=trials, confirm=confirmed, seeds=seeds, **changes
    )


def confirmed(scores: dict[int, list[float]], **changes: Any) -> pd.DataFrame:
    rows = [
        run(trial, score, repeat=i + 1, **changes)
        for trial, all_ in scores.items()
        for i, score in enumerate(all_)
    ]
    return pd.DataFrame(rows)


def ranked(runs: pd.DataFrame, **changes: Any) -> rank.Ranking:
    return rank.ranking(
        runs, **({"epochs": 9, "test_metric": "test/scene_accuracy", "test_clips": 100} | changes)
    )
