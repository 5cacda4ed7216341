import math

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from datasets import plan

CLIPS = st.integers(1, 300)
BATCH = st.integers(1, 70)
WORLD = st.integers(1, 6)
WORKERS = st.integers(1, 5)
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
        plan.train_clips(clips, batch, seed=seed, epoch=epoch, rank=r, world=world) for r in range(world)
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
    alone = plan.train_clips(clips, batch, seed=1, epoch=2)
    ranks = [plan.train_clips(clips, batch, seed=1, epoch=2, rank=r, world=world) for r in range(world)]
    for step, parts in zip(alone, zip(*ranks)):
        assert np.array_equal(step, np.concatenate(parts))


@given(CLIPS, BATCH, st.integers(1, 9))
def test_every_evaluation_clip_once_without_padding(clips: int, batch: int, world: int) -> None:
    ranges = [r for rank in range(world) for r in plan.eval_ranges(clips, batch, rank=rank, world=world)]
    assert [clip for start, stop in ranges for clip in range(start, stop)] == list(range(clips))
    assert all(0 < stop - start <= -(-batch // world) for start, stop in ranges)


@given(SHARDS, BATCH, WORLD, WORKERS, st.integers(0, 9), st.integers(0, 9))
def test_streamed_training_reads_every_clip_once(
    shards: list[int], batch: int, world: int, workers: int, seed: int, epoch: int
) -> None:
    clips = sum(shards)
    assume(clips >= world)
    seen: list[int] = []
    for rank in range(world):
        sizes: dict[int, int] = {}
        for worker in range(workers):
            who = {"rank": rank, "world": world, "worker": worker, "workers": workers}
            reading = plan.train_reading(shards, batch, seed=seed, epoch=epoch, **who)
            mine = clips_of(shards, reading)
            assert len(mine) == sum(reading.batch_sizes)
            seen += mine
            # A loader takes batches from its workers in turn.
            sizes |= {worker + workers * i: size for i, size in enumerate(reading.batch_sizes)}
        expected = plan.train_clips(clips, batch, seed=seed, epoch=epoch, rank=rank, world=world)
        assert [sizes[step] for step in range(len(sizes))] == [len(part) for part in expected]
    assert sorted(seen) == list(range(clips))


@given(SHARDS, BATCH, WORLD, WORKERS)
def test_streamed_evaluation_reads_every_clip_once_in_order(
    shards: list[int], batch: int, world: int, workers: int
) -> None:
    for rank in range(world):
        ranges = plan.eval_ranges(sum(shards), batch, rank=rank, world=world)
        batches: dict[int, list[int]] = {}
        for worker in range(workers):
            who = {"rank": rank, "world": world, "worker": worker, "workers": workers}
            reading = plan.eval_reading(shards, batch, **who)
            clips = iter(clips_of(shards, reading))
            for i, size in enumerate(reading.batch_sizes):
                batches[worker + workers * i] = [next(clips) for _ in range(size)]
            assert next(clips, None) is None
        assert [batches[i] for i in range(len(batches))] == [list(range(*r)) for r in ranges]


def test_order_follows_seed_and_epoch_alone() -> None:
    first = plan.permutation(50, 3, 4)
    assert np.array_equal(first, plan.permutation(50, 3, 4))
    for other in (plan.permutation(50, 3, 5), plan.permutation(50, 4, 3), plan.permutation(50, 4, 4)):
        assert not np.array_equal(first, other)
    shards = [10] * 8
    reading = plan.train_reading(shards, 16, seed=0, epoch=0)
    assert reading == plan.train_reading(shards, 16, seed=0, epoch=0)
    assert reading != plan.train_reading(shards, 16, seed=0, epoch=1)


def test_neighbouring_batches_are_read_in_one_go() -> None:
    assert plan.eval_reading([10, 10], 4).segments == (plan.Segment(0, 0, 10), plan.Segment(1, 0, 10))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: plan.steps(3, 8, 4), "3 training clips can't be shared by 4 ranks"),
        (lambda: plan.steps(3, 0), "at least 1"),
        (lambda: plan.train_clips(9, 4, seed=0, epoch=0, rank=2, world=2), "rank 2 is not in 0 … 1"),
        (lambda: plan.eval_ranges(9, 0), "batch size 0"),
        (lambda: plan.eval_reading([3], 2, worker=1, workers=1), "worker 1 is not in 0 … 0"),
    ],
)
def test_nonsense_is_refused(call, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()
