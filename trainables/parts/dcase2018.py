"""The baseline CNN of DCASE 2018 task 1 (Mesaros et al. 2018; Heittola's task1a.yaml in DCASE-REPO's
dcase2018_baseline), which is DCASE 2019's as well.

40×500 log-mel (mel bins × frames), one clip:
conv 7×7, 32, same size, with bias   1·49·32 + 32      =   1 600
BatchNorm, ReLU, max pooling 5×5     4·40              =     160   → 32 maps of 8×100
conv 7×7, 64                         32·49·64 + 64     = 100 416
BatchNorm, ReLU, max pooling 4×100   4·8               =      32   → 64 maps of 2×1
dropout .3 after either; FC 100, ReLU, dropout .3  128·100 + 100 = 12 900; FC 10  1 010
Together 116 118, the published count. It takes in the running means and variances, and a BatchNorm over mel
bins: the released code keeps channels last but normalises axis 1. 116 022 are trained.

The second pooling spans what is left of the clip, whatever its length.
"""

from __future__ import annotations

from functools import partial

import torch.nn.functional as F
from torch import Tensor, nn

from trainables.parts.backbone import Backbone
from trainables.parts.cnn import scaled

CHANNELS = (32, 64)
EMBEDDING = 100
POOLS = (5, 4)  # mel bins
LEAST = 20  # frames and mel bins; fewer mel bins leave nothing after both poolings


class MelNormBlock(nn.Module):
    """(B, C_in, T, F) → (B, C_out, T / pool, F / pool): conv 7×7 - BatchNorm over the `n_mels` = F mel bins -
    ReLU - max pooling by `pool` mel bins and `pool` frames, or with `all_frames` over every frame - dropout.

    Glorot-uniform convolutions and Keras' BatchNorm (momentum .99, ε 1e-3).
    """

    def __init__(
        self, inputs: int, outputs: int, n_mels: int, pool: int, all_frames: bool, dropout: float
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, 7, padding=3)
        self.bn = nn.BatchNorm2d(n_mels, eps=1e-3, momentum=0.01)
        self.pool, self.all_frames, self.dropout = pool, all_frames, dropout
        nn.init.xavier_uniform_(self.conv.weight)
        nn.init.zeros_(self.conv.bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.bn(self.conv(x).transpose(1, 3)).transpose(1, 3))  # mel bins as channels
        x = F.max_pool2d(x, (x.shape[2] if self.all_frames else self.pool, self.pool))
        return F.dropout(x, self.dropout, self.training)


def dcase2018(
    n_mels: int, width: float, dropout: float, embedding_dropout: float, inputs: int = 1
) -> Backbone:
    """Two MelNormBlocks, flattened; embedding of 100·`width`. Needs LEAST frames and mel bins."""
    first, second = (scaled(c, width) for c in CHANNELS)
    left = n_mels // POOLS[0]
    return Backbone(
        blocks=(
            partial(MelNormBlock, inputs, first, n_mels, POOLS[0], False, dropout),
            partial(MelNormBlock, first, second, left, POOLS[1], True, dropout),
        ),
        channels=(first, second),
        pooling=nn.Flatten,
        pooled=second * (left // POOLS[1]),
        width=scaled(EMBEDDING, width),
        linear=_keras_uniform,
        dropout_after=embedding_dropout,
    )


def _keras_uniform(inputs: int, outputs: int) -> nn.Linear:
    layer = nn.Linear(inputs, outputs)
    nn.init.uniform_(layer.weight, -0.05, 0.05)
    nn.init.zeros_(layer.bias)
    return layer
