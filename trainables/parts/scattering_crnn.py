"""A CRNN with attention at two levels on a deep scattering spectrum: the "wavelet-based DSS" system of Hou et
al. 2023, Table XI (Li et al., ICMEW 2019).

Of the network only this is known to us: convolutions, then (Hou et al.) a recurrent layer, and attention
modules on more than one layer whose outputs are joined before the classifier. Everything else is a reading:

paths as maps  S1 is one map of (time, λ1), the S2 of each λ2 another of the same axes, zero where λ1 is too
               low to have one, so that a convolution sees neighbours in λ1
three blocks   as PANN's first three (64, 128, 256 maps), but each halves λ1 only: a hop is long already
one block      a GRU in both directions of 128 units over the maps' time steps; what goes in is handed on
               beside what comes out
attention      for either of the two, a softmax over time of one learned score a value, and the sum it weighs
"""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor, nn

from trainables.parts.backbone import Backbone
from trainables.parts.cnn import ConvBlock, he_linear, pann_channels, scaled
from trainables.parts.scattering import Paths

BLOCKS = 3
UNITS = 128  # of the GRU, in each direction
LEAST = 8  # frames and first-order wavelets: three blocks halve the latter


class PathsAsMaps(nn.Module):
    """(B, C, T, F) paths → (B, C·(1 + λ2's), T, λ1's)."""

    place: Tensor

    def __init__(self, bands: int, paths: Paths) -> None:
        super().__init__()
        self.bands = bands
        self.maps = 2 + max(paths.second, default=-1)
        place = [*range(bands), *((1 + j) * bands + i for i, j in zip(*paths))]
        self.register_buffer("place", torch.tensor(place, device="cpu"), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        maps = x.new_zeros(*x.shape[:3], self.maps * self.bands)
        maps[..., self.place] = x
        return maps.unflatten(3, (self.maps, self.bands)).movedim(3, 2).flatten(1, 2)


class Recurrent(nn.Module):
    """(B, C, T, F) → (B, T, C·F + 2·`units`): the maps of each time step, and a GRU's states over them."""

    def __init__(self, inputs: int, units: int) -> None:
        super().__init__()
        self.gru = nn.GRU(inputs, units, batch_first=True, bidirectional=True)

    def forward(self, x: Tensor) -> Tensor:
        steps = x.transpose(1, 2).flatten(2)
        return torch.cat([steps, self.gru(steps)[0]], 2)


class AttentionOfLevels(nn.Module):
    """(B, T, Σ `levels`) → (B, Σ `levels`): each level summed over time with weights of its own."""

    def __init__(self, levels: tuple[int, ...]) -> None:
        super().__init__()
        self.levels = levels
        self.scores = nn.ModuleList(nn.Linear(size, size, bias=False) for size in levels)

    def forward(self, x: Tensor) -> Tensor:
        parts = zip(x.split(self.levels, 2), self.scores)
        return torch.cat([(score(part).softmax(1) * part).sum(1) for part, score in parts], 1)


def scattering_crnn(
    bands: int, paths: Paths, width: float, dropout: float, embedding_dropout: float, inputs: int = 1
) -> Backbone:
    """Three blocks of convolutions and the GRU's; embedding of 256·`width`. Needs LEAST frames and bands."""
    channels, units = pann_channels(BLOCKS, width), scaled(UNITS, width)
    step = channels[-1] * (bands // 2**BLOCKS)
    maps = (PathsAsMaps(bands, paths).maps * inputs, *channels)
    convolutions = (partial(ConvBlock, maps[i], maps[i + 1], (1, 2), dropout) for i in range(BLOCKS))
    return Backbone(
        stem=partial(PathsAsMaps, bands, paths),
        blocks=(*convolutions, partial(Recurrent, step, units)),
        channels=(*channels, step + 2 * units),
        pooling=partial(AttentionOfLevels, (step, 2 * units)),
        pooled=step + 2 * units,
        width=2 * units,
        linear=he_linear,
        dropout_before=embedding_dropout,
    )
