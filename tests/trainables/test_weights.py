"""Released state dicts in our models: every name finds its place, and the forward pass and the losses are
those written out from the released code's description, by its own names.
"""

import math
import pickle
from pathlib import Path

import numpy as np
import pytest
import test_ast as slow_ast
import torch
import torch.nn.functional as F
from released_files import RELEASED as FILES
from released_files import Shapes, csem_ast, csem_cnnt, csem_pann, csem_tinycnn, digest, random_state
from safetensors.torch import save_file
from test_csem_forward import conv_bn_relu, fc, max_mean, pann_block
from torch import Tensor, nn

from datasets.batch import Batch
from datasets.labels import LabelSpace
from trainables.contract import AudioFormat
from trainables.families.csem import Config, build, terms
from trainables.pretrained import start_from
from trainables.released_names import RELEASED
from trainables.weights import Rename, fit, grouped, read_state, rename, resized_positions

LABELS = LabelSpace(tuple(f"s{i}" for i in range(10)), tuple(f"e{i}" for i in range(527)))
TEN_SECONDS = AudioFormat(44100, 1, 441000)
State = dict[str, Tensor]
SLOW = pytest.mark.slow
Outputs = tuple[Tensor, Tensor, Tensor, Tensor]


def meta(**knobs: object) -> nn.Module:
    with torch.device("meta"):
        return build(Config(**knobs), LABELS, TEN_SECONDS)


def shaped(shapes: Shapes) -> State:
    """Right names and shapes, no memory."""
    return {name.removeprefix("module."): torch.zeros(()).expand(shape) for name, shape in shapes.items()}


@pytest.mark.parametrize("name", FILES)
def test_rules_give_the_released_names_and_shapes(name: str) -> None:
    shapes, expected = FILES[name]
    assert digest(shapes) == expected


# What each released file fits without a tensor left on either side


@pytest.mark.parametrize(
    ("name", "knobs"),
    [
        ("cSEM_PANN", {"backbone": "pann"}),
        ("cSEM_PANN", {"backbone": "pann", "framework": "mlhe"}),
        ("RGASC_Cnn14_asc_aec", {"backbone": "pann"}),
        ("MlhE_plus_PANN", {"backbone": "pann", "framework": "mlhe_plus"}),
        ("cSEM_CNNT", {"backbone": "cnnt"}),
        ("CnnT", {"backbone": "cnnt", "framework": "scene_only"}),
        ("cSEM_TinyCNN", {"backbone": "tinycnn"}),
        ("TinyCNN", {"backbone": "tinycnn", "framework": "scene_only"}),
        ("cSEM_AST", {"backbone": "ast"}),
        ("MlhE_AST", {"backbone": "ast", "framework": "mlhe"}),
        ("MoE_AST", {"backbone": "ast", "framework": "moe"}),
        ("AST", {"backbone": "ast", "framework": "scene_only"}),
    ],
)
def test_a_released_joint_model_fits_its_own_system_with_nothing_left(name: str, knobs: dict) -> None:
    model, state = meta(**knobs), shaped(FILES[name][0])
    found = fit(state, model, RELEASED)
    assert found.exact, found.report()
    assert len(found.loaded) == len(state) and len({theirs for _, theirs in found.loaded}) == len(state)
    assert {ours for ours, _ in found.loaded} == {
        n for n in model.state_dict() if not n.startswith("frontend.")
    }


def test_panns_blocks_go_to_the_trunk_and_the_rest_to_both_branches() -> None:
    found = fit(shaped(FILES["Cnn14_32k"][0]), meta(shared_layers=2), RELEASED)
    taken = dict(found.loaded)
    assert taken["shared.block2.bn1.running_var"] == "conv_block2.bn1.running_var"
    for task in ("scene", "event"):
        for n in (3, 6):
            assert taken[f"{task}.block{n}.conv2.weight"] == f"conv_block{n}.conv2.weight"
        assert taken[f"{task}.fc1.bias"] == "fc1.bias"
    assert taken["event_classifier.weight"] == "fc_audioset.weight"
    assert found.unmatched == ("scene_classifier.weight", "scene_classifier.bias") and not found.refused
    assert sorted(grouped(found.unused)) == [
        "bn0.* (5)", "logmel_extractor.melW", "spectrogram_extractor.stft.conv_imag.weight",
        "spectrogram_extractor.stft.conv_real.weight",
    ]  # fmt: skip


