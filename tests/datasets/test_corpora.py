from collections.abc import Callable
from pathlib import Path

import pytest

from datasets.corpora import Corpus, read_tau_like

Make = Callable[..., Path]


def change(path: Path, old: str, new: str, count: int = -1) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, count))


def files(corpus: Corpus, split: str) -> set[str]:
    return {recording.file for recording in corpus.splits[split]}


def places(corpus: Corpus, split: str) -> set[str | None]:
    return {recording.labels.location for recording in corpus.splits[split]}


def test_splits_labels_and_counts(tau_folder: Make) -> None:
    corpus = read_tau_like(tau_folder())
    assert {name: len(part) for name, part in corpus.splits.items()} == {"train": 12, "val": 6, "test": 4}
    assert corpus.labels.scenes == ("park", "tram") and corpus.labels.events == ("bell", "bird")
    by_file = {r.file: r.labels for part in corpus.splits.values() for r in part}
    assert by_file["audio/park-lisbon-0-1-a.wav"].events == ("bell",)
    assert by_file["audio/park-lisbon-0-1-a.wav"].strong == ((0.01, 0.05, "bell"),)
    assert by_file["audio/park-lisbon-0-0-a.wav"].events == ()  # a row that says: none
    assert by_file["audio/park-lisbon-0-0-a.wav"].location == "lisbon-00"
    assert corpus.notes == ("2 of the 24 files of meta.csv are in no list of fold 1",)


def test_the_same_corpus_resaved_on_windows(tau_folder: Make) -> None:
    expected = read_tau_like(tau_folder("a"))
    root = tau_folder("b")
    for path in (*root.glob("*.*sv"), *root.glob("*/*.csv")):
        text = path.read_text().replace("audio/", "audio\\").replace("\n", "\r\n")
        path.write_bytes(b"\xef\xbb\xbf" + text.encode() + b"\r\n\r\n")
    assert read_tau_like(root) == expected


def test_a_test_list_without_labels_is_enough(tau_folder: Make) -> None:
    root = tau_folder()
    (root / "evaluation_setup/fold1_evaluate.csv").unlink()
    assert len(read_tau_like(root).splits["test"]) == 4


def test_validation_by_location_is_the_default_without_a_val_list(tau_folder: Make) -> None:
    corpus = read_tau_like(tau_folder(val=False), validation_fraction=0.3)
    assert len(corpus.splits["train"]) == 12 and len(corpus.splits["val"]) == 6
    assert not places(corpus, "train") & places(corpus, "val")
    assert {r.labels.scene for r in corpus.splits["val"]} == {"park", "tram"}
    assert "validation: 6 of 18 training files held out by location (seed 0)" in corpus.notes


def test_validation_at_random_shares_locations_as_the_papers_do(tau_folder: Make) -> None:
    root = tau_folder(val=False)
    corpus = read_tau_like(root, validation="random", validation_fraction=0.3)
    assert len(corpus.splits["val"]) == 6 and places(corpus, "train") >= places(corpus, "val")
    assert not files(corpus, "train") & files(corpus, "val")
    again = read_tau_like(root, validation="random", validation_fraction=0.3)
    other = read_tau_like(root, validation="random", validation_fraction=0.3, seed=1)
    assert files(again, "val") == files(corpus, "val") != files(other, "val")


def test_asking_for_a_hold_out_leaves_the_val_list_alone(tau_folder: Make) -> None:
    corpus = read_tau_like(tau_folder(), validation="location", validation_fraction=0.5)
    assert len(corpus.splits["train"]) + len(corpus.splits["val"]) == 12
    assert "fold1_val.csv is not used: --validation location was asked for" in corpus.notes


def test_label_order_is_labels_csv_s(tau_folder: Make) -> None:
    root = tau_folder()
    (root / "labels.csv").write_text(
        'label,kind,index,more\ntram,scene,0,"a,b"\npark,scene,1,\nbird,event,1,\nbell,event,0,\nrain,texture,0,\n'
    )
    labels = read_tau_like(root).labels
    assert labels.scenes == ("tram", "park") and labels.events == ("bell", "bird")


def test_without_event_tables_events_are_unknown(tau_folder: Make) -> None:
    root = tau_folder()
    (root / "events_weak.tsv").unlink()
    strong_only = read_tau_like(root)
    assert strong_only.splits["train"][1].labels.events == ("bell",)
    (root / "events_strong.tsv").unlink()
    corpus = read_tau_like(root)
    assert corpus.labels.events == () and {r.labels.events for r in corpus.splits["train"]} == {None}


def test_clips_in_no_event_table_are_unknown_and_counted(tau_folder: Make) -> None:
    root = tau_folder()
    for name in ("events_weak.tsv", "events_strong.tsv"):
        lines = (root / name).read_text().splitlines()
        (root / name).write_text("\n".join(line for line in lines if "park-lisbon-0-" not in line))
    corpus = read_tau_like(root)
    assert "3 clips are in no event table: their events count as unknown" in corpus.notes
    assert [r.labels.events for r in corpus.splits["train"]].count(None) == 3


def test_backwards_events_are_counted_and_left_out(tau_folder: Make) -> None:
    root = tau_folder()
    change(root / "events_strong.tsv", "0-1-a.wav\t0.01\t0.05", "0-1-a.wav\t0.05\t0.05")
    corpus = read_tau_like(root)
    (note,) = [note for note in corpus.notes if "events left out" in note]
    assert note.startswith("2 events left out: the onset is negative or not before the offset (")
    labels = next(r.labels for r in corpus.splits["train"] if r.file == "audio/park-lisbon-0-1-a.wav")
    assert labels.strong == () and labels.events == ("bell",)


