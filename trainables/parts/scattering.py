"""Waveform → deep scattering spectrum, the features of the "wavelet-based" system of Hou et al. 2023, Table
XI (Li et al., ICMEW 2019), after Andén & Mallat, IEEE TSP 2014.

A wavelet of centre ξ Hz and bandwidth σ Hz is Morlet's: exp(-(f-ξ)²/2σ²) less so much of exp(-f²/2σ²) that it
is 0 at f = 0. With * for convolution and φ for the average over about T = 2 hops (a Gaussian of a deviation
of half a hop):

    first order   U1(λ1) = |x * ψ_λ1|             S1 = U1 * φ              `bands` wavelets, f_min … f_max
    second order  U2(λ1, λ2) = |U1(λ1) * ψ_λ2|    S2 = U2 * φ              1 an octave, from 1 / T up
    given         ln S1  and  ln(S2 / S1), Andén & Mallat's normalisation

Only λ2 <= λ1 / 4 are kept: what wavelets of about an eighth of an octave (64 between 50 Hz and 22 kHz are 7.4
an octave) let through fluctuates no faster. The linearly spaced wavelets below 1/T and the scattering along
frequency of their papers are left out.

All is done in the Fourier domain, each path at the lowest rate that holds it: |·| does not see that a band
was moved to zero, so that a narrow one is cut out, and its inverse transform is short.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from trainables.parts.channels import InputChannels, select
from trainables.parts.frontend import HIGHEST_FREQUENCY, Normalise

HOP_SECONDS = 4096 / 44100  # s; the nearest power of two of samples is taken
SLOWER = 4  # how much lower a second-order wavelet must be than the first-order one
FLOOR = 1e-6  # of amplitude, beneath the logarithm
REACH = 6.0  # deviations of a Gaussian that are kept of a band; with 6, ln S is right to 0.02 for noise
SIDES = 2  # hops that a clip is mirrored by at either end


class Paths(NamedTuple):
    """Second-order wavelets: path i is U1 of wavelet `first[i]` filtered by wavelet `second[i]`."""

    first: tuple[int, ...]
    second: tuple[int, ...]


class DeepScattering(nn.Module):
    """Waveform (B, C, N) in [-1, 1] → normalised scattering spectrum (B, C', T, F), first the `bands` paths
    of the first order from low to high, then the second order's.

    `paths` says which first- and second-order wavelet each of the latter has. Raises ValueError for fewer
    than 2 bands, limits outside 0 < f_min < f_max <= sample_rate / 2 or less than half an octave apart.
    """

    def __init__(
        self,
        sample_rate: int,
        *,
        bands: int,
        f_min: float,
        f_max: float | None = None,
        channels: InputChannels = "mono",
        augment: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        super().__init__()
        self.channels: InputChannels = channels
        self.sample_rate, self.bands, self.f_min = sample_rate, bands, float(f_min)
        self.f_max = min(HIGHEST_FREQUENCY, sample_rate / 2) if f_max is None else float(f_max)
        if not 0 < self.f_min < self.f_max <= sample_rate / 2:
            raise ValueError(
                f"f_min={self.f_min:g} Hz and f_max={self.f_max:g} Hz: expected 0 < f_min < f_max <= "
                f"{sample_rate / 2:g} Hz, half the sampling rate of {sample_rate} Hz"
            )
        if bands < 2 or self.f_max < self.f_min * math.sqrt(2):
            raise ValueError(
                f"n_mels={bands} wavelets from f_min={self.f_min:g} Hz to f_max={self.f_max:g} Hz: expected "
                "at least 2 over at least half an octave"
            )
        self.hop_samples = 1 << max(1, round(math.log2(HOP_SECONDS * sample_rate)))
        self.centres = first_order(bands, self.f_min, self.f_max)
        self.per_octave = 1 / math.log2(self.centres[1] / self.centres[0])
        self.modulations = second_order(self.centres[-1], sample_rate / (2 * self.hop_samples))
        self.paths = _paths(self.centres, self.modulations)
        self.n_mels = bands + len(self.paths.first)
        self.normalise = Normalise(self.n_mels, augment)

    def frames(self, samples: int) -> int:
        """How many frames T, one a hop. Raises ValueError for a clip shorter than it must be mirrored by."""
        least = (SIDES + 1) * self.hop_samples
        if samples < least:
            raise ValueError(
                f"a clip of {samples} samples ({samples / self.sample_rate:.3f} s at {self.sample_rate} Hz) "
                f"is shorter than {SIDES + 1} hops, {least} samples ({least / self.sample_rate:.3f} s)"
            )
        return samples // self.hop_samples

    def seconds(self, frames: int) -> float:
        """The shortest clip, in seconds, that gives `frames` frames."""
        return max(frames, SIDES + 1) * self.hop_samples / self.sample_rate

    def raw(self, waveform: Tensor) -> Tensor:
        """(B, C, N) → (B, C', T, F) float32, before normalisation and SpecAugment."""
        frames = self.frames(waveform.shape[-1])
        with torch.autocast(waveform.device.type, enabled=False):  # bf16 has too few digits under a logarithm
            x = select(waveform.float(), self.channels)
            spectrum = torch.fft.fft(_mirrored(x.flatten(0, 1), frames, self.hop_samples))
            first, second = self._scatter(spectrum)
            low = torch.log(first + FLOOR)
            ratio = torch.log(second + FLOOR) - low[:, self.paths.first]
            found = torch.cat([low, ratio], 1)[..., SIDES : SIDES + frames]  # (B·C', F, T)
            return found.transpose(1, 2).unflatten(0, x.shape[:2])

    def _scatter(self, spectrum: Tensor) -> tuple[Tensor, Tensor]:
        """Spectrum (B, P) of mirrored clips → S1 (B, bands, P / hop), S2 (B, paths, P / hop)."""
        first: list[Tensor] = []
        second: dict[tuple[int, int], Tensor] = {}
        for i, centre in enumerate(self.centres):
            bandwidth = _bandwidth(centre, self.per_octave)
            envelope = band(spectrum, centre, bandwidth, self.sample_rate, self.hop_samples).abs()
            ups = torch.fft.fft(envelope)
            rate = self.sample_rate * ups.shape[-1] / spectrum.shape[-1]
            hop = self.hop_samples * ups.shape[-1] // spectrum.shape[-1]
            first.append(average(ups, hop))
            for j, modulation in enumerate(self.modulations):
                if modulation * SLOWER <= centre:
                    slow = band(ups, modulation, _bandwidth(modulation, 1), rate, hop).abs()
                    shorter = hop * slow.shape[-1] // ups.shape[-1]
                    second[i, j] = average(torch.fft.fft(slow), shorter)
        return torch.stack(first, 1), torch.stack([second[pair] for pair in zip(*self.paths)], 1)

    def forward(self, waveform: Tensor) -> Tensor:
        return self.normalise(self.raw(waveform))

    def extra_repr(self) -> str:
        """Everything `raw` depends on, and nothing else: statistics may be kept under this text."""
        return (
            f"{self.sample_rate} Hz, hop {self.hop_samples}, {self.bands} and {len(self.paths.first)} paths, "
            f"{self.f_min}-{self.f_max} Hz, {self.channels}"
        )


def first_order(bands: int, f_min: float, f_max: float) -> list[float]:
    """`bands` centres in Hz, evenly spaced in octaves from f_min to an eighth of one below f_max."""
    octaves = math.log2(f_max / f_min) - 1 / 8
    return [f_min * 2 ** (i * octaves / (bands - 1)) for i in range(bands)]


def second_order(highest_first: float, lowest: float) -> list[float]:
    """Centres in Hz an octave apart, from `lowest` up to a quarter of the highest first-order one; none where
    that is lower."""
    octaves = math.floor(math.log2(highest_first / SLOWER / lowest))
    return [lowest * 2**i for i in range(octaves + 1)]


def band(spectrum: Tensor, centre: float, bandwidth: float, rate: float, most: int) -> Tensor:
    """Spectrum (B, P) of a signal of `rate` Hz → the signal filtered by Morlet's wavelet, complex
    (B, P / 2^k) with 2^k <= `most` as large as the band allows, moved in frequency as it comes."""
    length = spectrum.shape[-1]
    needed = 2 * REACH * bandwidth / rate * length  # bins that the band spans
    shrink = 1
    while shrink < most and length // (2 * shrink) >= needed and length % (2 * shrink) == 0:
        shrink *= 2
    kept = length // shrink
    start = round(centre / rate * length) - kept // 2
    bins = torch.arange(start, start + kept, device=spectrum.device)
    signed = (bins + length // 2) % length - length // 2  # of the frequencies a real signal has
    filtered = spectrum[:, bins % length] * morlet(signed * (rate / length), centre, bandwidth)
    return torch.fft.ifft(filtered) / shrink


def morlet(frequencies: Tensor, centre: float, bandwidth: float) -> Tensor:
    """The wavelet's values at `frequencies` (Hz): a Gaussian around `centre`, and 0 at 0 Hz."""
    f = frequencies.double()
    at_zero = math.exp(-((centre / bandwidth) ** 2) / 2)
    bump = torch.exp(-(((f - centre) / bandwidth) ** 2) / 2)
    return (bump - at_zero * torch.exp(-((f / bandwidth) ** 2) / 2)).float()


def average(spectrum: Tensor, hop: int) -> Tensor:
    """Spectrum (B, P) of an envelope → its Gaussian average of deviation hop / 2 every `hop` samples, from
    the first one on: (B, P / hop)."""
    length = spectrum.shape[-1]
    cycles = torch.fft.fftfreq(length, device=spectrum.device, dtype=torch.float64)
    gaussian = torch.exp(-((math.pi * hop * cycles) ** 2) / 2).float()
    return torch.fft.ifft(spectrum * gaussian).real[:, ::hop]


def _bandwidth(centre: float, per_octave: float) -> float:
    """Deviation in Hz at which neighbouring wavelets, 1 / per_octave of an octave apart, cross at half their
    power."""
    ratio = 2 ** (-1 / per_octave)
    return centre * (1 - ratio) / (1 + ratio) / math.sqrt(math.log(2))


def _paths(centres: list[float], modulations: list[float]) -> Paths:
    pairs = [(i, j) for j, m in enumerate(modulations) for i, c in enumerate(centres) if m * SLOWER <= c]
    return Paths(tuple(i for i, _ in pairs), tuple(j for _, j in pairs))


def _mirrored(x: Tensor, frames: int, hop: int) -> Tensor:
    """(B, N) → (B, (frames + 2·SIDES)·hop), so that sample (SIDES + t)·hop is the middle of stretch t."""
    left = SIDES * hop - hop // 2
    whole = x[:, : (frames + 1) * hop]
    right = (frames + 2 * SIDES) * hop - left - whole.shape[1]
    return nn.functional.pad(whole.unsqueeze(1), (left, right), mode="reflect").squeeze(1)
