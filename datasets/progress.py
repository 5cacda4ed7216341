"""How far a long piece of work is, on stderr."""

from __future__ import annotations

import sys
import time

BAR_SECONDS = 1.0


class Progress:
    """One line: rewritten on a terminal, else a line at every tenth of the way. `done` of `total` were done
    in an earlier run."""

    def __init__(self, total: int, shown: bool, *, things: str = "clips", done: int = 0) -> None:
        self.total, self._shown, self._things = total, shown, things
        self._done = self._before = done
        self._start, self._last = time.monotonic(), 0.0
        self._live = sys.stderr.isatty()

    def step(self) -> None:
        self._done += 1
        if not self._shown:
            return
        now = time.monotonic()
        if self._live and now - self._last >= BAR_SECONDS:
            self._last = now
            print(f"\r{self._line(now)}   ", end="", file=sys.stderr, flush=True)
        elif not self._live and self._done * 10 // self.total > (self._done - 1) * 10 // self.total:
            print(self._line(now), file=sys.stderr, flush=True)

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *_: object) -> None:
        if self._shown and self._live and self._last:
            print(file=sys.stderr)

    def _line(self, now: float) -> str:
        pace = (self._done - self._before) / max(now - self._start, 1e-6)
        left = (self.total - self._done) / max(pace, 1e-6)
        return f"{self._done}/{self.total} {self._things}, {pace:.0f} a second, {left:.0f} s left"
