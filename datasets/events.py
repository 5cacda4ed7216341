"""Which event labels a training sees: the corpus's own, a teacher's, or the corpus's made worse on purpose.

    labels          what the corpus says
    tags            the teacher's probabilities, soft (Hou et al. 2023 on TUT2018 and TAU2019)
    tags>0.1        hard: 1 where the teacher's probability is above 0.1, which is the released code's
                    threshold for AST; any threshold from 0 to below 1
    labels@0.8      the corpus's, 80 % of the training split's entries right; labels@0.8:3 draws with seed 3

The choice is made on batches, so that one cache of decoded clips serves all of them. `Index.labels.events`
and `Index.checksum` follow it: runs and checkpoints know one choice from another.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from datasets.batch import Batch
from datasets.degrade import wrong_entries
from datasets.shards import Index, ShardError, read_labels

ACCEPTED = (
    "labels, tags, tags>THRESHOLD with 0 <= THRESHOLD < 1 (tags>0.1), or labels@ACCURACY[:SEED] with "
    "0 <= ACCURACY <= 1 (labels@0.8)"
)


@dataclass(frozen=True)
class EventChoice:
    """`origin` is "labels" or "tags"; `threshold` None = soft tags; `accuracy` None = labels as they are."""

    origin: str
    threshold: float | None = None
    accuracy: float | None = None
    seed: int = 0

    def __str__(self) -> str:
        if self.origin == "tags":
            return "tags" if self.threshold is None else f"tags>{self.threshold!r}"
        return "labels" if self.accuracy is None else f"labels@{self.accuracy!r}:{self.seed}"


def parse_events(text: str) -> EventChoice:
    """Raises ValueError, naming what is accepted."""
    try:
        if text in ("labels", "tags"):
            return EventChoice(text)
        if text.startswith("tags>") and 0 <= (threshold := float(text.removeprefix("tags>"))) < 1:
            return EventChoice("tags", threshold=threshold)
        if text.startswith("labels@"):
            accuracy, colon, seed = text.removeprefix("labels@").partition(":")
            if 0 <= float(accuracy) <= 1 and int(seed if colon else 0) >= 0:
                return EventChoice("labels", accuracy=float(accuracy), seed=int(seed if colon else 0))
    except ValueError:
        pass
    raise ValueError(f"events {text!r}: expected {ACCEPTED}")


def with_events(index: Index, choice: EventChoice) -> Index:
    """The index as `choice` makes it: the event names, and a checksum of its own for all but plain labels.

    Raises ShardError for tags of a shard set that has none, and for labels to degrade where there are none.
    """
    if choice == EventChoice("labels"):
        return index
    if choice.origin == "tags" and index.tags is None:
        raise ShardError(
            f"{index.place}: events {str(choice)!r}: this shard set has no tags; make one that has with "
            f"`python -m trainables.teacher {index.place} --model MODEL --out OUT`"
        )
    if choice.accuracy is not None and not index.labels.events:
        raise ShardError(f"{index.place}: events {str(choice)!r}: this shard set has no event labels")
    events = index.tags.names if choice.origin == "tags" and index.tags else index.labels.events
    checksum = hashlib.sha256(f"{index.checksum} {choice}".encode()).hexdigest()
    ignored = index.labels.ignored.union(index.labels.events).difference(events)
    labels = replace(index.labels, events=events, ignored=ignored)
    return replace(index, labels=labels, checksum=checksum)


class Relabel:
    """Gives batches of the shard set `index` the events of `choice`."""

    def __init__(self, index: Index, choice: EventChoice) -> None:
        self.index, self._choice = with_events(index, choice), choice

    def __call__(self, split: str, batch: Batch) -> Batch:
        if self._choice.origin == "tags":
            return from_tags(batch, self._choice.threshold)
        if split != "train":  # Table IV replaces the labels of the training set alone
            return batch
        wrong = self._wrong[batch.clip.cpu()].to(batch.events.device)
        return replace(batch, events=torch.where(wrong, 1 - batch.events, batch.events))

    @cached_property
    def _wrong(self) -> Tensor:
        """(N, E) bool over the training split."""
        known = torch.tensor([labels.events is not None for labels in read_labels(self.index, "train")])
        entries = known[:, None].expand(-1, len(self.index.labels.events)).numpy()
        return torch.from_numpy(wrong_entries(entries, self._choice.accuracy or 0.0, seed=self._choice.seed))


def from_tags(batch: Batch, threshold: float | None) -> Batch:
    """The batch with its tags as events, all of them known: probabilities, or above `threshold` 1 and else
    0."""
    events = batch.tags if threshold is None else (batch.tags > threshold).float()
    return replace(batch, events=events, event_known=torch.ones_like(events))
