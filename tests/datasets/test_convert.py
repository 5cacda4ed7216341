"""Resampling measured with tones, and channels against plain loops."""

import numpy as np
import pytest
from scipy import signal

from datasets.convert import PASSBAND, STOPBAND_DB, Channels, Conversion, low_pass, mix_channels, resample

RATES = [(44100, 16000), (48000, 16000), (48000, 44100), (22050, 32000), (16000, 48000), (44100, 32000)]


def level(samples: np.ndarray, rate: int, pitch: float) -> float:
    """The amplitude in dB of the tone `pitch` (Hz) in the middle of (n, 1) samples, least squares."""
    middle = samples[len(samples) // 4 : -len(samples) // 4, 0]
    t = 2 * np.pi * pitch * np.arange(len(middle)) / rate
    waves = np.stack((np.sin(t), np.cos(t)), axis=1)
    amplitudes = np.linalg.lstsq(waves, middle, rcond=None)[0]
    return float(20 * np.log10(np.hypot(*amplitudes) + 1e-12))


def wave(rate: int, pitch: float, seconds: float = 1.0) -> np.ndarray:
    return np.sin(2 * np.pi * pitch * np.arange(round(rate * seconds)) / rate)[:, None]


@pytest.mark.parametrize(("rate", "wanted"), RATES)
def test_a_tone_in_the_passband_keeps_its_loudness(rate: int, wanted: int) -> None:
    for part in (0.01, 0.3, 0.7, PASSBAND):
        pitch = part * min(rate, wanted) / 2
        assert abs(level(resample(wave(rate, pitch), rate, wanted), wanted, pitch)) < 0.001


@pytest.mark.parametrize(("rate", "wanted"), [pair for pair in RATES if pair[1] < pair[0]])
def test_a_tone_above_the_new_nyquist_frequency_is_100_db_down(rate: int, wanted: int) -> None:
    for part in (1.0, 1.01, 1.05, rate / wanted * 0.99):
        rest = resample(wave(rate, part * wanted / 2), rate, wanted)
        middle = rest[len(rest) // 4 : -len(rest) // 4]
        assert 20 * np.log10(np.abs(middle).max() + 1e-12) < -STOPBAND_DB


@pytest.mark.parametrize(("rate", "wanted"), [pair for pair in RATES if pair[1] > pair[0]])
def test_raising_the_rate_makes_no_image(rate: int, wanted: int) -> None:
    pitch = 0.8 * rate / 2
    rest = resample(wave(rate, pitch), rate, wanted)
    assert level(rest, wanted, rate - pitch) < -STOPBAND_DB


def test_the_stated_filter_is_the_filter() -> None:
    for factor in (3, 160, 441):
        passed = np.linspace(0, PASSBAND, 500) * np.pi / factor
        stopped = np.linspace(1, 3, 2000) * np.pi / factor
        gain = np.abs(signal.freqz(low_pass(factor), worN=passed)[1])
        assert np.abs(20 * np.log10(gain)).max() < 0.001
        assert 20 * np.log10(np.abs(signal.freqz(low_pass(factor), worN=stopped)[1]).max()) < -STOPBAND_DB


@pytest.mark.parametrize(
    ("samples", "rate", "wanted", "left"), [(479952, 48000, 16000, 159984), (5, 44100, 16000, 2)]
)
def test_length_is_kept_and_nothing_is_delayed(samples: int, rate: int, wanted: int, left: int) -> None:
    click = np.zeros((samples, 2))
    click[samples // 2] = 1
    found = resample(click, rate, wanted)
    assert found.shape == (left, 2)
    if samples > 100:
        assert abs(np.abs(found[:, 0]).argmax() / wanted - samples // 2 / rate) <= 0.5 / wanted


def test_the_same_rate_changes_nothing() -> None:
    samples = np.random.default_rng(0).normal(size=(100, 2))
    assert resample(samples, 44100, 44100) is samples


def mixed_in_a_loop(samples: np.ndarray, channels: str) -> list[list[float]]:
    rows = []
    for row in samples:
        left, right = row[0], row[-1]
        if channels == "mono":
            rows.append([sum(row) / len(row)])
        elif channels == "stereo":
            rows.append([left, right])
        elif channels == "mid_side":
            rows.append([(left + right) / 2, (left - right) / 2])
        elif channels == "left_right_difference":
            rows.append([left, right, left - right])
        else:
            rows.append(list(row))
    return rows


@pytest.mark.parametrize("found", [1, 2])
@pytest.mark.parametrize("channels", ["keep", "mono", "stereo", "mid_side", "left_right_difference"])
def test_channels_against_a_loop(channels: Channels, found: int) -> None:
    samples = np.random.default_rng(1).normal(size=(50, found))
    mixed = mix_channels(samples, channels)
    np.testing.assert_allclose(mixed, mixed_in_a_loop(samples, channels), rtol=0, atol=1e-15)
    assert Conversion(None, channels).format_of(8000, found) == (8000, mixed.shape[1])


def test_more_than_two_channels() -> None:
    assert Conversion(None, "mono").format_of(8000, 6) == (8000, 1)
    with pytest.raises(ValueError, match="6 channels can't become mid_side: accepted are mono and stereo"):
        Conversion(None, "mid_side").format_of(8000, 6)


def test_rates_that_make_no_sense() -> None:
    with pytest.raises(ValueError, match="--rate 16: accepted are 1000 to 384000 Hz"):
        Conversion(16)
    with pytest.raises(ValueError, match=r"44099 Hz to 16001 Hz is 16001/44099: factors up to 10000"):
        Conversion(16001).format_of(44099, 1)
