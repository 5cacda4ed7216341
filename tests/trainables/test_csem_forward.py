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


def pann_embedding(x: Tensor, s: dict[str, Tensor], task: str, shared: int) -> Tensor:
    for n in range(1, 7):
        x = pann_block(x, s, f"{'shared' if n <= shared else task}.block{n}", pool=n < 6)
    return F.relu(fc(max_mean(x.mean(3), 2), s, f"{task}.fc1"))


def test_hierarchical_pann_reads_the_scene_from_the_event_embedding() -> None:
    model, s = model_with_random_state(framework="hierarchical")
    x = torch.randn(2, 1, 96, 64)
    event = pann_embedding(x, s, "event", shared=6)
    scene = F.relu(fc(event, s, "scene.fc1"))
    output = model.from_features(x)
    torch.testing.assert_close(output.event_embedding, event)
    torch.testing.assert_close(output.scene_embedding, scene)
    torch.testing.assert_close(output.event_logits, fc(event, s, "event_classifier"))
    torch.testing.assert_close(output.scene_logits, fc(scene, s, "scene_classifier"))


def mixed(a: Tensor, b: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """Misra et al., Eq. 1, one channel at a time."""
    new_a, new_b = torch.empty_like(a), torch.empty_like(b)
    for c in range(a.shape[1]):
        new_a[:, c] = weight[0, 0, c] * a[:, c] + weight[0, 1, c] * b[:, c]
        new_b[:, c] = weight[1, 0, c] * a[:, c] + weight[1, 1, c] * b[:, c]
    return new_a, new_b


@pytest.mark.parametrize("shared", [0, 2])
def test_cross_stitch_pann_mixes_after_every_pooling_and_the_embedding(shared: int) -> None:
    model, s = model_with_random_state(framework="cross_stitch", shared_layers=shared)
    with torch.no_grad():
        for name, value in s.items():
            if name.startswith("stitches"):
                value.copy_(torch.rand(value.shape))
    x = features = torch.randn(2, 1, 96, 64)
    for n in range(1, shared + 1):
        x = pann_block(x, s, f"shared.block{n}")
    scene, event = x, x
    for n in range(shared + 1, 7):
        scene, event = (
            pann_block(y, s, f"{t}.block{n}", pool=n < 6) for t, y in (("scene", scene), ("event", event))
        )
        if n < 6:
            scene, event = mixed(scene, event, s[f"stitches.block{n}.weight"])
    scene, event = (max_mean(y.mean(3), 2) for y in (scene, event))
    scene, event = mixed(scene, event, s["stitches.pooling.weight"])
    scene, event = F.relu(fc(scene, s, "scene.fc1")), F.relu(fc(event, s, "event.fc1"))
    scene, event = mixed(scene, event, s["stitches.relu1.weight"])
    stitched = {name.split(".")[1] for name in s if name.startswith("stitches")}
    assert stitched == {*(f"block{n}" for n in range(shared + 1, 6)), "pooling", "relu1"}
    output = model.from_features(features)
    torch.testing.assert_close((output.scene_embedding, output.event_embedding), (scene, event))
    torch.testing.assert_close(output.scene_logits, fc(scene, s, "scene_classifier"))
    torch.testing.assert_close(output.event_logits, fc(event, s, "event_classifier"))


def test_rgasc_pann_infers_each_answer_through_the_prior() -> None:
    model, s = model_with_random_state(framework="rgasc")
    prior = torch.rand(3, 4)
    s["relation.prior"].copy_(prior)
    x = torch.randn(2, 1, 96, 64)
    z_s = fc(pann_embedding(x, s, "scene", shared=2), s, "scene_classifier")
    z_e = fc(pann_embedding(x, s, "event", shared=2), s, "event_classifier")
    output = model.from_features(x)
    torch.testing.assert_close(output.scene_logits, z_s)
    torch.testing.assert_close(output.event_logits, z_e)
    for clip in range(2):
        log_p = torch.log(torch.exp(z_s[clip]) / torch.exp(z_s[clip]).sum())
        p_e = 1 / (1 + torch.exp(-z_e[clip]))
        for e in range(4):
            expected = sum(log_p[k] * prior[k, e] for k in range(3))
            torch.testing.assert_close(output.event_from_scene[clip, e], expected)
        for k in range(3):
            expected = sum(p_e[e] * prior[k, e] for e in range(4))
            torch.testing.assert_close(output.scene_from_event[clip, k], expected)


def test_conditional_pann_appends_the_scene_to_what_the_event_classifier_reads() -> None:
    model, s = model_with_random_state(framework="conditional")
    s["relation.weight"].copy_(torch.randn(3, 4))
    s["relation.possible"].copy_((torch.rand(3, 4) > 0.5).float())
    x = torch.randn(2, 1, 96, 64)
    z_s = fc(pann_embedding(x, s, "scene", shared=2), s, "scene_classifier")
    event = pann_embedding(x, s, "event", shared=2)
    whole = torch.cat([s["event_classifier.weight"], s["relation.weight"].T], 1)  # (E, D + S)

    def conditioned(told: Tensor) -> Tensor:
        return torch.cat([event, told], 1) @ whole.T + s["event_classifier.bias"]

    output = model.from_features(x)
    torch.testing.assert_close(output.scene_logits, z_s)
    torch.testing.assert_close(output.event_embedding, event)
    torch.testing.assert_close(output.event_logits, conditioned(z_s.softmax(1)))
    for scene in range(3):
        told = torch.eye(3)[[scene, scene]]
        torch.testing.assert_close(output.event_logits_by_scene[:, scene], conditioned(told))
        torch.testing.assert_close(output.possible_events[:, scene], s["relation.possible"][[scene, scene]])


def test_joint_is_moe_s_network() -> None:
    (joint, s), (moe, same) = (
        model_with_random_state(backbone="tinycnn", framework=f) for f in ("joint", "moe")
    )
    assert all(torch.equal(s[name], same[name]) for name in same) and s.keys() == same.keys()
    x = torch.randn(2, 1, 95, 64)
    ours, theirs = joint.from_features(x), moe.from_features(x)
    assert torch.equal(ours.scene_logits, theirs.scene_logits)
    assert torch.equal(ours.event_logits, theirs.event_logits)


def test_dcase_2018_baseline_normalises_mel_bins_and_pools_over_what_is_left_of_time() -> None:
    model, s = model_with_random_state(backbone="dcase2018", framework="scene_only")
    x = torch.randn(2, 1, 120, 40)

    def block(x: Tensor, name: str) -> Tensor:
        x = F.conv2d(x, s[f"{name}.conv.weight"], s[f"{name}.conv.bias"], padding=3)
        for f in range(x.shape[3]):
            mean, var, weight, bias = (
                s[f"{name}.bn.{n}"][f] for n in ("running_mean", "running_var", "weight", "bias")
            )
            x[..., f] = (x[..., f] - mean) / torch.sqrt(var + 1e-3) * weight + bias
        return F.relu(x)

    y = F.max_pool2d(block(x, "shared.block1"), 5)
    assert y.shape[2:] == (24, 8)
    y = block(y, "shared.block2")
    y = torch.stack([y[..., :4].amax((2, 3)), y[..., 4:].amax((2, 3))], 2)  # (B, 64, 2)
    embedding = F.relu(fc(y.flatten(1), s, "scene.fc1"))
    output = model.from_features(x)
    torch.testing.assert_close(output.scene_embedding, embedding)
    torch.testing.assert_close(output.scene_logits, fc(embedding, s, "scene_classifier"))
