"""A picture of a page's top, for a README or a talk:

    python -m reports.picture studies/NAME/report.html --out report.png

needs a Chromium or Chrome on this machine. 128 colours keep it below 200 kB.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from reports.drawing import COLOURS

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
SECONDS = 120


def main(arguments: Sequence[str] | None = None) -> int:
    """0, or 2 after one line about what is missing."""
    parser = argparse.ArgumentParser(
        prog="python -m reports.picture",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("page", type=Path, help="report.html, comparison.html or analysis.html")
    parser.add_argument("--out", type=Path, required=True, help="the picture (.png)")
    parser.add_argument("--width", type=int, default=1000, help="pixels (default: 1000)")
    parser.add_argument("--height", type=int, default=1200, help="pixels (default: 1200)")
    asked = parser.parse_args(arguments)
    try:
        take(asked.page, asked.out, asked.width, asked.height)
    except OSError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"{asked.out} ({asked.out.stat().st_size / 1000:.0f} kB)")
    return 0


def take(page: Path, out: Path, width: int, height: int) -> None:
    """Write the top `width` x `height` pixels of a page as PNG. Raises OSError: no page, no browser, or one
    that takes no picture."""
    if not page.is_file():
        raise FileNotFoundError(f"{page}: no such page; python -m reports STUDY makes report.html")
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        raise FileNotFoundError(f"no browser to take a picture with; looked for {', '.join(BROWSERS)}")
    with tempfile.TemporaryDirectory(prefix="scenetune-picture-") as scratch:
        shot = Path(scratch) / "page.png"
        options = ["--headless", "--disable-gpu", "--hide-scrollbars", "--disable-background-networking"]
        sandbox = ["--no-sandbox"]  # the page is ours and carries no script; containers have no sandbox
        where = [f"--user-data-dir={scratch}/profile", f"--screenshot={shot}", page.resolve().as_uri()]
        command = [browser, *options, *sandbox, f"--window-size={width},{height}", *where]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS)
        except subprocess.TimeoutExpired:
            raise OSError(f"{browser} took no picture of {page} in {SECONDS} s") from None
        if not shot.is_file():
            last = (done.stderr.strip().splitlines() or ["no message"])[-1]
            raise OSError(f"{browser} took no picture of {page}: {last}")
        whole = Image.open(shot).convert("RGB")
        few = whole.quantize(COLOURS, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE)
        few.save(out, format="PNG", optimize=True)


if __name__ == "__main__":
    sys.exit(main())
