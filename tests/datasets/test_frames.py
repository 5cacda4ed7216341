"""Frame labels: the rule against a slow loop, what is unknown, and one cache for every hop."""

import io
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from sounds import tone

from datasets.frames import clip_frames, frame_span
from datasets.labels import LabelSpace
from datasets.mix import open_sources
from datasets.shard_writer import Sample, write_split
from datasets.shards import ClipLabels, Index, ShardError, make_index, read_labels

HOP = Fraction(20, 1000)


def slow_frames(clip: ClipLabels, events: tuple[str, ...], frames: int, hop_us: int) -> list[list[float]]:
    """(T, E) frame by frame, in whole microseconds: does the event's stretch overlap the frame's?"""
    found = []
    for t in range(frames):
        row = [0.0] * len(events)
        for onset, offset, name in clip.strong or ():
            a, b = round(onset * 1e6), round(offset * 1e6)
            if a < b and a < (t + 1) * hop_us and b > t * hop_us:
                row[events.index(name)] = 1.0
        found.append(row)
    return found


@pytest.mark.parametrize(
    ("onset", "offset", "span"),
    [
        (0.06, 0.14, (3, 7)),  # 0.14 / 0.02 is 7.000000000000001 in floats
        (0.0599, 0.1401, (2, 8)),
        (0.065, 0.066, (3, 4)),  # shorter than a frame
        (9.99, 12.0, (499, 500)),
        (-1.0, 0.01, (0, 1)),
        (0.5, 0.5, (0, 0)),
        (0.6, 0.5, (0, 0)),
        (10.0, 11.0, (0, 0)),
    ],
)
def test_an_event_is_in_every_frame_it_overlaps(onset: float, offset: float, span: tuple[int, int]) -> None:
    assert frame_span(onset, offset, HOP, 500) == span


def test_drawn_events_against_a_slow_loop() -> None:
    rng, events = np.random.default_rng(0), ("a", "b", "c")
    columns = {name: place for place, name in enumerate(events)}
    for _ in range(40):
        times = rng.integers(-3, 220, (6, 2)) / 100  # many of them on a border of frames
        strong = tuple((float(a), float(b), events[rng.integers(3)]) for a, b in times)
        clip = ClipLabels(strong=strong)
        found = np.zeros((100, 3))
        made = clip_frames(clip, 100, columns, HOP)
        for first, stop, column in made.spans:
            found[first:stop, column] = 1
        assert found.tolist() == slow_frames(clip, events, 100, 20000) and made.known == 100


@pytest.mark.parametrize("cached", [True, False])
def test_batches_of_training_and_evaluation_hold_their_clips_frames(
    tiny: Index, cache: Path, cached: bool
) -> None:
    source = open_sources(tiny.root, cache=cache if cached else None, frames=HOP)
    plain = open_sources(tiny.root, cache=cache if cached else None)
    labels = {split: list(read_labels(tiny, split)) for split in ("train", "val")}
    batches = {
        "train": zip(
            source.train_batches(8, epoch=1, seed=2), plain.train_batches(8, epoch=1, seed=2), strict=True
        ),
        "val": zip(source.eval_batches("val", 5), plain.eval_batches("val", 5), strict=True),
    }
    met = 0
    for split, pairs in batches.items():
        for batch, same in pairs:
            assert same.frames.shape == (len(same), 0, 12) and same.frame_known.shape == (len(same), 0)
            assert torch.equal(batch.waveform, same.waveform) and torch.equal(batch.clip, same.clip)
            assert batch.frames.shape == (len(batch), 12, 12) and batch.frame_known.min() == 1  # 0.25 s
            for number, frames in zip(batch.clip.tolist(), batch.frames):
                slow = slow_frames(labels[split][number], tiny.labels.events, 12, 20000)
                assert frames.tolist() == slow
                met += int(frames.sum())
    assert met > 100
    assert source.steps(8) == plain.steps(8) and source.leg(2) == plain.leg(2)


def wave(seconds: float) -> bytes:
    encoded = io.BytesIO()
    soundfile.write(encoded, tone(seconds), 8000, format="WAV", subtype="PCM_16")
    return encoded.getvalue()


