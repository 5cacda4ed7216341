"""DCASE 2013 scenes: ten scenes, ten binaural recordings of 30 s of each, 44.1 kHz.

    scenes_stereo/<scene><number>.wav            the public set, 100 recordings
    scenes_stereo_testset/<scene><number>.wav    the private one, another 100 (optional)

There are no lists: the name tells the scene (busystreet07.wav). The corpora of five years later have other
scenes; the mapping is paper 000's (§V-G: busy street and quiet street become street traffic, open air market
and supermarket shopping mall, tube metro, tube station metro station; bus and park keep their names). It says
nothing of office and restaurant, which TAU2019 does not have: they are left out there.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from datasets.corpora import tau2019
from datasets.corpora.corpus import About, Corpus, Recording, Validation, check_folder
from datasets.corpora.cut import check_clip_seconds, cut, note_remainders
from datasets.corpora.hold_out import hold_out
from datasets.labels import LabelSpace
from datasets.shards import ClipLabels

Classes2013 = Literal["tau2019", "own"]

ABOUT = About(
    "unknown: the readme of the download names none; ask its authors",
    "Giannoulis, Benetos, Stowell, Rossignol, Lagrange, Plumbley, Detection and classification of acoustic "
    "scenes and events: an IEEE AASP challenge, WASPAA 2013",
)
SCENES = (
    "bus", "busystreet", "office", "openairmarket", "park", "quietstreet", "restaurant", "supermarket",
    "tube", "tubestation",
)  # fmt: skip
TAU2019: Mapping[str, str | None] = {
    "bus": "bus",
    "busystreet": "street_traffic",
    "office": None,
    "openairmarket": "shopping_mall",
    "park": "park",
    "quietstreet": "street_traffic",
    "restaurant": None,
    "supermarket": "shopping_mall",
    "tube": "metro",
    "tubestation": "metro_station",
}
FOLDS = 5
PUBLIC, PRIVATE = "scenes_stereo", "scenes_stereo_testset"
LAYOUT = f"{PUBLIC}/ with files such as busystreet07.wav"
NAME = re.compile(rf"({'|'.join(sorted(SCENES, key=len, reverse=True))})_?(\d+)\.wav", re.IGNORECASE)


def read_dcase2013(
    folder: Path,
    *,
    fold: int = 1,
    classes: Classes2013 = "tau2019",
    clip_seconds: float = 0.0,
    validation: Validation = "auto",
    validation_fraction: float = 0.2,
    seed: int = 0,
) -> Corpus:
    """The public set for training and validation, and the private one as test split. Where that is not there,
    fold `fold` (1 to 5) tests every fifth recording of each scene in the order of their numbers; the
    challenge's own five folds were drawn anew by everyone.

    `classes` "tau2019" gives the scenes the names of TAU2019, in its label space. Recordings are cut into
    clips of `clip_seconds` (0 = whole); a recording counts as a location. Raises FileNotFoundError or
    ValueError, one line each.
    """
    check_clip_seconds(clip_seconds)
    if not 1 <= fold <= FOLDS:
        raise ValueError(f"--fold {fold}: DCASE 2013 has folds 1 to {FOLDS}")
    check_folder(folder, f"{PUBLIC}/", LAYOUT, lambda path: bool(_recordings(_public(path))))
    notes: list[str] = []
    names = TAU2019 if classes == "tau2019" else {scene: scene for scene in SCENES}
    public = _recordings(_public(folder))
    private = _recordings(folder / PRIVATE)
    if private:
        train, test = public, private
    else:
        train, test = _fold(public, fold)
        notes.append(f"no {PRIVATE}/: the test split is every fifth recording of {PUBLIC}/ (fold {fold})")
    clips = {
        part: _clips(folder, found, names, clip_seconds, notes)
        for part, found in (("train", train), ("test", test))
    }
    if dropped := [scene for scene in SCENES if names[scene] is None]:
        count = sum(scene in dropped for scene in [*train.values(), *test.values()])
        notes.append(f"{count} recordings of {', '.join(dropped)} left out: TAU2019 has no such scene")
    by = "location" if validation == "auto" else validation
    first, val = hold_out(clips["train"], by, validation_fraction, seed, notes)
    scenes = tau2019.SCENES if classes == "tau2019" else SCENES
    splits = {"train": first, "val": val, "test": tuple(clips["test"])}
    return Corpus(LabelSpace(scenes, ()), splits, tuple(notes), ABOUT)


def _public(folder: Path) -> Path:
    return folder / PUBLIC if (folder / PUBLIC).is_dir() else folder


def _recordings(folder: Path) -> dict[Path, str]:
    """{file: scene}, in the order of the names; other files are no concern of ours."""
    if not folder.is_dir():
        return {}
    named = ((path, NAME.fullmatch(path.name)) for path in sorted(folder.iterdir()))
    return {path: match[1].lower() for path, match in named if match}


def _fold(recordings: Mapping[Path, str], fold: int) -> tuple[dict[Path, str], dict[Path, str]]:
    """(training, test)"""
    seen: dict[str, int] = defaultdict(int)
    train: dict[Path, str] = {}
    test: dict[Path, str] = {}
    for path, scene in recordings.items():
        (test if seen[scene] % FOLDS == fold - 1 else train)[path] = scene
        seen[scene] += 1
    if not test:
        raise ValueError(
            f"fold {fold} has no test recording: {len(recordings)} files are too few for {FOLDS}"
        )
    return train, test


def _clips(
    folder: Path,
    recordings: Mapping[Path, str],
    names: Mapping[str, str | None],
    clip_seconds: float,
    notes: list[str],
) -> list[Recording]:
    clips: list[Recording] = []
    remainders = []
    for path, scene in recordings.items():
        if names[scene] is None:
            continue
        # The same number is in both sets; they are different places.
        labels = ClipLabels(scene=names[scene], location=f"{path.parent.name}/{path.stem}")
        parts, remainder = cut(folder, path.relative_to(folder).as_posix(), labels, clip_seconds, notes)
        clips += parts
        remainders.append(remainder)
    note_remainders(remainders, notes)
    return clips
