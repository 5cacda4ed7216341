"""ResNet-18 and ResNet-34 (He et al. 2016, Table 1) on a picture of time × frequency.

7×7 convolution with stride 2, 3×3 maximum with stride 2, four stages of basic blocks, the last three of which
halve both axes, global average or maximum: time and frequency shrink by 32 before that.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn

from trainables.parts.cnn import scaled

STEM = 64
STAGES = (64, 128, 256, 512)
RESNET18, RESNET34 = (2, 2, 2, 2), (3, 4, 6, 3)  # blocks of each stage


class BasicBlock(nn.Module):
    """(B, C_in, T, F) → (B, C_out, T / stride, F / stride): conv 3×3 - BN - ReLU - conv 3×3 - BN, plus the
    input, ReLU. Where the shape changes the input goes through a 1×1 convolution and BN (projection, option
    B).
    """

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        same = stride == 1 and inputs == outputs
        self.shortcut = nn.Identity() if same else _projection(inputs, outputs, stride)

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.bn1(self.conv1(x)), inplace=True)
        return F.relu(self.bn2(self.conv2(y)) + self.shortcut(x), inplace=True)


class ResNet(nn.Module):
    """(B, `inputs`, T, F) → (B, `outputs`), 512·`width` numbers. Any T and F; He-normal weights (fan-out).

    depths  blocks of each of the four stages
    pool    what of the last map is taken: its mean, or its maximum over time and frequency

    Without the head ResNet-18 has 11,176,512 parameters for 3 input channels and 11,170,240 for one,
    ResNet-34 21,284,672 and 21,278,400.
    """

    def __init__(
        self,
        inputs: int,
        width: float = 1.0,
        *,
        depths: Sequence[int],
        pool: Literal["mean", "max"] = "mean",
    ) -> None:
        super().__init__()
        stem = scaled(STEM, width)
        self.conv = nn.Conv2d(inputs, stem, 7, 2, padding=3, bias=False)
        self.bn = nn.BatchNorm2d(stem)
        self.pool = nn.MaxPool2d(3, 2, padding=1)
        blocks, before = [], stem
        for stage, (channels, depth) in enumerate(zip((scaled(c, width) for c in STAGES), depths)):
            for block in range(depth):
                blocks.append(BasicBlock(before, channels, stride=2 if stage and not block else 1))
                before = channels
        self.blocks = nn.Sequential(*blocks)
        self.outputs, self.over = before, pool
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        x = self.pool(F.relu(self.bn(self.conv(x)), inplace=True))
        x = self.blocks(x)
        return x.mean((2, 3)) if self.over == "mean" else x.amax((2, 3))


def _projection(inputs: int, outputs: int, stride: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))
