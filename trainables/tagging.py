"""A tagger over the clips of a shard set, in plain torch: the part of `trainables.teacher` that computes.

A clip becomes the mean of its channels, is resampled to the tagger's rate (torchaudio's windowed sinc with
its default width 6 and roll-off 0.99) and goes through the model at its own length, in float32. Clips of
different length never share a forward pass, so what shorter clips are padded with is the tagger's affair and
a clip's numbers do not depend on its neighbours: they are those of the clip alone, to rounding (1e-6).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from datasets import plan
from datasets.prefetch import prefetch
from datasets.shards import Index, ShardError, read_labels
from datasets.stream import batches, label_arrays
from trainables.metrics import roc_auc
from trainables.parts.torchaudio_guarded import torchaudio
from trainables.taggers import Tagger, load_tagger

TASK_BATCHES = 4  # batches in a piece of work: what is done again when its process dies


@dataclass(frozen=True)
class Work:
    """What every tagging process needs to know. `names` is a class list for models that bring none, `accept`
    as in `load_tagger`."""

    shards: str
    model: str
    batch: int
    device: str = "cpu"
    accept: bool = False
    names: str | None = None


@dataclass(frozen=True)
class Task:
    """The clips first … stop - 1 of shard number `shard` of a split."""

    split: str
    shard: int
    first: int
    stop: int


class Worker:
    """Tags pieces of shards. Opens the shards and the model with its first piece, so that it is cheap to
    send to another process."""

    def __init__(self, work: Work) -> None:
        self.work = work

    @cached_property
    def index(self) -> Index:
        return replace(Index.load(self.work.shards), tags=None)  # tags of an earlier teacher are not read

    @cached_property
    def tagger(self) -> Tagger:
        # One thread a process: sums then have the same order whatever the machine, and the same last digit.
        torch.set_num_threads(1)
        torch.backends.cudnn.benchmark, torch.backends.cudnn.deterministic = False, True
        names = Path(self.work.names) if self.work.names else None
        tagger = load_tagger(Path(self.work.model), accept=self.work.accept, names=names)
        tagger.module.to(self.work.device)
        return tagger

    @cached_property
    def resample(self) -> nn.Module:
        return resampler(self.index.sample_rate, self.tagger.sample_rate).to(self.work.device)

    def tag(self, task: Task) -> np.ndarray:
        """(clips, K) float32 probabilities. Raises ShardError naming the clip that can't be read or
        tagged."""
        tagger, resample = self.tagger, self.resample
        shard = self.index.split(task.split).shards[task.shard]
        edges = [*range(task.first, task.stop, self.work.batch), task.stop]
        sizes = tuple(stop - start for start, stop in zip(edges, edges[1:]))
        before = sum(len(one.clips) for one in self.index.split(task.split).shards[: task.shard])
        numbers = np.arange(before + task.first, before + task.stop)
        reading = plan.Reading((plan.Segment(task.shard, task.first, task.stop),), numbers, sizes)
        stream = batches(self.index, task.split, reading)
        if self.work.device != "cpu":
            stream = prefetch(stream)
        rows = []
        for first, batch in zip(edges, stream):
            clips = shard.clips[first : first + len(batch)]
            where = [f"{shard.name}: clip {clip.key}" for clip in clips]
            waveform = batch.waveform.to(self.work.device)
            lengths = [clip.samples for clip in clips]
            rows.append(tag_clips(tagger.module, waveform, lengths, resample, where).cpu().numpy())
        return np.concatenate(rows)


@torch.inference_mode()
def tag_clips(
    module: nn.Module,
    waveform: Tensor,
    lengths: Sequence[int],
    resample: Callable[[Tensor], Tensor],
    where: Sequence[str],
) -> Tensor:
    """(B, K) float32 probabilities of the clips in `waveform` (B, C, N), of which row i has `lengths[i]`
    samples; `where[i]` names it in errors.

    Raises ShardError for a clip the model can't take, or that gives other numbers than 0 to 1.
    """
    rows_of: dict[int, list[int]] = {}
    for row, length in enumerate(lengths):
        rows_of.setdefault(length, []).append(row)
    answers: dict[int, Tensor] = {}
    for length, rows in rows_of.items():
        mono = waveform[rows, :, :length].mean(1, keepdim=True)
        try:
            found = module(resample(mono)).float()
        except ValueError as error:
            raise ShardError(f"{where[rows[0]]}: {error}") from error
        for row, answer in zip(rows, found):
            if not bool(((answer >= 0) & (answer <= 1)).all()):
                raise ShardError(
                    f"{where[row]}: the model gives {answer.min()} to {answer.max()}, not 0 to 1"
                )
            answers[row] = answer
    return torch.stack([answers[row] for row in range(len(lengths))])


def resampler(rate: int, wanted: int) -> nn.Module:
    """(…, N) at `rate` Hz → (…, ceil(N × wanted / rate)) at `wanted` Hz."""
    return nn.Identity() if rate == wanted else torchaudio.transforms.Resample(rate, wanted)


def tasks(
    index: Index, splits: Iterable[str], batch: int, done: Callable[[str, int], bool]
) -> Iterator[Task]:
    """Every shard but the `done` ones, in pieces; a clip's batch depends on its place in the shard alone."""
    size = batch * TASK_BATCHES
    for split in splits:
        for number, shard in enumerate(index.split(split).shards):
            if not done(split, number):
                for first in range(0, len(shard.clips), size):
                    yield Task(split, number, first, min(first + size, len(shard.clips)))


def in_this_process(work: Work, todo: Iterable[Task]) -> Iterator[tuple[Task, np.ndarray]]:
    """The plain path: one piece after the other."""
    worker = Worker(work)
    for task in todo:
        yield task, worker.tag(task)


def whole_shards(
    results: Iterable[tuple[Task, np.ndarray]], index: Index
) -> Iterator[tuple[str, int, np.ndarray]]:
    """(split, shard number, tags (clips, K)) as soon as all pieces of a shard are there, in any order."""
    pieces: dict[tuple[str, int], dict[int, np.ndarray]] = {}
    for task, tags in results:
        mine = pieces.setdefault((task.split, task.shard), {})
        mine[task.first] = tags
        if sum(map(len, mine.values())) == len(index.split(task.split).shards[task.shard].clips):
            del pieces[task.split, task.shard]
            yield task.split, task.shard, np.concatenate([mine[first] for first in sorted(mine)])


def agreement(index: Index, split: str, tags: np.ndarray) -> tuple[int, float]:
    """(how many events both the tags (N, K) and the corpus's labels know, mean AUC over them of the tags
    against the labels); NaN where there is none with both outcomes."""
    names = index.tags.names if index.tags else ()
    shared = [name for name in index.labels.events if name in names]
    if not shared:
        return 0, math.nan
    _, events, known = label_arrays(list(read_labels(index, split)), index.labels)
    mine = [names.index(name) for name in shared]
    theirs = [index.labels.events.index(name) for name in shared]
    auc = roc_auc(tags[:, mine], events[:, theirs] > 0.5, known[:, theirs] > 0)
    return len(shared), float(np.nanmean(auc)) if not np.isnan(auc).all() else math.nan
