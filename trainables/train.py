"""Train one configuration, without a search.

    python -m trainables.train csem --data SHARDS --set backbone=tinycnn lr=0.002 --epochs 27 --seed 3

Shows one line an epoch. With --out the run is kept as a run folder (epochs.jsonl, checkpoint/), and started
again with the same arguments it goes on from its checkpoint. The test split is read only with --test.
"""

from __future__ import annotations

import errno
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import torch
import tyro

from datasets.command import MISTAKES, asked, exit_code, plain
from datasets.mix import open_sources
from datasets.shard_writer import check_no_file
from datasets.source import default_cache
from datasets.storage import shown
from searchspace.pins import parse_settings
from searchspace.record import provenance
from trainables.allocator import keep_freed_pages
from trainables.engine import Diverged
from trainables.folder import RunFolder
from trainables.recipe import parse_pins
from trainables.registry import family
from trainables.run import Run

SHOWN = (
    "train/loss",
    "val/loss",
    "val/scene_accuracy",
    "val/svm_accuracy",
    "val/event_map",
    "train/clips_per_second",
)


@dataclass(frozen=True)
class Request:
    """What to train, on what, for how long."""

    family: tyro.conf.Positional[str]
    """Model family, e.g. csem."""
    data: str
    """Shard set (made by python -m datasets.prepare): a folder, or a URL (http, https, s3, gs)."""
    mix: Annotated[tuple[str, ...], tyro.conf.UseAppendAction] = ()
    """Shard set to mix in and how many of its clips go into every batch, e.g. --mix shards/audioset:128;
    batch_size counts the clips of --data. May be repeated."""
    set: Annotated[tuple[tuple[str, ...], ...], tyro.conf.UseAppendAction] = ()
    """Knobs by name, e.g. --set backbone=tinycnn lr=0.002. python -m trainables.describe lists the knobs."""
    events: str = "labels"
    """Event labels: labels, tags (a teacher's, soft), tags>0.1 (hard), labels@0.8 (made 80 % right)."""
    epochs: int = 27
    """Length of the training."""
    seed: int = 0
    """Seed of weights, order of clips and augmentation."""
    out: Path | None = None
    """Folder to keep the run in."""
    test: bool = False
    """Score the test split at the end."""
    threads: int = 1
    """CPU threads."""
    stream: bool = False
    """Read the shards anew every epoch instead of decoding them once into a cache."""


def main() -> int:
    request = asked(Request, "python -m trainables.train", __doc__)
    goes_on = f"; the same command goes on from {request.out}" if request.out else ""
    return exit_code(
        lambda: train(request),
        stopped=f"stopped{goes_on}",
        mistakes=(*MISTAKES, Diverged),
        said=lambda error: _said(error, request.out),
    )


def _said(error: Exception, out: Path | None) -> str:
    if out and isinstance(error, OSError) and error.errno == errno.ENOSPC:
        return f"the disk of {out} is full; make room, and the same command goes on"
    return f"the training diverged: {error}" if isinstance(error, Diverged) else plain(error)


def train(request: Request) -> int:
    for name in ("epochs", "threads"):
        if getattr(request, name) < 1:
            raise ValueError(f"--{name} {getattr(request, name)}: expected at least 1")
    if not 0 <= request.seed < 2**63:
        raise ValueError(f"--seed {request.seed}: expected 0 to {2**63 - 1}")
    values = parse_pins(request.family, parse_settings([one for group in request.set for one in group]))
    for name, value in values.items():
        if isinstance(value, tuple):
            raise ValueError(f"--set {name}={','.join(map(str, value))}: one value is trained at a time")
    _refuse_other_folder(request.out)
    torch.set_num_threads(request.threads)
    keep_freed_pages()
    cache = None if request.stream else default_cache()
    frames = family(request.family).frame_hop
    run = Run(
        request.family,
        values,
        open_sources(request.data, request.mix, cache=cache, events=request.events, frames=frames),
        seed=request.seed,
        epochs=request.epochs,
        device="cuda" if torch.cuda.is_available() else "cpu",
        statistics_folder=cache,
    )
    print(
        f"{request.family}: {run.parameter_count:,} parameters on {run.device}, {run.steps} steps an epoch",
        flush=True,
    )
    for line in run.start.report() if run.start else ():
        print(line, flush=True)
    if request.out is None:
        step, test = run.next_epoch, lambda: {f"test/{k}": v for k, v in run.score("test")[0].items()}
    else:
        about = provenance(Path(__file__).resolve().parents[1]) | {
            "command": [shown(word) for word in sys.argv]
        }
        folder = RunFolder(request.out, run, about)
        step, test = folder.next_epoch, folder.test
    if run.epoch:
        print(f"{run.epoch} of {run.epochs} epochs are already in {request.out}", flush=True)
    while run.epoch < run.epochs:
        metrics = step()
        print(f"epoch {run.epoch}/{run.epochs}  " + _line(metrics), flush=True)
    if request.test:
        print(
            "test  "
            + "  ".join(
                f"{k} {v:.4f}" for k, v in test().items() if "term/" not in k and "loss/" not in k and v == v
            )
        )
    return 0


def _refuse_other_folder(out: Path | None) -> None:
    if out is None:
        return
    check_no_file(out)
    begun = {"run.json.new"}  # all that a kill or a full disk may leave of a run's first moment
    held = {path.name for path in out.iterdir()} if out.exists() else set()
    if "run.json" not in held and held - begun:
        raise FileExistsError(
            f"--out {out}: holds something else; expected a new folder, or a run's to go on"
        )


def _line(metrics: dict[str, float]) -> str:
    """Without what nothing is averaged for: the scenes of a corpus of events."""
    return "  ".join(
        f"{name} {metrics[name]:.4g}" for name in SHOWN if name in metrics and metrics[name] == metrics[name]
    )


if __name__ == "__main__":
    sys.exit(main())
