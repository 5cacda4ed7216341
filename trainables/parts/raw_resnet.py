"""A residual network on raw waveforms: Jung et al. 2020, Table 1, and the network of their DCASE 2019 system.

pre-emphasis - strided convolution (12 samples to a frame) - residual blocks, each a third as long - maximum
and mean over what is left. All lengths are in samples: at 48 kHz a frame is 0.25 ms and a step of the last
map 0.55 s, at 16 kHz three times that.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trainables.parts.frontend import Normalise

Activation = Literal["after_add", "before_add"]
STRIDE, POOL = 12, 3


@dataclass(frozen=True)
class RandomCrop:
    """`samples` of every clip from a place of its own, drawn anew each time; a shorter clip stays whole."""

    samples: int

    def __call__(self, x: Tensor) -> Tensor:
        """(B, C, T, F) → (B, C, min(T, samples), F)"""
        spare = x.shape[2] - self.samples
        if spare <= 0:
            return x
        starts = torch.randint(spare + 1, (len(x),)).tolist()  # on the CPU: a GPU need not be waited for
        return torch.stack([clip[:, start : start + self.samples] for clip, start in zip(x, starts)])


class PreEmphasis(nn.Module):
    """Waveform (B, C, N) → features (B, C, N - 1, 1): x[t] - a·x[t - 1] of each channel, at unit deviation.

    The first sample has none before it, so that 480,000 samples become the 479,999 of Table 1. One mean and
    one deviation for all samples of the training set.
    """

    def __init__(self, sample_rate: int, a: float = 0.97, crop: RandomCrop | None = None) -> None:
        super().__init__()
        self.sample_rate, self.a = sample_rate, a
        self.normalise = Normalise(1, crop)

    def raw(self, waveform: Tensor) -> Tensor:
        """(B, C, N) → (B, C, N - 1, 1) float32 before normalisation."""
        x = waveform.float()
        return (x[..., 1:] - self.a * x[..., :-1]).unsqueeze(-1)

    def forward(self, waveform: Tensor) -> Tensor:
        return self.normalise(self.raw(waveform))

    def extra_repr(self) -> str:
        """What `raw` depends on: statistics may be kept under this text."""
        return f"pre-emphasis {self.a:g}, {self.sample_rate} Hz"


class ResidualBlock(nn.Module):
    """(B, C, T) → (B, C', T // 3): conv 3 - BN - LeakyReLU - conv 3 - BN, the input added, the maximum of
    every three steps.

    The second LeakyReLU comes before the sum (as Table 1 lists it) or after it (the 2019 code, and He et al.
    2016). An input of another width goes through a convolution of its own, without BN.
    """

    def __init__(self, inputs: int, outputs: int, slope: float, activation: Activation) -> None:
        super().__init__()
        self.conv1 = nn.Conv1d(inputs, outputs, 3, padding=1)
        self.bn1 = nn.BatchNorm1d(outputs)
        self.conv2 = nn.Conv1d(outputs, outputs, 3, padding=1)
        self.bn2 = nn.BatchNorm1d(outputs)
        self.widen = nn.Conv1d(inputs, outputs, 3, padding=1) if inputs != outputs else nn.Identity()
        self.slope, self.activation = slope, activation

    def forward(self, x: Tensor) -> Tensor:
        y = F.leaky_relu(self.bn1(self.conv1(x)), self.slope)
        y = self.bn2(self.conv2(y))
        if self.activation == "before_add":
            y = F.leaky_relu(y, self.slope) + self.widen(x)
        else:
            y = F.leaky_relu(y + self.widen(x), self.slope)
        return F.max_pool1d(y, POOL)


class ConvNorm(nn.Sequential):
    """(B, C, T) → (B, C', T'): convolution - BN - LeakyReLU."""

    def __init__(
        self, inputs: int, outputs: int, kernel: int, slope: float, *, stride: int = 1, padding: int = 0
    ) -> None:
        super().__init__(
            nn.Conv1d(inputs, outputs, kernel, stride=stride, padding=padding),
            nn.BatchNorm1d(outputs),
            nn.LeakyReLU(slope),
        )


class RawResNet(nn.Sequential):
    """Samples (B, C, T) → feature map (B, widths[-1], t), t as `lengths` says (6 more with `last`).

    widths  of the strided convolution and of each block
    last    the 2019 code's 1×1 convolution after the blocks, with its padding of 3: three steps at either
            end hold nothing but the bias
    """

    def __init__(
        self, channels: int, widths: Sequence[int], *, slope: float, activation: Activation, last: bool
    ) -> None:
        layers: list[nn.Module] = [ConvNorm(channels, widths[0], STRIDE, slope, stride=STRIDE)]
        layers += [
            ResidualBlock(inputs, outputs, slope, activation)
            for inputs, outputs in zip(widths[:-1], widths[1:])
        ]
        if last:
            layers.append(ConvNorm(widths[-1], widths[-1], 1, slope, padding=3))
        super().__init__(*layers)


def lengths(samples: int, blocks: int) -> list[int]:
    """Steps left of `samples` after the strided convolution and after each block."""
    found = [samples // STRIDE]
    for _ in range(blocks):
        found.append(found[-1] // POOL)
    return found


def least_samples(blocks: int) -> int:
    """The fewest samples that leave a step after the last block."""
    return STRIDE * POOL**blocks


def pooled(x: Tensor) -> Tensor:
    """(B, C, t) → (B, 2C): mean and maximum over time side by side (Table 1)."""
    return torch.cat([x.mean(2), x.amax(2)], 1)
