"""A run's folder: what was asked, every epoch's numbers, the checkpoint, the test result.

run.json       values, seed, commit, data checksum, versions
epochs.jsonl   one line an epoch
checkpoint/    to go on from; after the last epoch, the model alone
test.json      metrics, confusion matrix and per-event figures, once, for confirmed runs
"""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from searchspace.record import read_lines, write_whole
from trainables import checkpoint
from trainables.names import FRAME_F
from trainables.run import Run

CHECKPOINT_EVERY = 60.0  # seconds between checkpoints: a killed run repeats at most this much, and one epoch


class Displaced(Exception):
    """Another process has taken the run up since."""


class RunFolder:
    """Drives a `Run` epoch by epoch, keeping its folder such that a kill at any moment loses at most the work
    since the last checkpoint. `writer` is False on every rank but the first of a data-parallel run.

    Whoever opened it last owns it, and each opening makes a new run.json. A process whose node was given up
    for dead, and which lives on, raises Displaced before it writes beside the one that took its place."""

    def __init__(self, path: Path, run: Run, provenance: Mapping[str, Any], *, writer: bool = True) -> None:
        self.path, self.run, self.writer = Path(path), run, writer
        if checkpoint.exists(self._checkpoint):
            try:
                # first: another run's folder is left as it is
                run.load(self._checkpoint, written=_in_a_row(read_epochs(self.path)))
            except checkpoint.Damaged:  # a disk's fault; the same epochs give the same numbers again
                if writer:
                    checkpoint.remove(self._checkpoint)
        if writer:
            self.path.mkdir(parents=True, exist_ok=True)
            record = {
                "values": run.values,
                "seed": run.seed,
                "epochs": run.epochs,
                "parameters": run.parameter_count,
                "pretrained": run.start.record() if run.start else None,
            }
            _write_json(
                self.path / "run.json", {**provenance, **record, "data_checksum": run.source.index.checksum}
            )
            self._opening = self._last_opening()
            self._forget_after(run.epoch)
        self._saved = time.monotonic()

    @property
    def finished(self) -> bool:
        return self.run.epoch >= self.run.epochs

    def next_epoch(self) -> dict[str, float]:
        """Train, validate, write down; the epoch's metrics with "epoch" among them. A finished run repeats
        its last line."""
        if self.finished:
            return read_epochs(self.path)[-1]
        metrics = {"epoch": self.run.epoch + 1, **self.run.next_epoch()}
        if self.writer:
            self._check_owner()
            with open(self.path / "epochs.jsonl", "a") as log:  # before the checkpoint: see _forget_after
                log.write(json.dumps(metrics) + "\n")
                log.flush()
                os.fsync(log.fileno())
            if self.finished or time.monotonic() - self._saved > CHECKPOINT_EVERY:
                self.save()
        return metrics

    def save(self) -> None:
        """A checkpoint of the run as it is now."""
        if self.writer:
            self._check_owner()
            self.run.save(self._checkpoint)
            self._saved = time.monotonic()

    def test(self) -> dict[str, float]:
        """Score the test split and write test.json; a second call reads it back instead of looking again."""
        if before := read_test(self.path):
            return before["metrics"]
        metrics, scores = self.run.score("test")
        named = {f"test/{name}": value for name, value in metrics.items()}
        names = self.run.source.index.labels.events
        named |= {f"test/{FRAME_F}{name}": float(f) for name, f in zip(names, scores.per_event_frame_f())}
        if self.writer:
            self._check_owner()
            ap, auc = scores.per_event()
            events = len(names)
            detail = {
                "confusion": scores.confusion().tolist(),
                "event_ap": _numbers(ap, events),
                "event_auc": _numbers(auc, events),
            }
            _write_json(self.path / "test.json", {"metrics": named, **detail})
        return named

    def _check_owner(self) -> None:
        if self._last_opening() != self._opening:
            raise Displaced(f"{self.path}: another process has taken this run up")

    def _last_opening(self) -> tuple[int, int]:
        about = os.stat(self.path / "run.json")
        return about.st_ino, about.st_mtime_ns

    @property
    def _checkpoint(self) -> Path:
        return self.path / "checkpoint"

    def _forget_after(self, epoch: int) -> None:
        """Drop lines the checkpoint does not know (and a torn last one): those epochs will be run and written
        again."""
        kept = [json.dumps(line) + "\n" for line in read_epochs(self.path) if line["epoch"] <= epoch]
        write_whole(self.path / "epochs.jsonl", "".join(kept))


def read_epochs(folder: Path) -> list[dict[str, float]]:
    """The lines of epochs.jsonl in order; a torn last line is left out."""
    return read_lines(Path(folder) / "epochs.jsonl")


def read_record(folder: Path) -> dict[str, Any]:
    """run.json; empty if the run never came to write it, or it is damaged."""
    return _read_json(Path(folder) / "run.json")


def read_test(folder: Path) -> dict[str, Any]:
    """test.json; empty if the run has not read the test split, or the file is damaged."""
    return _read_json(Path(folder) / "test.json")


def _in_a_row(epochs: list[dict[str, float]]) -> int:
    """How many epochs from the first on have their line."""
    return next((n for n, line in enumerate(epochs) if line["epoch"] != n + 1), len(epochs))


def _read_json(path: Path) -> dict[str, Any]:
    """Empty where there is nothing, or a power cut left something else than was written."""
    try:
        return json.loads(path.read_text())
    except (FileNotFoundError, ValueError):  # not JSON, not even text
        return {}


def _write_json(path: Path, value: Mapping[str, Any]) -> None:
    write_whole(path, json.dumps(value, indent=1))


def _numbers(values: Any, count: int) -> list[float | None]:
    """One number for each of `count` events, None where there is none (all of them, in a model without an
    event branch)."""
    return [None if math.isnan(v) else float(v) for v in values] or [None] * count
