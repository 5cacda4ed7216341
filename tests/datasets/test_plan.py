import math

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from datasets import plan

CLIPS = st.integers(1, 300)
BATCH = st.integers(1, 70)
WORLD = st.integers(1, 6)
SHARDS = st.lists(st.integers(0, 40), min_size=1, max_size=8).filter(lambda sizes: sum(sizes) > 0)


def clips_of(shards: list[int], reading: plan.Reading) -> list[int]:
    """The clip numbers a reading goes through, by the slow and obvious way."""
    first = [sum(shards[:i]) for i in range(len(shards))]
    return [first[s.shard] + place for s in reading.segments for place in range(s.first, s.stop)]


@given(CLIPS, BATCH, WORLD)
def test_steps_are_even_and_no_rank_is_left_out(clips: int, batch: int, world: int) -> None:
    assume(clips >= world)
    count = plan.steps(clips, batch, world)
    sizes = plan.step_sizes(clips, count)
    assert count == len(sizes) and sizes.sum() == clips and sizes.max() - sizes.min() <= 1
    assert sizes.min() >= world
    if clips // math.ceil(clips / batch) >= world:
        assert count == math.ceil(clips / batch) and sizes.max() <= batch


@given(CLIPS, BATCH, WORLD, st.integers(0, 9), st.integers(0, 9))
def test_every_training_clip_once_and_equal_steps(
    clips: int, batch: int, world: int, seed: int, epoch: int
) -> None:
    assume(clips >= world)
    ranks = [
        plan.train_clips([clips], batch, seed=seed, epoch=epoch, rank=r, world=world) for r in range(world)
    ]
    assert {len(steps) for steps in ranks} == {plan.steps(clips, batch, world)}
    seen = np.concatenate([part for steps in ranks for part in steps])
    assert sorted(seen) == list(range(clips))
    for parts in zip(*ranks):
        sizes = [len(part) for part in parts]
        assert min(sizes) >= 1 and max(sizes) - min(sizes) <= 1


@given(st.integers(40, 300), st.integers(8, 40), WORLD)
def test_a_global_step_has_the_same_clips_for_any_world(clips: int, batch: int, world: int) -> None:
    assume(plan.steps(clips, batch) == plan.steps(clips, batch, world))
    alone = plan.train_clips([clips], batch, seed=1, epoch=2)
    ranks = [plan.train_clips([clips], batch, seed=1, epoch=2, rank=r, world=world) for r in range(world)]
    for step, parts in zip(alone, zip(*ranks)):
        assert np.array_equal(step, np.concatenate(parts))


