"""The numbers behind every figure, exactly: empty, one trial, failed, pruned, NaN; and the ink."""

import io
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import study_folders as folders
from matplotlib.backends.backend_agg import FigureCanvasAgg
from PIL import Image

from reports import collect, drawing, figures, findings
from reports.figures import winner
from reports.importance import Importance, importance, logarithmic


def study(folder: Path, runs: Any = (), curves: Any = (), tests: Any = None, **changes: Any) -> collect.Study:
    return collect.load(folders.write(folder, runs, curves, tests, **changes))


@pytest.fixture
def empty(tmp_path: Path) -> collect.Study:
    return study(tmp_path / "empty", status="running")


@pytest.fixture
def mixed(tmp_path: Path) -> collect.Study:
    """Two finished runs, one pruned, one diverged, one failed, one running."""
    cut = "0.400 < 0.500, the cut-off at epoch 3 among 4 trials"
    runs = [
        folders.run(0, 0.70),
        folders.run(1, 0.40, state="PRUNED", epochs=3, reason=cut),
        folders.run(2, math.nan, state="DIVERGED", epochs=2, reason="loss is nan"),
        folders.run(3, 0.80),
        folders.run(4, math.nan, state="FAIL", epochs=0),
        folders.run(5, 0.3, state="RUNNING", epochs=1),
    ]
    curves = [
        *folders.curve(runs[0], [0.5, 0.7]),
        *folders.curve(runs[1], [0.3, 0.4]),
        *folders.curve(runs[2], [0.2, math.nan]),
        *folders.curve(runs[3], [0.6, 0.8]),
        *folders.curve(runs[5], [0.3]),
    ]
    return study(tmp_path / "mixed", runs, curves)


def test_learning_curves(empty: collect.Study, mixed: collect.Study) -> None:
    none = figures.learning_curves(empty)
    assert none.curves == () and none.note == "No search run has finished an epoch yet."
    info = figures.learning_curves(mixed)
    assert info == figures.LearningCurves(
        metric="val/scene_accuracy",
        epochs=9,
        rungs=(3,),
        curves=(
            figures.Curve(1, (1, 2), (0.3, 0.4), "PRUNED", False),
            figures.Curve(2, (1,), (0.2,), "DIVERGED", False),  # the NaN epoch is no point
            figures.Curve(5, (1,), (0.3,), "RUNNING", False),
            figures.Curve(0, (1, 2), (0.5, 0.7), "COMPLETE", False),
            figures.Curve(3, (1, 2), (0.6, 0.8), "COMPLETE", True),
        ),
        note="",
    )


def test_confirmation_runs_are_no_search_curves(tmp_path: Path) -> None:
    again = folders.run(0, 0.9, repeat=1)
    assert figures.learning_curves(study(tmp_path, [again], folders.curve(again, [0.9]))).curves == ()


def test_search_history(empty: collect.Study, mixed: collect.Study) -> None:
    assert figures.search_history(empty).note == "No search run has started yet."
    assert figures.search_history(mixed) == figures.SearchHistory(
        metric="val/scene_accuracy",
        runs=6,
        points=((1, 0, 0.70), (4, 3, 0.80)),
        best=((1, 0.70), (4, 0.80)),
        others=(("PRUNED", (2,)), ("DIVERGED", (3,)), ("FAIL", (5,)), ("RUNNING", (6,))),
        note="",
    )


def test_history_follows_the_start_and_the_mode(tmp_path: Path) -> None:
    runs = [folders.run(t, s, started=f"2026-11-20T10:0{9 - t}:00") for t, s in enumerate((0.5, 0.3, 0.4))]
    info = figures.search_history(
        study(tmp_path, runs, objective={"metric": "val/scene_accuracy", "mode": "min"})
    )
    assert [p[1] for p in info.points] == [2, 1, 0]
    assert info.best == ((1, 0.4), (2, 0.3))


def many(count: int, **changes: Any) -> pd.DataFrame:
    """Runs whose score depends on `lr` alone."""
    rng = np.random.default_rng(0)
    rows = []
    for trial in range(count):
        knobs = {"lr": float(10 ** rng.uniform(-4, -2)), "mixup": float(rng.uniform(0, 0.5))}
        score = 0.8 - 0.1 * abs(math.log10(knobs["lr"]) + 3)
        rows.append(folders.run(trial, score, knobs=knobs, **changes))
    return pd.DataFrame(rows)


def test_importance_needs_comparable_runs() -> None:
    knobs = ("lr", "mixup")
    for runs, said in (
        (many(0, state="FAIL").reindex(columns=many(1).columns), "No search runs have finished all 9 epochs"),
        (many(1), "1 search run has finished all 9 epochs"),
        (many(40, state="PRUNED", epochs=3), "No search runs have finished"),
        (many(40, repeat=1), "No search runs have finished"),
    ):
        found = importance(runs, knobs, epochs=9, mode="max")
        assert found.shares == () and said in found.note


