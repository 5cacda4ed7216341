import shutil
from itertools import combinations
from pathlib import Path

import matplotlib.image
import numpy as np
import pytest

from datasets import inspect
from datasets.labels import LabelSpace
from datasets.picture import occurrences, percent, relation
from datasets.shard_writer import Sample, write_split
from datasets.shards import ClipLabels, Index, make_index, read_labels


def test_counts_against_a_slow_loop(tiny: Index) -> None:
    found = inspect.contents(tiny, "train")
    labels = list(read_labels(tiny, "train"))
    for i, scene in enumerate(tiny.labels.scenes):
        assert found.scenes[i] == sum(clip.scene == scene for clip in labels)
        for j, event in enumerate(tiny.labels.events):
            here = [clip for clip in labels if event in (clip.events or ())]
            assert found.events[j] == len(here)
            assert found.together[i, j] == sum(clip.scene == scene for clip in here)
    assert found.clips == found.strong == 43 and found.unknown_events == found.unknown_scene == 0
    assert found.no_event == sum(clip.events == () for clip in labels)


def test_text(tiny: Index, capsys: pytest.CaptureFixture[str]) -> None:
    assert inspect.main([str(tiny.root)]) == 0
    text = capsys.readouterr().out
    for part in (
        tiny.checksum,
        "8000 Hz, 1 channel(s), int16, clips up to 0.25 s",
        "harbour",
        "announcement",
    ):
        assert part in text
    assert max(map(len, text.splitlines())) < 120


def test_wrong_folder_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert inspect.main([str(tmp_path)]) == 2
    assert capsys.readouterr().err == (
        f"error: {tmp_path}: no index.json; an empty folder or an unfinished preparation, not a shard set\n"
    )


def build(folder: Path, labels: list[ClipLabels], space: LabelSpace) -> Index:
    """A shard set whose audio nobody looks at."""
    folder.mkdir()
    samples = (Sample(f"k{n}", b"x", "wav", 8, found) for n, found in enumerate(labels))
    index = make_index(
        folder,
        {"train": write_split(folder, "train", samples, 8)},
        corpus="made",
        sample_rate=8,
        channels=1,
        sample_type="int16",
        labels=space,
        licence="",
        citation="",
    )
    index.save()
    return Index.load(folder)


def test_pairs_and_probabilities_against_a_slow_loop(tiny: Index) -> None:
    found = inspect.contents(tiny, "train")
    labels = list(read_labels(tiny, "train"))
    for a, b in combinations(range(len(tiny.labels.events)), 2):
        both = {tiny.labels.events[a], tiny.labels.events[b]}
        assert found.pairs.get((a, b), 0) == sum(both <= set(clip.events or ()) for clip in labels)
    for i, scene in enumerate(tiny.labels.scenes):
        here = [clip.events or () for clip in labels if clip.scene == scene]
        for j, event in enumerate(tiny.labels.events):
            share = sum(event in names for names in here) / max(len(here), 1)
            assert found.given_scene()[i, j] == pytest.approx(share)


def test_instances_of_events_in_each_scene_against_a_slow_loop(
    tiny: Index, capsys: pytest.CaptureFixture[str]
) -> None:
    found = inspect.contents(tiny, "train")
    labels = list(read_labels(tiny, "train"))
    for i, scene in enumerate(tiny.labels.scenes):
        spans = [span for clip in labels if clip.scene == scene for span in clip.strong or ()]
        for j, event in enumerate(tiny.labels.events):
            assert found.instances[i, j] == sum(name == event for _, _, name in spans)
    assert (found.instances >= found.together).all() and found.instances.sum() > found.together.sum()
    assert inspect.main([str(tiny.root)]) == 0
    row = "".join(f"{count:6}" for count in found.instances[:, 0])
    assert f"instances of an event (train); columns are scenes in the order above\n  bird{' ' * 20}{row}" in (
        capsys.readouterr().out
    )


