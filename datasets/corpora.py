"""Corpora as their makers lay them out, read into one form: which files, which split, which labels.

`tau_like` is the layout of TAU Urban Acoustic Scenes 2019:

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

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np

from datasets.labels import LabelSpace
from datasets.shards import ClipLabels
from datasets.tables import Row, audio_path, read_table

Validation = Literal["auto", "location", "random"]


@dataclass(frozen=True)
class About:
    """What a published corpus asks of its users."""

    licence: str
    citation: str


_TAMPERE = "Tampere University, non-commercial experimental use; the notice must travel with every copy"
ABOUT: Mapping[str, About] = {
    "tau2019": About(
        _TAMPERE,
        "Heittola, Mesaros, Virtanen, TAU Urban Acoustic Scenes 2019, Development dataset; "
        "Mesaros, Heittola, Virtanen, A multi-device dataset for urban acoustic scene classification, "
        "DCASE 2018",
    ),
    "tut2018": About(
        _TAMPERE,
        "Mesaros, Heittola, Virtanen, A multi-device dataset for urban acoustic scene classification, "
        "DCASE 2018",
    ),
    "jssed": About(
        "unknown: ask its authors",
        "Bear, Nolasco, Benetos, Towards joint sound scene and polyphonic sound event recognition, "
        "Interspeech 2019",
    ),
}
UNKNOWN = About("unknown: see the documents of the source", "")


@dataclass(frozen=True)
class Recording:
    """An audio file of a corpus, by its path inside the corpus folder, with what is known of it."""

    file: str
    labels: ClipLabels


@dataclass(frozen=True)
class Corpus:
    """A corpus ready to be prepared. `notes` are sentences about what was left out or looked odd, with
    counts."""

    labels: LabelSpace
    splits: Mapping[str, tuple[Recording, ...]]
    notes: tuple[str, ...]


def read_tau_like(
    folder: Path,
    *,
    fold: int = 1,
    validation: Validation = "auto",
    validation_fraction: float = 0.2,
    seed: int = 0,
) -> Corpus:
    """Read a folder laid out as in the module's docstring.

    `validation`: "auto" takes the fold's val list, and where there is none holds out `validation_fraction` of
    the training list by location; "location" and "random" hold it out of the training list in any case.
    Random hold-out, as the papers do it, shares recording locations between training and validation.
    Raises FileNotFoundError or ValueError, one line each, for anything missing, malformed or contradictory.
    """
    _check_folder(folder)
    notes: list[str] = []
    meta = _read_meta(folder)
    lists = _read_lists(folder, fold, meta)
    space = _label_order(folder, {labels.scene for labels in meta.values() if labels.scene})
    meta, events = _read_events(folder, meta, space.events if space else None, notes)
    if space is None:
        space = LabelSpace(tuple(sorted({m.scene for m in meta.values() if m.scene})), events)
    if "val" not in lists or validation != "auto":
        if "val" in lists:
            notes.append(f"fold{fold}_val.csv is not used: --validation {validation} was asked for")
        by = "location" if validation == "auto" else validation
        lists["train"], lists["val"] = _hold_out(lists["train"], meta, by, validation_fraction, seed, notes)
    listed = {file for files in lists.values() for file in files}
    if unlisted := len(meta) - len(listed):
        notes.append(f"{unlisted} of the {len(meta)} files of meta.csv are in no list of fold {fold}")
    if unlabelled := sum(meta[file].events is None for file in listed) if events else 0:
        notes.append(f"{unlabelled} clips are in no event table: their events count as unknown")
    splits = {
        name: tuple(Recording(file, meta[file]) for file in lists[name]) for name in ("train", "val", "test")
    }
    return Corpus(space, splits, tuple(notes))


def _check_folder(folder: Path) -> None:
    if not folder.is_dir():
        raise FileNotFoundError(
            f"{folder}: {'a file, not a folder' if folder.exists() else 'no such folder'}"
        )
    if not any(folder.iterdir()):
        raise FileNotFoundError(
            f"{folder}: the folder is empty; expected meta.csv, evaluation_setup/ and audio/"
        )
    if not (folder / "meta.csv").is_file():
        raise FileNotFoundError(
            f"{folder}: no meta.csv; expected meta.csv, evaluation_setup/ and audio/ as TAU2019 has them"
        )


def _read_meta(folder: Path) -> dict[str, ClipLabels]:
    """{file: scene and location} for every line of meta.csv; all files must exist."""
    rows = read_table(folder / "meta.csv", ("filename", "scene_label", "identifier"))
    if not rows:
        raise ValueError(f"{folder / 'meta.csv'}: no lines below the header")
    meta: dict[str, ClipLabels] = {}
    missing: list[tuple[Row, str]] = []
    for row in rows:
        file = audio_path(row)
        labels = ClipLabels(scene=row["scene_label"] or None, location=row["identifier"] or None)
        if labels.scene is None:
            raise ValueError(f"{row.where}: {file} has no scene_label")
        if file in meta and meta[file] != labels:
            raise ValueError(f"{row.where}: {file} is listed before with another scene or location")
        meta[file] = labels
        if not (folder / file).is_file():
            missing.append((row, file))
    if missing:
        row, file = missing[0]
        raise FileNotFoundError(
            f"{row.where}: {file} is not in {folder} ({len(missing)} of {len(rows)} listed files are missing)"
        )
    return meta


def _read_lists(folder: Path, fold: int, meta: Mapping[str, ClipLabels]) -> dict[str, list[str]]:
    """{"train", "test" and, where there is a list, "val": files}."""
    setup = folder / "evaluation_setup"

    def path(kind: str) -> Path:
        return setup / f"fold{fold}_{kind}.csv"

    if not path("train").is_file():
        there = ", ".join(sorted(p.name for p in setup.glob("*_train.csv"))) or "none"
        raise FileNotFoundError(f"{path('train')}: no such file; training lists there: {there}")
    lists = {"train": _read_list(path("train"), meta)}
    if path("val").is_file():
        lists["val"] = _read_list(path("val"), meta)
    tests = {kind: _read_list(path(kind), meta) for kind in ("evaluate", "test") if path(kind).is_file()}
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


def _read_list(path: Path, meta: Mapping[str, ClipLabels]) -> list[str]:
    """The files of one list in its order, each once. Scenes, where the list has them, must agree with
    meta.csv."""
    files: dict[str, None] = {}
    for row in read_table(path, ("filename",), optional=("scene_label",)):
        file, scene = audio_path(row), row.cells.get("scene_label")
        if file not in meta:
            raise ValueError(f"{row.where}: {file} is not in meta.csv ({len(meta)} files)")
        if scene and scene != meta[file].scene:
            raise ValueError(f"{row.where}: {file} is {scene!r} here and {meta[file].scene!r} in meta.csv")
        files[file] = None
    if not files:
        raise ValueError(f"{path}: no lines below the header")
    return list(files)


def _check_disjoint(lists: Mapping[str, list[str]], fold: int) -> None:
    home: dict[str, str] = {}
    for split, files in lists.items():
        for file in files:
            if file in home:
                raise ValueError(f"fold {fold}: {file} is in both the {home[file]} and the {split} list")
            home[file] = split


def _label_order(folder: Path, scenes: set[str]) -> LabelSpace | None:
    """The classes in labels.csv's order; None without that file."""
    path = folder / "labels.csv"
    if not path.is_file():
        return None
    found: dict[str, dict[int, str]] = {"scene": {}, "event": {}}
    for row in read_table(path, ("label", "kind", "index"), delimiter=","):
        if row["kind"] not in found:
            continue  # other kinds, such as the textures of a mixed corpus, are no classes
        names, index = found[row["kind"]], row["index"]
        if not index.isdigit() or int(index) in names:
            raise ValueError(
                f"{row.where}: index {index!r} of {row['label']!r} is not a number, or not the only one"
            )
        names[int(index)] = row["label"]
    for kind, names in found.items():
        if sorted(names) != list(range(len(names))):
            raise ValueError(
                f"{path}: {kind} indices are {sorted(names)}, expected 0 to {len(names) - 1} without gaps"
            )
    ordered = {kind: tuple(names[i] for i in range(len(names))) for kind, names in found.items()}
    if unknown := sorted(scenes - set(ordered["scene"])):
        raise ValueError(
            f"meta.csv has the scene {unknown[0]!r}, which is not one of labels.csv: "
            f"{', '.join(ordered['scene'])}"
        )
    return LabelSpace(ordered["scene"], ordered["event"])


