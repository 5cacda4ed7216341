"""Support vector machines on a trained model's codes: another way to read the scene off it, which trains
nothing of the model.

As in Jung et al. 2020 and their 2019 code: scikit-learn's SVC with C = 1, gamma "scale" and an RBF or sigmoid
kernel, fitted on the training clips. Which kernel, validation decides; the test split has no say.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from sklearn.svm import SVC
from torch import Tensor, nn

from datasets.batch import Batch
from trainables.contract import answer
from trainables.engine import autocasting


@dataclass(frozen=True)
class Codes:
    """`code` (N, D) float32 and `scene` (N,), the number of the scene, of the clips of known scene."""

    code: np.ndarray
    scene: np.ndarray


@dataclass(frozen=True)
class Svm:
    """A fitted SVM; `model` is None where the training clips were all of the scene `only`."""

    kernel: str
    model: SVC | None
    only: int = -1

    def accuracy(self, codes: Codes) -> float:
        """Share of clips whose scene is right; NaN without clips."""
        if not len(codes.scene):
            return math.nan
        said = self.model.predict(codes.code) if self.model else np.full(len(codes.scene), self.only)
        return float(np.mean(said == codes.scene))


@torch.no_grad()
def codes(model: nn.Module, batches: Iterable[Batch], *, autocast: torch.dtype | None = None) -> Codes:
    """`scene_embedding` of every clip of known scene, in the order of the clips' numbers, every clip once.

    The model is in eval mode during the pass and back in its mode afterwards.
    """
    was_training = model.training
    model.eval()
    rows: list[tuple[Tensor, Tensor, Tensor]] = []
    try:
        for batch in batches:
            with autocasting(batch.waveform.device, autocast):
                code = answer(model, batch).scene_embedding
            if code is None:
                raise ValueError("this model gives no scene embedding to fit an SVM on")
            rows.append((batch.clip.cpu(), code.float().cpu(), batch.scene.cpu()))
    finally:
        model.train(was_training)
    if not rows:
        return Codes(np.zeros((0, 0), np.float32), np.zeros(0, np.int64))
    clip, all_codes, scene = (torch.cat(column).numpy() for column in zip(*rows))
    _, first = np.unique(clip, return_index=True)
    known = first[scene[first].sum(1) > 0]
    return Codes(all_codes[known], scene[known].argmax(1))


def fit_svm(train: Codes, kernel: str) -> Svm:
    """Raises ValueError where no training clip has a known scene."""
    scenes = np.unique(train.scene)
    if not len(scenes):
        raise ValueError("no training clip of known scene to fit an SVM on")
    if len(scenes) == 1:
        return Svm(kernel, None, int(scenes[0]))
    return Svm(kernel, SVC(C=1.0, kernel=kernel, gamma="scale").fit(train.code, train.scene))


def choose_svm(train: Codes, val: Codes, kernels: Sequence[str]) -> Svm:
    """Of the SVMs fitted on `train`, the most accurate on `val`; the first of `kernels` among equals."""
    fitted = [fit_svm(train, kernel) for kernel in kernels]
    return fitted[0] if len(fitted) == 1 else max(fitted, key=lambda svm: svm.accuracy(val))
