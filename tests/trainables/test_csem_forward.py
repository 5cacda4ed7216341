"""The wiring of each system: forward passes written out step by step from the released code's description."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from datasets.labels import LabelSpace
from trainables.contract import AudioFormat
from trainables.families.csem import Config, SceneEventModel, build
from trainables.parts.coupling import infer

LABELS = LabelSpace(("a", "b", "c"), ("u", "v", "w", "x"))
AUDIO = AudioFormat(16000, 1, 48000)  # 3 s, 95 frames


def model_with_random_state(**knobs) -> tuple[SceneEventModel, dict[str, Tensor]]:
    torch.manual_seed(0)
    model = build(Config(width=0.1, **knobs), LABELS, AUDIO)
    for _ in range(2):
        model.train()(0.1 * torch.randn(4, 1, 48000))  # running statistics of their own in every block
    return model.eval(), model.state_dict()


def conv_bn_relu(x: Tensor, s: dict[str, Tensor], conv: str, bn: str, padding: int = 1) -> Tensor:
    x = F.conv2d(x, s[f"{conv}.weight"], padding=padding)
    shape = (1, -1, 1, 1)
    mean, var, weight, bias = (
        s[f"{bn}.{n}"].view(shape) for n in ("running_mean", "running_var", "weight", "bias")
    )
    return F.relu((x - mean) / torch.sqrt(var + 1e-5) * weight + bias)


def pann_block(x: Tensor, s: dict[str, Tensor], name: str, pool: bool = True) -> Tensor:
    x = conv_bn_relu(x, s, f"{name}.conv1", f"{name}.bn1")
    x = conv_bn_relu(x, s, f"{name}.conv2", f"{name}.bn2")
    return F.avg_pool2d(x, 2) if pool else x


def tiny_block(x: Tensor, s: dict[str, Tensor], name: str) -> Tensor:
    return F.max_pool2d(conv_bn_relu(x, s, f"{name}.conv", f"{name}.bn"), 5)


def fc(x: Tensor, s: dict[str, Tensor], name: str) -> Tensor:
    return x @ s[f"{name}.weight"].T + s[f"{name}.bias"]


def max_mean(x: Tensor, axis: int) -> Tensor:
    return x.max(axis).values + x.mean(axis)


@pytest.mark.parametrize("shared", [1, 2, 4])
def test_csem_pann(shared: int) -> None:
    model, s = model_with_random_state(shared_layers=shared)
    x = torch.randn(2, 1, 96, 64)

    def embedding(task: str) -> Tensor:
        y = x
        for n in range(1, 7):
            y = pann_block(y, s, f"{'shared' if n <= shared else task}.block{n}", pool=n < 6)
        return F.relu(fc(max_mean(y.mean(3), 2), s, f"{task}.fc1"))

    scene, event = embedding("scene"), embedding("event")
    output = model.from_features(x)
    torch.testing.assert_close(output.scene_embedding, scene)
    torch.testing.assert_close(output.event_embedding, event)
    torch.testing.assert_close(output.scene_logits, fc(scene, s, "scene_classifier"))
    torch.testing.assert_close(output.event_logits, fc(event, s, "event_classifier"))
    inferred = infer(scene, event, s["scene_classifier.weight"], s["event_classifier.weight"])
    torch.testing.assert_close((output.scene_from_event, output.event_from_scene), inferred)


def test_mlhe_cnnt() -> None:
    model, s = model_with_random_state(backbone="cnnt", framework="mlhe")
    x = torch.randn(2, 1, 90, 64)
    common = pann_block(pann_block(x, s, "shared.block1"), s, "shared.block2")
    output = model.from_features(x)
    for task, logits in (("scene", output.scene_logits), ("event", output.event_logits)):
        y = pann_block(common, s, f"{task}.block3")
        y = model.get_submodule(f"{task}.block4")(y)  # tested by itself
        expected = fc(F.relu(fc(max_mean(y, 1), s, f"{task}.fc1")), s, f"{task}_classifier")
        torch.testing.assert_close(logits, expected)
    assert output.scene_from_event is None


def test_mlhe_plus_tinycnn_with_the_papers_one_shared_layer() -> None:
    model, s = model_with_random_state(backbone="tinycnn", framework="mlhe_plus", shared_layers=1)
    x = model.frontend(0.1 * torch.randn(2, 1, 48000))
    common = tiny_block(x, s, "shared.block1")
    output = model.from_features(x)
    for task, logits in (("scene", output.scene_logits), ("event", output.event_logits)):
        flat = tiny_block(common, s, f"{task}.block2").flatten(1)
        y = F.relu(fc(F.relu(fc(flat, s, f"{task}.fc1")), s, f"{task}.fc2"))
        torch.testing.assert_close(logits, fc(y, s, f"{task}_classifier"))


def test_moe_has_one_embedding_for_both_tasks() -> None:
    model, s = model_with_random_state(backbone="tinycnn", framework="moe")
    x = model.frontend(0.1 * torch.randn(2, 1, 48000))
    embedding = F.relu(
        fc(tiny_block(tiny_block(x, s, "shared.block1"), s, "shared.block2").flatten(1), s, "scene.fc1")
    )
    output = model.from_features(x)
    assert output.event_embedding is output.scene_embedding
    torch.testing.assert_close(output.scene_embedding, embedding)
    torch.testing.assert_close(output.event_logits, fc(embedding, s, "event_classifier"))


def test_single_task_pann_normalises_every_mel_bin_first() -> None:
    model, s = model_with_random_state(framework="scene_only")
    x = torch.randn(2, 1, 96, 64) + 3.0
    mean, var, weight, bias = (s[f"bn0.{n}"] for n in ("running_mean", "running_var", "weight", "bias"))
    assert mean.shape == (64,)
    y = (x - mean) / torch.sqrt(var + 1e-5) * weight + bias  # mel bins are the last axis
    for n in range(1, 7):
        y = pann_block(y, s, f"shared.block{n}", pool=n < 6)
    embedding = F.relu(fc(max_mean(y.mean(3), 2), s, "scene.fc1"))
    torch.testing.assert_close(model.from_features(x).scene_logits, fc(embedding, s, "scene_classifier"))
