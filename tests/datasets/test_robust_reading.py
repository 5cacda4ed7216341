"""What readers must survive, seen in the published corpora: one test for each."""

import csv
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
from layouts import urban
from sounds import tone

from datasets import prepare
from datasets.corpora import (
    read_audioset,
    read_fsdkaggle2019,
    read_listing,
    read_tau2019,
    read_tau_like,
    read_tut2018,
    read_tut_sed,
)
from datasets.corpora.tut_sed import read_annotation
from datasets.shards import Index, read_labels
from datasets.source import open_source

Make = Callable[..., Path]


@pytest.fixture
def audioset(tmp_path: Path) -> Path:
    """Six training and three evaluation clips; ids begin with '-' and '--', labels stand in quoted lists."""
    root = tmp_path / "as"
    root.mkdir()
    names = ["Speech", "Male speech, man speaking", *(f"Class {i}" for i in range(525))]
    rows = "".join(f'{i},/m/{i:03},"{name}"\n' for i, name in enumerate(names))
    (root / "class_labels_indices.csv").write_text("index,mid,display_name\n" + rows)
    for kind, ids in (("balanced_train", [f"-{i}aaaaaaaaa" for i in range(6)]), ("eval", EVAL)):
        lines = [f'{ytid}, 30.000, 40.000, "/m/000,/m/001"' for ytid in ids]
        (root / f"{kind}_segments.csv").write_text(
            "# Segments csv\n# YTID, start …\n" + "\n".join(lines) + "\n"
        )
        for ytid in ids:
            soundfile.write(root / f"Y{ytid}.wav", tone(0.02), 8000)
    return root


EVAL = ["--4gqARaEJE", "-0abcdefghi", "plain_id_00"]


def sound_events(root: Path, year: int, label: str, columns: int, end: str) -> Path:
    """One year of TUT Sound Events: two recordings, one a fold; the first without events."""
    scene = "home" if year == 2016 else "street"
    folder = root / f"TUT-sound-events-{year}-development"
    for name in ("audio", "meta"):
        (folder / name / scene).mkdir(parents=True)
    (folder / "evaluation_setup").mkdir()
    for number in range(1, 5):
        file = f"audio/{scene}/a{year % 100}{number}.wav"
        soundfile.write(folder / file, tone(20, 100), 100)
        row = f"1.5\t3.0\t{label}"
        long = f"{file}\t{scene}\t{row}\tmixture\tx"
        text = "" if number == 1 else (row if columns == 3 else long) + end
        (folder / f"meta/{scene}/a{year % 100}{number}.ann").write_bytes(text.encode())
    for fold in range(1, 5):
        others = [n for n in range(2, 5) if n != fold]
        train = [f"audio/{scene}/a{year % 100}{n}.wav\t{scene}\t1.5\t3.0\t{label}" for n in others]
        test = [f"audio/{scene}/a{year % 100}{fold}.wav\t{scene}"]
        for kind, lines in (("train", train), ("test", test)):
            data = (end.join(lines) + end).encode()
            (folder / f"evaluation_setup/{scene}_fold{fold}_{kind}.txt").write_bytes(data)
    return folder


def test_crlf_and_lf_mixed_within_one_corpus(tmp_path: Path) -> None:
    root = urban(tmp_path / "c", 2019)
    expected = read_tau2019(root)
    meta = root / "meta.csv"
    lines = meta.read_bytes().split(b"\n")
    meta.write_bytes(b"\r\n".join(lines[:5]) + b"\r\n" + b"\n".join(lines[5:]))
    assert b"\r\n" in (root / "evaluation_setup/fold1_test.csv").read_bytes()
    assert read_tau2019(root) == expected


def test_a_header_in_one_year_and_none_in_the_other(tmp_path: Path) -> None:
    with_header, without = urban(tmp_path / "2019", 2019), urban(tmp_path / "2018", 2018)
    assert read_tau2019(with_header).splits == read_tut2018(without).splits


def test_txt_and_csv_for_the_same_thing(tmp_path: Path) -> None:
    """The wrong year's reader says which lists are there."""
    with pytest.raises(FileNotFoundError, match="fold1_train.csv: no such file; .* fold1_train.txt"):
        read_tau2019(urban(tmp_path / "2018", 2018))
    with pytest.raises(FileNotFoundError, match="fold1_train.txt: no such file; .* fold1_train.csv"):
        read_tut2018(urban(tmp_path / "2019", 2019))