def test_panns_bn0_goes_where_the_model_has_one() -> None:
    found = fit(shaped(FILES["Cnn14_16k"][0]), meta(framework="scene_only"), RELEASED)
    assert dict(found.loaded)["bn0.running_mean"] == "bn0.running_mean"
    assert "fc_audioset.weight" in found.unused and not any("bn0" in name for name in found.unused)


def test_cnnt_takes_the_first_three_panns_blocks() -> None:
    found = fit(shaped(FILES["Cnn14_32k"][0]), meta(backbone="cnnt"), RELEASED)
    taken = dict(found.loaded)
    blocks = {theirs.split(".")[0] for theirs in taken.values()}
    assert blocks == {"conv_block1", "conv_block2", "conv_block3"}
    assert (
        taken["event.block3.conv1.weight"] == taken["scene.block3.conv1.weight"] == "conv_block3.conv1.weight"
    )
    unused = {name.split(".")[0] for name in found.unused}
    assert {"conv_block4", "conv_block5", "conv_block6"} <= unused
    without = set(grouped(found.unmatched))
    assert {"scene.block4.* (12)", "event.block4.* (12)"} <= without


@pytest.mark.parametrize(("depth", "shared"), [(None, None), (10, 1), (7, 3), (12, 10)])
def test_the_first_blocks_of_audioset_s_ast_are_taken(depth: int | None, shared: int | None) -> None:
    model = meta(backbone="ast", depth=depth, shared_layers=shared)
    found = fit(shaped(FILES["AST_10_10"][0]), model, RELEASED)
    taken, deep, common = dict(found.loaded), depth or 10, shared or 4
    for n in range(1, deep + 1):
        places = ["shared"] if n <= common else ["scene", "event"]
        for place in places:
            assert taken[f"{place}.block{n}.attn.qkv.weight"] == f"v.blocks.{n - 1}.attn.qkv.weight"
    for task in ("scene", "event"):
        assert taken[f"{task}.pooling.norm.weight"] == "v.norm.weight"
        assert taken[f"{task}.pooling.fc_norm.weight"] == "mlp_head.0.weight"
    assert (
        taken["shared.stem.pos_embed"] == "v.pos_embed"
        and taken["shared.stem.proj.bias"] == "v.patch_embed.proj.bias"
    )
    heads = {"v.head.* (2)", "v.head_dist.* (2)", "mlp_head.1.* (2)"}
    assert set(grouped(found.unused)) == heads | {f"v.blocks.{n}.* (12)" for n in range(deep, 12)}
    assert set(grouped(found.unmatched)) == {
        "scene.fc1.* (2)", "event.fc1.* (2)", "scene_classifier.* (2)", "event_classifier.* (2)"
    }  # fmt: skip


def test_a_joint_model_s_blocks_move_when_more_or_fewer_are_shared() -> None:
    state = shaped(FILES["cSEM_AST"][0])
    more = dict(fit(state, meta(backbone="ast", shared_layers=6), RELEASED).loaded)
    assert more["shared.block6.norm1.bias"] == "scene_blocks.1.norm1.bias"
    assert more["event.block7.norm1.bias"] == "event_blocks.2.norm1.bias"
    assert "event_blocks.1.norm1.bias" in fit(state, meta(backbone="ast", shared_layers=6), RELEASED).unused
    fewer = dict(fit(state, meta(backbone="ast", shared_layers=2), RELEASED).loaded)
    for task in ("scene", "event"):
        assert fewer[f"{task}.block3.norm1.bias"] == "shared_blocks.2.norm1.bias"
        assert fewer[f"{task}.block5.norm1.bias"] == f"{task}_blocks.0.norm1.bias"


def test_offsets_are_counted_from_the_file() -> None:
    names = ["trunk.0.w", "trunk.1.w", "trunk.2.w", "top.0.w", "other"]
    rules = [
        Rename("trunk.{n}.", "block{n}.", first=1),
        Rename("top.{n}.", "block{n}.", first=1, after="trunk"),
    ]
    assert rename(names, rules) == {
        "block1.w": "trunk.0.w", "block2.w": "trunk.1.w", "block3.w": "trunk.2.w", "block4.w": "top.0.w",
        "other": "other",
    }  # fmt: skip


# Forward passes by the released names


