"""AST, the Audio Spectrogram Transformer (Gong et al. 2021; Hou et al. 2023, §III-A): patches of the
spectrogram as tokens through the encoder of a distilled vision transformer (timm's ViT, DeiT-384).

Parameter names inside a block, and of the tokens, are timm's, as in the AudioSet checkpoint.
"""

from __future__ import annotations

from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from trainables.parts.backbone import Backbone
from trainables.parts.cnn import he_linear, scaled

PATCH = 16  # frames and mel bins
STRIDE = 10
HEADS = 12
HEAD_WIDTH = 64
EMBEDDING = 2048
LEAST = PATCH  # frames and mel bins of one patch
ENCODER_EPS = 1e-6
TOKENS = 2  # class and distillation, before the patches


class PatchEmbedding(nn.Module):
    """(B, C, T, F) → tokens (B, 2 + P, D): class, distillation, then P patches of 16×16 every 10 frames and
    mel bins, lowest frequency first and within one frequency in order of time; each plus a learned position.

    1024×128 gives 101·12 = 1212 patches. Positions are of one clip length: raises ValueError for another.
    """

    def __init__(self, frames: int, n_mels: int, size: int, inputs: int = 1) -> None:
        super().__init__()
        self.shape = (inputs, frames, n_mels)
        self.proj = nn.Conv2d(inputs, size, PATCH, stride=STRIDE)
        patches = along(frames) * along(n_mels)
        self.cls_token = nn.Parameter(torch.empty(1, 1, size))
        self.dist_token = nn.Parameter(torch.empty(1, 1, size))
        self.pos_embed = nn.Parameter(torch.empty(1, TOKENS + patches, size))
        for values in (self.cls_token, self.dist_token, self.pos_embed):
            nn.init.trunc_normal_(values, std=0.02)

    def forward(self, x: Tensor) -> Tensor:
        if x.shape[1:] != self.shape:
            raise ValueError(
                f"features of shape {tuple(x.shape)}; the position embeddings are of "
                f"(B, {', '.join(map(str, self.shape))})"
            )
        patches = self.proj(x.transpose(2, 3)).flatten(2).transpose(1, 2)  # (B, D, F', T') → (B, P, D)
        first = torch.cat([self.cls_token, self.dist_token], 1).expand(len(x), -1, -1)
        return torch.cat([first, patches], 1) + self.pos_embed


class Attention(nn.Module):
    """Multi-head self-attention, tokens (B, N, D) → (B, N, D)."""

    def __init__(self, size: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = _linear(size, 3 * size)
        self.proj = _linear(size, size)

    def forward(self, x: Tensor) -> Tensor:
        qkv = self.qkv(x).unflatten(2, (3, self.heads, -1))  # (B, N, 3, heads, D / heads)
        query, key, value = qkv.permute(2, 0, 3, 1, 4)
        return self.proj(F.scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2))


class FeedForward(nn.Module):
    """Four times as wide inside, with the exact GELU; (B, N, D) → (B, N, D)."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.fc1 = _linear(size, 4 * size)
        self.fc2 = _linear(4 * size, size)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.fc1(x)))


class EncoderBlock(nn.Module):
    """Pre-LN block: x + attention(LN(x)), then x + feed_forward(LN(x)); (B, N, D) → (B, N, D).

    dropout        of what each sublayer adds
    checkpointing  in training keep the block's input only and compute the rest again in the backward pass
    """

    def __init__(self, size: int, heads: int, dropout: float, checkpointing: bool) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(size, eps=ENCODER_EPS)
        self.attn = Attention(size, heads)
        self.norm2 = nn.LayerNorm(size, eps=ENCODER_EPS)
        self.mlp = FeedForward(size)
        self.dropout, self.checkpointing = dropout, checkpointing

    def forward(self, x: Tensor) -> Tensor:
        if self.checkpointing and self.training and torch.is_grad_enabled():
            return checkpoint(self._sublayers, x, use_reentrant=False)
        return self._sublayers(x)

    def _sublayers(self, x: Tensor) -> Tensor:
        x = x + F.dropout(self.attn(self.norm1(x)), self.dropout, self.training)
        return x + F.dropout(self.mlp(self.norm2(x)), self.dropout, self.training)


class ClassTokens(nn.Module):
    """Tokens (B, N, D) → (B, D): LayerNorm, mean of the class and the distillation token, and with
    `second_norm` another LayerNorm, as in the head of the AudioSet model.
    """

    def __init__(self, size: int, second_norm: bool) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(size, eps=ENCODER_EPS)
        self.fc_norm = nn.LayerNorm(size) if second_norm else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return self.fc_norm(
            self.norm(x[:, :TOKENS]).mean(1)
        )  # LayerNorm is per token: the rest is not needed


def ast(
    frames: int,
    n_mels: int,
    depth: int,
    width: float,
    dropout: float,
    embedding_dropout: float,
    *,
    second_norm: bool,
    checkpointing: bool,
    inputs: int = 1,
) -> Backbone:
    """`depth` encoder blocks of 12 heads of 64·`width` values, i.e. 768·`width` values a token; embedding of
    2048·`width`. Needs LEAST frames and mel bins.
    """
    size = HEADS * scaled(HEAD_WIDTH, width)
    return Backbone(
        stem=partial(PatchEmbedding, frames, n_mels, size, inputs),
        blocks=(partial(EncoderBlock, size, HEADS, dropout, checkpointing),) * depth,
        channels=(size,) * depth,
        pooling=partial(ClassTokens, size, second_norm),
        pooled=size,
        width=scaled(EMBEDDING, width),
        linear=he_linear,
        classifier=nn.Linear,
        dropout_before=embedding_dropout,
    )


def along(size: int) -> int:
    """How many patches lie along an axis of `size` frames or mel bins."""
    return (size - PATCH) // STRIDE + 1


def _linear(inputs: int, outputs: int) -> nn.Linear:
    layer = nn.Linear(inputs, outputs)
    nn.init.trunc_normal_(layer.weight, std=0.02)
    nn.init.zeros_(layer.bias)
    return layer
