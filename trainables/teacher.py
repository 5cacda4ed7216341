"""A trained tagger's probabilities for every clip of a shard set.

    python -m trainables.teacher SHARDS --model MODEL --out OUT

OUT becomes the same shard set with a tags.npy in every clip: the audio and the labels are the same bytes,
and `--events tags`, `tags>0.1`, … of tune_csem.py and trainables.train then train on the tags. MODEL is the
best/ folder of a study, what `python -m trainables.export` made of a run, or a released file of PANNs or AST.

The clips are tagged by Ray actors, one a GPU or else one a CPU core, each with at most two small pieces of
work in hand; the work of one that died is done again by its successor. Every finished shard is kept: a run
that was stopped goes on with --resume, and OUT gets its name when it is whole. Its bytes do not depend on
the number of actors (of one kind of device), nor on whether it was stopped. `--dtype float16` rounds to the
nearest, at most 1 part in 2048 away (3e-8 below 6e-5). trainables/tagging.py has the numbers' definition.
"""

from __future__ import annotations

import math
import sys
import time
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import ray
import tyro

from datasets.command import MISTAKES, asked, exit_code, one_line
from datasets.progress import Progress
from datasets.shards import Index, Tags
from datasets.tagged import Unfinished, read_tags, tagged_index, write_tagged
from trainables.cluster import connect
from trainables.taggers import Tagger, load_tagger
from trainables.tagging import Task, Work, Worker, agreement, in_this_process, tasks, whole_shards
from trainables.watch import OPENING, hang_limit

IN_HAND = 2  # pieces of work at an actor: one being done, one waiting
RESTARTS = 3  # of an actor whose process died


@dataclass(frozen=True)
class Request:
    """What to tag, with what, where to."""

    data: tyro.conf.Positional[Path]
    """Shard set (made by python -m datasets.prepare)."""
    model: Path
    """The tagger: a best/ or exported folder, or a released file of PANNs (Cnn14) or AST."""
    out: Path
    """Folder for the tagged shard set; must not exist or be empty."""
    batch: int = 16
    """Clips in one forward pass."""
    split: tuple[str, ...] = ()
    """Only these splits (OUT holds no others); all by default."""
    actors: int | None = None
    """Tagging processes; by default one a GPU, or one a CPU core. 0: this process, without Ray."""
    dtype: Literal["float16", "float32"] = "float16"
    """How the probabilities are stored."""
    names: Path | None = None
    """class_labels_indices.csv, for released files: they hold no class names."""
    resume: bool = False
    """Go on where a stopped run left off."""
    accept_mismatch: bool = False
    """Take a model file with tensors of no use here, or shards below the model's sampling rate."""


def main() -> int:
    request = asked(Request, "python -m trainables.teacher", __doc__)
    kept = "stopped; finished shards are kept: the same command with --resume goes on"
    try:
        return exit_code(
            lambda: print("\n".join(summary(*teach(request)))),
            stopped=kept,
            mistakes=(*MISTAKES, ray.exceptions.RayError),
            said=_said,
        )
    finally:
        ray.shutdown()


def teach(request: Request) -> tuple[Index, int, float]:
    """Tag and write. Gives back the index of OUT, how many clips were tagged now and in how many seconds.

    Raises ValueError or OSError in one line; shards finished before are kept for --resume.
    """
    if request.batch < 1:
        raise ValueError(f"--batch {request.batch}: expected at least 1")
    if request.actors is not None and request.actors < 0:
        raise ValueError(f"--actors {request.actors}: expected 0 or more")
    index = Index.load(request.data)
    splits = [name for name in index.splits if name in request.split or not request.split]
    for name in request.split:
        index.split(name)  # refuses an unknown one
    tagger = load_tagger(request.model, accept=request.accept_mismatch, names=request.names)
    refuse_lower_rate(index, tagger, request.accept_mismatch)
    for note in tagger.notes:
        print(f"note: {note}", file=sys.stderr)
    tags = Tags(tagger.names, tagger.name, tagger.checksum)
    asked = {
        "shard set": index.checksum,
        "model": tagger.checksum,
        "names": list(tagger.names),
        "splits": splits,
        "batch": request.batch,
        "dtype": request.dtype,
    }
    with Unfinished(request.out, asked, resume=request.resume) as making:
        began = time.monotonic()
        clips = tag_rest(request, index, splits, making)
        seconds = time.monotonic() - began
        tagged_index(index, making.splits(index, splits), tags, making.folder).save()
    return Index.load(request.out), clips, seconds


def tag_rest(request: Request, index: Index, splits: list[str], making: Unfinished) -> int:
    """Tag and write every shard that is not finished yet; how many clips that were."""
    todo = list(tasks(index, splits, request.batch, making.has))
    clips = sum(task.stop - task.first for task in todo)
    with Progress(clips, shown=True) as bar:
        for split, number, found in whole_shards(results(request, todo), index):
            shard = index.splits[split].shards[number]
            written = write_tagged(index, shard, found.astype(request.dtype), making.folder)
            making.keep(split, number, written)
            for _ in found:
                bar.step()
    return clips


