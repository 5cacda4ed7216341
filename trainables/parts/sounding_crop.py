"""Random crops for clips of different length, of which a batch pads the shorter with digital silence."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class SoundingCrop:
    """`frames` of every clip from a place of its own within what is no digital silence at the end, drawn anew
    each time, then `after`. A clip with less stays at its beginning."""

    frames: int
    after: Callable[[Tensor], Tensor] | None = None

    def __call__(self, x: Tensor) -> Tensor:
        """(B, C, T, F) normalised features → (B, C, min(T, frames), F)"""
        size = min(self.frames, x.shape[2])
        spare = (sounding_frames(x) - size).clamp_min(0)
        starts = (torch.rand(len(x), device=x.device) * (spare + 1)).long()
        places = starts[:, None] + torch.arange(size, device=x.device)  # (B, size)
        x = x.gather(2, places[:, None, :, None].expand(-1, x.shape[1], -1, x.shape[3]))
        return x if self.after is None else self.after(x)


def sounding_frames(x: Tensor) -> Tensor:
    """(B,) int64: frames of log-mel features (B, C, T, F) up to the last one that is above the clip's least
    value in any bin. Digital silence, log of the floor, is the least there is."""
    above = (x > x.amin(2, keepdim=True)).any(3).any(1)  # (B, T)
    last = above.long().cumsum(1).argmax(1) + 1
    return torch.where(above.any(1), last, torch.zeros_like(last))
