"""Memory for the waveforms of batches, used again instead of asked for again."""

from __future__ import annotations

import sys
import threading

import numpy as np


class WaveformMemory:
    """Float32 arrays for waveforms, used again once nobody holds the batch that was made in them.

    A batch of 64 ten-second clips is 41 MB; getting that as fresh pages from the system takes a tenth to a
    quarter of the time of decoding it. Whatever still looks at the samples (a tensor, a view) holds a
    reference to the array, and then it is not taken.
    """

    KEPT = 4
    FREE = 3  # references to an array of which there is no view: the list's, the loop's, getrefcount's own

    def __init__(self) -> None:
        self._arrays: list[np.ndarray] = []
        self._lock = threading.Lock()  # training and validation may be read at the same time

    def take(self, shape: tuple[int, int, int]) -> np.ndarray:
        """An array of `shape` (B, C, N) with arbitrary content."""
        size = int(np.prod(shape))
        with self._lock:
            for array in self._arrays:
                if array.size >= size and sys.getrefcount(array) == self.FREE:
                    return array[:size].reshape(shape)
            fresh = np.empty(size, dtype=np.float32)
            if len(self._arrays) < self.KEPT:
                self._arrays.append(fresh)
            return fresh.reshape(shape)