def test_comma_and_space_between_cells(audioset: Path) -> None:
    expected = read_audioset(audioset)
    for path in audioset.glob("*_segments.csv"):
        path.write_text(path.read_text().replace(", ", ","))
    assert read_audioset(audioset) == expected


def test_quoted_comma_lists(audioset: Path) -> None:
    """A label list in one quoted cell, and a label with a comma in its own name."""
    labels = read_audioset(audioset).splits["test"][0].labels
    assert labels.events == ("Male speech, man speaking", "Speech")


def test_single_column_lists(tmp_path: Path) -> None:
    root = urban(tmp_path / "c", 2019)
    expected = read_tau2019(root)
    (root / "evaluation_setup/fold1_evaluate.csv").unlink()
    assert read_tau2019(root) == expected


def test_labels_with_slashes_spaces_and_parentheses(tau_folder: Make, tmp_path: Path) -> None:
    root = tau_folder()
    for path in (*root.glob("*.*sv"), *root.glob("evaluation_setup/*")):
        text = (
            path.read_text().replace("\tpark", "\tcafe/restaurant").replace("\tbird", "\t(object) rustling")
        )
        path.write_text(text)
    out = tmp_path / "out"
    assert prepare.main(["tau-like", "--source", str(root), "--out", str(out)]) == 0
    index = Index.load(out)
    assert index.labels.scenes == ("cafe/restaurant", "tram")
    assert index.labels.events == ("(object) rustling", "bell")
    assert {labels.scene for labels in read_labels(index, "train")} == {"cafe/restaurant", "tram"}
    assert not [path for path in out.iterdir() if path.is_dir()]


