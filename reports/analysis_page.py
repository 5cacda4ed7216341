"""What a model has learned, as a page of its own or as a part of its study's report."""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import nbformat

from reports import analysis_tables, drawing, markup, notebook, units
from reports.analysis import Analysis, AnalysisError, current
from reports.figures import graph, maps, relations, winner
from reports.findings import Finding

Shown = markup.Block | markup.Picture


class Part(NamedTuple):
    """A part of the page: `shown` under a title."""

    title: str
    shown: tuple[Shown, ...]


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the page; 0, or 2 after one line about what is wrong."""
    parser = argparse.ArgumentParser(
        prog="python -m reports.analysis",
        description="A page of what a model has learned: one file, no network, no script.",
    )
    parser.add_argument("folder", type=Path, help="a folder that python -m trainables.analyse has analysed")
    parser.add_argument(
        "--event",
        action="append",
        default=[],
        metavar="NAME",
        help="draw this event's differences; repeatable",
    )
    parser.add_argument(
        "--scene",
        action="append",
        default=[],
        metavar="NAME",
        help="draw this scene's graph of events, of a model that has one; repeatable",
    )
    parser.add_argument("--out", type=Path, help="the page; analysis.html in the folder by default")
    asked = parser.parse_args(arguments)
    try:
        analyses = current(asked.folder)
        page = asked.out or asked.folder / "analysis.html"
        page.write_text(html(analyses, asked.event, asked.scene), encoding="utf-8")
        print(page)
    except (AnalysisError, ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def html(analyses: Sequence[Analysis], events: Sequence[str] = (), scenes: Sequence[str] = ()) -> str:
    """The whole page, self-contained. Raises ValueError for an event or a scene the model does not know."""
    drawn = analyses[-1]
    cells = [_cell([_top(drawn)])]
    for part in [*parts(analyses, events, scenes), _origin(drawn)]:
        cells += [nbformat.v4.new_markdown_cell(f"## {part.title}"), _cell(part.shown)]
    made = nbformat.v4.new_notebook(cells=cells)
    name = f"{drawn.record['model'].get('family')}, run {drawn.record['model'].get('run')}"
    return notebook.to_html(made, title=f"Analysis of {name}", footer="Made by scenetune from analysis/.")


def of_study(folder: Path) -> Iterator[Shown]:
    """The parts for a study's best model, or one line that says why there are none."""
    best = folder / "best"
    if not best.is_dir():
        yield markup.paragraph("There is no model yet.", kind="quiet")
        return
    try:
        analyses = current(best)
    except (AnalysisError, OSError) as error:
        why = f" ({error})" if (best / "analysis").is_dir() else ""
        yield markup.paragraph(f"This model is not analysed{why}. In the study's folder:", kind="quiet")
        yield markup.command("python -m trainables.analyse best --data SHARDS")
        return
    yield markup.paragraph(_facts(analyses[-1]))
    if missing := _left_out(analyses[-1]):
        yield markup.paragraph(f"Left out: {missing}", kind="quiet")
    for part in parts(analyses):
        yield markup.heading(part.title)
        yield from part.shown


def parts(analyses: Sequence[Analysis], events: Sequence[str] = (), scenes: Sequence[str] = ()) -> list[Part]:
    """Fig. 3, Table X, Fig. 4, the coupling and Fig. 5, or a graph of events; drawn for the last of
    `analyses`."""
    drawn = analyses[-1]
    found = [_scenes(drawn)]
    if drawn.event_probabilities() is None:
        return found
    if "relation" in drawn.arrays:
        return [*found, _differences(drawn, events), _graphs(drawn, scenes)]
    if scenes:
        raise ValueError(f"--scene {scenes[0]}: {graph.NO_GRAPH}")
    return [*found, _differences(drawn, events), _labels(drawn), _coupling(drawn), _embeddings(analyses)]


def _top(drawn: Analysis) -> markup.Block:
    model, data = drawn.record["model"], drawn.record["data"]
    found = Finding("", f"What {_name(drawn)} has learned", _facts(drawn), ())
    left_out = {"Left out": _left_out(drawn)}
    return markup.header(
        f"run {model.get('run')} on {data.get('corpus')}", str(model.get("family")), found, left_out
    )


