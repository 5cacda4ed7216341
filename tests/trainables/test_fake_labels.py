"""Shuffled labels: what is shuffled, of what the shuffle is a function, and its hash against plain
integers."""

import itertools
from dataclasses import replace

import torch

from datasets.batch import Batch
from trainables import fake_labels
from trainables.fake_labels import fake_events, fake_scenes, splitmix64

MASK = (1 << 64) - 1


def slow_splitmix64(x: int) -> int:
    """Java's SplittableRandom in integers without limit."""
    x = (x + 0x9E3779B97F4A7C15) & MASK
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & MASK
    return x ^ (x >> 31)


def slow_order(clip: int, seed: int, turn: int, use: int, places: range) -> list[int]:
    begin = 0
    for number in (seed, turn, use, clip):
        begin = slow_splitmix64(begin ^ number)
    keys = [slow_splitmix64(begin ^ place) for place in places]
    signed = [key - (1 << 64) if key >> 63 else key for key in keys]
    return sorted(range(len(signed)), key=signed.__getitem__)


def batch_of(clips: int = 6, frames: int = 40, events: int = 7, scenes: int = 5) -> Batch:
    draw = torch.Generator().manual_seed(0)
    labels = (torch.rand(clips, frames, events, generator=draw) < 0.3).float()
    scene = torch.eye(scenes)[torch.randint(scenes, (clips,), generator=draw)]
    known = torch.ones(clips, events)
    return Batch(
        torch.zeros(clips, 1, 4), scene, labels.amax(1), known, torch.arange(clips) * 3, frames=labels,
        frame_known=torch.ones(clips, frames),
    )  # fmt: skip


def test_the_hash_equals_the_published_generator() -> None:
    # the first three numbers of the reference implementation with seed 1234567
    states = torch.tensor([1234567, 1234567 + 0x9E3779B97F4A7C15 - (1 << 64)])
    assert [int(x) & MASK for x in splitmix64(states)] == [6457827717110365317, 3203168211198807973]
    numbers = [0, 1, -1, 2**63 - 1, -(2**63), 123456789012345]
    found = splitmix64(torch.tensor(numbers))
    assert [int(x) & MASK for x in found] == [slow_splitmix64(x & MASK) for x in numbers]


def test_shuffles_against_a_slow_loop() -> None:
    batch = batch_of()
    scenes, frames = fake_scenes(batch, 7, 2).scene, fake_events(batch, 7, 2).frames
    events = batch.frames.shape[2]
    for row, clip in enumerate(batch.clip.tolist()):
        order = slow_order(clip, 7, 2, fake_labels.SCENE, range(5))
        assert scenes[row].tolist() == [batch.scene[row, place].item() for place in order]
        for t in range(40):
            places = range(t * events, (t + 1) * events)
            order = slow_order(clip, 7, 2, fake_labels.FRAMES, places)
            assert frames[row, t].tolist() == [batch.frames[row, t, place].item() for place in order]


def test_a_shuffle_keeps_the_elements_of_each_row_and_touches_nothing_else() -> None:
    batch = batch_of()
    batch.scene[1] = 0  # unknown
    scenes, events = fake_scenes(batch, 0, 0), fake_events(batch, 0, 0)
    assert torch.equal(scenes.scene.sort(1)[0], batch.scene.sort(1)[0]) and not scenes.scene[1].any()
    assert torch.equal(events.frames.sum(2), batch.frames.sum(2))
    assert not torch.equal(events.frames, batch.frames)
    assert torch.equal(scenes.frames, batch.frames) and torch.equal(events.scene, batch.scene)
    assert events.events is batch.events and events.waveform is batch.waveform


def test_a_clip_has_its_labels_wherever_it_is_met_and_others_with_another_seed_or_round() -> None:
    batch = batch_of()
    for shuffle, name in ((fake_scenes, "scene"), (fake_events, "frames")):
        whole = getattr(shuffle(batch, 3, 1), name)
        for row in range(len(batch)):
            names = ("waveform", "scene", "events", "event_known", "clip", "frames", "frame_known")
            alone = Batch(**{n: getattr(batch, n)[row : row + 1] for n in names})
            assert torch.equal(getattr(shuffle(alone, 3, 1), name)[0], whole[row])
    drawn = [fake_events(batch, seed, turn).frames for seed, turn in ((3, 1), (3, 2), (4, 1), (1, 3))]
    assert all(not torch.equal(a, b) for a, b in itertools.combinations(drawn, 2))
    one_event = replace(batch, frames=torch.eye(7)[torch.zeros(6, 40, dtype=torch.int64)])
    places = fake_events(one_event, 3, 1).frames.argmax(2)
    assert len({tuple(row.tolist()) for row in places}) == 6  # clips, and frames in a clip, differ
    assert all(len(row.unique()) == 7 for row in places)


def test_every_place_is_as_likely() -> None:
    clips = 6000
    scene = torch.eye(4)[torch.zeros(clips, dtype=torch.int64)]
    empty = torch.zeros(clips, 1)
    batch = Batch(torch.zeros(clips, 1, 1), scene, empty, empty, torch.arange(clips))
    counts = fake_scenes(batch, 0, 0).scene.sum(0)
    assert ((counts / clips - 0.25).abs() < 4 * (0.25 * 0.75 / clips) ** 0.5).all()
