"""The two vocabularies of a corpus: scenes (one per clip) and events (any number per clip)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class LabelSpace:
    """Names in index order. Column i of every scene tensor is `scenes[i]`, column j of every event tensor
    `events[j]`. Events in `ignored` occur in the clips' labels and have no column; so do all scenes where
    `scenes` is empty. Number k of every tag vector is a teacher's probability of `tags[k]`; () where the
    shards hold no tags."""

    scenes: tuple[str, ...]
    events: tuple[str, ...]
    ignored: frozenset[str] = frozenset()
    tags: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for kind, names in (("scene", self.scenes), ("event", self.events)):
            repeated = sorted({name for name in names if names.count(name) > 1})
            if repeated:
                raise ValueError(f"{kind} labels must be distinct; repeated: {', '.join(repeated)}")
        if both := sorted(self.ignored.intersection(self.events)):
            raise ValueError(f"event {both[0]!r} is both a label and ignored")

    def scene_index(self, name: str) -> int:
        return _index(self.scenes, name, "scene")

    def event_vector(self, names: Iterable[str]) -> np.ndarray:
        """(E,) float32, 1 where the event is present. Raises ValueError for a name outside the vocabulary."""
        vector = np.zeros(len(self.events), dtype=np.float32)
        for name in names:
            if name in self.ignored:
                continue
            vector[_index(self.events, name, "event")] = 1.0
        return vector


def _index(names: tuple[str, ...], name: str, kind: str) -> int:
    try:
        return names.index(name)
    except ValueError:
        raise ValueError(
            f"{kind} {name!r} is not one of the {len(names)} known: {', '.join(names)}"
        ) from None
