"""AudioSet in its true layout: column names in a comment, comma and space, ids that begin with '-', gaps."""

import json
from collections.abc import Iterable
from pathlib import Path

import pytest
import soundfile
from sounds import tone

from datasets import prepare
from datasets.corpora import read_audioset
from datasets.shards import Index
from datasets.source import open_source

NAMES = ["Speech", "Male speech, man speaking", "Dog", *(f"Class {i}" for i in range(524))]
HEADER = (
    "# Segments csv created Sun Mar  5 10:54:25 2017\n"
    "# num_ytids=9, num_segs=9, num_unique_labels=3, num_positive_labels=9\n"
    "# YTID, start_seconds, end_seconds, positive_labels\n"
)
TRAIN = [f"-{i}abcdefgh_" for i in range(8)]
EVAL = ["--4gqARaEJE", "Yabcdefgh-1", "missing__11", "zzzzzzzzz_2"]


def rows(ids: Iterable[str]) -> str:
    """Every second segment has two labels."""
    labels = ('"/m/000,/m/001"', '"/m/002"')
    return "".join(f"{name}, {30 + i}.000, {40 + i}.000, {labels[i % 2]}\n" for i, name in enumerate(ids))


@pytest.fixture
def audioset(tmp_path: Path) -> Path:
    root = tmp_path / "as"
    for folder in ("metadata", "balanced_train_segments", "eval_segments"):
        (root / folder).mkdir(parents=True)
    classes = "".join(f'{i},/m/{i:03},"{name}"\n' for i, name in enumerate(NAMES))
    (root / "metadata/class_labels_indices.csv").write_text("index,mid,display_name\n" + classes)
    (root / "metadata/balanced_train_segments.csv").write_text(HEADER + rows(TRAIN))
    (root / "metadata/eval_segments.csv").write_text(HEADER + rows(EVAL))
    for name in TRAIN[:6]:
        clip(root / f"balanced_train_segments/Y{name}.wav")
    for name in ("Y--4gqARaEJE.wav", "Yabcdefgh-1_31000.flac", "Yzzzzzzzzz_2_33.000_43.000.wav"):
        clip(root / "eval_segments" / name)
    return root


def clip(path: Path, seconds: float = 0.03) -> None:
    soundfile.write(path, tone(seconds), 8000, subtype="PCM_16")


def test_the_true_layout_with_gaps(audioset: Path) -> None:
    corpus = read_audioset(audioset, validation_fraction=0.3)
    assert {name: len(part) for name, part in corpus.splits.items()} == {"train": 4, "val": 2, "test": 3}
    assert corpus.labels.events == tuple(NAMES) and corpus.labels.scenes == ()
    labels = {r.file: r.labels for r in corpus.splits["test"]}
    assert labels["eval_segments/Y--4gqARaEJE.wav"].events == ("Male speech, man speaking", "Speech")
    assert labels["eval_segments/Yabcdefgh-1_31000.flac"].events == ("Dog",)
    assert corpus.notes[0] == (
        "eval_segments.csv: 1 of 4 segments have no clip; 0 classes are left with none, the largest gaps: "
        "'Male speech, man speaking' 1 of 2, 'Speech' 1 of 2"
    )
    assert corpus.notes[1].startswith("balanced_train_segments.csv: 2 of 8 segments have no clip")


def test_the_rewritten_copies_read_the_same(audioset: Path) -> None:
    """Integer seconds, no spaces, quotes only around several labels, CRLF, one comment line less."""
    expected = read_audioset(audioset)
    for path in audioset.glob("metadata/*_segments.csv"):
        text = path.read_text().split("\n", 1)[1].replace('"/m/002"', "/m/002").replace(".000", "")
        lines = [line if line.startswith("#") else line.replace(", ", ",") for line in text.splitlines()]
        path.write_bytes(("\r\n".join(lines) + "\r\n").encode())
    assert read_audioset(audioset) == expected


@pytest.mark.parametrize(
    "name",
    [
        "Y--4gqARaEJE.wav",
        "--4gqARaEJE.wav",
        "Y--4gqARaEJE_30.000_40.000.wav",
        "--4gqARaEJE_30.000_40.000.ogg",
        "--4gqARaEJE_30.flac",
        "--4gqARaEJE_30.000.flac",
        "--4gqARaEJE_30000.wav",
        "Y--4gqARaEJE_30000.wav",
        "--4gqARaEJE_30000_40000.flac",
        "--4gqARaEJE_30_40.WAV",
    ],
)
def test_the_names_that_sites_give_the_clips(audioset: Path, name: str) -> None:
    (audioset / "eval_segments/Y--4gqARaEJE.wav").unlink()
    part = audioset / "eval_segments/part00"
    part.mkdir()
    (part / name).write_bytes(b"")
    files = [r.file for r in read_audioset(audioset).splits["test"]]
    assert f"eval_segments/part00/{name}" in files and len(files) == 3


