import logging
import shutil
import threading
import time
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
import torch

from datasets import cache as cache_module
from datasets import plan
from datasets.batch import Batch
from datasets.prefetch import map_ahead, prefetch
from datasets.shards import Index, ShardError
from datasets.source import CacheSource, Source, StreamSource, default_cache, open_source


def together(batches) -> Batch:
    parts = list(batches)
    return Batch(*(torch.cat([getattr(part, f.name) for part in parts]) for f in fields(Batch)))


def in_order(batch: Batch) -> Batch:
    order = batch.clip.argsort()
    return Batch(*(getattr(batch, f.name)[order] for f in fields(Batch)))


def equal(a: Batch, b: Batch) -> bool:
    return all(torch.equal(getattr(a, f.name), getattr(b, f.name)) for f in fields(Batch))


@pytest.fixture(scope="module")
def cached(tiny: Index, tmp_path_factory: pytest.TempPathFactory) -> Source:
    source = open_source(tiny.root, cache=tmp_path_factory.mktemp("cache"))
    assert isinstance(source, CacheSource)
    return source


@pytest.fixture(params=["stream", "cache"])
def source(request: pytest.FixtureRequest, tiny: Index, cached: Source) -> Source:
    return cached if request.param == "cache" else open_source(tiny.root, cache=None)


@pytest.mark.parametrize("world", [1, 3])
def test_an_epoch_is_exact(source: Source, world: int) -> None:
    ranks = [
        [len(b) for b in source.train_batches(8, epoch=1, seed=2, rank=r, world=world)] for r in range(world)
    ]
    assert {len(sizes) for sizes in ranks} == {source.steps(8, world)} == {6}
    every = [b for r in range(world) for b in source.train_batches(8, epoch=1, seed=2, rank=r, world=world)]
    assert sorted(together(every).clip.tolist()) == list(range(43))


@pytest.mark.parametrize(("split", "batch_size", "world"), [("val", 4, 1), ("val", 8, 3), ("test", 100, 2)])
def test_evaluation_is_exact(source: Source, split: str, batch_size: int, world: int) -> None:
    every = [b for r in range(world) for b in source.eval_batches(split, batch_size, rank=r, world=world)]
    assert together(every).clip.tolist() == list(range(source.index.splits[split].clips))


def test_ranks_without_clips_get_no_batch(source: Source) -> None:
    assert [len(list(source.eval_batches("test", 10, rank=r, world=13))) for r in range(13)].count(0) == 3


def test_cache_and_stream_give_the_same_bits(tiny: Index, cached: Source) -> None:
    streamed = open_source(tiny.root, cache=None)
    for split in tiny.splits:
        assert equal(together(cached.eval_batches(split, 5)), together(streamed.eval_batches(split, 5)))
    one = in_order(together(cached.train_batches(8, epoch=0, seed=0)))
    other = in_order(together(streamed.train_batches(8, epoch=0, seed=0)))
    assert equal(one, other)


def test_cached_order_is_the_plan_whatever_the_world(cached: Source) -> None:
    expected = plan.train_clips([43], 8, seed=5, epoch=2)
    alone = [b.clip.tolist() for b in cached.train_batches(8, epoch=2, seed=5)]
    assert alone == [part.tolist() for part in expected]
    two = [list(cached.train_batches(8, epoch=2, seed=5, rank=r, world=2)) for r in range(2)]
    assert alone == [a.clip.tolist() + b.clip.tolist() for a, b in zip(*two)]


def test_order_follows_seed_and_epoch(source: Source) -> None:
    def order(epoch: int, seed: int) -> list[int]:
        return together(source.train_batches(8, epoch=epoch, seed=seed)).clip.tolist()

    assert order(0, 0) == order(0, 0)
    assert order(0, 0) != order(1, 0) and order(0, 0) != order(0, 1)


def test_any_number_of_threads_makes_the_same_batches(tiny: Index) -> None:
    alone, three = StreamSource(tiny), StreamSource(tiny, workers=3)
    for read in (
        lambda source: source.train_batches(8, epoch=0, seed=0),
        lambda source: source.eval_batches("val", 4),
    ):
        for one, other in zip(read(alone), read(three), strict=True):
            assert equal(one, other)


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize(("steps", "world", "other"), [(2, 2, 3), (3, 1, 2), (6, 2, 1)])
def test_an_epoch_left_half_way_is_taken_up_by_other_ranks(
    tiny: Index, cached: Source, steps: int, world: int, other: int, workers: int
) -> None:
    for before, after in ((cached, cached), (StreamSource(tiny, workers), StreamSource(tiny, 2 - workers))):
        options = {"epoch": 1, "seed": 4}
        done, seen = [before.leg(steps, world)], []
        for rank in range(world):
            batches = before.train_batches(8, rank=rank, world=world, **options)
            seen += [next(batches) for _ in range(steps)]
            batches.close()
        for rank in range(other):
            rest = list(after.train_batches(8, rank=rank, world=other, done=done, **options))
            assert len(rest) == after.steps(8, other, done) == 6 - steps
            seen += rest
        assert sorted(together(seen).clip.tolist()) == list(range(43))


