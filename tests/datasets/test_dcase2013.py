"""DCASE 2013: no lists, scenes in the names, mapped to TAU2019's as paper 000 §V-G says."""

from pathlib import Path

import pytest
import soundfile
from sounds import tone

from datasets import prepare
from datasets.corpora import Corpus, read_dcase2013
from datasets.corpora.dcase2013 import SCENES, TAU2019
from datasets.corpora.tau2019 import SCENES as TAU_SCENES
from datasets.shards import Index


@pytest.fixture
def dcase(tmp_path: Path) -> Path:
    """The public set: ten recordings of each scene, two-digit numbers that are not consecutive."""
    root = tmp_path / "dcase2013"
    fill(root / "scenes_stereo")
    (root / "scenes_stereo/readme.txt").write_text("Not a recording.")
    return root


def fill(folder: Path) -> None:
    folder.mkdir(parents=True)
    for scene in SCENES:
        for number in range(10):
            soundfile.write(folder / f"{scene}{number * 3 + 1:02}.wav", tone(0.3, channels=2), 8000)


def places(corpus: Corpus, split: str) -> set[str | None]:
    return {recording.labels.location for recording in corpus.splits[split]}


def test_the_paper_s_mapping() -> None:
    assert dict(TAU2019) == {
        "bus": "bus", "park": "park", "busystreet": "street_traffic", "quietstreet": "street_traffic",
        "openairmarket": "shopping_mall", "supermarket": "shopping_mall", "tube": "metro",
        "tubestation": "metro_station", "office": None, "restaurant": None,
    }  # fmt: skip
    assert {name for name in TAU2019.values() if name} <= set(TAU_SCENES)


def test_mapped_to_the_scenes_of_tau2019(dcase: Path) -> None:
    corpus = read_dcase2013(dcase)
    assert corpus.labels.scenes == TAU_SCENES
    assert {name: len(part) for name, part in corpus.splits.items()} == {"train": 50, "val": 14, "test": 16}
    by_file = {r.file: r.labels for part in corpus.splits.values() for r in part}
    # The longer name wins: tubestation01 is no tube.
    assert by_file["scenes_stereo/tubestation01.wav"].scene == "metro_station"
    assert by_file["scenes_stereo/tube01.wav"].scene == "metro"
    assert by_file["scenes_stereo/busystreet01.wav"].scene == "street_traffic"
    note = "20 recordings of office, restaurant left out: TAU2019 has no such scene"
    assert note in corpus.notes


def test_its_own_scenes(dcase: Path) -> None:
    corpus = read_dcase2013(dcase, classes="own")
    assert corpus.labels.scenes == SCENES and sum(map(len, corpus.splits.values())) == 100


def test_five_folds_test_every_recording_once(dcase: Path) -> None:
    tested = [
        r.file for fold in range(1, 6) for r in read_dcase2013(dcase, fold=fold, classes="own").splits["test"]
    ]
    assert len(tested) == len(set(tested)) == 100


def test_the_private_set_is_the_test_split_where_it_is_there(dcase: Path) -> None:
    fill(dcase / "scenes_stereo_testset")
    corpus = read_dcase2013(dcase, classes="own")
    assert {name: len(part) for name, part in corpus.splits.items()} == {"train": 80, "val": 20, "test": 100}
    # The same names, other places.
    assert not places(corpus, "test") & (places(corpus, "train") | places(corpus, "val"))


def test_cut_clips_of_a_recording_stay_on_one_side(dcase: Path) -> None:
    corpus = read_dcase2013(dcase, clip_seconds=0.1)
    assert sum(map(len, corpus.splits.values())) == 3 * 80
    assert not places(corpus, "train") & places(corpus, "val")
    random = read_dcase2013(dcase, clip_seconds=0.1, validation="random", validation_fraction=0.3)
    assert places(random, "train") & places(random, "val")


def test_the_command(dcase: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    args = ["dcase2013", "--source", str(dcase / "scenes_stereo"), "--out", str(out), "--channels", "mono"]
    assert prepare.main(args) == 0
    index = Index.load(out)
    assert index.channels == 1 and "WASPAA 2013" in index.citation


def test_bad_input(dcase: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="--fold 6: DCASE 2013 has folds 1 to 5"):
        read_dcase2013(dcase, fold=6)
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty/cafe01.wav").write_bytes(b"")
    with pytest.raises(FileNotFoundError, match=r"no scenes_stereo/; expected .* busystreet07.wav"):
        read_dcase2013(tmp_path / "empty")