def test_another_stretch_of_the_video_is_not_the_clip(audioset: Path) -> None:
    (audioset / "eval_segments/Y--4gqARaEJE.wav").rename(audioset / "eval_segments/Y--4gqARaEJE_50000.wav")
    assert len(read_audioset(audioset).splits["test"]) == 2


def test_unbalanced_and_both(audioset: Path) -> None:
    """A video of the test list or of an earlier list is not trained on again."""
    new = ["newclip_000", "newclip_001"]
    ids = [*new, TRAIN[0], EVAL[0]]
    (audioset / "metadata/unbalanced_train_segments.csv").write_text(HEADER + rows(ids))
    (audioset / "unbalanced").mkdir()
    for name in new:
        clip(audioset / f"unbalanced/{name}.wav")
    clip(audioset / "unbalanced/Y--4gqARaEJE.wav")
    for lists, count in (("unbalanced", 3), ("both", 8)):
        corpus = read_audioset(audioset, train=lists)  # type: ignore[arg-type]
        assert len(corpus.splits["train"]) + len(corpus.splits["val"]) == count
        assert any("names of clips occur in several folders" in note for note in corpus.notes)
        assert any("training segments left out" in note for note in corpus.notes)


def test_the_command(audioset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (audioset / "eval_segments/Y--4gqARaEJE.wav").write_bytes(b"")  # downloads fail like this
    out = tmp_path / "out"
    args = ["audioset", "--source", str(audioset), "--out", str(out), "--max-damaged", "0.2"]
    assert prepare.main(args) == 0
    printed = capsys.readouterr().out
    assert "1 of 4 segments have no clip" in printed and "1 damaged clips dropped" in printed
    # Every class that a gap hits, which is too much to print.
    assert json.loads((out / "prepared.json").read_text())["segments_without_a_clip"] == {
        "eval_segments.csv": {"Male speech, man speaking": [1, 2], "Speech": [1, 2]},
        "balanced_train_segments.csv": {"Dog": [1, 4], "Male speech, man speaking": [1, 4], "Speech": [1, 4]},
    }
    index = Index.load(out)
    assert index.licence.startswith("lists CC BY 4.0") and "ICASSP 2017" in index.citation
    (batch,) = open_source(out, cache=None).eval_batches("test", 8)
    assert batch.events.shape == (2, 527) and batch.events[:, 2].sum() == 2


@pytest.mark.parametrize(
    ("file", "old", "new", "message"),
    [
        ("eval_segments.csv", "/m/002", "/m/xyz", "line 5: label '/m/xyz' is not one of the 527 of"),
        (
            "eval_segments.csv",
            "30.000, 40.000",
            "40.000, 40.000",
            "line 4: '40.000' to '40.000' is no stretch",
        ),
        ("eval_segments.csv", "30.000, 40.000", "soon, 40.000", "line 4: 'soon' to '40.000' is no stretch"),
        ("eval_segments.csv", ", ", "\t", "line 4: expected 'YTID, start_seconds, end_seconds"),
        ("class_labels_indices.csv", "index,mid", "idx,mid", "expected the header 'index,mid,display_name'"),
        ("class_labels_indices.csv", '526,/m/526,"Class 523"\n', "", "526 classes, expected 527"),
        ("class_labels_indices.csv", "\n5,", "\n6,", "index '6', expected 5"),
    ],
)
def test_bad_input_is_one_clear_line(audioset: Path, file: str, old: str, new: str, message: str) -> None:
    path = audioset / "metadata" / file
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))
    with pytest.raises(ValueError) as error:
        read_audioset(audioset)
    assert message in str(error.value) and "\n" not in str(error.value)


def test_lists_without_any_clip(audioset: Path) -> None:
    for path in audioset.glob("eval_segments/*"):
        path.unlink()
    with pytest.raises(FileNotFoundError, match=r"none of its 4 segments has a clip .* Y--4gqARaEJE.wav"):
        read_audioset(audioset)
    (audioset / "metadata/eval_segments.csv").unlink()
    with pytest.raises(FileNotFoundError, match=r"no eval_segments.csv"):
        read_audioset(audioset)


def test_compressed_clips_listed_twice_and_unlisted_ones(
    audioset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for path in audioset.glob("eval_segments/*"):
        path.unlink()
    for name, form in zip(EVAL, ("ogg", "mp3", "flac")):
        soundfile.write(audioset / f"eval_segments/{name}.{form}", tone(0.5), 8000)
    clip(audioset / "eval_segments/Yunlisted_00.wav")
    path = audioset / "metadata/eval_segments.csv"
    path.write_text(path.read_text() + rows(EVAL))
    out = tmp_path / "out"
    assert prepare.main(["audioset", "--source", str(audioset), "--out", str(out)]) == 0
    assert "eval_segments.csv: 4 lines left out: their video is listed before" in capsys.readouterr().out
    index = Index.load(out)
    assert index.splits["test"].clips == 3 and index.dropped == ()
