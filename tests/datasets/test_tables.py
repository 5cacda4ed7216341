from pathlib import Path

import pytest

from datasets.tables import Row, audio_path, read_table

COLUMNS = ("filename", "scene_label")


def write(tmp_path: Path, data: bytes) -> Path:
    path = tmp_path / "list.csv"
    path.write_bytes(data)
    return path


@pytest.mark.parametrize(
    "data",
    [
        b"filename\tscene_label\naudio/a.wav\tpark\naudio/b.wav\ttram\n",
        b"filename\tscene_label\r\naudio/a.wav\tpark\naudio/b.wav\ttram",
        b"\xef\xbb\xbffilename\tscene_label\r\n\r\naudio/a.wav \t park\r\naudio/b.wav\ttram\r\n\r\n\r\n",
        b'filename\tscene_label\naudio/a.wav\t"park"\n"audio/b.wav"\ttram\n',
        b"source\tscene_label\tfilename\nx\tpark\taudio/a.wav\ny\ttram\taudio/b.wav\n",
    ],
)
def test_the_same_table_in_many_clothes(tmp_path: Path, data: bytes) -> None:
    rows = read_table(write(tmp_path, data), COLUMNS)
    assert [(row["filename"], row["scene_label"]) for row in rows] == [
        ("audio/a.wav", "park"),
        ("audio/b.wav", "tram"),
    ]


def test_line_numbers_are_the_file_s_own(tmp_path: Path) -> None:
    rows = read_table(write(tmp_path, b"filename\tscene_label\n\n\na\tb\n"), COLUMNS)
    assert rows[0].where.endswith("list.csv, line 4")


def test_single_column_and_cut_off_cells(tmp_path: Path) -> None:
    rows = read_table(write(tmp_path, b"filename\naudio/-a.wav\n"), ("filename",), optional=("scene_label",))
    assert rows[0].cells == {"filename": "audio/-a.wav"}
    rows = read_table(write(tmp_path, b"filename\tonset\toffset\na.wav\n"), ("filename", "onset", "offset"))
    assert rows[0].cells == {"filename": "a.wav", "onset": "", "offset": ""}


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", r"empty; expected the header 'filename\\tscene_label'"),
        (
            b"filename,scene_label\na,b\n",
            "not tab-separated .* found 'filename,scene_label'; use the original",
        ),
        (b"audio/a.wav\tpark\n", r"expected the header 'filename\\tscene_label', found 'audio/a.wav\\tpark'"),
        (b"filename\tscene_label\na\tb\tc\n", "line 2: 3 cells, the header has 2"),
        (b"filename\tscene_label\n\xff\xfe\tb\n", "not UTF-8 text"),
        (b'filename\tscene_label\n"a\tb\nc\td\n', "quoted cell is not closed"),
    ],
)
def test_what_is_wrong_is_one_line(tmp_path: Path, data: bytes, message: str) -> None:
    with pytest.raises(ValueError, match=message) as error:
        read_table(write(tmp_path, data), COLUMNS)
    assert "list.csv" in str(error.value) and "\n" not in str(error.value)


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="list.csv: no such file"):
        read_table(tmp_path / "list.csv", COLUMNS)


@pytest.mark.parametrize("name", ["audio/a.wav", "audio\\a.wav", "./audio//a.wav"])
def test_paths_are_brought_to_one_form(name: str) -> None:
    assert audio_path(Row("t, line 1", {"filename": name})) == "audio/a.wav"


@pytest.mark.parametrize("name", ["", "/etc/passwd", "../a.wav", "audio/../../a.wav", "C:\\a.wav", "."])
def test_paths_out_of_the_corpus_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match="t, line 1: filename .* is not a file inside the corpus folder"):
        audio_path(Row("t, line 1", {"filename": name}))
