"""Killed at any write and resumed, a seeded study makes the same decisions as one that was left alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.every_write import ENDED, KILLED, Fault, die, forked, no_space, outcome, outrun, tear, zero

POINTS = 4  # of each kind here; python -m tests.kill_matrix --writes takes every one


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], int]:
    """(outcome, writes) of a study that was left alone."""
    study = tmp_path_factory.mktemp("whole")
    code, writes, said = forked(study)
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
        assert code == KILLED or (code == ENDED and seen < at), (
            at,
            said,
        )  # how often tables are written varies
        code, _, said = forked(study)
        assert code == ENDED, (at, said)
        assert outcome(study) == expected, at


# By name and not by number: how often the tables are written depends on the time that takes.
@pytest.mark.slow
@pytest.mark.parametrize(
    ("fault", "name", "nth"),
    [
        (zero, "epochs.jsonl", 6),  # the second trial's second line, and a part of its first
        (tear, "epochs.jsonl", 8),  # down to a line that the checkpoint knows
        (outrun, "epochs.jsonl.new", 6),
        (zero, "tensors.safetensors", 3),
        (tear, "state.json.partial", 5),
        (outrun, "checkpoint.new", 2),  # the only checkpoint of a first epoch
        (outrun, "checkpoint.new", 5),  # and one beside the epoch's before it
        (zero, "t0001-r0", 3),  # a checkpoint in its place
        (outrun, "run.json.new", 6),
        (outrun, "trials.parquet.new", 3),
        (tear, "curves.parquet.new", 2),
        (tear, "study.json.new", 6),
    ],
)
def test_torn_and_zeroed_files_are_noticed_and_what_they_held_is_done_again(
    whole: tuple[dict[str, Any], int], tmp_path: Path, fault: Fault, name: str, nth: int
) -> None:
    code, _, said = forked(tmp_path / "study", (name, nth), fault)
    assert code == KILLED, said
    code, _, said = forked(tmp_path / "study")
    assert code == ENDED, said
    assert outcome(tmp_path / "study") == whole[0]


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
        code, _, said = forked(study)
        assert code == ENDED, (at, said)
        assert outcome(study) == expected, at