def test_a_stretch_of_the_epoch_in_batches_of_given_sizes(source: Source) -> None:
    parts = plan.shares(np.array([5, 1, 7]), 2)
    options = {"epoch": 1, "seed": 4}
    ranks = [list(source.train_stretch(parts, first=20, rank=r, **options)) for r in range(2)]
    assert [[len(batch) for batch in batches] for batches in ranks] == parts.tolist()
    before = list(source.train_stretch(np.array([[20]]), first=0, **options))
    after = list(source.train_stretch(np.array([[10]]), first=33, **options))
    every = together([*ranks[0], *ranks[1], *before, *after])
    assert sorted(every.clip.tolist()) == list(range(43))


def test_a_failing_worker_is_one_line(tiny: Index, tmp_path: Path) -> None:
    root = shutil.copytree(tiny.root, tmp_path / "s")
    path = root / tiny.splits["val"].shards[0].name
    path.write_bytes(path.read_bytes().replace(b"fLaC", b"fLaX"))
    source = open_source(root, cache=None, workers=1)
    with pytest.raises(ShardError) as error:
        list(source.eval_batches("val", 4))
    assert str(error.value).startswith(f"{path.name}: clip ") and "\n" not in str(error.value)


def test_no_room_falls_back_to_streaming(
    tiny: Index, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cache_module.shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10, 9, 1000))
    with caplog.at_level(logging.WARNING):
        source = open_source(tiny.root, cache=tmp_path / "cache")
    assert [r.getMessage().count("\n") for r in caplog.records] == [0, 0]
    assert "needs 0.000 GB, 0.000 GB are free; streaming split 'train' instead" in caplog.text
    assert sorted(together(source.train_batches(8, epoch=0, seed=0)).clip.tolist()) == list(range(43))
    assert len(together(source.eval_batches("val", 8))) == 17


def test_a_cache_that_can_not_be_a_folder_falls_back(
    tiny: Index, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("")
    source = open_source(tiny.root, cache=tmp_path / "file" / "cache")
    assert "streaming split 'train' instead" in caplog.text
    assert len(together(source.eval_batches("val", 8))) == 17


def test_the_test_split_is_not_decoded_before_it_is_read(tiny: Index, tmp_path: Path) -> None:
    source = open_source(tiny.root, cache=tmp_path)
    (home,) = tmp_path.iterdir()
    assert {p.name for p in home.iterdir() if p.is_dir()} == {"train", "val"}
    list(source.eval_batches("test", 4))
    assert (home / "test").is_dir()


def test_wrong_folders_and_splits_are_one_line(tiny: Index, tmp_path: Path) -> None:
    with pytest.raises(ShardError, match="no such folder"):
        open_source(tmp_path / "nowhere", cache=None)
    with pytest.raises(ShardError, match="no split 'dev'; there are: train, val, test"):
        list(open_source(tiny.root, cache=None).eval_batches("dev", 4))


def test_default_cache_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SCENETUNE_CACHE", "/somewhere")
    assert default_cache() == Path("/somewhere")
    monkeypatch.delenv("SCENETUNE_CACHE")
    assert default_cache() == Path.home() / ".cache" / "scenetune"


def test_prefetch_keeps_order_and_passes_on_errors() -> None:
    assert list(prefetch(iter(range(50)), ahead=3)) == list(range(50))

    def failing():
        yield 1
        raise ShardError("broken")

    items = prefetch(failing())
    assert next(items) == 1
    with pytest.raises(ShardError, match="broken"):
        next(items)


def test_prefetch_works_ahead_by_one_and_ends_with_its_reader() -> None:
    made = []

    def numbers():
        for i in range(100):
            made.append(i)
            yield i

    items = prefetch(numbers())
    assert next(items) == 0
    deadline = time.monotonic() + 5
    while len(made) < 3 and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(0.05)
    assert made == [0, 1, 2]  # one taken, one ready, one waiting for its place
    items.close()
    assert not any(thread.name == "prefetch" for thread in threading.enumerate())
    assert len(made) == 3


def test_map_ahead_is_map_with_bounded_work() -> None:
    taken = []

    def numbers():
        for i in range(40):
            taken.append(i)
            yield i

    results = map_ahead(lambda x: x * x, numbers(), threads=2, ahead=3)
    assert next(results) == 0 and len(taken) <= 7
    assert list(results) == [i * i for i in range(1, 40)]
    with pytest.raises(ZeroDivisionError):
        list(map_ahead(lambda x: 1 // x, [1, 0], threads=2))
