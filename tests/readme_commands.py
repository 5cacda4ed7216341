"""The commands of a page: every one a reader is told to type, in the page's order."""

from __future__ import annotations

import re
import runpy
import shlex
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PROGRAMS = r"(?:python (?:-m |tune_csem)|make |ray |pip )"


def commands(page: str) -> list[str]:
    """What the page's indented and fenced blocks and its running text between backquotes say to type; a
    comment behind it is cut off, and what comes twice is there once."""
    text = (ROOT / page).read_text()
    found = re.finditer(rf"^(?: {{4,}}|)({PROGRAMS}.*)$|`({PROGRAMS}[^`]+)`", text, re.MULTILINE)
    typed = (" ".join(one[2].split()) if one[2] else re.split(r"\s+#", one[1])[0] for one in found)
    return list(dict.fromkeys(one.strip() for one in typed))


def run_here(command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The program of ours a command names, in this process, with the command's words as its arguments."""
    words = shlex.split(command)
    monkeypatch.setattr(sys, "argv", words[1:] if words[1] != "-m" else words[2:])
    if words[1] == "-m":
        runpy.run_module(words[2], run_name="__main__", alter_sys=True)
    else:
        runpy.run_path(str(ROOT / words[1]), run_name="__main__")
