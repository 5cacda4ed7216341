"""The α at which event tagging and scene classification weigh the same once both have converged.

    python -m trainables.balance RUN_ASC RUN_AET

Parikh et al. 2022, Eq. 3: α·L*_AET = (1 - α)·L*_ASC gives α = L*_ASC / (L*_ASC + L*_AET). (As printed, the
numerator lacks its star.) The losses are those of two runs on one task each, `--set alpha=0` on scenes and
`--set alpha=1` on events, with `--out`; the paper does not say of which split, nor when they have converged:
validation by default, mean over the last epochs.
"""

from __future__ import annotations

import math
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from datasets.command import MISTAKES, asked, exit_code
from trainables.folder import read_epochs, read_record

TERMS = {"scenes": "scene_ce", "events": "event_bce"}
ALONE = {"scenes": 0.0, "events": 1.0}  # the α of a run on one task


def alpha_from_losses(asc: float, aet: float) -> float:
    """α in (0, 1) at which α·`aet` equals (1 - α)·`asc`, the converged single-task losses (Eq. 3,
    corrected).

    Raises ValueError for a loss that is not a finite number above 0.
    """
    for name, loss in (("scene", asc), ("event", aet)):
        if not (math.isfinite(loss) and loss > 0):
            raise ValueError(f"{name} loss {loss:g}: expected a finite number above 0")
    return asc / (asc + aet)


@dataclass(frozen=True)
class Converged:
    """A raw loss term's mean over the last `epochs` of `done` epochs; `planned` is the run's full length,
    `alpha` its own α, None for another family."""

    loss: float
    epochs: int
    done: int
    planned: int
    alpha: float | None


def converged(run: Path, task: str, *, last: int, split: str) -> Converged:
    """Where the loss of a task ("scenes", "events") ended up in a run folder.

    Raises FileNotFoundError where there is no run, ValueError for one without an epoch or without known
    labels of the task.
    """
    if not (run / "run.json").is_file():
        raise FileNotFoundError(f"{run}: no run there; expected a folder that trainables.train made as --out")
    if not (record := read_record(run)):
        raise ValueError(f"{run / 'run.json'} is damaged: it is written anew when the run is taken up again")
    epochs, column = read_epochs(run), f"{split}/term/{TERMS[task]}"
    if not epochs:
        raise ValueError(f"{run}: no epoch is finished yet")
    values = [line[column] for line in epochs[-last:] if column in line]
    loss = sum(values) / len(values) if values else 0.0
    if not loss > 0:  # the mean of nothing is written as 0
        raise ValueError(f"{run}: {column} is {loss:g}: nothing was known of {task} there")
    return Converged(loss, len(values), len(epochs), int(record["epochs"]), record["values"].get("alpha"))


@dataclass(frozen=True)
class Request:
    """The two single-task runs."""

    run_asc: Annotated[Path, tyro.conf.Positional]
    """Run on scenes alone."""
    run_aet: Annotated[Path, tyro.conf.Positional]
    """Run on events alone."""
    last: int = 5
    """Epochs at the end that a loss is the mean of."""
    split: Literal["val", "train"] = "val"
    """Whose losses."""


def balance(request: Request) -> None:
    if request.last < 1:
        raise ValueError(f"--last {request.last}: expected at least 1")
    runs = {"scenes": request.run_asc, "events": request.run_aet}
    found = {task: converged(run, task, last=request.last, split=request.split) for task, run in runs.items()}
    for task, end in found.items():
        print(
            f"{task}  {TERMS[task]} {end.loss:.4g}, mean of the last {end.epochs} of {end.done} epochs of "
            f"{runs[task]}"
        )
        if end.done < end.planned:
            print(f"warning: {runs[task]} is to have {end.planned} epochs, this is no converged loss")
        if end.alpha not in (None, ALONE[task]):
            print(f"warning: {runs[task]} was trained with alpha={end.alpha:g}, not on {task} alone")
    print(f"alpha={alpha_from_losses(found['scenes'].loss, found['events'].loss):.4f}")


def main(arguments: list[str] | None = None) -> int:
    request = asked(Request, "python -m trainables.balance", __doc__, arguments)
    return exit_code(lambda: balance(request), mistakes=(*MISTAKES, KeyError))


if __name__ == "__main__":
    sys.exit(main())
