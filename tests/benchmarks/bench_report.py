"""How long a report takes: python tests/benchmarks/bench_report.py [--trials 10000]

Writes a study folder with that many search runs (27 epochs, stopped early where hopeless), all their curves
and 8 confirmed configurations of 10 seeds, then runs `python -m reports` on it as a user would. Wall and CPU
seconds of the whole command (notebook executed, page written), median of --repeats, with the sizes of both.
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests" / "reports"))

import study_folders as folders  # noqa: E402


def seconds(folder: Path) -> tuple[float, float]:
    """(wall, CPU) of one command, its kernel included."""
    began, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(
        [sys.executable, "-m", "reports", str(folder)],
        check=True,
        stdout=subprocess.DEVNULL,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return time.perf_counter() - began, used


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--trials", type=int, default=10_000)
    parser.add_argument("--repeats", type=int, default=3)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="scenetune-bench-") as scratch:
        folder = folders.searched(Path(scratch) / "study", asked.trials, confirmed=8, seeds=10, epochs=27)
        took = [seconds(folder) for _ in range(asked.repeats)]
        wall, cpu = (statistics.median(one) for one in zip(*took))
        sizes = {name: (folder / name).stat().st_size / 1e6 for name in ("report.html", "report.ipynb")}
    print(f"{asked.trials:,} trials: {wall:.1f} s wall, {cpu:.1f} s CPU (median of {asked.repeats})")
    print(", ".join(f"{name} {size:.1f} MB" for name, size in sizes.items()))
    print(f"{os.cpu_count()} CPU cores, load {os.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    main()