def slow_coupling(scene: Tensor, event: Tensor, ws: Tensor, we: Tensor) -> tuple[Tensor, Tensor]:
    """ỹ_s (B, S) and ỹ_e (B, E), class by class (facts of Algorithm 1)."""
    from_event = [event @ (torch.softmax(we @ one, 0)[:, None] * we).sum(0) for one in ws]
    from_scene = [scene @ (torch.softmax(ws @ one, 0)[:, None] * ws).sum(0) for one in we]
    return torch.stack(from_event, 1), torch.stack(from_scene, 1)


def joint(scene: Tensor, event: Tensor, s: State, scene_head: str, event_head: str) -> Outputs:
    inferred = slow_coupling(scene, event, s[f"{scene_head}.weight"], s[f"{event_head}.weight"])
    return fc(scene, s, scene_head), fc(event, s, event_head), *inferred


def slow_pann(x: Tensor, s: State) -> Outputs:
    embeddings = []
    for suffix in ("", "_event"):
        y = x
        for n in range(1, 7):
            y = pann_block(y, s, f"conv_block{n}{suffix if n > 2 else ''}", pool=n < 6)
        embeddings.append(F.relu(fc(max_mean(y.mean(3), 2), s, f"fc1{suffix}")))
    return joint(*embeddings, s, "fc_final", "fc_final_event")


def slow_cnnt(x: Tensor, s: State) -> Outputs:
    embeddings = []
    for suffix in ("", "_event"):
        y = pann_block(pann_block(x, s, "conv_block1"), s, "conv_block2")
        y = pann_block(y, s, f"conv_block3{suffix}")
        steps = torch.stack([y[:, :, t].flatten(1) for t in range(y.shape[2])], 1)
        y, name = fc(steps, s, f"mha{suffix}.mel_projection"), f"mha{suffix}.layers.0.enc_self_attn"
        own = y.shape[2] // 8
        heads = []
        for h in range(8):
            q, k, v = (fc(y, s, f"{name}.W_{w}")[..., h * own : (h + 1) * own] for w in "QKV")
            heads.append(torch.softmax(q @ k.transpose(1, 2) / math.sqrt(own), -1) @ v)
        y = slow_ast.layer_norm(fc(torch.cat(heads, 2), s, f"{name}.fc") + y, s, f"{name}.layernorm", 1e-5)
        embeddings.append(F.relu(fc(max_mean(y, 1), s, f"fc512_128{suffix}")))
    return joint(*embeddings, s, "fc_final", "fc_final_event")


def slow_tinycnn(x: Tensor, s: State) -> Outputs:
    y = F.max_pool2d(conv_bn_relu(x, s, "conv1", "bn1"), 5)
    y = F.max_pool2d(conv_bn_relu(y, s, "conv2", "bn2"), 5).flatten(1)
    scene, event = F.relu(fc(y, s, "fc1")), F.relu(fc(y, s, "fc1_event"))
    return joint(scene, event, s, "fc_final", "fc_final_event")


def slow_csem_ast(x: Tensor, s: State) -> Outputs:
    embeddings = []
    stem = {"proj.weight": "patch_embed.proj.weight", "proj.bias": "patch_embed.proj.bias"}
    for name in ("cls_token", "dist_token", "pos_embed", *stem):
        s = s | {f"shared.stem.{name}": s[f"shared_{stem.get(name, name)}"]}
    for task in ("scene", "event"):
        clips = []
        for clip in x:
            y = slow_ast.tokens(clip[0], s)
            for name in [f"shared_blocks.{n}" for n in range(4)] + [f"{task}_blocks.{n}" for n in range(6)]:
                y = slow_ast.encoder_block(y, s, name)
            y = slow_ast.layer_norm(y, s, f"norm_{task}", 1e-6)
            y = slow_ast.layer_norm((y[0] + y[1]) / 2, s, f"fc_norm_{task}", 1e-5)
            clips.append(F.relu(fc(y, s, f"fc_{task}_2048")))
        embeddings.append(torch.stack(clips))
    scene = embeddings[0] / embeddings[0].square().sum(1, keepdim=True).sqrt()
    return joint(scene, embeddings[1], s, "fc_final_asc", "fc_final_event")


def slow_losses(outputs: Outputs, scene: Tensor, events: Tensor) -> list[float]:
    """The released code's four, scene (B,) classes and events (B, E) of 0 and 1."""
    z_s, z_e, from_event, from_scene = (y.double().numpy() for y in outputs)
    log_p = z_s - np.log(np.exp(z_s).sum(1, keepdims=True))
    p, y = 1 / (1 + np.exp(-z_e)), events.double().numpy()
    return [
        -np.mean([log_p[b, c] for b, c in enumerate(scene.tolist())]),
        -np.mean(y * np.log(p) + (1 - y) * np.log(1 - p)),
        np.mean((from_event - log_p) ** 2),
        np.mean((from_scene - p) ** 2),
    ]


