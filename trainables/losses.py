"""Loss terms as pure functions of (JointOutput, Batch), each an unweighted scalar, and their weighted sum.

Unknown labels (a scene row of zeros, `event_known` = 0) are left out of the means; a batch without any known
label gives 0 with a gradient of 0, so that every parameter stays in the graph. Everything is computed in
float32 whatever the output's type.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from datasets.batch import Batch
from trainables.contract import JointOutput, Term, event_targets, frame_targets

RelationLoss = Literal["ce_hard", "ce_soft", "mse_logits", "mse_probabilities", "mse_log_softmax"]


def scene_ce(output: JointOutput, batch: Batch) -> Tensor:
    """Cross-entropy of `scene_logits` (B, S) with the scene distributions, mean over clips of known scene.

    Hou et al. 2023, Eq. 1 with loss_s = CE. A clip counts by the mass of its distribution: 1, or 0 where
    unknown.
    """
    log_probabilities = F.log_softmax(output.scene_logits.float(), dim=-1)
    return _mean_where(-log_probabilities * batch.scene, batch.scene.sum())


def event_bce(output: JointOutput, batch: Batch) -> Tensor:
    """Binary cross-entropy of sigmoid(`event_logits`) (B, E) with the events, mean over known entries.

    Hou et al. 2023, Eq. 2 with loss_e = BCE; the released code's choice for hard labels.
    """
    logits = _required(output.event_logits, "event_logits").float()
    events, known = event_targets(output, batch)
    each = F.binary_cross_entropy_with_logits(logits, events, reduction="none")
    return _mean_where(each * known, known.sum())


def event_mse(output: JointOutput, batch: Batch) -> Tensor:
    """Squared error of sigmoid(`event_logits`) (B, E), mean over known entries.

    The released code's choice for soft labels.
    """
    logits = _required(output.event_logits, "event_logits").float()
    events, known = event_targets(output, batch)
    return _mean_where((logits.sigmoid() - events).square() * known, known.sum())


def curated_bce(output: JointOutput, batch: Batch) -> Tensor:
    """`event_bce` of the clips whose events people have checked (`Batch.curated`), mean over their known
    entries."""
    return event_bce(output, _only(batch, batch.curated))


def noisy_bce(output: JointOutput, batch: Batch) -> Tensor:
    """Binary cross-entropy of sigmoid(`noisy_event_logits`) (B, E) with events that nobody has checked, mean
    over the known entries of those clips."""
    return _noisy_bce(_required(output.noisy_event_logits, "noisy_event_logits").float(), batch)


def noisy_bce_of_sigmoid(output: JointOutput, batch: Batch) -> Tensor:
    """The same with a second sigmoid on top, as in Akiyama & Sato's released code: the probability is then
    never below 1/2."""
    return _noisy_bce(_required(output.noisy_event_logits, "noisy_event_logits").float().sigmoid(), batch)


def _noisy_bce(logits: Tensor, batch: Batch) -> Tensor:
    known = _only(batch, 1 - batch.curated).event_known
    each = F.binary_cross_entropy_with_logits(logits, batch.events, reduction="none")
    return _mean_where(each * known, known.sum())


def pseudo_mse(temperature: float) -> Term:
    """Squared error of sigmoid(`event_logits`) (B, E), mean over known entries: from the events in clips that
    people have checked, in others from a teacher's probabilities, sharpened.

    Akiyama & Sato 2019, soft pseudo labels. A clip's tags p become p^T / Σ p^T, T = `temperature`; they are
    of the model's events, in their order.
    """

    def term(output: JointOutput, batch: Batch) -> Tensor:
        logits = _required(output.event_logits, "event_logits").float()
        sharp = batch.tags.clamp_min(0) ** temperature
        sharp = sharp / sharp.sum(1, keepdim=True).clamp_min(torch.finfo(sharp.dtype).tiny)
        checked = batch.curated[:, None]
        wanted = checked * batch.events + (1 - checked) * sharp
        known = checked * batch.event_known + (1 - checked)
        return _mean_where((logits.sigmoid() - wanted).square() * known, known.sum())

    return term


def _only(batch: Batch, clips: Tensor) -> Batch:
    """The batch with the events of the clips known where `clips` (B,) is 1 only."""
    return replace(batch, event_known=batch.event_known * clips[:, None])


def frame_bce(output: JointOutput, batch: Batch) -> Tensor:
    """Binary cross-entropy of sigmoid(`frame_logits`) (B, T, E) with the events of each frame, mean over
    known entries.

    Imoto et al. 2022, Eq. 2, but for its sum over time and events: the authors' released code takes the mean.
    """
    logits = _required(output.frame_logits, "frame_logits").float()
    frames, known = frame_targets(output, batch)
    each = F.binary_cross_entropy_with_logits(logits, frames, reduction="none")
    return _mean_where(each * known, known.sum())


def scene_from_event(relation: RelationLoss, detach: bool = False) -> Term:
    """How far the scene inferred from the event embedding is from the scene branch's own answer.

    Hou et al. 2023, Algorithm 1, line 12. With ỹ = `scene_from_event` (B, S) unsquashed and z =
    `scene_logits`, Table IX's five choices are
    ce_hard            CE(softmax ỹ, one-hot of the largest z)
    ce_soft            CE(softmax ỹ, softmax z)
    mse_logits         MSE(ỹ, z)
    mse_probabilities  MSE(ỹ, softmax z)
    mse_log_softmax    MSE(ỹ, log softmax z), the paper's best and the released code's
    Mean over clips (CE) or over all B·S elements (MSE). The target keeps its gradient, as in the released
    code, unless `detach`.
    """

    def term(output: JointOutput, batch: Batch) -> Tensor:
        inferred = _required(output.scene_from_event, "scene_from_event").float()
        logits = _target(output.scene_logits, detach)
        if relation == "ce_hard":
            return F.cross_entropy(inferred, logits.argmax(-1))
        if relation == "ce_soft":
            return F.cross_entropy(inferred, logits.softmax(-1))
        if relation == "mse_logits":
            return F.mse_loss(inferred, logits)
        if relation == "mse_probabilities":
            return F.mse_loss(inferred, logits.softmax(-1))
        return F.mse_loss(inferred, logits.log_softmax(-1))

    return term


def event_from_scene(relation: RelationLoss, detach: bool = False) -> Term:
    """How far the events inferred from the scene embedding are from the event branch's own answer.

    Hou et al. 2023, Algorithm 1, line 16. With ỹ = `event_from_scene` (B, E) unsquashed and z =
    `event_logits`: BCE(sigmoid ỹ, sigmoid z) for ce_hard and ce_soft, MSE(ỹ, z) for mse_logits, MSE(ỹ,
    sigmoid z) for the other two (Table IX). Mean over all B·E elements. The target keeps its gradient unless
    `detach`.
    """

    def term(output: JointOutput, batch: Batch) -> Tensor:
        inferred = _required(output.event_from_scene, "event_from_scene").float()
        logits = _target(_required(output.event_logits, "event_logits"), detach)
        if relation in ("ce_hard", "ce_soft"):
            return F.binary_cross_entropy_with_logits(inferred, logits.sigmoid())
        if relation == "mse_logits":
            return F.mse_loss(inferred, logits)
        return F.mse_loss(inferred, logits.sigmoid())

    return term


def scene_event_bce(output: JointOutput, batch: Batch) -> Tensor:
    """Binary cross-entropy of both tasks in one label space: sigmoid of (`scene_logits`, `event_logits`)
    (B, S + E) with scene and events side by side, mean over known entries.

    Joint scene and event recognition, Bear et al. 2019, where a scene is one label among the events.
    """
    events = _required(output.event_logits, "event_logits")
    logits = torch.cat([output.scene_logits, events], 1).float()
    each = F.binary_cross_entropy_with_logits(
        logits, torch.cat([batch.scene, batch.events], 1), reduction="none"
    )
    scene_known = (batch.scene.sum(1, keepdim=True) > 0).float().expand_as(batch.scene)
    known = torch.cat([scene_known, batch.event_known], 1)
    return _mean_where(each * known, known.sum())


def fake_scene_bce(output: JointOutput, batch: Batch) -> Tensor:
    """What the event branch says of a clip when told a scene that it is not of: binary cross-entropy of
    sigmoid(`event_logits_by_scene`) (B, S, E) with those of the clip's events that the told scene can hold
    (`possible_events`), mean over known events and wrong scenes.

    A reading of the fake-scene-conditioned loss of Komatsu et al. 2020, as its mean over all fake scenes in
    place of one drawn. A scene counts as fake by the mass that the clip's distribution leaves it; clips of
    unknown scene are left out.
    """
    logits = _required(output.event_logits_by_scene, "event_logits_by_scene").float()
    possible = _required(output.possible_events, "possible_events").float()
    each = F.binary_cross_entropy_with_logits(logits, batch.events[:, None] * possible, reduction="none")
    scene_known = (batch.scene.sum(1, keepdim=True) > 0).float()
    fake = (1 - batch.scene) * scene_known  # (B, S)
    mass = fake[:, :, None] * batch.event_known[:, None]
    return _mean_where(each * mass, mass.sum())


def known_clips(term: Term, batch: Batch) -> Tensor:
    """() how many clips' worth of known labels a term is the mean of: its weight where batches are put
    together. A term that asks for no label counts every clip."""
    if term is scene_ce:
        return batch.scene.sum()
    if term in (event_bce, event_mse):
        return batch.event_known.sum() / max(1, batch.event_known.shape[1])
    if term is curated_bce:
        return known_clips(event_bce, _only(batch, batch.curated))
    if term in (noisy_bce, noisy_bce_of_sigmoid):
        return known_clips(event_bce, _only(batch, 1 - batch.curated))
    if term is frame_bce:
        return (batch.frame_known.mean(1) * batch.event_known.mean(1)).sum()
    scene_known = (batch.scene.sum(1, keepdim=True) > 0).float()
    if term is scene_event_bce:
        return torch.cat([scene_known.expand_as(batch.scene), batch.event_known], 1).mean(1).sum()
    if term is fake_scene_bce:
        return (scene_known * batch.event_known).mean(1).sum()
    return batch.scene.new_tensor(float(len(batch)))


def total(terms: Mapping[str, Tensor], weights: Mapping[str, float]) -> Tensor:
    """Σ weight × term. Raises ValueError for a term without a weight or a weight without a term."""
    without_weight, without_term = terms.keys() - weights.keys(), weights.keys() - terms.keys()
    if without_weight or without_term:
        raise ValueError(
            f"terms without a weight: {sorted(without_weight) or 'none'}; "
            f"weights without a term: {sorted(without_term) or 'none'}"
        )
    return torch.stack([weights[name] * term for name, term in terms.items()]).sum()


def _mean_where(masked: Tensor, mass: Tensor) -> Tensor:
    """Sum of `masked` over the mass of what is known; 0 where nothing is."""
    return masked.sum() / torch.where(mass > 0, mass, torch.ones_like(mass))


def _target(logits: Tensor, detach: bool) -> Tensor:
    return (logits.detach() if detach else logits).float()


def _required(value: Tensor | None, name: str) -> Tensor:
    if value is None:
        raise ValueError(f"this loss term needs {name}, which the model does not return")
    return value
