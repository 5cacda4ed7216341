"""The backbones by name, with what the released code of their systems fixes for each: sizes, features, rates.

Sources: Hou et al. 2023 and its code (tinycnn, cnnt, pann, ast), DCASE 2018's baseline (dcase2018), and for
scattering, of which no code is known, a reading (parts/scattering_crnn.py).
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import Literal, TypeVar, get_args

from trainables.parts import ast_encoder, cnn, cnn_transformer, scattering_crnn
from trainables.parts import dcase2018 as baseline
from trainables.parts.backbone import Backbone
from trainables.parts.channels import CHANNELS, InputChannels
from trainables.parts.frontend import HOP_SECONDS, WINDOW_SECONDS, LogMel, SpecAugment
from trainables.parts.kaldi_fbank import KaldiFbank
from trainables.parts.scattering import DeepScattering

T = TypeVar("T")
FrontEnd = LogMel | KaldiFbank | DeepScattering
BackboneName = Literal["tinycnn", "cnnt", "pann", "ast", "dcase2018", "scattering"]
BACKBONES: tuple[BackboneName, ...] = get_args(BackboneName)


@dataclass(frozen=True)
class Released:
    """What is fixed for a backbone; `least` is the fewest frames and mel bins it can read. The masks cover
    about as many seconds and the same share of the mel bins with every backbone. `window` and `hop` (s) are
    of LogMel; ast has Kaldi's and scattering its own, where a mel bin is a wavelet of the first order.
    `f_max` (Hz) None = the front end's own.
    """

    blocks: int
    shared_layers: int
    dropout: float
    embedding_dropout: float
    least: int
    n_mels: int = 64
    f_min: float = 50.0
    f_max: float | None = None
    window: Fraction = WINDOW_SECONDS
    hop: Fraction = HOP_SECONDS
    time_mask: int = 20
    freq_mask: int = 8


RELEASED: dict[str, Released] = {
    "tinycnn": Released(blocks=2, shared_layers=2, dropout=0.3, embedding_dropout=0.3, least=cnn.TINY_LEAST),
    "cnnt": Released(
        blocks=4, shared_layers=2, dropout=0.0, embedding_dropout=0.0, least=cnn_transformer.LEAST
    ),
    "pann": Released(blocks=6, shared_layers=2, dropout=0.2, embedding_dropout=0.5, least=cnn.PANN_LEAST),
    "ast": Released(
        blocks=10,
        shared_layers=4,
        dropout=0.0,
        embedding_dropout=0.0,
        least=ast_encoder.LEAST,
        n_mels=128,
        f_min=20.0,
        time_mask=64,
        freq_mask=16,
    ),
    "dcase2018": Released(
        blocks=2,
        shared_layers=1,  # ours: the baseline has one task
        dropout=0.3,
        embedding_dropout=0.3,
        least=baseline.LEAST,
        n_mels=40,
        f_min=0.0,
        f_max=24000.0,
        window=Fraction(40, 1000),
        hop=Fraction(20, 1000),
        time_mask=32,
        freq_mask=5,
    ),
    "scattering": Released(
        blocks=4,
        shared_layers=2,  # ours: the system has one task
        dropout=0.2,
        embedding_dropout=0.5,
        least=scattering_crnn.LEAST,
        time_mask=7,
        freq_mask=8,
    ),
}


def given(value: T | None, default: T) -> T:
    return default if value is None else value


def front_end(
    name: BackboneName,
    sample_rate: int,
    *,
    channels: InputChannels = "mono",
    n_mels: int | None = None,
    f_min: float | None = None,
    f_max: float | None = None,
    spec_augment: bool = False,
    time_mask: int | None = None,
    freq_mask: int | None = None,
) -> FrontEnd:
    """The features that backbone `name` reads; None = as released. Raises ValueError for impossible
    limits.
    """
    released = RELEASED[name]
    masks = SpecAugment(given(time_mask, released.time_mask), given(freq_mask, released.freq_mask))
    n_mels, f_min = given(n_mels, released.n_mels), given(f_min, released.f_min)
    if f_max is None and released.f_max is not None:
        f_max = min(released.f_max, sample_rate / 2)
    augment = masks if spec_augment else None
    if name == "ast":
        return KaldiFbank(
            sample_rate, n_mels=n_mels, f_min=f_min, f_max=f_max, channels=channels, augment=augment
        )
    if name == "scattering":
        return DeepScattering(
            sample_rate, bands=n_mels, f_min=f_min, f_max=f_max, channels=channels, augment=augment
        )
    return LogMel(
        sample_rate,
        n_mels=n_mels,
        f_min=f_min,
        f_max=f_max,
        window=released.window,
        hop=released.hop,
        channels=channels,
        augment=augment,
    )


def backbone_for(
    name: BackboneName,
    frontend: FrontEnd,
    samples: int,
    *,
    depth: int,
    width: float,
    dropout: float | None,
    embedding_dropout: float | None,
    second_norm: bool,
    checkpointing: bool,
    encoder_as_printed: bool,
) -> Backbone:
    """Backbone `name` for clips of `samples`; the last three options and `depth` are ast's and cnnt's own.

    Raises ValueError if the clips are too short or the mel bins too few.
    """
    frames, n_mels, inputs = frontend.frames(samples), frontend.n_mels, CHANNELS[frontend.channels]
    _refuse_too_small(name, frontend, samples, frames)
    released = RELEASED[name]
    dropout = given(dropout, released.dropout)
    beside = given(embedding_dropout, released.embedding_dropout)
    if isinstance(frontend, DeepScattering):
        return scattering_crnn.scattering_crnn(frontend.bands, frontend.paths, width, dropout, beside, inputs)
    if name == "pann":
        return cnn.pann(width, dropout, beside, inputs)
    if name == "cnnt":
        return cnn_transformer.cnn_transformer(n_mels, width, dropout, beside, encoder_as_printed, inputs)
    if name == "tinycnn":
        return cnn.tiny_cnn(frames, n_mels, width, dropout, beside, inputs)
    if name == "dcase2018":
        return baseline.dcase2018(n_mels, width, dropout, beside, inputs)
    return ast_encoder.ast(
        frames,
        n_mels,
        depth,
        width,
        dropout,
        beside,
        second_norm=second_norm,
        checkpointing=checkpointing,
        inputs=inputs,
    )


def _refuse_too_small(name: BackboneName, frontend: FrontEnd, samples: int, frames: int) -> None:
    least = RELEASED[name].least
    if frames < least:
        raise ValueError(
            f"clips of {samples / frontend.sample_rate:.2f} s give {frames} frames; backbone {name} needs at "
            f"least {least} frames, {frontend.seconds(least):.2f} s"
        )
    bands = frontend.bands if isinstance(frontend, DeepScattering) else frontend.n_mels
    if bands < least:
        raise ValueError(f"n_mels={bands}: backbone {name} needs at least {least} mel bins")
