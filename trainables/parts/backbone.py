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
    """Features (B, 1, T, F) → embedding (B, `width`).

    stem      features → what the first block reads; None = the features themselves
    blocks    in order
    pooling   what the last block gives → (B, `pooled`)
    linear    (inputs, outputs) → fully connected layer, initialised as this backbone's are
    classifier  the same for the classifiers on the embedding; None = `linear`
    dropout_before, dropout_after  around the embedding's FC + ReLU
    """

    blocks: tuple[Make, ...]
    pooling: Make
    pooled: int
    width: int
    linear: Callable[[int, int], nn.Linear]
    dropout_before: float = 0.0
    dropout_after: float = 0.0
    stem: Make | None = None
    classifier: Callable[[int, int], nn.Linear] | None = None


def trunk(backbone: Backbone, shared_layers: int) -> nn.Sequential:
    """The stem and the first `shared_layers` blocks, named block1, block2, …"""
    parts = OrderedDict([("stem", backbone.stem())] if backbone.stem else [])
    parts.update((f"block{i + 1}", make()) for i, make in enumerate(backbone.blocks[:shared_layers]))
    return nn.Sequential(parts)


def branch(backbone: Backbone, shared_layers: int, embedding_layers: int = 1) -> nn.Sequential:
    """The blocks after the first `shared_layers`, under the numbers they have in the backbone, the pooling,
    and `embedding_layers` × (FC + ReLU) named fc1, fc2: (what `trunk` gives) → (B, width)."""
    tail = enumerate(backbone.blocks[shared_layers:], start=shared_layers + 1)
    parts: OrderedDict[str, nn.Module] = OrderedDict((f"block{i}", make()) for i, make in tail)
    parts["pooling"] = backbone.pooling()
    parts["dropout"] = nn.Dropout(backbone.dropout_before)
    inputs = backbone.pooled
    for i in range(1, embedding_layers + 1):
        parts[f"fc{i}"] = backbone.linear(inputs, backbone.width)
        parts[f"relu{i}"] = nn.ReLU()
        parts[f"dropout{i}"] = nn.Dropout(backbone.dropout_after)
        inputs = backbone.width
    return nn.Sequential(parts)