def shards_of(root: Path, clips: list[tuple[float, ClipLabels]], space: LabelSpace) -> Index:
    """Training and validation split of the same clips, each (seconds, labels)."""
    root.mkdir()
    splits = {}
    for split in ("train", "val"):
        samples = [
            Sample(f"clip{i}", wave(seconds), "wav", round(8000 * seconds), labels)
            for i, (seconds, labels) in enumerate(clips)
        ]
        splits[split] = write_split(root, split, samples, 8000)
    index = make_index(
        root, splits, corpus="made", sample_rate=8000, channels=1, sample_type="int16", labels=space,
        licence="", citation="",
    )  # fmt: skip
    index.save()
    return Index.load(root)


def clip(*strong: tuple[float, float, str], scene: str | None = "park") -> ClipLabels:
    return ClipLabels(scene, tuple(sorted({name for _, _, name in strong})), strong)


SPACE = LabelSpace(("park",), ("bird", "dog"), frozenset({"ufo"}))


def test_what_is_unknown_and_what_is_ignored(tmp_path: Path) -> None:
    weak = ClipLabels("park", ("dog",))
    strong = clip((0.0, 0.05, "dog"), (0.0, 0.1, "ufo"))
    index = shards_of(tmp_path / "a", [(0.2, weak), (0.1, strong), (0.2, clip())], SPACE)
    (batch,) = open_sources(index.root, cache=None, frames=HOP).eval_batches("val", 4)
    assert batch.frame_known.sum(1).tolist() == [0, 5, 10]  # no onsets; 0.1 s of 0.2 s; silent
    assert batch.frames.sum((1, 2)).tolist() == [0, 3, 0]
    assert batch.frames[1, :, 1].tolist() == [1, 1, 1] + [0] * 7


def test_sets_that_are_mixed_have_their_frames_in_the_joint_columns(tmp_path: Path) -> None:
    lead = shards_of(tmp_path / "a", [(0.2, clip((0.1, 0.2, "bird")))] * 3, SPACE)
    space = LabelSpace((), ("cow", "bird"))
    other = shards_of(
        tmp_path / "b", [(0.3, clip((0.0, 0.3, "cow"), (0.25, 0.3, "bird"), scene=None))] * 2, space
    )
    source = open_sources(lead.root, [f"{other.root}:2"], cache=None, frames=HOP)
    assert source.index.labels.events == ("bird", "dog", "cow")
    (batch,) = source.train_batches(3, epoch=0, seed=0)
    assert batch.frames.shape == (5, 15, 3)
    for part, frames, known in zip(batch.part, batch.frames, batch.frame_known):
        assert frames.sum(0).tolist() == ([5, 0, 0] if part == 0 else [3, 0, 15])
        assert known.sum() == (10 if part == 0 else 15)
    assert [batch.clip.tolist() for batch in source.eval_batches("val", 4)] == [[0, 1, 2], [3, 4]]
    assert [int(batch.frames.sum()) for batch in source.eval_batches("val", 4)] == [15, 36]


def test_shards_that_have_no_frames_are_refused_in_one_line(tmp_path: Path, tagged: Index) -> None:
    weak = shards_of(tmp_path / "a", [(0.1, ClipLabels("park", ("dog",)))], SPACE)
    with pytest.raises(
        ShardError, match=r"this family learns the events.*none of the 1 train clips of .*a has onsets"
    ):
        open_sources(weak.root, cache=None, frames=HOP)
    wrong = shards_of(tmp_path / "b", [(0.1, clip((0.0, 0.1, "cow")))], SPACE)
    with pytest.raises(ShardError, match="clip clip0 of split 'train': event 'cow' is not one"):
        open_sources(wrong.root, cache=None, frames=HOP)
    with pytest.raises(ValueError, match="events 'tags>0.1': this family learns the events of each frame"):
        open_sources(tagged.root, cache=None, events="tags>0.1", frames=HOP)
    with pytest.raises(ValueError, match="1e-05 s are shorter than a sample at 8000 Hz"):
        open_sources(tagged.root, cache=None, frames=Fraction(1, 100000))
