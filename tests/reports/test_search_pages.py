"""Timeline, Pareto front, parallel coordinates and cost: what they hold for every state of a study."""

import importlib.util
import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import study_folders as folders

from reports import collect, cost, drawing, figures, findings
from reports.figures.timeline import Bar
from reports.figures.tradeoff import _at_the_left, front


def study(folder: Path, runs: Any = (), **changes: Any) -> collect.Study:
    return collect.load(folders.write(folder, runs, **changes))


def run(trial: int, score: float = 0.5, **changes: Any) -> dict[str, Any]:
    return folders.run(trial, score, **changes)


# --- timeline -----------------------------------------------------------------------------------------------


def at(second: int) -> str:
    return f"2026-11-20T20:{second // 60:02d}:{second % 60:02d}"


def test_a_timeline_without_a_start_or_a_duration_says_so(tmp_path: Path) -> None:
    assert figures.timeline(study(tmp_path / "a")).note == "No run has written down when it started."
    unknown = study(tmp_path / "b", [run(0, started="")])
    assert figures.timeline(unknown).note == "No run has written down when it started."
    untimed = study(tmp_path / "c", [run(0, seconds=math.nan)])
    assert figures.timeline(untimed).note == "No run has written down how long it took."
    assert cost.used(figures.timeline(untimed)) == ""


def test_runs_fill_the_lowest_free_lane_and_the_idle_time_is_not_counted(tmp_path: Path) -> None:
    rows = [
        run(0, started=at(0), seconds=60.0),
        run(1, started=at(0), seconds=20.0, state="PRUNED"),
        run(2, started=at(20), seconds=20.5),  # ends half a second after its successor's start, as written
        run(3, started=at(40), seconds=20.0, state="DIVERGED"),
        run(0, repeat=1, started=at(100), seconds=20.0),
        run(4, started=at(100), seconds=math.nan, state="RUNNING"),
    ]
    line = figures.timeline(study(tmp_path, rows, concurrent=2))
    assert line.bars == (
        Bar(0, 0, "search", "COMPLETE", 0, 60, 0),
        Bar(1, 0, "search", "PRUNED", 0, 20, 1),
        Bar(2, 0, "search", "COMPLETE", 20, 40, 1),
        Bar(3, 0, "search", "DIVERGED", 40, 60, 1),
        Bar(0, 1, "confirm", "COMPLETE", 100, 120, 0),
        Bar(4, 0, "search", "RUNNING", 100, 120, 1),
    )
    assert line.busy == ((0, 2), (20, 2), (40, 2), (60, 0), (100, 2), (120, 0))
    assert (line.slots, line.idle, line.utilisation, line.note) == (2, 40, 1.0, "")
    assert cost.used(line) == (
        "Runs were at work 100 % of the time of 2 places, leaving aside 40 s in which nothing "
        "ran, over 2 min."
    )
    wider = figures.timeline(study(tmp_path / "wider", rows, concurrent=4))
    assert (wider.slots, wider.utilisation) == (4, 0.5)


