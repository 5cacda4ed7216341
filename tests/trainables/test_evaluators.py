import math

import numpy as np
import pytest
import torch
from sklearn.svm import SVC
from torch import Tensor, nn

from datasets.batch import Batch
from trainables.contract import JointOutput
from trainables.evaluators import CANDIDATES, Codes, SvmEvaluator, choose_svm, codes, fit_svm


def blobs(seed: int, clips: int = 60) -> Codes:
    draw = np.random.default_rng(seed)
    scene = draw.integers(0, 3, clips)
    return Codes((np.eye(3)[scene] * 2 + draw.normal(size=(clips, 3))).astype(np.float32), scene)


def test_the_svm_is_scikit_learns_with_their_settings() -> None:
    train, val = blobs(0), blobs(1)
    for kernel in ("rbf", "sigmoid"):
        theirs = SVC(C=1.0, gamma="scale", kernel=kernel).fit(train.code, train.scene)
        said = (theirs.predict(val.code) == val.scene).mean()
        assert fit_svm(train, kernel).accuracy(val) == said > 0.5


def test_validation_chooses_the_kernel_and_the_first_wins_a_tie() -> None:
    draw = np.random.default_rng(0)
    ring = draw.normal(size=(200, 2)).astype(np.float32)
    inside = Codes(ring, (np.square(ring).sum(1) < 1.4).astype(np.int64))  # a sigmoid can't enclose it
    train, val = Codes(ring[:100], inside.scene[:100]), Codes(ring[100:], inside.scene[100:])
    for kernels in (("rbf", "sigmoid"), ("sigmoid", "rbf")):
        assert choose_svm(train, val, kernels).kernel == "rbf"
    nothing = Codes(ring[:0], inside.scene[:0])
    assert choose_svm(train, nothing, ("sigmoid", "rbf")).kernel == "sigmoid"
    assert math.isnan(choose_svm(train, nothing, ("rbf",)).accuracy(nothing))


def test_training_clips_of_one_scene_are_all_that_is_known() -> None:
    train = Codes(np.random.default_rng(0).normal(size=(4, 2)), np.full(4, 2))
    assert fit_svm(train, "rbf").accuracy(Codes(np.zeros((4, 2)), np.array([2, 1, 2, 0]))) == 0.5


def test_no_training_clip_of_known_scene_is_refused() -> None:
    with pytest.raises(ValueError, match="no training clip of known scene"):
        fit_svm(Codes(np.zeros((0, 2)), np.zeros(0, np.int64)), "rbf")


class Mean(nn.Module):
    """Its code is the clip's mean; in training, nonsense."""

    def forward(self, waveform: Tensor) -> JointOutput:
        code = waveform.mean((1, 2)).unsqueeze(1) + 100 * self.training
        return JointOutput(torch.zeros(len(waveform), 2), scene_embedding=code)


def test_codes_are_those_of_evaluation_in_the_clips_order_each_once() -> None:
    waveform = torch.arange(5.0)[:, None, None].expand(5, 1, 4)
    scene = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.0, 0.0], [0.0, 1.0], [1.0, 0.0]])  # clip 2: unknown
    none = torch.zeros(5, 0)
    batches = [
        Batch(waveform[rows], scene[rows], none[rows], none[rows], torch.tensor(rows))
        for rows in ([4, 0], [2, 3], [1, 4])
    ]
    model = Mean().train()
    found = codes(model, batches)
    assert found.code.ravel().tolist() == [0.0, 1.0, 3.0, 4.0] and found.scene.tolist() == [0, 1, 1, 0]
    assert model.training


class Scaled(nn.Module):
    """Its code is the clip times `weight`: 0 forgets everything."""

    def __init__(self, weight: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(weight))


def reading(model: Scaled, asked: list[str]):  # type: ignore[no-untyped-def]
    splits = {"train": blobs(0), "val": blobs(1), "test": blobs(2)}

    def read(split: str) -> Codes:
        asked.append(split)
        return Codes(splits[split].code * float(model.weight.detach()), splits[split].scene)

    return read, splits


def test_validation_chooses_the_epoch_though_the_last_is_another() -> None:
    model, svms, asked = Scaled(1.0), SvmEvaluator(("rbf", "sigmoid")), list[str]()
    read, splits = reading(model, asked)
    svms.offer(1, 0.5, model)
    model.weight.data.fill_(0.0)  # the second and last epoch: worse
    good = choose_svm(splits["train"], splits["val"], ("rbf", "sigmoid"))
    assert svms.score(model, 2, read, "val") == good.accuracy(splits["val"]) > 0.5
    assert svms.epoch == 1 and not model.weight.any()  # the model is the last epoch's all the same
    assert "test" not in asked
    asked.clear()
    assert svms.score(model, 2, read, "test") == good.accuracy(splits["test"])
    assert asked == ["test"]  # nothing is fitted again


def test_equal_epochs_are_the_last_one_and_only_the_best_are_kept() -> None:
    model, svms = Scaled(1.0), SvmEvaluator(("rbf",))
    for epoch, accuracy in enumerate([0.5, 0.1, math.nan, 0.4, 0.3, 0.6, 0.3], start=1):
        svms.offer(epoch, accuracy, model)
    assert sorted(svms.weights) == [1, 4, 6] and len(svms.weights) == CANDIDATES
    svms.score(model, 8, reading(model, [])[0], "val")
    assert svms.epoch == 8 and not svms.weights  # all models are alike here


def test_a_restored_run_scores_with_the_epoch_chosen_before() -> None:
    model, before = Scaled(1.0), SvmEvaluator(("rbf",))
    read, _ = reading(model, [])
    before.offer(1, 0.5, model)
    model.weight.data.fill_(0.0)
    unchosen = before.state(), dict(before.tensors())
    expected = before.score(model, 2, read, "test")
    for state, tensors in (unchosen, (before.state(), before.tensors())):
        after = SvmEvaluator(("rbf",))
        after.restore(tensors, state)
        assert after.score(model, 2, read, "test") == expected and after.epoch == 1
