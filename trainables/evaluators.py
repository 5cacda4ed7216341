"""Support vector machines on a trained model's codes: another way to read the scene off it, which trains
nothing of the model.

As in Jung et al. 2020 and their 2019 code: scikit-learn's SVC with C = 1, gamma "scale" and an RBF or sigmoid
kernel, fitted on the training clips. Which kernel, and which epoch's model, validation decides; the test
split has no say (in the 2019 code it does). Fitting on every epoch's codes would cost a pass over all clips
each: the candidates are the CANDIDATES epochs with the highest validation accuracy of the model itself, and
the last.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from sklearn.svm import SVC
from torch import Tensor, nn

from datasets.batch import Batch
from trainables.contract import answer
from trainables.engine import autocasting

CANDIDATES = 3


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


@contextmanager
def holding(model: nn.Module, weights: Mapping[str, Tensor] | None) -> Iterator[None]:
    """The model with other weights inside the block, its own afterwards; None leaves them as they are."""
    if weights is None:
        yield
        return
    own = {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}
    try:
        model.load_state_dict(weights)
        yield
    finally:
        model.load_state_dict(own)


class SvmEvaluator:
    """What one run says by an SVM: the weights of its best epochs so far, in main memory, and after the last
    epoch the chosen one's and the SVM fitted on its codes. No kernels, no SVM.

    accuracy  {candidate epoch, from 1: validation accuracy of the model itself}
    weights   {candidate epoch: state dict}
    epoch     the one chosen, None until then
    """

    def __init__(self, kernels: Sequence[str]) -> None:
        self.kernels = tuple(kernels)
        self.accuracy: dict[int, float] = {}
        self.weights: dict[int, dict[str, Tensor]] = {}
        self.epoch: int | None = None
        self._svm: Svm | None = None

    def offer(self, epoch: int, accuracy: float, model: nn.Module) -> None:
        """Keep the model as it is now, if it is among the best; a later epoch wins a tie."""
        if not self.kernels or math.isnan(accuracy):
            return
        if len(self.accuracy) == CANDIDATES:
            worst = min(self.accuracy, key=lambda one: (self.accuracy[one], one))
            if accuracy < self.accuracy[worst]:
                return
            del self.accuracy[worst], self.weights[worst]
        self.accuracy[epoch] = accuracy
        self.weights[epoch] = {name: t.detach().cpu().clone() for name, t in model.state_dict().items()}

    def score(self, model: nn.Module, last: int, read: Callable[[str], Codes], split: str) -> float:
        """Accuracy on a split of the chosen epoch's SVM. `model` is that of epoch `last`; `read` gives its
        codes of a split."""
        svm = self._svm or self._choose(model, last, read)
        with holding(model, self.weights.get(self.epoch or last)):
            return svm.accuracy(read(split))

    def _choose(self, model: nn.Module, last: int, read: Callable[[str], Codes]) -> Svm:
        """Of all candidates and kernels the SVM most accurate on validation; the latest epoch among
        equals."""
        found: list[tuple[float, int, Svm]] = []
        for epoch in [*self.weights, last] if self.epoch is None else [self.epoch]:
            with holding(model, self.weights.get(epoch)):
                val = read("val")
                svm = choose_svm(read("train"), val, self.kernels)
            accuracy = svm.accuracy(val)
            found.append((-math.inf if math.isnan(accuracy) else accuracy, epoch, svm))
        _, self.epoch, self._svm = max(found, key=lambda one: one[:2])
        for epoch in [one for one in self.weights if one != self.epoch]:
            del self.accuracy[epoch], self.weights[epoch]
        return self._svm

    def tensors(self) -> dict[str, Tensor]:
        """What a checkpoint keeps, by the names that `restore` knows."""
        return {f"{epoch}/{name}": t for epoch, state in self.weights.items() for name, t in state.items()}

    def state(self) -> dict[str, Any]:
        return {"epoch": self.epoch, "accuracy": {str(epoch): a for epoch, a in self.accuracy.items()}}

    def restore(self, tensors: Mapping[str, Tensor], state: Mapping[str, Any]) -> None:
        self.epoch, self._svm = state["epoch"], None
        self.accuracy = {int(epoch): accuracy for epoch, accuracy in state["accuracy"].items()}
        self.weights = {epoch: {} for epoch in self.accuracy}
        for place, tensor in tensors.items():
            epoch, _, name = place.partition("/")
            self.weights[int(epoch)][name] = tensor
