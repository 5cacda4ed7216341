"""What is drawn of an analysis, exactly: against slow loops from the paper's words, and the ink."""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import analysis_folders as folders
import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg

from reports import analysis, analysis_page, analysis_tables, drawing
from reports.analysis import AnalysisError
from reports.figures import maps, naming, relations


def read(folder: Path, values: Any = None, **changes: Any) -> analysis.Analysis:
    return analysis.load(folders.write(folder, values, **changes))[-1]


@pytest.fixture(autouse=True)
def _coarse(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pictures of few pixels: what is on them is the same."""
    monkeypatch.setattr(drawing, "DPI", 36)


@pytest.fixture
def one(tmp_path: Path) -> analysis.Analysis:
    return read(tmp_path)


def test_fig_5_from_the_papers_words(one: analysis.Analysis) -> None:
    """§V-F: probabilities of the clips *classified* in a scene are averaged, scenes subtracted from each
    other, absolute differences of all events added."""
    logits, events = one.arrays["scene_logits"], one.arrays["event_logits"]
    mean = {}
    for s in range(4):
        mine = [n for n in range(60) if logits[n].argmax() == s]
        mean[s] = [sum(1 / (1 + math.exp(-float(events[n, e]))) for n in mine) / len(mine) for e in range(5)]
    info = relations.scene_differences(one)
    for i in range(4):
        for j in range(4):
            added = sum(abs(mean[i][e] - mean[j][e]) for e in range(5))
            assert info.matrix[i][j] == pytest.approx(added, abs=1e-9)
    assert len(info.pairs) == 6 and sum(info.clips) == 60
    assert [p.difference for p in info.pairs] == sorted((p.difference for p in info.pairs), reverse=True)
    for pair in info.pairs:
        gaps = [mean[pair.first][e] - mean[pair.second][e] for e in range(5)]
        assert abs(gaps[pair.event]) == max(map(abs, gaps))
        assert pair.gap == pytest.approx(gaps[pair.event], abs=1e-9)
        assert mean[pair.more][pair.event] == max(mean[p][pair.event] for p in (pair.first, pair.second))
    (speech,) = relations.event_differences(one, ["Speech"])
    for i in range(4):
        for j in range(4):
            assert speech.matrix[i][j] == pytest.approx(mean[i][2] - mean[j][2], abs=1e-9)
    row, column = speech.largest
    assert speech.matrix[row][column] == max(map(max, speech.matrix))


def test_the_events_drawn_tell_different_scenes_apart(tmp_path: Path) -> None:
    values = folders.arrays(3, 4, 9)
    answer = np.repeat([0, 1, 2], 3)
    values["scene_logits"] = np.eye(3)[answer].astype(np.float32)
    of_scene = np.array([[9, -9, -8, 0], [0, 0, 4, 0], [-9, 8, 0, 0]])  # w and x part the same two scenes
    values["event_logits"] = of_scene[answer].astype(np.float32)
    drawn = relations.event_differences(read(tmp_path, values, scenes="abc", events="wxyz"))
    assert [(d.event, d.largest) for d in drawn] == [("w", (0, 2)), ("y", (1, 0))]


def test_a_scene_no_clip_is_taken_for_has_no_differences(tmp_path: Path) -> None:
    values = folders.arrays(4, 5, 60)
    values["scene_logits"][:, 2] = -99
    found = relations.scene_differences(read(tmp_path / "a", values))
    assert found.clips[2] == 0 and len(found.pairs) == 3
    assert all(math.isnan(v) for v in found.matrix[2]) and math.isnan(found.matrix[0][2])
    values["scene_logits"][:, 1:] = -99
    one_only = read(tmp_path / "b", values)
    assert relations.scene_differences(one_only).note.startswith("Every clip was taken for park,")
    assert relations.event_differences(one_only) == ()
    with pytest.raises(ValueError, match="'Dog' is not one of the 5 the model knows"):
        relations.event_differences(one_only, ["Dog"])


def test_confusions_leave_out_unknown_scenes(tmp_path: Path) -> None:
    values = folders.arrays(4, 5, 60)
    values["scene"][:10] = -1
    one = read(tmp_path, values)
    counts = relations.confusions(one)
    slow = np.zeros((4, 4), int)
    for n in range(10, 60):
        slow[values["scene"][n], values["scene_logits"][n].argmax()] += 1
    assert (counts == slow).all()
    assert [p[2] for p in maps.clip_map(one).points[:10]] == [-1] * 10


def test_the_coupling_shows_each_scenes_strongest_events_first(tmp_path: Path) -> None:
    values = folders.arrays(2, 4, 20)
    values["coupling"] = np.array([[3.0, 1.0, 2.0, -1.0], [0.0, 5.0, 4.0, -2.0]])
    values["event_share"] = np.array([[0.5, 0.1, 0.2, 0.0], [np.nan, 0.9, 0.8, 0.0]])
    one = read(tmp_path, values, scenes="ab", events="wxyz")
    info = relations.coupling(one, most=3)
    assert (info.events, info.hidden) == (("w", "x", "y"), 1)
    assert info.matrix == ((3.0, 0.0), (1.0, 5.0), (2.0, 4.0))
    assert info.agreement == pytest.approx(relations.spearman([3, 1, 2, -1, 5, 4, -2], [5, 1, 2, 0, 9, 8, 0]))
    table = analysis_tables.strongest_pairs(one, most=2)
    assert [row[:3] for row in table.rows] == [("b", "x", "5.00"), ("b", "y", "4.00")]
    assert table.rows[0][5:] == ("90.0", "50.0") and table.note == "The 2 strongest of 8 pairs."


def test_labels_are_named_by_their_strength_and_wear_their_scenes_colour(tmp_path: Path) -> None:
    names = [f"e{i}" for i in range(100)]
    one = read(tmp_path, folders.arrays(4, 100, 20), events=names)
    info = maps.label_map(one)
    assert (
        info.named == 40 and len(info.events) == 100 and [s[0] for s in info.scenes] == list(folders.SCENES)
    )
    coupling = one.arrays["coupling"]
    assert {e[0] for e in info.events[:4]} <= {names[coupling[s].argmax()] for s in range(4)}
    for name, x, y, scene in info.events:
        event = names.index(name)
        assert scene == coupling[:, event].argmax() and (x, y) == tuple(one.arrays["label_map"][4 + event])


def test_names_never_lie_over_each_other_nor_over_the_edge() -> None:
    rng = np.random.default_rng(0)
    at = [(float(x), float(y)) for x, y in rng.uniform(0, 3, (40, 2))]
    boxes = [b for b in naming.place(at, ["a name"] * 40, [7.0] * 40, (3.0, 3.0), np.asarray(at)) if b]
    assert 15 < len(boxes) <= 40
    for i, a in enumerate(boxes):
        assert min(a.left, a.bottom) >= 0 and max(a.right, a.top) <= 3
        for b in boxes[i + 1 :]:
            assert a.right <= b.left or b.right <= a.left or a.top <= b.bottom or b.top <= a.bottom


def test_a_model_without_events_keeps_fig_3(tmp_path: Path) -> None:
    values = {
        name: value
        for name, value in folders.arrays(4, 5, 60).items()
        if name not in ("event_logits", "coupling", "event_attention", "scene_attention", "label_map")
    }
    about = {"of": 60, "points": 60, "seed": 0, "perplexity": 19.7, "distance": "euclidean", "note": ""}
    one = read(tmp_path, values, dependence=[], maps={"clips": about}, coupled=False, left_out=["no events"])
    assert [part.title for part in analysis_page.parts([one])] == ["Scenes: what is taken for what"]
    assert relations.scene_differences(one).note and relations.coupling(one).note and maps.label_map(one).note
    page = analysis_page.html([one])
    assert "<dt>Left out</dt><dd><p>No events.</p>" in page and page.count("<picture>") == 2


def test_too_few_clips_for_a_map_are_said_not_drawn(tmp_path: Path) -> None:
    values = folders.arrays(4, 5, 3) | {"clip_map": np.zeros((0, 2)), "clip_rows": np.zeros(0, int)}
    note = "a t-SNE map needs at least 5 points, there are 3"
    empty = {"of": 3, "points": 0, "seed": 0, "distance": "euclidean", "note": note}
    one = read(tmp_path, values, maps={"clips": empty})
    assert maps.clip_map(one).note == f"No map of the clips: {note}."
    assert f"No map of the clips: {note}." in analysis_page.html([one])


def test_table_x_has_a_column_a_split(tmp_path: Path) -> None:
    folders.write(tmp_path, split="train")
    folders.write(tmp_path, split="test", dependence=[r | {"mean": None} for r in folders.dependence()])
    table = analysis_tables.dependence(analysis.load(tmp_path))
    assert table.columns[1:3] == ("training (± sd, n)", "test (± sd, n)")
    over = "dimensions of a clip, mean over clips"
    assert table.rows[0] == ("Pearson", "0.125 ± 0.500 (7 of 9)", "–", "–", over)
    assert table.rows[1][0] == "Mutual information, nat" and table.rows[1][3] == "nearest neighbours, k = 3"


def test_bad_folders_are_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def refused(folder: Path) -> str:
        assert analysis_page.main([str(folder)]) == 2
        error = capsys.readouterr().err
        assert error.startswith("error: ") and error.count("\n") == 1
        return error

    assert "no such folder" in refused(tmp_path / "none")
    assert "not analysed yet; run python -m trainables.analyse" in refused(tmp_path)
    home = folders.write(tmp_path / "a") / "analysis"
    (home / "val.npz").write_bytes((home / "val.npz").read_bytes()[:300])
    assert "cannot be read with its arrays" in refused(tmp_path / "a")
    values = folders.arrays(4, 5, 60) | {"coupling": np.zeros((4, 6))}
    assert "coupling has the shape (4, 6), expected (4, 5)" in refused(folders.write(tmp_path / "b", values))
    assert "not an analysis of format 1" in refused(folders.write(tmp_path / "c", format=2))
    record = folders.write(tmp_path / "d") / "analysis" / "val.json"
    record.write_text(json.dumps({"format": 1}))
    assert "lacks model, data, scenes" in refused(tmp_path / "d")
    assert analysis_page.main([str(folders.write(tmp_path / "e")), "--event", "Dog"]) == 2
    assert "event 'Dog' is not one of the 5" in capsys.readouterr().err


def test_arrays_that_are_pickles_are_not_read(tmp_path: Path) -> None:
    folder = folders.write(tmp_path, folders.arrays(4, 5, 60) | {"evil": np.array([object()], dtype=object)})
    with pytest.raises(AnalysisError, match="allow_pickle"):
        analysis.load(folder)


def test_the_page_is_whole_and_safe(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    evil = "<script>alert(1)</script> $x^2$ "
    folder = folders.write(
        tmp_path,
        scenes=[evil + s for s in folders.SCENES],
        events=[evil + e for e in folders.EVENTS],
        left_out=[evil],
    )
    assert analysis_page.main([str(folder), "--event", evil + "Speech"]) == 0
    assert capsys.readouterr().out == f"{folder / 'analysis.html'}\n"
    page = (folder / "analysis.html").read_text()
    assert "<script" not in page and not re.search(r"https?://|url\(|@import|<link|<iframe", page)
    pictures = re.findall(r'(?:src|srcset)="([^"]{0,30})', page)
    assert len(pictures) == 12 and all(p.startswith("data:image/png;base64,") for p in pictures)
    assert set(re.findall(r'href="#([^"]*)', page)) <= set(re.findall(r'id="([^"]*)', page))
    assert "What csem tinycnn has learned" in page and "report.ipynb" not in page


def test_a_study_shows_its_model_or_says_how_to(tmp_path: Path) -> None:
    def said() -> str:
        return "\n".join(
            shown.text if hasattr(shown, "text") else shown.alt for shown in analysis_page.of_study(tmp_path)
        )

    assert said() == "There is no model yet."
    best = tmp_path / "best"
    best.mkdir()
    (best / "model.safetensors").write_bytes(b"weights")
    assert "python -m trainables.analyse best --data SHARDS" in said()
    folders.write(best)
    assert "This model is not analysed" in said() and "before its model changed" in said()
    assert analysis_page.main([str(best)]) == 2 and not (best / "analysis.html").exists()
    record = best / "analysis" / "val.json"
    model = json.loads(record.read_text())["model"]
    model["sha256"] = hashlib.sha256(b"weights").hexdigest()
    record.write_text(json.dumps(json.loads(record.read_text()) | {"model": model}))
    assert "From 60 validation clips, scene accuracy 50.0 %, event mAP 25.0 %." in said()
    record.write_text("{")
    assert "cannot be read" in said()


# --- ink ----------------------------------------------------------------------------------------------------


def infos(one: analysis.Analysis) -> list[tuple[Callable[..., Any], Any]]:
    found: list[tuple[Callable[..., Any], Any]] = [
        (maps.draw_clip_map, maps.clip_map(one)),
        (maps.draw_label_map, maps.label_map(one)),
        (relations.draw_scene_differences, relations.scene_differences(one)),
        (relations.draw_coupling, relations.coupling(one)),
    ]
    return found + [(relations.draw_event_difference, d) for d in relations.event_differences(one, most=1)]


@pytest.mark.parametrize("width", [drawing.WIDE, drawing.NARROW])
@pytest.mark.parametrize("events", [1, 527])
def test_every_figure_draws_within_its_page(tmp_path: Path, width: float, events: int) -> None:
    scenes = [f"scene_{i}_with_a_rather_long_name" for i in range(10)]
    names = [f"Sound {i}, of (something) $x^2$ rather long" for i in range(events)]
    one = read(tmp_path, folders.arrays(10, events, 200), scenes=scenes, events=names)
    for draw, info in infos(one):
        assert info.note == "", draw.__name__
        with drawing.styled():
            figure = draw(info, width)
            renderer = FigureCanvasAgg(figure).get_renderer()
            figure.draw(renderer)
            ink = figure.get_tightbbox(renderer)
            across, up = figure.get_size_inches()
            assert max(-ink.x0, -ink.y0, ink.x1 - across, ink.y1 - up) < 0.02, draw.__name__
