"""TAU2019 and TUT2018 in their true layouts: 24-bit stereo, lists with and without header."""

from pathlib import Path

import pytest
import soundfile
from layouts import urban
from sounds import tone

from datasets import prepare
from datasets.corpora import Corpus, read_tau2019, read_tut2018
from datasets.corpora.tau_like import name_parts
from datasets.shards import Index

READERS = {2018: read_tut2018, 2019: read_tau2019}


def read(root: Path, year: int) -> Corpus:
    return READERS[year](root)


@pytest.mark.parametrize("year", [2018, 2019])
def test_the_true_layout(tmp_path: Path, year: int) -> None:
    corpus = read(urban(tmp_path / "c", year), year)
    assert {name: len(part) for name, part in corpus.splits.items()} == {"train": 4, "val": 4, "test": 4}
    assert len(corpus.labels.scenes) == 10 and corpus.labels.scenes[3] == "metro_station"
    assert "4 of the 16 files of meta.csv are in no list of fold 1" in corpus.notes
    assert {r.labels.location for r in corpus.splits["test"]} == {"lyon-1001", "lyon-1011"}
    assert "Tampere" in corpus.about.licence and "DCASE 2018" in corpus.about.citation


@pytest.mark.parametrize("name", ["tut2018", "tau2019"])
def test_the_command(tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    root = urban(tmp_path / "c", int(name[-4:]))
    (root / "LICENSE").write_text("notice")
    assert prepare.main([name, "--source", str(root), "--out", str(tmp_path / "out")]) == 0
    assert "in no list of fold 1" in capsys.readouterr().out
    index = Index.load(tmp_path / "out")
    assert index.corpus == name and index.channels == 2 and index.sample_type == "float32"
    assert "Tampere" in index.licence and index.citation and (tmp_path / "out/LICENSE").is_file()


def test_the_readers_name_the_other_year_s_lists(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"fold1_train.csv: no such file; .* fold1_train.txt"):
        read(urban(tmp_path / "c", 2018), 2019)


def test_a_2018_list_with_a_header_is_read_too(tmp_path: Path) -> None:
    root = urban(tmp_path / "c", 2018)
    expected = read(root, 2018)
    path = root / "evaluation_setup/fold1_train.txt"
    path.write_text("filename\tscene_label\n" + path.read_text())
    assert read(root, 2018) == expected


def test_names_tell_scene_and_place() -> None:
    assert name_parts("audio/metro_station-lisbon-1000-40000-a.wav") == ("metro_station", "lisbon-1000")
    assert name_parts("audio/0.wav") is None and name_parts("a-b") is None


def change(path: Path, old: str, new: str, count: int = -1) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, count))


@pytest.mark.parametrize(
    ("year", "file", "old", "new", "message"),
    [
        (2019, "meta.csv", "\tpark\t", "\t4\t", "scene_label '4' is not one of TAU2019's 10: airport, bus"),
        (2019, "meta.csv", "\tpark\t", "\ttram\t", "'tram' at 'barcelona-10' here, its name says 'park' at"),
        (2019, "meta.csv", "\tbarcelona-0\t", "\toslo-0\t", "at 'oslo-0' here, its name says"),
        (2019, "meta.csv", "\t", ",", "not tab-separated (a re-save?)"),
        (2018, "evaluation_setup/fold1_train.txt", "\t", ",", "not tab-separated (a re-save?)"),
        (2018, "evaluation_setup/fold1_evaluate.txt", "\t", ",", "not tab-separated (a re-save?)"),
        (2018, "evaluation_setup/fold1_train.txt", "\tpark", "\tpark\tx", "without a header, found"),
        (2018, "evaluation_setup/fold1_train.txt", "audio/park", "audio/lake", "is not in meta.csv (16"),
    ],
)
def test_bad_lists_are_one_clear_line(
    tmp_path: Path, year: int, file: str, old: str, new: str, message: str
) -> None:
    root = urban(tmp_path / "c", year)
    change(root / file, old, new)
    with pytest.raises(ValueError) as error:
        read(root, year)
    assert message in str(error.value) and "\n" not in str(error.value)


def test_a_folder_too_high_says_where_to_look(tmp_path: Path) -> None:
    urban(tmp_path / "TAU-urban-acoustic-scenes-2019-development", 2019)
    with pytest.raises(FileNotFoundError, match="it is in TAU-.*-development/: give that as the source"):
        read(tmp_path, 2019)


def test_a_listed_file_that_is_not_there(tmp_path: Path) -> None:
    root = urban(tmp_path / "c", 2019)
    next(root.glob("audio/park-*")).unlink()
    with pytest.raises(FileNotFoundError, match="1 of 16 listed files are missing"):
        read(root, 2019)


def test_anonymous_names_and_files_listed_twice(tmp_path: Path) -> None:
    root = urban(tmp_path / "c", 2019)
    soundfile.write(root / "audio/0.wav", tone(0.05, channels=2), 8000, subtype="PCM_24")
    for file, line in (("meta.csv", "\tbus\t\ta"), ("evaluation_setup/fold1_train.csv", "\tbus")):
        with open(root / file, "a") as table:
            table.write(f"audio/0.wav{line}\naudio/0.wav{line}\n")
    corpus = read(root, 2019)
    files = [r.file for name in ("train", "val") for r in corpus.splits[name]]
    assert files.count("audio/0.wav") == 1 and len(files) == 9


def test_an_evaluation_set_is_not_a_development_set(tmp_path: Path) -> None:
    (tmp_path / "evaluation_setup").mkdir()
    (tmp_path / "evaluation_setup/test.csv").write_bytes(b"filename\r\naudio/0.wav\r\n")
    with pytest.raises(FileNotFoundError, match="no meta.csv; expected"):
        read(tmp_path, 2019)
