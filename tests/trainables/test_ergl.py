"""ERGL: which events become nodes, how its sizes grow, what it refuses."""

from typing import Any

import pytest
import torch

from datasets.batch import Batch
from datasets.labels import LabelSpace
from datasets.source import Source
from trainables import losses
from trainables.contract import AudioFormat
from trainables.families.ergl import Config, build, top_events
from trainables.metrics import Scores
from trainables.run import Run

LABELS = LabelSpace(("bus", "park"), tuple(f"event {i}" for i in range(12)))
AUDIO = AudioFormat(16000, 1, 16000)


def small(**knobs: object) -> Config:
    return Config(**({"width": 0.05, "n_events": 5, "node_width": 8} | knobs))  # type: ignore[arg-type]


def clips_of(events: torch.Tensor) -> Batch:
    """(B, E) labels as a batch."""
    clips = len(events)
    known = torch.ones_like(events)
    return Batch(torch.zeros(clips, 1, 8), torch.zeros(clips, 2), events, known, torch.arange(clips))


def test_nodes_are_the_events_of_the_largest_mass_ties_by_index() -> None:
    mass = torch.tensor([1.0, 5.0, 3.0, 5.0, 3.0, 0.0])
    slow = sorted(range(6), key=lambda column: (-mass[column].item(), column))
    assert top_events(mass, 4).tolist() == slow[:4] == [1, 3, 2, 4]


def test_terms_and_metrics_see_the_chosen_columns_only() -> None:
    torch.manual_seed(0)
    model = build(small(), LABELS, AUDIO).eval()
    labels = torch.rand(40, 12)
    model.fit_labels(clips_of(part) for part in labels.split(16))
    columns = top_events(labels.double().sum(0), 5)
    events, known = torch.rand(3, 12), (torch.rand(3, 12) < 0.7).float()
    batch = Batch(0.1 * torch.randn(3, 1, 16000), torch.eye(2)[[0, 1, 0]], events, known, torch.arange(3))
    with torch.no_grad():
        output = model(batch.waveform)
    summed, count = 0.0, 0.0
    for clip in range(3):
        for place, column in enumerate(columns.tolist()):
            error = torch.sigmoid(output.event_logits[clip, place]) - events[clip, column]
            summed += float(error**2 * known[clip, column])
            count += float(known[clip, column])
    assert losses.event_mse(output, batch).item() == pytest.approx(summed / count, rel=1e-5)
    scores = Scores()
    scores.add(output, batch)
    assert scores.arrays()["events"].shape == (3, 5)
    assert torch.equal(torch.from_numpy(scores.arrays()["events"]), events[:, columns])


def test_a_run_takes_the_events_of_its_training_clips_alone(source: Source, only_training: Any) -> None:
    values = {"width": 0.05, "n_events": 5, "node_width": 8, "n_mels": 32}
    run = Run("ergl", values, only_training, seed=1, epochs=1)
    mass = [0.0] * len(source.index.labels.events)
    for batch in source.eval_batches("train", 7):
        for clip in range(len(batch)):
            for event in range(len(mass)):
                mass[event] += float(batch.events[clip, event] * batch.event_known[clip, event])
    expected = sorted(range(len(mass)), key=lambda column: (-mass[column], column))[:5]
    assert run.model.columns.tolist() == expected != list(range(5))


def test_the_choice_of_events_is_saved_with_the_model() -> None:
    model, other = build(small(), LABELS, AUDIO), build(small(), LABELS, AUDIO)
    model.fit_labels([clips_of(torch.arange(12.0)[None] / 12)])
    other.load_state_dict(model.state_dict())
    assert other.columns.tolist() == [11, 10, 9, 8, 7]


def test_the_published_size_with_its_parts() -> None:
    """Trunk and FC 2048 are cSEM's PANN, 79,694,282 with bn0 (128) and a classifier of 10 (20,490)."""
    labels = LabelSpace(LABELS.scenes, tuple(map(str, range(527))))
    with torch.device("meta"):
        model = build(Config(), labels, AudioFormat(32000, 1, 320000))
    count = {name: sum(p.numel() for p in part.parameters()) for name, part in model.named_children()}
    assert count["trunk"] + count["embedding"] == 79_694_282 - 128 - 20_490
    assert count["nodes"] == 25 * (2048 * 64 + 64)
    assert count["edges"] == 2 * (2 * (64 * 32 + 32) + 64 * 64 + 64)
    assert count["graph"] == 2 * 21_056 - 128
    assert count["scene_classifier"] == 25 * 64 * 2 + 2


@pytest.mark.parametrize(
    ("knobs", "labels", "message"),
    [
        ({"n_events": 13}, LABELS, "n_events=13: the corpus has 12 events"),
        ({}, LabelSpace((), LABELS.events), "needs scene labels"),
        ({}, LabelSpace(LABELS.scenes, ()), "needs event labels"),
        ({"heads": 8}, LABELS, "heads=8 does not divide half the node width, 4"),
    ],
)
def test_what_it_refuses(knobs: dict[str, object], labels: LabelSpace, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build(small(**knobs), labels, AUDIO)


def test_a_clip_too_short_for_the_trunk_is_refused_with_the_length_it_needs() -> None:
    with pytest.raises(
        ValueError, match=r"clips of 0.20 s give 17 frames; the trunk needs at least 32 frames, 0.34 s"
    ):
        build(small(), LABELS, AudioFormat(16000, 1, 3200))


@pytest.mark.parametrize("edges", ["learned", "constant"])
def test_relations_are_the_gates_shares_clip_by_clip(edges: str) -> None:
    torch.manual_seed(0)
    model = build(small(edges=edges), LABELS, AUDIO).eval()
    waveform = 0.1 * torch.randn(3, 1, 16000)
    with torch.no_grad():
        found = model.event_relations(waveform)
        tokens = model.event_tokens(model.frontend(waveform))
        nodes, relations = tokens.mean(2), model.edges(tokens)
        slow = torch.zeros(3, 5, 5)
        for layer in model.graph:
            _, _, start, end = layer.nodes(nodes).chunk(4, -1)
            for i in range(5):
                gates = [
                    (layer.edges(relations[:, i, j]) + start[:, j] + end[:, i]).sigmoid() for j in range(5)
                ]
                for j in range(5):
                    slow[:, i, j] += (gates[j] / sum(gates)).mean(1) / len(model.graph)
            nodes, relations = layer(nodes, relations)
    torch.testing.assert_close(found, slow, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(found.sum(2), torch.ones(3, 5))
