"""CNNT (Hou et al. 2023, §III-C): three PANN blocks, one self-attention layer over time, max + mean
pooling.
"""

from __future__ import annotations

from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trainables.parts.ast_encoder import EncoderBlock
from trainables.parts.backbone import Backbone
from trainables.parts.cnn import he_linear, pann_blocks, pann_channels, scaled

HEADS = 8
HEAD_WIDTH = 64
LEAST = 8  # frames and mel bins that three 2×2 poolings leave something of


class SelfAttention(nn.Module):
    """(B, C, T, F) → (B, T, D): time steps projected to D, then LayerNorm(x + attention(x)).

    One post-LN multi-head self-attention as in the released code: no feed-forward sublayer, no positional
    encoding, no dropout, although the paper calls it "a Transformer encoder layer from AST".
    """

    def __init__(self, inputs: int, heads: int, head_width: int) -> None:
        super().__init__()
        size = heads * head_width
        self.heads = heads
        self.projection = nn.Linear(inputs, size)
        self.query = nn.Linear(size, size)
        self.key = nn.Linear(size, size)
        self.value = nn.Linear(size, size)
        self.out = nn.Linear(size, size)
        self.norm = nn.LayerNorm(size)

    def forward(self, x: Tensor) -> Tensor:
        x = self.projection(x.transpose(1, 2).flatten(2))  # (B, T, C·F) → (B, T, D)
        query, key, value = (self._per_head(layer(x)) for layer in (self.query, self.key, self.value))
        attended = F.scaled_dot_product_attention(query, key, value)  # (B, heads, T, D / heads)
        return self.norm(x + self.out(attended.transpose(1, 2).flatten(2)))

    def _per_head(self, x: Tensor) -> Tensor:
        return x.unflatten(2, (self.heads, -1)).transpose(1, 2)


class TransformerLayer(nn.Module):
    """(B, C, T, F) → (B, T, D): time steps projected to D, then a block of AST, as the paper says."""

    def __init__(self, inputs: int, heads: int, head_width: int) -> None:
        super().__init__()
        self.projection = nn.Linear(inputs, heads * head_width)
        self.block = EncoderBlock(heads * head_width, heads, dropout=0.0, checkpointing=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.block(self.projection(x.transpose(1, 2).flatten(2)))


class MaxMeanTime(nn.Module):
    """(B, T, D) → (B, D)"""

    def forward(self, x: Tensor) -> Tensor:
        return torch.amax(x, 1) + x.mean(1)


def cnn_transformer(
    n_mels: int,
    width: float,
    dropout: float,
    embedding_dropout: float,
    as_printed: bool = False,
    inputs: int = 1,
) -> Backbone:
    """Four blocks: three ConvBlocks (320×64 → 40×8) and the self-attention (40×512), or with `as_printed` a
    whole encoder layer of AST in its place. Needs LEAST frames and mel bins.
    """
    encoder = TransformerLayer if as_printed else SelfAttention
    head_width = scaled(HEAD_WIDTH, width)
    channels = pann_channels(3, width)
    step = channels[-1] * (n_mels // 8)  # values a time step
    return Backbone(
        blocks=(*pann_blocks(3, width, dropout, inputs), partial(encoder, step, HEADS, head_width)),
        channels=(*channels, HEADS * head_width),
        pooling=MaxMeanTime,
        pooled=HEADS * head_width,
        width=HEADS * head_width,
        linear=he_linear,
        dropout_before=embedding_dropout,
    )
