"""JSSED's generic form, and the corpus that jssed-recipe makes."""

import hashlib
import json
import re
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import soundfile
from sounds import tone

from datasets import prepare
from datasets.convert import Conversion
from datasets.corpora import Corpus, read_jssed
from datasets.corpora.jssed import EVENTS, SCENES, spelling
from datasets.jssed_recipe import RELATIONS, Recipe, _counts, extend
from datasets.shards import Index, read_labels


@pytest.fixture
def jssed(tmp_path: Path) -> Path:
    """30 clips of each scene, without splits and locations."""
    root = tmp_path / "jssed"
    (root / "audio").mkdir(parents=True)
    clips, events = ["filename\tscene_label"], ["filename\tonset\toffset\tevent_label"]
    soundfile.write(root / "audio/0.wav", tone(0.2), 8000)
    for number in range(300):
        file = f"audio/{number}.wav"
        (root / file).write_bytes((root / "audio/0.wav").read_bytes())
        clips.append(f"{file}\t{SCENES[number % 10]}")
        if number % 3:
            events.append(f"{file}\t0.01\t0.1\t{('bus-passby', 'key_lock', 'slidingDoorclose')[number % 3]}")
    write(root / "scenes.tsv", clips)
    write(root / "events_strong.tsv", events)
    return root


def write(path: Path, lines: list[str]) -> None:
    path.write_text("\n".join(lines) + "\n")


def add_column(path: Path, name: str, values: list[str]) -> None:
    lines = path.read_text().splitlines()
    write(path, [f"{line}\t{value}" for line, value in zip(lines, [name, *values])])


def files(corpus: Corpus, split: str) -> list[str]:
    return [r.file for r in corpus.splits[split]]


def places(corpus: Corpus, split: str) -> set[str | None]:
    return {recording.labels.location for recording in corpus.splits[split]}


def test_names_are_told_apart_without_hyphens_underscores_and_capitals(jssed: Path) -> None:
    corpus = read_jssed(jssed)
    assert corpus.labels.scenes == SCENES and corpus.labels.events == EVENTS and len(EVENTS) == 32
    found = {name for part in corpus.splits.values() for r in part for name in r.labels.events or ()}
    assert found == {"keylock", "slidingdoorclose"}
    for row in RELATIONS.values():
        assert set(row) <= set(EVENTS)
    assert len({spelling(name) for name in EVENTS}) == 32
    assert spelling("Bus Pass-by") == spelling("bus_passby") == "buspassby"


def test_a_clip_without_a_line_holds_no_event(jssed: Path) -> None:
    labels = {r.file: r.labels for part in read_jssed(jssed).splits.values() for r in part}
    assert labels["audio/0.wav"].events == () and labels["audio/0.wav"].strong == ()
    assert labels["audio/1.wav"].strong == ((0.01, 0.1, "keylock"),)


def test_without_splits_eight_to_one_to_one_of_every_scene_are_drawn(jssed: Path) -> None:
    corpus = read_jssed(jssed)
    assert [len(files(corpus, split)) for split in ("train", "val", "test")] == [240, 30, 30]
    for split, count in (("train", 24), ("val", 3), ("test", 3)):
        assert set(Counter(r.labels.scene for r in corpus.splits[split]).values()) == {count}
    assert "splits drawn by scene with seed 2019: 240 / 30 / 30" in corpus.notes[0]
    assert "the list tells no locations" in corpus.notes[0]
    lines = (jssed / "scenes.tsv").read_text().splitlines()
    write(jssed / "scenes.tsv", [lines[0], *lines[:0:-1]])  # the order of the list has no say
    again = read_jssed(jssed)
    assert {s: set(files(again, s)) for s in again.splits} == {
        s: set(files(corpus, s)) for s in corpus.splits
    }


