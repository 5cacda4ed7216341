"""The layout of TAU Urban Acoustic Scenes 2019:

meta.csv                               filename, scene_label, identifier (the location), source_label
evaluation_setup/fold1_train.csv       filename, scene_label
evaluation_setup/fold1_evaluate.csv    filename, scene_label    the test list with its labels
evaluation_setup/fold1_test.csv        filename                 the same files without
evaluation_setup/fold1_val.csv         filename, scene_label    not in TAU; used where it is there
events_strong.tsv                      filename, onset, offset, event_label   (s; DESED's form; optional)
events_weak.tsv                        filename, event_labels (joined by commas; optional)
labels.csv                             label, kind (scene | event), index: the classes' order (optional)
audio/
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from datasets.corpora.corpus import (
    SPLITS,
    UNKNOWN,
    About,
    Corpus,
    Recording,
    Validation,
    check_folder,
    check_listed,
)
from datasets.corpora.event_tables import label_order, read_events
from datasets.corpora.hold_out import hold_out
from datasets.labels import LabelSpace
from datasets.shards import ClipLabels
from datasets.tables import Row, audio_path, read_bare_table, read_table

LAYOUT = "meta.csv, evaluation_setup/ and audio/"


@dataclass(frozen=True)
class ListForm:
    """How the lists of evaluation_setup/ are written: their suffix, and whether they have a header. `meta` is
    the list of all files, for messages."""

    suffix: str = ".csv"
    header: bool = True
    meta: str = "meta.csv"

    def read(self, path: Path) -> list[Row]:
        if self.header:
            return read_table(path, ("filename",), optional=("scene_label",))
        scenes = not path.stem.endswith("_test")
        return read_bare_table(path, ("filename", "scene_label"), least=2 if scenes else 1)


@dataclass(frozen=True)
class NamedScenes:
    """A corpus whose file names tell the scene and the place: `scene-city-place-segment-device.wav`.

    meta.csv must agree with the names; it may have no other scenes than these.
    """

    corpus: str
    scenes: tuple[str, ...]


def read_tau_like(
    folder: Path,
    *,
    fold: int = 1,
    validation: Validation = "auto",
    validation_fraction: float = 0.2,
    seed: int = 0,
    lists: ListForm = ListForm(),
    named: NamedScenes | None = None,
    about: About = UNKNOWN,
) -> Corpus:
    """Read a folder laid out as in the module's docstring.

    `validation`: "auto" takes the fold's val list, and where there is none holds out `validation_fraction` of
    the training list by location; "location" and "random" hold it out of the training list in any case.
    Random hold-out, as the papers do it, shares recording locations between training and validation.
    `named` checks the labels against the file names.
    Raises FileNotFoundError or ValueError, one line each, for anything missing, malformed or contradictory.
    """
    check_folder(folder, "meta.csv", f"{LAYOUT} as TAU2019 has them", _has_meta)
    notes: list[str] = []
    meta = _read_meta(folder, named)
    found = read_lists(folder, fold, meta, lists)
    space = label_order(folder, {labels.scene for labels in meta.values() if labels.scene})
    meta, events = read_events(folder, meta, space.events if space else None, notes)
    if space is None:
        scenes = named.scenes if named else sorted({m.scene for m in meta.values() if m.scene})
        space = LabelSpace(tuple(scenes), events)
    listed = {file for files in found.values() for file in files}
    splits = {
        name: tuple(Recording(file, meta[file]) for file in found[name]) for name in SPLITS if name in found
    }
    if "val" not in splits or validation != "auto":
        if "val" in splits:
            notes.append(f"fold{fold}_val{lists.suffix} is not used: --validation {validation} was asked for")
        by = "location" if validation == "auto" else validation
        held_out = hold_out(splits["train"], by, validation_fraction, seed, notes)
        splits = {"train": held_out[0], "val": held_out[1], "test": splits["test"]}
        if "val" in found:
            listed -= set(found["val"])
    if unlisted := len(meta) - len(listed):
        notes.append(f"{unlisted} of the {len(meta)} files of meta.csv are in no list of fold {fold}")
    if unlabelled := sum(meta[file].events is None for file in listed) if events else 0:
        notes.append(f"{unlabelled} clips are in no event table: their events count as unknown")
    return Corpus(space, splits, tuple(notes), about)


def name_parts(file: str) -> tuple[str, str] | None:
    """(scene, location) as `scene-city-place-segment-device.wav` tells them, the location as city-place;
    None for the anonymous names of evaluation sets (`audio/0.wav`)."""
    parts = file.rsplit("/", 1)[-1].rsplit(".", 1)[0].split("-")
    return (parts[0], f"{parts[1]}-{parts[2]}") if len(parts) == 5 and all(parts) else None


def _has_meta(folder: Path) -> bool:
    return (folder / "meta.csv").is_file()


def _read_meta(folder: Path, named: NamedScenes | None) -> dict[str, ClipLabels]:
    """{file: scene and location} for every line of meta.csv; all files must exist."""
    rows = read_table(folder / "meta.csv", ("filename", "scene_label", "identifier"))
    if not rows:
        raise ValueError(f"{folder / 'meta.csv'}: no lines below the header")
    meta: dict[str, ClipLabels] = {}
    listed = []
    for row in rows:
        file = audio_path(row)
        labels = ClipLabels(scene=row["scene_label"] or None, location=row["identifier"] or None)
        if labels.scene is None:
            raise ValueError(f"{row.where}: {file} has no scene_label")
        if named is not None:
            _check_name(row, file, labels, named)
        if file in meta and meta[file] != labels:
            raise ValueError(f"{row.where}: {file} is listed before with another scene or location")
        meta[file] = labels
        listed.append((row, file))
    check_listed(folder, listed)
    return meta


def _check_name(row: Row, file: str, labels: ClipLabels, named: NamedScenes) -> None:
    if labels.scene not in named.scenes:
        raise ValueError(
            f"{row.where}: scene_label {labels.scene!r} is not one of {named.corpus}'s "
            f"{len(named.scenes)}: {', '.join(named.scenes)}"
        )
    parts = name_parts(file)
    if parts is not None and parts != (labels.scene, labels.location):
        raise ValueError(
            f"{row.where}: {file} is {labels.scene!r} at {labels.location!r} here, its name says "
            f"{parts[0]!r} at {parts[1]!r}"
        )


def read_lists(
    folder: Path, fold: int, meta: Mapping[str, ClipLabels], form: ListForm
) -> dict[str, list[str]]:
    """{"train", "test" and, where there is a list, "val": files}."""
    setup = folder / "evaluation_setup"

    def path(kind: str) -> Path:
        return setup / f"fold{fold}_{kind}{form.suffix}"

    if not path("train").is_file():
        there = ", ".join(sorted(p.name for p in setup.glob("*_train.*"))) or "none"
        raise FileNotFoundError(f"{path('train')}: no such file; training lists there: {there}")
    lists = {"train": _read_list(path("train"), meta, form)}
    if path("val").is_file():
        lists["val"] = _read_list(path("val"), meta, form)
    tests = {
        kind: _read_list(path(kind), meta, form) for kind in ("evaluate", "test") if path(kind).is_file()
    }
    if not tests:
        raise FileNotFoundError(f"{path('evaluate')}: no such file, and no {path('test').name} either")
    if len(tests) == 2 and set(tests["evaluate"]) != set(tests["test"]):
        odd = sorted(set(tests["evaluate"]) ^ set(tests["test"]))
        raise ValueError(
            f"{path('evaluate')} and {path('test').name} differ in {len(odd)} files, the first is {odd[0]}"
        )
    lists["test"] = next(iter(tests.values()))
    _check_disjoint(lists, fold)
    return lists


def _read_list(path: Path, meta: Mapping[str, ClipLabels], form: ListForm) -> list[str]:
    """The files of one list in its order, each once. Scenes, where the list has them, must agree with
    meta.csv."""
    files: dict[str, None] = {}
    for row in form.read(path):
        file, scene = audio_path(row), row.cells.get("scene_label")
        if file not in meta:
            raise ValueError(f"{row.where}: {file} is not in {form.meta} ({len(meta)} files)")
        if scene and scene != meta[file].scene:
            raise ValueError(f"{row.where}: {file} is {scene!r} here and {meta[file].scene!r} in {form.meta}")
        files[file] = None
    if not files:
        raise ValueError(f"{path}: no lines{' below the header' if form.header else ''}")
    return list(files)


def _check_disjoint(lists: Mapping[str, list[str]], fold: int) -> None:
    home: dict[str, str] = {}
    for split, files in lists.items():
        for file in files:
            if file in home:
                raise ValueError(f"fold {fold}: {file} is in both the {home[file]} and the {split} list")
            home[file] = split
