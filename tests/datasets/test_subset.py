from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from datasets import subset
from datasets.cache import open_cached
from datasets.inspect import contents, report
from datasets.labels import LabelSpace
from datasets.shards import ClipLabels, Index, ShardError, read_labels, read_members
from datasets.source import StreamSource, open_source

EVENTS = ("Speech", "Vehicle", "Music", "Railroad car, train wagon", "Train", "Train horn")


def test_random_classes_follow_the_seed_and_are_nested() -> None:
    few, many = (subset.random_events(EVENTS, k, seed=3) for k in (2, 4))
    assert few == subset.random_events(EVENTS, 2, seed=3) and len(few) == 2 and set(few) < set(many)
    assert {subset.random_events(EVENTS, 2, seed=s) for s in range(20)} != {few}
    assert subset.random_events(EVENTS, 6, seed=1) == EVENTS  # all, in their order


def test_ranked_classes_with_ties_to_the_first() -> None:
    scores = np.array([0.1, 0.7, 0.7, 0.7, 0.0, 0.1])
    assert subset.ranked_events(EVENTS, scores, 2) == ("Vehicle", "Music")
    assert subset.ranked_events(EVENTS, scores, 2, largest=False) == ("Speech", "Train")


@given(st.integers(1, 30), st.integers(1, 8), st.data())
def test_ranking_is_the_slow_loop(clips: int, classes: int, data: st.DataObject) -> None:
    values = data.draw(st.lists(st.integers(0, 3), min_size=clips * classes, max_size=clips * classes))
    count = data.draw(st.integers(1, classes))
    probabilities = np.array(values, dtype=np.float32).reshape(clips, classes) / 4
    totals = [sum(float(row[j]) for row in probabilities) for j in range(classes)]
    names = [f"e{j}" for j in range(classes)]
    best: list[int] = []
    for _ in range(count):
        rest = [j for j in range(classes) if j not in best]
        best.append(max(rest, key=lambda j: (totals[j], -j)))
    assert subset.ranked_events(names, probabilities, count) == tuple(names[j] for j in sorted(best))


@given(st.lists(st.integers(1, 40), min_size=1, max_size=60), st.integers(0, 5), st.data())
def test_drawn_hours_are_nested_and_no_longer_than_needed(
    lengths: list[int], seed: int, data: st.DataObject
) -> None:
    seconds = np.array(lengths, dtype=float)
    among = np.array(data.draw(st.lists(st.booleans(), min_size=len(lengths), max_size=len(lengths))))
    among[0] = True
    there = int(seconds[among].sum())
    short, long = sorted(data.draw(st.tuples(st.integers(1, there), st.integers(1, there))))
    few, many = (subset.drawn_hours(seconds, s / 3600, seed, among) for s in (short, long))
    assert set(few) <= set(many) and among[many].all() and list(few) == sorted(set(few))
    assert seconds[few].sum() >= short > seconds[few].sum() - 40


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: subset.random_events(EVENTS, 7, 0), "7 events: the shard set has 6, expected 1 to 6"),
        (lambda: subset.random_events(EVENTS, 0, 0), "expected 1 to 6"),
        (
            lambda: subset.named_events(EVENTS, ["Trian"]),
            "event 'Trian' is not one of the 6 known; near: Train",
        ),
        (lambda: subset.named_events(EVENTS, ["railroad"]), "near: Railroad car, train wagon"),
        (lambda: subset.named_events(EVENTS, ["qqqqq"]), "the first are: Speech; Vehicle"),
        (lambda: subset.named_events(EVENTS, ["Train", "Train"]), "'Train' is named twice"),
        (lambda: subset.named_events(EVENTS, []), "no event is named"),
        (lambda: subset.ranked_events(EVENTS, np.zeros(5), 2), r"scores of shape \(5,\): expected \(6,\) or"),
        (lambda: subset.ranked_events(EVENTS, np.full(6, np.nan), 2), "finite"),
        (lambda: subset.drawn_hours(np.full(9, 10.0), 1.0, 0), "1 hours: there are 0.025 hours"),
        (lambda: subset.drawn_hours(np.full(9, 10.0), 0.0, 0), "0 hours: expected more than 0"),
        (lambda: subset.drawn_hours(np.full(9, 10.0), float("nan"), 0), "nan hours: expected more than 0"),
    ],
)
def test_what_can_not_be_chosen_is_refused(call, message: str) -> None:
    with pytest.raises(ValueError, match=message) as error:
        call()
    assert "\n" not in str(error.value)


