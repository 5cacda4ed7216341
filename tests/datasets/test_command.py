"""What commands give back to the shell."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from datasets.command import exit_code


def test_what_the_system_says_is_told_in_words(capsys: pytest.CaptureFixture[str]) -> None:
    said = []
    for work in (
        lambda: Path("/no/such").read_text(),
        lambda: Path("/dev/full").write_text("x" * 100_000),  # no name comes with this one
        lambda: Path("/tmp").read_text(),
        lambda: int("x"),
    ):
        assert exit_code(work) == 2  # type: ignore[arg-type]
        said.append(capsys.readouterr().err)
    assert said == [
        "error: /no/such: no such file or directory\n",
        "error: no space left on device\n",
        "error: /tmp: is a directory\n",
        "error: invalid literal for int() with base 10: 'x'\n",
    ]


def test_a_reader_that_has_gone_is_no_mistake(shards: Path) -> None:
    shell = f"{sys.executable} -m datasets.inspect {shards} | true; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", shell], capture_output=True, text=True, timeout=120)
    assert (done.stdout, done.stderr) == ("141\n", "")
