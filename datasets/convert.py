"""Recordings of several sampling rates and channel counts made alike: the only two things that a preparation
changes about samples, and only when asked.

Resampling is scipy.signal.resample_poly with a linear-phase Kaiser window low-pass. With f_N the lower of the
two Nyquist frequencies, the gain is 1 within 0.001 dB up to 0.91 f_N, and what lies above f_N is 100 dB down:
44.1 to 16 kHz keeps everything below 7.28 kHz, and no alias is louder than -100 dB. The output is as long as
the input, to the sample rounded up, and not delayed. Loudness is not touched.

Channels are mixed before resampling, in float64, and rounded once, to the word length of the source.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy import signal

Channels = Literal["keep", "mono", "stereo", "mid_side", "left_right_difference"]

PASSBAND = 0.91
STOPBAND_DB = 100.0
# A larger one would need a low-pass of millions of taps; 44.1 to 48 kHz is 160/147.
LARGEST_FACTOR = 10000


@dataclass(frozen=True)
class Conversion:
    """`rate` in Hz, None = the files'. `channels`: mono = mean of the channels; stereo = a mono file's
    channel twice; mid_side = (L+R)/2, (L-R)/2; left_right_difference = L, R, L-R, as paper 000 §V-G takes
    TAU2019."""

    rate: int | None = None
    channels: Channels = "keep"

    def __post_init__(self) -> None:
        if self.rate is not None and not 1000 <= self.rate <= 384000:
            raise ValueError(f"--rate {self.rate}: accepted are 1000 to 384000 Hz")

    @property
    def nothing(self) -> bool:
        return self.rate is None and self.channels == "keep"

    def describe(self) -> str:
        """One line for the record of a preparation."""
        parts = []
        if self.rate is not None:
            parts.append(
                f"resampled to {self.rate} Hz where it had another rate (Kaiser low-pass: 0 to {PASSBAND} of "
                f"the lower Nyquist frequency within 0.001 dB, from there on {STOPBAND_DB:g} dB down)"
            )
        if self.channels != "keep":
            parts.append(f"channels: {self.channels}")
        return "; ".join(parts) or "none"

    def format_of(self, rate: int, channels: int) -> tuple[int, int]:
        """(sampling rate in Hz, channels) that a file with these has after conversion. Raises ValueError for
        a file that can't be converted."""
        if self.rate is not None:
            ratio(rate, self.rate)
        return self.rate or rate, _channel_count(self.channels, channels)

    def apply(self, samples: np.ndarray, rate: int) -> np.ndarray:
        """(n, C) float64 at `rate` Hz to (n', C') float64."""
        mixed = mix_channels(samples, self.channels)
        return mixed if self.rate is None else resample(mixed, rate, self.rate)


AS_IT_IS = Conversion()


def resample(samples: np.ndarray, rate: int, wanted: int) -> np.ndarray:
    """(n, C) at `rate` Hz to (ceil(n * wanted / rate), C) at `wanted` Hz."""
    if rate == wanted:
        return samples
    up, down = ratio(rate, wanted)
    return np.asarray(signal.resample_poly(samples, up, down, axis=0, window=low_pass(max(up, down))))


def ratio(rate: int, wanted: int) -> tuple[int, int]:
    """`wanted` / `rate` (Hz) in lowest terms. Raises ValueError for one that would need too long a filter."""
    divisor = math.gcd(rate, wanted)
    up, down = wanted // divisor, rate // divisor
    if max(up, down) > LARGEST_FACTOR:
        raise ValueError(
            f"{rate} Hz to {wanted} Hz is {up}/{down}: factors up to {LARGEST_FACTOR} are handled"
        )
    return up, down


@functools.lru_cache(maxsize=32)
def low_pass(factor: int) -> np.ndarray:
    """The taps at the common rate of the polyphase filter, where the lower Nyquist frequency is 1/`factor` of
    the Nyquist frequency. -6 dB in the middle of the transition from PASSBAND to 1."""
    taps, beta = signal.kaiserord(STOPBAND_DB + 1, (1 - PASSBAND) / factor)
    return signal.firwin(taps | 1, (1 + PASSBAND) / 2 / factor, window=("kaiser", beta))


def mix_channels(samples: np.ndarray, channels: Channels) -> np.ndarray:
    """(n, C) to (n, C'); see Conversion. Raises ValueError for more than two channels where two are meant."""
    _channel_count(channels, samples.shape[1])
    if channels == "keep":
        return samples
    if channels == "mono":
        return samples.mean(axis=1, keepdims=True)
    return MIXES[channels](samples[:, 0], samples[:, -1])


def _channel_count(channels: Channels, found: int) -> int:
    if channels == "keep":
        return found
    if channels != "mono" and found > 2:
        raise ValueError(f"{found} channels can't become {channels}: accepted are mono and stereo files")
    return CHANNEL_COUNTS[channels]


MIXES: Mapping[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
    "stereo": lambda left, right: np.stack((left, right), axis=1),
    "mid_side": lambda left, right: np.stack(((left + right) / 2, (left - right) / 2), axis=1),
    "left_right_difference": lambda left, right: np.stack((left, right, left - right), axis=1),
}
CHANNEL_COUNTS = {"mono": 1, "stereo": 2, "mid_side": 2, "left_right_difference": 3}
