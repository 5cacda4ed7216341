"""Relations between scenes and events that are counted in the training labels, not learned.

PriorRelation is RGASC's (Hou et al., IJCNN 2022), SceneCondition what Komatsu et al. (ICASSP 2020) need of
one. Both ask for the labels by having `fit_labels` (contract.FitsLabels); what they count is saved with the
model.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from datasets.batch import Batch
from trainables.contract import JointOutput


def event_rates(batches: Iterable[Batch], *, hard: bool = False) -> Tensor:
    """P(event | scene) (S, E) float64: the mean of each event's labels over the clips of each scene in which
    it is known, 0 where there is none. With `hard` a label counts as 1 if it is above 0.5, else as 0.

    Raises ValueError if no clip has both a scene and a known event.
    """
    present, known = torch.zeros((), dtype=torch.float64), torch.zeros((), dtype=torch.float64)
    for batch in batches:
        of_scene = batch.scene.double().cpu().T  # (S, B)
        certain = batch.event_known.double().cpu()
        events = (batch.events > 0.5 if hard else batch.events).double().cpu()
        present = present + of_scene @ (events * certain)
        known = known + of_scene @ certain
    if not bool((known > 0).any()):
        raise ValueError(
            "no training clip has both a scene and known events, so the relation between scenes and events "
            "cannot be counted; expected labels of both kinds"
        )
    return present / known.masked_fill(known == 0, 1.0)


class PriorRelation(nn.Module):
    """Each answer inferred from the other's through the fixed matrix R (S, E), `prior`:
    ỹ_s = sigmoid(z_e) · Rᵀ (B, S) and ỹ_e = log softmax(z_s) · R (B, E), as `scene_from_event` and
    `event_from_scene` of the output.

    R[s, e] is the share of the training clips of scene s that hold event e; 0 until `fit_labels`. The matrix
    published with RGASC is that share among all clips, so it has seen the test fold's labels, and its loop
    reports the best epoch on that fold: the printed accuracy profits from both. RGASC also starts from two
    single-task checkpoints, which are not published.
    """

    prior: Tensor

    def __init__(self, scenes: int, events: int) -> None:
        super().__init__()
        self.register_buffer("prior", torch.zeros(scenes, events))

    def forward(self, output: JointOutput) -> JointOutput:
        assert output.event_logits is not None
        return replace(
            output,
            scene_from_event=output.event_logits.sigmoid() @ self.prior.T,
            event_from_scene=F.log_softmax(output.scene_logits, dim=-1) @ self.prior,
        )

    @torch.no_grad()
    def fit_labels(self, batches: Iterable[Batch]) -> None:
        self.prior.copy_(event_rates(batches))


class SceneCondition(nn.Module):
    """Event logits given the scene: its probabilities, or a one-hot scene that the clip is told to be of, are
    appended to what the event classifier reads. `weight` (S, E) is the classifier's part for them, 0 at the
    start, which is no condition.

    `event_logits` of the output become those given the scene as estimated; `event_logits_by_scene` (B, S, E)
    are those given each scene for certain. `possible` (S, E) is 1 where a training clip of the scene holds
    the event; all 1 until `fit_labels`.

    Komatsu et al.'s text is not at hand. Pinned, by its title and by Hou et al. 2023 (§I, §V-G): a multitask
    network, events conditioned on the scene in this one direction, a loss under fake scenes, and a fixed
    binary relation (an event occurs in a scene or not). A reading: where the condition enters, that it is the
    estimated scene and passes gradients to the scene branch, and what a fake scene's targets are
    (losses.fake_scene_bce).
    """

    possible: Tensor

    def __init__(self, scenes: int, events: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(scenes, events))
        self.register_buffer("possible", torch.ones(scenes, events))

    def forward(self, output: JointOutput) -> JointOutput:
        assert output.event_logits is not None
        return replace(
            output,
            event_logits=output.event_logits + output.scene_logits.softmax(-1) @ self.weight,
            event_logits_by_scene=output.event_logits[:, None, :] + self.weight,
            possible_events=self.possible.expand(len(output.scene_logits), -1, -1),
        )

    @torch.no_grad()
    def fit_labels(self, batches: Iterable[Batch]) -> None:
        self.possible.copy_(event_rates(batches, hard=True) > 0)
