"""Ctrl-C in the middle of a search, kept until Ray Tune is between two of its steps."""

from __future__ import annotations

import signal
from typing import Any

from ray import tune

SIGNALS = (signal.SIGINT, signal.SIGUSR1)  # Ctrl-C; searchspace.hold: the study is another driver's now


class BetweenSteps(tune.Callback):
    """Raises KeyboardInterrupt, after one of SIGNALS, between two steps of Tune's loop (0.1 s each while
    nothing happens); after a second one where it arrives. To be entered around Tune's run.

    It would come in the middle of a call into Ray otherwise; a driver once ended with SIGABRT after one (Ray
    2.60; not brought about again). Tune's own handlers end only the phase of the study that is running, and
    of the second of SIGNALS it has one always: so ours are set at Tune's first step, and what was there
    before comes back.
    """

    def __init__(self) -> None:
        self._asked = False
        self._before: dict[signal.Signals, Any] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {}  # Tune pickles it for a restore that never happens

    def __enter__(self) -> BetweenSteps:
        self._before = {number: signal.getsignal(number) for number in SIGNALS}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def on_step_begin(self, iteration: int, trials: list[Any], **info: Any) -> None:
        if iteration == 0:
            for number, handler in self._before.items():
                if handler is not signal.SIG_IGN:  # as in what a script starts in the background
                    signal.signal(number, self._ask)
        if self._asked:
            raise KeyboardInterrupt

    def _ask(self, *_: object) -> None:
        if self._asked:
            raise KeyboardInterrupt
        self._asked = True
