"""One table for any recordings: the same content as CSV, TSV and parquet."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import soundfile
from sounds import tone

from datasets import prepare
from datasets.corpora import Corpus, read_listing
from datasets.shards import ClipLabels, Index

Table = list[dict[str, Any]]


def strong() -> Table:
    """Four training files at two locations, one for test; a file with two events, one with none."""
    rows: Table = []
    for i in range(5):
        row = {
            "path": f"sounds/clip {i}.wav",
            "split": "test" if i == 4 else "train",
            "scene": "cafe/restaurant",
            "location": f"place{i % 2}",
        }
        rows.append({**row, "events": "(object) rustling" if i else "", "onset": 0.01 if i else None})
        rows[-1]["offset"] = 0.03 if i else None
        if i == 2:
            rows.append({**row, "events": "speech, male", "onset": 0.0, "offset": 0.05})
    return rows


def weak() -> Table:
    rows: Table = []
    for i in range(6):
        split = ("train", "train", "train", "val", "test", "test")[i]
        events = ("dog,car", "", "dog", "car", "dog", "dog")[i]
        rows.append({"path": f"sounds/clip {i}.wav", "split": split, "events": events})
    return rows


def write(root: Path, rows: Table, form: str = "csv") -> Path:
    (root / "sounds").mkdir(parents=True)
    for row in rows:
        soundfile.write(root / row["path"], tone(0.05), 8000, subtype="PCM_16")
    frame = pd.DataFrame(rows)
    if form == "parquet":
        frame.to_parquet(root / "table.parquet")
    else:
        frame.to_csv(root / f"table.{form}", sep="," if form == "csv" else "\t", index=False)
    return root


def labels(corpus: Corpus) -> dict[str, ClipLabels]:
    return {Path(r.file).stem: r.labels for part in corpus.splits.values() for r in part}


@pytest.mark.parametrize("form", ["csv", "tsv", "parquet"])
def test_strong_labels(tmp_path: Path, form: str) -> None:
    corpus = read_listing(write(tmp_path / "c", strong(), form))
    assert {name: len(part) for name, part in corpus.splits.items()} == {"train": 2, "val": 2, "test": 1}
    assert corpus.labels.scenes == ("cafe/restaurant",)
    assert corpus.labels.events == ("(object) rustling", "speech, male")
    found = labels(corpus)
    assert found["clip 0"].events == () == found["clip 0"].strong
    both = ((0.0, 0.05, "speech, male"), (0.01, 0.03, "(object) rustling"))
    assert found["clip 2"].strong == both and found["clip 2"].location == "place0"
    kept = {r.labels.location for r in corpus.splits["train"]}
    assert kept.isdisjoint({r.labels.location for r in corpus.splits["val"]})


@pytest.mark.parametrize("form", ["csv", "tsv", "parquet"])
def test_weak_labels_and_a_val_split(tmp_path: Path, form: str) -> None:
    corpus = read_listing(write(tmp_path / "c", weak(), form))
    assert {name: len(part) for name, part in corpus.splits.items()} == {"train": 3, "val": 1, "test": 2}
    found = labels(corpus)
    assert found["clip 0"] == ClipLabels(events=("car", "dog")) and found["clip 1"].events == ()


def test_parquet_with_lists(tmp_path: Path) -> None:
    rows = weak()
    expected = read_listing(write(tmp_path / "a", rows))
    for row in rows:
        row["events"] = [name for name in row["events"].split(",") if name]
    root = write(tmp_path / "b", rows, "parquet")
    assert read_listing(root) == expected
    rows[0]["events"] = ["speech, male"]
    pd.DataFrame(rows).to_parquet(root / "table.parquet")
    with pytest.raises(ValueError, match="row 1: event 'speech, male' holds the separator ','"):
        read_listing(root)
    assert "speech, male" in read_listing(root, separator=";").labels.events


def test_scenes_only_leave_the_events_unknown(tmp_path: Path) -> None:
    rows = [{"path": r["path"], "split": r["split"], "scene": "park"} for r in weak()]
    found = labels(read_listing(write(tmp_path / "c", rows)))
    assert set(found.values()) == {ClipLabels(scene="park")}


def test_a_file_with_untimed_events_has_no_strong_labels(tmp_path: Path) -> None:
    rows = strong()
    rows[1]["onset"] = rows[1]["offset"] = None
    found = labels(read_listing(write(tmp_path / "c", rows)))
    assert found["clip 1"].strong is None and found["clip 1"].events == ("(object) rustling",)


def test_the_command(tmp_path: Path) -> None:
    root, out = write(tmp_path / "c", strong()), tmp_path / "out"
    (root / "table.csv").rename(root / "mine.csv")
    args = ["table", "--source", str(root), "--out", str(out), "--list-file", "mine.csv"]
    about = ["--licence", "CC BY 4.0", "--citation", "Me, My sounds, 2026"]
    assert prepare.main([*args, "--corpus", "mine", "--validation", "random", *about]) == 0
    index = Index.load(out)
    assert (index.licence, index.citation) == ("CC BY 4.0", "Me, My sounds, 2026")
    assert index.corpus == "mine" and index.splits["train"].clips == 3
    assert index.labels.scenes == ("cafe/restaurant",)


def test_backwards_events_are_counted(tmp_path: Path) -> None:
    rows = strong()
    rows[1]["offset"] = 0.01
    corpus = read_listing(write(tmp_path / "c", rows))
    assert any(note.startswith("1 events left out: the onset is negative or not") for note in corpus.notes)
    assert labels(corpus)["clip 1"].events == ()


def put(row: int, column: str, value: Any) -> Callable[[Table], object]:
    return lambda rows: rows[row].__setitem__(column, value)


def rename(old: str, new: str) -> Callable[[Table], object]:
    return lambda rows: [row.__setitem__(new, row.pop(old)) for row in rows]


@pytest.mark.parametrize("form", ["csv", "parquet"])
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (put(1, "split", "dev"), ": split 'dev' is not one of train, val, test"),
        (put(1, "path", "../x.wav"), "is not a file inside the corpus folder"),
        (put(3, "scene", "park"), "listed before with another split, scene or location"),
        (put(1, "events", ""), "onset and offset without an event"),
        (put(5, "split", "train"), "no row of split 'test'; found: train"),
        (rename("path", "file"), "'path"),
        (rename("offset", "end"), "onset, offset and events must come together"),
        (rename("events", "labels"), "onset, offset and events must come together"),
    ],
)
def test_bad_tables_are_one_clear_line(
    tmp_path: Path, change: Callable[[Table], object], message: str, form: str
) -> None:
    root = write(tmp_path / "c", strong(), form)
    rows = strong()
    change(rows)
    frame = pd.DataFrame(rows)
    frame.to_csv(root / "table.csv", index=False) if form == "csv" else frame.to_parquet(
        root / "table.parquet"
    )
    with pytest.raises((ValueError, FileNotFoundError)) as error:
        read_listing(root)
    assert message in str(error.value) and "\n" not in str(error.value)


def test_other_bad_input(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="the folder is empty"):
        read_listing(tmp_path)
    root = write(tmp_path / "c", weak())
    (root / "labels.csv").write_text("label,kind,index\ndog,event,0\n")
    with pytest.raises(ValueError, match="the event 'car' is not one of labels.csv: dog"):
        read_listing(root)
    (root / "table.parquet").write_bytes(b"PAR1")
    with pytest.raises(ValueError, match="table.csv and table.parquet are both there"):
        read_listing(root)
    with pytest.raises(ValueError, match="table.parquet: not a parquet file"):
        read_listing(root, table="table.parquet")
    (root / "sounds/clip 3.wav").unlink()
    with pytest.raises(FileNotFoundError, match="1 of 6 listed files are missing"):
        read_listing(root, table="table.csv")