def test_lanes_hold_no_two_runs_at_once(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    rows = [
        run(i, started=at(int(rng.integers(0, 900))), seconds=float(rng.uniform(2, 90))) for i in range(120)
    ]
    line = figures.timeline(study(tmp_path, rows))
    for one in line.bars:
        for other in line.bars:
            if one is not other and one.lane == other.lane:
                assert one.end <= other.start or other.end <= one.start
    for second in np.arange(0.5, 900, 7):  # counted the slow way
        together = sum(bar.start <= second < bar.end for bar in line.bars)
        assert together == [n for moment, n in line.busy if moment <= second][-1]


# --- score against cost -------------------------------------------------------------------------------------


def test_the_front_holds_what_nothing_as_cheap_reaches() -> None:
    points = [(0, 10.0, 0.5), (1, 10.0, 0.6), (2, 20.0, 0.6), (3, 30.0, 0.9), (4, 5.0, 0.1), (5, 40.0, 0.8)]
    assert front(points, "max") == (4, 1, 3)
    assert front(points, "min") == (4,)
    rng = np.random.default_rng(1)
    cloud = [(i, float(c), float(s)) for i, (c, s) in enumerate(rng.random((80, 2)))]
    slow = [
        t for t, c, s in cloud if not any(c2 <= c and s2 >= s and (c2, s2) != (c, s) for _, c2, s2 in cloud)
    ]
    assert sorted(front(cloud, "max")) == sorted(slow)


def test_the_names_of_the_cheapest_do_not_lie_on_the_axis() -> None:
    costs = [1e4, 2e4, 1e6]
    assert [_at_the_left(c, costs) for c in costs] == [True, True, False]
    assert [_at_the_left(c, [10.0, 14.0, 20.0]) for c in (10.0, 14.0)] == [True, False]


def test_only_finished_full_length_search_runs_are_weighed(tmp_path: Path) -> None:
    rows = [
        run(0, 0.5, parameters=1000),
        run(1, 0.6, parameters=2000),
        run(2, 0.9, parameters=500, state="PRUNED", epochs=3),
        run(3, math.nan, parameters=500, state="FAIL"),
        run(4, 0.9, parameters=500, epochs=3),
        run(0, 0.99, repeat=1, parameters=1000),
    ]
    found = figures.tradeoff(study(tmp_path / "a", rows))
    (panel,) = found.panels
    assert panel == ("parameters", ((0, 1000.0, 0.5), (1, 2000.0, 0.6)), (0, 1))
    counted = [row | {"macs": 1e6 * row["parameters"]} for row in rows[:2]] + [run(5, 0.4, macs=None)]
    found = figures.tradeoff(study(tmp_path / "b", counted))
    assert [panel.cost for panel in found.panels] == ["parameters", "macs"]
    assert found.panels[1].points == ((0, 1e9, 0.5), (1, 2e9, 0.6))


def test_a_front_of_nothing_says_why(tmp_path: Path) -> None:
    assert figures.tradeoff(study(tmp_path / "a")).note.startswith("Fewer than two search runs")
    assert figures.tradeoff(study(tmp_path / "b", [run(0)])).note.startswith("Fewer than two search runs")
    alike = figures.tradeoff(study(tmp_path / "c", [run(0), run(1)]))
    assert alike.note == "The finished search runs do not differ in what they cost."


# --- parallel coordinates -----------------------------------------------------------------------------------


def test_a_line_stands_at_its_value_on_every_axis(tmp_path: Path) -> None:
    values = [(0.0001, "csem", 0.2), (0.001, "moe", 0.4), (0.01, "csem", None), (0.0003, "moe", 0.3)]
    rows = [
        run(i, 0.5 + 0.1 * i, knobs={"lr": lr, "framework": framework, "w_event": w})
        for i, (lr, framework, w) in enumerate([*values, (0.003, "csem", 0.1), (0.002, "moe", 0.5)])
    ]
    rows += [run(6, math.nan, state="FAIL"), run(7, 0.99, state="PRUNED", epochs=1)]
    one = study(tmp_path, rows, space=["lr", "framework", "w_event", "mixup"])
    none = figures.importance(one.runs, (), epochs=9, mode="max")
    crossed = figures.parallel_coordinates(one, none)
    assert [scale.knob for scale in crossed.scales] == ["lr", "framework", "w_event", "score"]  # mixup is one
    lr, framework, w_event, score = crossed.scales
    assert [text for _, text in lr.ticks] == ["0.0001", "0.001", "0.01"]
    assert framework.ticks == ((0.0, "csem"), (1.0, "moe"))
    assert [text for _, text in w_event.ticks] == ["none", "0.1", "0.3", "0.5"]
    assert score.ticks == ((0.0, "50.0"), (0.5, "75.0"), (1.0, "100.0"))
    assert [line.trial for line in crossed.lines] == [0, 1, 2, 3, 4, 5]  # the best is drawn last
    third = crossed.lines[2]
    assert third.heights == pytest.approx((1.0, 0.0, 0.0, 0.4)) and not third.top
    assert crossed.best == 5 and crossed.lines[-1].top
    assert [line.trial for line in crossed.lines if line.top] == [5]


def test_too_few_runs_or_no_difference_are_said(tmp_path: Path) -> None:
    two = study(tmp_path / "a", [run(0), run(1)])
    found = figures.importance(two.runs, (), epochs=9, mode="max")
    assert figures.parallel_coordinates(two, found).note.startswith("Fewer than three")
    alike = study(tmp_path / "b", [run(i, 0.1 * i) for i in range(4)])
    assert "do not differ" in figures.parallel_coordinates(alike, found).note


# --- cost ---------------------------------------------------------------------------------------------------


def test_hours_count_the_devices_a_run_holds(tmp_path: Path) -> None:
    cpu = study(tmp_path / "a", [run(0, seconds=1800.0)], request={"cpus_per_trial": 4})
    assert cost.total_hours(cpu) == "2.0 CPU-hours"
    request = {"cpus_per_trial": 4, "gpus_per_trial": None, "workers_per_trial": 2}
    hardware = {"cpus": 8, "gpus": ["H100"]}
    gpu = study(tmp_path / "b", [run(0, seconds=1800.0)], request=request, hardware=hardware)
    assert cost.reserved(gpu) == (8.0, 2.0) and cost.total_hours(gpu) == "1.0 GPU-hours"
    shared = study(tmp_path / "c", [run(0)], request={"gpus_per_trial": 0.25}, hardware=hardware)
    assert cost.reserved(shared).hours(3600) == 0.25
    assert cost.total_hours(study(tmp_path / "d")) == ""


def test_a_configurations_cost_is_the_mean_of_its_full_runs(tmp_path: Path) -> None:
    rows = [run(3, repeat=1, seconds=3600.0), run(3, repeat=2, seconds=7200.0)]
    rows += [run(3, repeat=3, seconds=9.0, state="FAIL"), run(3, repeat=4, seconds=9.0, epochs=2)]
    (found,) = cost.by_trial(study(tmp_path, rows), "confirm").values()
    assert (found.parameters, found.seconds, found.hours, found.device) == (297_349, 5400.0, 1.5, "CPU")
    assert math.isnan(found.macs)


def test_retries_and_preemptions_are_told_where_they_are_known() -> None:
    runs = pd.DataFrame([run(0), run(1)])
    assert findings.taken_up(runs) == ""
    known = runs.assign(retries=[2, 0], preemptions=[0, 1])
    assert findings.taken_up(known) == (
        "Taken up again from their checkpoints: 1 run after a fault of the machine (2 times) and 1 run after "
        "their place was taken (1 time)."
    )


def test_without_optuna_only_the_importance_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    runs = pd.DataFrame([run(i, 0.1 * i, knobs={"lr": 0.1 * (i + 1)}) for i in range(8)])
    assert figures.importance(runs, ("lr",), epochs=9, mode="max").shares == (("lr", 1.0),)
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "optuna" else find(name))
    found = figures.importance(runs, ("lr",), epochs=9, mode="max")
    assert found == ((), 8, (), "Importance needs Optuna, which is not installed here.", ())


def test_what_mattered_is_a_sentence() -> None:
    few = figures.Importance((("lr", 0.7), ("mixup", 0.295), ("depth", 0.005)), 12, (), "")
    assert findings.mattered(few) == (
        "lr (70 %) and mixup (30 %): shares of importance over 12 full-length runs; so few that this is "
        "a hint."
    )
    assert findings.mattered(figures.Importance((), 2, (), "Too few.")) == "Too few."


@pytest.mark.parametrize("trials", [3, 60])
def test_the_figures_have_ink_in_both_widths(tmp_path: Path, trials: int) -> None:
    one = collect.load(folders.searched(tmp_path, trials, confirmed=2, seeds=2))
    found = figures.importance(one.runs, findings.searched_knobs(one), epochs=9, mode="max")
    for draw, info in (
        (figures.draw_timeline, figures.timeline(one)),
        (figures.draw_tradeoff, figures.tradeoff(one)),
        (figures.draw_parallel_coordinates, figures.parallel_coordinates(one, found)),
    ):
        if info.note:
            continue
        for width in (drawing.WIDE, drawing.NARROW):
            with drawing.styled():
                drawn = draw(info, width)  # type: ignore[operator]
                drawn.canvas.draw()
            assert drawn.get_size_inches()[0] == width
