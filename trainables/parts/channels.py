"""Which channels of a recording the features are taken of."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

InputChannels = Literal["mono", "left_right_difference"]
CHANNELS: dict[InputChannels, int] = {"mono": 1, "left_right_difference": 3}


def select(waveform: Tensor, kind: InputChannels) -> Tensor:
    """(B, C, N) → (B, 1, N), the mean of all channels, or (B, 3, N), left, right and left - right.

    The latter is Hou et al. 2023's input for TAU2019 (§V-G). Raises ValueError unless the waveform has the
    channels that it needs.
    """
    if waveform.dim() != 3:
        raise ValueError(f"expected a waveform (B, C, N), got shape {tuple(waveform.shape)}")
    if kind == "mono":
        return waveform.mean(1, keepdim=True)
    refuse_not_stereo(waveform.shape[1])
    left, right = waveform.unbind(1)
    return torch.stack([left, right, left - right], 1)


def refuse_not_stereo(channels: int) -> None:
    if channels != 2:
        raise ValueError(
            f"input_channels=left_right_difference needs stereo clips, 2 channels; these have {channels} "
            "(input_channels=mono reads any number)"
        )
