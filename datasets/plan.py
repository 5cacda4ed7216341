"""The plan of an epoch: which clips go to which rank at which step. Pure arithmetic, no files, no torch.

Every training clip is seen once an epoch and every evaluation clip is scored once, for any number of ranks,
and all ranks make the same number of training steps. `batch_size` is the global batch, over all ranks.

A cached epoch takes the clips in one order, `permutation`, of which a global step is a stretch and a rank's
batch a part of that: what a step holds does not depend on the number of ranks. A streamed epoch lays the
shards end to end (`shard_row`) and gives each rank one stretch to read, which it mixes within a bounded
window. An epoch that was left half way is told by its `Leg`s; `todo` says what they left, and any number of
ranks can do the rest.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

# Keeps draws for one purpose apart from others that start from the same (seed, epoch).
_CLIP_ORDER, _SHARD_ORDER, _MIXING = 1, 2, 3
WINDOW_CLIPS = 1000
WINDOW_BYTES = 64 * 2**20


@dataclass(frozen=True)
class Segment:
    """The clips first … stop - 1 of shard number `shard`."""

    shard: int
    first: int
    stop: int


@dataclass(frozen=True, eq=False)
class Reading:
    """What a rank reads, in order; the order (n,) in which it hands the clips on, as numbers in the split;
    and the sizes of the batches it cuts them into."""

    segments: tuple[Segment, ...]
    order: np.ndarray
    batch_sizes: tuple[int, ...]


@dataclass(frozen=True)
class Leg:
    """`steps` global steps of an epoch as `world` ranks made them, from the cache or streamed.

    An epoch's legs in order, with its seed, number and batch size, are all that a checkpoint inside the epoch
    must hold of the data.
    """

    steps: int
    world: int
    cached: bool = False


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


def sizes_for(sizes: np.ndarray, batch_size: int, world: int) -> np.ndarray:
    """(K,) the global steps `sizes` for `world` ranks: as they are, or where a rank would get nothing of one,
    divided anew into fewer. Raises ValueError when there are fewer clips than ranks."""
    clips = int(sizes.sum())
    if not clips or sizes.min() >= world:
        return sizes
    return step_sizes(clips, steps(clips, batch_size, world))


def sizes_left(clips: int, batch_size: int, world: int, done: Sequence[Leg] = ()) -> np.ndarray:
    """(K,) clips in each global step that `world` ranks have to make of an epoch after the legs `done`.

    Raises ValueError for a leg that is longer than what was left for it.
    """
    sizes = step_sizes(clips, steps(clips, batch_size))
    for leg in done:
        sizes = sizes_for(sizes, batch_size, leg.world)
        if not 0 <= leg.steps <= len(sizes):
            raise ValueError(f"{leg.steps} steps of an epoch are said to be done, it had {len(sizes)}")
        sizes = sizes[leg.steps :]
    return sizes_for(sizes, batch_size, world)


def share(size: int, part: int, parts: int) -> tuple[int, int]:
    """[start, stop) of one of `parts` nearly equal parts of `size` things."""
    return size * part // parts, size * (part + 1) // parts


def shares(sizes: np.ndarray, world: int) -> np.ndarray:
    """(world, K) how many clips each rank gets of the K global steps."""
    return np.stack([sizes * (r + 1) // world - sizes * r // world for r in range(world)])


def permutation(clips: int, seed: int, epoch: int) -> np.ndarray:
    """(clips,) the order of the clips in an epoch."""
    return np.random.default_rng([_CLIP_ORDER, seed, epoch]).permutation(clips)


def shard_row(shard_clips: Sequence[int], seed: int, epoch: int) -> np.ndarray:
    """(clips,) the clips' numbers with the shards laid end to end in an order drawn from (seed, epoch), the
    row turned by a drawn amount."""
    rng = np.random.default_rng([_SHARD_ORDER, seed, epoch])
    order, edges = rng.permutation(len(shard_clips)), np.concatenate([[0], np.cumsum(shard_clips)])
    row = np.concatenate([np.arange(edges[shard], edges[shard + 1]) for shard in order])
    return np.roll(row, -int(rng.integers(len(row))))


def window(clips: int, size: int) -> int:
    """How many clips of a split the mixing window holds, for `clips` clips in shards of `size` bytes
    together: at most WINDOW_CLIPS, and about WINDOW_BYTES of encoded audio."""
    return int(min(WINDOW_CLIPS, max(2, WINDOW_BYTES * clips / max(size, 1))))


def mixed(clips: np.ndarray, within: int, key: Sequence[int]) -> np.ndarray:
    """(n,) `clips` in an order that needs fewer than `within` of them in memory while they come one by one:
    each is put back by a number of places drawn from [0, within)."""
    rng = np.random.default_rng([_MIXING, *key])
    return clips[np.argsort(np.arange(len(clips)) + rng.uniform(0, within, len(clips)))]


def cut(order: np.ndarray, parts: np.ndarray, rank: int) -> list[np.ndarray]:
    """The clips of `rank` at each step, where the steps divide `order` and `parts` (world, K) each step."""
    starts = np.concatenate([[0], np.cumsum(parts.sum(0))])[:-1] + parts[:rank].sum(0)
    return [order[start : start + size] for start, size in zip(starts, parts[rank])]


def train_clips(
    shard_clips: Sequence[int],
    batch_size: int,
    *,
    seed: int,
    epoch: int,
    rank: int = 0,
    world: int = 1,
    within: int = 1,
    done: Sequence[Leg] = (),
) -> list[np.ndarray]:
    """The numbers of the clips that `rank` gets at each step, or at each that `done` left. The clips of a
    global step do not depend on `world` (unless `world` is so close to the batch size that `steps` has to
    make fewer steps)."""
    _check_part("rank", rank, world)
    clips = int(sum(shard_clips))
    parts = shares(sizes_left(clips, batch_size, world, done), world)
    order = permutation(clips, seed, epoch)
    left = todo(shard_clips, batch_size, done, seed=seed, epoch=epoch, within=within)
    return cut(order[left[order]], parts, rank)


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
    within: int = 1,
    done: Sequence[Leg] = (),
) -> Reading:
    """What a rank reads in a training epoch, or in the rest that `done` left of it.

    shard_clips  the number of clips in each shard
    within       the mixing window, in clips
    With as many ranks as the last leg had, the rest is what that leg would have gone on with.
    """
    done = _joined(done)
    goes_on = bool(done) and (done[-1].world, done[-1].cached) == (world, False)
    before, skip = (done[:-1], done[-1].steps) if goes_on else (done, 0)
    parts = shares(sizes_left(int(sum(shard_clips)), batch_size, world, before), world)
    row = shard_row(shard_clips, seed, epoch)
    left = todo(shard_clips, batch_size, before, seed=seed, epoch=epoch, within=within)
    key = (seed, epoch, len(before))
    return reading(shard_clips, row[left[row]], parts, key=key, within=within, rank=rank, skip=skip)


def reading(
    shard_clips: Sequence[int],
    row: np.ndarray,
    parts: np.ndarray,
    *,
    key: tuple[int, ...],
    within: int,
    rank: int = 0,
    skip: int = 0,
) -> Reading:
    """What a rank reads of `row`, the clips of K global steps of which rank r gets parts[r].

    Each rank takes the stretch that holds exactly the clips of its batches. The first `skip` steps are left
    out.
    """
    _check_part("rank", rank, len(parts))
    stretch, sizes = _stretch(row, parts, rank), parts[rank]
    order = mixed(stretch, within, (*key, rank))[int(sizes[:skip].sum()) :]
    if skip:
        stretch = stretch[np.isin(stretch, order, assume_unique=True)]
    return Reading(_segments(shard_clips, stretch), order, tuple(int(size) for size in sizes[skip:]))


def eval_reading(shard_clips: Sequence[int], batch_size: int, *, rank: int = 0, world: int = 1) -> Reading:
    """What a rank reads of an evaluation split: its `eval_ranges`, in order."""
    ranges = eval_ranges(int(sum(shard_clips)), batch_size, rank=rank, world=world)
    clips = np.concatenate([np.arange(0), *(np.arange(start, stop) for start, stop in ranges)])
    return Reading(_segments(shard_clips, clips), clips, tuple(stop - start for start, stop in ranges))


def todo(
    shard_clips: Sequence[int],
    batch_size: int,
    done: Sequence[Leg],
    *,
    seed: int,
    epoch: int,
    within: int = 1,
) -> np.ndarray:
    """(clips,) true for the clips of an epoch that the legs `done`, one after another, left."""
    legs, clips = _joined(done), int(sum(shard_clips))
    left = np.ones(clips, dtype=bool)
    for number, leg in enumerate(legs):
        sizes = sizes_left(clips, batch_size, leg.world, legs[:number])
        if leg.cached:
            order = permutation(clips, seed, epoch)
            seen = [order[left[order]][: sizes[: leg.steps].sum()]]
        else:
            row = shard_row(shard_clips, seed, epoch)
            parts, key = shares(sizes, leg.world), (seed, epoch, number)
            seen = list(_seen(row[left[row]], parts, leg, key, within))
        left[np.concatenate(seen)] = False
    return left


def _seen(
    row: np.ndarray, parts: np.ndarray, leg: Leg, key: tuple[int, ...], within: int
) -> Iterator[np.ndarray]:
    """The clips that each rank of a streamed leg has handed on."""
    for rank in range(leg.world):
        yield mixed(_stretch(row, parts, rank), within, (*key, rank))[: parts[rank][: leg.steps].sum()]


def _stretch(row: np.ndarray, parts: np.ndarray, rank: int) -> np.ndarray:
    """The part of `row` that a rank reads."""
    start = int(parts[:rank].sum())
    return row[start : start + int(parts[rank].sum())]


def _joined(done: Sequence[Leg]) -> list[Leg]:
    """A leg that was taken up by as many ranks as had left it is one leg."""
    legs: list[Leg] = []
    for leg in done:
        if legs and (legs[-1].world, legs[-1].cached) == (leg.world, leg.cached):
            legs[-1] = Leg(legs[-1].steps + leg.steps, leg.world, leg.cached)
        else:
            legs.append(leg)
    return legs


def _segments(shard_clips: Sequence[int], clips: np.ndarray) -> tuple[Segment, ...]:
    """The clips' numbers as stretches of shards; neighbours in one shard are joined."""
    edges = np.concatenate([[0], np.cumsum(shard_clips)])
    shard = np.searchsorted(edges, clips, side="right") - 1
    breaks = np.flatnonzero((np.diff(clips) != 1) | (np.diff(shard) != 0)) + 1
    firsts, lasts = np.concatenate([[0], breaks]), np.concatenate([breaks, [len(clips)]]) - 1
    if not len(clips):
        return ()
    place = clips - edges[shard]
    return tuple(Segment(int(shard[a]), int(place[a]), int(place[b]) + 1) for a, b in zip(firsts, lasts))


def _check_part(kind: str, part: int, parts: int) -> None:
    if not 0 <= part < parts:
        raise ValueError(f"{kind} {part} is not in 0 … {parts - 1}")
