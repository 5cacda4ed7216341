"""Models that say of a clip which events are in it."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trainables.export import WEIGHTS, load_model


@dataclass(frozen=True)
class Tagger:
    """module       waveform (B, 1, N) at `sample_rate` → probabilities (B, K), in eval mode
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

    Clips shorter than `samples` are padded with zeros at the end, as they are in training batches.
    """

    def __init__(self, model: nn.Module, samples: int) -> None:
        super().__init__()
        self.model, self.samples = model, samples

    def forward(self, waveform: Tensor) -> Tensor:
        padded = F.pad(waveform, (0, max(0, self.samples - waveform.shape[-1])))
        return torch.sigmoid(self.model(padded).event_logits)


def load_tagger(path: Path | str, *, accept: bool = False, names: Path | str | None = None) -> Tagger:
    """A tagger from a folder `trainables.export` wrote. Raises FileNotFoundError, or ValueError in one line
    for anything that is no tagger."""
    folder = Path(path)
    model, about = load_model(folder)
    events, audio = tuple(about["events"]), about["audio"]
    if not events or getattr(model, "event_classifier", True) is None:
        raise ValueError(f"{folder}: this model has no event branch to tag with")
    with open(folder / WEIGHTS, "rb") as file:
        checksum = hashlib.file_digest(file, "sha256").hexdigest()
    module = EventProbabilities(model, audio["samples"]).eval()
    return Tagger(module, events, audio["sample_rate"], checksum, folder.resolve().name)
