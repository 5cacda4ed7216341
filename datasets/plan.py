"""The plan of an epoch: which clips go to which rank and worker at which step. Pure arithmetic, no files, no
torch.

Every training clip is seen once an epoch and every evaluation clip is scored once, for any number of ranks
and workers, and all ranks make the same number of training steps. `batch_size` is the global batch, over all
ranks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

# Keeps the order of clips apart from other draws that start from the same (seed, epoch).
_CLIP_ORDER, _SHARD_ORDER = 1, 2


@dataclass(frozen=True)
class Segment:
    """The clips first … stop - 1 of shard number `shard`."""

    shard: int
    first: int
    stop: int


@dataclass(frozen=True)
class Reading:
    """What one worker of one rank reads, in order, and the sizes of the batches it cuts the clips into."""

    segments: tuple[Segment, ...]
    batch_sizes: tuple[int, ...]


def steps(clips: int, batch_size: int, world: int = 1) -> int:
    """Training steps of an epoch: ceil(clips / batch_size), or fewer where a rank would get an empty batch.

    Raises ValueError when there are fewer clips than ranks, or a size below 1.
    """
    if batch_size < 1 or world < 1:
        raise ValueError(f"batch size {batch_size} and number of ranks {world} must be at least 1")
    if clips < world:
        raise ValueError(f"{clips} training clips can't be shared by {world} ranks: each needs at least one")
    return min(-(-clips // batch_size), clips // world)


def step_sizes(clips: int, count: int) -> np.ndarray:
    """(count,) clips in each global step; they differ by at most one."""
    return np.diff(np.arange(count + 1) * clips // count)


def share(size: int, part: int, parts: int) -> tuple[int, int]:
    """[start, stop) of one of `parts` nearly equal parts of `size` things."""
    return size * part // parts, size * (part + 1) // parts


def permutation(clips: int, seed: int, epoch: int) -> np.ndarray:
    """(clips,) the order of the clips in an epoch."""
    return np.random.default_rng([_CLIP_ORDER, seed, epoch]).permutation(clips)


def train_clips(
    clips: int, batch_size: int, *, seed: int, epoch: int, rank: int = 0, world: int = 1
) -> list[np.ndarray]:
    """The numbers of the clips that `rank` gets at each step. The clips of a global step do not depend on
    `world` (unless `world` is so close to the batch size that `steps` has to make fewer steps)."""
    _check_part("rank", rank, world)
    order = permutation(clips, seed, epoch)
    edges = np.concatenate([[0], np.cumsum(step_sizes(clips, steps(clips, batch_size, world)))])
    batches = []
    for start, stop in zip(edges[:-1], edges[1:]):
        first, last = share(int(stop - start), rank, world)
        batches.append(order[start + first : start + last])
    return batches


def eval_ranges(clips: int, batch_size: int, *, rank: int = 0, world: int = 1) -> list[tuple[int, int]]:
    """[start, stop) of each evaluation batch of `rank`. No padding: ranks differ by at most one clip, and may
    get none."""
    _check_part("rank", rank, world)
    if batch_size < 1:
        raise ValueError(f"batch size {batch_size} must be at least 1")
    first, last = share(clips, rank, world)
    size = -(-batch_size // world)
    return [(start, min(start + size, last)) for start in range(first, last, size)]


def train_reading(
    shard_clips: Sequence[int],
    batch_size: int,
    *,
    seed: int,
    epoch: int,
    rank: int = 0,
    world: int = 1,
    worker: int = 0,
    workers: int = 1,
) -> Reading:
    """What a worker reads in a training epoch; `shard_clips` is the number of clips in each shard.

    The shards are laid end to end in an order drawn from (seed, epoch), the row is turned by a drawn amount,
    and each rank, then each worker, takes the stretch that holds exactly the clips of its batches. A loader
    takes batches from its workers in turn, so worker w makes the batches of steps w, w + workers, …
    """
    _check_part("rank", rank, world)
    _check_part("worker", worker, workers)
    clips = int(sum(shard_clips))
    sizes = step_sizes(clips, steps(clips, batch_size, world))
    by_rank = np.stack([sizes * (r + 1) // world - sizes * r // world for r in range(world)])
    mine = by_rank[rank]
    start = int(by_rank[:rank].sum() + sum(mine[w::workers].sum() for w in range(worker)))
    batch_sizes = tuple(int(size) for size in mine[worker::workers])
    rng = np.random.default_rng([_SHARD_ORDER, seed, epoch])
    order, turn = rng.permutation(len(shard_clips)), int(rng.integers(clips))
    pieces = _turned((start + turn) % clips, sum(batch_sizes), clips)
    return Reading(_segments(shard_clips, order, pieces), batch_sizes)


def eval_reading(
    shard_clips: Sequence[int],
    batch_size: int,
    *,
    rank: int = 0,
    world: int = 1,
    worker: int = 0,
    workers: int = 1,
) -> Reading:
    """What a worker reads of an evaluation split: batches worker, worker + workers, … of `eval_ranges`, in
    order."""
    _check_part("worker", worker, workers)
    ranges = eval_ranges(int(sum(shard_clips)), batch_size, rank=rank, world=world)[worker::workers]
    segments = _segments(shard_clips, np.arange(len(shard_clips)), ranges)
    return Reading(segments, tuple(stop - start for start, stop in ranges))


def _turned(start: int, length: int, clips: int) -> list[tuple[int, int]]:
    """[start, start + length) on a ring of `clips` places, as one or two stretches of the straight row."""
    pieces = [(start, min(start + length, clips)), (0, max(start + length - clips, 0))]
    return [(first, stop) for first, stop in pieces if first < stop]


def _segments(
    shard_clips: Sequence[int], order: np.ndarray, ranges: Sequence[tuple[int, int]]
) -> tuple[Segment, ...]:
    """The stretches `ranges` of the row of shards laid end to end in `order`; neighbours in one shard are
    joined."""
    edges = np.concatenate([[0], np.cumsum([shard_clips[shard] for shard in order])])
    found: list[Segment] = []
    for start, stop in ranges:
        place = int(np.searchsorted(edges, start, side="right")) - 1
        while start < stop:
            shard, origin, end = int(order[place]), int(edges[place]), min(stop, int(edges[place + 1]))
            if start < end:
                if found and found[-1].shard == shard and found[-1].stop == start - origin:
                    found[-1] = Segment(shard, found[-1].first, end - origin)
                else:
                    found.append(Segment(shard, start - origin, end - origin))
            start, place = end, place + 1
    return tuple(found)


def _check_part(kind: str, part: int, parts: int) -> None:
    if not 0 <= part < parts:
        raise ValueError(f"{kind} {part} is not in 0 … {parts - 1}")