def _read_events(
    folder: Path, meta: dict[str, ClipLabels], known: tuple[str, ...] | None, notes: list[str]
) -> tuple[dict[str, ClipLabels], tuple[str, ...]]:
    """Put the event tables' labels on the files; give back the event names too, sorted unless `known` in
    order.

    A file with strong or weak rows has known events; a file in no table has unknown ones.
    """
    strong = _read_strong(folder / "events_strong.tsv", meta, notes)
    weak = _read_weak(folder / "events_weak.tsv", meta, notes)
    labelled = {}
    differing = 0
    for file, labels in meta.items():
        spans = strong.get(file)
        timed = {name for _, _, name in spans} if spans is not None else set()
        named = weak.get(file, timed if spans is not None else None)
        differing += file in weak and spans is not None and named != timed
        events = None if named is None else tuple(sorted(named | timed))
        labelled[file] = replace(
            labels, events=events, strong=None if spans is None else tuple(sorted(spans))
        )
    if differing:
        notes.append(
            f"{differing} clips have other events in events_weak.tsv than in events_strong.tsv: both are kept"
        )
    names = {name for labels in labelled.values() for name in labels.events or ()}
    if known is None:
        return labelled, tuple(sorted(names))
    if unknown := sorted(names - set(known)):
        raise ValueError(f"the event {unknown[0]!r} is not one of labels.csv: {', '.join(known) or 'none'}")
    return labelled, known


