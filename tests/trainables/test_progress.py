"""What the search shows: plain lines where there is no terminal, one screen where there is."""

from __future__ import annotations

import io

from searchspace.study import Job
from trainables.progress import Progress, describe


def job(number: int) -> Job:
    values = {"backbone": "tinycnn", "framework": "csem", "lr": 0.001, "width": 1.0}
    return Job(number, number, 0, "search", values, 1, 9, f"runs/t{number:04d}-r0")


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def drive(stream: io.StringIO) -> str:
    with Progress("search", 3, 9, already=1, stream=stream) as progress:
        first, second = job(1), job(2)
        progress.started(first), progress.started(second)
        progress.epoch(first, {"epoch": 1}, 0.5)
        progress.epoch(second, {"epoch": 1}, 0.25)
        progress.finished(second, "PRUNED", "0.25 < 0.5, the cut-off [bold]at[/bold] epoch 1 among 4 trials")
        progress.restarted(first, "its process died")
    return stream.getvalue()


def test_plain_lines_elsewhere() -> None:
    lines = drive(io.StringIO()).splitlines()
    assert len(lines) == 2
    assert lines[0].startswith(
        "search 2/3  t0002-r0  pruned after 1 epochs  0.2500  0.25 < 0.5, the cut-off [bold]at"
    )
    assert "2/3 ended, elapsed 0:0" in lines[0] and "remaining about" in lines[0]
    assert "best so far 0.5000 (t0001-r0)" in lines[0]
    assert lines[1] == "search  t0001-r0  starts again: its process died"


def test_one_line_a_running_trial_on_a_terminal() -> None:
    shown = drive(Terminal())
    assert "t0001-r0" in shown and "1/9" in shown and "0.5000" in shown and "tinycnn csem lr=0.001" in shown
    assert "2/3 ended" in shown


def test_the_best_so_far_is_by_last_epochs_as_the_study_ranks() -> None:
    shown = io.StringIO()
    with Progress("search", 3, 2, stream=shown) as progress:
        for number, curve in ((1, (0.9, 0.5)), (2, (0.4, 0.6)), (3, (0.3, 0.55))):
            progress.started(job(number))
            for epoch, value in enumerate(curve, 1):
                progress.epoch(job(number), {"epoch": epoch}, value)
            progress.finished(job(number), "COMPLETE", "")
    found = [line.partition("best so far ")[2] for line in shown.getvalue().splitlines()]
    assert found == ["0.5000 (t0001-r0)]", "0.6000 (t0002-r0)]", "0.6000 (t0002-r0)]"]


def test_a_configuration_in_few_words() -> None:
    assert (
        describe({"lr": 0.00123, "backbone": "pann", "dropout": 0.2, "framework": "moe"})
        == "pann moe lr=0.00123"
    )