def test_events_without_a_column_are_passed_over_and_unknown_ones_still_refused(tiny: Index) -> None:
    names = (tiny.labels.events[4], tiny.labels.events[1])
    narrow = subset.with_events(tiny, names)
    assert narrow.labels.events == names and narrow.checksum != tiny.checksum
    whole = StreamSource(tiny).eval_batches("val", 100)
    for batch, full in zip(StreamSource(narrow).eval_batches("val", 100), whole, strict=True):
        assert torch.equal(batch.events, full.events[:, [4, 1]]) and (batch.event_known == 1).all()
    with pytest.raises(ValueError, match="event 'nonsense' is not one of"):
        narrow.labels.event_vector(["nonsense"])
    again = subset.with_events(narrow, names[:1])
    assert again.labels.ignored == set(tiny.labels.events) - {names[0]}
    with pytest.raises(ValueError, match="both a label and ignored"):
        LabelSpace((), ("a",), frozenset("a"))


def kept_numbers(tiny: Index) -> np.ndarray:
    return np.array([0, 1, 2, 5, 8, 9, 20, 41, 42])


def test_fewer_clips_are_streamed_and_cached_from_the_shards_they_lie_in(tiny: Index, tmp_path: Path) -> None:
    numbers = kept_numbers(tiny)
    few = subset.with_clips(tiny, "train", numbers)
    assert few.splits["train"].clips == 9 and few.splits["val"] is tiny.splits["val"]
    (expected,) = StreamSource(tiny).eval_batches("train", 100)
    (found,) = StreamSource(few).eval_batches("train", 100)
    assert torch.equal(found.waveform, expected.waveform[torch.from_numpy(numbers)])
    assert torch.equal(found.events, expected.events[torch.from_numpy(numbers)])
    assert torch.equal(open_cached(few, "train", tmp_path).scene, found.scene)
    for world in (1, 2):
        batches = [
            b
            for r in range(world)
            for b in StreamSource(few, 2).train_batches(4, epoch=0, seed=0, rank=r, world=world)
        ]
        assert sorted(torch.cat([b.clip for b in batches]).tolist()) == list(range(9))


def test_the_same_operations_give_the_same_checksum(tiny: Index) -> None:
    def make(**change: object) -> str:
        options = {"events": tiny.labels.events[:3], "hours": 0.001, "seed": 4} | change
        return subset.subset(tiny, **options).checksum  # type: ignore[arg-type]

    assert make() == make()
    changes = ({"seed": 5}, {"hours": 0.002}, {"events": tiny.labels.events[:2]}, {"keep_others": True})
    assert len({make(), *(make(**change) for change in changes)}) == 5


def test_only_clips_that_hold_a_class_are_kept_unless_asked(tiny: Index) -> None:
    event = tiny.labels.events[2]
    few = subset.subset(tiny, [event], None, seed=0)
    for split in tiny.splits:
        count = sum(event in (labels.events or ()) for labels in read_labels(tiny, split))
        assert few.splits[split].clips == count
        assert all(event in (labels.events or ()) for labels in read_labels(few, split))
    assert subset.subset(tiny, [event], None, seed=0, keep_others=True).splits == tiny.splits
    assert subset.holding(
        [ClipLabels(), ClipLabels(None, ("a", "b")), ClipLabels(None, ())], ["b"]
    ).tolist() == [
        False,
        True,
        False,
    ]


