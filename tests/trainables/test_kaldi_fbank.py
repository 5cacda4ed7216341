"""AST's front end against torchaudio's Kaldi filter bank, one clip at a time."""

import pytest
import torch
from torch import Tensor

from datasets.batch import Batch
from trainables.parts.frontend import SpecAugment, statistics
from trainables.parts.kaldi_fbank import FRAMES, KaldiFbank
from trainables.parts.torchaudio_guarded import torchaudio

AUDIOSET_MEAN, AUDIOSET_STD = -4.2677393, 4.5689974


def noise(clips: int, channels: int, samples: int, seed: int = 0) -> Tensor:
    return 0.1 * torch.randn(clips, channels, samples, generator=torch.Generator().manual_seed(seed))


def reference(mono: Tensor, n_mels: int = 128, f_min: float = 20.0, f_max: float = 0.0) -> Tensor:
    """As AST's loader calls it, for a clip (N,) at 16 kHz."""
    return torchaudio.compliance.kaldi.fbank(
        mono[None],
        htk_compat=True,
        sample_frequency=16000,
        use_energy=False,
        window_type="hanning",
        num_mel_bins=n_mels,
        low_freq=f_min,
        high_freq=f_max,
        dither=0.0,
        frame_shift=10,
    )


def signals(samples: int) -> Tensor:
    """(6, 1, N): noise at three levels, a tone on an offset, an impulse, silence."""
    time = torch.arange(samples) / 16000
    impulse, silence = torch.zeros(samples), torch.zeros(samples)
    impulse[samples // 2] = 1.0
    tone = 0.3 + 0.5 * torch.sin(2 * torch.pi * 440 * time)
    levels = noise(3, 1, samples)[:, 0] * torch.tensor([[5.0], [1.0], [1e-3]])
    return torch.cat([levels, torch.stack([tone, impulse, silence])]).unsqueeze(1)


@pytest.mark.parametrize("samples", [400, 559, 560, 32000, 160000])
def test_equals_kaldi_s_filter_bank_clip_by_clip(samples: int) -> None:
    wave = signals(samples)
    found = KaldiFbank(16000).fbank(wave)
    assert found.dtype == torch.float32
    for clip, features in zip(wave, found):
        torch.testing.assert_close(features, reference(clip[0]), rtol=0, atol=1e-4)


def test_the_clip_s_mean_that_ast_s_loader_subtracts_first_is_idle() -> None:
    """Up to float32 rounding of the filter bank, which is about 2e-3 where a bin is near empty."""
    for clip in signals(32000):
        exact = reference((clip[0] - clip[0].mean()).double())
        torch.testing.assert_close(KaldiFbank(16000).fbank(clip[None])[0].double(), exact, rtol=0, atol=5e-3)


def test_channels_are_averaged_and_the_limits_are_kaldi_s() -> None:
    wave = noise(2, 2, 16000)
    found = KaldiFbank(16000, n_mels=40, f_min=100.0, f_max=6000.0).fbank(wave)
    for clip, features in zip(wave, found):
        torch.testing.assert_close(features, reference(clip.mean(0), 40, 100.0, 6000.0), rtol=0, atol=1e-4)


@pytest.mark.parametrize("rate", [8000, 22050, 32000, 44100, 48000])
def test_other_rates_are_resampled_to_16_khz(rate: int) -> None:
    frontend, wave = KaldiFbank(rate), noise(2, 1, 2 * rate + 1)
    found = frontend.fbank(wave)
    resampled = torchaudio.functional.resample(wave[:, 0], rate, 16000)
    for clip, features in zip(resampled, found):
        torch.testing.assert_close(features, reference(clip), rtol=0, atol=1e-4)
    assert frontend.frames(10 * rate) == 1024 and frontend.raw(wave).shape == (2, 1, 256, 128)


def test_a_tone_lands_in_the_same_mel_bin_whatever_the_rate() -> None:
    bins = set()
    for rate in (8000, 16000, 44100):
        time = torch.arange(rate) / rate
        found = KaldiFbank(rate).fbank(0.5 * torch.sin(2 * torch.pi * 1000 * time)[None, None])
        bins.add(int(found[0].mean(0).argmax()))
    assert len(bins) == 1


def test_ten_seconds_are_998_frames_padded_with_zeros_before_they_are_scaled() -> None:
    wave = noise(1, 1, 160000)
    frontend = KaldiFbank(16000)
    raw, expected = frontend.raw(wave)[0, 0], reference(wave[0, 0])
    assert expected.shape == (998, 128) and raw.shape == (1024, 128)
    padded = torch.cat([expected, torch.zeros(26, 128)])
    torch.testing.assert_close(raw, (padded - AUDIOSET_MEAN) / (2 * AUDIOSET_STD), rtol=0, atol=1e-5)
    assert raw[998:].unique().item() == pytest.approx(4.2677393 / 9.1379948)


@pytest.mark.parametrize(("seconds", "frames"), [(1, 128), (5, 512), (10, 1024), (30, 3072)])
def test_padded_lengths_of_ast_s_recipes(seconds: int, frames: int) -> None:
    assert KaldiFbank(16000).frames(seconds * 16000) == frames


@pytest.mark.parametrize("rate", [8000, 16000, 22050, 44100])
def test_seconds_is_the_shortest_clip_with_so_many_frames(rate: int) -> None:
    frontend = KaldiFbank(rate)
    for frames, fewer in ((FRAMES + 1, FRAMES), (2 * FRAMES, FRAMES), (3 * FRAMES, 2 * FRAMES)):
        samples = round(frontend.seconds(frames) * rate)
        assert frontend.frames(samples) >= frames and frontend.frames(samples - 1) == fewer
    shortest = round(frontend.seconds(1) * rate)
    assert frontend.raw(noise(1, 1, shortest)).shape == (1, 1, FRAMES, 128)
    with pytest.raises(ValueError, match="shorter than one window, 0.025 s"):
        frontend.raw(noise(1, 1, shortest - 1))
    with pytest.raises(ValueError, match=r"\(B, C, N\)"):
        frontend.raw(torch.zeros(1, 16000))


def test_training_statistics_come_on_top_and_are_saved() -> None:
    frontend, wave = KaldiFbank(16000).eval(), noise(4, 1, 20000)
    assert torch.equal(frontend(wave), frontend.raw(wave))
    n = torch.arange(4)
    batch = Batch(wave, torch.zeros(4, 2), torch.zeros(4, 3), torch.zeros(4, 3), n)
    frontend.normalise.set_statistics(*statistics(frontend, [batch]))
    features = frontend(wave)
    assert features.mean((0, 1, 2)).abs().max() < 1e-4
    torch.testing.assert_close(features.var((0, 1, 2), correction=0), torch.ones(128), rtol=1e-4, atol=1e-4)
    assert set(frontend.state_dict()) == {"normalise.mean", "normalise.std"}
    with pytest.raises(ValueError, match="mean must be 128 finite numbers"):
        frontend.normalise.set_statistics(torch.zeros(64), torch.ones(64))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"f_max": 9000.0}, "<= 8000 Hz"),
        ({"f_min": 5000.0, "f_max": 4000.0}, "f_min=5000"),
        ({"n_mels": 300}, "fewer mel bins"),
        ({"n_mels": 3}, "more mel bins"),
    ],
)
def test_impossible_settings_are_refused(options: dict, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        KaldiFbank(44100, **options)


def test_masks_and_autocast_and_text_behave_as_in_the_other_front_end() -> None:
    frontend, wave = KaldiFbank(16000, augment=SpecAugment(time=30, frequency=30)), noise(4, 1, 16000)
    torch.manual_seed(0)
    assert (frontend.train()(wave) == 0).any() and torch.equal(frontend.eval()(wave), frontend.raw(wave))
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(frontend.raw(wave), KaldiFbank(16000).raw(wave))
    assert repr(frontend) == repr(KaldiFbank(16000))
    assert (
        len({repr(KaldiFbank(16000, **o)) for o in ({}, {"n_mels": 40}, {"f_min": 60.0}, {"f_max": 7e3})})
        == 4
    )
    assert repr(KaldiFbank(8000)) != repr(KaldiFbank(16000))