def test_importance_finds_the_knob_that_decides() -> None:
    runs = pd.concat(
        [many(40), many(40, state="PRUNED", epochs=3).assign(**{"config.lr": 1.0, "score": 0.99})]
    )
    found = importance(runs, ("lr", "mixup", "batch_size", "unknown"), epochs=9, mode="max")
    assert found.runs == 40 and found.note == "" and found.constant == ("batch_size",)
    shares = dict(found.shares)
    assert sum(shares.values()) == pytest.approx(1.0) and shares["lr"] > 0.8
    assert found == importance(runs, ("lr", "mixup", "batch_size"), epochs=9, mode="max")


def test_importance_takes_conditional_and_mixed_knobs() -> None:
    runs = many(20)
    runs["config.shared_layers"] = [float(i % 3) if i % 2 else math.nan for i in range(20)]
    runs["config.framework"] = ["csem" if i % 2 else "moe" for i in range(20)]
    runs["config.detach"] = [bool(i % 3) for i in range(20)]
    found = importance(runs, ("lr", "shared_layers", "framework", "detach"), epochs=9, mode="min")
    assert {name for name, _ in found.shares} <= {"lr", "shared_layers", "framework", "detach"}
    assert found.note == ""


def test_of_several_families_each_has_its_own_knobs(tmp_path: Path) -> None:
    """The space names them csem.lr and ergl.lr; their columns are one. Three runs say nothing."""
    runs = many(24)
    runs["config.family"] = ["ergl" if i % 8 == 0 else "csem" for i in range(24)]
    runs.loc[runs["config.family"] == "ergl", "config.mixup"] = 0.3
    space = ["csem.lr", "ergl.lr", "csem.mixup", "ergl.mixup", "ergl.unknown", "family"]
    folders.write(tmp_path, runs.to_dict("records"), family="csem,ergl", space=space)
    one = collect.load(tmp_path)
    knobs = findings.searched_knobs(one)
    assert knobs == ("csem.lr", "ergl.lr", "csem.mixup", "family")
    found = importance(one.runs, knobs, epochs=9, mode="max")
    assert found.thin == ("ergl",) and found.shares[0][0] == "csem.lr" and found.shares[0][1] > 0.5
    assert {name for name, _ in found.shares} == {"csem.lr", "csem.mixup", "family"}
    drawn = figures.slices(one, found)
    assert drawn.slices[0].knob == "csem.lr" and len(drawn.slices[0].points) == 21
    crossed = figures.parallel_coordinates(one, found)
    assert crossed.scales[0].knob == "csem.lr" and crossed.scales[0].ticks[0] == (0.0, "none")


def test_importance_says_when_nothing_differs() -> None:
    same = many(8).assign(**{"config.lr": 0.001})
    assert "do not differ" in importance(same, ("lr",), epochs=9, mode="max").note
    assert "same score" in importance(many(8).assign(score=0.5), ("lr",), epochs=9, mode="max").note


def test_what_is_read_on_a_logarithmic_axis() -> None:
    rng = np.random.default_rng(0)
    assert logarithmic((10 ** rng.uniform(-4, -2, 50)).tolist())
    assert not logarithmic(rng.uniform(0.001, 0.5, 50).tolist())
    assert not logarithmic([0.0, 0.01, 1.0]) and not logarithmic([1, 2, 3])


def test_slices(tmp_path: Path, empty: collect.Study) -> None:
    none = Importance((), 0, (), "too few")
    assert figures.slices(empty, none).note.startswith("Fewer than three")
    settings = [
        {"lr": 0.001, "framework": "moe", "spec_augment": True, "w_event": 0.01},
        {"lr": 0.002, "framework": "csem", "spec_augment": False, "w_event": 1.0},
        {"lr": 0.002, "framework": "csem", "spec_augment": True, "w_event": 0.0},
    ]
    runs = [folders.run(t, 0.7 + t / 100, knobs=k) for t, k in enumerate(settings)]
    runs.append(folders.run(3, 0.99, knobs={"framework": "mlhe"}, state="PRUNED", epochs=1))
    found = figures.slices(
        study(tmp_path, runs), Importance((("w_event", 0.9), ("framework", 0.1)), 3, (), "")
    )
    assert found == figures.Slices(
        "val/scene_accuracy",
        (
            figures.Slice(
                "w_event", "choice", ("1", "0.01", "0"), ((1.0, 0.70, 0), (0.0, 0.71, 1), (2.0, 0.72, 2))
            ),
            figures.Slice(
                "framework", "choice", ("csem", "moe"), ((1.0, 0.70, 0), (0.0, 0.71, 1), (0.0, 0.72, 2))
            ),
        ),
        best=2,
        note="",
    )