def test_told_locations_are_not_shared_and_give_the_same_sizes(jssed: Path) -> None:
    add_column(jssed / "scenes.tsv", "location", [f"{n % 10}-{n // 10 % 10}" for n in range(300)])
    corpus = read_jssed(jssed)
    assert [len(files(corpus, split)) for split in ("train", "val", "test")] == [240, 30, 30]
    sides = [places(corpus, split) for split in ("train", "val", "test")]
    assert not sides[0] & sides[1] and not (sides[0] | sides[1]) & sides[2]


def test_given_splits_are_taken_and_a_hold_out_replaces_only_the_val_clips(jssed: Path) -> None:
    add_column(jssed / "scenes.tsv", "split", ["train"] * 200 + ["val"] * 50 + ["test"] * 50)
    corpus = read_jssed(jssed)
    assert [len(files(corpus, split)) for split in ("train", "val", "test")] == [200, 50, 50]
    random = read_jssed(jssed, validation="random", validation_fraction=0.2)
    assert files(random, "test") == files(corpus, "test") and len(files(random, "val")) == 50
    assert set(files(random, "val")) != set(files(corpus, "val"))


@pytest.mark.parametrize(
    ("file", "old", "new", "message"),
    [
        ("scenes.tsv", "\toffice\n", "\tspaceship\n", "'spaceship' is not one of bus, busystreet"),
        ("events_strong.tsv", "key_lock", "lightsabre", "'lightsabre' is not one of JSSED's classes"),
        ("scenes.tsv", "audio/7.wav", "audio/x.wav", "audio/x.wav is not in"),
        ("scenes.tsv", "scene_label", "scene", "expected the header 'filename\\tscene_label'"),
    ],
)
def test_bad_input_is_one_clear_line(jssed: Path, file: str, old: str, new: str, message: str) -> None:
    text = (jssed / file).read_text()
    assert old in text
    (jssed / file).write_text(text.replace(old, new, 1))
    with pytest.raises((ValueError, OSError)) as error:
        read_jssed(jssed)
    assert message in str(error.value) and "\n" not in str(error.value)


def test_backwards_events_and_repeated_lines_are_counted(jssed: Path) -> None:
    with open(jssed / "scenes.tsv", "a") as file:
        file.write("audio/0.wav\tbus\n")
    with open(jssed / "events_strong.tsv", "a") as file:
        file.write("audio/0.wav\t2\t2\tspeech\n")
    notes = read_jssed(jssed).notes
    assert any(note.startswith("1 events left out: the onset is negative or not before") for note in notes)
    assert "scenes.tsv: 1 lines are about a file that is listed before" in notes


def test_some_splits_are_not_enough(jssed: Path) -> None:
    add_column(jssed / "scenes.tsv", "split", ["train"] * 299 + [""])
    with pytest.raises(ValueError, match=r"audio/299.wav has no split \(1 of 300\); give all or none"):
        read_jssed(jssed)


# The recipe


@pytest.fixture
def sources(tmp_path: Path) -> Path:
    """Three scenes with 10, 4 and 2 backgrounds, four events with 5 sounds each; two rates, mono, stereo."""
    root = tmp_path / "mine"
    rng = np.random.default_rng(0)
    for scene, count in (("bus", 10), ("park", 4), ("cellar", 2)):
        (root / "backgrounds" / scene).mkdir(parents=True)
        for number in range(count):
            seconds = (0.7, 3.0)[number % 2]
            sound = rng.normal(0, 0.02, (round(8000 * seconds), 2))
            soundfile.write(root / f"backgrounds/{scene}/{number}.wav", sound, 8000, subtype="PCM_24")
    for e, event in enumerate(("cough", "speech", "gate", "dripping")):
        (root / "events" / event).mkdir(parents=True)
        for number in range(5):
            sound = tone(0.1 + 0.1 * e, 16000, pitch=500.0 + 100 * e + 10 * number)
            soundfile.write(root / f"events/{event}/{number}.flac", sound, 16000)
    return root


SMALL = ["--clips", "30", "--seconds", "2", "--rate", "8000"]