def refuse_lower_rate(index: Index, tagger: Tagger, accept: bool) -> None:
    if index.sample_rate < tagger.sample_rate and not accept:
        raise ValueError(
            f"{index.root}: {index.sample_rate} Hz, but the model {tagger.name} expects "
            f"{tagger.sample_rate} Hz and would find nothing above {index.sample_rate / 2:g} Hz; "
            "--accept-mismatch tags all the same"
        )


def results(request: Request, todo: list[Task]) -> Iterator[tuple[Task, np.ndarray]]:
    """The tags of every piece of work, in any order."""
    work = Work(
        shards=str(request.data.resolve()),
        model=str(request.model.resolve()),
        batch=request.batch,
        accept=request.accept_mismatch,
        names=str(request.names.resolve()) if request.names else None,
    )
    if request.actors == 0:
        return in_this_process(work, todo)
    if not todo:
        return iter(())
    if not ray.is_initialized():
        connect(dashboard=False)
    resources = ray.cluster_resources()
    gpus, cpus = int(resources.get("GPU", 0)), int(resources.get("CPU", 0))
    actors = request.actors or gpus or cpus
    if actors > cpus:
        raise ValueError(f"--actors {actors}: each needs a CPU core, the cluster has {cpus}")
    share = 1 / math.ceil(actors / gpus) if gpus else 0.0
    return in_actors(replace(work, device="cuda" if gpus else "cpu"), todo, actors, share)


def in_actors(
    work: Work, todo: Iterable[Task], actors: int, gpu_share: float = 0.0
) -> Iterator[tuple[Task, np.ndarray]]:
    """The pieces done by `actors` Ray actors with one CPU and `gpu_share` of a GPU each; a new one is handed
    out when one has come back, so that what waits anywhere is bounded."""
    remote = ray.remote(Careful).options(
        num_cpus=1, num_gpus=gpu_share, max_restarts=RESTARTS, max_task_retries=RESTARTS
    )
    pool: list[Any] = [remote.remote(work) for _ in range(actors)]
    free = deque(pool * IN_HAND)
    pending: dict[Any, tuple[Task, Any]] = {}

    def first_done() -> tuple[Task, np.ndarray]:
        limit = hang_limit() * OPENING  # a first piece comes after the model is there
        done, _ = ray.wait(list(pending), num_returns=1, timeout=limit)
        if not done:
            raise TimeoutError(f"no clip was tagged for {limit:g} s (10 x SCENETUNE_HANG_LIMIT)")
        (ready,) = done
        task, actor = pending.pop(ready)
        found = ray.get(ready)
        if isinstance(found, Exception):
            raise found
        free.append(actor)
        return task, found

    try:
        for task in todo:
            if not free:
                yield first_done()
            actor = free.popleft()
            pending[actor.tag.remote(task)] = task, actor
        while pending:
            yield first_done()
    finally:
        for actor in pool:
            ray.kill(actor)


class Careful:
    """A `Worker` in an actor. A user's mistake comes back as a value: Ray would wrap it in its own
    traceback."""

    def __init__(self, work: Work) -> None:
        self._worker = Worker(work)

    def tag(self, task: Task) -> np.ndarray | Exception:
        try:
            return self._worker.tag(task)
        except (ValueError, OSError) as error:
            return error


def summary(index: Index, tagged: int, seconds: float) -> list[str]:
    """What a run ends with; where tags and labels share event names, how well they agree."""
    if index.tags is None:
        raise ValueError(f"{index.root}: no tags")
    clips = sum(split.clips for split in index.splits.values())
    lines = [f"{index.root}: {len(index.tags.names)} tags for each of {clips} clips, by {index.tags.model}"]
    for name, split in index.splits.items():
        line = f"  {name:5} {split.clips:6} clips"
        shared, auc = agreement(index, name, read_tags(index, name))
        if shared:
            line += f"  AUC against the corpus's labels {auc:.4f} (mean over {shared} shared events)"
        lines.append(line)
    speed = f"{tagged} clips tagged now, in {seconds:.1f} s: {tagged / max(seconds, 1e-9):.1f} a second"
    return [*lines, f"  {speed}", f"  checksum {index.checksum}"]


def _said(error: Exception) -> str:
    if isinstance(error, ray.exceptions.RayActorError | ray.exceptions.OutOfMemoryError):
        return (
            f"a tagging process died {RESTARTS + 1} times (out of memory?); try fewer --actors or a smaller "
            "--batch; finished shards are kept for --resume"
        )
    return one_line(error)[:300] if isinstance(error, ray.exceptions.RayError) else str(error)


if __name__ == "__main__":
    sys.exit(main())
