"""Name the scene and the events of recordings, with a trained model.

    python -m trainables.predict studies/NAME/best park.wav recordings/
    find . -name '*.flac' -print0 | python -m trainables.predict MODEL - --json

Recordings may have any length, rate and number of channels; trainables/recordings.py says what is done to
them. Scene probabilities are the model's, divided by its calibration's temperature
(trainables/calibration.py) and averaged over the windows of a long recording; an event's is the largest of
the windows. What can't be read gets its own line and stops nothing: the exit code is 0 if every recording
was answered, 1 if one was not, 2 if nothing could be begun.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TextIO

import torch
import tyro

from datasets.command import MISTAKES, asked, exit_code, one_line
from trainables.predictor import FOUND, Answer, Failed, Predictor, Reason, Why
from trainables.recordings import SUFFIXES


def listed(names: Iterable[str], stdin: TextIO | None = None) -> Iterator[Path | Failed]:
    """The files meant: files, folders (all their audio files, by suffix, in order of name), and for "-" the
    names on `stdin`, one a line, or with a NUL behind each."""
    for name in names:
        if name == "-":
            text = (stdin or sys.stdin).read()
            inner = text.split("\0") if "\0" in text else text.splitlines()
            yield from listed(word for word in inner if word and word != "-")
        elif Path(name).is_dir():
            found = sorted(p for p in Path(name).rglob("*") if _audio(p))
            yield from found
            if not found:
                yield Failed(name, f"a folder without audio files ({', '.join(SUFFIXES)})")
        else:
            yield Path(name)


def _audio(path: Path) -> bool:
    return path.suffix.lower() in SUFFIXES and not path.name.startswith(".") and path.is_file()


@dataclass(frozen=True)
class Request:
    """Which model, on which recordings."""

    model: tyro.conf.Positional[Path]
    """A study's best/, or a folder of trainables.export."""
    files: tyro.conf.Positional[tuple[str, ...]]
    """Recordings, folders of recordings, or - for names on standard input, one a line or NUL-separated."""
    json: bool = False
    """One JSON object a line and recording instead of text."""
    top_events: int = 10
    """How many events are named at most."""
    teacher: Path | None = None
    """For a model that reads tags: the tagger that made them."""
    device: str | None = None
    """cpu or cuda; the GPU where there is one by default."""
    threads: int = field(default_factory=lambda: max(1, int(os.environ.get("OMP_NUM_THREADS") or 1)))
    """CPU threads of the model."""


def main(arguments: list[str] | None = None) -> int:
    request = asked(Request, "python -m trainables.predict", __doc__, arguments)
    return exit_code(lambda: run(request), mistakes=(*MISTAKES, RuntimeError), said=one_line)


def run(request: Request) -> int:
    for name, least in (("threads", 1), ("top_events", 0)):
        if getattr(request, name) < least:
            raise ValueError(
                f"--{name.replace('_', '-')} {getattr(request, name)}: expected at least {least}"
            )
    if not request.files:
        raise ValueError("no recording is named; expected files, folders, or - for names on standard input")
    if request.device not in (None, "cpu", "cuda"):
        raise ValueError(f"--device {request.device}: expected cpu or cuda")
    torch.set_num_threads(request.threads)
    predictor = Predictor(
        request.model, device=request.device, teacher=request.teacher, top_events=request.top_events
    )
    answered, failed = 0, 0
    for one in predictor.predict(listed(request.files)):
        failed += isinstance(one, Failed)
        answered += isinstance(one, Answer)
        print(json.dumps(asdict(one)) if request.json else text(one), flush=True)
    if not answered + failed:
        raise ValueError("no recording is named on standard input")
    if failed:
        print(f"{failed} of {failed + answered} recordings could not be answered", file=sys.stderr)
    return 1 if failed else 0


def text(one: Answer | Failed) -> str:
    """For a terminal: a name with control characters in it stays on its line."""
    if isinstance(one, Failed):
        return f"{printable(one.file)}: error: {one.error}"
    lines = [f"{printable(one.file)}  {one.seconds:.1f} s"]
    if one.scene is not None:
        others = ", ".join(f"{name} {p:.2f}" for name, p in list(one.scenes.items())[1:3])
        flag = {True: "  UNSURE", False: "", None: "  (not calibrated)"}[one.unsure]
        lines.append(f"  scene   {one.scene} {one.probability:.2f}{flag}   then {others}")
    if one.events:
        lines.append("  events  " + ", ".join(f"{name} {p:.2f}" for name, p in one.events.items()))
    for span in one.spans or ():
        lines.append(f"  {span.onset:6.2f} to {span.offset:6.2f} s  {span.event} {span.probability:.2f}")
    if one.why is not None:
        lines.append("  why     " + why_text(one.why))
    return "\n".join(lines + [f"  note    {note}" for note in one.notes])


def why_text(why: Why) -> str:
    """The reasons in a sentence."""
    said = {"coupling": "its events", "prior": "its events", "edges": "the graph's edges"}[why.kind]
    listed = ", ".join(_reason_text(why.kind, one) for one in why.reasons)
    if why.total > 0:
        return f"{said} speak for it and not for {why.against} ({why.total:+.2g}): {listed}"
    mine = f"; for it spoke {listed}" if listed else ""
    return f"{said} speak for {why.against} instead ({why.total:+.2g}){mine}"


def _reason_text(kind: str, one: Reason) -> str:
    if kind == "edges":
        return f"{one.events[0]} → {one.events[1]} {one.contribution:+.2g}"
    heard = "" if one.probability >= FOUND else "no "
    return f"{heard}{one.events[0]} {one.contribution:+.2g}"


def printable(name: str) -> str:
    """The name with what can't be shown in a line as escapes: a new line as \\n."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in name)


if __name__ == "__main__":
    sys.exit(main())
