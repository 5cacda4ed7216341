"""What a tag vector tells a scene network: Jung et al. 2020, §3."""

from __future__ import annotations

from torch import Tensor, nn


def tag_layers(tags: int, width: int, count: int, slope: float) -> nn.Sequential:
    """(B, tags) → (B, width), or the tags themselves with `count` 0: fully-connected layers, each with a
    LeakyReLU."""
    layers: list[nn.Module] = []
    for layer in range(count):
        layers += [nn.Linear(width if layer else tags, width), nn.LeakyReLU(slope)]
    return nn.Sequential(*layers)


class TagAttention(nn.Module):
    """Multi-head attention on the filters of a feature map (B, f, t), from tags (B, K): M'_ij = M_ij ⊙ A_i.

    A (B, f) is a linear map of the tags, split in h groups with a softmax over each group's f/h filters;
    every step of time has the same A. That is Eq. 2 with A_i where "M_1", … and "am_h" are printed. A
    softmax makes the mean gain h/f; `rescale` multiplies with f/h, so that it is 1. The paper does not.

    Raises ValueError for heads that do not divide the filters.
    """

    def __init__(self, tags: int, filters: int, heads: int, *, rescale: bool = False) -> None:
        super().__init__()
        if heads < 1 or filters % heads:
            raise ValueError(f"heads={heads} do not divide the {filters} filters of the feature map")
        self.map = nn.Linear(tags, filters)
        self.heads, self.gain = heads, filters / heads if rescale else 1.0

    def forward(self, x: Tensor, tags: Tensor) -> Tensor:
        return x * self.attention(tags).unsqueeze(2)

    def attention(self, tags: Tensor) -> Tensor:
        """(B, K) → (B, f); each group sums to 1, to f/h with `rescale`."""
        groups = self.map(tags).unflatten(1, (self.heads, -1))
        return groups.float().softmax(2).flatten(1) * self.gain
