"""Scores along one quantity: points, correlations, what can't be put on one axis."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import study_folders as folders

from reports import collect, drawing
from reports.figures import data_sweep, draw_sweep, table_sweep
from reports.sweep import main, text

METRICS = ("scene_accuracy_macro", "event_lwlrap")
SCORES = {0.0: (0.60, 0.64), 0.5: (0.62, 0.66), 0.9: (0.63, 0.65), 0.95: (0.70, 0.72)}


def study(
    folder: Path,
    scores: Mapping[float, Sequence[float]] = SCORES,
    *,
    others: Sequence[dict] = (),
    quoted: Mapping[str, float] | None = None,
    **data: Any,
) -> collect.Study:
    """A table of α; scores by repeat, lwlrap being α plus a tenth of them."""
    runs, rows = [], []
    for trial, (alpha, values) in enumerate(scores.items()):
        for repeat, value in enumerate(values, start=1):
            knobs = folders.config(alpha=alpha, **(others[trial] if others else {}))
            one = folders.run(trial, value, repeat=repeat, knobs=knobs, phase="table")
            runs.append(one | {f"test/{METRICS[0]}": value, f"test/{METRICS[1]}": alpha / 2 + value / 10})
        for metric in METRICS:
            about = {"row": f"alpha={alpha:g}", "line": trial + 1, "trial": trial, "metric": metric}
            rows.append(about | {"corpus": "tut2018", "split": "test", "why": "", "unlike": []})
            rows[-1] |= {"value": None, "spread": None, "spread_kind": ""}
    table = {"name": "fig2", "paper": "Parikh 2022", "baseline": 1, "rows": rows, "quoted": quoted or {}}
    return collect.load(folders.write(folder, runs, table=table, seeds=2, published=[], data=data))


def slow_pearson(x: Sequence[float], y: Sequence[float]) -> float:
    mean = [sum(values) / len(values) for values in (x, y)]
    across = sum((a - mean[0]) * (b - mean[1]) for a, b in zip(x, y))
    size = [sum((v - m) ** 2 for v in values) for values, m in zip((x, y), mean)]
    return across / math.sqrt(size[0] * size[1])


def test_the_rows_of_a_table_along_the_knob_that_varies(tmp_path: Path) -> None:
    found = table_sweep(study(tmp_path))
    assert (found.of, found.note) == ("alpha", "")
    scenes, tags = found.lines
    assert (scenes.column, tags.column) == tuple(f"test/{name}" for name in METRICS)
    assert [point.x for point in scenes.points] == [0.0, 0.5, 0.9, 0.95]
    means = [sum(values) / 2 for values in SCORES.values()]
    assert [point.ours.mean for point in scenes.points] == pytest.approx(means)
    assert scenes.points[0].ours.sd == pytest.approx(0.04 / math.sqrt(2))
    assert scenes.reference == pytest.approx(0.62)
    assert scenes.pearson == pytest.approx(slow_pearson(list(SCORES), means))
    assert tags.spearman == pytest.approx(1.0)


def test_rows_that_differ_in_more_or_in_too_little_are_no_sweep(tmp_path: Path) -> None:
    more = study(tmp_path / "a", others=[{"lr": 0.1 * (i + 1)} for i in range(4)])
    assert "3 values of one knob that is a number" in table_sweep(more).note
    assert table_sweep(more, "alpha").note == "The finished rows also differ in lr."
    few = study(tmp_path / "b", {0.0: (0.5, 0.6), 0.5: (0.5, 0.6)})
    assert table_sweep(few).note == "The finished rows do not have 3 values of one knob that is a number."
    empty = study(tmp_path / "c", {})
    assert table_sweep(empty).lines == ()


def test_one_row_in_studies_of_more_and_more_data(tmp_path: Path) -> None:
    hours = {11: 0.62, 45: 0.63, 360: 0.68}
    studies = [
        study(tmp_path / str(h), {0.95: (v, v + 0.02)}, hours={"train": h}, events=["e"] * (h // 5))
        for h, v in hours.items()
    ]
    scenes, _ = data_sweep(studies, "hours").lines
    assert [(point.x, point.ours.n) for point in scenes.points] == [(11, 2), (45, 2), (360, 2)]
    assert scenes.pearson == pytest.approx(slow_pearson(list(hours), list(hours.values())))
    assert [point.x for point in data_sweep(studies, "events").lines[0].points] == [2, 9, 72]
    assert drawing.render(draw_sweep, data_sweep(studies, "hours")).narrow.startswith(b"\x89PNG")


def test_the_correlation_that_the_paper_quotes_stands_beside_that_of_scenes(tmp_path: Path) -> None:
    quoted = {"pearson_hours": 0.89, "pearson_events": 0.24}
    studies = [
        study(tmp_path / str(h), {0.95: (v,)}, hours={"train": h}, quoted=quoted)
        for h, v in ((11, 0.62), (45, 0.63), (360, 0.68))
    ]
    found = data_sweep(studies, "hours")
    assert [line.quoted for line in found.lines] == [0.89, None]
    said = text(found).split("correlation of hours")
    assert "(the paper's text: 0.89)" in said[1] and "paper" not in said[2]
    with drawing.styled():
        titles = [axes.get_title("left") for axes in draw_sweep(found, drawing.WIDE).axes]
    assert titles[0].endswith(f"Pearson {found.lines[0].pearson:.2f} (the paper's text: 0.89)")
    assert "Pearson" in titles[1] and "paper" not in titles[1]
    assert "1 point: none; it takes 3" in text(data_sweep(studies[:1], "hours"))
    assert [line.quoted for line in table_sweep(study(tmp_path / "alone", quoted=quoted)).lines] == [
        None,
        None,
    ]


def test_studies_side_by_side_may_differ_in_knobs(tmp_path: Path) -> None:
    joint, alone = study(tmp_path / "a", {0.95: (0.7, 0.72)}), study(tmp_path / "b", {0.0: (0.6, 0.64)})
    found = data_sweep([joint, alone], "study")
    assert [(point.name, point.ours.mean) for point in found.lines[0].points] == [
        (str(joint.record["name"]), pytest.approx(0.71)),
        (str(alone.record["name"]), pytest.approx(0.62)),
    ]
    assert math.isnan(found.lines[0].pearson) and "correlation" not in text(found)
    assert drawing.render(draw_sweep, found).narrow.startswith(b"\x89PNG")


def test_an_older_study_has_its_hours_from_clips_and_length(tmp_path: Path) -> None:
    one = study(tmp_path, {0.95: (0.6,)}, clips={"train": 720}, seconds=10.0)
    assert data_sweep([one], "hours").lines[0].points[0].x == pytest.approx(2.0)


def test_the_command_prints_draws_and_refuses_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole, one = study(tmp_path / "a"), study(tmp_path / "b", {0.95: (0.6, 0.7)})
    other = study(tmp_path / "c", {0.5: (0.6, 0.7)})
    search = folders.write(tmp_path / "d", [folders.run(0, 0.5)])
    picture = tmp_path / "sweep.png"
    assert main([str(whole.folder), "--out", str(picture)]) == 0
    out = capsys.readouterr().out
    assert "Pearson" in out and "63.0 ± 2.8" not in out and "62.0 ± 2.8" in out
    assert picture.read_bytes().startswith(b"\x89PNG")
    for words, said in (
        (
            [whole.folder, one.folder, "--of", "hours"],
            "several rows were run, pick one (--row); those are 1, 2",
        ),
        ([whole.folder, one.folder, "--of", "hours", "--row", "9"], "row 9 was not run"),
        ([one.folder, other.folder, "--of", "events"], "its row has another alpha than"),
        ([one.folder, one.folder, "--of", "events"], "given twice"),
        ([one.folder, other.folder], "expected hours, events or study for several studies"),
        ([one.folder], "do not have 3 values"),
        ([search], "not a table's study"),
    ):
        assert main([str(word) for word in words]) == 2
        err = capsys.readouterr().err
        assert said in err and err.count("\n") == 1