def _left_out(drawn: Analysis) -> str:
    return " ".join(f"{said[0].upper()}{said[1:]}." for said in map(str, drawn.record["left_out"]) if said)


def _name(drawn: Analysis) -> str:
    values = drawn.record["model"].get("values") or {}
    return " ".join(str(values[k]) for k in ("framework", "backbone") if k in values) or "the model"


def _facts(drawn: Analysis) -> str:
    split, metrics = units.SPLITS[drawn.split], drawn.record["metrics"]
    said = f"From {drawn.clips:,} {split} clips"
    known = [name for name in ("scene_accuracy", "event_map") if f"{drawn.split}/{name}" in metrics]
    scores = [
        f"{on.label} {units.score(metrics[f'{drawn.split}/{name}'], on, unit=True)}"
        for name in known
        for on in [units.scale(f"{drawn.split}/{name}")]
    ]
    done, full = (drawn.record["model"].get(name) for name in ("epoch", "epochs"))
    short = f" Its training is not finished: {done} of {full} epochs." if done != full else ""
    return ", ".join([said, *scores]) + "." + short


def _scenes(drawn: Analysis) -> Part:
    counts = relations.confusions(drawn)
    confused = winner.from_counts(drawn.scenes, counts, 1)
    if not counts.sum():
        confused = confused._replace(note="No clip has a known scene, so there is nothing to compare with.")
    mapped = maps.clip_map(drawn)
    part = (
        ""
        if len(mapped.points) == mapped.of
        else f" {len(mapped.points):,} of {mapped.of:,} clips, at random."
    )
    return Part(
        "Scenes: what is taken for what",
        (
            *markup.figure(
                winner.draw_confusion,
                confused,
                "Confusion matrix of true and predicted scenes",
                "Per cent of the row's clips and, on wide screens, their number. Empty cells are zero.",
            ),
            *markup.figure(
                maps.draw_clip_map,
                mapped,
                "t-SNE map of the clips by their scene scores",
                "Clips by their scene scores (t-SNE): those answered alike lie together. Colour and shape "
                "are the true scene, full marks are answered rightly, hollow ones wrongly; a scene's name "
                f"stands in its middle. Distances between groups mean little, axes have no unit.{part} As "
                "Fig. 3 of Hou et al.",
            ),
        ),
    )


def _differences(drawn: Analysis, events: Sequence[str]) -> Part:
    overall = relations.scene_differences(drawn)
    rho = ""
    if math.isfinite(overall.agreement):
        said = units.number(overall.agreement, 2)
        rho = f" Rank correlation of difference and confusion over the pairs: {said} (negative: what differs "
        rho += "more is confused less)."
    shown: list[Shown] = [
        *markup.figure(
            relations.draw_scene_differences,
            overall,
            "Overall differences between scenes with the main event of each pair",
            "How far two scenes lie apart: the mean probability of every event in the clips taken for the "
            "row's scene less that in the column's, without sign, added up over all events (events a "
            "clip). Upper right, on wide screens: the event that differs most. Behind a scene's name: the "
            "clips taken for it.",
            rho,
            " As Fig. 5 (c) of Hou et al.",
        )
    ]
    if not overall.note:
        shown.append(markup.table(analysis_tables.main_events(overall)))
        for one in relations.event_differences(drawn, events):
            row, column = one.largest
            gap = units.number(100 * one.matrix[row][column], 1)
            shown += markup.figure(
                relations.draw_event_difference,
                one,
                f"Differences between scenes in the probability of {one.event}",
                f"{one.event}: mean probability in the row's scene less that in the column's, in points. "
                f"The largest difference, {gap} points, is of {one.scenes[row]} over {one.scenes[column]}. ",
                "" if events else "Drawn are the events that differ most between two scenes. ",
                "As Fig. 5 (a) and (b) of Hou et al.",
            )
    return Part("Events: what tells scenes apart", tuple(shown))


