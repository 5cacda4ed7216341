"""Waveform → log-mel features on the model's device: framing, mel filters, normalisation, SpecAugment.

The features of cSEM's CNN models (Hou et al. 2023, §IV and the released code; Kong's dcase2018_task1): mono,
Hamming window of 2048/44100 s = 46.4 ms every 1376/44100 s = 31.2 ms, no centring, |STFT| / sqrt(Σ w²),
Slaney mel, ln(x + 1e-8). Window and hop are rounded down to whole samples, so that 10 s are 320 frames at
every usual rate, as in the paper. AST has others: parts/kaldi_fbank.py.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from fractions import Fraction
from typing import Protocol

import torch
from torch import Tensor, nn

from datasets.batch import Batch
from trainables.parts.channels import InputChannels, select
from trainables.parts.torchaudio_guarded import torchaudio

WINDOW_SECONDS = Fraction(2048, 44100)
HOP_SECONDS = Fraction(1376, 44100)
LOG_FLOOR = 1e-8
HIGHEST_FREQUENCY = 22050.0  # Hz, the default upper limit where the rate allows it
FLAT = (
    1e-5  # a mel bin whose deviation is below this is constant up to rounding; it is centred but not scaled
)


@dataclass(frozen=True)
class SpecAugment:
    """Masks of zeros, i.e. of the training mean, drawn anew for every clip (Park et al. 2019).

    `masks` stripes along each axis, each of a width uniform in [0, `time`] frames and [0, `frequency`] mel
    bins.
    """

    time: int
    frequency: int
    masks: int = 2

    def __post_init__(self) -> None:
        for name in ("time", "frequency", "masks"):
            if getattr(self, name) < 0:
                raise ValueError(f"SpecAugment: {name}={getattr(self, name)}, expected an integer >= 0")

    def __call__(self, x: Tensor) -> Tensor:
        """(B, C, T, F) normalised features → the same with stripes of zeros."""
        kept = torch.ones_like(x[:, :1])  # one drawing for all channels of a clip
        for axis, width in ((2, self.time), (3, self.frequency)):
            for _ in range(self.masks):
                kept = torchaudio.functional.mask_along_axis_iid(kept, min(width, x.shape[axis]), 0.0, axis)
        return x * kept


class Normalise(nn.Module):
    """A front end's last step: features (B, C, T, F) → (x - mean) / std of each mel bin, in training mode
    followed by `augment`.

    `mean` and `std` (F,) are the training set's, the same for all channels, and saved with the model; they
    are 0 and 1 until `set_statistics`.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, n_mels: int, augment: Callable[[Tensor], Tensor] | None = None) -> None:
        super().__init__()
        self.augment = augment
        self.register_buffer("mean", torch.zeros(n_mels))
        self.register_buffer("std", torch.ones(n_mels))

    def forward(self, x: Tensor) -> Tensor:
        x = (x - self.mean) / self.std
        return self.augment(x) if self.augment is not None and self.training else x

    @torch.no_grad()
    def set_statistics(self, mean: Tensor, std: Tensor) -> None:
        """Raises ValueError unless both are (F,) finite numbers and std > 0."""
        n_mels = len(self.mean)
        for name, value in (("mean", mean), ("std", std)):
            if value.shape != (n_mels,) or not bool(torch.isfinite(value).all()):
                raise ValueError(
                    f"{name} must be {n_mels} finite numbers, got shape {tuple(value.shape)}: {value}"
                )
        if not bool((std > 0).all()):
            raise ValueError(f"std must be above 0 in every mel bin, the least is {std.min().item():.3g}")
        self.mean.copy_(mean)
        self.std.copy_(std)


