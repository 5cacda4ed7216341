"""What the commands answer to --help, read as a newcomer would."""

from __future__ import annotations

import importlib
import re
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("datasets", "searchspace", "trainables")  # those that read their words with tyro
WIDTH = 110
VALUE = r"(?: [A-Z]+| \{[^}]*\}| \[STR \[STR \.\.\.\]\])?"
UNSAID = re.compile(rf"--[a-z-]+{VALUE} (?:\((?:default:|required\)|repeatable\))|--)")


def commands() -> list[str]:
    files = [path for package in PACKAGES for path in ROOT.glob(f"{package}/*.py")]
    found = [
        path for path in [*files, ROOT / "tune_csem.py"] if 'if __name__ == "__main__"' in path.read_text()
    ]
    return sorted(".".join(path.relative_to(ROOT).with_suffix("").parts) for path in found)


def page(command: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> str:
    name, _, more = command.partition(" ")
    monkeypatch.setenv("COLUMNS", str(WIDTH))
    monkeypatch.setattr(sys, "argv", [name, *more.split(), "--help"])
    with pytest.raises(SystemExit, match="0"):
        importlib.import_module(name).main()
    return capsys.readouterr().out


def boxed(said: str) -> list[str]:
    """What stands in tyro's boxes of options, a line a line, padded to their width."""
    return [line[2:-2] for line in said.splitlines() if line.startswith("│")]


def broken_early(lines: list[str]) -> list[str]:
    """Those after which the first word of the next would have had room in the same column."""
    found = []
    for line, below in pairwise(lines):
        at = len(below) - len(below.lstrip())
        goes_on = at > 4 and line[at] != " " and line[at - 2 : at] == "  "
        if goes_on and len(line.rstrip()) + 1 + len(below.split()[0]) <= len(line):
            found.append(f"{line.rstrip()} | {below.strip()}")
    return found


@pytest.mark.parametrize("command", [*commands(), "datasets.prepare table", "datasets.prepare jssed-recipe"])
def test_help_says_of_every_option_what_it_is(
    command: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    said = page(command, monkeypatch, capsys)
    lines = boxed(said)
    assert not broken_early(lines)
    assert not UNSAID.findall(" ".join(" ".join(lines).split()))
    assert "None" not in said  # as a default it says nothing; the help says what happens then


def test_help_keeps_paragraphs_and_tables_apart(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    said = page("datasets.subset", monkeypatch, capsys)
    assert "\n    --names  by name\n\nTies go to the class that comes first." in said
    assert "the clips of 11 hours are among those of 22." in said


def test_a_reader_who_has_had_enough_of_it_gets_no_traceback() -> None:
    piped = f"{sys.executable} -m datasets.subset --help | {{ exec <&-; cat /dev/null; sleep 5; }}"
    done = subprocess.run(
        ["bash", "-c", f"{piped}; echo ${{PIPESTATUS[0]}}"], capture_output=True, text=True, cwd=ROOT
    )
    assert (done.stdout, done.stderr) == ("141\n", "")
