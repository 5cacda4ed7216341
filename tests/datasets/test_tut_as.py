"""TUT Acoustic Scenes 2016 and 2017 in their true layout: no headers, CRLF, labels with '/', error.txt."""

from pathlib import Path

import numpy as np
import pytest
import soundfile

from datasets import prepare
from datasets.corpora import Corpus, read_tut_as
from datasets.shards import Index, read_labels

SCENES = [
    "beach", "bus", "cafe/restaurant", "car", "city_center", "forest_path", "grocery_store", "home",
    "library", "metro_station", "office", "park", "residential_area", "train", "tram",
]  # fmt: skip


@pytest.fixture
def tut_as(tmp_path: Path) -> Path:
    """15 scenes x 4 recordings x 2 segments; fold k tests recording k of each scene."""
    root = tmp_path / "TUT-acoustic-scenes-2017-development"
    (root / "audio").mkdir(parents=True)
    (root / "evaluation_setup").mkdir()
    files: dict[int, list[tuple[str, str]]] = {k: [] for k in range(1, 5)}
    for s, scene in enumerate(SCENES):
        for k in range(1, 5):
            for segment in range(2):
                file = f"audio/b{s * 10 + k:03}_{segment * 10}_{segment * 10 + 10}.wav"
                rng = np.random.default_rng([s, k, segment])
                soundfile.write(root / file, rng.normal(0, 0.1, (441, 2)), 44100, subtype="PCM_24")
                files[k].append((file, scene))
    for k in range(1, 5):
        train = [pair for other in files if other != k for pair in files[other]]
        write(root / f"evaluation_setup/fold{k}_train.txt", [f"{f}\t{s}" for f, s in train])
        write(root / f"evaluation_setup/fold{k}_evaluate.txt", [f"{f}\t{s}" for f, s in files[k]])
        write(root / f"evaluation_setup/fold{k}_test.txt", [f for f, _ in files[k]])
    write(root / "meta.txt", [f"{f}\t{s}" for found in files.values() for f, s in found])
    # Of fold 1: one test clip twice, two training clips.
    errors = [f"audio/{name}\t{onset}\t{onset + 1.5}\t{what}" for name, onset, what in ERRORS]
    write(root / "error.txt", errors)
    return root


ERRORS = [
    ("b001_0_10.wav", 2.0, "radio interference"),
    ("b001_0_10.wav", 6.0, "microphone failure"),
    ("b002_0_10.wav", 0.0, "error"),
    ("b013_10_20.wav", 1.0, "error"),
]


def write(path: Path, lines: list[str]) -> None:
    path.write_bytes(("\r\n".join(lines) + "\r\n").encode())


def places(corpus: Corpus, split: str) -> set[str | None]:
    return {recording.labels.location for recording in corpus.splits[split]}


def test_the_true_layout(tut_as: Path) -> None:
    corpus = read_tut_as(tut_as)
    assert corpus.labels.scenes == tuple(SCENES) and corpus.labels.events == ()
    assert {name: len(part) for name, part in corpus.splits.items()} == {"train": 58, "val": 30, "test": 30}
    labels = {r.file: r.labels for r in corpus.splits["test"]}
    assert labels["audio/b021_0_10.wav"].scene == "cafe/restaurant"
    assert labels["audio/b021_0_10.wav"].location == "b021"
    assert "EULA" in corpus.about.licence and "EUSIPCO 2016" in corpus.about.citation


def test_error_txt_leaves_damaged_clips_out_of_training_and_counts_those_of_the_test_list(
    tut_as: Path,
) -> None:
    corpus = read_tut_as(tut_as)
    used = {r.file for split in ("train", "val") for r in corpus.splits[split]}
    assert not used & {"audio/b002_0_10.wav", "audio/b013_10_20.wav"} and "audio/b002_10_20.wav" in used
    assert "error.txt: 2 training clips with a damaged stretch left out" in corpus.notes
    assert "error.txt: 1 test clips have 3.0 s of damaged stretches; kept" in corpus.notes
    (tut_as / "error.txt").unlink()
    assert any(note.startswith("no error.txt") for note in read_tut_as(tut_as).notes)


def test_an_error_line_about_an_unlisted_file_or_without_length_is_counted(tut_as: Path) -> None:
    write(tut_as / "error.txt", ["audio/zzz_0_10.wav\t0\t1\terror", "audio/b002_0_10.wav\t3\t3\terror"])
    corpus = read_tut_as(tut_as)
    assert "error.txt: 1 lines are about files that are not listed (audio/zzz_0_10.wav)" in corpus.notes
    assert any(note.startswith("1 events left out: the onset is negative") for note in corpus.notes)
    assert "error.txt: 1 training clips with a damaged stretch left out" in corpus.notes


@pytest.mark.parametrize("fold", [1, 2, 3, 4])
def test_four_folds_and_no_location_on_two_sides(tut_as: Path, fold: int) -> None:
    corpus = read_tut_as(tut_as, fold=fold)
    sides = [places(corpus, split) for split in ("train", "val", "test")]
    assert sides[2] == {f"b{s * 10 + fold:03}" for s in range(15)}
    assert not sides[0] & sides[1] and not (sides[0] | sides[1]) & sides[2]


def test_validation_at_random_shares_locations(tut_as: Path) -> None:
    corpus = read_tut_as(tut_as, validation="random", validation_fraction=0.3)
    assert places(corpus, "train") & places(corpus, "val")


def test_without_meta_txt_the_lists_of_all_four_folds_say_the_same(tut_as: Path) -> None:
    expected = read_tut_as(tut_as)
    (tut_as / "meta.txt").unlink()
    assert read_tut_as(tut_as) == expected


def test_the_command_makes_24_bit_stereo(tut_as: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    args = ["tut-as", "--source", str(tut_as), "--out", str(out), "--fold", "4"]
    assert prepare.main(args) == 0
    index = Index.load(out)
    assert (index.sample_rate, index.channels, index.sample_type) == (44100, 2, "float32")
    assert {labels.scene for labels in read_labels(index, "test")} == set(SCENES)


@pytest.mark.parametrize(
    ("break_it", "message"),
    [
        (lambda r: (r / "audio/b001_0_10.wav").unlink(), "1 of 120 listed files are missing"),
        (lambda r: write(r / "meta.txt", ["audio/b001_0_10.wav beach"]), "without a header, found"),
        (
            lambda r: write(r / "error.txt", ["audio/b001_0_10.wav\tsoon\t2\terror"]),
            "onset 'soon' is not a time",
        ),
        (
            lambda r: write(r / "evaluation_setup/fold1_train.txt", ["audio/b001_0_10.wav\tbus"]),
            "is 'bus' here and 'beach' in the list of all files",
        ),
    ],
)
def test_bad_input_is_one_clear_line(tut_as: Path, break_it: object, message: str) -> None:
    break_it(tut_as)  # type: ignore[operator]
    with pytest.raises((ValueError, OSError)) as error:
        read_tut_as(tut_as)
    assert message in str(error.value) and "\n" not in str(error.value)


def test_there_is_no_fifth_fold(tut_as: Path) -> None:
    with pytest.raises(FileNotFoundError, match="fold5_train.txt: no such file; training lists there: fold1"):
        read_tut_as(tut_as, fold=5)
