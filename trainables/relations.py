"""What a graph of events says of a split: the mean relations of each scene's clips, and of one clip a scene.

All clips' relations would be N·n² numbers; these are added up batch by batch.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from datasets.batch import Batch
from trainables.contract import JointOutput, RelatesEvents


class Relations:
    """Collects `event_relations` of a model, a batch at a time."""

    def __init__(self) -> None:
        self._sums: Tensor | None = None
        self._clips: Tensor | None = None
        self._examples: dict[int, tuple[float, int, Tensor]] = {}

    @torch.no_grad()
    def add(self, model: RelatesEvents, batch: Batch, output: JointOutput) -> None:
        shares = model.event_relations(batch.waveform).float().cpu()
        scene = (batch.scene > 0).float().cpu() * (batch.scene.sum(1, keepdim=True) > 0).float().cpu()
        sums, clips = torch.einsum("bs,bij->sij", scene, shares), scene.sum(0)
        self._sums = sums if self._sums is None else self._sums + sums
        self._clips = clips if self._clips is None else self._clips + clips
        certainty = output.scene_logits.float().cpu().softmax(1)
        for row, number in enumerate(batch.clip.tolist()):
            if scene[row].any():
                at = int(scene[row].argmax())
                found = (float(certainty[row, at]), -number)
                if at not in self._examples or found > self._examples[at][:2]:
                    self._examples[at] = (*found, shares[row])

    def arrays(self) -> dict[str, np.ndarray]:
        """What SPLIT.npz keeps (see trainables/analyse.py); {} where no clip was added."""
        if self._sums is None or self._clips is None:
            return {}
        means = self._sums / self._clips.clamp_min(1)[:, None, None]
        means[self._clips == 0] = torch.nan
        examples = [self._examples[scene] for scene in sorted(self._examples)]
        return {
            "relation": means.numpy(),
            "relation_clip": np.array([-number for _, number, _ in examples], np.int64),
            "clip_relation": torch.stack([shares for *_, shares in examples]).half().numpy()
            if examples
            else np.zeros((0, *means.shape[1:]), np.float16),
        }