def test_a_written_subset_has_the_same_bytes_and_is_a_shard_set(tiny: Index, tmp_path: Path) -> None:
    few = subset.with_events(subset.with_clips(tiny, "train", kept_numbers(tiny)), tiny.labels.events[:3])
    subset.write(few, tmp_path / "a"), subset.write(few, tmp_path / "b")
    written, again = Index.load(tmp_path / "a"), Index.load(tmp_path / "b")
    assert written.checksum == again.checksum != tiny.checksum
    assert written.labels == few.labels and written.samples == tiny.samples
    assert {n: s.clips for n, s in written.splits.items()} == {"train": 9, "val": 17, "test": 10}
    for place, number in enumerate(kept_numbers(tiny)):
        assert read_members(written, "train", place) == read_members(tiny, "train", int(number))
    source = open_source(tmp_path / "a", cache=tmp_path / "cache")
    (cached,), (streamed,) = source.eval_batches("train", 99), StreamSource(few).eval_batches("train", 99)
    assert torch.equal(cached.waveform, streamed.waveform) and torch.equal(cached.events, streamed.events)
    with pytest.raises(FileExistsError):
        subset.write(few, tmp_path / "a")


def test_a_clip_that_is_not_where_the_index_says_is_refused(tiny: Index, tmp_path: Path) -> None:
    first, second = tiny.splits["train"].shards[0].clips[:2]
    wrong = subset.with_clips(tiny, "train", np.array([0]))
    shard = wrong.splits["train"].shards[0]
    moved = type(first)(first.key, second.offset, second.size, first.samples)
    object.__setattr__(shard, "clips", (moved,))
    with pytest.raises(ShardError, match=f"{shard.name}: expected clip {first.key} .* found {second.key}"):
        subset.write(wrong, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def run(*words: object) -> int:
    return subset.main([str(word) for word in words])


def test_the_command(tiny: Index, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    scores = tmp_path / "scores.npy"
    np.save(scores, np.arange(12.0)[::-1])
    hours = ("--hours", 0.001, "--seed", 3)
    assert (
        run(
            tiny.root, "--events", 3, "--choose", "least", "--scores", scores, *hours, "--out", tmp_path / "a"
        )
        == 0
    )
    assert "events  12 -> 3" in capsys.readouterr().out
    made = Index.load(tmp_path / "a")
    assert made.labels.events == tiny.labels.events[-3:]
    assert 0.001 <= made.splits["train"].hours < 0.0011
    names = tmp_path / "names.txt"
    names.write_text("\n".join([tiny.labels.events[5], "", tiny.labels.events[0]]))
    assert run(tiny.root, "--names-from", names, "--out", tmp_path / "b") == 0
    assert Index.load(tmp_path / "b").labels.events == (tiny.labels.events[0], tiny.labels.events[5])
    assert run(tiny.root, "--events", 2, "--choose", "top", "--keep-others", "--out", tmp_path / "c") == 0
    totals = subset.label_scores(read_labels(tiny, "train"), tiny.labels)
    assert Index.load(tmp_path / "c").labels.events == subset.ranked_events(tiny.labels.events, totals, 2)
    assert Index.load(tmp_path / "c").splits["train"].clips == 43


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((), "nothing to leave out: give --events, --names, --hours or --only"),
        (("--events", 99), "99 events: the shard set has 12"),
        (("--events", 3, "--choose", "most"), "--choose most needs --scores"),
        (("--events", 3, "--names", "x"), "--events 3 and names: give one of them"),
        (("--names", "x", "--choose", "top"), "--choose top and names: give one of them"),
        (("--names", "x"), "event 'x' is not one of the 12 known"),
        (("--hours", 9), "9 hours: there are 0.003 hours"),
        (("--events", 3, "--choose", "top", "--scores", "/nowhere.npy"), "/nowhere.npy"),
        (("--events", 3, "--choose", "most", "--scores", "/nowhere"), "/nowhere: no such folder"),
        (("--events", 3, "--scores", "x.npy"), "--scores needs --events and --choose"),
        (("--choose", "least", "--hours", 0.001), "--choose least needs --events"),
        (("--events", 3, "--seed", -4), "--seed -4: expected 0 or more"),
        (("--names-from", "/no/such"), "/no/such: no such file"),
    ],
)
def test_nonsense_is_one_line(
    tiny: Index, tmp_path: Path, capsys: pytest.CaptureFixture, words: tuple, message: str
) -> None:
    assert run(tiny.root, *words, "--out", tmp_path / "out") == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1 and not (tmp_path / "out").exists()


