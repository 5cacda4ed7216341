"""Sounds for the data tests."""

import numpy as np


def tone(seconds: float = 0.1, rate: int = 8000, channels: int = 1, pitch: float = 440.0) -> np.ndarray:
    """(n, C) float64, a tone at -12 dB."""
    t = np.arange(round(seconds * rate)) / rate
    return 0.25 * np.sin(2 * np.pi * pitch * t)[:, None] * np.ones((1, channels))