class LogMel(nn.Module):
    """Waveform (B, C, N) in [-1, 1] → normalised log-mel features (B, C', T, F).

    channels     which C' channels the features are of (parts/channels.py)
    sample_rate  Hz; n_mels = F; f_min and f_max in Hz, f_max=None is min(22050, sample_rate / 2)
    window, hop  seconds; each is rounded down to whole samples
    whole_hops   half of what a window is longer than a hop, in zeros, is put before and behind a clip, so
                 that frame t's window is centred on the stretch from t to t + 1 hops and a clip of N samples
                 has N // hop frames, 500 for 10 s and 20 ms; False: whole windows only
    augment      applied in training mode only, after normalisation

    Raises ValueError for frequency limits outside 0 … sample_rate / 2 or so many mel bins that some hold no
    STFT bin.
    """

    window: Tensor
    filters: Tensor

    def __init__(
        self,
        sample_rate: int,
        *,
        n_mels: int = 64,
        f_min: float = 50.0,
        f_max: float | None = None,
        window: Fraction | float = WINDOW_SECONDS,
        hop: Fraction | float = HOP_SECONDS,
        channels: InputChannels = "mono",
        whole_hops: bool = False,
        augment: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        super().__init__()
        self.channels: InputChannels = channels
        self.sample_rate, self.n_mels, self.f_min = sample_rate, n_mels, float(f_min)
        self.f_max = min(HIGHEST_FREQUENCY, sample_rate / 2) if f_max is None else float(f_max)
        self.window_samples = _whole_samples(window, sample_rate)
        self.hop_samples = _whole_samples(hop, sample_rate)
        padded = max(0, self.window_samples - self.hop_samples) if whole_hops else 0
        self.padding = (padded // 2, padded - padded // 2)
        self.n_fft = 1 << (self.window_samples - 1).bit_length()  # the next power of two; 2048 at 44.1 kHz
        filters = mel_filters(sample_rate, self.n_fft, n_mels, self.f_min, self.f_max)
        hamming = torch.hamming_window(self.window_samples, periodic=False, dtype=torch.float64, device="cpu")
        scaled = hamming / hamming.square().sum().sqrt()
        self.register_buffer("window", scaled.float(), persistent=False)
        self.register_buffer("filters", filters, persistent=False)
        self.normalise = Normalise(n_mels, augment)

    def frames(self, samples: int) -> int:
        """How many frames T a clip of `samples` gives. Raises ValueError if it is shorter than one window."""
        least = self.window_samples - sum(self.padding)
        if samples < least:
            raise ValueError(
                f"a clip of {samples} samples ({samples / self.sample_rate:.3f} s at {self.sample_rate} Hz) "
                f"is shorter than one {'hop' if any(self.padding) else 'window'}, {least} samples "
                f"({least / self.sample_rate:.3f} s)"
            )
        return 1 + (samples - least) // self.hop_samples

    def seconds(self, frames: int) -> float:
        """The shortest clip, in seconds, that gives `frames` frames."""
        return (self.window_samples + (frames - 1) * self.hop_samples - sum(self.padding)) / self.sample_rate

    def raw(self, waveform: Tensor) -> Tensor:
        """(B, C, N) → ln(mel + 1e-8) of each channel, (B, C', T, F) float32, before normalisation and
        SpecAugment.
        """
        self.frames(waveform.shape[-1])
        with torch.autocast(waveform.device.type, enabled=False):  # bf16 has too few digits under a logarithm
            x = select(waveform.float(), self.channels)
            x = nn.functional.pad(x, self.padding) if any(self.padding) else x
            frames = x.unfold(-1, self.window_samples, self.hop_samples) * self.window  # (B, C', T, W)
            magnitude = torch.fft.rfft(frames, n=self.n_fft).abs()  # (B, C', T, n_fft / 2 + 1)
            return torch.log(magnitude @ self.filters + LOG_FLOOR)

    def forward(self, waveform: Tensor) -> Tensor:
        return self.normalise(self.raw(waveform))

    def extra_repr(self) -> str:
        """Everything `raw` depends on, and nothing else: statistics may be kept under this text."""
        return (
            f"{self.sample_rate} Hz, window {self.window_samples}, hop {self.hop_samples}, "
            f"n_fft {self.n_fft}, {self.n_mels} mel bins, {self.f_min}-{self.f_max} Hz, {self.channels}"
            + (", whole hops" if any(self.padding) else "")
        )


class RawFeatures(Protocol):
    def raw(self, waveform: Tensor) -> Tensor: ...


@torch.no_grad()
def statistics(frontend: RawFeatures, batches: Iterable[Batch]) -> tuple[Tensor, Tensor]:
    """Exact mean and population standard deviation (F,) float64 of `frontend.raw` over (clips, time) of all
    `batches`.

    Summed in float64 and merged batch by batch (Chan et al. 1979), so that the result does not depend on
    their sizes. A constant bin gets deviation 1. Raises ValueError if there is no batch.
    """
    count, mean, squares = 0, torch.zeros(()), torch.zeros(())
    for batch in batches:
        x = frontend.raw(batch.waveform).double().flatten(0, -2)  # (B·T, F)
        own_mean = x.mean(0)
        own_squares = (x - own_mean).square().sum(0)
        if count == 0:
            count, mean, squares = len(x), own_mean, own_squares
            continue
        total, delta = count + len(x), own_mean - mean
        squares = squares + own_squares + delta.square() * (count * len(x) / total)
        mean, count = mean + delta * (len(x) / total), total
    if count == 0:
        raise ValueError("no batch to take feature statistics from: the training split is empty")
    std = (squares / count).sqrt()
    return mean, torch.where(std < FLAT, torch.ones_like(std), std)


def _whole_samples(seconds: Fraction | float, sample_rate: int) -> int:
    samples = seconds * sample_rate
    whole = math.floor(samples if isinstance(samples, Fraction) else samples + 1e-9)
    if whole < 1:
        raise ValueError(f"{float(seconds):g} s is less than one sample at {sample_rate} Hz")
    return whole


def mel_filters(sample_rate: int, n_fft: int, n_mels: int, f_min: float, f_max: float) -> Tensor:
    """(n_fft / 2 + 1, n_mels) Slaney triangles of equal area, on the CPU whatever the default device."""
    if not 0 <= f_min < f_max <= sample_rate / 2:
        raise ValueError(
            f"f_min={f_min:g} Hz and f_max={f_max:g} Hz: expected 0 <= f_min < f_max <= "
            f"{sample_rate / 2:g} Hz, half the sampling rate of {sample_rate} Hz"
        )
    with torch.device("cpu"), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of empty filters, which are refused below
        points = torchaudio.functional.melscale_fbanks(
            n_fft // 2 + 1, f_min, f_max, n_mels, sample_rate, norm="slaney", mel_scale="slaney"
        )
    empty = int((points.amax(0) == 0).sum())
    if empty:
        raise ValueError(
            f"n_mels={n_mels}: {empty} of the filters between {f_min:g} and {f_max:g} Hz hold no STFT bin "
            f"({sample_rate / n_fft:.1f} Hz apart); take fewer mel bins"
        )
    return points
