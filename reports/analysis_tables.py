"""An analysis as tables: Table X beside the paper's, the strongest pairs, where everything comes from."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from reports import units
from reports.analysis import Analysis
from reports.figures.graph import EventGraph
from reports.figures.relations import Coupling, SceneDifferences
from reports.tables import Table

PAPER = Table(
    ("Hou et al., Table X (TUT2018)", "MoE-AST", "MlhE-AST", "cSEM-AST"),
    (
        ("Pearson, training", "1.000", "0.006", "0.001"),
        ("Pearson, test", "1.000", "0.002", "0.001"),
        ("Mutual information, nat, training", "4.784", "3.290", "2.958"),
        ("Mutual information, nat, test", "4.827", "3.423", "2.983"),
    ),
    numeric=frozenset({1, 2, 3}),
    note="The paper names neither the estimator nor what it averages over. Its mutual information fits "
    "“exact values” over 2048 dimensions of which 42 % are zero: 4.79 nat for an embedding with itself, "
    "2.99 nat for two that have nothing to do with each other.",
)
OVER = {"dimensions": "dimensions of a clip, mean over clips", "clips": "clips, mean over dimensions"}


def dependence(analyses: Sequence[Analysis]) -> Table:
    """Table X: Pearson's correlation and mutual information of E_s and E_e, one column a split. n counts the
    coefficients averaged, of how many: units that never fire have no correlation."""
    analyses = [one for one in analyses if one.record["dependence"]]
    if not analyses:
        return Table((), ())
    columns = ("", *(f"{units.SPLITS[one.split]} (± sd, n)" for one in analyses), "estimator", "over")
    rows = []
    for number, row in enumerate(analyses[0].record["dependence"]):
        unit = f", {row['unit']}" if row["unit"] else ""
        means = [_mean_of(one.record["dependence"][number]) for one in analyses]
        rows.append(
            (f"{row['statistic'].capitalize()}{unit}", *means, row["estimator"] or "–", OVER[row["over"]])
        )
    return Table(columns, tuple(rows), numeric=frozenset(range(1, 1 + len(analyses))))


def _mean_of(row: Mapping[str, Any]) -> str:
    if row["mean"] is None:
        return units.NONE
    spread = "" if row["sd"] is None else f" ± {units.number(row['sd'], 3)}"
    of = f" of {row['of']:,}" if row["of"] != row["n"] else ""
    return f"{units.number(row['mean'], 3)}{spread} ({row['n']:,}{of})"


def main_events(info: SceneDifferences, most: int = 12) -> Table:
    """The most different pairs of scenes and the event behind each."""
    rows = tuple(
        (
            f"{info.scenes[pair.first]}, {info.scenes[pair.second]}",
            units.number(pair.difference, 2),
            info.events[pair.event],
            info.scenes[pair.more],
            units.number(100 * abs(pair.gap), 1),
        )
        for pair in info.pairs[:most]
    )
    hidden = len(info.pairs) - len(rows)
    note = f"The {len(rows)} most different of {len(info.pairs)} pairs." if hidden else ""
    columns = ("scenes", "difference", "main event", "more in", "by, points")
    return Table(columns, rows, numeric=frozenset({1, 4}), note=note)


def strongest_pairs(analysis: Analysis, most: int = 12) -> Table:
    """The scene-event pairs with the highest coupling, beside what the labels say of them."""
    arrays = analysis.arrays
    if "coupling" not in arrays:
        return Table((), ())
    coupling, share = arrays["coupling"], arrays["event_share"]
    order = np.argsort(-coupling, axis=None, kind="stable")[:most]
    known = np.isfinite(share)
    everywhere = np.where(known, share, 0).sum(0) / np.maximum(known.sum(0), 1)
    rows = []
    for scene, event in (divmod(int(cell), coupling.shape[1]) for cell in order):
        heard = share[scene, event]
        rows.append(
            (
                analysis.scenes[scene],
                analysis.events[event],
                units.number(float(coupling[scene, event]), 2),
                _percent(arrays["event_attention"][scene, event]),
                _percent(arrays["scene_attention"][event, scene]),
                _percent(heard),
                _percent(everywhere[event] if known[:, event].any() else math.nan),
            )
        )
    columns = (
        "scene",
        "event",
        "coupling",
        "attention over events, %",
        "attention over scenes, %",
        "labelled in the scene's clips, %",
        "in all scenes' (mean), %",
    )
    size = coupling.size
    note = f"The {len(rows)} strongest of {size:,} pairs." if size > len(rows) else ""
    return Table(columns, tuple(rows), numeric=frozenset(range(2, 7)), note=note)


def relations(info: EventGraph, most: int = 12) -> Table:
    """The strongest relations of a graph of events, and how probable both ends are."""
    rows = tuple(
        (
            info.names[edge.start],
            info.names[edge.end],
            _percent(edge.share),
            _percent(info.activation[edge.start]),
            _percent(info.activation[edge.end]),
        )
        for edge in info.edges[:most]
    )
    columns = ("from", "to", "share, %", "probability of the first, %", "of the second, %")
    note = f"The {len(rows)} strongest; evenly shared, each would be {_percent(info.even)} %."
    return Table(columns, rows, numeric=frozenset({2, 3, 4}), note=note)


def _percent(share: float) -> str:
    return units.number(100 * float(share), 1)


def agreement(info: Coupling) -> str:
    """What the coupling has to do with the labels, in a sentence; "" where it cannot be said."""
    if not math.isfinite(info.agreement):
        return ""
    return (
        "Over all pairs, the rank correlation of the coupling with the share of the scene's clips that are "
        f"labelled with the event is {units.number(info.agreement, 2)}."
    )


def sources(analysis: Analysis) -> Table:
    """Which model, which clips, made how."""
    model, data, maps = analysis.record["model"], analysis.record["data"], analysis.record["maps"]
    done, full = model.get("epoch"), model.get("epochs")
    drawn = [f"{kind}: {_map(about)}" for kind, about in maps.items() if not about["note"]]
    facts = {
        "Model": f"{model.get('family')}, run {model.get('run') or units.NONE}, {model.get('file')}",
        "Its checksum": model.get("sha256"),
        "Trained": f"{done} of {full} epochs, seed {model.get('seed')}, "
        f"commit {model.get('commit') or units.NONE}",
        "Trained on": model.get("trained_on"),
        "Clips": f"{data.get('clips')} of {data.get('corpus')}, {units.SPLITS[analysis.split]} split",
        "Their checksum": data.get("checksum"),
        "Licence": data.get("licence"),
        "t-SNE": "; ".join(drawn),
        "Made": f"{units.instant(analysis.record.get('made'))}, commit "
        f"{(analysis.record.get('analysed_with') or {}).get('commit') or units.NONE}",
    }
    return Table(("", ""), tuple((name, str(said)) for name, said in facts.items() if said))


def _map(about: Mapping[str, Any]) -> str:
    return (
        f"{about['points']:,} of {about['of']:,} points, {about['distance']} distance, perplexity "
        f"{about['perplexity']:.3g}, seed {about['seed']}"
    )


def knobs(analysis: Analysis) -> Table:
    """Every knob of the model."""
    values = analysis.record["model"].get("values") or {}
    return Table(("knob", "value"), tuple((str(name), units.knob(value)) for name, value in values.items()))
