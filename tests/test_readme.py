"""What the README tells a user to type is accepted as it is written, and a session of it works for real."""

from __future__ import annotations

import argparse
import functools
import inspect
import re
import runpy
import shlex
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import tyro
from tyro.extras import SubcommandApp

ROOT = Path(__file__).resolve().parents[1]
PAGES = ("README.md",)


class Accepted(Exception):
    """Raised in place of doing what was asked."""


def commands(page: str) -> list[str]:
    """Every command of ours in the page's indented and fenced blocks, its comment cut off, and in its
    running text between backquotes."""
    text = (ROOT / page).read_text()
    lines = re.findall(r"^(?: {4,}|)(python (?:-m |tune_csem).*)$", text, re.MULTILINE)
    spans = [" ".join(span.split()) for span in re.findall(r"`(python (?:-m |tune_csem)[^`]+)`", text)]
    return [re.split(r"\s{2,}#", line)[0].strip() for line in [*lines, *spans]]


def stopped(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def accept(*_: Any, **__: Any) -> None:
        raise Accepted

    return accept


@pytest.fixture
def parse_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """Command lines are read by their own parsers, and nothing is done."""
    real, parse_args = tyro.cli, argparse.ArgumentParser.parse_args

    def cli(what: Any, *more: Any, **options: Any) -> None:
        real(stopped(what) if inspect.isfunction(what) else what, *more, **options)
        raise Accepted

    def parse(self: argparse.ArgumentParser, args: Sequence[str] | None = None, *more: Any) -> None:
        parse_args(self, args, *more)
        raise Accepted

    def subcommands(self: SubcommandApp, **options: Any) -> None:
        for name, one in self._subcommands.items():
            self._subcommands[name] = replace(one, target=stopped(one.target))
        app_cli(self, **options)

    app_cli = SubcommandApp.cli
    monkeypatch.setattr(tyro, "cli", cli)
    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", parse)
    monkeypatch.setattr(SubcommandApp, "cli", subcommands)


def run_here(command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The program a command names, in this process, with the command's words as its arguments."""
    words = shlex.split(command.replace("…", "").replace("prepare NAME", "prepare tau2019"))
    monkeypatch.setattr(sys, "argv", words[1:] if words[1] != "-m" else words[2:])
    if words[1] == "-m":
        runpy.run_module(words[2], run_name="__main__", alter_sys=True)
    else:
        runpy.run_path(str(ROOT / words[1]), run_name="__main__")


@pytest.mark.filterwarnings("ignore:.*found in sys.modules:RuntimeWarning")
@pytest.mark.parametrize("command", [one for page in PAGES for one in commands(page)])
def test_a_command_is_accepted_as_it_is_written(
    command: str, parse_only: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(Accepted) if "--help" not in command else pytest.raises(SystemExit, match="0"):
        run_here(command, monkeypatch)


def test_a_command_that_is_wrong_is_not_accepted(parse_only: None, monkeypatch: pytest.MonkeyPatch) -> None:
    for wrong in ("python tune_csem.py --trails 3", "python -m datasets.prepare tau2019 --sauce DIR"):
        with pytest.raises(SystemExit):
            run_here(wrong, monkeypatch)
