"""Gradient reversal (Ganin et al. 2016; Imoto et al. 2022, Eqs. 4 and 5)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


class _Reverse(torch.autograd.Function):
    @staticmethod
    def forward(context: Any, x: Tensor, strength: float) -> Tensor:
        context.strength = strength
        return x.view_as(x)

    @staticmethod
    def backward(context: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return gradients[0] * -context.strength, None


class GradientReversal(nn.Module):
    """Identity whose gradient is multiplied by -`strength` (λ), in any shape. What lies before it learns to
    make worse what lies behind it."""

    def __init__(self, strength: float) -> None:
        super().__init__()
        self.strength = strength

    def forward(self, x: Tensor) -> Tensor:
        return _Reverse.apply(x, self.strength)

    def extra_repr(self) -> str:
        return f"strength={self.strength:g}"
