"""The two published AudioSet models as taggers: waveform → probabilities of 527 event classes.

PANNs' Cnn14 (Kong et al. 2020), for 16 and for 32 kHz, and AST (Gong et al. 2021), each with the front end it
was trained behind. They are for inference: masks and mixup of their training are not here. Parameter names
are the released files' where that costs nothing (Cnn14), ours otherwise (AST, trainables/taggers.py).
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trainables.parts.ast_encoder import (
    ENCODER_EPS,
    HEAD_WIDTH,
    HEADS,
    TOKENS,
    EncoderBlock,
    PatchEmbedding,
)
from trainables.parts.cnn import PANN_LEAST, MeanFrequencyMaxMeanTime, pann_blocks
from trainables.parts.frontend import mel_filters
from trainables.parts.kaldi_fbank import MEAN, STD, KaldiFbank

CLASSES = 527
POWER_FLOOR = 1e-10


@dataclass(frozen=True)
class PannsFormat:
    """What a Cnn14 was trained on: Hz; window (= FFT length) and hop, samples; limits of the mel bins, Hz."""

    sample_rate: int
    window: int
    hop: int
    f_max: float
    f_min: float = 50.0
    n_mels: int = 64


PANNS = {
    16000: PannsFormat(sample_rate=16000, window=512, hop=160, f_max=8000.0),
    32000: PannsFormat(sample_rate=32000, window=1024, hop=320, f_max=14000.0),
}


class PannsMel(nn.Module):
    """Waveform (B, C, N) in [-1, 1] → 10·log10 of mel power, dB, (B, 1, T, F), T = 1 + N / hop.

    Hann window, centred frames with reflected edges, |STFT|², Slaney mel filters, floor of 1e-10. Raises
    ValueError for a clip shorter than half a window.
    """

    window: Tensor
    filters: Tensor

    def __init__(self, form: PannsFormat) -> None:
        super().__init__()
        self.form = form
        self.register_buffer("window", torch.hann_window(form.window, device="cpu"), persistent=False)
        filters = mel_filters(form.sample_rate, form.window, form.n_mels, form.f_min, form.f_max)
        self.register_buffer("filters", filters, persistent=False)

    def forward(self, waveform: Tensor) -> Tensor:
        if waveform.dim() != 3:
            raise ValueError(f"expected a waveform (B, C, N), got shape {tuple(waveform.shape)}")
        if waveform.shape[-1] <= self.form.window // 2:
            raise ValueError(
                f"a clip of {waveform.shape[-1]} samples is shorter than half a window, "
                f"{self.form.window // 2 + 1} samples at {self.form.sample_rate} Hz"
            )
        with torch.autocast(waveform.device.type, enabled=False):  # bf16 has too few digits under a logarithm
            mono = waveform.float().mean(1)
            spectrum = torch.stft(
                mono,
                self.form.window,
                self.form.hop,
                window=self.window,
                pad_mode="reflect",
                return_complex=True,
            )
            power = spectrum.real.square() + spectrum.imag.square()  # (B, window / 2 + 1, T)
            mel = power.transpose(1, 2) @ self.filters
            return 10.0 * torch.log10(mel.clamp_min(POWER_FLOOR)).unsqueeze(1)

    def released_buffers(self) -> dict[str, Tensor]:
        """What a released checkpoint holds of its front end, as this one would have it: the STFT as two
        convolutions (window / 2 + 1, 1, window), and the mel filters.
        """
        n = torch.arange(self.form.window, dtype=torch.float64)
        angle = 2 * torch.pi / self.form.window * torch.outer(n[: self.form.window // 2 + 1], n)
        window = torch.hann_window(self.form.window, dtype=torch.float64)
        return {
            "spectrogram_extractor.stft.conv_real.weight": (angle.cos() * window).float().unsqueeze(1),
            "spectrogram_extractor.stft.conv_imag.weight": (-angle.sin() * window).float().unsqueeze(1),
            "logmel_extractor.melW": self.filters,
        }


class Cnn14(nn.Module):
    """PANNs' Cnn14: waveform (B, C, N) at `form.sample_rate` → probabilities (B, 527). `width` as in cSEM.

    Raises ValueError for a clip too short for its five poolings.
    """

    def __init__(self, form: PannsFormat, classes: int = CLASSES, width: float = 1.0) -> None:
        super().__init__()
        self.frontend = PannsMel(form)
        self.bn0 = nn.BatchNorm2d(form.n_mels)
        blocks = [make() for make in pann_blocks(6, width, dropout=0.2)]
        for n, block in enumerate(blocks, start=1):
            self.add_module(f"conv_block{n}", block)
        size = blocks[-1].conv2.out_channels
        self.pooling = MeanFrequencyMaxMeanTime()
        self.fc1 = nn.Linear(size, size)
        self.fc_audioset = nn.Linear(size, classes)

    def forward(self, waveform: Tensor) -> Tensor:
        x = self.frontend(waveform)
        if x.shape[2] < PANN_LEAST:
            form = self.frontend.form
            raise ValueError(
                f"a clip of {waveform.shape[-1] / form.sample_rate:.3f} s gives {x.shape[2]} frames; Cnn14 "
                f"needs at least {PANN_LEAST}, {(PANN_LEAST - 1) * form.hop / form.sample_rate:.2f} s"
            )
        x = self.bn0(x.transpose(1, 3)).transpose(1, 3)  # mel bins as channels
        for n in range(1, 7):
            x = self.get_submodule(f"conv_block{n}")(x)
        x = F.dropout(self.pooling(x), 0.5, self.training)
        return torch.sigmoid(self.fc_audioset(F.relu(self.fc1(x))))


class AudioSetAst(nn.Module):
    """AST: waveform (B, C, N) at `sample_rate` → probabilities (B, 527).

    Kaldi filter bank of 128 bins, padded with zeros or cut to 1024 frames and only then normalised; 12
    encoder blocks; LayerNorm, mean of the class and the distillation token, LayerNorm, classifier, sigmoid.
    `depth`, `width`, `frames` and `n_mels` other than the defaults are other models.
    """

    def __init__(
        self,
        sample_rate: int = 16000,
        classes: int = CLASSES,
        *,
        depth: int = 12,
        width: float = 1.0,
        frames: int = 1024,
        n_mels: int = 128,
    ) -> None:
        super().__init__()
        size = HEADS * max(1, round(HEAD_WIDTH * width))
        self.frames = frames
        self.frontend = KaldiFbank(sample_rate, n_mels=n_mels)
        self.stem = PatchEmbedding(frames, n_mels, size)
        self.blocks = nn.Sequential(
            OrderedDict(
                (f"{n}", EncoderBlock(size, HEADS, dropout=0.0, checkpointing=False)) for n in range(depth)
            )
        )
        self.norm = nn.LayerNorm(size, eps=ENCODER_EPS)
        self.mlp_head = nn.Sequential(nn.LayerNorm(size), nn.Linear(size, classes))

    def features(self, waveform: Tensor) -> Tensor:
        """(B, C, N) → what the patches are cut from, (B, 1, frames, n_mels)."""
        x = self.frontend.fbank(waveform)[:, : self.frames]
        x = F.pad(x, (0, 0, 0, self.frames - x.shape[1]))
        return ((x - MEAN) / (2 * STD)).unsqueeze(1)

    def forward(self, waveform: Tensor) -> Tensor:
        x = self.norm(self.blocks(self.stem(self.features(waveform)))[:, :TOKENS])
        return torch.sigmoid(self.mlp_head(x.mean(1)))
