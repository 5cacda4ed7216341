"""Waits for other processes are said and end."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest

from datasets import waits
from datasets.waits import alone, seconds_of


def test_who_waits_says_for_what_and_gets_its_turn(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(waits, "SILENT", 0.05)
    entered = threading.Event()

    def hold() -> None:
        with alone(tmp_path / "lock", "working"):
            entered.set()
            time.sleep(0.3)

    other = threading.Thread(target=hold)
    other.start()
    entered.wait()
    with alone(tmp_path / "lock", "decoding"):
        assert capsys.readouterr().err == "waiting up to 240 min for another process that is decoding\n"
    other.join()


def test_a_wait_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SCENETUNE_LOCK_WAIT", "0.2")
    with alone(tmp_path / "lock", "decoding"):
        with pytest.raises(
            OSError, match=r"another process has been decoding for 0 min \(SCENETUNE_LOCK_WAIT"
        ):
            with alone(tmp_path / "lock", "decoding"):
                raise AssertionError
    with alone(tmp_path / "lock", "decoding"):  # given back
        pass


def test_numbers_of_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    assert seconds_of("SCENETUNE_X", 3.0) == 3.0
    for text, zero, word in (("soon", False, "above 0"), ("0", False, "above 0"), ("-1", True, "0 or more")):
        monkeypatch.setenv("SCENETUNE_X", text)
        with pytest.raises(ValueError, match=f"SCENETUNE_X={text}: expected a number of seconds {word}"):
            seconds_of("SCENETUNE_X", 3.0, zero=zero)
    monkeypatch.setenv("SCENETUNE_X", "0")
    assert seconds_of("SCENETUNE_X", 3.0, zero=True) == 0.0
