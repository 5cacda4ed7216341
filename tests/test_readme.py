"""What the README tells a user to type is accepted as it is written. test_readme_story.py does it."""

from __future__ import annotations

import argparse
import functools
import inspect
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest
import tyro
from readme_commands import commands, run_here
from tyro.extras import SubcommandApp

PAGES = ("README.md",)


class Accepted(Exception):
    """Raised in place of doing what was asked."""


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


def accepted(command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    run_here(command.replace("…", "").replace("prepare NAME", "prepare tau2019"), monkeypatch)


@pytest.mark.filterwarnings("ignore:.*found in sys.modules:RuntimeWarning")
@pytest.mark.parametrize(
    "command", [one for page in PAGES for one in commands(page) if one.startswith("python ")]
)
def test_a_command_is_accepted_as_it_is_written(
    command: str, parse_only: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(Accepted) if "--help" not in command else pytest.raises(SystemExit, match="0"):
        accepted(command, monkeypatch)


def test_a_command_that_is_wrong_is_not_accepted(parse_only: None, monkeypatch: pytest.MonkeyPatch) -> None:
    for wrong in ("python tune_csem.py --trails 3", "python -m datasets.prepare tau2019 --sauce DIR"):
        with pytest.raises(SystemExit):
            accepted(wrong, monkeypatch)
