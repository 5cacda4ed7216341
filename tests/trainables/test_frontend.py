"""The log-mel front end against scipy's spectrogram and a mel filter bank written as loops."""

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import scipy.signal
import torch
from torch import Tensor

from datasets.batch import Batch
from trainables.parts.frontend import LogMel, SpecAugment, statistics

RATES = (8000, 16000, 22050, 24000, 32000, 44100, 48000)
PROJECT = Path(__file__).resolve().parents[2]


def noise(clips: int, channels: int, samples: int, seed: int = 0) -> Tensor:
    return 0.1 * torch.randn(clips, channels, samples, generator=torch.Generator().manual_seed(seed))


def batch(waveform: Tensor) -> Batch:
    n = len(waveform)
    return Batch(waveform, torch.zeros(n, 2), torch.zeros(n, 3), torch.zeros(n, 3), torch.arange(n))


@pytest.mark.parametrize("rate", RATES)
def test_ten_seconds_are_320_frames_at_any_rate(rate: int) -> None:
    frontend = LogMel(rate)
    assert frontend.frames(10 * rate) == 320
    assert frontend.raw(noise(1, 1, 10 * rate)).shape == (1, 1, 320, 64)
    assert frontend.n_fft >= frontend.window_samples > frontend.n_fft / 2


def test_paper_window_hop_and_fft_at_44100_hz() -> None:
    frontend = LogMel(44100)
    assert (frontend.window_samples, frontend.hop_samples, frontend.n_fft, frontend.f_max) == (
        2048,
        1376,
        2048,
        22050,
    )


