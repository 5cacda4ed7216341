"""What `python -m trainables.analyse` wrote, as values; and the page of a single model.

    python -m reports.analysis studies/NAME/runs/t0007-r1
    python -m reports.analysis RUN --event Speech --event Vehicle

makes analysis.html in the folder given: one file, no network, no script. The report of a study has the same
sections for its best model.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy.special import expit

FORMAT = 1
SPLITS = ("train", "val", "test")
REQUIRED = ("model", "data", "scenes", "events", "metrics", "dependence", "maps", "left_out", "coupled")


class AnalysisError(ValueError):
    """The folder holds no readable analysis; the message is one line for the person who named it."""


@dataclass(frozen=True)
class Analysis:
    """One model on one split: `record` is SPLIT.json, `arrays` SPLIT.npz (see trainables/analyse.py)."""

    folder: Path
    record: Mapping[str, Any]
    arrays: Mapping[str, np.ndarray]

    @property
    def split(self) -> str:
        return str(self.record["data"]["split"])

    @property
    def scenes(self) -> tuple[str, ...]:
        return tuple(str(name) for name in self.record["scenes"])

    @property
    def events(self) -> tuple[str, ...]:
        return tuple(str(name) for name in self.record["events"])

    @property
    def clips(self) -> int:
        return int(len(self.arrays["clip"]))

    @property
    def predicted(self) -> np.ndarray:
        """(N,) the scene each clip was taken for."""
        return self.arrays["scene_logits"].argmax(axis=1)

    def event_probabilities(self) -> np.ndarray | None:
        """(N, E); None for a model without an event branch."""
        return (
            expit(self.arrays["event_logits"].astype(np.float64)) if "event_logits" in self.arrays else None
        )


def load(folder: str | Path) -> tuple[Analysis, ...]:
    """The analyses in a model's folder, its analysis/ or any folder they were written to: train, val, test.

    Raises AnalysisError: no such folder, no analysis in it, another format, a damaged file.
    """
    root = Path(folder)
    if not root.is_dir():
        raise AnalysisError(f"{root}: no such folder")
    home = root / "analysis" if (root / "analysis").is_dir() else root
    found = [home / f"{split}.json" for split in SPLITS if (home / f"{split}.json").is_file()]
    if not found:
        raise AnalysisError(
            f"{root}: not analysed yet; run python -m trainables.analyse {root} --data SHARDS"
        )
    return tuple(_read(path) for path in found)


def current(folder: str | Path) -> tuple[Analysis, ...]:
    """As `load`, without those of a model that is no longer in the folder. Raises AnalysisError if only such
    are left."""
    root, found = Path(folder), load(folder)
    for weights in (root / "model.safetensors", root / "checkpoint" / "tensors.safetensors"):
        if weights.is_file() and not (found := of_model(found, weights)):
            raise AnalysisError(f"{root}: analysed before its model changed; run trainables.analyse again")
    return found


def of_model(analyses: tuple[Analysis, ...], weights: Path) -> tuple[Analysis, ...]:
    """Those made from the model in this very file; the others are of a model that was there before."""
    with open(weights, "rb") as handle:
        checksum = hashlib.file_digest(handle, "sha256").hexdigest()
    return tuple(one for one in analyses if one.record["model"].get("sha256") == checksum)


def _read(path: Path) -> Analysis:
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(record, dict) or record.get("format") != FORMAT:
            raise AnalysisError(f"{path}: not an analysis of format {FORMAT}")
        missing = [name for name in REQUIRED if name not in record]
        if missing:
            raise AnalysisError(f"{path}: lacks {', '.join(missing)}")
        with np.load(path.with_suffix(".npz"), allow_pickle=False) as stored:
            arrays = {name: stored[name] for name in stored.files}
        _check(path, record, arrays)
    except AnalysisError:
        raise
    except Exception as error:  # a damaged zip raises whatever its bytes make of it
        told = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        raise AnalysisError(f"{path}: cannot be read with its arrays ({told})") from error
    return Analysis(path.parent, record, arrays)


def _check(path: Path, record: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> None:
    clips, scenes, events = len(arrays["clip"]), len(record["scenes"]), len(record["events"])
    shapes = {
        "scene": (clips,),
        "scene_logits": (clips, scenes),
        "event_logits": (clips, events),
        "coupling": (scenes, events),
        "event_attention": (scenes, events),
        "scene_attention": (events, scenes),
        "event_share": (scenes, events),
        "clip_map": (len(arrays["clip_rows"]), 2),
        "clip_rows": (len(arrays["clip_map"]),),
        "relation": (scenes, events, events),
        "clip_relation": (len(arrays.get("relation_clip", ())), events, events),
    }
    for name, shape in shapes.items():
        if name in arrays and arrays[name].shape != shape:
            raise AnalysisError(f"{path}: {name} has the shape {arrays[name].shape}, expected {shape}")
    labels = arrays.get("label_map")
    if labels is not None and labels.shape not in ((0, 2), (scenes + events, 2)):
        raise AnalysisError(
            f"{path}: label_map has the shape {labels.shape}, expected {(scenes + events, 2)}"
        )


if __name__ == "__main__":
    from reports.analysis_page import main

    sys.exit(main())
