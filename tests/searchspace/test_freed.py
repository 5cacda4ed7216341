"""Memory that is freed in a driver goes back to the system."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

HELD = """
import psutil
from searchspace.freed import give_back
megabytes = lambda: psutil.Process().memory_info().rss / 1e6
give_back()
before = megabytes()
held = [bytes(2000) for _ in range(100_000)]
full = megabytes()
held = held[::1000]  # what is left lies all over it
freed = megabytes()
give_back()
print(before, full, freed, megabytes())
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other C libraries have no malloc_trim")
def test_freed_memory_is_given_back_although_some_between_is_still_held() -> None:
    done = subprocess.run([sys.executable, "-c", HELD], capture_output=True, text=True, check=True)
    before, full, freed, after = map(float, done.stdout.split())
    assert full - before > 150 and freed - before > 100, "without giving back it is kept"
    assert after - before < 20
