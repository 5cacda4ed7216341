"""Two drivers on one study: the second is refused while the first lives, and takes over when it is dead."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from searchspace.hold import hold, read_driver

HOLDER = """
import sys, time
from pathlib import Path
from searchspace.hold import hold
folder, host = Path(sys.argv[1]), sys.argv[2]
import searchspace.hold
if sys.argv[3] == "no locks":
    def refuse(*_, **__): raise NotImplementedError
    searchspace.hold.FileLock.acquire = refuse
try:
    with hold(folder, beat=0.2, silence=1.5, host=host or None):
        print("held", flush=True)
        time.sleep(60)
except ValueError as error:
    print(f"error: {error}", flush=True)
"""


def driver(folder: Path, host: str = "", locks: str = "locks") -> subprocess.Popen[str]:
    held = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(folder), host, locks], stdout=subprocess.PIPE, text=True
    )
    assert held.stdout and held.stdout.readline() == "held\n"
    return held


def test_the_second_driver_is_refused_with_host_and_pid_and_takes_over_from_a_dead_one(
    tmp_path: Path,
) -> None:
    first = driver(tmp_path)
    with pytest.raises(ValueError, match=rf"is being run by process {first.pid} on {os.uname().nodename} \("):
        with hold(tmp_path):
            pass
    first.kill()
    first.wait()
    began = time.monotonic()
    with hold(tmp_path):
        assert read_driver(tmp_path)["pid"] == os.getpid()  # type: ignore[index]
    assert time.monotonic() - began < 5  # the lock is enough on one machine
    assert read_driver(tmp_path) is None and {p.name for p in tmp_path.iterdir()} == {".lock"}


def test_on_a_shared_folder_without_locks_the_sign_of_life_decides(tmp_path: Path) -> None:
    first = driver(tmp_path, host="node-7", locks="no locks")
    with pytest.raises(ValueError, match=f"is being run by process {first.pid} on node-7"):
        with hold(tmp_path, beat=0.2, silence=1.5):
            pass
    first.kill()
    first.wait()
    began = time.monotonic()
    with hold(tmp_path, beat=0.2, silence=1.5):
        assert time.monotonic() - began >= 1.5


def test_a_driver_that_was_stopped_too_long_finds_its_study_taken_and_ends(tmp_path: Path) -> None:
    first = driver(tmp_path, host="node-7", locks="no locks")
    first.send_signal(signal.SIGSTOP)
    with hold(tmp_path, beat=0.2, silence=1.5):
        first.send_signal(signal.SIGCONT)
        out, _ = first.communicate(timeout=20)
        assert f"process {os.getpid()} on" in out and "took it over from this driver" in out
        assert read_driver(tmp_path)["pid"] == os.getpid()  # type: ignore[index]


def test_a_torn_sign_of_life_of_a_dead_driver_is_no_obstacle(tmp_path: Path) -> None:
    (tmp_path / "driver.json").write_text(json.dumps({"host": "node-7", "pid": 1})[:9])
    with hold(tmp_path, silence=0.5):
        assert read_driver(tmp_path)["pid"] == os.getpid()  # type: ignore[index]
