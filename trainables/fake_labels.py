"""Labels shuffled on purpose: a scene of the clip's that is not its own, events in a frame that are others'
(Imoto et al. 2022, Eqs. 6 and 7).

A shuffle is a pure function of (seed, round, clip number, frame): a clip gets the same fake labels wherever
in a batch, on whatever rank or device it is met, and a run that goes on from a checkpoint goes on with them.
Round is 0 for ever, or the epoch.

The elements of a row are put into the order of 64-bit numbers hashed from their place (splitmix64, Steele,
Lea and Flood 2014), which are as good as all different. A shuffle may by chance leave a row as it was: with 4
scenes every fourth fake scene is the true one, as in the paper.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from datasets.batch import Batch

GOLDEN = 0x9E3779B97F4A7C15
MULTIPLIERS = ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB))
LAST_SHIFT = 31
SCENE, FRAMES = 1, 2  # so that a clip's scene and its first frame are shuffled independently


def fake_scenes(batch: Batch, seed: int, turn: int) -> Batch:
    """The batch with the elements of every clip's scene row (S,) in another order. Rows of zeros (unknown)
    stay."""
    keys = _keys(batch.clip, seed, turn, SCENE, batch.scene.shape[1])
    return replace(batch, scene=batch.scene.gather(1, keys.argsort(1)))


def fake_events(batch: Batch, seed: int, turn: int) -> Batch:
    """The batch with the elements of every frame's event row (E,) in another order, each frame in its own.
    Labels of clips (`events`) stay: no loss of frames reads them."""
    rows, events = batch.frames.shape[1:]
    keys = _keys(batch.clip, seed, turn, FRAMES, rows * events).unflatten(1, (rows, events))
    return replace(batch, frames=batch.frames.gather(2, keys.argsort(2)))


def _keys(clip: Tensor, seed: int, turn: int, use: int, count: int) -> Tensor:
    """(B,) clip numbers → (B, count) int64, a hash of everything given and the place in the row."""
    begin = torch.zeros_like(clip)
    for number in (seed, turn, use):
        begin = splitmix64(begin ^ _signed(number))
    begin = splitmix64(begin ^ clip)
    return splitmix64(begin[:, None] ^ torch.arange(count, device=clip.device))


def splitmix64(x: Tensor) -> Tensor:
    """int64 → int64, the same bits as the published generator's step of unsigned numbers."""
    x = x + _signed(GOLDEN)
    for shift, multiplier in MULTIPLIERS:
        x = (x ^ _shifted(x, shift)) * _signed(multiplier)
    return x ^ _shifted(x, LAST_SHIFT)


def _shifted(x: Tensor, bits: int) -> Tensor:
    """Right, with zeros coming in from the left, where int64 would bring in its sign."""
    return (x >> bits) & ((1 << (64 - bits)) - 1)


def _signed(number: int) -> int:
    """The 64 lowest bits, as int64 reads them."""
    number &= (1 << 64) - 1
    return number - (1 << 64) if number >> 63 else number
