"""Left, right and difference: three signals through one front end, and what reads them."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from datasets.labels import LabelSpace
from trainables.contract import AudioFormat
from trainables.describe import describe, main
from trainables.families.csem import Config, build
from trainables.parts.channels import select
from trainables.parts.frontend import LogMel, SpecAugment, statistics
from trainables.parts.kaldi_fbank import KaldiFbank

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


@pytest.mark.parametrize("backbone", ["tinycnn", "cnnt", "pann", "ast", "dcase2018"])
def test_every_backbone_reads_three_channels_and_hears_each(backbone: str, stereo: torch.Tensor) -> None:
    torch.manual_seed(0)
    config = Config(backbone=backbone, width=0.1, input_channels="left_right_difference", spec_augment=True)
    model = build(config, LABELS, AudioFormat(RATE, 2, SAMPLES))
    output = model.train()(stereo)
    output.scene_logits.sum().backward()
    assert output.scene_logits.shape == (3, 3)
    first = next(p for name, p in model.named_parameters() if p.dim() == 4)
    assert first.shape[1] == 3 and all(first.grad[:, channel].abs().sum() > 0 for channel in range(3))


def test_describe_counts_three_channels_and_refuses_mono_clips(capsys: pytest.CaptureFixture) -> None:
    knobs = {"backbone": "tinycnn", "input_channels": "left_right_difference"}
    found = describe("csem", knobs, LABELS, AudioFormat(RATE, 2, SAMPLES))
    assert found["input"]["features"][1] == 3
    arguments = ["csem", "--set", "input_channels=left_right_difference"]
    assert main([*arguments, "--channels", "2"]) == 0
    assert "3 × 320 × 64" in capsys.readouterr().out
    assert main(arguments) == 2
    assert capsys.readouterr().err.count("\n") == 1