def test_slices_of_numbers(tmp_path: Path) -> None:
    found = figures.slices(study(tmp_path, many(40).to_dict("records")), Importance((), 40, (), "none"))
    kinds = {s.knob: s.kind for s in found.slices}
    assert kinds == {"lr": "log number", "mixup": "number"}  # knobs that do not vary are left out


def test_confirmation(tmp_path: Path, empty: collect.Study) -> None:
    assert figures.confirmation(empty, findings.ranked(empty)).note == "No configuration is confirmed yet."
    runs = [
        folders.run(0, 0.7, repeat=1, knobs={"framework": "moe"}),
        folders.run(1, 0.8, repeat=1),
        folders.run(1, 0.82, repeat=2),
    ]
    one = study(tmp_path, runs)
    info = figures.confirmation(one, findings.ranked(one))
    assert [(r.trial, r.label, r.best, r.tied) for r in info.rows] == [
        (1, "csem", True, False),
        (0, "moe", False, True),
    ]
    assert info.rows[0].validation.values == (0.8, 0.82) and info.rows[1].test.n == 1


def result(confusion: list[list[int]], ap: list[float | None]) -> dict[str, Any]:
    return {"metrics": {}, "confusion": confusion, "event_ap": ap, "event_auc": []}


def test_confusion_and_event_precision(tmp_path: Path, empty: collect.Study) -> None:
    assert figures.confusion(empty, None).note and figures.event_precision(empty, None).note
    labels = {"scenes": ["park", "bus"], "events": ["dog", "horn", "rain"]}
    runs = [folders.run(0, 0.7, repeat=1), folders.run(0, 0.7, repeat=2), folders.run(1, 0.6, repeat=1)]
    tests = {
        (0, 1): result([[3, 1], [0, 0]], [0.2, None, 0.9]),
        (0, 2): result([[2, 2], [0, 0]], [0.4, None, 0.9]),
        (1, 1): result([[0, 9], [9, 0]], [0.0, 0.0, 0.0]),  # another configuration
    }
    one = study(tmp_path, runs, tests=tests, data=labels)
    found = figures.confusion(one, 0)
    assert (found.scenes, found.counts, found.runs, found.note) == (("park", "bus"), ((5, 3), (0, 0)), 2, "")
    assert found.shares[0] == (0.625, 0.375) and all(math.isnan(x) for x in found.shares[1])
    events = figures.event_precision(one, 0)
    assert events.rows == (("rain", 0.9, 0.9, 0.9), ("dog", pytest.approx(0.3), 0.2, 0.4))
    assert events.absent == ("horn",) and events.hidden == 0 and events.overall == pytest.approx(0.6)
    none = study(tmp_path / "b", runs[:1], tests={(0, 1): result([[1, 0], [0, 1]], [])}, data=labels)
    assert figures.event_precision(none, 0).note == "This model has no event scores on test."


def test_long_event_lists_show_both_ends(tmp_path: Path) -> None:
    names = [f"event {i}" for i in range(100)]
    data = {"scenes": ["park"], "events": names}
    tests = {(0, 1): result([[1]], [i / 100 for i in range(100)])}
    info = figures.event_precision(
        study(tmp_path, [folders.run(0, 0.7, repeat=1)], tests=tests, data=data), 0
    )
    assert len(info.rows) == 60 and info.hidden == 40
    assert info.rows[0][0] == "event 99" and info.rows[29][0] == "event 70" and info.rows[30][0] == "event 29"
    drawing.render(figures.draw_event_precision, info)


# --- ink ----------------------------------------------------------------------------------------------------


def test_names_are_wrapped_not_cut() -> None:
    assert drawing.wrap("street_traffic", 20) == "street_traffic"
    assert drawing.wrap("street_traffic_noise", 10) == "street_\ntraffic_\nnoise"
    assert drawing.wrap("abcdefghij", 4) == "abcd\nefgh\nij"
    assert drawing.wrap(" two\n words ", 20) == "two words" and drawing.wrap("", 5) == ""
    assert drawing.wrap("a b c d", 1, lines=2) == "a\n…"


