"""The comparison systems of Tables XI and XIII as members of the family: their space, terms and gradients."""

from __future__ import annotations

from typing import Any

import optuna
import pytest
import torch

from datasets.batch import Batch
from datasets.labels import LabelSpace
from searchspace.pins import Pinned
from trainables.contract import AudioFormat
from trainables.families.csem import (
    SEARCHED_BACKBONES,
    SEARCHED_FRAMEWORKS,
    Config,
    build,
    suggest,
    terms,
    weights,
)
from trainables.losses import total
from trainables.parts.released import BACKBONES
from trainables.recipe import configure

LABELS = LabelSpace(("bus", "park", "tram"), ("speech", "bird", "car", "dog"))
AUDIO = AudioFormat(8000, 1, 16000)
B = 6
SYSTEMS: dict[
    str, tuple[set[str], set[str]]
] = {  # loss terms, and the knobs that only this framework asks for
    "hierarchical": ({"scene_ce", "event_bce"}, {"w_event"}),
    "cross_stitch": ({"scene_ce", "event_bce"}, {"w_event", "stitch_same", "stitch_different"}),
    "rgasc": (
        {"scene_ce", "event_bce", "scene_from_event", "event_from_scene"},
        {"w_event", "shared_layers", "w_scene_from_event", "w_event_from_scene", "relation_loss", "detach"},
    ),
    "conditional": (
        {"scene_ce", "event_bce", "fake_scene_bce"},
        {"w_event", "shared_layers", "w_fake_scene"},
    ),
    "joint": ({"scene_event_bce"}, set()),
    "event_only": ({"event_bce"}, set()),
}
RECIPE = {"dropout", "spec_augment", "mixup", "lr", "schedule", "optimiser"}


@pytest.mark.parametrize("framework", SYSTEMS)
@pytest.mark.parametrize("backbone", ["pann", "dcase2018"])
def test_a_pinned_system_has_its_own_space(framework: str, backbone: str) -> None:
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    for _ in range(10):
        trial = Pinned(study.ask(), {"framework": framework, "backbone": backbone})
        knobs = suggest(trial, LABELS)  # type: ignore[arg-type]
        asked = knobs.keys() - RECIPE - {"framework", "backbone", "embedding", "weight_decay"}
        assert asked == SYSTEMS[framework][1] | (
            set() if framework in ("joint", "event_only") else {"w_scene"}
        )
        config, _ = configure("csem", knobs)
        with torch.device("meta"):
            build(config, LABELS, AUDIO)


def test_the_default_space_is_the_paper_s_own_systems() -> None:
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    seen = [suggest(study.ask(), LABELS) for _ in range(80)]
    assert {knobs["framework"] for knobs in seen} == set(SEARCHED_FRAMEWORKS)
    assert {knobs["backbone"] for knobs in seen} == set(SEARCHED_BACKBONES)
    assert not set(SYSTEMS) & set(SEARCHED_FRAMEWORKS)


@pytest.fixture
def batch() -> Batch:
    draw = torch.Generator().manual_seed(0)
    events = (torch.rand(B, 4, generator=draw) < 0.5).float()
    wave = 0.1 * torch.randn(B, 1, 16000, generator=draw)
    return Batch(wave, torch.eye(3)[[0, 1, 2, 0, 1, 2]], events, torch.ones(B, 4), torch.arange(B))


@pytest.mark.parametrize("backbone", BACKBONES)
@pytest.mark.parametrize("framework", SYSTEMS)
def test_every_parameter_learns_from_the_weighted_loss(framework: str, backbone: str, batch: Batch) -> None:
    torch.manual_seed(0)
    config = Config(backbone=backbone, framework=framework, width=0.25 if backbone != "ast" else 0.1)
    model = build(config, LABELS, AUDIO).train()
    if framework in ("rgasc", "conditional"):
        model.relation.fit_labels([batch])
    output = model(batch.waveform)
    values = {name: term(output, batch) for name, term in terms(config).items()}
    assert values.keys() == SYSTEMS[framework][0] == weights(config).keys()
    total(values, weights(config)).backward()
    still = [n for n, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    # a bias of all keys moves every score of a query alike, which softmax does not see
    assert [name for name in still if not name.endswith("key.bias")] == []


@pytest.mark.parametrize(("same", "different"), [(0.9, 0.1), (0.5, 0.5), (1.0, 0.0)])
def test_stitches_start_where_the_knobs_say(same: float, different: float) -> None:
    knobs: dict[str, Any] = {"framework": "cross_stitch", "backbone": "tinycnn"}
    model = build(Config(**knobs, stitch_same=same, stitch_different=different), LABELS, AUDIO)
    assert set(model.stitches) == {"block1", "pooling", "relu1"}
    for unit in model.stitches.values():
        alpha = torch.tensor([[same, different], [different, same]])
        assert torch.equal(unit.weight, alpha[:, :, None].expand_as(unit.weight))


def test_a_stitch_that_passes_only_its_own_is_two_networks_apart(batch: Batch) -> None:
    torch.manual_seed(0)
    knobs: dict[str, Any] = {"backbone": "tinycnn", "framework": "cross_stitch", "stitch_same": 1.0}
    model = build(Config(**knobs, stitch_different=0.0), LABELS, AUDIO).eval()
    x = model.frontend(batch.waveform)
    output = model.from_features(x)
    torch.testing.assert_close(output.scene_embedding, model.scene(x))
    torch.testing.assert_close(output.event_embedding, model.event(x))


def test_relation_terms_of_rgasc_pull_the_other_branch_unless_detached(batch: Batch) -> None:
    for detach, reached in ((False, True), (True, False)):
        torch.manual_seed(0)
        config = Config(framework="rgasc", backbone="tinycnn", detach=detach)
        model = build(config, LABELS, AUDIO)
        model.relation.fit_labels([batch])
        terms(config)["scene_from_event"](model(batch.waveform), batch).backward()
        scene, event = (model.get_submodule(f"{task}_classifier").weight.grad for task in ("scene", "event"))
        assert event.abs().sum() > 0 and (scene is not None and bool(scene.abs().sum() > 0)) == reached


def test_every_system_learns_to_tell_the_scenes_of_a_few_clips(batch: Batch) -> None:
    for framework in SYSTEMS.keys() - {"event_only"}:
        torch.manual_seed(0)
        config = Config(framework=framework, backbone="tinycnn", dropout=0.0, embedding_dropout=0.0)
        model = build(config, LABELS, AUDIO).train()
        if framework in ("rgasc", "conditional"):
            model.relation.fit_labels([batch])
        optimiser = torch.optim.Adam(model.parameters(), 1e-3)
        for _ in range(30):
            optimiser.zero_grad()
            output = model(batch.waveform)
            values = {name: term(output, batch) for name, term in terms(config).items()}
            total(values, weights(config)).backward()
            optimiser.step()
        assert (output.scene_logits.argmax(1) == batch.scene.argmax(1)).all(), framework