@given(CLIPS, BATCH, st.integers(1, 9))
def test_every_evaluation_clip_once_without_padding(clips: int, batch: int, world: int) -> None:
    ranges = [r for rank in range(world) for r in plan.eval_ranges(clips, batch, rank=rank, world=world)]
    assert [clip for start, stop in ranges for clip in range(start, stop)] == list(range(clips))
    assert all(0 < stop - start <= -(-batch // world) for start, stop in ranges)


@given(SHARDS, BATCH, WORLD, st.integers(0, 9), st.integers(0, 9))
def test_streamed_training_reads_every_clip_once(
    shards: list[int], batch: int, world: int, seed: int, epoch: int
) -> None:
    clips = sum(shards)
    assume(clips >= world)
    seen: list[int] = []
    for rank in range(world):
        who = {"rank": rank, "world": world}
        reading = plan.train_reading(shards, batch, seed=seed, epoch=epoch, **who)
        mine = clips_of(shards, reading)
        assert sorted(mine) == sorted(reading.order)
        seen += mine
        expected = plan.train_clips([clips], batch, seed=seed, epoch=epoch, **who)
        assert list(reading.batch_sizes) == [len(part) for part in expected]
    assert sorted(seen) == list(range(clips))


@given(SHARDS, BATCH, WORLD)
def test_streamed_evaluation_reads_every_clip_once_in_order(
    shards: list[int], batch: int, world: int
) -> None:
    for rank in range(world):
        ranges = plan.eval_ranges(sum(shards), batch, rank=rank, world=world)
        reading = plan.eval_reading(shards, batch, rank=rank, world=world)
        clips = [clip for start, stop in ranges for clip in range(start, stop)]
        assert clips_of(shards, reading) == list(reading.order) == clips
        assert list(reading.batch_sizes) == [stop - start for start, stop in ranges]


def test_order_follows_seed_and_epoch_alone() -> None:
    first = plan.permutation(50, 3, 4)
    assert np.array_equal(first, plan.permutation(50, 3, 4))
    for other in (plan.permutation(50, 3, 5), plan.permutation(50, 4, 3), plan.permutation(50, 4, 4)):
        assert not np.array_equal(first, other)
    shards = [10] * 8
    reading, again, other = (plan.train_reading(shards, 16, seed=0, epoch=e, within=30) for e in (0, 0, 1))
    assert reading.segments == again.segments and np.array_equal(reading.order, again.order)
    assert not np.array_equal(reading.order, other.order)


def test_neighbouring_batches_are_read_in_one_go() -> None:
    assert plan.eval_reading([10, 10], 4).segments == (plan.Segment(0, 0, 10), plan.Segment(1, 0, 10))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: plan.steps(3, 8, 4), "3 training clips can't be shared by 4 ranks"),
        (lambda: plan.steps(3, 0), "at least 1"),
        (lambda: plan.train_clips([9], 4, seed=0, epoch=0, rank=2, world=2), "rank 2 is not in 0 … 1"),
        (lambda: plan.eval_ranges(9, 0), "batch size 0"),
        (lambda: plan.eval_reading([3], 2, rank=1), "rank 1 is not in 0 … 0"),
    ],
)
def test_nonsense_is_refused(call, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()


@given(SHARDS, st.integers(1, 60), st.integers(0, 9))
def test_mixing_keeps_a_bounded_number_of_clips_in_memory(shards: list[int], within: int, seed: int) -> None:
    reading = plan.train_reading(shards, 16, seed=seed, epoch=0, within=within)
    unread, waiting, most = clips_of(shards, reading)[::-1], set[int](), 0
    for number in reading.order:
        while number not in waiting:
            waiting.add(unread.pop())
        most = max(most, len(waiting))
        waiting.remove(number)
    assert not unread and not waiting and most <= within


def test_mixing_moves_clips_by_half_the_window_on_average() -> None:
    moved = np.abs(plan.mixed(np.arange(5000), 1000, (1,)) - np.arange(5000))
    assert moved.max() < 1000 and moved.mean() > 200


LEGS = st.lists(st.tuples(st.integers(0, 30), WORLD, st.booleans()), max_size=3)


def epoch_clips(shards: list[int], batch: int, leg: plan.Leg, **options) -> list[list[list[int]]]:
    """[rank][step] the clips of what remains of an epoch, for ranks as `leg` has them."""
    ranks = []
    for rank in range(leg.world):
        options |= {"rank": rank, "world": leg.world}
        if leg.cached:
            ranks.append([list(part) for part in plan.train_clips(shards, batch, **options)])
            continue
        reading = plan.train_reading(shards, batch, **options)
        assert sorted(clips_of(shards, reading)) == sorted(reading.order)
        edges = np.concatenate([[0], np.cumsum(reading.batch_sizes, dtype=int)])
        ranks.append([list(reading.order[a:b]) for a, b in zip(edges[:-1], edges[1:])])
    return ranks


@given(SHARDS, BATCH, LEGS, WORLD, st.booleans(), st.integers(0, 99), st.integers(1, 50))
def test_an_epoch_taken_up_again_and_again_sees_every_clip_once(
    shards: list[int],
    batch: int,
    legs: list[tuple[int, int, bool]],
    world: int,
    cached: bool,
    seed: int,
    within: int,
) -> None:
    done: list[plan.Leg] = []
    seen: list[int] = []
    options = {"seed": seed, "epoch": 3, "within": within}
    for steps, ranks, from_cache in [*legs, (1000, world, cached)]:
        left = sum(shards) - len(seen)
        assume(left >= ranks or not left)
        leg = plan.Leg(steps, ranks, from_cache)
        parts = epoch_clips(shards, batch, leg, done=done, **options)
        count = len(plan.sizes_left(sum(shards), batch, ranks, done))
        assert {len(part) for part in parts} == {count}
        assert all(clips for part in parts for clips in part)
        seen += [clip for part in parts for step in part[:steps] for clip in step]
        assert len(seen) == len(set(seen))
        done.append(plan.Leg(min(steps, count), ranks, from_cache))
    assert sorted(seen) == list(range(sum(shards)))


@given(SHARDS, BATCH, WORLD, st.booleans(), st.lists(st.integers(0, 9), min_size=1, max_size=3))
def test_taken_up_by_as_many_ranks_an_epoch_is_the_one_that_never_stopped(
    shards: list[int], batch: int, world: int, cached: bool, stops: list[int]
) -> None:
    assume(sum(shards) >= world)
    options = {"seed": 1, "epoch": 2, "within": 20}
    whole = epoch_clips(shards, batch, plan.Leg(0, world, cached), **options)
    done = []
    for stop in stops:
        stop = min(stop, len(whole[0]))
        whole = [part[stop:] for part in whole]
        done.append(plan.Leg(stop, world, cached))
        assert epoch_clips(shards, batch, plan.Leg(0, world, cached), done=done, **options) == whole


@given(st.integers(40, 300), st.integers(8, 40), st.integers(0, 9), WORLD, WORLD)
def test_a_cached_epoch_has_the_same_global_steps_whoever_takes_it_up(
    clips: int, batch: int, steps: int, world: int, other: int
) -> None:
    assume(plan.steps(clips, batch) == plan.steps(clips, batch, max(world, other)))
    whole = plan.train_clips([clips], batch, seed=1, epoch=2)
    done = [plan.Leg(min(steps, len(whole)), world, cached=True)]
    parts = [
        plan.train_clips([clips], batch, seed=1, epoch=2, rank=r, world=other, done=done)
        for r in range(other)
    ]
    for step, rest in zip(whole[done[0].steps :], zip(*parts), strict=True):
        assert np.array_equal(step, np.concatenate(rest))


def test_a_leg_longer_than_the_epoch_is_refused() -> None:
    with pytest.raises(ValueError, match="9 steps of an epoch are said to be done, it had 4"):
        plan.sizes_left(32, 8, 1, [plan.Leg(9, 1, cached=True)])


def test_window_is_bounded_by_bytes() -> None:
    assert plan.window(10, 10 * 2**20) == 64
    assert plan.window(10, 1000) == plan.WINDOW_CLIPS
    assert plan.window(10, 10 * 2**30) == 2
