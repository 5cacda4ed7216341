"""Analyses as trainables.analyse leaves them, from a few numbers: reports depend on the format alone."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

SCENES = ("park", "bus", "street", "mall")
EVENTS = ("Bird", "Car", "Speech", "Music", "Engine")


def dependence() -> list[dict[str, Any]]:
    kinds = (("pearson", "", ""), ("mutual information", "nearest neighbours, k = 3", "nat"))
    return [
        {"statistic": s, "estimator": e, "unit": u, "over": over, "mean": 0.125, "sd": 0.5, "n": 7, "of": 9}
        | {"undefined": 2}
        for over in ("dimensions", "clips")
        for s, e, u in kinds
    ]


def softmax(values: np.ndarray) -> np.ndarray:
    powers = np.exp(values - values.max(axis=-1, keepdims=True))
    return powers / powers.sum(axis=-1, keepdims=True)


def arrays(scenes: int, events: int, clips: int, seed: int = 0) -> dict[str, np.ndarray]:
    """Everything a coupled model leaves; every event is a little more probable in one scene."""
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, scenes, clips)
    logits = rng.normal(0, 1, (clips, scenes)) + 2 * np.eye(scenes)[truth]
    lean = rng.normal(0, 1.5, (scenes, events))
    coupling = lean + rng.normal(0, 0.5, (scenes, events))
    angle = 2 * np.pi * truth / scenes
    return {
        "clip": np.arange(clips),
        "scene": truth,
        "scene_logits": logits.astype(np.float32),
        "event_logits": (rng.normal(-2, 1, (clips, events)) + lean[truth]).astype(np.float32),
        "coupling": coupling,
        "event_attention": softmax(coupling),
        "scene_attention": softmax(coupling.T),
        "event_share": 1 / (1 + np.exp(-lean)),
        "clip_map": np.stack([np.cos(angle), np.sin(angle)], 1) * 9 + rng.normal(0, 2, (clips, 2)),
        "clip_rows": np.arange(clips),
        "label_map": rng.normal(0, 5, (scenes + events, 2)),
    }


def write(
    folder: Path,
    values: dict[str, np.ndarray] | None = None,
    *,
    split: str = "val",
    scenes: Sequence[str] = SCENES,
    events: Sequence[str] = EVENTS,
    **changes: Any,
) -> Path:
    """`folder` with an analysis/ of one split; `values` are its arrays, by default of 60 clips."""
    values = arrays(len(scenes), len(events), 60) if values is None else values
    clips = len(values["clip"])
    seen = {"of": clips, "points": clips, "seed": 0, "perplexity": 20.0, "note": ""}
    record = {
        "format": 1,
        "made": "2026-11-21T08:00:00+00:00",
        "analysed_with": {"commit": "0123abcd", "packages": {}},
        "model": {
            "family": "csem",
            "run": "runs/t0007-r1",
            "values": {"framework": "csem", "backbone": "tinycnn", "lr": 0.001},
            "seed": 3,
            "epoch": 9,
            "epochs": 9,
            "commit": "4567ef",
            "trained_on": "5e" * 32,
            "file": "model.safetensors",
            "sha256": "77" * 32,
        },
        "data": {"path": "/data", "corpus": "tut2018", "checksum": "5e" * 32, "licence": "", "split": split}
        | {"clips": clips},
        "scenes": list(scenes),
        "events": list(events),
        "metrics": {f"{split}/scene_accuracy": 0.5, f"{split}/event_map": 0.25},
        "coupled": True,
        "dependence": dependence(),
        "maps": {
            "clips": seen | {"distance": "euclidean"},
            "labels": seen | {"distance": "cosine", "of": len(scenes) + len(events)},
        },
        "left_out": [],
    }
    home = folder / "analysis"
    home.mkdir(parents=True, exist_ok=True)
    np.savez(home / f"{split}.npz", **values)
    (home / f"{split}.json").write_text(json.dumps(record | changes))
    return folder
