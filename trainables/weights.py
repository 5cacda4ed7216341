"""Weights from a file into a model: read without running anything in the file, renamed, compared name by name
and shape by shape, and loaded only if everything fits or what does not is accepted.

Three steps. `read_state` gives named tensors; `rename` gives them our names (pairs of prefixes as data, those
of the released files in trainables/released_names.py); `fit` says which tensor of the model each one fills,
and lists every tensor without a partner on either side.

A model with one branch and one with two meet in `SOURCES`: what the file holds of one network goes to the
trunk as far as the model shares it, and above that to both branches.
"""

from __future__ import annotations

import hashlib
import math
import re
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy._core.multiarray import _reconstruct
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from trainables.parts.ast_encoder import TOKENS, along

FRONT_END = "frontend."  # holds training-set statistics and constants, never learned weights
MEL_MEAN = "frontend.normalise.mean"  # (F,) in a file of ours
RELEASED_MELS = range(128)  # of the released models, which do not say
SOURCES = (  # our prefix: where in the file its tensors may come from, best first
    ("shared.", ("shared.", "scene.")),
    ("scene.", ("scene.", "shared.")),
    ("event.", ("event.", "scene.", "shared.")),
)
POSITIONS = "pos_embed"
# What a numpy array in a pickle asks for: training programs keep some beside the weights
ARRAYS: list[Any] = [
    (_reconstruct, "numpy.core.multiarray._reconstruct"),
    (_reconstruct, "numpy._core.multiarray._reconstruct"),
    np.ndarray,
    np.dtype,
    *(type(np.dtype(kind)) for kind in ("bool", "int32", "int64", "float32", "float64")),
]
WRAPPERS = ("model", "state_dict")  # keys under which training programs keep the tensors


class WeightsError(ValueError):
    """A file that holds no weights, or weights that do not fit."""


@dataclass(frozen=True)
class Rename:
    """A prefix of a file's tensor names and ours for it. `{n}` stands for a number, to which ours adds
    `first`, and how many numbers there are of the file's prefix `after`.
    """

    file: str
    ours: str
    first: int = 0
    after: str = ""


@dataclass(frozen=True)
class Fit:
    """How a file's tensors meet a model's. Names of the file are its own.

    loaded     (ours, the file's) of equal shape
    reshaped   (ours, the file's, what was done): loaded after interpolation
    refused    (ours, the file's, why): of another shape or label space, not loaded
    unmatched  ours without a source
    unused     the file's without a use
    """

    loaded: tuple[tuple[str, str], ...]
    reshaped: tuple[tuple[str, str, str], ...]
    refused: tuple[tuple[str, str, str], ...]
    unmatched: tuple[str, ...]
    unused: tuple[str, ...]
    tensors: Mapping[str, Tensor] = field(repr=False)

    @property
    def exact(self) -> bool:
        return not (self.reshaped or self.refused or self.unmatched or self.unused)

    def report(self) -> list[str]:
        """One line for each kind of mismatch, tensors of one module together: "v.head.* (2)"."""
        lines = [f"{len(self.tensors)} of the model's {len(self.tensors) + self._without} tensors loaded"]
        lines += [f"interpolated: {ours} ← {theirs}, {how}" for ours, theirs, how in self.reshaped]
        layers: dict[tuple[str, str], list[tuple[str, str, str]]] = {}
        for one in self.refused:
            layers.setdefault((one[0].rpartition(".")[0], one[1].rpartition(".")[0]), []).append(one)
        for (ours, theirs), ((name, original, why), *more) in layers.items():
            pair = f"{ours}.* ({len(more) + 1}) ← {theirs}.*" if more else f"{name} ← {original}"
            lines.append(f"not loaded: {pair}, {why}")
        if self.unmatched:
            lines.append(f"in the model without a source: {', '.join(grouped(self.unmatched))}")
        if self.unused:
            lines.append(f"in the file without a use: {', '.join(grouped(self.unused))}")
        return lines

    def record(self) -> dict[str, Any]:
        """Every mismatch by its full name, ready for JSON."""
        return {
            "loaded": len(self.tensors),
            "reshaped": [list(one) for one in self.reshaped],
            "refused": [list(one) for one in self.refused],
            "unmatched": list(self.unmatched),
            "unused": list(self.unused),
        }

    def refuse(self, *, accept: bool, said: str, how: str) -> None:
        """Raises WeightsError, beginning with `said`, if the fit is not exact and not accepted (`how` says
        how to), or if nothing fits.
        """
        if not self.tensors:
            raise WeightsError(f"{said}: nothing in it fits the model; {'; '.join(self.report()[1:])}")
        if not self.exact and not accept:
            raise WeightsError(f"{said}: {'; '.join(self.report())}; {how}")

    def load_into(self, model: nn.Module) -> None:
        own = model.state_dict()
        with torch.no_grad():
            for name, tensor in self.tensors.items():
                own[name].copy_(tensor)

    @property
    def _without(self) -> int:
        return len(self.unmatched) + len(self.refused)


