"""The deep scattering spectrum and its CRNN, against the definitions written as loops in time."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from trainables.parts.scattering import SIDES, DeepScattering, Paths, first_order
from trainables.parts.scattering_crnn import AttentionOfLevels, PathsAsMaps, Recurrent

RATE = 2000  # Hz


def front_end(bands: int = 24) -> DeepScattering:
    return DeepScattering(RATE, bands=bands, f_min=80.0, f_max=800.0)  # no flank crosses half the rate


def noise(samples: int, clips: int = 1) -> torch.Tensor:
    return 0.1 * torch.randn(clips, 1, samples, generator=torch.Generator().manual_seed(0))


def wavelet(centre: float, bandwidth: float, samples: int) -> np.ndarray:
    """Morlet's wavelet in time, 2·samples + 1 values around 0."""
    t = np.arange(-samples, samples + 1) / RATE
    gaussian = bandwidth * math.sqrt(2 * math.pi) * np.exp(-2 * (math.pi * bandwidth * t) ** 2)
    return gaussian * (np.exp(2j * math.pi * centre * t) - math.exp(-((centre / bandwidth) ** 2) / 2)) / RATE


def deviation(centre: float, per_octave: float) -> float:
    ratio = 2 ** (-1 / per_octave)
    return centre * (1 - ratio) / (1 + ratio) / math.sqrt(math.log(2))


def filtered(signal: np.ndarray, centre: float, per_octave: float) -> np.ndarray:
    """|signal * wavelet| of a signal that goes on periodically."""
    psi = wavelet(centre, deviation(centre, per_octave), len(signal))
    return np.abs(np.convolve(np.tile(signal, 3), psi, "same"))[len(signal) : 2 * len(signal)]


def averaged(envelope: np.ndarray, middles: list[int], hop: int) -> np.ndarray:
    n, found = np.arange(-len(envelope), 2 * len(envelope)), []
    for middle in middles:
        weights = np.exp(-2 * ((n - middle) / hop) ** 2)  # a deviation of half a hop
        found.append(float((weights * np.tile(envelope, 3)).sum() / weights.sum()))
    return np.array(found)


def test_every_path_is_what_its_definition_says() -> None:
    made = front_end()
    hop, x = made.hop_samples, noise(6 * front_end().hop_samples + 17)
    found = made.raw(x)[0, 0].numpy()
    left, length = 2 * hop - hop // 2, (len(found) + 4) * hop
    signal = np.pad(x[0, 0].double().numpy(), (left, length - left - x.shape[-1]), mode="reflect")
    middles = [left + t * hop + hop // 2 for t in range(len(found))]
    envelopes, first = [], []
    for i, centre in enumerate(made.centres):
        envelopes.append(filtered(signal, centre, made.per_octave))
        first.append(np.log(averaged(envelopes[i], middles, hop) + 1e-6))
        np.testing.assert_allclose(found[:, i], first[i], atol=0.03)
    for k, (i, j) in enumerate(zip(*made.paths)):
        modulated = averaged(filtered(envelopes[i], made.modulations[j], 1), middles, hop)
        ratio = np.log(modulated + 1e-6) - first[i]
        np.testing.assert_allclose(found[:, 24 + k], ratio, atol=0.06, err_msg=f"{i} {made.modulations[j]}")


def test_a_tone_is_in_its_band_and_its_beating_in_the_second_order() -> None:
    made = front_end()
    t = torch.arange(8 * RATE) / RATE
    tone, beat = made.centres[12], made.modulations[2]
    x = (1 + 0.8 * torch.cos(2 * math.pi * beat * t)) * torch.sin(2 * math.pi * tone * t)
    found = made.raw(x[None, None])[0, 0].mean(0)
    assert int(found[: made.bands].argmax()) == 12
    of_band = torch.tensor([k for k, i in enumerate(made.paths.first) if i == 12])
    strongest = of_band[found[made.bands + of_band].argmax()]
    assert made.paths.second[strongest] == 2


@pytest.mark.parametrize("more", [0, 1, 200])
def test_frames_are_whole_hops_and_statistics_have_every_path(more: int) -> None:
    made = front_end(16)
    samples = 5 * made.hop_samples + more
    x = made(noise(samples, clips=2))
    assert x.shape == (2, 1, made.frames(samples), made.n_mels) and made.frames(samples) == 5
    assert made.n_mels == 16 + len(made.paths.first) and bool(x.isfinite().all())
    assert made.seconds(5) * RATE == 5 * made.hop_samples


def test_clips_of_a_batch_do_not_meet_and_silence_is_finite() -> None:
    made, x = front_end(16), noise(3000, clips=3)
    x[1] = 0
    torch.testing.assert_close(made.raw(x)[2:], made.raw(x[2:]), rtol=1e-4, atol=1e-4)
    assert bool(made.raw(x).isfinite().all())


def test_centres_are_evenly_spaced_in_octaves() -> None:
    centres = first_order(10, 50.0, 1000.0)
    np.testing.assert_allclose(np.diff(np.log2(centres)), np.log2(centres[1] / centres[0]))
    assert centres[0] == 50.0 and centres[-1] == pytest.approx(1000.0 * 2 ** (-1 / 8))


def test_what_cannot_be_filtered_is_refused() -> None:
    with pytest.raises(ValueError, match="f_min=0 Hz and f_max=1000 Hz: expected 0 < f_min"):
        DeepScattering(RATE, bands=8, f_min=0.0)
    for bands, f_min in ((1, 50.0), (8, 900.0)):
        with pytest.raises(ValueError, match=f"n_mels={bands} wavelets .* at least 2 over at least half"):
            DeepScattering(RATE, bands=bands, f_min=f_min)
    made = front_end(16)
    with pytest.raises(ValueError, match=f"is shorter than {SIDES + 1} hops"):
        made.raw(noise(3 * made.hop_samples - 1))


def test_every_path_has_its_place_in_the_maps() -> None:
    paths = Paths((1, 2, 2), (0, 0, 1))
    x = torch.randn(2, 2, 5, 3 + 3)
    maps = PathsAsMaps(3, paths)(x)
    assert maps.shape == (2, 6, 5, 3)
    for channel in range(2):
        of = maps[:, 3 * channel : 3 * channel + 3]
        assert torch.equal(of[:, 0], x[:, channel, :, :3])
        assert torch.equal(of[:, 1, :, 1], x[:, channel, :, 3]) and torch.equal(
            of[:, 1, :, 2], x[:, channel, :, 4]
        )
        assert torch.equal(of[:, 2, :, 2], x[:, channel, :, 5])
        assert not of[:, 1, :, 0].any() and not of[:, 2, :, :2].any()


def test_attention_sums_each_level_over_time() -> None:
    torch.manual_seed(0)
    pooled, steps = AttentionOfLevels((3, 2)), Recurrent(3, 1)
    x = steps(torch.randn(2, 3, 4, 1))
    found = pooled(x)
    for clip in range(2):
        for level, (start, end) in enumerate(((0, 3), (3, 5))):
            part = x[clip, :, start:end]
            scores = torch.stack([pooled.scores[level](step) for step in part])
            for value in range(end - start):
                shares = scores[:, value].exp() / scores[:, value].exp().sum()
                expected = sum(shares[t] * part[t, value] for t in range(4))
                torch.testing.assert_close(found[clip, start + value], expected)
