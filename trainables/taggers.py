"""Models that say of a clip which events are in it: the published PANNs and AST files, and ours.

    tagger = load_tagger("Cnn14_16k_mAP=0.438.pth", names="class_labels_indices.csv")
    tagger.module(waveform)  # (B, 1, N) at tagger.sample_rate → probabilities (B, 527)

The files hold no class names. AudioSet's list, class_labels_indices.csv, comes with AudioSet and with either
model's code and gives them in the models' order; without it the classes are audioset_000 … audioset_526.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from datasets.corpora.audioset import read_classes
from trainables.model_folder import load_model
from trainables.parts.audioset_taggers import CLASSES, PANNS, AudioSetAst, Cnn14
from trainables.pretrained import WEIGHTS
from trainables.weights import Fit, Rename, WeightsError, file_checksum, fit, read_state

HOW = "accept=True (on a command line --accept-mismatch) takes it as it is"
STFT = "spectrogram_extractor.stft.conv_real.weight"
PANNS_RATES = {form.window: rate for rate, form in PANNS.items()}
AST = (
    Rename("v.patch_embed.", "stem."),
    Rename("v.cls_token", "stem.cls_token"),
    Rename("v.dist_token", "stem.dist_token"),
    Rename("v.pos_embed", "stem.pos_embed"),
    Rename("v.blocks.", "blocks."),
    Rename("v.norm.", "norm."),
)
IMAGENET_HEADS = ("v.head.", "v.head_dist.")  # AST never calls them; every released AST file has them
NEAR = 1e-5  # of the largest value: how far constants in a file may be from ours


@dataclass(frozen=True)
class Tagger:
    """module       waveform (B, C, N) at `sample_rate` → probabilities (B, K), in eval mode
    names        (K,) event classes
    sample_rate  Hz
    checksum     SHA-256 of the weights' file
    name         of the file or folder
    notes        what of the file was not used, a line each
    """

    module: nn.Module
    names: tuple[str, ...]
    sample_rate: int
    checksum: str
    name: str
    notes: tuple[str, ...] = ()


class EventProbabilities(nn.Module):
    """A joint model of ours as a tagger: waveform (B, C, N) → sigmoid(event_logits) (B, E).

    Clips shorter than `samples` are padded with zeros at the end, as they are in its training batches.
    """

    def __init__(self, model: nn.Module, samples: int) -> None:
        super().__init__()
        self.model, self.samples = model, samples

    def forward(self, waveform: Tensor) -> Tensor:
        padded = F.pad(waveform, (0, max(0, self.samples - waveform.shape[-1])))
        return torch.sigmoid(self.model(padded).event_logits)


def load_tagger(path: Path | str, *, accept: bool = False, names: Path | str | None = None) -> Tagger:
    """A tagger from PANNs' Cnn14 for 16 or 32 kHz, AST of AudioSet, or a `best/` folder of a study.

    accept  take a file with tensors that have no use here, or whose front end's constants are not ours; one
            that lacks a layer is always refused
    names   class_labels_indices.csv for the published models; a `best/` folder knows its own

    Raises FileNotFoundError, or ValueError in one line for anything that is no tagger.
    """
    path = Path(path)
    if path.is_dir():
        return _own(path, names)
    state = read_state(path)
    if STFT in state:
        module, rate, notes = _panns(path, state, accept)
    elif "v.pos_embed" in state:
        module, rate, notes = _ast(path, state, accept)
    else:
        raise WeightsError(
            f"{path}: no known tagger: it has neither {STFT} (PANNs' Cnn14) nor v.pos_embed (AST), but "
            f"{', '.join(list(state)[:3])} …"
        )
    name = path.name.removesuffix(".pth")
    return Tagger(module.eval(), _class_names(names), rate, file_checksum(path), name, tuple(notes))


def _panns(path: Path, state: Mapping[str, Tensor], accept: bool) -> tuple[nn.Module, int, list[str]]:
    window = state[STFT].shape[-1]
    if window not in PANNS_RATES:
        raise WeightsError(
            f"{path}: an STFT window of {window} samples; known are {', '.join(map(str, PANNS_RATES))}, of "
            f"Cnn14 for {', '.join(map(str, PANNS_RATES.values()))} Hz"
        )
    rate = PANNS_RATES[window]
    model = Cnn14(PANNS[rate])
    constants = model.frontend.released_buffers()
    fitted = fit({n: t for n, t in state.items() if n not in constants}, model)
    notes = _load(path, model, fitted, _differing(state, constants), accept)
    return model, rate, notes


def _ast(path: Path, state: Mapping[str, Tensor], accept: bool) -> tuple[nn.Module, int, list[str]]:
    model = AudioSetAst()
    heads = [name for name in state if name.startswith(IMAGENET_HEADS)]
    fitted = fit({n: t for n, t in state.items() if n not in heads}, model, AST)
    notes = _load(path, model, fitted, [], accept)
    unused = f"ImageNet heads of the file, which AST never uses: {', '.join(heads)}"
    return model, model.frontend.sample_rate, notes + ([unused] if heads else [])


def _load(path: Path, model: nn.Module, fitted: Fit, differing: list[str], accept: bool) -> list[str]:
    """Fill the model; what did not fit, a line each."""
    said = [] if fitted.exact else fitted.report()
    if fitted.unmatched or fitted.refused:
        raise WeightsError(f"{path}: a layer of the tagger is missing: {'; '.join(said)}")
    if (said or differing) and not accept:
        raise WeightsError(f"{path}: {'; '.join(said + differing)}; {HOW}")
    fitted.load_into(model)
    return said + differing


def _differing(state: Mapping[str, Tensor], ours: Mapping[str, Tensor]) -> list[str]:
    """Constants of the file's front end that are missing or not what ours computes with, a line each."""
    lines = []
    for name, expected in ours.items():
        found = state.get(name)
        if found is None:
            lines.append(f"{name}: not in the file")
        elif found.shape != expected.shape:
            lines.append(f"{name}: shape {tuple(found.shape)} in the file, {tuple(expected.shape)} here")
        elif (far := float((found - expected).abs().max() / expected.abs().max())) > NEAR:
            lines.append(f"{name}: up to {far:.2g} of its largest value away from ours")
    return lines


def _own(folder: Path, names: Path | str | None) -> Tagger:
    if names is not None:
        raise ValueError(f"{folder}: a model of ours knows its event names; leave out the list {names}")
    model, about = load_model(folder)
    events, audio = tuple(about["events"]), about["audio"]
    if not events or getattr(model, "event_classifier", True) is None:
        raise ValueError(f"{folder}: this model has no event branch to tag with")
    return Tagger(
        EventProbabilities(model, audio["samples"]).eval(),
        events,
        audio["sample_rate"],
        file_checksum(folder / WEIGHTS),
        folder.resolve().name,
    )


def _class_names(path: Path | str | None) -> tuple[str, ...]:
    if path is None:
        return tuple(f"audioset_{n:03}" for n in range(CLASSES))
    return tuple(read_classes(Path(path)).values())
