"""The published taggers on files of their exact names and shapes: front ends and forward passes against ones
written out slowly from their descriptions, and every way a file can fail to fit.
"""

import json
from pathlib import Path

import numpy as np
import pytest
import test_ast as slow_ast
import torch
import torch.nn.functional as F
from released_files import RELEASED, random_state
from safetensors.torch import save_file
from test_csem_forward import fc, max_mean, pann_block
from test_frontend import slaney_mel
from test_kaldi_fbank import reference as kaldi_fbank
from torch import Tensor

from datasets.labels import LabelSpace
from trainables.contract import AudioFormat
from trainables.families.csem import Config, build
from trainables.parts.audioset_taggers import PANNS, AudioSetAst, Cnn14, PannsMel
from trainables.taggers import load_tagger

CSV = "index,mid,display_name\n" + "".join(f'{n},/m/{n:04x},"class, {n}"\n' for n in range(527))


def noise(clips: int, samples: int, seed: int = 0) -> Tensor:
    return 0.1 * torch.randn(clips, 1, samples, generator=torch.Generator().manual_seed(seed))


def fourier(window: int) -> tuple[np.ndarray, np.ndarray]:
    """PANNs' STFT kernels (window / 2 + 1, window): the Fourier matrix under a periodic Hann window."""
    n = np.arange(window)
    hann = 0.5 - 0.5 * np.cos(2 * np.pi * n / window)
    kernel = np.exp(-2j * np.pi / window) ** (np.outer(n[: window // 2 + 1], n) % window) * hann
    return kernel.real, kernel.imag


def panns_constants(rate: int) -> dict[str, Tensor]:
    """As a released file of that rate holds them."""
    form = PANNS[rate]
    real, imag = (torch.from_numpy(k).float().unsqueeze(1) for k in fourier(form.window))
    mel = slaney_mel(rate, form.window, 64, 50.0, form.f_max)
    return {
        "spectrogram_extractor.stft.conv_real.weight": real,
        "spectrogram_extractor.stft.conv_imag.weight": imag,
        "logmel_extractor.melW": torch.from_numpy(mel).float(),
    }


def panns_mel(clip: np.ndarray, rate: int) -> np.ndarray:
    """(N,) → (T, 64) dB, frame by frame."""
    form = PANNS[rate]
    real, imag = fourier(form.window)
    mel = slaney_mel(rate, form.window, 64, 50.0, form.f_max)
    padded = np.pad(clip.astype(np.float64), form.window // 2, mode="reflect")
    frames = []
    for t in range(1 + len(clip) // form.hop):
        frame = padded[t * form.hop : t * form.hop + form.window]
        power = (real @ frame) ** 2 + (imag @ frame) ** 2
        frames.append(10 * np.log10(np.maximum(power @ mel, 1e-10)))
    return np.stack(frames)


def slow_cnn14(wave: Tensor, state: dict[str, Tensor], rate: int) -> Tensor:
    """(B, 1, N) → probabilities, in float64."""
    s = {name: t.double() for name, t in state.items()}
    x = torch.from_numpy(np.stack([panns_mel(clip[0].numpy(), rate) for clip in wave]))  # (B, T, 64)
    scale = s["bn0.weight"] / torch.sqrt(s["bn0.running_var"] + 1e-5)
    x = ((x - s["bn0.running_mean"]) * scale + s["bn0.bias"]).unsqueeze(1)
    for n in range(1, 7):
        x = pann_block(x, s, f"conv_block{n}", pool=n < 6)
    return torch.sigmoid(fc(F.relu(fc(max_mean(x.mean(3), 2), s, "fc1")), s, "fc_audioset"))


def slow_ast_features(clip: Tensor, frames: int = 1024, n_mels: int = 128) -> Tensor:
    """(N,) → (frames, n_mels): Kaldi's, zeros after it or cut, then normalised with AudioSet's statistics."""
    x = kaldi_fbank(clip, n_mels)[:frames]
    x = torch.cat([x, torch.zeros(frames - len(x), n_mels)])
    return (x + 4.2677393) / (2 * 4.5689974)


def slow_audioset_ast(clip: Tensor, state: dict[str, Tensor], depth: int) -> Tensor:
    """One clip of features (T, F) → probabilities, in float64, by the released names."""
    s = {name.removeprefix("module."): t.double() for name, t in state.items()}
    stem = {"patch_embed.proj.weight": "proj.weight", "patch_embed.proj.bias": "proj.bias"}
    for name in ("cls_token", "dist_token", "pos_embed", *stem):
        s[f"shared.stem.{stem.get(name, name)}"] = s[f"v.{name}"]
    x = slow_ast.tokens(clip.double(), s)
    for n in range(depth):
        x = slow_ast.encoder_block(x, s, f"v.blocks.{n}")
    x = slow_ast.layer_norm(x, s, "v.norm", 1e-6)
    return torch.sigmoid(fc(slow_ast.layer_norm((x[0] + x[1]) / 2, s, "mlp_head.0", 1e-5), s, "mlp_head.1"))


def assert_near(found: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(found.double(), expected.double(), rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("rate", [16000, 32000])
def test_panns_mel_equals_the_fourier_sum_frame_by_frame(rate: int) -> None:
    wave = torch.cat([noise(2, rate // 2 + 7), torch.zeros(1, 1, rate // 2 + 7)])
    found = PannsMel(PANNS[rate])(wave)
    assert found.shape == (3, 1, 1 + (rate // 2 + 7) // (rate // 100), 64)
    for clip, features in zip(wave, found[:, 0]):
        assert_near(features, torch.from_numpy(panns_mel(clip[0].numpy(), rate)))
    assert (found[2] == -100.0).all()  # silence: 10·log10 of the floor
    assert PannsMel(PANNS[rate])(noise(1, 10 * rate)).shape[2] == 1001


@pytest.mark.parametrize("rate", [16000, 32000])
def test_constants_of_a_released_panns_file_are_ours(rate: int) -> None:
    ours = PannsMel(PANNS[rate]).released_buffers()
    released = panns_constants(rate)
    assert ours.keys() == released.keys()
    for name, expected in released.items():
        assert ours[name].shape == expected.shape == RELEASED[f"Cnn14_{rate // 1000}k"][0][name]
        assert (ours[name] - expected).abs().max() < 1e-5 * expected.abs().max()


def test_cnn14_equals_the_slow_reference() -> None:
    model = Cnn14(PANNS[16000], classes=9, width=0.1).eval()
    shapes = {n: tuple(t.shape) for n, t in model.state_dict().items()}
    state = random_state(shapes) | {"bn0.running_mean": torch.full((64,), -30.0)}
    model.load_state_dict(state)
    wave = noise(2, 8000)
    assert_near(model(wave), slow_cnn14(wave, state, 16000))


def test_dropout_of_cnn14_is_off_at_inference() -> None:
    model, wave = Cnn14(PANNS[16000], classes=4, width=0.1), noise(1, 8000)
    assert torch.equal(model.eval()(wave), model(wave))
    assert not torch.equal(model.train()(wave), model(wave))


@pytest.mark.parametrize("seconds", [0.5, 10.0, 10.6, 12.0])
def test_ast_features_are_cut_or_padded_to_1024_frames_before_normalising(seconds: float) -> None:
    wave = noise(2, round(16000 * seconds))
    found = AudioSetAst(depth=1, width=0.02).features(wave)
    assert found.shape == (2, 1, 1024, 128)
    for clip, features in zip(wave, found[:, 0]):
        torch.testing.assert_close(features, slow_ast_features(clip[0]), rtol=0, atol=2e-5)
    last = found[0, 0, -1]
    assert torch.allclose(last, torch.full((128,), 4.2677393 / (2 * 4.5689974))) == (seconds < 10.2)


def test_audioset_ast_equals_the_slow_reference() -> None:
    model = AudioSetAst(classes=7, depth=3, width=0.03, frames=128, n_mels=36).eval()
    shapes = {n: tuple(t.shape) for n, t in model.state_dict().items()}
    state = random_state({n: s for n, s in shapes.items() if not n.startswith("frontend")})
    model.load_state_dict(state, strict=False)
    names = (("stem.proj", "v.patch_embed.proj"), ("stem.", "v."), ("blocks", "v.blocks"), ("norm", "v.norm"))
    released = dict(state)
    for ours, theirs in names:
        released |= {theirs + n.removeprefix(ours): t for n, t in state.items() if n.startswith(ours)}
    wave = noise(2, 16000)
    features = model.features(wave)
    expected = torch.stack([slow_audioset_ast(clip[0], released, depth=3) for clip in features])
    assert_near(model(wave), expected)


def released_file(folder: Path, name: str, wrapped: bool = False, **changes: Tensor | None) -> Path:
    """A file of the exact names and shapes; its tensors are views of one number, so that it is small."""
    state = {n: torch.zeros(()).expand(s) for n, s in RELEASED[name][0].items()}
    if name.startswith("Cnn14"):
        state |= panns_constants(int(name[6:8]) * 1000)
    state |= {n.replace("__", "."): t for n, t in changes.items()}
    state = {n: t for n, t in state.items() if t is not None}
    torch.save({"model": state, "iteration": 600000} if wrapped else state, folder / f"{name}.pth")
    return folder / f"{name}.pth"


@pytest.mark.slow
@pytest.mark.parametrize("rate", [16000, 32000])
def test_a_whole_panns_file_equals_the_slow_reference(rate: int, tmp_path: Path) -> None:
    name = f"Cnn14_{rate // 1000}k"
    state = random_state(RELEASED[name][0]) | panns_constants(rate)
    state["bn0.running_mean"] = torch.full((64,), -30.0)
    state["fc_audioset.weight"] *= 0.2  # logits of about 1: probabilities with all their float32 digits
    torch.save({"iteration": 1, "model": state}, tmp_path / f"{name}_mAP=0.438.pth")
    (tmp_path / "class_labels_indices.csv").write_text(CSV)
    tagger = load_tagger(tmp_path / f"{name}_mAP=0.438.pth", names=tmp_path / "class_labels_indices.csv")
    assert (tagger.sample_rate, tagger.name, tagger.notes) == (rate, f"{name}_mAP=0.438", ())
    assert tagger.names[:2] == ("class, 0", "class, 1") and len(tagger.names) == 527
    wave = noise(2, rate)
    with torch.no_grad():
        found = tagger.module(wave)
    assert found.shape == (2, 527) and found.std() > 0.05
    assert_near(found, slow_cnn14(wave, state, rate))


@pytest.mark.slow
def test_a_whole_ast_file_equals_the_slow_reference(tmp_path: Path) -> None:
    state = random_state(RELEASED["AST_10_10"][0])
    torch.save(state, tmp_path / "audioset_10_10_0.4593.pth")
    tagger = load_tagger(tmp_path / "audioset_10_10_0.4593.pth")
    assert tagger.sample_rate == 16000 and tagger.names[526] == "audioset_526"
    wave = noise(1, 160000)
    with torch.no_grad():
        found = tagger.module(wave)
    expected = slow_audioset_ast(tagger.module.features(wave)[0, 0], state, depth=12)
    assert found.std() > 0.05
    assert_near(found[0], expected)


def test_imagenet_heads_of_ast_are_listed_and_need_no_acceptance(tmp_path: Path) -> None:
    tagger = load_tagger(released_file(tmp_path, "AST_10_10"))
    heads = "v.head.weight, v.head.bias, v.head_dist.weight, v.head_dist.bias"
    assert tagger.notes == (f"ImageNet heads of the file, which AST never uses: {heads}",)
    assert len(tagger.checksum) == 64 and tagger.name == "AST_10_10"


def test_what_a_panns_file_has_too_much_is_refused_unless_accepted(tmp_path: Path) -> None:
    path = released_file(tmp_path, "Cnn14_16k", wrapped=True, fc_extra__weight=torch.zeros(3))
    with pytest.raises(ValueError, match=r"in the file without a use: fc_extra.weight; accept=True") as error:
        load_tagger(path)
    assert "\n" not in str(error.value)
    tagger = load_tagger(path, accept=True)
    assert tagger.notes[-1] == "in the file without a use: fc_extra.weight"


def test_a_panns_front_end_that_is_not_ours_is_refused_unless_accepted(tmp_path: Path) -> None:
    filters = panns_constants(16000)["logmel_extractor.melW"]
    path = released_file(tmp_path, "Cnn14_16k", logmel_extractor__melW=filters.roll(1, 0))
    with pytest.raises(ValueError, match=r"melW: up to 0\.\d+ of its largest value away from ours; accept"):
        load_tagger(path)
    assert len(load_tagger(path, accept=True).notes) == 1
    path = released_file(tmp_path, "Cnn14_16k", logmel_extractor__melW=filters[:, :40])
    with pytest.raises(ValueError, match=r"melW: shape \(257, 40\) in the file, \(257, 64\) here"):
        load_tagger(path)
    path = released_file(tmp_path, "Cnn14_16k", logmel_extractor__melW=None)
    with pytest.raises(ValueError, match="melW: not in the file"):
        load_tagger(path)


def test_a_tagger_that_lacks_a_layer_is_refused_even_if_accepted(tmp_path: Path) -> None:
    path = released_file(tmp_path, "Cnn14_16k", fc1__weight=None)
    with pytest.raises(ValueError, match="missing.*in the model without a source: fc1.weight"):
        load_tagger(path, accept=True)
    path = released_file(tmp_path, "Cnn14_16k", fc_audioset__bias=torch.zeros(80))
    with pytest.raises(
        ValueError, match=r"not loaded: fc_audioset.bias ← fc_audioset.bias, \(527\) here, \(80\)"
    ):
        load_tagger(path, accept=True)


def test_files_that_are_no_tagger_are_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no known tagger.*but conv1.weight"):
        load_tagger(released_file(tmp_path, "TinyCNN"))
    stft = torch.zeros(129, 1, 256)
    path = released_file(tmp_path, "Cnn14_16k", spectrogram_extractor__stft__conv_real__weight=stft)
    with pytest.raises(ValueError, match="an STFT window of 256 samples; known are 512, 1024"):
        load_tagger(path)
    with pytest.raises(FileNotFoundError, match="no such file"):
        load_tagger(tmp_path / "nothing.pth")
    with pytest.raises(FileNotFoundError, match="no model there"):
        load_tagger(tmp_path)


def test_clips_that_are_too_short_are_refused_with_the_length_needed() -> None:
    model = Cnn14(PANNS[16000], classes=3, width=0.1).eval()
    assert model(noise(1, 31 * 160)).shape == (1, 3)
    with pytest.raises(ValueError, match=r"gives 31 frames; Cnn14 needs at least 32, 0\.31 s"):
        model(noise(1, 31 * 160 - 1))
    with pytest.raises(ValueError, match="shorter than half a window, 257 samples at 16000 Hz"):
        model(noise(1, 256))


def best_folder(folder: Path, **knobs: object) -> tuple[Path, torch.nn.Module]:
    labels = LabelSpace(("a", "b"), ("bird", "car", "rain"))
    torch.manual_seed(0)
    model = build(Config(backbone="tinycnn", width=0.25, **knobs), labels, AudioFormat(8000, 1, 16000)).eval()
    events = labels.events if model.event_classifier is not None else ()
    about = {
        "family": "csem",
        "values": {"backbone": "tinycnn", "width": 0.25, **knobs},
        "scenes": labels.scenes,
        "events": events,
        "audio": {"sample_rate": 8000, "channels": 1, "samples": 16000},
    }
    folder.mkdir()
    save_file(model.state_dict(), folder / "model.safetensors")
    (folder / "model.json").write_text(json.dumps(about))
    return folder, model


def test_the_winner_of_a_study_tags_with_its_own_events(tmp_path: Path) -> None:
    folder, model = best_folder(tmp_path / "best")
    tagger, wave = load_tagger(folder), noise(2, 16000)
    assert (tagger.names, tagger.sample_rate) == (("bird", "car", "rain"), 8000)
    torch.testing.assert_close(tagger.module(wave), torch.sigmoid(model(wave).event_logits))
    with pytest.raises(ValueError, match="knows its event names"):
        load_tagger(folder, names="list.csv")


def test_a_model_without_events_is_no_tagger(tmp_path: Path) -> None:
    folder, _ = best_folder(tmp_path / "best", framework="scene_only")
    with pytest.raises(ValueError, match="no event branch to tag with"):
        load_tagger(folder)


def test_a_class_list_of_another_length_is_refused(tmp_path: Path) -> None:
    (tmp_path / "list.csv").write_text("".join(CSV.splitlines(keepends=True)[:-1]))
    with pytest.raises(ValueError, match="526 classes, expected 527"):
        load_tagger(released_file(tmp_path, "AST_10_10"), names=tmp_path / "list.csv")
