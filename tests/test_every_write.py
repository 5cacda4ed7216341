"""Killed at any write and resumed, a seeded study makes the same decisions as one that was left alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.every_write import ENDED, KILLED, die, forked, no_space, outcome

POINTS = (
    4  # of each kind here; python -m tests.kill_matrix --writes takes every one, and torn and zeroed writes
)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], int]:
    """(outcome, writes) of a study that was left alone."""
    study = tmp_path_factory.mktemp("whole")
    code, writes, said = forked(study, at=0)
    assert code == ENDED, said
    found = outcome(study)
    states = [trial["state"] for trial in found["trials"]]
    assert {"COMPLETE", "PRUNED", "DIVERGED"} <= set(states) and len(states) == 8 and writes > 200
    return found, writes


@pytest.mark.slow
def test_killed_at_a_write_and_resumed_it_ends_as_if_left_alone(
    whole: tuple[dict[str, Any], int], tmp_path: Path
) -> None:
    expected, writes = whole
    for at in range(1, writes, writes // POINTS):
        study = tmp_path / str(at)
        study.mkdir()
        code, seen, said = forked(study, at, die)
        assert code == KILLED or seen < at, (at, said)  # how often the tables are written varies
        code, _, said = forked(study, at=0)
        assert code == ENDED, (at, said)
        assert outcome(study) == expected, at


@pytest.mark.slow
def test_a_full_disk_at_a_write_is_one_line_and_nothing_is_lost(
    whole: tuple[dict[str, Any], int], tmp_path: Path
) -> None:
    expected, writes = whole
    for at in range(4, writes, writes // POINTS):
        study = tmp_path / str(at)
        study.mkdir()
        code, _, said = forked(study, at, no_space)
        assert code in (2, ENDED), (at, said)
        assert code == ENDED or ("\n" not in said and ("No space left" in said or "no space" in said)), said
        code, _, said = forked(study, at=0)
        assert code == ENDED, (at, said)
        assert outcome(study) == expected, at
