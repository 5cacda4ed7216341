"""Memory for the waveforms of batches, used again instead of asked for again."""

from __future__ import annotations

import sys
import threading

import numpy as np


class WaveformMemory:
    """Float32 arrays for waveforms, used again once nobody holds the batch that was made in them.

    A batch of 64 ten-second clips is 41 MB; getting that as fresh pages from the system takes a tenth to a
    quarter of the time of decoding it, and longer than copying it from the cache. Whatever still looks
    at the samples (a tensor, a view) holds a reference to the array, and then it is not taken.
    """

    KEPT = 4

    def __init__(self) -> None:
        self._arrays: list[np.ndarray] = []
        self._lock = threading.Lock()  # training and validation may be read at the same time

    def take(self, shape: tuple[int, int, int]) -> np.ndarray:
        """An array of `shape` (B, C, N) with arbitrary content."""
        size = int(np.prod(shape))
        with self._lock:
            free = [place for place in range(len(self._arrays)) if _holders(self._arrays, place) == _NOBODY]
            for place in free:
                if self._arrays[place].size >= size:
                    return self._arrays[place][:size].reshape(shape)
            fresh = np.empty(size, dtype=np.float32)
            if free:
                self._arrays[free[0]] = fresh  # too small for what is asked now
            elif len(self._arrays) < self.KEPT:
                self._arrays.append(fresh)
            return fresh.reshape(shape)


def _holders(arrays: list[np.ndarray], place: int) -> int:
    """References to an array, the list's and the interpreter's own among them."""
    return sys.getrefcount(arrays[place])


# What `_holders` says of an array that nobody else has; it differs between versions of Python.
_NOBODY = _holders([np.empty(1, dtype=np.float32)], 0)