def infos(one: collect.Study) -> list[tuple[Callable[..., Any], Any]]:
    result = findings.ranked(one)
    winner = result.best.trial if result.best else None
    found = importance(one.runs, findings.searched_knobs(one), epochs=one.epochs, mode=one.mode)
    return [
        (figures.draw_learning_curves, figures.learning_curves(one)),
        (figures.draw_search_history, figures.search_history(one)),
        (figures.draw_importance, found),
        (figures.draw_slices, figures.slices(one, found)),
        (figures.draw_confirmation, figures.confirmation(one, result)),
        (figures.draw_confusion, figures.confusion(one, winner)),
        (figures.draw_event_precision, figures.event_precision(one, winner)),
    ]


def overhang(figure: Any) -> float:
    """How far the ink reaches over the edge of the page, in inches (negative: it stays inside)."""
    renderer = FigureCanvasAgg(figure).get_renderer()
    figure.draw(renderer)
    ink = figure.get_tightbbox(renderer)
    width, height = figure.get_size_inches()
    return float(max(-ink.x0, -ink.y0, ink.x1 - width, ink.y1 - height))


def overlapping(figure: Any) -> list[str]:
    """Pairs of an axis's drawn tick labels that touch each other."""
    renderer = FigureCanvasAgg(figure).get_renderer()
    figure.draw(renderer)
    found = []
    for axes in (one for one in figure.axes if one.get_visible()):
        for axis in (axes.xaxis, axes.yaxis):
            low, high = sorted(axis.get_view_interval())
            ticks = [t for t in axis.get_major_ticks() if low <= t.get_loc() <= high]
            labels = [t.label2 if t.label2.get_visible() else t.label1 for t in ticks]
            labels = sorted(
                (x for x in labels if x.get_visible() and x.get_text()), key=lambda x: x.get_position()
            )
            boxes = [x.get_window_extent(renderer) for x in labels]
            found += [
                f"{a.get_text()} / {b.get_text()}"
                for i, a in enumerate(labels)
                for j, b in enumerate(labels)
                if i < j and boxes[i].overlaps(boxes[j])
            ]
    return found


@pytest.mark.parametrize("trials", [40, 200])
@pytest.mark.parametrize("width", [drawing.WIDE, drawing.NARROW])
def test_every_figure_draws_within_its_page(tmp_path: Path, width: float, trials: int) -> None:
    long = {
        "scenes": [f"{name}_with_a_rather_long_name_of_a_place" for name in folders.SCENES],
        "events": [f"{name} (a sound that goes on $x^2$ <b>quite</b> a while)" for name in folders.EVENTS],
    }
    one = collect.load(folders.searched(tmp_path, trials, data=long))
    for draw, info in infos(one):
        assert info.note == "", draw.__name__
        with drawing.styled():
            figure = draw(info, width)
            assert overhang(figure) < 0.02, draw.__name__
            assert overlapping(figure) == [], draw.__name__


def test_rendering_is_two_pictures_that_are_not_blank(mixed: collect.Study) -> None:
    wide, narrow = drawing.render(figures.draw_learning_curves, figures.learning_curves(mixed))
    for picture, inches in ((wide, drawing.WIDE), (narrow, drawing.NARROW)):
        image = Image.open(io.BytesIO(picture)).convert("RGB")
        assert image.width == int(inches * drawing.DPI)
        assert len(image.getcolors(maxcolors=1 << 24) or []) > 10


def test_a_rare_colour_keeps_its_hue() -> None:
    def draw(_: Any, width: float) -> Any:
        figure = drawing.canvas(width, 2)
        axes = figure.add_subplot()
        axes.imshow(np.linspace(0, 1, 4000).reshape(40, 100), cmap="Blues", aspect="auto")
        axes.plot(50, 20, "o", color=drawing.VERMILLION, ms=3)
        return figure

    image = np.asarray(Image.open(io.BytesIO(drawing.render(draw, None).wide)).convert("RGB")).astype(int)
    wanted = np.array([0xD5, 0x5E, 0x00])
    assert np.abs(image - wanted).max(axis=2).min() < 24


def test_one_run_draws(tmp_path: Path) -> None:
    runs = [folders.run(0, 0.7, epochs=1), folders.run(0, 0.7, repeat=1, epochs=1)]
    tests = {(0, 1): folders.scored_test(4, 6, 0.7, seed=0)}
    one = study(tmp_path, runs, folders.curve(runs[0], [0.7]), tests, epochs=1)
    drawn = [draw.__name__ for draw, info in infos(one) if not info.note and drawing.render(draw, info)]
    assert drawn == [
        "draw_learning_curves",
        "draw_search_history",
        "draw_confirmation",
        "draw_confusion",
        "draw_event_precision",
    ]


def test_a_model_that_says_nothing_of_scenes_has_no_confusion() -> None:
    for scenes in ((), ("park", "bus")):
        found = winner.from_counts(scenes, np.zeros((len(scenes), len(scenes)), dtype=int), 2)
        assert "nothing to compare" in found.note and not found.counts