def slaney_mel(rate: int, n_fft: int, n_mels: int, f_min: float, f_max: float) -> np.ndarray:
    """(n_fft / 2 + 1, n_mels): Slaney's Auditory Toolbox, linear below 1 kHz, 27 steps per factor 6.4
    above.
    """

    def to_mel(hz: float) -> float:
        return hz / (200 / 3) if hz < 1000 else 15 + np.log(hz / 1000) / (np.log(6.4) / 27)

    def to_hz(mel: float) -> float:
        return mel * 200 / 3 if mel < 15 else 1000 * np.exp((mel - 15) * np.log(6.4) / 27)

    edges = [to_hz(m) for m in np.linspace(to_mel(f_min), to_mel(f_max), n_mels + 2)]
    bank = np.zeros((n_fft // 2 + 1, n_mels))
    for mel in range(n_mels):
        low, centre, high = edges[mel : mel + 3]
        for k in range(n_fft // 2 + 1):
            hz = k * rate / n_fft
            triangle = min((hz - low) / (centre - low), (high - hz) / (high - centre))
            bank[k, mel] = max(0.0, triangle) * 2 / (high - low)
    return bank


@pytest.mark.parametrize(
    ("rate", "n_mels", "f_min", "f_max"), [(44100, 64, 50.0, None), (16000, 40, 20.0, 7000.0)]
)
def test_equals_scipy_spectrogram_and_mel_loop(
    rate: int, n_mels: int, f_min: float, f_max: float | None
) -> None:
    frontend = LogMel(rate, n_mels=n_mels, f_min=f_min, f_max=f_max)
    wave = noise(2, 2, rate // 2)
    found = frontend.raw(wave)[:, 0].numpy()
    bank = slaney_mel(rate, frontend.n_fft, n_mels, f_min, f_max or rate / 2)
    for clip in range(2):
        _, _, spectrogram = scipy.signal.spectrogram(
            wave[clip].double().mean(0).numpy(),
            window=np.hamming(frontend.window_samples),
            noverlap=frontend.window_samples - frontend.hop_samples,
            nfft=frontend.n_fft,
            detrend=False,
            mode="magnitude",
        )
        expected = np.log(spectrogram.T @ bank + 1e-8)
        assert found[clip].shape == expected.shape
        np.testing.assert_allclose(found[clip], expected, atol=2e-4)


def test_silence_is_the_floor() -> None:
    raw = LogMel(16000).raw(torch.zeros(1, 1, 16000))
    torch.testing.assert_close(raw, torch.full_like(raw, float(np.log(1e-8))))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"f_max": 9000.0}, "8000"),
        ({"f_min": 5000.0, "f_max": 4000.0}, "f_min=5000"),
        ({"f_min": -1.0}, "f_min=-1"),
        ({"n_mels": 600}, "fewer mel bins"),
        ({"hop": 1e-6}, "less than one sample"),
    ],
)
def test_impossible_settings_are_refused(options: dict, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        LogMel(16000, **options)


def test_clip_shorter_than_a_window_is_refused() -> None:
    frontend = LogMel(16000)
    assert frontend.frames(frontend.window_samples) == 1
    with pytest.raises(ValueError, match="shorter than one window, 743 samples"):
        frontend.raw(torch.zeros(1, 1, 742))
    with pytest.raises(ValueError, match=r"\(B, C, N\)"):
        frontend.raw(torch.zeros(1, 16000))


def test_seconds_is_the_shortest_clip_with_so_many_frames() -> None:
    frontend = LogMel(22050)
    samples = round(frontend.seconds(7) * 22050)
    assert (frontend.frames(samples), frontend.frames(samples - 1)) == (7, 6)


def test_statistics_equal_numpy_over_everything_whatever_the_batches() -> None:
    frontend = LogMel(16000)
    wave = noise(7, 1, 16000) * torch.logspace(-3, 0, 7).view(-1, 1, 1)
    everything = frontend.raw(wave).double().numpy().reshape(-1, 64)
    for sizes in ([7], [3, 4], [1, 5, 1]):
        mean, std = statistics(frontend, [batch(part) for part in wave.split(sizes)])
        np.testing.assert_allclose(mean.numpy(), everything.mean(0), rtol=1e-12)
        np.testing.assert_allclose(std.numpy(), everything.std(0), rtol=1e-12)


def test_statistics_of_a_constant_bin_and_of_nothing() -> None:
    frontend = LogMel(16000)
    mean, std = statistics(frontend, [batch(torch.zeros(n, 1, 16000)) for n in (3, 4)])
    assert torch.equal(std, torch.ones_like(std))
    frontend.normalise.set_statistics(mean, std)
    assert frontend(torch.zeros(1, 1, 16000)).abs().max() < 1e-5
    with pytest.raises(ValueError, match="empty"):
        statistics(frontend, [])


def test_statistics_normalise_and_are_saved() -> None:
    frontend = LogMel(16000).eval()
    wave = noise(4, 1, 16000)
    assert torch.equal(frontend(wave), frontend.raw(wave))
    frontend.normalise.set_statistics(*statistics(frontend, [batch(wave)]))
    features = frontend(wave)
    assert features.mean((0, 1, 2)).abs().max() < 1e-4
    torch.testing.assert_close(features.var((0, 1, 2), correction=0), torch.ones(64))
    assert set(frontend.state_dict()) == {"normalise.mean", "normalise.std"}
    other = LogMel(16000).eval()
    other.load_state_dict(frontend.state_dict())
    assert torch.equal(other(wave), features)


@pytest.mark.parametrize(
    ("mean", "std"),
    [
        (torch.zeros(63), torch.ones(63)),
        (torch.zeros(64), torch.zeros(64)),
        (torch.full((64,), torch.nan), torch.ones(64)),
    ],
)
def test_unusable_statistics_are_refused(mean: Tensor, std: Tensor) -> None:
    with pytest.raises(ValueError, match="mean must be 64 finite numbers|std must be"):
        LogMel(16000).normalise.set_statistics(mean, std)


def test_masks_are_stripes_of_zeros_drawn_for_every_clip() -> None:
    torch.manual_seed(0)
    masked = SpecAugment(time=6, frequency=5, masks=1)(torch.ones(200, 1, 40, 20))[:, 0] == 0
    for axis, width in ((2, 6), (1, 5)):
        stripes = masked.all(axis)  # (clips, frames) or (clips, bins): wholly masked ones
        lengths = stripes.sum(1)
        assert set(lengths.tolist()) == set(
            range(width)
        )  # [0, width): a width of exactly `width` has chance 0
        edges = stripes.int().diff(dim=1, prepend=torch.zeros(200, 1), append=torch.zeros(200, 1))
        assert ((edges == 1).sum(1) <= 1).all()  # one stripe at most
        assert len({tuple(row.tolist()) for row in stripes}) > 20  # clips differ
    nothing_else = masked.all(2)[:, :, None] | masked.all(1)[:, None, :]
    assert torch.equal(masked, nothing_else)


def test_masks_are_drawn_in_training_only_and_leave_the_statistics_alone() -> None:
    frontend = LogMel(16000, augment=SpecAugment(time=10, frequency=8))
    wave = noise(4, 1, 16000)
    torch.manual_seed(0)
    trained = frontend.train()(wave)
    assert (trained == 0).any() and not torch.equal(trained, frontend(wave))
    assert torch.equal(frontend.eval()(wave), frontend.raw(wave))
    assert torch.equal(frontend.train().raw(wave), frontend.eval().raw(wave))


def test_mask_wider_than_the_clip_is_cut_to_it() -> None:
    x = SpecAugment(time=1000, frequency=1000)(torch.ones(50, 1, 12, 10))
    assert x.shape == (50, 1, 12, 10)
    with pytest.raises(ValueError, match="time=-1"):
        SpecAugment(time=-1, frequency=1)


def test_autocast_does_not_touch_the_logarithm() -> None:
    frontend, wave = LogMel(16000), noise(1, 1, 16000)
    with torch.autocast("cpu", torch.bfloat16):
        found = frontend.raw(wave)
    assert found.dtype == torch.float32 and torch.equal(found, frontend.raw(wave))


def test_text_tells_front_ends_apart_but_not_their_augmentation() -> None:
    texts = {
        repr(LogMel(16000, **options)) for options in ({}, {"n_mels": 40}, {"f_min": 60.0}, {"f_max": 7000.0})
    }
    assert len(texts) == 4 and repr(LogMel(8000)) not in texts
    assert repr(LogMel(16000, augment=SpecAugment(4, 4))) == repr(LogMel(16000))


def test_torchaudio_is_imported_in_one_place_only() -> None:
    importing = re.compile(r"^\s*(import|from)\s+torchaudio\b", re.MULTILINE)
    ours = [
        p
        for p in PROJECT.rglob("*.py")
        if not any(part.startswith(".") for part in p.relative_to(PROJECT).parts)
    ]
    assert PROJECT / "trainables/parts/frontend.py" in ours
    importers = {p.relative_to(PROJECT).as_posix() for p in ours if importing.search(p.read_text())}
    assert importers == set(), "take it from trainables.parts.torchaudio_guarded"
    guard = (PROJECT / "trainables/parts/torchaudio_guarded.py").read_text()
    assert 'import_module("torchaudio")' in guard


def test_missing_extension_is_declared_absent_and_the_rest_works() -> None:
    """Beside a CPU torch the plain import fails; the guard must leave a working torchaudio either way."""
    script = (
        "from trainables.parts.torchaudio_guarded import torchaudio\n"
        "import torch\n"
        "print(torchaudio.functional.resample(torch.zeros(1, 320), 32000, 16000).shape[-1])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=PROJECT, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "160"