def mix(sources: Path, out: Path, *more: str) -> int:
    folders = ["--backgrounds", str(sources / "backgrounds"), "--events", str(sources / "events")]
    return prepare.main(["jssed-recipe", *folders, "--out", str(out), *SMALL, *more])


def content(folder: Path) -> dict[str, str]:
    found = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in found}


def test_the_same_sources_give_the_same_bytes_whatever_the_jobs(sources: Path, tmp_path: Path) -> None:
    assert mix(sources, tmp_path / "a", "--jobs", "1") == 0
    assert mix(sources, tmp_path / "b", "--jobs", "3") == 0
    assert mix(sources, tmp_path / "c", "--seed", "1") == 0
    a, b, c = (content(tmp_path / name) for name in "abc")
    assert a == b and len(a) == 34
    assert not {a[name] for name in a if name.startswith("audio")} & set(c.values())


def test_sources_of_the_splits_are_disjoint_where_there_are_enough(
    sources: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert mix(sources, tmp_path / "out") == 0
    printed = capsys.readouterr().out
    assert "24 / 3 / 3 clips (train / val / test), 3 scenes, 4 events" in printed
    assert "fewer than three recordings of cellar, which all splits share" in printed
    assert "events: no recording is in two splits" in printed
    clips = json.loads((tmp_path / "out/recipe.json").read_text())["clips"]
    for kind in ("backgrounds", "events"):
        used: dict[str, set[str]] = {"train": set(), "val": set(), "test": set()}
        for clip in clips:
            names = [clip["background"]] if kind == "backgrounds" else [e["file"] for e in clip["events"]]
            used[clip["split"]] |= {name for name in names if not name.startswith("cellar/")}
        assert not used["train"] & used["val"] and not (used["train"] | used["val"]) & used["test"]
    assert Counter(clip["scene"] for clip in clips) == {"bus": 10, "cellar": 10, "park": 10}


def test_known_scenes_get_jssed_s_events_and_others_any(sources: Path, tmp_path: Path) -> None:
    assert mix(sources, tmp_path / "out", "--events-per-clip", "3", "6") == 0
    found: dict[str, set[str]] = {}
    for clip in json.loads((tmp_path / "out/recipe.json").read_text())["clips"]:
        assert 3 <= len(clip["events"]) <= 6
        found.setdefault(clip["scene"], set()).update(event["label"] for event in clip["events"])
    assert found["bus"] == {"cough", "speech"} and found["park"] == {"speech", "gate"}
    assert found["cellar"] == {"cough", "speech", "gate", "dripping"}
    table = tmp_path / "relations.tsv"
    write(table, ["scene_label\tevent_label", "bus\tgate", "park\tcough", "cellar\tdripping"])
    assert mix(sources, tmp_path / "again", "--relations", str(table)) == 0
    clips = json.loads((tmp_path / "again/recipe.json").read_text())["clips"]
    assert {event["label"] for clip in clips if clip["scene"] == "bus" for event in clip["events"]} == {
        "gate"
    }


def test_each_event_has_the_ratio_that_the_recipe_says(sources: Path, tmp_path: Path) -> None:
    """Taken apart again: the mixture minus the background is the events, at their ratios."""
    out = tmp_path / "out"
    assert mix(sources, out, "--events-per-clip", "1", "1") == 0
    ratios = []
    for clip in json.loads((out / "recipe.json").read_text())["clips"]:
        mixture, rate = soundfile.read(out / clip["file"])
        assert rate == 8000 and len(mixture) == 16000
        (event,) = clip["events"]
        conversion = Conversion(8000, "mono")
        sound = conversion.apply(*soundfile.read(sources / "events" / event["file"], always_2d=True))[:, 0]
        background = conversion.apply(
            *soundfile.read(sources / "backgrounds" / clip["background"], always_2d=True)
        )
        background = extend(background[round(clip["start"] * 8000) :], 16000, 400)[:, 0]
        at = round(event["onset"] * 8000)
        added = (mixture - background)[at : at + len(sound)]
        ratio = 10 * np.log10(np.mean(added**2) / np.mean(background**2))
        assert abs(ratio - event["snr_db"]) < 0.05
        ratios.append(event["snr_db"])
    assert -15 <= min(ratios) < -10 and 10 < max(ratios) <= 15


def test_short_backgrounds_are_repeated_without_a_gap() -> None:
    samples = np.random.default_rng(0).normal(size=(1000, 1))
    made = extend(samples, 5000, 100)
    assert made.shape == (5000, 1) and np.array_equal(made[:900], samples[:900])
    levels = [np.std(made[start : start + 500]) for start in range(0, 5000, 500)]
    assert min(levels) > 0.85 and max(levels) < 1.15
    assert np.array_equal(extend(samples, 400, 100), samples[:400])


def test_what_the_recipe_makes_is_prepared(sources: Path, tmp_path: Path) -> None:
    assert mix(sources, tmp_path / "mixed") == 0
    out = tmp_path / "out"
    assert prepare.main(["jssed", "--source", str(tmp_path / "mixed"), "--out", str(out)]) == 0
    index = Index.load(out)
    assert index.corpus == "jssed-recipe" and index.licence.startswith("that of the recordings")
    assert [index.splits[split].clips for split in ("train", "val", "test")] == [24, 3, 3]
    assert index.labels.scenes == ("bus", "cellar", "park")
    assert all(labels.strong for labels in read_labels(index, "train"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--clips", "5"), "--clips 5: at least 10"),
        (("--seconds", "0"), "--seconds 0: accepted are 1 to 3600 s"),
        (("--snr-db", "9", "-9"), "--snr-db 9 -9: the lowest first"),
        (("--events-per-clip", "4", "2"), "--events-per-clip 4 2: the fewest first"),
        (("--events", "nowhere"), "nowhere: no such folder; expected a folder for each event"),
        (("--rate", "3"), "--rate 3: accepted are 1000 to 384000 Hz"),
        (("--seed", "-1"), "--seed -1: expected 0 or more"),
        (("--events", __file__), "a file, not a folder; expected a folder for each event"),
    ],
)
def test_nonsense_recipes(
    sources: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], options: tuple[str, ...], message: str
) -> None:
    assert mix(sources, tmp_path / "out", *options) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("error: ") and message in error
    assert not (tmp_path / "out").exists()