def fit(
    state: Mapping[str, Tensor],
    model: nn.Module,
    renames: Sequence[Rename] = (),
    refuse: Mapping[str, str] = {},
) -> Fit:
    """Find for every tensor of the model its source in `state`; but what a model computes from its training
    data (the front end's statistics, buffers of a module with `fit_labels`) is left alone on either side.

    refuse  {our prefix: why}: tensors that are not loaded even if they would fit

    Position embeddings (1, 2 + P, D) of another number of patches are interpolated (`resized_positions`).
    """
    frontend: Any = model.get_submodule("frontend") if hasattr(model, "frontend") else None
    counted = _from_data(model)
    own = {n: t for n, t in model.state_dict().items() if not n.startswith(counted)}
    renamed = rename(state, renames)
    choices = {name: [renamed[source] for source in _sources(name) if source in renamed] for name in own}
    pairs = {name: found[0] for name, found in choices.items() if found}
    refused = {
        ours: why
        for ours, theirs in pairs.items()
        if (why := _obstacle(ours, own[ours], state[theirs], refuse))
    }
    layers = {name.removesuffix(".weight") for name in refused if name.endswith(".weight")}
    halves = (name for name in pairs if name.rpartition(".")[0] in layers)
    refused |= {name: refused.get(name, "its weight is not loaded") for name in halves}
    tensors, reshaped = {}, []
    for ours, theirs in pairs.items():
        if ours in refused:
            continue
        tensors[ours] = state[theirs]
        if state[theirs].shape != own[ours].shape:
            old = position_grid(state[theirs], len(state.get(MEL_MEAN, RELEASED_MELS)))
            new = position_grid(own[ours], frontend.n_mels)
            tensors[ours] = resized_positions(state[theirs], old, new)
            reshaped.append((ours, theirs, "{} × {} → {} × {} patches".format(*old, *new)))
    without_use = state.keys() - set(pairs.values())
    return Fit(
        loaded=tuple((ours, pairs[ours]) for ours in tensors if ours not in {r[0] for r in reshaped}),
        reshaped=tuple(reshaped),
        refused=tuple((ours, pairs[ours], why) for ours, why in refused.items()),
        unmatched=tuple(name for name in own if name not in pairs),
        unused=tuple(n for n in state if n in without_use and not n.startswith(counted)),
        tensors=tensors,
    )


def _from_data(model: nn.Module) -> tuple[str, ...]:
    """Prefixes of the tensors that are made of training data."""
    parts = [(name, part) for name, part in model.named_modules() if hasattr(part, "fit_labels")]
    return (FRONT_END, *(f"{name}.{buffer}" for name, part in parts for buffer, _ in part.named_buffers()))


def _obstacle(ours: str, target: Tensor, found: Tensor, refuse: Mapping[str, str]) -> str | None:
    """Why a tensor of the file cannot fill the model's; None if it can."""
    said = next((why for prefix, why in refuse.items() if ours.startswith(prefix)), None)
    positions = ours.endswith(POSITIONS) and found.dim() == 3 and found.shape[2] == target.shape[2]
    if said or found.shape == target.shape or positions:
        return said
    return f"({_shape(target)}) here, ({_shape(found)}) there"


def rename(names: Iterable[str], renames: Sequence[Rename]) -> dict[str, str]:
    """{our name: the file's}; a name that no rename begins keeps itself."""
    names = list(names)
    offsets = {
        r.after: len({m[1] for name in names if (m := re.match(rf"{re.escape(r.after)}\.(\d+)\.", name))})
        for r in renames
        if r.after
    }
    found: dict[str, str] = {}
    for name in names:
        found[next((new for r in renames if (new := _renamed(name, r, offsets))), name)] = name
    return found


def _renamed(name: str, rule: Rename, offsets: Mapping[str, int]) -> str | None:
    match = re.match(re.escape(rule.file).replace(r"\{n\}", r"(\d+)"), name)
    if match is None:
        return None
    ours = rule.ours
    if match.groups():
        ours = ours.replace("{n}", str(int(match[1]) + rule.first + offsets.get(rule.after, 0)))
    return ours + name[match.end() :]


def _sources(name: str) -> tuple[str, ...]:
    for prefix, froms in SOURCES:
        if name.startswith(prefix):
            return tuple(source + name.removeprefix(prefix) for source in froms)
    return (name,)