def _graphs(drawn: Analysis, scenes: Sequence[str]) -> Part:
    """The scenes asked for, else those answered best and worst; and the clip of the first that is surest."""
    chosen = list(scenes) or graph.scenes_to_draw(drawn)
    shown: list[Shown] = []
    drawings = [graph.scene_graph(drawn, scene) for scene in chosen]
    drawings += [graph.clip_graph(drawn, place) for place in graph.clips_of(drawn, chosen[:1])]
    for info in drawings:
        fewer = f"the {len(info.names)} most probable of {info.of}" if len(info.names) < info.of else "all"
        shown += markup.figure(
            graph.draw_graph,
            info,
            f"Graph of events of {info.title}: nodes with their probability, the strongest directed edges",
            f"{info.title}: events ({fewer}), larger and darker the more probable, and the {len(info.edges)} "
            "strongest relations between two of them. An arrow leads to the event that receives; the darker, "
            "the larger its share of what that event receives (mean over channels and layers of the gate). "
            f"Were all alike, each would be {units.number(100 * info.even, 1)} %.",
        )
        if not info.note:
            shown.append(markup.folded("As a table", markup.table(analysis_tables.relations(info))))
    return Part("Events as a graph", tuple(shown))


def _labels(drawn: Analysis) -> Part:
    mapped = maps.label_map(drawn)
    others = len(mapped.events) - mapped.named
    unnamed = (
        f"the {mapped.named} that couple strongest are named, the {others} others are small" if others else ""
    )
    return Part(
        "Scenes and events in one space",
        tuple(
            markup.figure(
                maps.draw_label_map,
                mapped,
                "t-SNE map of the classifiers' weights of scenes and events",
                "The classifiers' weights of scenes (large) and events (small), in one t-SNE map by "
                f"{mapped.distance} distance. An event has the colour and shape of the scene it couples "
                "strongest with"
                + (f"; {unnamed}" if unnamed else "")
                + ". A name without room is left out; on a phone fewer are named. As Fig. 4 of Hou et al.",
            )
        ),
    )


def _coupling(drawn: Analysis) -> Part:
    info = relations.coupling(drawn)
    largest = max((abs(value) for row in info.matrix for value in row), default=0.0)
    deepest = f" (the deepest colour is ±{units.number(largest, 2)})"
    untrained = "" if drawn.record["coupled"] else " Nothing in this model's training uses it."
    hidden = (
        f" {units.plural(info.hidden, 'event')} with weaker coupling are left out." if info.hidden else ""
    )
    shown: list[Shown] = [
        *markup.figure(
            relations.draw_coupling,
            info,
            "Coupling matrix of scenes and events",
            "The scalar product of a scene's and an event's classifier weights: ",
            markup.Tint("red", "#b2182b"),
            " goes together, ",
            markup.Tint("blue", drawing.BLUE),
            f" apart{deepest}; bold is the event's strongest scene.{hidden}{untrained} "
            f"{analysis_tables.agreement(info)}",
        )
    ]
    if not info.note:
        shown.append(markup.table(analysis_tables.strongest_pairs(drawn)))
    return Part("Coupling of scenes and events", tuple(shown))


def _embeddings(analyses: Sequence[Analysis]) -> Part:
    empty = "The model has no two embeddings to compare."
    found = analysis_tables.dependence(analyses)
    return Part(
        "How much the two embeddings share",
        (markup.table(found, empty=empty), *([markup.table(analysis_tables.PAPER)] if found.rows else [])),
    )


def _origin(drawn: Analysis) -> Part:
    return Part(
        "Where the numbers come from",
        (
            markup.table(analysis_tables.sources(drawn), kind="facts"),
            markup.folded("All its knobs", markup.table(analysis_tables.knobs(drawn))),
        ),
    )


def _cell(shown: Sequence[Shown]) -> nbformat.NotebookNode:
    outputs = [nbformat.v4.new_output("display_data", one._repr_mimebundle_()) for one in shown]
    return nbformat.v4.new_code_cell("", outputs=outputs)
