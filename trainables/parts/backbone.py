"""What a backbone is, and how it is split between two tasks.

A backbone is an optional stem, an ordered list of blocks, a pooling and a fully connected embedding layer,
all held as factories: a part used by both tasks is made once, a part of one branch is made once per branch.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from torch import nn

Make = Callable[[], nn.Module]


@dataclass(frozen=True)
class Backbone:
    """Features (B, C, T, F) → embedding (B, `width`).

    stem      features → what the first block reads; None = the features themselves
    blocks    in order; `channels` is how many each of them gives
    pooling   what the last block gives → (B, `pooled`)
    linear    (inputs, outputs) → fully connected layer, initialised as this backbone's are
    classifier  the same for the classifiers on the embedding; None = `linear`
    dropout_before, dropout_after  around the embedding's FC + ReLU
    """

    blocks: tuple[Make, ...]
    channels: tuple[int, ...]
    pooling: Make
    pooled: int
    width: int
    linear: Callable[[int, int], nn.Linear]
    dropout_before: float = 0.0
    dropout_after: float = 0.0
    stem: Make | None = None
    classifier: Callable[[int, int], nn.Linear] | None = None


def trunk(backbone: Backbone, shared_layers: int) -> nn.Sequential:
    """The stem and the first `shared_layers` blocks, named block1, block2, …; nothing if none is shared."""
    parts = _stem(backbone) if shared_layers else OrderedDict()
    parts.update((f"block{i + 1}", make()) for i, make in enumerate(backbone.blocks[:shared_layers]))
    return nn.Sequential(parts)


def branch(backbone: Backbone, shared_layers: int, embedding_layers: int = 1) -> nn.Sequential:
    """The blocks after the first `shared_layers`, under the numbers they have in the backbone, the pooling,
    and `embedding_layers` × (FC + ReLU) named fc1, fc2: (what `trunk` gives) → (B, width)."""
    parts = OrderedDict() if shared_layers else _stem(backbone)
    tail = enumerate(backbone.blocks[shared_layers:], start=shared_layers + 1)
    parts.update((f"block{i}", make()) for i, make in tail)
    parts["pooling"] = backbone.pooling()
    parts["dropout"] = nn.Dropout(backbone.dropout_before)
    parts.update(_embedding(backbone, backbone.pooled, embedding_layers))
    return nn.Sequential(parts)


def embedding(backbone: Backbone) -> nn.Sequential:
    """One more FC + ReLU on an embedding, named fc1: (B, width) → (B, width)."""
    return nn.Sequential(_embedding(backbone, backbone.width, 1))


def _embedding(backbone: Backbone, inputs: int, layers: int) -> OrderedDict[str, nn.Module]:
    parts: OrderedDict[str, nn.Module] = OrderedDict()
    for i in range(1, layers + 1):
        parts[f"fc{i}"] = backbone.linear(inputs, backbone.width)
        parts[f"relu{i}"] = nn.ReLU()
        parts[f"dropout{i}"] = nn.Dropout(backbone.dropout_after)
        inputs = backbone.width
    return parts


def _stem(backbone: Backbone) -> OrderedDict[str, nn.Module]:
    return OrderedDict([("stem", backbone.stem())] if backbone.stem else [])
