"""AudioSet's strong labels in their true layout: ids that hold '_', a fifth column, gaps."""

from pathlib import Path

import pytest
import soundfile
from sounds import tone

from datasets import prepare
from datasets.corpora import read_audioset_strong
from datasets.corpora.audioset_strong import segment_of
from datasets.shards import Index, read_labels
from datasets.tables import Row

HEADER = "segment_id\tstart_time_seconds\tend_time_seconds\tlabel"
TRAIN = [f"-a_bcdefgh{i}" for i in range(6)]


@pytest.fixture
def strong(tmp_path: Path) -> Path:
    root = tmp_path / "as"
    (root / "meta").mkdir(parents=True)
    (root / "train").mkdir()
    write(
        root / "meta/mid_to_display_name.tsv",
        ["/m/053hz1\tCheering", "/m/09x0r\tSpeech", "/m/0dog\tBark", "/m/x\tBark"],
    )
    rows = []
    for number, name in enumerate(TRAIN):
        rows += [f"{name}_30000\t2.627\t7.237\t/m/053hz1", f"{name}_30000\t0.000\t1.5\t/m/09x0r"][
            : 1 + number % 2
        ]
    write(root / "meta/audioset_train_strong.tsv", [HEADER, *rows])
    write(
        root / "meta/audioset_eval_strong.tsv",
        [HEADER, "YxlGt805lTA_30000\t2.627\t7.237\t/m/053hz1", "gone_is_this_0\t0\t1\t/m/0dog"],
    )
    write(
        root / "meta/audioset_eval_strong_framed_posneg.tsv",
        [
            HEADER + "\tpresent",
            "YxlGt805lTA_30000\t0.960\t1.920\t/m/09x0r\tPRESENT",
            "YxlGt805lTA_30000\t1.920\t2.880\t/m/x\tNOT_PRESENT",
        ],
    )
    for name in TRAIN[:5]:
        soundfile.write(root / f"train/Y{name}_30.000_40.000.wav", tone(0.05), 8000)
    soundfile.write(root / "YYxlGt805lTA.wav", tone(0.05), 8000)
    return root


def write(path: Path, lines: list[str]) -> None:
    path.write_text("\n".join(lines) + "\n")


@pytest.mark.parametrize(
    ("segment_id", "ytid", "start"),
    [
        ("YxlGt805lTA_30000", "YxlGt805lTA", 30.0),
        ("a_b_c______0", "a_b_c_____", 0.0),
        ("--x_120_1500", "--x_120", 1.5),
    ],
)
def test_an_id_is_split_at_its_last_underscore(segment_id: str, ytid: str, start: float) -> None:
    segment = segment_of(Row("here", {"segment_id": segment_id}))
    assert (segment.ytid, segment.start, segment.end) == (ytid, start, start + 10)


@pytest.mark.parametrize("segment_id", ["abc", "abc_", "_30000", "abc_1.5"])
def test_an_id_without_a_start_is_refused(segment_id: str) -> None:
    with pytest.raises(ValueError, match="here: segment_id '.*' is not <video>_<start in ms>"):
        segment_of(Row("here", {"segment_id": segment_id}))


def test_the_true_layout_with_gaps(strong: Path) -> None:
    corpus = read_audioset_strong(strong, validation_fraction=0.4)
    assert {name: len(part) for name, part in corpus.splits.items()} == {"train": 3, "val": 2, "test": 1}
    # Names that two ids share are told apart; classes are those of both lists, with or without a clip.
    assert corpus.labels.events == ("Bark (/m/0dog)", "Cheering", "Speech")
    (test,) = corpus.splits["test"]
    assert test.file == "YYxlGt805lTA.wav" and test.labels.strong == ((2.627, 7.237, "Cheering"),)
    assert any(
        "eval_strong.tsv: 1 of 2 segments have no clip; 1 classes are left with none" in n
        for n in corpus.notes
    )
    assert any("train_strong.tsv: 1 of 6 segments have no clip" in n for n in corpus.notes)
    assert "3 classes occur in the lists; in the published ones 456 do" in corpus.notes


def test_a_clip_named_after_the_video_is_one_segment_only(strong: Path) -> None:
    path = strong / "meta/audioset_eval_strong.tsv"
    path.write_text(path.read_text() + "YxlGt805lTA_90000\t1\t2\t/m/09x0r\n")
    corpus = read_audioset_strong(strong)
    assert [r.labels.events for r in corpus.splits["test"]] == [("Cheering",)]
    assert any("1 segments left out: their clip's name" in note for note in corpus.notes)


def test_what_is_not_present_is_no_event(strong: Path) -> None:
    corpus = read_audioset_strong(strong, test="framed")
    (test,) = corpus.splits["test"]
    assert test.labels.strong == ((0.96, 1.92, "Speech"),) and test.labels.events == ("Speech",)
    assert "Bark (/m/x)" in corpus.labels.events
    assert any("1 lines say NOT_PRESENT, and are no events" in note for note in corpus.notes)


def test_the_command(strong: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert prepare.main(["audioset-strong", "--source", str(strong), "--out", str(out)]) == 0
    index = Index.load(out)
    assert "ICASSP 2021" in index.citation
    assert [labels.strong for labels in read_labels(index, "test")] == [((2.627, 7.237, "Cheering"),)]


@pytest.mark.parametrize(
    ("file", "old", "new", "message"),
    [
        (
            "audioset_eval_strong.tsv",
            "/m/0dog",
            "/m/none",
            "label '/m/none' is not in mid_to_display_name.tsv",
        ),
        ("audioset_eval_strong.tsv", "_30000", "", "segment_id 'YxlGt805lTA' is not <video>_<start in ms>"),
        ("audioset_eval_strong.tsv", "7.237", "late", "end_time_seconds 'late' is not a time in seconds"),
        ("audioset_train_strong.tsv", "segment_id", "id", "expected the header 'segment_id"),
    ],
)
def test_bad_input_is_one_clear_line(strong: Path, file: str, old: str, new: str, message: str) -> None:
    path = strong / "meta" / file
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new, 1))
    with pytest.raises(ValueError) as error:
        read_audioset_strong(strong)
    assert message in str(error.value) and "\n" not in str(error.value)


def test_backwards_events_and_other_words_in_the_fifth_column(strong: Path) -> None:
    path = strong / "meta/audioset_eval_strong_framed_posneg.tsv"
    path.write_text(path.read_text().replace("0.960\t1.920", "1.920\t0.960"))
    notes = read_audioset_strong(strong, test="framed").notes
    assert any(note.startswith("1 events left out: the onset is negative") for note in notes)
    path.write_text(path.read_text().replace("NOT_PRESENT", "MAYBE"))
    with pytest.raises(ValueError, match="line 3: present 'MAYBE' is not PRESENT or NOT_PRESENT"):
        read_audioset_strong(strong, test="framed")
