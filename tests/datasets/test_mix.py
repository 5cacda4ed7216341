from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from test_decode import encoded

from datasets import mix, plan
from datasets.batch import Batch
from datasets.labels import LabelSpace
from datasets.shard_writer import Sample, write_split
from datasets.shards import ClipLabels, Index, ShardError, Tags, make_index
from datasets.source import StreamSource, open_source

SCENES = LabelSpace(("park", "tram"), ("bird",))
EVENTS = LabelSpace((), ("bell", "bird", "dog"))


def build(
    root: Path,
    labels: LabelSpace,
    clips: dict[str, int],
    samples: int = 80,
    rate: int = 8000,
    channels: int = 1,
) -> Index:
    """A shard set of noise: clip i of a split has scene i and event i, modulo their numbers."""
    rng = np.random.default_rng(samples)
    root.mkdir()
    splits = {}
    for split, count in clips.items():
        made = []
        for i in range(count):
            sound = rng.integers(-9999, 9999, (samples, channels)).astype(np.int16)
            scene = labels.scenes[i % len(labels.scenes)] if labels.scenes else None
            known = ClipLabels(scene, (labels.events[i % len(labels.events)],) if labels.events else None)
            made.append(Sample(f"{split}{i}", encoded(sound, rate=rate), "flac", samples, known))
        splits[split] = write_split(root, split, made, rate, shard_bytes=8000)
    about = {"corpus": root.name, "licence": "", "citation": "", "sample_type": "int16"}
    index = make_index(root, splits, sample_rate=rate, channels=channels, labels=labels, **about)
    index.save()
    return index


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Index:
    return build(tmp_path_factory.mktemp("mix") / "scenes", SCENES, {"train": 23, "val": 9, "test": 4})


@pytest.fixture(scope="module")
def events(tmp_path_factory: pytest.TempPathFactory) -> Index:
    return build(tmp_path_factory.mktemp("mix") / "events", EVENTS, {"train": 7, "val": 5}, samples=120)


@pytest.fixture(params=["stream", "cache"])
def mixed(
    request: pytest.FixtureRequest, scenes: Index, events: Index, tmp_path_factory: pytest.TempPathFactory
) -> mix.MixedSource:
    cache = tmp_path_factory.mktemp("cache") if request.param == "cache" else None
    source = mix.open_sources(scenes.root, [f"{events.root}:5"], cache=cache)
    assert isinstance(source, mix.MixedSource)
    return source


def clips_of(batches: list[Batch], part: int) -> list[int]:
    return [clip for batch in batches for clip in batch.clip[batch.part == part].tolist()]


@pytest.mark.parametrize("world", [1, 2, 3])
def test_an_epoch_is_one_pass_over_the_lead_and_fair_to_the_companion(
    mixed: mix.MixedSource, world: int
) -> None:
    ranks = [list(mixed.train_batches(6, epoch=2, seed=1, rank=r, world=world)) for r in range(world)]
    assert {len(batches) for batches in ranks} == {mixed.steps(6, world)} == {4}
    for step in zip(*ranks):
        assert sum(int((batch.part == 1).sum()) for batch in step) == 5
        sizes = [int((batch.part == 1).sum()) for batch in step]
        assert max(sizes) - min(sizes) <= 1
    every = [batch for batches in ranks for batch in batches]
    assert sorted(clips_of(every, 0)) == list(range(23))
    used = Counter(clips_of(every, 1))
    assert sorted(used) == list(range(23, 30)) and sum(used.values()) == 20
    assert max(used.values()) - min(used.values()) <= 1


def test_a_step_does_not_depend_on_the_ranks_when_cached(
    scenes: Index, events: Index, tmp_path: Path
) -> None:
    source = mix.open_sources(scenes.root, [f"{events.root}:5"], cache=tmp_path)
    alone = list(source.train_batches(6, epoch=0, seed=1))
    ranks = [list(source.train_batches(6, epoch=0, seed=1, rank=r, world=2)) for r in range(2)]
    for whole, parts in zip(alone, zip(*ranks)):
        for part in (0, 1):
            assert clips_of([whole], part) == clips_of(list(parts), part)


