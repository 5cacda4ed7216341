"""Left, right and difference: three signals through one front end, and what reads them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch

from datasets.labels import LabelSpace
from datasets.prepare import main as prepare
from datasets.source import open_source
from trainables.contract import AudioFormat
from trainables.describe import describe, main
from trainables.families.csem import Config, build
from trainables.parts.channels import select
from trainables.parts.frontend import LogMel, SpecAugment, statistics
from trainables.parts.kaldi_fbank import KaldiFbank
from trainables.parts.released import BACKBONES
from trainables.run import Run

RATE, SAMPLES = 16000, 32000
LABELS = LabelSpace(("a", "b", "c"), ("u", "v", "w", "x"))
FRONT_ENDS = [pytest.param(LogMel, id="log-mel"), pytest.param(KaldiFbank, id="fbank")]


@pytest.fixture
def stereo() -> torch.Tensor:
    return 0.1 * torch.randn(3, 2, SAMPLES, generator=torch.Generator().manual_seed(0))


def test_select_gives_the_mean_or_left_right_and_left_minus_right(stereo: torch.Tensor) -> None:
    mono = select(stereo, "mono")
    torch.testing.assert_close(mono, ((stereo[:, 0] + stereo[:, 1]) / 2)[:, None])
    three = select(stereo, "left_right_difference")
    assert three.shape == (3, 3, SAMPLES)
    assert torch.equal(three[:, 0], stereo[:, 0]) and torch.equal(three[:, 1], stereo[:, 1])
    assert torch.equal(three[:, 2], stereo[:, 0] - stereo[:, 1])


@pytest.mark.parametrize("front_end", FRONT_ENDS)
def test_each_channel_has_the_features_of_its_signal_alone(front_end: Any, stereo: torch.Tensor) -> None:
    three = front_end(RATE, channels="left_right_difference").raw(stereo)
    alone = front_end(RATE)
    signals = (stereo[:, :1], stereo[:, 1:], stereo[:, :1] - stereo[:, 1:])
    for channel, signal in enumerate(signals):
        torch.testing.assert_close(three[:, channel : channel + 1], alone.raw(signal))


@pytest.mark.parametrize("front_end", FRONT_ENDS)
@pytest.mark.parametrize("channels", [1, 4])
def test_other_than_two_channels_are_refused(front_end: Any, channels: int) -> None:
    with pytest.raises(ValueError, match=f"needs stereo clips, 2 channels; these have {channels}"):
        front_end(RATE, channels="left_right_difference").raw(torch.zeros(1, channels, SAMPLES))


def test_statistics_are_one_a_mel_bin_over_all_three_and_kept_apart_from_mono_s(
    stereo: torch.Tensor,
) -> None:
    frontend = LogMel(RATE, channels="left_right_difference")
    batch = type("Clips", (), {"waveform": stereo})()
    mean, std = statistics(frontend, [batch])  # type: ignore[list-item]
    values = frontend.raw(stereo).double().permute(3, 0, 1, 2).flatten(1)
    torch.testing.assert_close(mean, values.mean(1))
    torch.testing.assert_close(std, values.std(1, correction=0))
    assert repr(frontend) != repr(LogMel(RATE))


def test_spec_augment_masks_the_channels_of_a_clip_together() -> None:
    torch.manual_seed(0)
    x = SpecAugment(time=20, frequency=8)(torch.ones(16, 3, 100, 64))
    assert torch.equal(x[:, 0], x[:, 1]) and torch.equal(x[:, 0], x[:, 2])
    assert len({tuple(clip[0].flatten().tolist()) for clip in x}) == 16  # but every clip by itself


@pytest.mark.parametrize("backbone", BACKBONES)
def test_every_backbone_reads_three_channels_and_hears_each(backbone: str, stereo: torch.Tensor) -> None:
    torch.manual_seed(0)
    config = Config(backbone=backbone, width=0.1, input_channels="left_right_difference", spec_augment=True)
    model = build(config, LABELS, AudioFormat(RATE, 2, SAMPLES))
    output = model.train()(stereo)
    output.scene_logits.sum().backward()
    assert output.scene_logits.shape == (3, 3)
    first = next(p for name, p in model.named_parameters() if p.dim() == 4)
    maps = first.shape[1] // 3  # of scattering one for each λ2 besides the first order's
    assert first.shape[1] == 3 * maps and (maps > 1) == (backbone == "scattering")
    heard = first.grad.unflatten(1, (3, maps)).abs().sum((0, 2, 3, 4))
    assert heard.shape == (3,) and bool((heard > 0).all())


def test_describe_counts_three_channels_and_refuses_mono_clips(capsys: pytest.CaptureFixture) -> None:
    knobs = {"backbone": "tinycnn", "input_channels": "left_right_difference"}
    found = describe("csem", knobs, LABELS, AudioFormat(RATE, 2, SAMPLES))
    assert found["input"]["features"][1] == 3
    arguments = ["csem", "--set", "input_channels=left_right_difference"]
    assert main([*arguments, "--channels", "2"]) == 0
    assert "3 × 320 × 64" in capsys.readouterr().out
    assert main(arguments) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_scenes_that_differ_by_the_side_are_learned_from_three_channels_and_not_from_one(
    tmp_path: Path,
) -> None:
    draw = np.random.default_rng(0)
    tone = 0.2 * np.sin(2 * np.pi * 600 * np.arange(16000) / 8000)
    rows = ["path,split,scene,events"]
    for clip in range(58):
        wave = 0.1 * draw.standard_normal((16000, 2))
        wave[:, clip % 2] += tone
        soundfile.write(tmp_path / f"{clip}.wav", wave, 8000)
        split = "train" if clip < 16 else "val" if clip < 56 else "test"
        rows.append(f"{clip}.wav,{split},{('left', 'right')[clip % 2]},tone")
    (tmp_path / "table.csv").write_text("\n".join(rows))
    shards, cache = tmp_path / "shards", tmp_path / "cache"
    assert prepare(["table", "--source", str(tmp_path), "--out", str(shards)]) == 0
    source = open_source(shards, cache=cache)
    small = {"backbone": "tinycnn", "framework": "mlhe", "batch_size": 4, "dropout": 0.0, "n_mels": 49}
    accuracy = {}
    for kind in ("mono", "left_right_difference"):
        run = Run("csem", small | {"input_channels": kind}, source, seed=0, epochs=8)
        accuracy[kind] = [run.next_epoch()["val/scene_accuracy"] for _ in range(8)][-1]
    assert accuracy["left_right_difference"] > 0.9 and accuracy["mono"] < 0.8, accuracy
