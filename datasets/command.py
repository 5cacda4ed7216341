"""What the commands have in common: how they ask, and what they give back to the shell. For a user's mistake
that is one line, no traceback."""

from __future__ import annotations

import ast
import inspect
import os
import re
import sys
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Annotated, Any, TypeVar, get_type_hints

import tyro

Asked = TypeVar("Asked")
Options = TypeVar("Options", bound=Callable[..., Any])

READING = (tyro.conf.DisallowNone, tyro.conf.PositionalMetavarFromFieldName)  # how tyro is to read and show
MISTAKES = (ValueError, OSError)  # what a user can put right; the message says what and how


def asked(
    what: Callable[..., Asked], prog: str, about: str | None = None, argv: Sequence[str] | None = None
) -> Asked:
    """The words of a command line as the dataclass `what`, or what the function `what` gives back for them;
    `about` stands above its options. --help and words that do not fit end the process (SystemExit)."""
    return answered(
        lambda: tyro.cli(
            explained(what), prog=prog, description=about and _paragraphs(about), args=argv, config=READING
        )
    )


def answered(ask: Callable[[], Asked]) -> Asked:
    """What `ask` gives back; the process ends, and says nothing, where whoever reads its --help has had
    enough."""
    try:
        try:
            return ask()
        finally:
            sys.stdout.flush()
    except BrokenPipeError:
        sys.exit(_unread())


def explained(options: Options) -> Options:
    """A dataclass or function as tyro is to explain it: what is said of an option is one paragraph, and where
    its default is nothing that is not shown as one."""
    said = _docstrings(options) if inspect.isclass(options) else {}
    for name, hint in get_type_hints(options, include_extras=True).items():
        repeatable = tyro.conf.UseAppendAction in getattr(hint, "__metadata__", ())
        shown = tyro.conf.arg(help=said.get(name), help_behavior_hint=_repeatable if repeatable else _default)
        options.__annotations__[name] = Annotated[hint, shown]
    return options


def exit_code(
    work: Callable[[], int | None],
    *,
    stopped: str = "stopped",
    mistakes: tuple[type[Exception], ...] = MISTAKES,
    said: Callable[[Exception], str] | None = None,
) -> int:
    """What `work` gives back (None is 0), 2 after one of its `mistakes`, 130 after Ctrl-C; both say in a line
    on stderr what happened (`said`, else `plain`), with the notes of the exception. SCENETUNE_DEBUG=1 shows
    the traceback. 141, and nothing said, when whoever reads our output has had enough, as `| head` has.
    """
    try:
        code = work() or 0
        sys.stdout.flush()
        return code
    except BrokenPipeError:
        return _unread()
    except mistakes as error:
        if os.environ.get("SCENETUNE_DEBUG"):
            raise
        print("; ".join([f"error: {(said or plain)(error)}", *_notes(error)]), file=sys.stderr)
        return 2
    except KeyboardInterrupt as stop:
        print("\n" + "; ".join([stopped, *_notes(stop)]), file=sys.stderr)
        return 130


def _unread() -> int:
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # or Python complains once more when it ends
    return 141


def plain(error: Exception) -> str:
    """An error's own words; of one that the system gave, which file and why."""
    if not isinstance(error, OSError) or not error.strerror:
        return str(error)
    why = error.strerror[0].lower() + error.strerror[1:]
    return why if error.filename is None else f"{error.filename}: {why}"


def one_line(error: Exception) -> str:
    """For what a library says over several lines."""
    return " ".join(plain(error).split())


def _docstrings(options: type) -> dict[str, str]:
    """What stands below each field of a dataclass."""
    (definition,) = ast.parse(inspect.getsource(options)).body
    assert isinstance(definition, ast.ClassDef)
    return {
        field.target.id: " ".join(below.value.value.split())
        for field, below in pairwise(definition.body)
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name)
        if isinstance(below, ast.Expr) and isinstance(below.value, ast.Constant)
        if isinstance(below.value.value, str)
    }


def _paragraphs(text: str) -> str:
    """A paragraph's lines as one: of the lines that it finds, tyro would break some and join some."""
    return re.sub(r"^(\S.*)\n(?=\S)", r"\1 ", text, flags=re.MULTILINE)


def _default(value: str) -> str:
    return "" if value in ("", "''", "None") else f"(default: {value})"


def _repeatable(_: str) -> str:
    return "(repeatable)"


def _notes(error: BaseException) -> list[str]:
    return getattr(error, "__notes__", [])
