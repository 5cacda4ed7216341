"""The features of AST (Gong et al. 2021): Kaldi's log-mel filter bank, computed for a whole batch on the
model's device, equal to torchaudio.compliance.kaldi.fbank of each clip.

16 kHz mono, "hanning" window of 25 ms every 10 ms without padding at the edges, each window with its mean
removed and pre-emphasis 0.97, 512-point power spectrum, mel triangles from 20 Hz, ln with a floor of 1.2e-7.
AST's loader also subtracts the clip's mean, which the removal of each window's mean makes idle.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trainables.parts.frontend import Normalise, SpecAugment
from trainables.parts.torchaudio_guarded import torchaudio

RATE = 16000  # Hz
WINDOW, HOP, N_FFT = 400, 160, 512  # samples
PRE_EMPHASIS = 0.97
FLOOR = torch.finfo(torch.float32).eps
MEAN, STD = -4.2677393, 4.5689974  # of AudioSet's training set, as AST has them
FRAMES = 128  # clips are padded to a multiple: 1, 5 and 10 s to 128, 512 and 1024 frames as in AST's recipes


class KaldiFbank(nn.Module):
    """Waveform (B, C, N) in [-1, 1] → normalised log-mel features (B, 1, T, F), T a multiple of 128.

    sample_rate  Hz of the waveform; any other than 16 kHz is resampled (torchaudio's windowed sinc). From a
                 lower one the upper mel bins hold next to nothing
    n_mels = F; f_min and f_max in Hz, f_max=None is 8000
    augment      applied in training mode only, after normalisation

    Frames are padded with zeros, scaled to (x + 4.2677393) / (2 · 4.5689974), then normalised by the
    training set's mean and deviation, padding included, as in cSEM's released code. Raises ValueError for
    frequency limits outside 0 … 8000 Hz or a number of mel bins outside 4 … 256.
    """

    window: Tensor
    filters: Tensor

    def __init__(
        self,
        sample_rate: int,
        *,
        n_mels: int = 128,
        f_min: float = 20.0,
        f_max: float | None = None,
        augment: SpecAugment | None = None,
    ) -> None:
        super().__init__()
        self.sample_rate, self.n_mels, self.f_min = sample_rate, n_mels, float(f_min)
        self.f_max = RATE / 2 if f_max is None else float(f_max)
        window = torch.hann_window(WINDOW, periodic=False, device="cpu")
        self.register_buffer("window", window, persistent=False)
        self.register_buffer("filters", _mel_filters(n_mels, self.f_min, self.f_max), persistent=False)
        self.normalise = Normalise(n_mels, augment)

    def frames(self, samples: int) -> int:
        """How many frames T a clip of `samples` gives, padding included. Raises ValueError if it is shorter
        than one window.
        """
        if self._resampled(samples) < WINDOW:
            raise ValueError(
                f"a clip of {samples} samples ({samples / self.sample_rate:.3f} s at {self.sample_rate} Hz) "
                f"is shorter than one window, {WINDOW / RATE:.3f} s"
            )
        return -(-(1 + (self._resampled(samples) - WINDOW) // HOP) // FRAMES) * FRAMES

    def seconds(self, frames: int) -> float:
        """The shortest clip, in seconds, that gives at least `frames` frames, padding included."""
        unpadded = (-(-frames // FRAMES) - 1) * FRAMES + 1
        samples = WINDOW + (unpadded - 1) * HOP  # at 16 kHz
        return ((samples - 1) * self.sample_rate // RATE + 1) / self.sample_rate

    def fbank(self, waveform: Tensor) -> Tensor:
        """(B, C, N) → Kaldi's ln mel energies of the channels' mean, (B, T', F), neither padded nor
        normalised.
        """
        if waveform.dim() != 3:
            raise ValueError(f"expected a waveform (B, C, N), got shape {tuple(waveform.shape)}")
        self.frames(waveform.shape[-1])
        with torch.autocast(waveform.device.type, enabled=False):  # bf16 has too few digits under a logarithm
            x = self._at_16_khz(waveform.float().mean(1)).unfold(-1, WINDOW, HOP)  # (B, T', W)
            x = x - x.mean(-1, keepdim=True)
            x = x - PRE_EMPHASIS * torch.cat([x[..., :1], x[..., :-1]], -1)
            power = torch.fft.rfft(x * self.window, n=N_FFT).abs().square()
            return (power @ self.filters).clamp_min(FLOOR).log()

    def raw(self, waveform: Tensor) -> Tensor:
        """(B, C, N) → (B, 1, T, F) float32, padded and scaled with AudioSet's statistics, before the training
        set's and SpecAugment.
        """
        x = self.fbank(waveform)
        x = F.pad(x, (0, 0, 0, self.frames(waveform.shape[-1]) - x.shape[1]))
        return ((x - MEAN) / (2 * STD)).unsqueeze(1)

    def forward(self, waveform: Tensor) -> Tensor:
        return self.normalise(self.raw(waveform))

    def extra_repr(self) -> str:
        """Everything `raw` depends on, and nothing else: statistics may be kept under this text."""
        return (
            f"{self.sample_rate} Hz → {RATE} Hz, window {WINDOW}, hop {HOP}, n_fft {N_FFT}, frames padded to "
            f"{FRAMES}, {self.n_mels} mel bins, {self.f_min}-{self.f_max} Hz"
        )

    def _resampled(self, samples: int) -> int:
        return -(-samples * RATE // self.sample_rate)

    def _at_16_khz(self, mono: Tensor) -> Tensor:
        if self.sample_rate == RATE:
            return mono
        x = torchaudio.functional.resample(mono, self.sample_rate, RATE)
        # torchaudio works out its length in float32, which may round to one sample less
        return F.pad(x, (0, self._resampled(mono.shape[-1]) - x.shape[-1]))


def _mel_filters(n_mels: int, f_min: float, f_max: float) -> Tensor:
    """(N_FFT / 2 + 1, n_mels) Kaldi's triangles, on the CPU whatever the default device. Of 128 from 20 Hz
    one lies between two FFT bins and holds none; that is Kaldi's and stays.
    """
    if not 0 <= f_min < f_max <= RATE / 2:
        raise ValueError(
            f"f_min={f_min:g} Hz and f_max={f_max:g} Hz: expected 0 <= f_min < f_max <= {RATE // 2} Hz, "
            f"half of the {RATE} Hz that Kaldi's filter bank works at"
        )
    if not 4 <= n_mels <= N_FFT // 2:
        raise ValueError(
            f"n_mels={n_mels}: Kaldi's filter bank needs 4 to {N_FFT // 2}; take "
            f"{'more' if n_mels < 4 else 'fewer'} mel bins"
        )
    with torch.device("cpu"):
        kaldi = torchaudio.compliance.kaldi
        filters, _ = kaldi.get_mel_banks(n_mels, N_FFT, float(RATE), f_min, f_max, 100.0, -500.0, 1.0)
        return F.pad(filters, (0, 1)).T.contiguous()
