"""A small page on this computer: drop or record a sound, and see scene, events and reasons.

    python -m trainables.serve studies/NAME/best

It listens on 127.0.0.1 alone and answers only requests that were addressed to it by that name, so that no
page from elsewhere can use it by way of the browser. Nothing is kept: a recording lies in a temporary file
until it is answered. The page loads nothing from elsewhere. Needs the packages of the extra `serve`.

    GET  /                the page
    GET  /model           what the model is
    POST /predict?name=N  a recording's bytes → an answer of trainables/predict.py, or {"file", "error"}
"""

from __future__ import annotations

import socket
import sys
from dataclasses import dataclass
from pathlib import Path

import torch
import tyro

from datasets.command import MISTAKES, asked, exit_code, one_line
from trainables.predictor import Predictor

HOST = "127.0.0.1"


@dataclass(frozen=True)
class Request:
    """Which model, and where."""

    model: tyro.conf.Positional[Path]
    """A study's best/, or a folder of trainables.export."""
    port: int = 8330
    """Port on 127.0.0.1; 0 takes a free one."""
    limit_mb: int = 64
    """Largest recording, MB."""
    top_events: int = 10
    """How many events are shown at most."""
    teacher: Path | None = None
    """For a model that reads tags: the tagger that made them."""
    threads: int = 0
    """CPU threads of the model; 0: as torch chooses."""


def listening(port: int) -> socket.socket:
    """A socket on 127.0.0.1. Raises ValueError for a port that can't be had."""
    if not 0 <= port <= 65535:
        raise ValueError(f"--port {port}: expected 0 to 65535")
    made = socket.socket()
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        made.bind((HOST, port))
        made.listen()
    except OSError as error:
        made.close()
        raise ValueError(
            f"--port {port} on {HOST}: {error.strerror}; name another, or 0 for a free one"
        ) from error
    return made


def main(arguments: list[str] | None = None) -> int:
    request = asked(Request, "python -m trainables.serve", __doc__, arguments)
    mistakes = (*MISTAKES, RuntimeError, ImportError)
    return exit_code(lambda: serve(request), mistakes=mistakes, said=_said)


def _said(error: Exception) -> str:
    missing = "; pip install -e '.[serve]' brings it" if isinstance(error, ImportError) else ""
    return one_line(error) + missing


def serve(request: Request) -> int:
    """Until Ctrl-C. Raises ImportError without the extra, ValueError or OSError in one line."""
    import uvicorn

    from trainables.local_page import application

    for name, least in (("limit_mb", 1), ("top_events", 0), ("threads", 0)):
        if getattr(request, name) < least:
            raise ValueError(
                f"--{name.replace('_', '-')} {getattr(request, name)}: expected at least {least}"
            )
    if request.threads:
        torch.set_num_threads(request.threads)
    predictor = Predictor(request.model, teacher=request.teacher, top_events=request.top_events)
    app = application(predictor, HOST, request.model.resolve().name, request.limit_mb * 2**20)
    with listening(request.port) as made:
        print(f"http://{HOST}:{made.getsockname()[1]}/   (Ctrl-C ends it)", flush=True)
        config = uvicorn.Config(app, log_level="warning", access_log=False, server_header=False)
        uvicorn.Server(config).run(sockets=[made])
    return 0


if __name__ == "__main__":
    sys.exit(main())
