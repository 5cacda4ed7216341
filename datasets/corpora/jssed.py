"""JSSED (Bear, Nolasco, Benetos, Interspeech 2019): 3000 clips of 30 s, 10 scenes, 32 events with times.

Neither its audio nor the layout of its annotations is public, so this reads a generic form into which either
can be brought, and which `datasets.prepare jssed-recipe` writes:

    scenes.tsv          filename, scene_label[, split][, location]     one line a clip
    events_strong.tsv   filename, onset, offset, event_label           s; a clip without a line has no event
    labels.csv          label, kind (scene | event), index             optional: other classes than JSSED's

TAB (labels.csv: comma), with a header. Published tables spell the events in several ways (key_lock, keylock,
bus-passby, bus_passby): names that agree without '-', '_', spaces and capitals are the same.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from datasets.corpora.corpus import SPLITS, About, Corpus, Recording, Validation, check_folder, check_listed
from datasets.corpora.event_tables import label_order, read_events
from datasets.corpora.hold_out import hold_out
from datasets.labels import LabelSpace
from datasets.shards import ClipLabels
from datasets.tables import Row, audio_path, read_table

ABOUT = About(
    "unknown: ask its authors",
    "Bear, Nolasco, Benetos, Towards joint sound scene and polyphonic sound event recognition, "
    "Interspeech 2019",
)
MIXED = About(
    "that of the recordings it is mixed from",
    "mixed by scenetune's jssed-recipe, after Bear, Nolasco, Benetos, Interspeech 2019",
)
SCENES = (
    "bus", "busystreet", "office", "openairmarket", "park", "quietstreet", "restaurant", "supermarket",
    "tube", "tubestation",
)  # fmt: skip
EVENTS = (
    "bagrustle", "birdsong", "buspassby", "chairsmoving", "checkoutbeeps", "clearthroat", "cooking", "cough",
    "doorclose", "doorslam", "drawer", "footsteps", "footstepsongrass", "gate", "keylock", "keys", "knock",
    "lake", "laughter", "lightrain", "mindthegap", "money", "motorbike", "phone", "pushbike", "running",
    "slidingdoorclose", "speech", "switch", "train", "trolley", "wind",
)  # fmt: skip
CLIPS = "scenes.tsv"
LAYOUT = f"{CLIPS}, events_strong.tsv and the clips"
# 2400 / 300 / 300 of 3000, as papers 000 §V-A and its reference [7] split it.
HELD_OUT = 0.1
DRAWN_WITH = 2019


def read_jssed(
    folder: Path,
    *,
    validation: Validation = "auto",
    validation_fraction: float = 0.2,
    seed: int = 0,
) -> Corpus:
    """The clips with their splits: those of the column `split`; where there is none, a tenth of each scene's
    clips for test and a tenth for validation, drawn with a fixed seed (2400 / 300 / 300 of 3000), whole
    locations at a time where the list tells locations.

    `validation` "location" and "random" hold out of the training clips instead. Raises FileNotFoundError or
    ValueError, one line each, and for a name that is none of the classes.
    """
    check_folder(folder, CLIPS, LAYOUT, lambda path: (path / CLIPS).is_file())
    notes: list[str] = []
    space = label_order(folder, set()) or LabelSpace(SCENES, EVENTS)
    meta, splits = _read_clips(folder, space, notes)
    clips, _ = read_events(
        folder,
        meta,
        space.events,
        notes,
        clip_list=CLIPS,
        class_list="JSSED's classes (labels.csv gives others)" if space.events == EVENTS else "labels.csv",
        spelling=spelling,
    )
    # Every clip was annotated: one without a line holds nothing.
    clips = {
        file: labels if labels.events is not None else replace(labels, events=(), strong=())
        for file, labels in clips.items()
    }
    lists = _given(splits, folder / CLIPS) if any(splits.values()) else _drawn(clips, notes)
    found = {split: tuple(Recording(file, clips[file]) for file in lists[split]) for split in SPLITS}
    if validation != "auto":
        together = found["train"] + found["val"]
        notes.append(f"the val clips are trained on: --validation {validation} was asked for")
        first, val = hold_out(together, validation, validation_fraction, seed, notes)
        found = {"train": first, "val": val, "test": found["test"]}
    return Corpus(space, found, tuple(notes), MIXED if is_mixed(folder) else ABOUT)


def is_mixed(folder: Path) -> bool:
    """Whether jssed-recipe made it."""
    return (folder / "recipe.json").is_file()


def spelling(name: str) -> str:
    """What the spellings of a class have in common: `bus-passby`, `bus_passby` and `busPassby` are one."""
    return "".join(name.split()).replace("-", "").replace("_", "").lower()


def _read_clips(
    folder: Path, space: LabelSpace, notes: list[str]
) -> tuple[dict[str, ClipLabels], dict[str, str]]:
    """({file: scene and location}, {file: split, "" where the list does not tell})"""
    known = {spelling(scene): scene for scene in space.scenes}
    rows = read_table(folder / CLIPS, ("filename", "scene_label"), optional=("split", "location"))
    if not rows:
        raise ValueError(f"{folder / CLIPS}: no lines below the header")
    meta: dict[str, ClipLabels] = {}
    splits: dict[str, str] = {}
    listed: list[tuple[Row, str]] = []
    for row in rows:
        file, split = audio_path(row), row.cells.get("split", "")
        scene = known.get(spelling(row["scene_label"]))
        if scene is None:
            raise ValueError(
                f"{row.where}: scene_label {row['scene_label']!r} is not one of {', '.join(space.scenes)}; "
                "for other classes than JSSED's give labels.csv"
            )
        if split not in ("", *SPLITS):
            raise ValueError(f"{row.where}: split {split!r} is not one of {', '.join(SPLITS)}")
        labels = ClipLabels(scene=scene, location=row.cells.get("location") or None)
        if file in meta and (meta[file], splits[file]) != (labels, split):
            raise ValueError(f"{row.where}: {file} is listed before with another scene, split or location")
        meta[file], splits[file] = labels, split
        listed.append((row, file))
    if again := len(listed) - len(meta):
        notes.append(f"{CLIPS}: {again} lines are about a file that is listed before")
    check_listed(folder, listed)
    return meta, splits


def _given(splits: Mapping[str, str], path: Path) -> dict[str, list[str]]:
    if missing := [file for file, split in splits.items() if not split]:
        raise ValueError(
            f"{path}: {missing[0]} has no split ({len(missing)} of {len(splits)}); give all or none"
        )
    lists = {split: [file for file, found in splits.items() if found == split] for split in SPLITS}
    for split, files in lists.items():
        if not files:
            raise ValueError(f"{path}: no clip of split {split!r}")
    return lists


def _drawn(meta: Mapping[str, ClipLabels], notes: list[str]) -> dict[str, list[str]]:
    """A tenth of each scene for test, a tenth for validation."""
    places = all(labels.location for labels in meta.values())
    of_scene: dict[str, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    for file in sorted(meta):
        labels = meta[file]
        of_scene[str(labels.scene)][str(labels.location) if places else file].append(file)
    rng = np.random.default_rng(DRAWN_WITH)
    lists: dict[str, list[str]] = {split: [] for split in SPLITS}
    for scene in sorted(of_scene):
        groups = of_scene[scene]
        order = [sorted(groups)[place] for place in rng.permutation(len(groups))]
        drawn = _tenths(order)
        for split in SPLITS:
            lists[split] += [file for name in drawn[split] for file in groups[name]]
    if not lists["val"] or not lists["test"]:
        raise ValueError(f"{len(meta)} clips are too few to draw splits from; give a column 'split'")
    notes.append(
        f"splits drawn by scene with seed {DRAWN_WITH}: "
        + " / ".join(str(len(lists[s])) for s in SPLITS)
        + (
            ", no location in two of them"
            if places
            else "; the list tells no locations, so splits share them"
        )
    )
    return lists


def _tenths(order: Sequence[str]) -> dict[str, Sequence[str]]:
    count = max(1, round(HELD_OUT * len(order))) if len(order) >= len(SPLITS) else 0
    return {"test": order[:count], "val": order[count : 2 * count], "train": order[2 * count :]}
