"""The joint set of Imoto et al. (paper 001): 266 min of TUT Acoustic Scenes and TUT Sound Events 2016 and
2017, 4 scenes and 25 events with onsets and offsets.

    metadata_SEDandASC01/meta/meta_development.txt, meta_evaluation.txt                192 and 74 min
    metadata_SEDandASC01/crossvaridation/meta_fold0{1..4}_development.txt, …_evaluation.txt   (its spelling)
    TUT-sound-events-2016-development/audio/home/a030.wav …            the audio, as the lists name it
    TUT-acoustic-scenes-2016-development/audio/b113_30_60.wav …        and of 2017, development and evaluation

The lists: TAB, a header path, scene_label, event_start_time, event_end_time, event_label, one line an event
with times from the file's start. So a recording without any event is in no list, and not in the set. Layout
and names are those of github.com/KeisukeImoto/metadata_SEDandASC01; some versions of its lists say "people
speaking" where the others say "people talking". Recordings of 10 s to 5 min are cut into clips of 10 s, as
the paper uses them; how its authors treat what remains at the end is not known.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path

from datasets.corpora.corpus import About, Corpus, Recording, Validation, check_folder, check_listed
from datasets.corpora.cut import check_clip_seconds, cut, note_remainders
from datasets.corpora.event_tables import forwards, note_backwards, seconds
from datasets.corpora.hold_out import hold_out
from datasets.corpora.tut_as import location
from datasets.labels import LabelSpace
from datasets.shards import ClipLabels
from datasets.tables import Row, audio_path, read_table

ABOUT = About(
    "audio: Tampere University of Technology, non-commercial use (EULA.pdf of each download); annotations: "
    "none stated",
    "Imoto, Tonami, Koizumi, Yasuda, Yamanishi, Yamashita, Sound event detection by multitask learning of "
    "sound events and scenes with soft scene labels, ICASSP 2020; Mesaros, Heittola, Virtanen, TUT database "
    "for acoustic scene classification and sound event detection, EUSIPCO 2016",
)
SCENES = ("city_center", "home", "office", "residential_area")
EVENTS = (
    "(object) banging", "(object) impact", "(object) rustling", "(object) snapping", "(object) squeaking",
    "bird singing", "brakes squeaking", "breathing", "car", "children", "cupboard", "cutlery", "dishes",
    "drawer", "fan", "glass jingling", "keyboard typing", "large vehicle", "mouse clicking", "mouse wheeling",
    "people talking", "people walking", "washing dishes", "water tap running", "wind blowing",
)  # fmt: skip
RENAMED = {"people speaking": "people talking"}
FOLDS = 4
COLUMNS = ("path", "scene_label", "event_start_time", "event_end_time", "event_label")
DEVELOPMENT = "meta/meta_development.txt"
LAYOUT = f"metadata_SEDandASC01/{DEVELOPMENT} and the TUT-… folders that it names"


@dataclass
class Annotated:
    """What the lists say of one recording."""

    scene: str
    line: Row
    spans: list[tuple[float, float, str]] = field(default_factory=list)


def read_imoto(
    folder: Path,
    *,
    fold: int = 0,
    clip_seconds: float = 10.0,
    validation: Validation = "auto",
    validation_fraction: float = 0.2,
    seed: int = 0,
) -> Corpus:
    """Fold 0: the development set for training and the evaluation set for test, as paper 001; 1 to 4: that
    fold of the development set. Validation is held out of the training recordings, by original recording
    unless `validation` is "random".

    Raises FileNotFoundError or ValueError, one line each, for anything missing, malformed or contradictory
    and for a scene or event that is none of the set's.
    """
    check_clip_seconds(clip_seconds)
    if not 0 <= fold <= FOLDS:
        raise ValueError(f"--fold {fold}: 0 = development and evaluation set, 1 to {FOLDS} = a fold of it")
    check_folder(folder, DEVELOPMENT, LAYOUT, lambda path: _metadata(path) is not None)
    notes: list[str] = []
    paths = _lists(_metadata(folder) or folder, fold)
    clips: dict[str, list[Recording]] = {}
    remainders = []
    names: set[str] = set()
    for side, path in paths.items():
        annotated = _read_list(path, notes)
        check_listed(folder, [(found.line, file) for file, found in annotated.items()])
        if both := sorted(names & set(annotated)):
            raise ValueError(f"{path}: {both[0]} is in the training list too")
        names |= set(annotated)
        clips[side] = []
        for file, found in annotated.items():
            labels = ClipLabels(found.scene, (), tuple(found.spans), location(file))
            parts, remainder = cut(folder, file, labels, clip_seconds, notes)
            clips[side] += parts
            remainders.append(remainder)
    note_remainders(remainders, notes)
    by = "location" if validation == "auto" else validation
    first, val = hold_out(clips["train"], by, validation_fraction, seed, notes)
    splits = {"train": first, "val": val, "test": tuple(clips["test"])}
    return Corpus(LabelSpace(SCENES, EVENTS), splits, tuple(notes), ABOUT)


def _metadata(folder: Path) -> Path | None:
    places = [folder, *sorted(path for path in folder.iterdir() if path.is_dir())]
    return next((place for place in places if (place / DEVELOPMENT).is_file()), None)


def _lists(metadata: Path, fold: int) -> dict[str, Path]:
    """{"train", "test": the list}"""
    if fold == 0:
        return {"train": metadata / DEVELOPMENT, "test": metadata / "meta/meta_evaluation.txt"}
    spelt = [metadata / name for name in ("crossvaridation", "crossvalidation")]
    folder = next((place for place in spelt if place.is_dir()), spelt[0])
    return {
        "train": folder / f"meta_fold{fold:02}_development.txt",
        "test": folder / f"meta_fold{fold:02}_evaluation.txt",
    }


def _read_list(path: Path, notes: list[str]) -> dict[str, Annotated]:
    """{file: what is said of it}"""
    found: dict[str, Annotated] = {}
    backwards: list[str] = []
    renamed: defaultdict[str, int] = defaultdict(int)
    for row in read_table(path, COLUMNS):
        file = audio_path(row, "path")
        scene, event = row["scene_label"], RENAMED.get(row["event_label"], row["event_label"])
        for kind, name, known in (("scene", scene, SCENES), ("event", event, EVENTS)):
            if name not in known:
                raise ValueError(f"{row.where}: {kind} {name!r} is not one of the {len(known)} of the set")
        recording = found.setdefault(file, Annotated(scene, row))
        if recording.scene != scene:
            raise ValueError(f"{row.where}: {file} is {scene!r} here and {recording.scene!r} before")
        renamed[row["event_label"]] += row["event_label"] in RENAMED
        onset, offset = seconds(row, "event_start_time"), seconds(row, "event_end_time")
        if forwards(row, onset, offset, backwards):
            recording.spans.append((onset, offset, event))
    if not found:
        raise ValueError(f"{path}: no lines below the header")
    note_backwards(backwards, notes)
    for name, count in renamed.items():
        if count:
            notes.append(f"{path.name}: {count} events {name!r} are called {RENAMED[name]!r}")
    return found