def test_order_follows_seed_epoch_and_cycle(mixed: mix.MixedSource) -> None:
    def order(epoch: int, seed: int) -> list[int]:
        return clips_of(list(mixed.train_batches(6, epoch=epoch, seed=seed)), 1)

    assert order(0, 0) == order(0, 0)
    assert order(0, 0) != order(1, 0) and order(0, 0) != order(0, 1)
    assert order(0, 0)[:7] != order(0, 0)[7:14]


def test_labels_are_joined_and_unknown_where_a_set_has_none(mixed: mix.MixedSource) -> None:
    assert mixed.index.labels == LabelSpace(("park", "tram"), ("bird", "bell", "dog"))
    assert (mixed.index.samples, mixed.index.splits["train"].clips) == (120, 30)
    for batch in mixed.train_batches(6, epoch=0, seed=0):
        lead = batch.part == 0
        assert batch.waveform.shape[1:] == (1, 120) and not batch.waveform[lead, :, 80:].any()
        assert batch.waveform[~lead, :, 80:].abs().amax() > 0.1
        assert (batch.scene[lead].sum(1) == 1).all() and not batch.scene[~lead].any()
        assert batch.event_known[lead].tolist() == [[1, 0, 0]] * int(lead.sum())
        assert (batch.event_known[~lead] == 1).all()
        expected = [EVENTS.events[(clip - 23) % 3] for clip in batch.clip[~lead].tolist()]
        found = [mixed.index.labels.events[row.argmax()] for row in batch.events[~lead]]
        assert found == expected and (batch.events.sum(1) == 1).all()


@pytest.mark.parametrize("world", [1, 3])
def test_evaluation_reads_each_set_once(mixed: mix.MixedSource, world: int) -> None:
    every = [b for r in range(world) for b in mixed.eval_batches("val", 4, rank=r, world=world)]
    assert sorted(torch.cat([batch.clip for batch in every]).tolist()) == list(range(14))
    assert sorted(clips_of(every, 1)) == list(range(9, 14))
    assert clips_of(list(mixed.eval_batches("test", 4)), 0) == [0, 1, 2, 3]
    with pytest.raises(ShardError, match="no split 'dev'"):
        list(mixed.eval_batches("dev", 4))


def test_an_epoch_left_half_way_goes_on_with_its_composition(mixed: mix.MixedSource) -> None:
    done = [mixed.leg(2, 1)]
    batches = mixed.train_batches(6, epoch=0, seed=3)
    seen = [next(batches), next(batches)]
    batches.close()
    rest = [b for r in range(2) for b in mixed.train_batches(6, epoch=0, seed=3, rank=r, world=2, done=done)]
    assert sorted(clips_of(seen + rest, 0)) == list(range(23))
    assert len(clips_of(rest, 1)) == 10
    if done[0].cached:
        used = Counter(clips_of(seen + rest, 1))
        assert max(used.values()) - min(used.values()) <= 1


def test_workers_give_the_same_composition(scenes: Index, events: Index) -> None:
    source = mix.MixedSource.of(StreamSource(scenes, 2), [mix.Companion(StreamSource(events, 1), 5)])
    batches = list(source.train_batches(6, epoch=0, seed=0))
    assert sorted(clips_of(batches, 0)) == list(range(23))
    assert [int((batch.part == 1).sum()) for batch in batches] == [5] * 4