def test_the_picture_of_instances_counts_all_splits(
    tiny: Index, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Fig. 1 of Imoto et al. 2022."""
    found = {split: inspect.contents(tiny, split) for split in tiny.splits}
    shown = occurrences(tiny.labels, found, tiny.corpus)
    for row, event in enumerate(shown.events):
        for column, scene in enumerate(shown.scenes):
            slow = sum(
                name == event
                for split in tiny.splits
                for clip in read_labels(tiny, split)
                for _, _, name in clip.strong or ()
                if clip.scene == scene
            )
            assert shown.share[row, column] == slow
    sums = shown.share.sum(axis=1)
    assert sorted(sums, reverse=True) == list(sums) and set(shown.events) == set(tiny.labels.events)
    picture = tmp_path / "fig1.png"
    assert inspect.main([str(tiny.root), "--picture", str(picture), "--instances"]) == 0
    assert f"{picture}: instances of events in the clips of a scene" in capsys.readouterr().out
    assert matplotlib.image.imread(picture).shape[0] > 100
    assert inspect.main([str(tiny.root), "--instances"]) == 2
    assert "give --picture FILE.png too" in capsys.readouterr().err


def test_a_set_without_onsets_has_no_instances_to_draw(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    index = build(tmp_path / "a", [ClipLabels("park", ("bird",))], LabelSpace(("park",), ("bird",)))
    asked = [str(index.root), "--picture", str(tmp_path / "p.png"), "--instances"]
    assert inspect.main(asked) == 2
    assert "no scenes with timed events" in capsys.readouterr().err


def test_clips_with_unknown_events_have_no_say_in_the_probabilities(tmp_path: Path) -> None:
    known, unknown = ClipLabels("park", ("bird",)), ClipLabels("park", None)
    index = build(
        tmp_path / "a", [known, unknown, ClipLabels("park", ())], LabelSpace(("park", "tram"), ("bird",))
    )
    found = inspect.contents(index, "train")
    assert found.scenes.tolist() == [3, 0] and found.given_scene().tolist() == [[0.5], [0.0]]


def test_a_label_that_the_index_does_not_have(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    index = build(tmp_path / "a", [ClipLabels("park", ("ufo",))], LabelSpace(("park",), ("bird",)))
    assert inspect.main([str(index.root)]) == 2
    assert "split 'train' has the event 'ufo', the index does not" in capsys.readouterr().err


def test_a_set_without_scenes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    labels = [ClipLabels(events=("bird", "dog")), ClipLabels(events=("bird",)), ClipLabels()]
    index = build(tmp_path / "a", labels, LabelSpace((), ("dog", "bird")))
    picture = tmp_path / "p.png"
    assert inspect.main([str(index.root), "--picture", str(picture)]) == 0
    text = capsys.readouterr().out
    assert "no scenes: nothing to say" in text and "       1  dog + bird" in text
    shown = relation(index.labels, inspect.contents(index, "train"), "train", "made")
    assert shown.scenes == ("all clips",) and shown.events == ("bird", "dog")
    assert shown.share.tolist() == [[1.0], [0.5]]
    assert matplotlib.image.imread(picture).shape[0] > 100


def test_of_many_events_those_with_the_most_accumulated_probability_are_shown(tmp_path: Path) -> None:
    """Not those with the most clips: a scene with few clips counts as one with many does. Ties by class."""
    space = LabelSpace(("big", "small"), ("often", "rare", "tie b", "tie a", "never"))
    labels = [
        ClipLabels("big", ("often",) if n < 4 else ("tie a", "tie b") if n < 6 else ()) for n in range(8)
    ]
    labels += [ClipLabels("small", ("rare",)), ClipLabels("small", ("rare",))]
    index = build(tmp_path / "a", labels, space)
    shown = relation(space, inspect.contents(index, "train"), "train", "made", most=3)
    assert shown.events == ("rare", "often", "tie b")
    assert shown.share.tolist() == [[0.0, 1.0], [0.5, 0.0], [0.25, 0.0]]
    assert "the 3 of 5 events with the highest probability accumulated over scenes" in shown.title
    assert shown.title.endswith("the others add 12 % of it")


@pytest.mark.parametrize(("events", "rows"), [(32, 32), (527, 50)])
def test_the_picture_of_ten_scenes(tmp_path: Path, events: int, rows: int) -> None:
    space = LabelSpace(tuple(f"scene {i}" for i in range(10)), tuple(f"event {j}" for j in range(events)))
    rng = np.random.default_rng(0)
    labels = [
        ClipLabels(f"scene {n % 10}", tuple({f"event {j}" for j in rng.integers(0, events, 5)}))
        for n in range(60)
    ]
    index = build(tmp_path / "a", labels, space)
    picture = tmp_path / "p.png"
    assert inspect.main([str(index.root), "--picture", str(picture)]) == 0
    height, width = matplotlib.image.imread(picture).shape[:2]
    assert height / rows >= 30 and width >= 800  # pixels a row at 130 dpi: room for 9 pt


def test_numbers_in_the_cells() -> None:
    assert [percent(value, 0.5) for value in (0, 0.004, 0.006, 0.5)] == ["0", "<1", "1", "50"]
    assert [percent(value, 0.07) for value in (0, 0.0004, 0.07)] == ["0.0", "<0.1", "7.0"]


def test_verify_finds_a_changed_byte(tiny: Index, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shards = tmp_path / "shards"
    shutil.copytree(tiny.root, shards)
    assert inspect.main([str(shards), "--verify"]) == 0
    size = sum(shard.bytes for split in tiny.splits.values() for shard in split.shards)
    assert (
        f"verified: all {size} bytes of the shards have the SHA-256 of the index" in capsys.readouterr().out
    )
    path = shards / tiny.splits["val"].shards[0].name
    data = bytearray(path.read_bytes())
    data[1600] ^= 1
    path.write_bytes(data)
    assert inspect.main([str(shards), "--verify"]) == 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert line.startswith(f"error: {path}: SHA-256 ") and "not the shard that was prepared" in line


@pytest.mark.parametrize("change", ["truncated", "missing"])
def test_an_index_that_does_not_match_its_tars(
    tiny: Index, tmp_path: Path, capsys: pytest.CaptureFixture[str], change: str
) -> None:
    shards = tmp_path / "shards"
    shutil.copytree(tiny.root, shards)
    path = shards / tiny.splits["train"].shards[1].name
    if change == "missing":
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[:-512])
    assert inspect.main([str(shards)]) == 2
    assert f"error: {path}: {change}" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("picture", "message"),
    [("p.gif", "accepted are .png, .pdf, .svg"), ("nowhere/p.png", "no folder")],
)
def test_a_picture_that_can_not_be_written_is_refused_before_the_work(
    tiny: Index, tmp_path: Path, capsys: pytest.CaptureFixture[str], picture: str, message: str
) -> None:
    assert inspect.main([str(tiny.root), "--picture", str(tmp_path / picture)]) == 2
    printed = capsys.readouterr()
    assert message in printed.err and printed.out == ""


def test_a_set_without_events_has_no_picture_which_is_said_before_the_work(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    index = build(tmp_path / "a", [ClipLabels("park")], LabelSpace(("park",), ()))
    assert inspect.main([str(index.root), "--picture", str(tmp_path / "p.png")]) == 2
    printed = capsys.readouterr()
    assert "the set has no event labels" in printed.err and printed.out == ""


def test_a_full_disk_leaves_no_half_picture(
    tiny: Index, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    picture = tmp_path / "p.png"
    picture.symlink_to("/dev/full")
    assert inspect.main([str(tiny.root), "--picture", str(picture)]) == 2
    assert capsys.readouterr().err == f"error: {picture}: no space left on device\n"
    assert not picture.is_symlink()
