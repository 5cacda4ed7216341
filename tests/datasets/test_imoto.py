"""The joint set of Imoto et al. in the layout of its published lists."""

from pathlib import Path

import pytest
import soundfile
from sounds import tone

from datasets import prepare
from datasets.corpora import Corpus, read_imoto
from datasets.corpora.imoto import EVENTS, SCENES
from datasets.shards import Index

HEADER = "path\tscene_label\tevent_start_time\tevent_end_time\tevent_label"
STREET = "TUT-sound-events-2017-development/audio/street/a124.wav"
HOME = "TUT-sound-events-2016-development/audio/home/a030.wav"
OFFICES = [f"TUT-acoustic-scenes-2016-development/audio/b113_{s}_{s + 30}.wav" for s in (30, 60)]
OTHER = "TUT-acoustic-scenes-2016-development/audio/b115_0_30.wav"
EVALUATION = [
    "TUT-acoustic-scenes-2017-evaluation/audio/1244.wav",
    "TUT-acoustic-scenes-2017-evaluation/audio/25.wav",
]
ROWS = [
    f"{STREET}\tcity_center\t0.0\t4.037666\tpeople speaking",
    f"{STREET}\tcity_center\t0.0\t21.850174\tlarge vehicle",
    f"{HOME}\thome\t5.940996\t6.282603\t(object) snapping",
    f"{HOME}\thome\t10.159102\t10.159102\t(object) impact",
    *(f"{office}\toffice\t0.000000\t30.000000\tfan" for office in OFFICES),
    f"{OTHER}\toffice\t0.207770\t0.259291\tmouse clicking",
]
EVALUATED = [
    f"{EVALUATION[0]}\tcity_center\t9.280597\t10.000023\tpeople talking",
    f"{EVALUATION[1]}\tresidential_area\t0.328830\t0.427929\tpeople walking",
]


@pytest.fixture
def imoto(tmp_path: Path) -> Path:
    root = tmp_path / "tut"
    for folder in ("meta", "crossvaridation"):
        (root / "metadata_SEDandASC01" / folder).mkdir(parents=True)
    meta = root / "metadata_SEDandASC01"
    write(meta / "meta/meta_development.txt", ROWS)
    write(meta / "meta/meta_evaluation.txt", EVALUATED)
    write(meta / "crossvaridation/meta_fold01_development.txt", ROWS[2:])
    write(meta / "crossvaridation/meta_fold01_evaluation.txt", ROWS[:2])
    for file, seconds in (
        (STREET, 24),
        (HOME, 36),
        (OTHER, 30),
        *((o, 30) for o in OFFICES),
        *((e, 10) for e in EVALUATION),
    ):
        (root / file).parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(root / file, tone(seconds, rate=1000, channels=2), 1000, subtype="PCM_24")
    return root


def write(path: Path, rows: list[str]) -> None:
    path.write_text("\n".join([HEADER, *rows]) + "\n")


def places(corpus: Corpus, split: str) -> set[str | None]:
    return {recording.labels.location for recording in corpus.splits[split]}


def test_development_and_evaluation_in_clips_of_ten_seconds(imoto: Path) -> None:
    corpus = read_imoto(imoto)
    assert (corpus.labels.scenes, corpus.labels.events) == (SCENES, EVENTS)
    assert (len(SCENES), len(EVENTS)) == (4, 25)
    clips = {r.name.rsplit("/", 1)[1]: r.labels for part in corpus.splits.values() for r in part}
    # 24 s: two clips, 4 s left out; 36 s: the last one is 6 s long.
    assert sorted(name for name in clips if "a124" in name) == ["a124_0.wav", "a124_10.wav"]
    assert [name for name in clips if "a030" in name].__len__() == 4
    assert clips["a124_0.wav"].strong == ((0.0, 4.037666, "people talking"), (0.0, 10.0, "large vehicle"))
    assert clips["a124_10.wav"].strong == ((0.0, 10.0, "large vehicle"),)
    assert clips["1244_0.wav"].strong == ((9.280597, 10.0, "people talking"),)
    assert len(corpus.splits["test"]) == 2
    assert "the last 4.0 s or less of 1 recordings left out: not half a clip" in corpus.notes


def test_the_row_without_a_length_is_counted_and_its_recording_stays(imoto: Path) -> None:
    corpus = read_imoto(imoto)
    (note,) = [note for note in corpus.notes if "events left out" in note]
    assert note.startswith("1 events left out: the onset is negative or not before the offset (")
    assert "meta_development.txt, line 5: 10.159102 to 10.159102" in note
    assert "meta_development.txt: 1 events 'people speaking' are called 'people talking'" in corpus.notes


def test_segments_of_one_original_recording_stay_together(imoto: Path) -> None:
    corpus = read_imoto(imoto)
    assert not places(corpus, "train") & places(corpus, "val")
    assert {"b113", "b115"} & places(corpus, "val") and not {"b113", "b115"} <= places(corpus, "val")
    random = read_imoto(imoto, validation="random", validation_fraction=0.3)
    assert places(random, "train") & places(random, "val")


def test_a_fold_in_the_folder_spelt_as_published_or_right(imoto: Path) -> None:
    corpus = read_imoto(imoto, fold=1)
    assert places(corpus, "test") == {"a124"}
    meta = imoto / "metadata_SEDandASC01"
    (meta / "crossvaridation").rename(meta / "crossvalidation")
    assert read_imoto(imoto, fold=1).splits == corpus.splits
    with pytest.raises(FileNotFoundError, match="crossvalidation/meta_fold02_development.txt: no such file"):
        read_imoto(imoto, fold=2)


def test_the_metadata_may_lie_in_the_folder_itself(imoto: Path) -> None:
    expected = read_imoto(imoto)
    for path in (imoto / "metadata_SEDandASC01").iterdir():
        path.rename(imoto / path.name)
    (imoto / "metadata_SEDandASC01").rmdir()
    assert read_imoto(imoto).splits == expected.splits


def test_the_command(imoto: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert prepare.main(["imoto", "--source", str(imoto), "--out", str(out)]) == 0
    index = Index.load(out)
    assert index.samples == 10000 and "non-commercial" in index.licence and "ICASSP 2020" in index.citation


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("\tfan", "\tufo", "event 'ufo' is not one of the 25 of the set"),
        ("\thome\t", "\tspace\t", "scene 'space' is not one of the 4 of the set"),
        ("\t21.850174", "\tlater", "event_end_time 'later' is not a time in seconds"),
        ("a030.wav\thome\t10", "a030.wav\toffice\t10", "a030.wav is 'office' here and 'home' before"),
        ("b115_0_30.wav", "b999_0_30.wav", "b999_0_30.wav is not in"),
        ("event_start_time", "onset", "expected the header 'path\\tscene_label"),
    ],
)
def test_bad_input_is_one_clear_line(imoto: Path, old: str, new: str, message: str) -> None:
    path = imoto / "metadata_SEDandASC01/meta/meta_development.txt"
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new, 1))
    with pytest.raises((ValueError, OSError)) as error:
        read_imoto(imoto)
    assert message in str(error.value) and "\n" not in str(error.value)


def test_a_fold_that_is_none(imoto: Path) -> None:
    with pytest.raises(ValueError, match="--fold 5: 0 = development and evaluation set"):
        read_imoto(imoto, fold=5)