@pytest.mark.parametrize("below", ["file", "file/deep/er"])
def test_a_file_is_no_place_for_a_shard_set(
    tiny: Index, tmp_path: Path, capsys: pytest.CaptureFixture, below: str
) -> None:
    (tmp_path / "file").write_text("mine")
    assert run(tiny.root, "--only", "scenes", "--out", tmp_path / below / "out") == 2
    error = capsys.readouterr().err
    assert f"{tmp_path / 'file'} is a file, not a folder" in error
    assert error.count("\n") == 1


def test_scores_that_hold_objects_are_refused(
    tiny: Index, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    np.save(tmp_path / "scores.npy", np.array([{}], dtype=object), allow_pickle=True)
    words = ("--events", 3, "--choose", "most", "--scores", tmp_path / "scores.npy", "--out", tmp_path / "o")
    assert run(tiny.root, *words) == 2
    assert "not a .npy file of numbers" in capsys.readouterr().err


def test_a_teachers_tags_of_another_shard_set_choose_the_classes(tagged: Index, tmp_path: Path) -> None:
    """By name, whatever the order of the tags; the uncorrelated ones are those with the least."""
    names = ("tag 3", "tag 0", "tag 4", "tag 1")
    scores = subset.tag_scores(tagged, names)
    slow = dict.fromkeys(names, 0.0)
    for batch in StreamSource(tagged).eval_batches("train", 7):
        for clip in batch.tags.tolist():
            for name in names:
                slow[name] += clip[int(name[-1])]
    assert scores.tolist() == pytest.approx(list(slow.values()))
    with pytest.raises(ValueError, match="its 5 tags have none for the event 'bell'"):
        subset.tag_scores(tagged, ("tag 1", "bell"))


def test_one_kind_of_labels_is_kept_and_the_other_passed_over(tiny: Index, tmp_path: Path) -> None:
    whole = list(StreamSource(tiny).eval_batches("val", 100))[0]
    scenes = subset.write(subset.subset(tiny, None, None, seed=0, only="scenes"), tmp_path / "scenes")
    events = subset.write(subset.subset(tiny, None, None, seed=0, only="events"), tmp_path / "events")
    assert len({scenes.checksum, events.checksum, tiny.checksum}) == 3
    assert (scenes.labels.events, events.labels.scenes) == ((), ())
    for open_it in (StreamSource, lambda index: open_source(index.root, cache=tmp_path / "cache")):
        (one,) = open_it(Index.load(scenes.root)).eval_batches("val", 100)
        (other,) = open_it(Index.load(events.root)).eval_batches("val", 100)
        assert torch.equal(one.scene, whole.scene) and one.events.shape == (17, 0)
        assert torch.equal(other.events, whole.events) and other.scene.shape == (17, 0)
    for index in (scenes, events):
        found = {split: contents(index, split) for split in index.splits}
        assert found["val"].clips == 17 and report(index, found)
    with pytest.raises(ValueError, match="only scenes: this shard set has no scenes"):
        subset.subset(events, None, None, seed=0, only="scenes")


def test_clips_without_the_kept_label_are_left_out(tiny: Index, tmp_path: Path) -> None:
    chosen = subset.subset(tiny, tiny.labels.events[:2], None, seed=0, only="events")
    expected = subset.subset(tiny, tiny.labels.events[:2], None, seed=0)
    assert chosen.splits["train"].clips == expected.splits["train"].clips
    assert contents(chosen, "train").events.tolist() == contents(expected, "train").events.tolist()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--only", "scenes", "--events", "2"], "--only scenes leaves no event classes to choose"),
        ([], "nothing to leave out: give --events, --names, --hours or --only"),
    ],
)
def test_what_the_command_refuses_of_kinds(
    options: list[str], message: str, tiny: Index, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert subset.main([str(tiny.root), "--out", str(tmp_path / "out"), *options]) == 2
    assert message in capsys.readouterr().err
