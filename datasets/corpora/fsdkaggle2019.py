"""FSDKaggle2019, the corpus of DCASE 2019 task 2: 80 event classes, weak labels, scenes unknown.

    FSDKaggle2019.meta/vocabulary.csv                        index,label; no header, 80 lines
    FSDKaggle2019.meta/train_curated_post_competition.csv    fname,labels,freesound_id,license      4970
    FSDKaggle2019.meta/train_noisy_post_competition.csv      fname,labels,flickr_video_URL,license 19815
    FSDKaggle2019.meta/test_post_competition.csv             fname,labels,usage,…                   4481
    FSDKaggle2019.audio_train_curated/  …_train_noisy/  …_test/

The competition's own train_curated.csv and train_noisy.csv are taken where the post-competition lists are not
there.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from datasets.corpora.corpus import (
    About,
    Corpus,
    Recording,
    Validation,
    check_class_list,
    check_folder,
    check_listed,
)
from datasets.corpora.hold_out import hold_out
from datasets.labels import LabelSpace
from datasets.shards import ClipLabels
from datasets.tables import Row, audio_path, read_bare_table, read_table

TrainingPart = Literal["curated", "noisy", "both"]

ABOUT = About(
    "CC BY 4.0 for the set; each clip its own (CC0, CC BY, CC BY-NC, CC Sampling+; noisy: CC BY, BY-SA 2.0)",
    "Fonseca, Plakal, Font, Ellis, Serra, Audio tagging with noisy labels and minimal supervision, "
    "DCASE 2019",
)
CLASSES = 80
# The corpus's README: five curated clips with a wrong label, one without a signal.
BAD = ("f76181c4", "77b925c2", "6a1f682a", "c7db12aa", "7752cc8a", "1d44b0bd")
LAYOUT = "FSDKaggle2019.meta/ and FSDKaggle2019.audio_train_curated/ …_train_noisy/ …_test/"


def read_fsdkaggle2019(
    folder: Path,
    *,
    train: TrainingPart = "curated",
    validation: Validation = "auto",
    validation_fraction: float = 0.2,
    seed: int = 0,
) -> Corpus:
    """The training clips of `train`, the test clips of the competition (public and private), and a validation
    split drawn at random from the training clips: from the curated ones where they are used, as the labels of
    the noisy ones are not to be trusted.

    Raises FileNotFoundError or ValueError, one line each, for anything missing, malformed or unknown, and for
    validation "location", which this corpus does not tell.
    """
    if validation == "location":
        raise ValueError("--validation location: FSDKaggle2019 tells no recording locations; use random")
    check_folder(folder, "vocabulary.csv", LAYOUT, lambda path: _meta_folder(path) is not None)
    meta = _meta_folder(folder) or folder
    events = _vocabulary(meta / "vocabulary.csv")
    notes: list[str] = []
    parts = ("curated", "noisy") if train == "both" else (train,)
    clips = {part: _read_part(folder, meta, f"train_{part}", events, notes) for part in parts}
    first, val = hold_out(clips[parts[0]], "random", validation_fraction, seed, notes)
    splits = {
        "train": first + tuple(clip for part in parts[1:] for clip in clips[part]),
        "val": val,
        "test": tuple(_read_part(folder, meta, "test", events, notes)),
    }
    return Corpus(LabelSpace((), events), splits, tuple(notes), ABOUT)


def _meta_folder(folder: Path) -> Path | None:
    places = (folder / "FSDKaggle2019.meta", folder)
    return next((place for place in places if (place / "vocabulary.csv").is_file()), None)


def _vocabulary(path: Path) -> tuple[str, ...]:
    rows = read_bare_table(path, ("index", "label"), delimiter=",")
    check_class_list(path, rows, CLASSES)
    return tuple(row["label"] for row in rows)


def _read_part(
    folder: Path, meta: Path, part: str, events: tuple[str, ...], notes: list[str]
) -> list[Recording]:
    """The clips of train_curated, train_noisy or test, each once, without the known bad ones."""
    path = _first(meta, (f"{part}_post_competition.csv", f"{part}.csv"))
    names = (f"FSDKaggle2019.audio_{part}", f"audio_{part}", part)
    audio = next((name for name in names if (folder / name).is_dir()), names[0])
    found: dict[str, ClipLabels] = {}
    listed = []
    bad = 0
    for row in read_table(path, ("fname", "labels"), delimiter=","):
        file = f"{audio}/{audio_path(row, 'fname')}"
        if Path(file).stem in BAD:
            bad += 1
            continue
        labels = ClipLabels(events=_labels(row, events), curated=part != "train_noisy")
        if found.get(file, labels) != labels:
            raise ValueError(f"{row.where}: {file} is listed before with other labels")
        found[file] = labels
        listed.append((row, file))
    if not found:
        raise ValueError(f"{path}: no lines below the header")
    if bad:
        notes.append(f"{path.name}: {bad} clips left out that the corpus's authors know to be bad")
    check_listed(folder, listed)
    return [Recording(file, labels) for file, labels in found.items()]


def _labels(row: Row, events: tuple[str, ...]) -> tuple[str, ...]:
    names = sorted({name.strip() for name in row["labels"].split(",")})
    if unknown := [name for name in names if name not in events]:
        raise ValueError(
            f"{row.where}: {unknown[0]!r} is not one of the {len(events)} labels of vocabulary.csv"
        )
    return tuple(names)


def _first(folder: Path, names: tuple[str, ...]) -> Path:
    for name in names:
        if (folder / name).is_file():
            return folder / name
    raise FileNotFoundError(f"{folder}: no {' or '.join(names)}")
