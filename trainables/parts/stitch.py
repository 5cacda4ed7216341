"""The cross-stitch unit (Misra et al., CVPR 2016, Eq. 1): two networks exchange activations.

Misra's networks have a unit after every pooling and fully connected layer, with one set of weights a channel.
Of cross-stitch-PANN (Hou et al. 2023, Table XI) no code is released. Assumed: two whole networks; units after
the poolings, which are the ends of PANN's first five blocks and the one over frequency and time, and after
the embedding; the published (α_S, α_D) are the weights at the start.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from trainables.parts.backbone import Backbone


class Stitch(nn.Module):
    """(scene, event) activations of one shape → the same, mixed channel by channel.

    scene'_c = α_SS,c · scene_c + α_SE,c · event_c, event'_c = α_ES,c · scene_c + α_EE,c · event_c

    `weight` (2, 2, C) is α, learned, at the start `same` where a task reads itself and `different` where it
    reads the other. Channels are axis 1 of maps (B, C, T, F) and the last axis of tokens (B, N, C) and
    vectors (B, C).
    """

    def __init__(self, channels: int, same: float, different: float) -> None:
        super().__init__()
        start = torch.tensor([[same, different], [different, same]])
        self.weight = nn.Parameter(start[:, :, None].repeat(1, 1, channels))

    def forward(self, scene: Tensor, event: Tensor) -> tuple[Tensor, Tensor]:
        weight = self.weight[..., None, None] if scene.dim() == 4 else self.weight
        to_scene, to_event = weight.unbind(0)
        return to_scene[0] * scene + to_scene[1] * event, to_event[0] * scene + to_event[1] * event


def stitches(backbone: Backbone, shared_layers: int, same: float, different: float) -> nn.ModuleDict:
    """Units for two branches of `backbone`, by the names of the parts they follow: the blocks but the last,
    the pooling, and the embedding.
    """
    own = enumerate(backbone.channels[shared_layers:-1], start=shared_layers + 1)
    sizes = {f"block{i}": channels for i, channels in own}
    sizes |= {"pooling": backbone.pooled, "relu1": backbone.width}
    return nn.ModuleDict({name: Stitch(size, same, different) for name, size in sizes.items()})
