"""Why a model named a scene and not another: what each event, or each edge between two events, gave to it.

A reason has a number for every scene, its pull; what it gave to the scene named is its pull on that scene
less its pull on the runner-up. Each kind is an exact sum, not an impression:

coupling   cSEM (Hou et al. 2023, Algorithm 1): the scene inferred from the event embedding is
           ỹ_s = Σ_e A_e[s, e] · z_e, with A_e the attention that the coupling matrix W_s W_eᵀ gives each
           scene over the events, and z_e = W_e[e] · E_e the event's logit without bias. An event's pull is
           its term of the sum; an event that is not heard (z_e < 0) pulls on the scenes that expect it least.
prior      RGASC: ỹ_s = Σ_e σ(logit_e) · R[s, e], and the terms of that sum.
edges      ERGL: the pull of the edge from event j to event i is what its message in the last graph
           convolution, σ(ê_ij) ⊙ B h_j / Σ_j σ(ê_ij), adds to the scene's logit. Between a message and the
           logits there are a sum, a normalisation and a ReLU, linear as long as the ReLU's sign stays; the
           sum over j is the logit's whole dependence on the messages.

Of cSEM and RGASC these are the events' own vote ỹ_s. The scene named is the scene branch's, which was
trained to agree with that vote and need not.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from trainables.contract import JointOutput
from trainables.parts.coupling import attend
from trainables.parts.event_graph import GatedGraphConvolution
from trainables.parts.prior import PriorRelation


class Reasons(Protocol):
    """`kind`: coupling, prior or edges; `names` of the K reasons, an event each or (from, to)."""

    @property
    def kind(self) -> str: ...

    @property
    def names(self) -> tuple[tuple[str, ...], ...]: ...

    def pull(self, output: JointOutput) -> Tensor:
        """(B, S, K): what each reason gave to each scene, for the model's last answer."""
        ...


class CouplingReasons:
    kind = "coupling"

    def __init__(self, model: Any, events: Sequence[str]) -> None:
        self.names: tuple[tuple[str, ...], ...] = tuple((name,) for name in events)
        scene, self.event = model.scene_classifier.weight, model.event_classifier.weight
        self.attention = attend(scene, self.event)[1]  # (S, E)

    def pull(self, output: JointOutput) -> Tensor:
        assert output.event_embedding is not None
        return (output.event_embedding @ self.event.T)[:, None] * self.attention


class PriorReasons:
    kind = "prior"

    def __init__(self, relation: PriorRelation, events: Sequence[str]) -> None:
        self.names: tuple[tuple[str, ...], ...] = tuple((name,) for name in events)
        self.prior = relation.prior

    def pull(self, output: JointOutput) -> Tensor:
        assert output.event_logits is not None
        return output.event_logits.sigmoid()[:, None] * self.prior


class EdgeReasons:
    """Listens to the last graph convolution while inside `listening`."""

    kind = "edges"

    def __init__(self, model: Any, layer: GatedGraphConvolution, events: Sequence[str]) -> None:
        chosen = [events[column] for column in model.columns.tolist()]
        self.names: tuple[tuple[str, ...], ...] = tuple((a, b) for b in chosen for a in chosen)
        self.layer, self.classifier = layer, model.scene_classifier
        self.heard: tuple[Tensor, Tensor] | None = None

    @contextmanager
    def listening(self) -> Iterator[None]:
        def keep(_: nn.Module, given: tuple[Tensor, Tensor]) -> None:
            self.heard = given

        hook = self.layer.register_forward_pre_hook(keep)
        try:
            yield
        finally:
            hook.remove()

    def pull(self, output: JointOutput) -> Tensor:
        assert self.heard is not None
        nodes, edges = (x.float() for x in self.heard)
        own, sent, start, end = self.layer.nodes(nodes).chunk(4, -1)
        gate = (self.layer.edges(edges) + start[:, None] + end[:, :, None]).sigmoid()
        message = gate * sent[:, None] / (gate.sum(2, keepdim=True) + 1e-6)  # (B, i, j, C)
        norm = self.layer.node_norm
        assert norm.running_var is not None
        received = own + message.sum(2)
        passed = norm(received.flatten(0, 1)).view_as(received) > 0
        slope = passed * (norm.weight / (norm.running_var + norm.eps).sqrt())
        weight = self.classifier.weight.view(-1, *nodes.shape[1:])  # (S, n, C)
        return torch.einsum("sic,bic,bijc->bsij", weight, slope, message).flatten(2)


def reasons_of(model: nn.Module, events: Sequence[str]) -> Reasons | None:
    """What this model's answers can be explained by; None where nothing in it relates events to scenes."""
    graph = [part for part in model.modules() if isinstance(part, GatedGraphConvolution)]
    if graph:
        return EdgeReasons(model, graph[-1], events)
    if isinstance(relation := getattr(model, "relation", None), PriorRelation):
        return PriorReasons(relation, events)
    return CouplingReasons(model, events) if getattr(model, "coupled", False) else None
