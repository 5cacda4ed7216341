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
    coupling = scene_weight @ event_weight.T  # W_se (S, E)
    event_attention = torch.softmax(coupling, dim=-1)  # A_e: per scene, a distribution over events
    scene_attention = torch.softmax(coupling.T, dim=-1)  # A_s: per event, a distribution over scenes
    event_to_scene = event_attention @ event_weight  # K_e2s (S, D)
    scene_to_event = scene_attention @ scene_weight  # K_s2e (E, D)
    return event_embedding @ event_to_scene.T, scene_embedding @ scene_to_event.T