def test_a_silent_recording_is_named(
    sources: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for path in (sources / "events/cough").iterdir():
        soundfile.write(path, np.zeros((800, 1)), 8000)
    assert mix(sources, tmp_path / "out") == 2
    assert re.search(
        r"events/cough/\d.flac: silent, empty or not finite; take it out", capsys.readouterr().err
    )
    assert not list(tmp_path.glob(".out*"))


def test_the_papers_sizes_are_the_default() -> None:
    recipe = Recipe()
    assert (recipe.clips, recipe.seconds, recipe.snr_db) == (3000, 30.0, (-15.0, 15.0))
    assert _counts(recipe) == {"train": 2400, "val": 300, "test": 300}


@pytest.mark.parametrize("places", [False, True])
def test_of_three_thousand_clips_2400_are_for_training_and_300_each_for_validation_and_test(
    tmp_path: Path, places: bool
) -> None:
    root = tmp_path / "jssed"
    (root / "clips").mkdir(parents=True)
    rows = ["filename\tscene_label" + "\tlocation" * places]
    for scene in SCENES:
        for n in range(300):
            (root / f"clips/{scene}{n}.wav").touch()
            rows.append(f"clips/{scene}{n}.wav\t{scene}" + f"\tbackground {n % 10}" * places)
    write(root / "scenes.tsv", rows)
    splits = read_jssed(root).splits
    assert {name: len(clips) for name, clips in splits.items()} == {"train": 2400, "val": 300, "test": 300}
    for clips in splits.values():
        assert len(set(Counter(clip.labels.scene for clip in clips).values())) == 1
