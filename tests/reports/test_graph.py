"""The graph of events: which nodes and edges are drawn, and that they can be drawn at any size."""

from __future__ import annotations

from pathlib import Path

import analysis_folders
import numpy as np
import pytest

from reports import analysis_page, drawing
from reports.analysis import Analysis, AnalysisError, load
from reports.figures import graph


def analysed(folder: Path, events: int = 5, **changes: np.ndarray) -> Analysis:
    """Four scenes of 60 clips; event 1 is what event 0 listens to most in the first scene."""
    names = [f"A rather long event, number {i}" for i in range(events)]
    values = analysis_folders.arrays(4, events, 60)
    rng = np.random.default_rng(3)
    shares = analysis_folders.softmax(rng.normal(0, 0.3, (4, events, events)))
    shares[0, 0, -1 if events == 1 else 1] = 0.9
    clips = [int(np.flatnonzero(values["scene"] == scene)[0]) for scene in range(4)]
    values |= {"relation": shares, "relation_clip": np.array(clips), "clip_relation": shares.astype("f2")}
    values |= changes
    return load(analysis_folders.write(folder, values, events=names))[0]


def test_the_strongest_relations_of_a_scene_lead_to_the_event_that_receives(tmp_path: Path) -> None:
    found = analysed(tmp_path)
    info = graph.scene_graph(found, "park", edges=4)
    shares, slow = found.arrays["relation"][0], []
    for end in range(5):
        for start in range(5):
            if start != end:
                slow.append((shares[end, start], start, end))
    slow.sort(reverse=True)
    assert [(edge.start, edge.end) for edge in info.edges] == [(s, e) for _, s, e in slow[:4]]
    assert info.edges[0][:2] == (1, 0) and info.edges[0].share == 0.9
    clips = found.arrays["scene"] == 0
    assert info.activation == pytest.approx(found.event_probabilities()[clips].mean(0))  # type: ignore[index]
    assert info.even == 0.2 and info.of == 5 and not info.note
    assert len(graph.scene_graph(found, "park", edges=99).edges) == 5 * 4


def test_of_many_events_the_most_probable_are_drawn_in_their_order(tmp_path: Path) -> None:
    found = analysed(tmp_path, events=40)
    info = graph.scene_graph(found, "bus")
    clips = found.arrays["scene"] == 1
    mean = found.event_probabilities()[clips].mean(0)  # type: ignore[index]
    kept = sorted(sorted(range(40), key=lambda i: -mean[i])[:25])
    assert info.names == tuple(found.events[i] for i in kept) and info.of == 40
    edge = info.edges[0]
    assert found.arrays["relation"][1][kept[edge.end], kept[edge.start]] == edge.share
    assert info.even == 1 / 40


def test_a_clip_is_drawn_with_its_own_numbers(tmp_path: Path) -> None:
    found = analysed(tmp_path)
    (place,) = graph.clips_of(found, ["street"])
    info = graph.clip_graph(found, place)
    number = int(found.arrays["relation_clip"][2])
    assert place == 2 and info.title == f"clip {number} of street"
    assert info.activation == pytest.approx(found.event_probabilities()[number])  # type: ignore[index]


def test_scenes_answered_best_and_worst_are_drawn(tmp_path: Path) -> None:
    values = analysis_folders.arrays(4, 5, 60)
    logits = np.eye(4)[values["scene"]]
    logits[values["scene"] == 2] = np.eye(4)[0]
    found = analysed(tmp_path, scene_logits=logits.astype(np.float32))
    assert graph.scenes_to_draw(found)[-1] == "street" and len(graph.scenes_to_draw(found)) == 2


@pytest.mark.parametrize("events", [1, 2, 25, 60])
def test_it_is_drawn_at_both_widths(tmp_path: Path, events: int) -> None:
    drawn = drawing.render(graph.draw_graph, graph.scene_graph(analysed(tmp_path, events=events), "mall"))
    assert drawn.wide[:4] == drawn.narrow[:4] == b"\x89PNG"


def test_the_page_has_it_and_other_models_say_that_they_have_none(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = analysis_page.html([analysed(tmp_path / "ergl")], scenes=["mall"])
    assert "Events as a graph" in page and "Graph of events of mall" in page
    with pytest.raises(ValueError, match="'attic' is not one of: park, bus"):
        analysis_page.html([load(tmp_path / "ergl")[0]], scenes=["attic"])
    plain = analysis_folders.write(tmp_path / "csem")
    assert "Events as a graph" not in analysis_page.html(load(plain))
    assert analysis_page.main([str(plain), "--scene", "park"]) == 2
    assert capsys.readouterr().err == "error: --scene park: This model has no graph of events.\n"


def test_relations_of_another_shape_and_scenes_without_clips(tmp_path: Path) -> None:
    values = analysis_folders.arrays(4, 5, 60)
    with pytest.raises(AnalysisError, match="relation has the shape"):
        analysed(tmp_path / "a", relation=np.ones((4, 5, 4)))
    unseen = np.where(values["scene"] == 3, 0, values["scene"])
    found = analysed(tmp_path / "b", scene=unseen)
    assert graph.scene_graph(found, "mall").note == "There is no clip of mall."