def test_ids_that_begin_with_a_hyphen(audioset: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert prepare.main(["audioset", "--source", str(audioset), "--out", str(out)]) == 0
    keys = {clip.key for _, clip in Index.load(out).splits["test"].entries()}
    assert keys == {"Y--4gqARaEJE", "Y-0abcdefghi", "Yplain_id_00"}
    # Without the Y, a file's name begins with '-' too.
    (audioset / "Y--4gqARaEJE.wav").rename(audioset / "--4gqARaEJE.wav")
    assert prepare.main(["audioset", "--source", str(audioset), "--out", str(tmp_path / "again")]) == 0
    keys = {clip.key for _, clip in Index.load(tmp_path / "again").splits["test"].entries()}
    assert "--4gqARaEJE" in keys


def test_listed_files_that_are_missing(audioset: Path, tmp_path: Path) -> None:
    """Normal in AudioSet, and counted; an error where a corpus comes whole, with the number."""
    (audioset / "Y--4gqARaEJE.wav").unlink()
    corpus = read_audioset(audioset)
    assert corpus.notes[0].startswith("eval_segments.csv: 1 of 3 segments have no clip")
    root = urban(tmp_path / "c", 2019)
    next(iter(sorted(root.glob("audio/*")))).unlink()
    with pytest.raises(FileNotFoundError, match=r"1 of 16 listed files are missing"):
        read_tau2019(root)


def test_files_that_are_present_and_not_listed(tmp_path: Path, audioset: Path) -> None:
    root = urban(tmp_path / "c", 2019)
    expected = read_tau2019(root)
    soundfile.write(root / "audio/park-lyon-1-1-a.wav", tone(), 8000)
    assert read_tau2019(root) == expected
    assert "4 of the 16 files of meta.csv are in no list of fold 1" in expected.notes
    listed = read_audioset(audioset)
    soundfile.write(audioset / "Yunlisted_00.wav", tone(), 8000)
    assert read_audioset(audioset) == listed


def test_files_that_are_listed_twice(tmp_path: Path, audioset: Path) -> None:
    root = urban(tmp_path / "c", 2019)
    expected = read_tau2019(root)
    for name in ("meta.csv", "evaluation_setup/fold1_train.csv"):
        path = root / name
        path.write_text(path.read_text() + path.read_text().splitlines()[1] + "\n")
    assert read_tau2019(root).splits == expected.splits
    path = audioset / "eval_segments.csv"
    path.write_text(path.read_text() + path.read_text().splitlines()[2] + "\n")
    corpus = read_audioset(audioset)
    assert len(corpus.splits["test"]) == 3
    assert "eval_segments.csv: 1 lines left out: their video is listed before" in corpus.notes


def test_anonymous_evaluation_names(tmp_path: Path) -> None:
    """audio/0.wav tells no scene; the lists do."""
    root = urban(tmp_path / "c", 2019)
    (root / "audio/park-lyon-1011-40120-a.wav").rename(root / "audio/0.wav")
    for path in (root / "meta.csv", *root.glob("evaluation_setup/*")):
        path.write_text(path.read_text().replace("audio/park-lyon-1011-40120-a.wav", "audio/0.wav"))
    found = {r.file: r.labels.scene for r in read_tau2019(root).splits["test"]}
    assert found["audio/0.wav"] == "park"


def test_24_bit_stereo(tmp_path: Path) -> None:
    root, out = urban(tmp_path / "c", 2019), tmp_path / "out"
    for number, path in enumerate(sorted(root.glob("audio/*"))):
        samples = np.random.default_rng(number).integers(-(2**23), 2**23, (400, 2)) * 256
        soundfile.write(path, samples.astype(np.int32), 48000, subtype="PCM_24")
    assert prepare.main(["tau2019", "--source", str(root), "--out", str(out)]) == 0
    index = Index.load(out)
    assert (index.sample_rate, index.channels, index.sample_type) == (48000, 2, "float32")
    (batch,) = open_source(out, cache=None).eval_batches("test", 8)
    for number, (_, clip) in enumerate(index.splits["test"].entries()):
        source = soundfile.read(root / f"audio/{clip.key}.wav", dtype="float32", always_2d=True)[0]
        assert np.array_equal(batch.waveform[number].numpy(), source.T)


def test_lengths_a_few_samples_off(tmp_path: Path) -> None:
    """A 10 s MP3 with 479952 samples at 48 kHz, beside clips of 480000: here at a tenth of it."""
    root, out = tmp_path / "mine", tmp_path / "out"
    root.mkdir()
    rows = ["path,split,scene"]
    lengths = {"a.wav": 48000, "b.wav": 47952, "c.wav": 48000, "d.wav": 48001, "e.mp3": 47952}
    for number, (name, length) in enumerate(lengths.items()):
        soundfile.write(root / name, tone(length / 48000, 48000), 48000)
        rows.append(f"{name},{('train', 'train', 'train', 'val', 'test')[number]},park")
    (root / "table.csv").write_text("\n".join(rows) + "\n")
    assert len(read_listing(root).splits["train"]) == 3
    assert prepare.main(["table", "--source", str(root), "--out", str(out)]) == 0
    index = Index.load(out)
    assert index.samples == 48001
    kept = {clip.key: clip.samples for split in index.splits.values() for _, clip in split.entries()}
    assert kept == {Path(name).stem: soundfile.info(root / name).frames for name in lengths}
    (batch,) = open_source(out, cache=None).eval_batches("test", 8)
    assert batch.waveform.shape == (1, 1, 48001) and batch.waveform[0, 0, kept["e"] :].abs().sum() == 0


def test_clips_without_an_event_are_known_to_have_none(tmp_path: Path, tau_folder: Make) -> None:
    """An empty row in DESED's tables, an empty .ann, a recording that the training lists can't mention."""
    labels = {r.file: r.labels for part in read_tau_like(tau_folder()).splits.values() for r in part}
    assert labels["audio/park-lisbon-0-0-a.wav"].events == ()
    corpus = read_tut_sed(sound_events(tmp_path, 2017, "people walking", 3, "\n"), fold=2)
    silent = [r.labels for part in corpus.splits.values() for r in part if "a171" in r.file]
    assert len(silent) == 2 and {clip.events for clip in silent} == {()}


def test_annotations_of_three_and_of_seven_columns_in_one_corpus(tmp_path: Path) -> None:
    sound_events(tmp_path / "both", 2016, "(object) rustling", 3, "\n")
    sound_events(tmp_path / "both", 2017, "people walking", 7, "\r\n")
    corpus = read_tut_sed(tmp_path / "both", fold=2)
    assert corpus.labels.scenes == ("home", "street")
    assert corpus.labels.events == ("(object) rustling", "people walking")
    spans = {r.labels.strong for part in corpus.splits.values() for r in part} - {()}
    assert spans == {((1.5, 3.0, "(object) rustling"),), ((1.5, 3.0, "people walking"),)}


# The real lists, where this machine has them; the clips are empty files of the right names.

REAL = Path("/work/shared/meta-formats")
needs_lists = pytest.mark.skipif(not REAL.is_dir(), reason=f"the published lists are not in {REAL}")


def link_lists(source: Path, root: Path) -> None:
    for path in source.rglob("*"):
        if path.is_file():
            target = root / path.relative_to(source)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.symlink_to(path)


def touch(root: Path, files: list[str]) -> None:
    for folder in {(root / file).parent for file in files}:
        folder.mkdir(parents=True, exist_ok=True)
    for file in files:
        (root / file).touch()


@needs_lists
@pytest.mark.parametrize(
    ("name", "train", "test"), [("tau2019", 9185, 4185), ("tut2018/reconstructed", 6122, 2518)]
)
def test_the_real_lists_of_the_urban_scenes(tmp_path: Path, name: str, train: int, test: int) -> None:
    link_lists(REAL / name, tmp_path)
    files = [line.split("\t")[0] for line in (tmp_path / "meta.csv").read_text().splitlines()[1:]]
    touch(tmp_path, files)
    corpus = (read_tau2019 if name == "tau2019" else read_tut2018)(tmp_path)
    assert len(corpus.splits["train"]) + len(corpus.splits["val"]) == train
    assert len(corpus.splits["test"]) == test
    places = [{r.labels.location for r in corpus.splits[split]} for split in ("train", "val", "test")]
    assert not places[0] & places[1] and not (places[0] | places[1]) & places[2]
    if name == "tau2019":
        assert "1030 of the 14400 files of meta.csv are in no list of fold 1" in corpus.notes


@needs_lists
def test_the_real_lists_of_audioset(tmp_path: Path) -> None:
    """The official eval list, and the training list as a copy in the wild has rewritten it."""
    source = REAL / "audioset"
    for name in ("class_labels_indices.csv", "eval_segments.csv"):
        (tmp_path / name).symlink_to(source / name)
    (tmp_path / "balanced_train_segments.csv").symlink_to(
        source / "balanced_train_segments.rewritten-copy.csv"
    )
    clips = 0
    for name in ("eval_segments.csv", "balanced_train_segments.csv"):
        lines = (tmp_path / name).read_text().splitlines()
        ids = [
            line.split(",")[0] for line in lines if not line.startswith("#") and not line.startswith("YTID")
        ]
        touch(tmp_path, [f"{name}.clips/Y{ytid}.wav" for ytid in ids[:400]])
        clips += 400
    corpus = read_audioset(tmp_path)
    assert sum(map(len, corpus.splits.values())) == clips
    assert "eval_segments.csv: 19971 of 20371 segments have no clip" in corpus.notes[0]
    assert len(corpus.labels.events) == 527 and corpus.labels.events[300] == "Vehicle"


@needs_lists
def test_the_real_lists_of_fsdkaggle2019(tmp_path: Path) -> None:
    link_lists(REAL / "fsdkaggle2019", tmp_path / "FSDKaggle2019.meta")
    for part, count in (("train_curated", 4964), ("train_noisy", 19815), ("test", 4481)):
        with open(tmp_path / f"FSDKaggle2019.meta/{part}_post_competition.csv", newline="") as file:
            names = [row["fname"] for row in csv.DictReader(file)]
        touch(tmp_path, [f"FSDKaggle2019.audio_{part}/{name}" for name in names])
        assert len(names) - (6 if part == "train_curated" else 0) == count
    corpus = read_fsdkaggle2019(tmp_path, train="both")
    assert sum(map(len, corpus.splits.values())) == 4964 + 19815 + 4481


@needs_lists
def test_the_real_annotation_of_tut_sound_events(tmp_path: Path) -> None:
    """a001.ann of 2017: seven columns, CRLF; its non-verified twin: three columns, LF."""
    folder = REAL / "tut-sed/2017-development"
    (long,), (short,) = (sorted(folder.glob(f"{top}/**/a001.ann")) for top in ("meta", "non_verified"))
    assert b"\r\n" in long.read_bytes() and b"\r\n" not in short.read_bytes()
    backwards: list[str] = []
    for path in (long, short):
        spans = read_annotation(path, "a001.wav", backwards)
        assert len(spans) + len(backwards) == len(path.read_text().split("\n")) - 1
        assert all(0 <= onset < offset for onset, offset, _ in spans)
        backwards.clear()
