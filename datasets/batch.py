"""What a batch holds. Data, models, losses and metrics all point here."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor


@dataclass(frozen=True)
class Batch:
    """B clips of one shard set, or of several (datasets.mix).

    waveform     (B, C, N) float32 in [-1, 1]; C channels, N samples; short clips end in zeros
    scene        (B, S) float32, a distribution: one-hot, or mixed by mixup; a row of zeros = unknown
    events       (B, E) float32 in [0, 1]: hard labels, or a teacher's probabilities
    event_known  (B, E) float32, 1 where `events` is to be believed, 0 where the label is unknown
    clip         (B,) int64, the clip's number in its split: the same clip has the same number in every epoch
    tags         (B, K) float32 in [0, 1], a teacher's probabilities; K = 0 where the shard set has none
    part         (B,) int64, which of the mixed shard sets the clip is from; zeros where there is one
    frames       (B, T, E) float32 in [0, 1], the events of each frame (datasets.frames); T = 0 where the
                 source was not asked for frames
    frame_known  (B, T) float32, 1 where `frames` is to be believed: in clips with onsets and offsets, up to
                 their end
    curated      (B,) float32, 0 where nobody has checked the clip's events, 1 where somebody has or the
                 corpus does not say
    """

    waveform: Tensor
    scene: Tensor
    events: Tensor
    event_known: Tensor
    clip: Tensor
    tags: Tensor = None  # type: ignore[assignment]  # both are on the clips' device once made
    part: Tensor = None  # type: ignore[assignment]
    frames: Tensor = None  # type: ignore[assignment]
    frame_known: Tensor = None  # type: ignore[assignment]
    curated: Tensor = None  # type: ignore[assignment]

    def __post_init__(self) -> None:
        if self.tags is None:
            object.__setattr__(self, "tags", self.waveform.new_zeros(len(self.waveform), 0))
        if self.part is None:
            object.__setattr__(self, "part", torch.zeros_like(self.clip))
        if self.frames is None:
            object.__setattr__(
                self, "frames", self.events.new_zeros(len(self.events), 0, self.events.shape[1])
            )
            object.__setattr__(self, "frame_known", self.events.new_zeros(len(self.events), 0))
        if self.curated is None:
            object.__setattr__(self, "curated", self.events.new_ones(len(self.events)))

    def __len__(self) -> int:
        return self.waveform.shape[0]

    def to(self, device: torch.device | str) -> Batch:
        moved = {f.name: getattr(self, f.name).to(device, non_blocking=True) for f in fields(self)}
        return replace(self, **moved)
