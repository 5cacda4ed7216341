"""FSDKaggle2019 in its true layout: no header in the vocabulary, CRLF in one list, quoted comma lists."""

from pathlib import Path

import pytest
import soundfile
from sounds import tone

from datasets import prepare
from datasets.corpora import read_fsdkaggle2019
from datasets.shards import ClipLabels, Index, read_labels
from datasets.source import open_source

EVENTS = ["Applause", "Bathtub_(filling_or_washing)", "Crowd", *(f"Event_{i:02d}" for i in range(77))]


@pytest.fixture
def fsd(tmp_path: Path) -> Path:
    root = tmp_path / "fsd"
    meta = root / "FSDKaggle2019.meta"
    meta.mkdir(parents=True)
    (meta / "vocabulary.csv").write_text("".join(f"{i},{name}\n" for i, name in enumerate(EVENTS)))
    lists = {
        "train_curated": ("freesound_id", "\r\n", ["ac9e7a91", "65ae847e", "0006ae4e", "-abc", "f76181c4"]),
        "train_noisy": ("flickr_video_URL", "\n", ["00097e21", "000b6cfb"]),
        "test": ("usage,freesound_id", "\n", ["d527f12d", "4030a4f2", "ffffffff"]),
    }
    for part, (column, end, stems) in lists.items():
        (root / f"FSDKaggle2019.audio_{part}").mkdir()
        rows = [f"fname,labels,{column},license"]
        for place, stem in enumerate(stems):
            labels = '"Applause,Crowd"' if place == 1 else "Bathtub_(filling_or_washing)"
            rows.append(f"{stem}.wav,{labels},{'Private,1' if part == 'test' else '1'},CC-BY-NC")
            sound = tone(0.02 * (place + 1))
            soundfile.write(root / f"FSDKaggle2019.audio_{part}/{stem}.wav", sound, 8000, subtype="PCM_16")
        (meta / f"{part}_post_competition.csv").write_bytes((end.join(rows) + end).encode())
    return root


def stems(clips) -> set[str]:
    return {Path(clip.file).stem for clip in clips}


def test_the_true_layout(fsd: Path) -> None:
    corpus = read_fsdkaggle2019(fsd, validation_fraction=0.25)
    assert {name: len(part) for name, part in corpus.splits.items()} == {"train": 3, "val": 1, "test": 3}
    assert corpus.labels.scenes == () and corpus.labels.events == tuple(EVENTS)
    labels = {Path(r.file).stem: r.labels for part in corpus.splits.values() for r in part}
    assert labels["65ae847e"].events == ("Applause", "Crowd") and labels["65ae847e"].scene is None
    assert labels["ac9e7a91"].events == ("Bathtub_(filling_or_washing)",)
    assert "f76181c4" not in labels and any("1 clips left out that" in note for note in corpus.notes)
    assert corpus.about.licence.startswith("CC BY 4.0")


def test_noisy_and_both(fsd: Path) -> None:
    noisy = read_fsdkaggle2019(fsd, train="noisy", validation_fraction=0.5)
    assert stems(noisy.splits["train"] + noisy.splits["val"]) == {"00097e21", "000b6cfb"}
    both = read_fsdkaggle2019(fsd, train="both")
    assert stems(both.splits["val"]) < {"ac9e7a91", "65ae847e", "0006ae4e", "-abc"}
    assert len(both.splits["train"]) + len(both.splits["val"]) == 6


def test_the_competition_s_own_list_names(fsd: Path) -> None:
    expected = read_fsdkaggle2019(fsd)
    meta = fsd / "FSDKaggle2019.meta"
    old = meta / "train_curated_post_competition.csv"
    old.rename(meta / "train_curated.csv")
    corpus = read_fsdkaggle2019(fsd)
    assert corpus.splits == expected.splits


def test_the_command(fsd: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert prepare.main(["fsdkaggle2019", "--source", str(fsd), "--out", str(out)]) == 0
    index = Index.load(out)
    assert index.corpus == "fsdkaggle2019" and "Fonseca" in index.citation
    assert all(labels.scene is None for labels in read_labels(index, "train"))
    (batch,) = open_source(out, cache=None).eval_batches("test", 8)
    assert batch.scene.shape == (3, 0) and batch.events.shape == (3, 80) and batch.events.sum() == 4


@pytest.mark.parametrize(
    ("file", "old", "new", "message"),
    [
        (
            "test_post_competition.csv",
            '"Applause,Crowd"',
            "Aplause",
            "line 3: 'Aplause' is not one of the 80",
        ),
        ("test_post_competition.csv", ",", "\t", "expected the header 'fname,labels', found"),
        ("test_post_competition.csv", "fname", "file", "expected the header 'fname,labels', found"),
        ("vocabulary.csv", "0,Applause\n", "", "line 1: index '1', expected 0"),
        ("vocabulary.csv", "79,Event_76\n", "", "79 classes, expected 80"),
        ("train_curated_post_competition.csv", "65ae847e", "gone", "1 of 4 listed files are missing"),
        ("test_post_competition.csv", "4030a4f2", "d527f12d", "listed before with other labels"),
    ],
)
def test_bad_input_is_one_clear_line(fsd: Path, file: str, old: str, new: str, message: str) -> None:
    path = fsd / "FSDKaggle2019.meta" / file
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))
    with pytest.raises((ValueError, FileNotFoundError)) as error:
        read_fsdkaggle2019(fsd)
    assert message in str(error.value) and "\n" not in str(error.value)


def test_there_are_no_locations(fsd: Path) -> None:
    with pytest.raises(ValueError, match="tells no recording locations"):
        read_fsdkaggle2019(fsd, validation="location")


def test_labels_that_nobody_has_checked_are_marked_and_others_keep_their_bytes(fsd: Path) -> None:
    corpus = read_fsdkaggle2019(fsd, train="both")
    flags = {Path(r.file).stem: r.labels.curated for part in corpus.splits.values() for r in part}
    assert not flags["00097e21"] and flags["65ae847e"] and flags["d527f12d"]
    for curated in (True, False, None):
        labels = ClipLabels(events=("Crowd",), curated=curated)
        assert ClipLabels.from_json(labels.to_json()) == labels
    assert b"curated" not in ClipLabels(scene="park").to_json()
    with pytest.raises(ValueError, match="'curated' is 'no', expected true, false or null"):
        ClipLabels.from_json(b'{"curated": "no"}')