def _read_strong(
    path: Path, meta: Mapping[str, ClipLabels], notes: list[str]
) -> dict[str, list[tuple[float, float, str]]]:
    """{file: [(onset s, offset s, event)]}; a row without an event says the file has none."""
    if not path.is_file():
        return {}
    found: dict[str, list[tuple[float, float, str]]] = {}
    backwards = []
    for row, file in _rows_of(path, ("filename", "onset", "offset", "event_label"), meta, notes):
        spans = found.setdefault(file, [])
        if not row["event_label"] and not row["onset"] and not row["offset"]:
            continue
        onset, offset = _seconds(row, "onset"), _seconds(row, "offset")
        if not row["event_label"]:
            raise ValueError(f"{row.where}: onset and offset without an event_label")
        if 0 <= onset < offset:
            spans.append((onset, offset, row["event_label"]))
        else:
            backwards.append(f"{row.where}: {onset} to {offset}")
    if backwards:
        notes.append(
            f"{len(backwards)} events left out: the onset is negative or not before the offset "
            f"({backwards[0]})"
        )
    return found


def _read_weak(path: Path, meta: Mapping[str, ClipLabels], notes: list[str]) -> dict[str, set[str]]:
    """{file: events}"""
    if not path.is_file():
        return {}
    found: dict[str, set[str]] = {}
    for row, file in _rows_of(path, ("filename", "event_labels"), meta, notes):
        names = {name.strip() for name in row["event_labels"].split(",")} - {""}
        found[file] = found.get(file, set()) | names
    return found


def _rows_of(
    path: Path, columns: tuple[str, ...], meta: Mapping[str, ClipLabels], notes: list[str]
) -> Iterable[tuple[Row, str]]:
    """The rows about files of meta.csv; others are counted, and a table about other files altogether is
    refused."""
    rows = [(row, audio_path(row)) for row in read_table(path, columns)]
    kept = [(row, file) for row, file in rows if file in meta]
    if rows and not kept:
        raise ValueError(
            f"{path}: none of its {len(rows)} lines is about a file of meta.csv; the first is {rows[0][1]}"
        )
    if len(kept) < len(rows):
        notes.append(
            f"{path.name}: {len(rows) - len(kept)} of {len(rows)} lines are about files that meta.csv "
            "does not have"
        )
    return kept


def _seconds(row: Row, column: str) -> float:
    try:
        value = float(row[column])
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise ValueError(f"{row.where}: {column} {row[column]!r} is not a time in seconds")
    return value


def _hold_out(
    files: list[str], meta: Mapping[str, ClipLabels], by: str, fraction: float, seed: int, notes: list[str]
) -> tuple[list[str], list[str]]:
    """(training, validation) files, about `fraction` of each scene's in validation, neither part ever
    empty."""
    if not 0 < fraction < 1:
        raise ValueError(f"a validation fraction of {fraction}: accepted are values between 0 and 1")
    rng = np.random.default_rng(seed)
    held: set[str] = set()
    whole_scenes = []
    of_scene: dict[str, list[str]] = defaultdict(list)
    for file in sorted(files):
        of_scene[str(meta[file].scene)].append(file)
    for scene in sorted(of_scene):
        groups: dict[str, list[str]] = defaultdict(list)
        for file in of_scene[scene]:
            groups[str(meta[file].location) if by == "location" else file].append(file)
        if len(groups) < 2:
            whole_scenes.append(scene)
            continue
        held |= _draw(groups, fraction * len(of_scene[scene]), rng)
    if not held:
        raise ValueError(
            f"no validation clips can be held out by {by}: every scene has one {by} only; give a val "
            "list, or --validation random"
        )
    if whole_scenes:
        notes.append(f"no validation clips for {', '.join(whole_scenes)}: only one {by} in training")
    notes.append(f"validation: {len(held)} of {len(files)} training files held out by {by} (seed {seed})")
    return [file for file in files if file not in held], [file for file in files if file in held]


def _draw(groups: Mapping[str, list[str]], wanted: float, rng: np.random.Generator) -> set[str]:
    """Whole groups in random order until they hold about `wanted` files; at least one group, never all."""
    names = sorted(groups)
    order = [names[place] for place in rng.permutation(len(names))]
    drawn: set[str] = set()
    for name in order[:-1]:
        # Take the group when that brings the count nearer to what is wanted.
        if drawn and len(drawn) + len(groups[name]) / 2 > wanted:
            break
        drawn |= set(groups[name])
    return drawn
