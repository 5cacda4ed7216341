"""TUT Acoustic Scenes 2016 and 2017, development sets: 15 scenes, clips of 30 s (2016) or 10 s (2017),
44.1 kHz, 24-bit, binaural.

    meta.txt                                  file, scene (optional: the lists of all folds say the same)
    error.txt                                 file, onset, offset, what: stretches where the recording failed
    evaluation_setup/fold{1..4}_train.txt     file, scene
    evaluation_setup/fold{1..4}_evaluate.txt  file, scene    the test list with its labels
    evaluation_setup/fold{1..4}_test.txt      file           the same files without
    audio/<location>_<start>_<end>.wav

TAB, no headers, LF or CRLF. The part of a file's name before the first '_' is the recording that it was cut
from, and that stands for its location.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path, PurePosixPath

from datasets.corpora.corpus import About, Corpus, Recording, Validation, check_folder, check_listed
from datasets.corpora.event_tables import forwards, note_backwards, seconds
from datasets.corpora.hold_out import hold_out
from datasets.corpora.tau_like import ListForm, read_lists
from datasets.labels import LabelSpace
from datasets.shards import ClipLabels
from datasets.tables import Row, audio_path, read_bare_table

ABOUT = About(
    "Tampere University of Technology, non-commercial use; see EULA.pdf of the download",
    "Mesaros, Heittola, Virtanen, TUT database for acoustic scene classification and sound event detection, "
    "EUSIPCO 2016; Mesaros et al., DCASE 2017 challenge setup: tasks, datasets and baseline system, "
    "DCASE 2017",
)
SCENES = 15
LAYOUT = "evaluation_setup/ and audio/ of TUT Acoustic Scenes 2016 or 2017"
SETUP = "evaluation_setup"


def read_tut_as(
    folder: Path,
    *,
    fold: int = 1,
    validation: Validation = "auto",
    validation_fraction: float = 0.2,
    seed: int = 0,
) -> Corpus:
    """The clips of fold `fold` (1 to 4), validation held out of its training list, by location unless
    `validation` is "random".

    Training and validation clips with a damaged stretch in error.txt are left out; those of the test list
    stay, as the published scores count them; both are counted in the notes. Raises FileNotFoundError or
    ValueError, one line each, for anything missing, malformed or contradictory.
    """
    check_folder(folder, f"{SETUP}/", LAYOUT, lambda path: (path / SETUP).is_dir())
    notes: list[str] = []
    meta = _read_meta(folder, notes)
    lists = read_lists(folder, fold, meta, ListForm(".txt", header=False, meta="the list of all files"))
    scenes = tuple(sorted({str(labels.scene) for labels in meta.values()}))
    if len(scenes) != SCENES:
        notes.append(f"{len(scenes)} scenes; the published set has {SCENES}")
    damaged = _read_errors(folder / "error.txt", meta, notes)
    training = [file for file in lists["train"] if file not in damaged]
    if left_out := len(lists["train"]) - len(training):
        notes.append(f"error.txt: {left_out} training clips with a damaged stretch left out")
    if kept := [file for file in lists["test"] if file in damaged]:
        total = sum(damaged[file] for file in kept)
        notes.append(f"error.txt: {len(kept)} test clips have {total:.1f} s of damaged stretches; kept")
    if unlisted := len(meta) - len(lists["train"]) - len(lists["test"]):
        notes.append(f"{unlisted} of the {len(meta)} files are in no list of fold {fold}")
    by = "location" if validation == "auto" else validation
    recordings = [Recording(file, meta[file]) for file in training]
    first, val = hold_out(recordings, by, validation_fraction, seed, notes)
    test = tuple(Recording(file, meta[file]) for file in lists["test"])
    return Corpus(LabelSpace(scenes, ()), {"train": first, "val": val, "test": test}, tuple(notes), ABOUT)


def location(file: str) -> str:
    """b020 of audio/b020_90_100.wav."""
    return PurePosixPath(file).stem.split("_")[0]


def _read_meta(folder: Path, notes: list[str]) -> dict[str, ClipLabels]:
    """{file: scene and location} from meta.txt, or from the lists of every fold where there is none."""
    meta = folder / "meta.txt"
    setup = folder / SETUP
    # Every fold's lists: the baselines of DCASE 2016 and 2017 leave out the last one's when they do this.
    lists = [path for kind in ("train", "evaluate") for path in sorted(setup.glob(f"fold*_{kind}.txt"))]
    paths = [meta] if meta.is_file() else lists
    found: dict[str, ClipLabels] = {}
    listed: list[tuple[Row, str]] = []
    for path in paths:
        for row in read_bare_table(path, ("filename", "scene_label")):
            file = audio_path(row)
            labels = ClipLabels(scene=row["scene_label"], location=location(file))
            if not labels.scene:
                raise ValueError(f"{row.where}: {file} has no scene")
            if found.setdefault(file, labels) != labels:
                raise ValueError(
                    f"{row.where}: {file} is {labels.scene!r} here and {found[file].scene!r} before"
                )
            listed.append((row, file))
    if again := len(listed) - len(found) if meta.is_file() else 0:
        notes.append(f"meta.txt: {again} lines are about a file that is listed before")
    if not found:
        raise FileNotFoundError(f"{setup}: no fold<k>_train.txt, and no {meta.name} in {folder}")
    check_listed(folder, listed)
    return found


def _read_errors(path: Path, meta: Mapping[str, ClipLabels], notes: list[str]) -> dict[str, float]:
    """{file: seconds of damaged stretches}"""
    if not path.is_file():
        notes.append("no error.txt: clips with damaged stretches, if any, are used")
        return {}
    damaged: defaultdict[str, float] = defaultdict(float)
    unknown: list[str] = []
    backwards: list[str] = []
    for row in read_bare_table(path, ("filename", "onset", "offset", "label"), least=3):
        file = audio_path(row)
        if file not in meta:
            unknown.append(file)
            continue
        onset, offset = seconds(row, "onset"), seconds(row, "offset")
        # A stretch without a length still says that there is damage.
        damaged[file] += offset - onset if forwards(row, onset, offset, backwards) else 0.0
    note_backwards(backwards, notes)
    if unknown:
        notes.append(f"error.txt: {len(unknown)} lines are about files that are not listed ({unknown[0]})")
    return dict(damaged)
