"""Where a run starts from instead of from random numbers: a published model or a run of ours.

Published: a state dict of PANNs, AST, cSEM or RGASC (trainables/released_names.py). Ours: a `best/` folder, a
run's folder or its `checkpoint/`, say of a TinyCNN trained on AudioSet: everything up to the embeddings is
taken over, and a classifier if it is of the same classes in the same order.

What the model computes its features with is never taken from there: mean and deviation are those of the new
training set. Where the weights were trained on other features (PANNs: 10·log10 mel of 16 or 32 kHz behind a
BatchNorm; cSEM's CNNs: ln mel of 44.1 kHz, each bin scaled to deviation 1), that is said, not corrected.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from datasets.labels import LabelSpace
from trainables import checkpoint
from trainables.released_names import MODELS, RELEASED
from trainables.weights import Fit, Rename, WeightsError, file_checksum, fit, read_state

WEIGHTS, DESCRIPTION = "model.safetensors", "model.json"  # of a best/ folder
HOW = "set accept_mismatch=true to start from what fits"
CLASSIFIERS = {"scenes": "scene_classifier.", "events": "event_classifier."}


@dataclass(frozen=True)
class Source:
    """Weights and what is known of them.

    kind      in words
    features  what they were trained on, as `features_of` says it; "" = not known
    classes   {"scenes": names, "events": names}; None for one that is not recorded
    own       a model of ours
    """

    tensors: Mapping[str, Tensor]
    checksum: str
    kind: str
    features: str
    classes: Mapping[str, tuple[str, ...] | None]
    own: bool = False


@dataclass(frozen=True)
class Start:
    """What a run started from: `path`, SHA-256 of the file, how it fitted, remarks (a line each)."""

    path: str
    checksum: str
    kind: str
    fit: Fit
    remarks: tuple[str, ...]

    def report(self) -> list[str]:
        return [f"pretrained: {self.kind}, {self.path}", *self.fit.report(), *self.remarks]

    def record(self) -> dict[str, Any]:
        """Ready for JSON."""
        about = {"path": self.path, "sha256": self.checksum, "kind": self.kind}
        return about | {"remarks": list(self.remarks)} | self.fit.record()


def start_from(model: nn.Module, path: str, labels: LabelSpace, *, accept: bool) -> Start:
    """Load what fits of `path` into the model. Raises FileNotFoundError, or WeightsError in one line if the
    weights cannot be read, nothing in them fits, or something does not and `accept` is False.
    """
    source = open_source(Path(path))
    fitted = _fitted(source, model, path, labels, accept)
    fitted.load_into(model)
    return Start(path, source.checksum, source.kind, fitted, tuple(_remarks(source, model, fitted)))


def refuse_unfit(model: nn.Module, path: str, labels: LabelSpace, *, accept: bool) -> None:
    """Raises what `start_from` would; `model` may be on the meta device and stays as it is."""
    stamp = [p.stat().st_mtime_ns for p in sorted(Path(path).glob("*"))] if Path(path).is_dir() else []
    _fitted(_without_numbers(path, (Path(path).stat().st_mtime_ns, *stamp)), model, path, labels, accept)


@functools.lru_cache(maxsize=4)
def _without_numbers(path: str, stamp: tuple[int, ...]) -> Source:
    """Names and shapes only; kept, for a search asks for every proposal."""
    source = open_source(Path(path))
    return replace(source, tensors={name: tensor.to("meta") for name, tensor in source.tensors.items()})


def _fitted(source: Source, model: nn.Module, path: str, labels: LabelSpace, accept: bool) -> Fit:
    renames: tuple[Rename, ...] = () if source.own else RELEASED
    fitted = fit(source.tensors, model, renames, refuse=_other_classes(source, labels))
    fitted.refuse(accept=accept, said=f"pretrained={path} ({source.kind})", how=HOW)
    return fitted


def open_source(path: Path) -> Source:
    """Weights of a file, a `best/` folder, a run's folder or its `checkpoint/`. Raises as `start_from`."""
    if not path.exists():
        raise FileNotFoundError(f"pretrained={path}: no such file or folder")
    if not path.is_dir():
        return _file(path)
    if (path / WEIGHTS).is_file() and (path / DESCRIPTION).is_file():
        try:
            about = json.loads((path / DESCRIPTION).read_text())
        except json.JSONDecodeError as error:
            raise WeightsError(f"{path / DESCRIPTION}: damaged: {error}") from error
        return _own(read_state(path / WEIGHTS), path / WEIGHTS, about)
    for folder in (path, path / "checkpoint"):
        if checkpoint.exists(folder):
            tensors, state = checkpoint.load(folder)
            weights = {n.removeprefix("model/"): t for n, t in tensors.items() if n.startswith("model/")}
            return _own(weights, folder / checkpoint.TENSORS, state)
    raise FileNotFoundError(
        f"pretrained={path}: no weights there; expected a file, a best/ folder, or a run's folder with its "
        "checkpoint/"
    )


def features_of(frontend: Any) -> str:
    """The features a front end gives, but for their rate: two of the same text are the same features, or at
    least meant to be. "LogMel, 64 bins, 50-22050 Hz"
    """
    if not hasattr(frontend, "n_mels"):
        return repr(frontend)
    limits = f"{frontend.f_min:g}-{frontend.f_max:g} Hz"
    return f"{type(frontend).__name__}, {frontend.n_mels} bins, {limits}"


def _file(path: Path) -> Source:
    state = read_state(path)
    unnamed = {"scenes": None, "events": None}
    for one in MODELS:
        if one.key in state and one.shape in (None, tuple(state[one.key].shape)):
            return Source(state, file_checksum(path), one.name, one.features, unnamed)
    return Source(state, file_checksum(path), "state dict", "", unnamed)


def _own(tensors: Mapping[str, Tensor], file: Path, about: Mapping[str, Any]) -> Source:
    classes = {kind: tuple(about[kind]) if kind in about else () for kind in CLASSIFIERS}
    kind = f"model of family {about.get('family', 'not recorded')}"
    return Source(tensors, file_checksum(file), kind, about.get("features", ""), classes, own=True)


def _other_classes(source: Source, labels: LabelSpace) -> dict[str, str]:
    """{prefix of a classifier: why it is not taken over}"""
    refused = {}
    for kind, prefix in CLASSIFIERS.items():
        theirs, ours = source.classes[kind], getattr(labels, kind)
        if theirs is not None and theirs != ours:
            refused[prefix] = f"{len(theirs)} {kind} there are not the {len(ours)} here"
    return refused


def _remarks(source: Source, model: nn.Module, fitted: Fit) -> list[str]:
    remarks = []
    here = features_of(model.frontend)
    if source.features != here:
        there = source.features or "not known"
        remarks.append(f"warning: these weights were trained on other features: {there}; here {here}")
    taken = {ours for ours, _ in fitted.loaded}
    for kind, prefix in CLASSIFIERS.items():
        if source.classes[kind] is None and prefix + "weight" in taken:
            remarks.append(f"{prefix}*: taken over, for the file has as many {kind}; it does not name them")
    return remarks
