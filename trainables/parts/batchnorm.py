"""Batch normalisation over the clips of every rank, on any device.

torch's own SyncBatchNorm runs on GPUs only; a data-parallel run on CPUs would otherwise normalise each rank
by its own clips and so differ from the one-worker run on the same global batch.
"""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.nn.functional import all_reduce


class CrossRankBatchNorm(nn.modules.batchnorm._BatchNorm):
    """BatchNorm over (all ranks' clips, positions); same parameters, buffers and names as nn.BatchNorm2d."""

    def _check_input_dim(self, input: Tensor) -> None:
        if input.dim() < 2:
            raise ValueError(f"batch normalisation needs (B, C, …), got {tuple(input.shape)}")

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return super().forward(x)
        axes = [0, *range(2, x.dim())]
        shape = [1, -1] + [1] * (x.dim() - 2)
        count = x.new_tensor([x.numel() / x.shape[1]])
        sums = all_reduce(torch.cat([x.sum(axes), (x * x).sum(axes), count]))  # gradients cross the ranks too
        mean, square, count = sums.split([x.shape[1], x.shape[1], 1])
        mean, square = mean / count, square / count
        variance = (square - mean * mean).clamp_min(0.0)
        self._update_running(mean.detach(), variance.detach(), count.detach())
        normalised = (x - mean.view(shape)) * torch.rsqrt(variance + self.eps).view(shape)
        return normalised * self.weight.view(shape) + self.bias.view(shape)

    @torch.no_grad()
    def _update_running(self, mean: Tensor, variance: Tensor, count: Tensor) -> None:
        assert (
            self.running_mean is not None
            and self.running_var is not None
            and self.num_batches_tracked is not None
        )
        self.num_batches_tracked += 1
        rate = 0.1 if self.momentum is None else self.momentum
        self.running_mean.lerp_(mean, rate)
        self.running_var.lerp_(variance * count / (count - 1).clamp_min(1.0), rate)


def synchronise(model: nn.Module, on_gpu: bool) -> nn.Module:
    """`model` with every BatchNorm replaced by one over all ranks of the process group; state is kept."""
    if not (dist.is_available() and dist.is_initialized()):
        raise RuntimeError("synchronised batch normalisation needs a process group; none is initialised")
    if on_gpu:
        return nn.SyncBatchNorm.convert_sync_batchnorm(model)
    for name, child in list(model.named_children()):
        if isinstance(child, (nn.BatchNorm1d, nn.BatchNorm2d)):
            replacement = CrossRankBatchNorm(child.num_features, child.eps, child.momentum)
            replacement.load_state_dict(child.state_dict())
            setattr(model, name, replacement)
        else:
            synchronise(child, on_gpu)
    return model
