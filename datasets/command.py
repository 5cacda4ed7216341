"""What every command gives back to the shell: one line for a user's mistake, no traceback."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable

MISTAKES = (ValueError, OSError)  # what a user can put right; the message says what and how


def exit_code(
    work: Callable[[], int | None],
    *,
    stopped: str = "stopped",
    mistakes: tuple[type[Exception], ...] = MISTAKES,
    said: Callable[[Exception], str] = str,
) -> int:
    """What `work` gives back (None is 0), 2 after one of its `mistakes`, 130 after Ctrl-C; both say in a line
    on stderr what happened, with the notes of the exception. SCENETUNE_DEBUG=1 shows the traceback. 141, and
    nothing said, when whoever reads our output has had enough, as `| head` has.
    """
    try:
        code = work() or 0
        sys.stdout.flush()
        return code
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # or Python complains once more when it ends
        return 141
    except mistakes as error:
        if os.environ.get("SCENETUNE_DEBUG"):
            raise
        print("; ".join([f"error: {said(error)}", *_notes(error)]), file=sys.stderr)
        return 2
    except KeyboardInterrupt as stop:
        print("\n" + "; ".join([stopped, *_notes(stop)]), file=sys.stderr)
        return 130


def one_line(error: Exception) -> str:
    """For what a library says over several lines."""
    return " ".join(str(error).split())


def _notes(error: BaseException) -> list[str]:
    return getattr(error, "__notes__", [])
