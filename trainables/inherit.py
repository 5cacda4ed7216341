"""A run that begins as a copy of another one, with other knobs."""

from __future__ import annotations

import json
from pathlib import Path

from searchspace.families import split
from searchspace.record import write_whole
from searchspace.study import Job
from trainables import checkpoint
from trainables.folder import read_epochs


def inherit(study: Path, job: Job) -> None:
    """Make the job's run folder from its parent's as that was after `job.born` epochs: weights, optimiser and
    the numbers of those epochs. Does nothing in a folder that has a checkpoint, damaged or not.

    The learning rate follows the job's own knobs from then on, and so does weight decay. Raises
    CheckpointError if the parent's checkpoint is of another epoch.
    """
    parent, child = study / job.parent, study / job.folder
    if not job.parent or checkpoint.exists(child / "checkpoint"):
        return
    tensors, state = checkpoint.load(parent / "checkpoint")
    if state["epoch"] != job.born:
        raise checkpoint.CheckpointError(
            f"{parent}: its checkpoint is of epoch {state['epoch']}, {job.folder} was to begin at {job.born}"
        )
    _, knobs = split(job.values, state["family"])
    state |= {"values": knobs, "seed": job.seed}
    for group in state["optimiser"]["groups"]:
        group["weight_decay"] = knobs["weight_decay"]
    child.mkdir(parents=True, exist_ok=True)
    lines = [json.dumps(line) + "\n" for line in read_epochs(parent) if line["epoch"] <= job.born]
    write_whole(child / "epochs.jsonl", "".join(lines))
    checkpoint.save(child / "checkpoint", tensors, state)  # last: a folder that has it is whole
