"""What commands give back to the shell."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path


def test_a_reader_that_has_gone_is_no_mistake(shards: Path) -> None:
    shell = f"{sys.executable} -m datasets.inspect {shards} | true; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", shell], capture_output=True, text=True, timeout=120)
    assert (done.stdout, done.stderr) == ("141\n", "")