REDUCED_AST = {"backbone": "ast", "width": 0.03, "n_mels": 36}  # 12 heads of 2
CASES = {
    "pann": (csem_pann(0.1), slow_pann, {"width": 0.1}, TEN_SECONDS),
    "cnnt": (csem_cnnt(0.25), slow_cnnt, {"backbone": "cnnt", "width": 0.25}, TEN_SECONDS),
    "tinycnn": (csem_tinycnn(), slow_tinycnn, {"backbone": "tinycnn"}, TEN_SECONDS),
    "ast": (csem_ast(24, 61, 3 * 12), slow_csem_ast, REDUCED_AST, AudioFormat(16000, 1, 16000)),
}


@pytest.mark.parametrize(
    ("shapes", "slow", "knobs", "audio"),
    [
        *(pytest.param(*case, id=name) for name, case in CASES.items()),
        pytest.param(csem_pann(), slow_pann, {}, TEN_SECONDS, id="whole pann", marks=SLOW),
        pytest.param(csem_cnnt(), slow_cnnt, {"backbone": "cnnt"}, TEN_SECONDS, id="whole cnnt", marks=SLOW),
        pytest.param(csem_ast(), slow_csem_ast, {"backbone": "ast"}, TEN_SECONDS, id="whole ast", marks=SLOW),
    ],
)
def test_outputs_and_losses_of_a_released_state_dict(
    shapes: Shapes, slow: object, knobs: dict, audio: AudioFormat, tmp_path: Path
) -> None:
    state = random_state(shapes)
    torch.save(state, tmp_path / "released.pth")
    config = Config(**knobs)
    model = build(config, LABELS, audio)
    start = start_from(model, str(tmp_path / "released.pth"), LABELS, accept=False)
    assert start.fit.exact
    model.eval()
    clips, frames = 2, model.frontend.frames(audio.samples)
    x = torch.randn(clips, 1, frames, model.frontend.n_mels, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        output = model.from_features(x)
        expected = slow(x.double(), {name: t.double() for name, t in state.items()})
    found = (output.scene_logits, output.event_logits, output.scene_from_event, output.event_from_scene)
    for ours, theirs in zip(found, expected):
        assert theirs.std() > 1e-3
        assert (ours.double() - theirs).abs().max() < 1e-5 * theirs.abs().max()
    events = (torch.rand(clips, 527, generator=torch.Generator().manual_seed(2)) < 0.1).float()
    scene = torch.tensor([3, 8])
    batch = Batch(
        torch.zeros(clips, 1, 1),
        F.one_hot(scene, 10).float(),
        events,
        torch.ones(clips, 527),
        torch.arange(clips),
    )
    names = ("scene_ce", "event_bce", "scene_from_event", "event_from_scene")
    losses = [terms(config)[name](output, batch).item() for name in names]
    assert losses == pytest.approx(slow_losses(expected, scene, events), rel=1e-5)


# Position embeddings


def test_positions_of_another_length_are_interpolated_over_the_grid_tokens_apart() -> None:
    d = 3
    tokens = torch.randn(1, 2, d)
    f, t = torch.meshgrid(torch.arange(12.0), torch.arange(101.0), indexing="ij")
    plane = torch.stack([f, t, 2 * f - t], -1).reshape(1, -1, d)  # frequency-major
    found = resized_positions(torch.cat([tokens, plane], 1), (12, 101), (6, 50))
    assert torch.equal(found[:, :2], tokens) and found.shape == (1, 2 + 300, d)
    grid = found[0, 2:].reshape(6, 50, d)
    for i in (0, 3, 5):
        for j in (0, 20, 49):  # centres of the new cells in units of the old ones
            row, column = (i + 0.5) * 12 / 6 - 0.5, (j + 0.5) * 101 / 50 - 0.5
            expected = torch.tensor([row, column, 2 * row - column])
            torch.testing.assert_close(grid[i, j], expected, rtol=1e-5, atol=1e-4)


def test_a_shorter_clip_s_model_takes_audioset_s_positions_and_says_so() -> None:
    with torch.device("meta"):
        model = build(Config(backbone="ast"), LABELS, AudioFormat(16000, 1, 5 * 16000))
    found = fit(shaped(FILES["AST_10_10"][0]), model, RELEASED)
    assert found.reshaped == (("shared.stem.pos_embed", "v.pos_embed", "12 × 101 → 12 × 50 patches"),)
    assert found.tensors["shared.stem.pos_embed"].shape == (1, 2 + 600, 768)
    assert "interpolated: shared.stem.pos_embed ← v.pos_embed, 12 × 101 → 12 × 50 patches" in found.report()


def test_our_own_positions_are_of_our_own_mel_bins() -> None:
    def small(seconds: int) -> nn.Module:
        knobs = {"backbone": "ast", "depth": 2, "shared_layers": 1, "width": 0.03, "n_mels": 36}
        return build(Config(**knobs), LABELS, AudioFormat(16000, 1, 16000 * seconds))

    short, long = small(1), small(3)
    found = fit(short.state_dict(), long)
    assert found.reshaped[0][2] == "3 × 12 → 3 × 37 patches"
    found.load_into(long)
    positions = long.state_dict()["shared.stem.pos_embed"]
    expected = resized_positions(short.state_dict()["shared.stem.pos_embed"], (3, 12), (3, 37))
    assert torch.equal(positions, expected)


class Counted(nn.Module):
    """A part with a table counted in the training labels beside a learned weight."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(2))
        self.register_buffer("table", torch.zeros(3))

    def fit_labels(self, batches: object) -> None: ...


def test_what_is_counted_in_the_training_labels_is_left_alone() -> None:
    model = nn.ModuleDict({"relation": Counted()})
    found = fit({"relation.weight": torch.ones(2), "relation.table": torch.ones(7)}, model)
    assert found.exact and list(found.tensors) == ["relation.weight"]
    assert fit({"relation.weight": torch.ones(2)}, model).exact


def test_names_are_grouped_by_their_first_numbered_part() -> None:
    names = ["conv3_event.bn1.weight", "conv3_event.conv2.weight", "v.head.weight", "v.head.bias", "token"]
    assert grouped(names) == ["conv3_event.* (2)", "v.head.* (2)", "token"]


# Refusal


def tiny(labels: LabelSpace = LABELS, **knobs: object) -> nn.Module:
    torch.manual_seed(0)
    return build(Config(backbone="tinycnn", **knobs), labels, TEN_SECONDS)


def tiny_file(folder: Path, **changes: Tensor | None) -> str:
    state = random_state(FILES["cSEM_TinyCNN"][0]) | {n.replace("__", "."): t for n, t in changes.items()}
    torch.save({n: t for n, t in state.items() if t is not None}, folder / "tiny.pth")
    return str(folder / "tiny.pth")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"fc1__weight": None}, "in the model without a source: scene.fc1.weight"),
        ({"extra__weight": torch.ones(2)}, "in the file without a use: extra.weight"),
        ({"fc_final__bias": torch.ones(15)}, "scene_classifier.bias ← fc_final.bias, (10) here, (15) there"),
        ({"conv1__weight": torch.ones(32, 3, 7, 7)}, "conv1.weight, (32, 1, 7, 7) here, (32, 3, 7, 7) there"),
    ],
)
def test_a_tensor_without_its_partner_refuses_the_file_unless_accepted(
    changes: dict, said: str, tmp_path: Path
) -> None:
    path, model = tiny_file(tmp_path, **changes), tiny()
    before = {name: t.clone() for name, t in model.state_dict().items()}
    with pytest.raises(ValueError) as error:
        start_from(model, path, LABELS, accept=False)
    assert said in str(error.value) and "set accept_mismatch=true" in str(error.value)
    assert "\n" not in str(error.value) and path in str(error.value)
    assert all(torch.equal(t, before[name]) for name, t in model.state_dict().items())  # untouched
    start = start_from(model, path, LABELS, accept=True)
    assert said in "\n".join(start.report())
    after = model.state_dict()
    assert torch.equal(after["shared.block2.conv.weight"], read_state(Path(path))["conv2.weight"])
    for name, *_ in (*start.fit.refused, *((n,) for n in start.fit.unmatched)):
        assert torch.equal(after[name], before[name])


def test_a_file_of_which_nothing_fits_is_refused_even_if_accepted(tmp_path: Path) -> None:
    save_file({"encoder.weight": torch.ones(3)}, tmp_path / "other.safetensors")
    with pytest.raises(ValueError, match="nothing in it fits the model; in the model without a source"):
        start_from(tiny(), str(tmp_path / "other.safetensors"), LABELS, accept=True)


def test_other_features_and_unnamed_classes_are_remarked(tmp_path: Path) -> None:
    start = start_from(tiny(), tiny_file(tmp_path), LABELS, accept=False)
    assert start.kind == "cSEM's released TinyCNN" and len(start.checksum) == 64
    assert len(start.remarks) == 2 and all("does not name them" in r for r in start.remarks)
    start = start_from(tiny(f_max=8000.0), tiny_file(tmp_path), LABELS, accept=False)
    assert start.remarks[0] == (
        "warning: these weights were trained on other features: LogMel, 64 bins, 50-22050 Hz; "
        "here LogMel, 64 bins, 50-8000 Hz"
    )


def test_panns_weights_are_said_to_be_of_other_features(tmp_path: Path) -> None:
    shapes = FILES["Cnn14_32k"][0]
    torch.save({"model": shaped(shapes)}, tmp_path / "Cnn14.pth")
    model = meta(backbone="cnnt").to_empty(device="cpu")
    start = start_from(model, str(tmp_path / "Cnn14.pth"), LABELS, accept=True)
    assert "10·log10 mel of 32 kHz, 64 bins, 50-14000 Hz; here LogMel, 64 bins" in start.remarks[0]


# Files


class Trap:
    def __reduce__(self) -> tuple:
        return (exec, ("print('run!')",))


def test_files_that_are_no_weights_are_refused_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    def write(name: str, content: bytes) -> Path:
        (tmp_path / name).write_bytes(content)
        return tmp_path / name

    whole = Path(tiny_file(tmp_path)).read_bytes()
    torch.save({"weight": torch.ones(2), "trap": Trap()}, tmp_path / "code.pth")
    torch.save([torch.ones(2)], tmp_path / "list.pth")
    torch.save({"model": {"weight": torch.ones(2), "note": "hello"}}, tmp_path / "text.pth")
    torch.save({"weight": torch.tensor([1.0, math.nan])}, tmp_path / "nan.pth")
    save_file({"weight": torch.ones(1000)}, tmp_path / "whole.safetensors")
    cases = {
        tmp_path / "nothing.pth": "no such file",
        write("page.pth", b"\n<!DOCTYPE html><html>"): "a web page, not weights; download it again",
        write("empty.pth", b""): "empty, not weights",
        write("half.pth", whole[: len(whole) // 2]): "damaged or cut off",
        write("text.txt", b"scene,event\n1,2\n"): "neither a torch file nor a whole safetensors file",
        write("half.safetensors", (tmp_path / "whole.safetensors").read_bytes()[:900]): "nor a whole",
        write("code.pkl", pickle.dumps({"weight": Trap()})): "a pickle that torch did not write",
        tmp_path / "code.pth": "refused: it asks for exec to be run",
        tmp_path / "list.pth": "holds list, expected a dict of tensors",
        tmp_path / "text.pth": "'note' is str, expected tensors only",
        tmp_path / "nan.pth": "weight holds numbers that are not finite",
    }  # fmt: skip
    for path, said in cases.items():
        with pytest.raises((ValueError, FileNotFoundError)) as error:
            read_state(path)
        assert said in str(error.value) and str(path) in str(error.value) and "\n" not in str(error.value), (
            path
        )
    assert "run!" not in capsys.readouterr().out


def test_wrappers_and_the_prefix_of_data_parallel_are_taken_off(tmp_path: Path) -> None:
    for number, state in enumerate(
        (
            {"a.b": torch.ones(1)},
            {"module.a.b": torch.ones(1)},
            {"model": {"a.b": torch.ones(1)}, "iteration": 3, "sampler": {"queue": [1, 2]}},
            {"state_dict": {"module.a.b": torch.ones(1)}},
        )
    ):
        for old in (False, True):
            path = tmp_path / f"{number}{old}.pth"
            torch.save(state, path, _use_new_zipfile_serialization=not old)
            assert list(read_state(path)) == ["a.b"]


def test_a_training_dump_s_arrays_beside_the_weights_are_read_without_code(tmp_path: Path) -> None:
    sampler = {"indexes_per_class": [np.arange(3), np.arange(2)], "queue": [1, 2]}
    torch.save({"model": {"a": torch.ones(1)}, "sampler": sampler}, tmp_path / "dump.pth")
    assert list(read_state(tmp_path / "dump.pth")) == ["a"]