def test_tables_that_disagree_are_joined_and_counted(tau_folder: Make) -> None:
    root = tau_folder()
    change(root / "events_weak.tsv", "park-lisbon-0-1-a.wav\tbell", "park-lisbon-0-1-a.wav\tbird")
    corpus = read_tau_like(root)
    assert next(r.labels for r in corpus.splits["train"] if "0-1" in r.file).events == ("bell", "bird")
    assert any(note.startswith("1 clips have other events") for note in corpus.notes)


META, SETUP = "meta.csv", "evaluation_setup"


@pytest.mark.parametrize(
    ("break_it", "message"),
    [
        (lambda r: (r / META).unlink(), "no meta.csv; expected meta.csv, evaluation_setup/ and audio/"),
        (lambda r: (r / META).write_text("filename\tscene_label\tidentifier\n"), "no lines below the header"),
        (lambda r: change(r / META, "\t", ","), "not tab-separated"),
        (lambda r: change(r / META, "scene_label", "scene"), "expected the header"),
        (
            lambda r: change(r / META, "\tpark\t", "\t\t", 1),
            "line 2: audio/park-lisbon-0-0-a.wav has no scene_label",
        ),
        (
            lambda r: (r / "audio/tram-lisbon-3-2-a.wav").unlink(),
            "line 25: audio/tram-lisbon-3-2-a.wav is not in .* (1 of 24 listed files are missing)",
        ),
        (lambda r: change(r / META, "park-lisbon-0-1-a", "../x", 1), "not a file inside the corpus folder"),
        (
            lambda r: (
                change(r / META, "park-lisbon-0-1-a", "park-lisbon-0-0-a")
                or change(r / META, "0-0-a.wav\tpark\tlisbon-00", "0-0-a.wav\tpark\tlisbon-99", 1)
            ),
            "listed before with another",
        ),
        (lambda r: (r / SETUP / "fold1_train.csv").unlink(), "no such file; training lists there: none"),
        (
            lambda r: change(r / SETUP / "fold1_train.csv", "park-lisbon-0-1", "nowhere"),
            "is not in meta.csv (24 files)",
        ),
        (
            lambda r: change(r / SETUP / "fold1_train.csv", "\tpark", "\ttram", 1),
            "'tram' here and 'park' in meta.csv",
        ),
        (
            lambda r: (r / SETUP / "fold1_val.csv").write_text((r / SETUP / "fold1_train.csv").read_text()),
            "in both the train and the val list",
        ),
        (
            lambda r: [p.unlink() for p in (r / SETUP).glob("*_[te][ev]*[te].csv")],
            "fold1_evaluate.csv: no such file",
        ),
        (
            lambda r: change(r / SETUP / "fold1_test.csv", "audio/park-lisbon-3-0-a.wav\n", ""),
            "differ in 1 files",
        ),
        (
            lambda r: change(r / "events_strong.tsv", "\t0.01\t", "\tsoon\t", 1),
            "onset 'soon' is not a time in seconds",
        ),
        (
            lambda r: change(r / "events_strong.tsv", "\t0.05\t", "\tnan\t", 1),
            "offset 'nan' is not a time in seconds",
        ),
        (
            lambda r: change(r / "events_strong.tsv", "\tbell", "\t", 1),
            "onset and offset without an event_label",
        ),
        (
            lambda r: change(r / "events_weak.tsv", "audio/", "sound/"),
            "none of its 24 lines is about a file of meta.csv",
        ),
        (
            lambda r: (r / "labels.csv").write_text(
                "label,kind,index\npark,scene,0\nbird,event,0\nbell,event,1\n"
            ),
            "meta.csv has the scene 'tram', which is not one of labels.csv: park",
        ),
        (
            lambda r: (r / "labels.csv").write_text(
                "label,kind,index\npark,scene,0\ntram,scene,1\nbird,event,0\n"
            ),
            "the event 'bell' is not one of labels.csv: bird",
        ),
        (
            lambda r: (r / "labels.csv").write_text("label,kind,index\npark,scene,0\ntram,scene,2\n"),
            "without gaps",
        ),
    ],
)
def test_bad_input_is_one_clear_line(tau_folder: Make, break_it, message: str) -> None:
    root = tau_folder()
    break_it(root)
    with pytest.raises((ValueError, FileNotFoundError)) as error:
        read_tau_like(root)
    text = str(error.value)
    assert all(part in text for part in message.split(".*")) and "\n" not in text


def test_folders_that_are_missing_or_empty(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="nowhere: no such folder"):
        read_tau_like(tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match="the folder is empty"):
        read_tau_like(tmp_path)


def test_other_folds_are_named(tau_folder: Make) -> None:
    with pytest.raises(
        FileNotFoundError, match="fold3_train.csv: no such file; training lists there: fold1_train.csv"
    ):
        read_tau_like(tau_folder(), fold=3)


@pytest.mark.parametrize("fraction", [0.0, 1.0, -1.0, float("nan")])
def test_nonsense_fractions(tau_folder: Make, fraction: float) -> None:
    with pytest.raises(ValueError, match="accepted are values between 0 and 1"):
        read_tau_like(tau_folder(val=False), validation_fraction=fraction)
