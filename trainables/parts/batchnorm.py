"""Batch normalisation over the clips of every rank, on any device.

torch's own SyncBatchNorm runs on GPUs only; a data-parallel run on CPUs would otherwise normalise each rank
by its own clips and so differ from the one-worker run on the same global batch.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable


class CrossRankBatchNorm(nn.modules.batchnorm._BatchNorm):
    """BatchNorm over (all ranks' clips, positions); same parameters, buffers and names as nn.BatchNorm2d."""

    def _check_input_dim(self, input: Tensor) -> None:
        if input.dim() < 2:
            raise ValueError(f"batch normalisation needs (B, C, …), got {tuple(input.shape)}")

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return super().forward(x)
        mean, variance, count = moments(x)
        self._update_running(mean, variance, count)
        return _Normalise.apply(x, self.weight, self.bias, mean, variance, count, self.eps)

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


@torch.no_grad()
def moments(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Mean (C,), biased variance (C,) and number () of all ranks' values of each channel of x (B, C, …): each
    rank's own, joined as by Chan et al., 1979, which loses no digits where the mean is large."""
    exact = x.to(torch.promote_types(x.dtype, torch.float32))
    variance, mean = torch.var_mean(exact, [0, *range(2, x.dim())], correction=0)
    own = torch.cat([mean, variance, mean.new_tensor([x.numel() / x.shape[1]])])
    ranks = [torch.empty_like(own) for _ in range(dist.get_world_size())]
    dist.all_gather(ranks, own)
    means, variances, counts = torch.stack(ranks).split([len(mean), len(mean), 1], dim=1)
    share = counts / counts.sum()
    mean = (share * means).sum(0)
    return mean, (share * (variances + (means - mean) ** 2)).sum(0), counts.sum()


class _Normalise(torch.autograd.Function):
    """Normalise by the moments of all ranks; the gradient is that of all ranks' losses together, for the
    moments are made of all ranks' values. The passes over x are torch's own for fixed moments."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        bias: Tensor,
        mean: Tensor,
        variance: Tensor,
        count: Tensor,
        eps: float,
    ) -> Tensor:
        ctx.save_for_backward(x, weight, mean, variance, count)
        ctx.eps = eps
        return F.batch_norm(x, mean, variance, weight, bias, training=False, eps=eps)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, mean, variance, count = ctx.saved_tensors
        fixed = torch.ops.aten.native_batch_norm_backward
        towards_x, towards_weight, towards_bias = fixed(
            grad, x, weight, mean, variance, None, None, False, ctx.eps, [True, True, True]
        )
        if ctx.needs_input_grad[0]:
            sums = torch.cat([towards_bias, towards_weight])
            dist.all_reduce(sums)
            of_mean, of_deviation = (sums / count).chunk(2)
            scale = torch.rsqrt(variance + ctx.eps)
            slope = -weight * scale * scale * of_deviation
            offset = -weight * scale * of_mean - slope * mean
            shape = [1, -1] + [1] * (x.dim() - 2)
            towards_x.addcmul_(x, slope.view(shape).to(x.dtype)).add_(offset.view(shape).to(x.dtype))
        return towards_x, towards_weight, towards_bias, None, None, None, None


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
