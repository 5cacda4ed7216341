"""cSEM's adaptive scene-event coupling (Hou et al. 2023, Algorithm 1, lines 8-15)."""

from __future__ import annotations

import torch
from torch import Tensor


def infer(
    scene_embedding: Tensor, event_embedding: Tensor, scene_weight: Tensor, event_weight: Tensor
) -> tuple[Tensor, Tensor]:
    """The scene inferred from the event embedding and the events inferred from the scene embedding.

    scene_embedding, event_embedding (B, D); scene_weight (S, D) and event_weight (E, D) are the weights of
    the two classifiers, without their biases. Returns (B, S) and (B, E), both unsquashed. No parameters of
    its own.
    """
    _, event_attention, scene_attention = attend(scene_weight, event_weight)
    event_to_scene = event_attention @ event_weight  # K_e2s (S, D)
    scene_to_event = scene_attention @ scene_weight  # K_s2e (E, D)
    return event_embedding @ event_to_scene.T, scene_embedding @ scene_to_event.T


def attend(scene_weight: Tensor, event_weight: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The coupling matrix W_se (S, E), the attention over events of each scene A_e (S, E), and the attention
    over scenes of each event A_s (E, S); rows of both attentions sum to 1.
    """
    coupling = scene_weight @ event_weight.T
    return coupling, torch.softmax(coupling, dim=-1), torch.softmax(coupling.T, dim=-1)
