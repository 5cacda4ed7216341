"""TUT Sound Events in its true layout: .ann files of 3 and of 7 columns, CRLF, no headers, four folds."""

from pathlib import Path

import numpy as np
import pytest
import soundfile
from sounds import tone

from datasets import prepare
from datasets.corpora import Corpus, read_tut_sed
from datasets.shards import Index, read_labels
from datasets.source import open_source

RATE = 8000
# 2.7 clips of 0.1 s a recording; the events of every recording, in s.
EVENTS = ((0.02, 0.05, "people walking"), (0.08, 0.13, "(object) rustling"), (0.21, 0.4, "car"))


def year(root: Path, scene: str, columns: int) -> Path:
    """Eight recordings, two a fold; the last has no event and so no line in a training list."""
    for folder in (f"audio/{scene}", f"meta/{scene}", "evaluation_setup"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    names = [f"{'ab'[i % 2]}{i:03}" for i in range(8)]
    audio = {name: f"audio/{scene}/{name}.wav" for name in names}
    lines = {}
    for i, name in enumerate(names):
        sound = tone(0.27, RATE, channels=2, pitch=203 + 20 * i)  # no period in a clip
        soundfile.write(root / audio[name], sound, RATE, subtype="PCM_24")
        events = EVENTS if i < 7 else ()
        lines[name] = [f"{audio[name]}\t{scene}\t{a}\t{b}\t{label}" for a, b, label in events]
        short = "".join(f"{a:.6f}\t{b:.6f}\t{label}\n" for a, b, label in events)
        long = "".join(f"{line}\tmixture\t{name}\r\n" for line in lines[name])
        path = root / f"meta/{scene}/{name}.ann"
        path.write_bytes((short if columns == 3 else long).encode())
    for fold in range(1, 5):
        test = names[2 * fold - 2 : 2 * fold]
        setup = root / f"evaluation_setup/{scene}_fold{fold}"
        train = [line for name in names if name not in test for line in lines[name]]
        Path(f"{setup}_train.txt").write_text("\n".join(train) + "\n")
        Path(f"{setup}_test.txt").write_bytes("".join(f"{audio[n]}\t{scene}\r\n" for n in test).encode())
    return root


def places(corpus: Corpus, split: str) -> set[str | None]:
    return {recording.labels.location for recording in corpus.splits[split]}


@pytest.mark.parametrize("columns", [3, 7])
def test_the_true_layouts(tmp_path: Path, columns: int) -> None:
    corpus = read_tut_sed(year(tmp_path / "c", "street", columns), clip_seconds=0.1)
    assert corpus.labels.scenes == ("street",)
    assert corpus.labels.events == ("(object) rustling", "car", "people walking")
    assert places(corpus, "test") == {"a000", "b001"}
    assert not places(corpus, "train") & places(corpus, "val")
    assert places(corpus, "train") | places(corpus, "val") == {f"{'ab'[i % 2]}{i:03}" for i in range(2, 8)}
    assert any(note.startswith("1 recordings are in no list of fold 1") for note in corpus.notes)
    clips = [clip for clip in corpus.splits["test"] if clip.labels.location == "a000"]
    assert [clip.name for clip in clips] == [f"audio/street/a000_{t}.wav" for t in ("0", "0.1", "0.2")]
    assert clips[0].labels.strong == ((0.02, 0.05, "people walking"), (0.08, 0.1, "(object) rustling"))
    assert clips[1].labels.strong == ((0.0, 0.03, "(object) rustling"),)
    assert clips[2].labels.strong == ((0.01, 0.07, "car"),) and clips[2].seconds == pytest.approx(0.07)
    silent = [c.labels for s in ("train", "val") for c in corpus.splits[s] if c.labels.location == "b007"]
    assert len(silent) == 3 and all(labels.events == () == labels.strong for labels in silent)


def test_a_short_remainder_is_left_out(tmp_path: Path) -> None:
    corpus = read_tut_sed(year(tmp_path / "c", "street", 3), clip_seconds=0.12)
    assert len(corpus.splits["test"]) == 4  # 0.27 s: two clips and 0.03 s
    assert "the last 0.0 s or less of 8 recordings left out: not half a clip" in corpus.notes


def test_the_folds_test_every_recording_once(tmp_path: Path) -> None:
    root = year(tmp_path / "c", "street", 7)
    tested = [places(read_tut_sed(root, fold=fold), "test") for fold in range(1, 5)]
    assert len(set().union(*tested)) == 8 == sum(map(len, tested))
    with pytest.raises(FileNotFoundError, match="no <scene>_fold5_test.txt; test lists there: street_fold1"):
        read_tut_sed(root, fold=5)


def test_both_years_are_one_corpus(tmp_path: Path) -> None:
    old = year(tmp_path / "TUT-sound-events-2016-development", "home", 3)
    year(old, "residential_area", 3)
    year(tmp_path / "TUT-sound-events-2017-development", "street", 7)
    path = old / "meta/home/a002.ann"
    path.write_text(path.read_text().replace("\tcar", "\tcar passing by"))
    corpus = read_tut_sed(tmp_path)
    assert corpus.labels.scenes == ("home", "residential_area", "street")
    assert "car passing by" in corpus.labels.events
    assert "car passing by" not in read_tut_sed(tmp_path, merge_years=True).labels.events
    assert {c.labels.scene for c in corpus.splits["val"]} == set(corpus.labels.scenes)


def test_the_command_cuts_the_recordings(tmp_path: Path) -> None:
    root, out = year(tmp_path / "c", "street", 7), tmp_path / "out"
    (root / "EULA.pdf").write_bytes(b"%PDF")
    args = ["tut-sed", "--source", str(root), "--out", str(out), "--clip-seconds", "0.1"]
    assert prepare.main(args) == 0
    index = Index.load(out)
    assert (index.channels, index.samples, index.splits["test"].clips) == (2, 800, 6)
    assert (out / "EULA.pdf").is_file() and "EUSIPCO" in index.citation
    assert all(labels.strong is not None for labels in read_labels(index, "test"))
    whole = soundfile.read(root / "audio/street/a000.wav", dtype="float32", always_2d=True)[0]
    keys = [clip.key for _, clip in index.splits["test"].entries()]
    (batch,) = open_source(out, cache=None).eval_batches("test", 8)
    for start in (0, 1, 2):
        key = f"a000_{'0' if start == 0 else f'0_{start}'}"
        wanted = whole[800 * start : 800 * (start + 1)]
        got = batch.waveform[keys.index(key)].numpy().T[: len(wanted)]
        assert np.allclose(got, wanted, atol=1e-6)


def test_a_recording_that_was_cut_off_is_damaged(tmp_path: Path) -> None:
    root = year(tmp_path / "c", "street", 7)
    path = root / "audio/street/b001.wav"
    path.write_bytes(path.read_bytes()[:8000])
    out = tmp_path / "out"
    args = ["tut-sed", "--source", str(root), "--out", str(out), "--clip-seconds", "0.1"]
    assert prepare.main([*args, "--max-damaged", "0.2"]) == 0
    index = Index.load(out)
    assert index.splits["test"].clips == 3 and all("cut off" in reason for _, reason in index.dropped)


def test_backwards_events_are_counted_and_left_out(tmp_path: Path) -> None:
    root = year(tmp_path / "c", "street", 3)
    path = root / "meta/street/a000.ann"
    path.write_text(path.read_text().replace("0.050000", "0.020000"))
    corpus = read_tut_sed(root, clip_seconds=0)
    assert any(note.startswith("1 events left out: the onset is negative or not") for note in corpus.notes)
    labels = next(c.labels for c in corpus.splits["test"] if c.labels.location == "a000")
    assert labels.events == ("(object) rustling", "car")


@pytest.mark.parametrize(
    ("file", "old", "new", "message"),
    [
        ("meta/street/a000.ann", "\t", ",", "a000.ann, line 1: not tab-separated (a re-save?)"),
        ("meta/street/a000.ann", "a000.wav", "a001.wav", "line 1: is about audio/street/a001.wav, expected"),
        ("meta/street/a000.ann", "\t0.02\t", "\tsoon\t", "line 1: onset 'soon' is not a time in seconds"),
        ("meta/street/a000.ann", "\tcar\t", "\t\t", "line 3: onset and offset without a label"),
        ("evaluation_setup/street_fold1_test.txt", "\t", ",", "not tab-separated (a re-save?)"),
        ("evaluation_setup/street_fold1_test.txt", "a000", "zzz", "line 1: audio/street/zzz.wav is not in"),
        ("evaluation_setup/street_fold1_test.txt", "a000", "a002", "in both the train and the test list"),
        ("evaluation_setup/street_fold2_test.txt", "\tstreet", "\thome", "in another list"),
        ("evaluation_setup/street_fold1_train.txt", "\t", ",", "not tab-separated (a re-save?)"),
    ],
)
def test_bad_input_is_one_clear_line(tmp_path: Path, file: str, old: str, new: str, message: str) -> None:
    root = year(tmp_path / "c", "street", 7)
    text = (root / file).read_text()
    assert old in text
    (root / file).write_text(text.replace(old, new))
    with pytest.raises((ValueError, FileNotFoundError)) as error:
        read_tut_sed(root)
    assert message in str(error.value) and "\n" not in str(error.value)


def test_missing_annotations(tmp_path: Path) -> None:
    root = year(tmp_path / "c", "street", 7)
    (root / "meta/street/b003.ann").unlink()
    with pytest.raises(FileNotFoundError, match=r"b003.ann: no such file"):
        read_tut_sed(root)
    with pytest.raises(ValueError, match="--clip-seconds -1"):
        read_tut_sed(root, clip_seconds=-1)
