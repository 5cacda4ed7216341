"""Ctrl-C during a search: raised between two of Tune's steps, or at once the second time."""

from __future__ import annotations

import signal
from collections.abc import Iterator

import pytest

from trainables.interruption import SIGNALS, BetweenSteps


@pytest.fixture(autouse=True)
def handlers() -> Iterator[None]:
    before = {number: signal.signal(number, signal.default_int_handler) for number in SIGNALS}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", SIGNALS)
def test_it_is_raised_between_two_steps(number: signal.Signals) -> None:
    with BetweenSteps() as interruption:
        signal.signal(signal.SIGUSR1, lambda *_: None)  # as Tune does
        interruption.on_step_begin(0, [])
        signal.raise_signal(number)
        with pytest.raises(KeyboardInterrupt):
            interruption.on_step_begin(1, [])


def test_the_second_is_raised_where_it_arrives() -> None:
    with BetweenSteps() as interruption:
        interruption.on_step_begin(0, [])
        signal.raise_signal(signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)


def test_one_that_is_ignored_stays_so_and_what_was_there_comes_back() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with BetweenSteps() as interruption:
        interruption.on_step_begin(0, [])
        signal.raise_signal(signal.SIGINT)
        interruption.on_step_begin(1, [])
    assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    assert signal.getsignal(signal.SIGUSR1) is signal.default_int_handler
