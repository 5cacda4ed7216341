"""What a search shows while it runs: one screen on a terminal, plain lines elsewhere."""

from __future__ import annotations

import functools
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from searchspace.study import Job

Best = tuple[float, Job] | None


class Progress:
    """Live view of one phase. `jobs` is how many runs it has in all, `already` how many of them an earlier
    driver ended.

    On a terminal: one line a running trial, then best so far, elapsed and remaining. Elsewhere: a plain line
    whenever a trial ends.
    """

    def __init__(self, phase: str, jobs: int, epochs: int, *, already: int = 0, stream: Any = None) -> None:
        self.phase, self.jobs, self.epochs, self.ended = phase, jobs, epochs, already
        self.console = Console(file=stream or sys.stdout, highlight=False)
        self.running: dict[str, tuple[Job, int, float | None]] = {}
        self.counted: set[str] = set()
        self.ranked: Best = None  # of those that came to their end
        self.began, self.ended_here = time.monotonic(), 0
        self.checkpoint_bytes: int | None = None
        self.rates: dict[str, tuple[float, float]] = {}  # clips/s and share waited for data, of those running
        self.restarts = 0
        self.watch: Callable[[Mapping[str, float]], None] | None = None  # is told `figures` at every change
        self.live = Live(console=self.console, auto_refresh=False, transient=True)

    def __enter__(self) -> Progress:
        if self.console.is_terminal:
            self.live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self.console.is_terminal:
            self.live.stop()

    def started(self, job: Job) -> None:
        self.running[job.folder] = (job, 0, None)
        self._draw()

    def epoch(self, job: Job, metrics: Mapping[str, Any], value: float) -> None:
        self.running[job.folder] = (job, int(metrics["epoch"]), value)
        self.rates[job.folder] = (
            metrics.get("train/clips_per_second", 0.0),
            metrics.get("train/data_wait", 0.0),
        )
        self._draw()

    def restarted(self, job: Job, error: str) -> None:
        self.running.pop(job.folder, None)
        self.rates.pop(job.folder, None)
        self.restarts += 1
        self.console.print(Text(f"{self.phase}  {_name(job)}  starts again: {error}"), soft_wrap=True)

    def finished(self, job: Job, outcome: str, reason: str) -> None:
        _, epoch, value = self.running.pop(job.folder, (job, 0, None))
        self.rates.pop(job.folder, None)
        if job.folder not in self.counted:  # one that waited may end again
            self.counted.add(job.folder)
            self.ended += 1
            self.ended_here += 1
        if outcome == "COMPLETE" and value is not None:
            self.ranked = _better(self.ranked, (value, job))
        score = "" if value is None else f"  {value:.4f}"
        line = f"{self.phase} {self.ended}/{self.jobs}  {_name(job)}  {outcome.lower()}"
        line += f" after {epoch} epochs{score}{'  ' + reason if reason else ''}"
        if not self.console.is_terminal:
            line += f"   [{self._summary()}]"
        self.console.print(Text(line), soft_wrap=True)
        self._draw()

    @property
    def best(self) -> Best:
        """Of those that came to their end and those running, each by its last epoch as in the study."""
        running = [(value, job) for job, _, value in self.running.values() if value is not None]
        return functools.reduce(_better, running, self.ranked)

    def say(self, line: str) -> None:
        """A line above the view, of something that is nobody's in particular."""
        self.console.print(Text(f"{self.phase}  {line}"), soft_wrap=True)

    def figures(self) -> dict[str, float]:
        """The phase in numbers, by the names that `gauges` knows."""
        speeds, waits = zip(*self.rates.values()) if self.rates else ((), ())
        best = self.best
        return ({"best_score": best[0]} if best else {}) | {
            "running_trials": len(self.running),
            "ended_trials": self.ended,
            "restarted_trials": self.restarts,
            "clips_per_second": sum(speeds),
            "data_wait": sum(waits) / len(waits) if waits else 0.0,
        }

    def _draw(self) -> None:
        if self.watch:
            self.watch(self.figures())
        if self.console.is_terminal:
            self.live.update(Group(self._table(), Text(self._summary())), refresh=True)

    def _table(self) -> Table:
        table = Table(box=None, pad_edge=False, header_style="bold")
        for heading in ("trial", "epoch", "score", "configuration"):
            table.add_column(heading, no_wrap=True, overflow="ellipsis")
        for job, epoch, value in self.running.values():
            shown = "–" if value is None else f"{value:.4f}"
            name = _name(job)
            table.add_row(name, f"{epoch}/{job.epochs}", shown, Text(describe(job.values)))
        return table

    def _summary(self) -> str:
        elapsed = time.monotonic() - self.began
        parts = [f"{self.ended}/{self.jobs} ended", f"elapsed {_clock(elapsed)}"]
        if self.ended_here and self.ended < self.jobs:
            parts.append(f"remaining about {_clock(elapsed / self.ended_here * (self.jobs - self.ended))}")
        if best := self.best:
            parts.append(f"best so far {best[0]:.4f} ({_name(best[1])})")
        if self.checkpoint_bytes is not None:
            parts.append(f"checkpoints {self.checkpoint_bytes / 1e6:.1f} MB")
        return ", ".join(parts)


def describe(values: Mapping[str, Any]) -> str:
    """A configuration in few words, the structural knobs first."""
    first = [str(values[k]) for k in ("family", "backbone", "framework") if k in values]
    rest = [
        f"{k}={v:.3g}" if isinstance(v, float) else f"{k}={v}"
        for k, v in values.items()
        if k in ("lr", "shared_layers", "optimiser", "schedule") and v is not None
    ]
    return " ".join(first + rest)


def _better(known: Best, other: tuple[float, Job]) -> Best:
    return other if known is None or other[0] > known[0] else known


def _name(job: Job) -> str:
    return job.folder.removeprefix("runs/")


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"
