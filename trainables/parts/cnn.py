"""Convolutional backbones: PANN (Kong et al. 2020, Cnn14 as cSEM uses it) and TinyCNN (Hou et al. 2023,
§III-D).
"""

from __future__ import annotations

from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trainables.parts.backbone import Backbone

PANN_CHANNELS = (64, 128, 256, 512, 1024, 2048)
PANN_LEAST = 32  # frames and mel bins that five 2×2 poolings leave something of
TINY_CHANNELS = (32, 64)
TINY_EMBEDDING = 100
TINY_LEAST = 49  # the same for two rounds of 7×7 convolution with padding 1 and 5×5 pooling


def he_uniform(layer: nn.Linear | nn.Conv2d) -> None:
    """U(-s, s) with s = √3·√(2 / fan_in), bias 0: the released code's `init_layer`."""
    nn.init.kaiming_uniform_(layer.weight, nonlinearity="relu")
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)


def he_linear(inputs: int, outputs: int) -> nn.Linear:
    layer = nn.Linear(inputs, outputs)
    he_uniform(layer)
    return layer


def scaled(channels: int, width: float) -> int:
    return max(1, round(channels * width))


class ConvBlock(nn.Module):
    """PANN block: (B, C_in, T, F) → (B, C_out, T / pool, F / pool). Twice conv 3×3 - BN - ReLU, average
    pooling (of both axes, or of each its own), dropout.
    """

    def __init__(self, inputs: int, outputs: int, pool: int | tuple[int, int], dropout: float) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.pool, self.dropout = pool, dropout
        he_uniform(self.conv1)
        he_uniform(self.conv2)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.bn1(self.conv1(x)), inplace=True)
        x = F.relu(self.bn2(self.conv2(x)), inplace=True)
        x = F.avg_pool2d(x, self.pool) if self.pool != 1 else x
        return F.dropout(x, self.dropout, self.training)


class TinyBlock(nn.Module):
    """TinyCNN block: conv 7×7 with padding 1 - BN - ReLU - max pooling 5×5 - dropout; 320×64 → 63×12 →
    11×1.
    """

    def __init__(self, inputs: int, outputs: int, dropout: float) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, 7, padding=1, bias=False)
        self.bn = nn.BatchNorm2d(outputs)
        self.dropout = dropout

    def forward(self, x: Tensor) -> Tensor:
        x = F.max_pool2d(F.relu(self.bn(self.conv(x)), inplace=True), 5)
        return F.dropout(x, self.dropout, self.training)


class MeanFrequencyMaxMeanTime(nn.Module):
    """(B, C, T, F) → (B, C): mean over frequency, then the sum of maximum and mean over time."""

    def forward(self, x: Tensor) -> Tensor:
        x = x.mean(3)
        return torch.amax(x, 2) + x.mean(2)


def pann_blocks(count: int, width: float, dropout: float, inputs: int = 1) -> tuple[partial[ConvBlock], ...]:
    """The first `count` of PANN's six blocks. All halve time and frequency but the sixth, which keeps
    them.
    """
    channels = [inputs, *pann_channels(6, width)]
    return tuple(
        partial(ConvBlock, channels[i], channels[i + 1], 1 if i == 5 else 2, dropout) for i in range(count)
    )


def pann_channels(count: int, width: float) -> tuple[int, ...]:
    return tuple(scaled(c, width) for c in PANN_CHANNELS[:count])


def pann(width: float, dropout: float, embedding_dropout: float, inputs: int = 1) -> Backbone:
    """Six ConvBlocks; 320×64 → 10×2; embedding of 2048·`width`. Needs PANN_LEAST frames and mel bins."""
    channels = pann_channels(6, width)
    top = channels[-1]
    return Backbone(
        blocks=pann_blocks(6, width, dropout, inputs),
        channels=channels,
        pooling=MeanFrequencyMaxMeanTime,
        pooled=top,
        width=top,
        linear=he_linear,
        dropout_before=embedding_dropout,
    )


def tiny_cnn(
    frames: int, n_mels: int, width: float, dropout: float, embedding_dropout: float, inputs: int = 1
) -> Backbone:
    """Two TinyBlocks, flattened; the size of the flat vector follows from the clip. PyTorch's own
    initialisation. Needs TINY_LEAST frames and mel bins."""
    first, second = (scaled(c, width) for c in TINY_CHANNELS)
    left = _tiny_size(frames) * _tiny_size(n_mels)
    return Backbone(
        blocks=(partial(TinyBlock, inputs, first, dropout), partial(TinyBlock, first, second, dropout)),
        channels=(first, second),
        pooling=nn.Flatten,
        pooled=second * left,
        width=scaled(TINY_EMBEDDING, width),
        linear=nn.Linear,
        dropout_after=embedding_dropout,
    )


def _tiny_size(size: int) -> int:
    """What two TinyBlocks leave of an axis: the 7×7 convolution takes 4, the pooling divides by 5, rounding
    down.
    """
    return ((size - 4) // 5 - 4) // 5