@given(
    st.integers(1, 60),
    st.integers(1, 40),
    st.integers(1, 12),
    st.integers(0, 5),
    st.integers(1, 5),
    st.data(),
)
def test_pieces_fill_every_step_and_use_every_clip_alike(
    clips: int, size: int, steps: int, epoch: int, world: int, data: st.DataObject
) -> None:
    made = data.draw(st.integers(0, steps))
    filled, used = np.zeros((world, steps), int), Counter[tuple[int, int]]()
    for piece in mix.cycles(clips, size, steps, epoch=epoch, world=world, made=made):
        count = piece.parts.shape[1]
        filled[:, made + piece.step : made + piece.step + count] += piece.parts
        assert piece.first + piece.parts.sum() <= clips
        used.update((piece.epoch, piece.first + i) for i in range(piece.parts.sum()))
    expected = plan.shares(np.full(steps, size), world)
    assert np.array_equal(filled[:, made:], expected[:, made:]) and not filled[:, :made].any()
    assert not used or max(used.values()) == 1  # no cycle gives a place twice
    if not made:
        cycles_used = len({cycle for cycle, _ in used})
        assert cycles_used == -(-steps * size // clips)  # all but the last cycle are whole


@given(st.integers(1, 60), st.integers(1, 20), st.integers(1, 5))
def test_cycles_and_passes_are_never_repeated(clips: int, size: int, steps: int) -> None:
    places = Counter(
        (piece.epoch, piece.first + i)
        for epoch in range(7)
        for piece in mix.cycles(clips, size, steps, epoch=epoch)
        for i in range(piece.parts.sum())
    )
    assert set(places.values()) == {1} and sum(places.values()) == 7 * size * steps


def other(events: Index, tmp_path: Path, **about) -> Index:
    return build(tmp_path / "other", **{"labels": EVENTS, "clips": {"train": 3}} | about)


@pytest.mark.parametrize(
    ("about", "message"),
    [
        ({"rate": 16000}, "8000 and 16000 Hz; prepare both alike"),
        ({"channels": 2}, "1 and 2 channel"),
        ({"labels": LabelSpace((), ("tram",))}, "'tram' is a scene in one and an event in the other"),
        ({"labels": LabelSpace(("bird",), ())}, "'bird' is a scene in one and an event in the other"),
    ],
)
def test_sets_that_do_not_fit_are_refused_by_name(
    scenes: Index, tmp_path: Path, about: dict[str, object], message: str
) -> None:
    index = other(scenes, tmp_path, **about)
    with pytest.raises(mix.MixError) as error:
        mix.open_sources(scenes.root, [f"{index.root}:5"], cache=None)
    text = str(error.value)
    assert message in text and str(scenes.root) in text and str(index.root) in text and "\n" not in text


def test_more_clips_a_batch_than_a_set_has_is_refused(scenes: Index, events: Index) -> None:
    with pytest.raises(ValueError, match=r"999 clips a batch, it has \d+ for training"):
        mix.open_sources(scenes.root, [f"{events.root}:999"], cache=None)


@pytest.mark.parametrize("word", ["events", "events:", "events:0", "events:-3", ":4", "events:many"])
def test_a_mix_of_another_form_is_refused(scenes: Index, word: str) -> None:
    with pytest.raises(ValueError, match="expected SHARDS:CLIPS"):
        mix.open_sources(scenes.root, [word], cache=None)


def test_tags_are_kept_where_all_sets_have_them_from_one_teacher(scenes: Index, events: Index) -> None:
    tags = Tags(("a", "b"), "teacher", "0" * 64)
    both = [replace(index, tags=tags) for index in (scenes, events)]
    assert mix.joint_index(both, [5]).tags == tags
    assert mix.joint_index([both[0], events], [5]).tags is None
    assert mix.joint_index([both[0], replace(events, tags=replace(tags, model="x"))], [5]).tags is None


def test_without_a_mix_it_is_the_plain_source(scenes: Index) -> None:
    assert isinstance(mix.open_sources(scenes.root, cache=None), type(open_source(scenes.root, cache=None)))


def test_a_mix_for_other_processes_has_its_full_path(events: Index, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(events.root.parent)
    assert mix.resolved("events:5") == f"{events.root.resolve()}:5"
    with pytest.raises(ShardError, match="no such folder"):
        mix.resolved("nowhere:5")
