"""A validation split for corpora that have none."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence

import numpy as np

from datasets.corpora.corpus import Recording


def hold_out(
    recordings: Sequence[Recording], by: str, fraction: float, seed: int, notes: list[str]
) -> tuple[tuple[Recording, ...], tuple[Recording, ...]]:
    """(training, validation), about `fraction` of each scene's clips in validation, neither part ever empty.

    By "location" no location is in both, by "random" the clips are drawn one by one. What was done goes to
    `notes`. Raises ValueError for a fraction outside (0, 1) or when there is nothing that could be held out.
    """
    if not 0 < fraction < 1:
        raise ValueError(f"a validation fraction of {fraction}: accepted are values between 0 and 1")
    rng = np.random.default_rng(seed)
    held: set[str] = set()
    whole_scenes = []
    of_scene: dict[str, list[Recording]] = defaultdict(list)
    for recording in sorted(recordings, key=lambda recording: recording.name):
        of_scene[str(recording.labels.scene)].append(recording)
    for scene in sorted(of_scene):
        groups: dict[str, list[str]] = defaultdict(list)
        for recording in of_scene[scene]:
            key = str(recording.labels.location) if by == "location" else recording.name
            groups[key].append(recording.name)
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
    notes.append(
        f"validation: {len(held)} of {len(recordings)} training files held out by {by} (seed {seed})"
    )
    return (
        tuple(recording for recording in recordings if recording.name not in held),
        tuple(recording for recording in recordings if recording.name in held),
    )


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
