"""The published sizes of the cSEM systems: parameters, shapes on the way, multiply-accumulates."""

import math
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from datasets.labels import LabelSpace
from trainables.contract import AudioFormat
from trainables.describe import FromFeatures, count_macs
from trainables.families.csem import RELEASED, Config, build

LABELS = LabelSpace(tuple(f"s{i}" for i in range(10)), tuple(f"e{i}" for i in range(527)))
TEN_SECONDS = AudioFormat(44100, 1, 441000)


def meta(audio: AudioFormat = TEN_SECONDS, **knobs) -> nn.Module:
    with torch.device("meta"):
        return build(Config(**knobs), LABELS, audio).to("meta").eval()


def parameters(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize(
    ("backbone", "framework", "expected"),
    [
        ("pann", "csem", 160_188_249),
        ("pann", "mlhe", 160_188_249),
        ("pann", "mlhe_plus", 168_580_953),
        ("pann", "scene_only", 79_694_282),  # with the BatchNorm over 64 mel bins
        ("pann", "moe", 79_694_154 + 527 * 2049),
        ("cnnt", "csem", 7_033_177),
        ("cnnt", "mlhe", 7_033_177),
        ("cnnt", "scene_only", 3_513_674),
        ("tinycnn", "csem", 297_349),
        ("tinycnn", "mlhe", 297_349),
        ("tinycnn", "scene_only", 173_622),
        ("tinycnn", "moe", 173_622 + 527 * 101),
        ("pann", "hierarchical", 84_970_329),
        ("pann", "rgasc", 160_188_249),
        ("pann", "conditional", 160_188_249 + 10 * 527),
        ("pann", "joint", 79_694_154 + 527 * 2049),
        ("dcase2018", "scene_only", 116_118 - 2 * (40 + 8)),  # the published count has running statistics
        ("dcase2018", "csem", 116_022 + (100_416 + 16 + 12_900) + 527 * 101),
    ],
)
def test_parameters_with_10_scenes_and_527_events(backbone: str, framework: str, expected: int) -> None:
    assert parameters(meta(backbone=backbone, framework=framework)) == expected


def test_the_hierarchical_baseline_s_sum() -> None:
    model = meta(framework="hierarchical")
    fc = 2048 * 2048 + 2048
    parts = {name: sum(p.numel() for p in part.parameters()) for name, part in model.named_children()}
    blocks = [(1, 64), (64, 128), (128, 256), (256, 512), (512, 1024), (1024, 2048)]
    convolutions = sum(9 * c * (p + c) + 4 * c for p, c in blocks)  # two without bias, two BatchNorms
    classifiers = {"scene_classifier": 10 * 2049, "event_classifier": 527 * 2049}
    expected = {"frontend": 0, "shared": convolutions, "scene": fc, "event": fc, **classifiers}
    assert parts == expected
    assert sum(expected.values()) == 84_970_329


def test_cross_stitch_is_two_whole_networks_and_four_weights_a_channel_of_every_unit() -> None:
    network = 79_694_154 - 10 * 2049
    channels = 64 + 128 + 256 + 512 + 1024 + 2048 + 2048  # five blocks, pooling, embedding
    found = meta(framework="cross_stitch")
    assert parameters(found) == 2 * network + (10 + 527) * 2049 + 4 * channels
    assert not list(found.shared.parameters())
    two_shared = meta(framework="cross_stitch", shared_layers=2)
    taken = sum(p.numel() for p in two_shared.shared.parameters()) + 4 * (64 + 128)
    assert parameters(two_shared) == parameters(found) - taken


def test_baseline_cnn_layer_by_layer() -> None:
    """DCASE 2018 task 1: 116,118 with the running statistics of BatchNorms over 40 and 8 mel bins."""
    model = meta(AudioFormat(48000, 1, 480000), backbone="dcase2018", framework="scene_only")
    counted = {
        name: sum(v.numel() for key, v in model.state_dict().items() if key.startswith(name + "."))
        for name in ("shared.block1.conv", "shared.block1.bn", "shared.block2.conv", "shared.block2.bn",
                     "scene.fc1", "scene_classifier")
    }  # fmt: skip
    ticks = 1  # PyTorch's num_batches_tracked, which Keras has not
    assert counted == {
        "shared.block1.conv": 1600,
        "shared.block1.bn": 160 + ticks,
        "shared.block2.conv": 100_416,
        "shared.block2.bn": 32 + ticks,
        "scene.fc1": 12_900,
        "scene_classifier": 1010,
    }
    assert sum(counted.values()) - 2 * ticks == 116_118
    assert model.frontend.n_fft == 2048 and model.frontend.f_max == 24000.0
    with watched(model) as shapes, torch.no_grad():
        model.from_features(torch.empty(1, 1, 500, 40, device="meta"))
    assert shapes["shared.block1"] == (32, 100, 8) and shapes["shared.block2"] == (64, 1, 2)
    assert shapes["scene.pooling"] == (128,)


@pytest.mark.parametrize(
    ("backbone", "first", "more"),
    [
        ("pann", "shared.block1.conv1", 2 * 9 * 64),
        ("tinycnn", "shared.block1.conv", 2 * 49 * 32),
        ("dcase2018", "shared.block1.conv", 2 * 49 * 32),
        ("ast", "shared.stem.proj", 2 * 256 * 768),
    ],
)
def test_three_input_channels_widen_the_first_convolution_alone(backbone: str, first: str, more: int) -> None:
    stereo = AudioFormat(44100, 2, 441000)
    one, three = (
        meta(stereo, backbone=backbone, input_channels=kind) for kind in ("mono", "left_right_difference")
    )
    assert parameters(three) == parameters(one) + more
    shapes = {n: (p.shape, q.shape) for (n, p), q in zip(one.named_parameters(), three.parameters())}
    assert [n for n, (a, b) in shapes.items() if a != b] == [f"{first}.weight"]
    assert three.get_submodule(first).in_channels == 3


def test_left_right_difference_of_mono_clips_is_refused() -> None:
    with pytest.raises(ValueError, match="needs stereo clips, 2 channels; these have 1") as error:
        build(Config(input_channels="left_right_difference"), LABELS, TEN_SECONDS)
    assert "\n" not in str(error.value)


def test_input_norm_is_64_mel_bins_of_weight_and_bias() -> None:
    without = meta(framework="scene_only", input_norm=False)
    assert parameters(without) == 79_694_154 and "bn0.weight" not in without.state_dict()
    assert parameters(meta(framework="csem", input_norm=True)) == 160_188_249 + 128


def test_sharing_more_layers_takes_them_out_of_the_second_branch() -> None:
    sizes = [parameters(meta(shared_layers=n)) for n in range(1, 7)]
    blocks = [
        sum(9 * c * (p + c) + 4 * c for p, c in ((a, b),)) for a, b in ((64, 128), (128, 256), (256, 512))
    ]
    assert [sizes[i] - sizes[i + 1] for i in range(3)] == blocks
    assert parameters(meta(backbone="tinycnn", shared_layers=1)) == 297_349 + 49 * 32 * 64 + 2 * 64


def test_blocks_keep_the_released_numbers() -> None:
    names = {name.rsplit(".", 2)[0] for name in meta().state_dict() if "conv" in name}
    branches = {f"{task}.block{n}" for task in ("scene", "event") for n in (3, 4, 5, 6)}
    assert names == {"shared.block1", "shared.block2"} | branches
    weights = {name: tuple(p.shape) for name, p in meta().named_parameters()}
    assert weights["event.block3.conv1.weight"] == (256, 128, 3, 3)
    assert weights["scene.fc1.weight"] == (2048, 2048)
    assert weights["event_classifier.weight"] == (527, 2048)


@contextmanager
def watched(model: nn.Module) -> Iterator[dict[str, tuple[int, ...]]]:
    """Output shape (without the batch) of every module that returns one tensor."""
    shapes: dict[str, tuple[int, ...]] = {}

    def note(name: str):
        def hook(module: nn.Module, args: object, out: object) -> None:
            if isinstance(out, torch.Tensor):
                shapes[name] = tuple(out.shape[1:])

        return hook

    hooks = [module.register_forward_hook(note(name)) for name, module in model.named_modules()]
    yield shapes
    for hook in hooks:
        hook.remove()


@pytest.mark.parametrize(
    ("backbone", "expected"),
    [
        (
            "pann",
            {
                "shared.block1": (64, 160, 32),
                "shared.block2": (128, 80, 16),
                "scene.block3": (256, 40, 8),
                "event.block4": (512, 20, 4),
                "scene.block5": (1024, 10, 2),
                "event.block6": (2048, 10, 2),
                "scene.pooling": (2048,),
                "event.fc1": (2048,),
            },
        ),
        (
            "cnnt",
            {
                "shared.block2": (128, 80, 16),
                "scene.block3": (256, 40, 8),
                "event.block4.projection": (40, 512),
                "event.block4": (40, 512),
                "scene.pooling": (512,),
                "scene.fc1": (512,),
            },
        ),
        (
            "tinycnn",
            {
                "shared.block1.bn": (32, 316, 60),
                "shared.block1": (32, 63, 12),
                "shared.block2.bn": (64, 59, 8),
                "shared.block2": (64, 11, 1),
                "scene.pooling": (704,),
                "event.fc1": (100,),
            },
        ),
    ],
)
def test_shapes_of_a_ten_second_clip(backbone: str, expected: dict[str, tuple[int, ...]]) -> None:
    model = meta(backbone=backbone)
    with watched(model) as shapes, torch.no_grad():
        output = model.from_features(torch.empty(3, 1, 320, 64, device="meta"))
    assert {name: shapes[name] for name in expected} == expected
    assert output.scene_logits.shape == output.scene_from_event.shape == (3, 10)
    assert output.event_logits.shape == output.event_from_scene.shape == (3, 527)


@pytest.mark.parametrize(
    ("framework", "printed"),
    [("scene_only", 6.439), ("mlhe", 10.976), ("mlhe_plus", 10.984), ("csem", 11.009)],
)
def test_macs_are_the_papers_within_its_counter_s_extras(framework: str, printed: float) -> None:
    """Tables V and VI, in G; their counter also counts normalisation and pooling, ours does not."""
    macs = count_macs(meta(framework=framework), (1, 1, 320, 64))[""] / 1e9
    assert printed * 0.999 < macs < printed


@pytest.mark.parametrize(
    ("backbone", "framework", "printed"),
    [
        ("cnnt", "scene_only", 3.12),
        ("cnnt", "csem", 4.35),
        ("tinycnn", "scene_only", 0.0778),
        ("tinycnn", "csem", 0.0796),
    ],
)
def test_macs_of_the_small_models_are_the_released_table_s(
    backbone: str, framework: str, printed: float
) -> None:
    """In G, at 320 frames of 64 bins, 10 s, which is what the printed figures turn out to be of; within 1 %,
    their counter's extras.
    """
    macs = count_macs(meta(backbone=backbone, framework=framework), (1, 1, 320, 64))[""] / 1e9
    assert printed * 0.99 < macs < printed


@pytest.mark.parametrize("encoder", ["code", "paper"])
def test_every_attention_block_has_macs_of_its_own(encoder: str) -> None:
    def operations(model: nn.Module, shape: tuple[int, ...]) -> dict[str, int]:
        """Multiply-accumulates of scores and mixtures by module."""
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            FromFeatures(model.eval())(torch.empty(shape, device="meta"))
        return {
            name.removeprefix("FromFeatures.model."): sum(n for op, n in kinds.items() if is_attention(op))
            // 2
            for name, kinds in counter.get_flop_counts().items()
        }

    def is_attention(operation: object) -> bool:
        return "bmm" in str(operation) or "attention" in str(operation)

    found = operations(meta(backbone="cnnt", cnnt_encoder=encoder), (1, 1, 320, 64))
    own = ".block.attn" if encoder == "paper" else ""
    for task in ("scene", "event"):
        assert found[f"{task}.block4{own}"] == 2 * 40 * 40 * 512
    found = operations(meta(backbone="ast"), (1, 1, 1024, 128))
    blocks = [f"shared.block{n}" for n in range(1, 5)]
    blocks += [f"{task}.block{n}" for task in ("scene", "event") for n in range(5, 11)]
    for block in blocks:
        assert found[f"{block}.attn"] == 2 * 1214 * 1214 * 768, block


def test_macs_of_coupling_and_attention_are_counted() -> None:
    shape = (1, 1, 320, 64)
    coupling = count_macs(meta(), shape)[""] - count_macs(meta(framework="mlhe"), shape)[""]
    assert coupling == 3 * 10 * 527 * 2048 + 2048 * (10 + 527)
    model = meta(backbone="cnnt", framework="scene_only")
    encoder = (
        40 * 2048 * 512 + 4 * 40 * 512 * 512 + 2 * 40 * 40 * 512
    )  # projection, Q K V out, scores and mixture
    convolutions = sum(
        9 * t * f * c * (p + c) for t, f, p, c in ((320, 64, 1, 64), (160, 32, 64, 128), (80, 16, 128, 256))
    )
    assert count_macs(model, shape)["shared"] == convolutions + encoder


def test_initialisation_is_he_uniform_in_pann_and_cnnt_and_torch_s_in_tinycnn() -> None:
    torch.manual_seed(0)
    audio = AudioFormat(16000, 1, 32000)
    for backbone, name in (
        ("pann", "scene.block3.conv1"),
        ("cnnt", "event.fc1"),
        ("cnnt", "scene_classifier"),
    ):
        layer = build(Config(backbone=backbone, width=0.25), LABELS, audio).get_submodule(name)
        fan_in = layer.weight[0].numel()
        largest = layer.weight.abs().max().item()
        assert 0.98 * math.sqrt(6 / fan_in) < largest <= math.sqrt(6 / fan_in)
        assert layer.bias is None or not layer.bias.any()
    layer = build(Config(backbone="tinycnn"), LABELS, audio).get_submodule("scene.fc1")
    assert (
        0.98 / math.sqrt(layer.in_features)
        < layer.weight.abs().max().item()
        <= 1 / math.sqrt(layer.in_features)
    )
    assert layer.bias.any()


def test_dropout_defaults_are_the_released_rates() -> None:
    def rates(**knobs) -> tuple[float, float, float]:
        model = meta(**knobs)
        return model.shared.block1.dropout, model.scene.dropout.p, model.scene.dropout1.p

    assert rates(backbone="pann") == (0.2, 0.5, 0.0)
    assert rates(backbone="cnnt") == (0.0, 0.0, 0.0)
    assert rates(backbone="tinycnn") == (0.3, 0.0, 0.3)
    assert rates(backbone="pann", dropout=0.1, embedding_dropout=0.4) == (0.1, 0.4, 0.0)


@pytest.mark.parametrize("backbone", ["pann", "cnnt", "tinycnn"])
def test_shortest_clip_works_and_a_shorter_one_says_how_long_it_must_be(backbone: str) -> None:
    rate, least = 16000, RELEASED[backbone].least
    frontend = meta(AudioFormat(rate, 1, 2 * rate), backbone=backbone, framework="moe").frontend
    shortest = round(frontend.seconds(least) * rate)
    config = Config(backbone=backbone, width=0.05)
    model = build(config, LABELS, AudioFormat(rate, 1, shortest)).eval()
    assert model(torch.zeros(1, 1, shortest)).scene_logits.shape == (1, 10)
    with pytest.raises(ValueError, match=f"needs at least {least} frames, {frontend.seconds(least):.2f} s"):
        build(config, LABELS, AudioFormat(rate, 1, shortest - 1))
    with pytest.raises(
        ValueError, match=f"n_mels={least - 1}: backbone {backbone} needs at least {least} mel bins"
    ):
        build(Config(backbone=backbone, n_mels=least - 1), LABELS, AudioFormat(rate, 1, 2 * rate))


def test_labels_that_are_missing_are_named() -> None:
    no_events, no_scenes = LabelSpace(("a", "b"), ()), LabelSpace((), ("x",))
    with pytest.raises(ValueError, match="framework=moe needs event labels"):
        build(Config(framework="moe"), no_events, TEN_SECONDS)
    with pytest.raises(ValueError, match="needs scene labels"):
        build(Config(), no_scenes, TEN_SECONDS)
    with torch.device("meta"):
        assert build(Config(framework="scene_only"), no_events, TEN_SECONDS).event_classifier is None


@pytest.mark.parametrize(
    ("knobs", "said"),
    [
        (
            {"backbone": "resnet"},
            "backbone='resnet' is not accepted; expected tinycnn, cnnt, pann, ast, dcase2018 or scattering",
        ),
        ({"backbone": "tinycnn", "shared_layers": 3}, "shared_layers=3: expected a number >= 1 and <= 2"),
        ({"framework": "moe", "shared_layers": 2}, "framework moe has one branch"),
        ({"width": 0.0}, "width=0.0: expected a number > 0"),
        ({"w_event": -0.5}, "w_event=-0.5: expected a number >= 0"),
        ({"dropout": 1.0}, "dropout=1.0"),
        ({"stitch_same": 1.5}, "stitch_same=1.5: expected a number >= 0 and <= 1"),
        ({"w_fake_scene": -1.0}, "w_fake_scene=-1.0: expected a number >= 0"),
        ({"framework": "hierarchical", "shared_layers": 2}, "framework hierarchical has one branch"),
        ({"framework": "rgasc", "shared_layers": 0}, "shared_layers=0: expected a number >= 1 and <= 6"),
        ({"detach": 1}, "detach=1 is not accepted; expected true or false"),
        ({"w_scene": math.nan}, "w_scene=nan"),
    ],
)
def test_impossible_knobs_are_refused(knobs: dict, said: str) -> None:
    with pytest.raises(ValueError) as error:
        Config(**knobs)
    assert said in str(error.value)


def test_self_attention_equals_its_equations() -> None:
    """softmax(Q Kᵀ / √64) V per head, out projection, LayerNorm(x + ·), one clip and head at a time."""
    from trainables.parts.cnn_transformer import SelfAttention

    torch.manual_seed(0)
    layer = SelfAttention(inputs=12, heads=2, head_width=3).double()
    features = torch.randn(2, 4, 5, 3, dtype=torch.float64)  # (B, C, T, F)
    found = layer(features)
    for clip in range(2):
        steps = torch.stack(
            [features[clip, :, t].reshape(-1) for t in range(5)]
        )  # channel-major, as the released code
        x = layer.projection(steps)
        heads = []
        for head in range(2):
            own = slice(3 * head, 3 * head + 3)
            q, k, v = layer.query(x)[:, own], layer.key(x)[:, own], layer.value(x)[:, own]
            heads.append(torch.softmax(q @ k.T / math.sqrt(3), dim=-1) @ v)
        expected = layer.norm(x + layer.out(torch.cat(heads, dim=1)))
        torch.testing.assert_close(found[clip], expected)


def test_cnnt_with_the_papers_encoder_has_a_feed_forward_sublayer_and_a_second_norm_more() -> None:
    code, paper = (meta(backbone="cnnt", framework="scene_only", cnnt_encoder=e) for e in ("code", "paper"))
    feed_forward = 512 * 2048 + 2048 + 2048 * 512 + 512
    assert parameters(paper) - parameters(code) == feed_forward + 2 * 512
    model = build(
        Config(backbone="cnnt", cnnt_encoder="paper", width=0.25), LABELS, AudioFormat(8000, 1, 16000)
    )
    tokens = torch.randn(2, 64, 6, 8)
    layer = model.scene.block4
    x = layer.projection(tokens.transpose(1, 2).flatten(2))
    x = x + layer.block.attn(layer.block.norm1(x))
    expected = x + layer.block.mlp(layer.block.norm2(x))
    assert torch.allclose(layer.eval()(tokens), expected, atol=1e-6)