def position_grid(positions: Tensor, n_mels: int) -> tuple[int, int]:
    """(frequency, time) patches that position embeddings (1, 2 + P, D) of `n_mels` mel bins are of. Raises
    WeightsError if P is no multiple of the patches along frequency.
    """
    rows, patches = along(n_mels), positions.shape[1] - TOKENS
    if rows < 1 or patches < rows or patches % rows:
        raise WeightsError(
            f"{POSITIONS} of {patches} patches: expected a multiple of {rows}, as of {n_mels} mel bins"
        )
    return rows, patches // rows


def resized_positions(positions: Tensor, old: tuple[int, int], new: tuple[int, int]) -> Tensor:
    """(1, 2 + f·t, D) → (1, 2 + f'·t', D): the two tokens' embeddings stay, the patches' are interpolated
    bilinearly over the (frequency, time) grid, the grids' outer edges on one another.
    """
    tokens, patches = positions[:, :TOKENS], positions[:, TOKENS:]
    grid = patches.float().transpose(1, 2).unflatten(2, old)  # (1, D, f, t): lowest frequency first
    grid = F.interpolate(grid, size=new, mode="bilinear", align_corners=False)
    return torch.cat([tokens.float(), grid.flatten(2).transpose(1, 2)], 1)


def grouped(names: Sequence[str]) -> list[str]:
    """["a.w", "a.b", "c"] → ["a.* (2)", "c"]; what is below a numbered part is one: "blocks.10.* (12)"."""
    modules: dict[str, list[str]] = {}
    for name in names:
        block = re.match(r"((?:[^.]*\.)*?[^.]*\d[^.]*)\.", name)
        modules.setdefault(block[1] if block else name.rpartition(".")[0] or name, []).append(name)
    return [inside[0] if len(inside) == 1 else f"{m}.* ({len(inside)})" for m, inside in modules.items()]


def read_state(path: Path | str) -> dict[str, Tensor]:
    """Named tensors of a safetensors file or of a torch file (a state dict, or a dict that holds one under
    "model" or "state_dict"); a leading "module." of every name (DataParallel) is taken off.

    Nothing in the file is run. Raises FileNotFoundError for a missing file and WeightsError, in one line, for
    one that holds anything else: a web page, a pickle with code, half a file, numbers that are not finite.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file")
    with open(path, "rb") as file:
        start = file.read(64).lstrip()
    if start[:1] == b"<" or not start:
        what = "a web page" if start else "empty"
        raise WeightsError(f"{path}: {what}, not weights; download it again")
    state = _read_torch(path) if start[:2] == b"PK" or start[:1] == b"\x80" else _read_safetensors(path)
    return _checked(path, state)


def file_checksum(path: Path) -> str:
    """SHA-256 of a file."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except SafetensorError as error:
        raise WeightsError(
            f"{path}: neither a torch file nor a whole safetensors file ({_first_line(error)})"
        ) from error


def _read_torch(path: Path) -> Any:
    try:
        with torch.serialization.safe_globals(ARRAYS), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of pickle protocols
            return torch.load(path, map_location="cpu", weights_only=True)
    except UnpicklingError as error:
        named = re.search(r"GLOBAL ([\w.]+)", str(error))
        if named is None:
            raise WeightsError(
                f"{path}: a damaged torch file, or a pickle that torch did not write"
            ) from error
        raise WeightsError(
            f"{path}: refused: it asks for {named[1]} to be run, which is no tensor; save a plain state dict"
        ) from error
    except (RuntimeError, EOFError, ValueError, KeyError, AssertionError, IndexError) as error:
        raise WeightsError(f"{path}: damaged or cut off: {_first_line(error)}") from error


def _checked(path: Path, state: Any) -> dict[str, Tensor]:
    for wrapper in WRAPPERS:
        if isinstance(state, Mapping) and isinstance(state.get(wrapper), Mapping):
            state = state[wrapper]
    if not isinstance(state, Mapping) or not state:
        raise WeightsError(f"{path}: holds {type(state).__name__}, expected a dict of tensors")
    strange = [name for name, value in state.items() if not isinstance(value, Tensor)]
    if strange:
        kind = type(state[strange[0]]).__name__
        raise WeightsError(f"{path}: {strange[0]!r} is {kind}, expected tensors only")
    broken = [
        n for n, t in state.items() if t.is_floating_point() and not math.isfinite(float(t.float().sum()))
    ]
    if broken:
        raise WeightsError(f"{path}: {broken[0]} holds numbers that are not finite")
    prefix = "module." if all(name.startswith("module.") for name in state) else ""
    return {name.removeprefix(prefix): tensor for name, tensor in state.items()}


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__


def _shape(tensor: Tensor) -> str:
    return ", ".join(map(str, tensor.shape))
