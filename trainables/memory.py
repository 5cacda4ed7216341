"""What a training step keeps in memory, found out without allocating it.

The model's own forward pass runs on tensors that have sizes and storages but no numbers (FakeTensorMode), as
a CPU would run it, fused attention included; what autograd keeps for the backward pass is then counted
storage by storage. A GPU keeps about the same; its workspaces and fragmentation come on top.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from trainables.contract import answer_features
from trainables.engine import make_optimiser


def training_memory(
    model: nn.Module, features: tuple[int, ...], *, optimiser: str, autocast: torch.dtype | None = None
) -> dict[str, int]:
    """Bytes of "parameters" (buffers included), "gradients", the "optimiser"'s state and the "activations" of
    a batch of features (B, C, T, F), and their "total". `model` is used up: its tensors lose their numbers.
    """
    trainable = [p for p in model.parameters() if p.requires_grad]
    found = {
        "parameters": sum(t.nbytes for t in (*model.parameters(), *model.buffers())),
        "gradients": sum(p.nbytes for p in trainable),
        "optimiser": round(sum(p.numel() for p in trainable) * optimiser_bytes(optimiser)),
    }
    with FakeTensorMode(allow_non_fake_inputs=True):
        fake = model.to_empty(device="cpu").train()
        found["activations"] = kept_for_backward(fake, torch.empty(features), autocast)
    return found | {"total": sum(found.values())}


def kept_for_backward(model: nn.Module, x: Tensor, autocast: torch.dtype | None = None) -> int:
    """Bytes of all storages, other than the model's own, that `from_features(x)` leaves for the backward
    pass. Of a checkpointed block these are its input; what it computes again then is not counted.
    """
    own = {_storage(t) for t in (*model.parameters(), *model.buffers())}
    kept: dict[int, Tensor] = {}  # the tensors too, lest a storage's place be given to another

    def keep(tensor: Tensor) -> Tensor:
        if _storage(tensor) not in own:
            kept[_storage(tensor)] = tensor
        return tensor

    with (
        torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor),
        _inputs_of_checkpoints(model, keep),
        torch.autocast("cpu", autocast, enabled=autocast is not None),
    ):
        output = answer_features(model, x)
    del output
    return sum(tensor.untyped_storage().nbytes() for tensor in kept.values())


def optimiser_bytes(name: str) -> float:
    """Bytes of state for each number of the parameters, from a step of the real optimiser on a few."""
    parameter = nn.Parameter(torch.zeros(64, device="cpu"))
    parameter.grad = torch.ones_like(parameter)
    optimiser = make_optimiser(name, [parameter], lr=1e-3, weight_decay=0.0)
    optimiser.step()
    slots = [v for v in optimiser.state[parameter].values() if torch.is_tensor(v)]
    return sum(v.nbytes for v in slots if v.shape == parameter.shape) / parameter.numel()


@contextmanager
def _inputs_of_checkpoints(model: nn.Module, keep: Callable[[Tensor], Tensor]) -> Iterator[None]:
    """A checkpointed block's input is kept beside autograd's own store, so hooks on that do not see it."""

    def note(part: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        keep(inputs[0])

    blocks = [part for part in model.modules() if getattr(part, "checkpointing", False)]
    handles = [block.register_forward_pre_hook(note) for block in blocks]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _storage(tensor: Tensor) -> int:
    return tensor.untyped_storage()._cdata
