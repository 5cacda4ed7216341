"""What every family of the registry promises, checked on small models of every choice it offers."""

import inspect
import subprocess
import sys
import warnings
from dataclasses import asdict, fields, replace
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

import optuna
import pytest
import torch

from datasets.batch import Batch
from datasets.labels import LabelSpace
from searchspace.pins import Replayed
from searchspace.pins import knob as knob_of
from trainables.contract import AudioFormat, JointOutput, answer, answer_features
from trainables.knobs import fill
from trainables.losses import total
from trainables.names import METRICS
from trainables.recipe import Recipe, configure
from trainables.registry import FAMILIES, family

TAGS = ("speech", "rain", "dog", "car", "wind")
LABELS = LabelSpace(("bus", "park", "tram"), ("speech", "bird", "car", "dog"), tags=TAGS)
AUDIOSET_SIZED = replace(LABELS, events=tuple(f"event {i}" for i in range(527)))
PROJECT = Path(__file__).resolve().parents[2]
AUDIO = AudioFormat(16000, 2, 32000)
B = 4
FRAMES = 100  # of 20 ms
NEEDS_EVENTS = ("ergl", "bigru_mtl", "tagger")
NEEDS_TAGS = ("tagvector",)


def variants(name: str) -> list[dict[str, Any]]:
    """The default configuration, and one for every other choice of every knob with named choices, all
    small.
    """
    config = family(name).config
    kinds = get_type_hints(config)
    sizes = {"width": 0.06, "n_events": 3, "node_width": 8}
    small: dict[str, Any] = {knob: size for knob, size in sizes.items() if knob in kinds}
    found = [small]
    for knob, kind in kinds.items():
        choices = get_args(kind) if get_origin(kind) is Literal else (True, False) if kind is bool else ()
        default = next(f.default for f in fields(config) if f.name == knob)
        found += [small | {knob: choice} for choice in choices if choice != default]
    return found


CASES = [pytest.param(name, knobs, id=f"{name}-{knobs}") for name in FAMILIES for knobs in variants(name)]


@pytest.fixture
def batch() -> Batch:
    draw = torch.Generator().manual_seed(0)
    events = (torch.rand(B, 4, generator=draw) < 0.5).float()
    return Batch(
        0.1 * torch.randn(B, 2, 32000, generator=draw),
        torch.eye(3)[[0, 1, 2, 0]],
        events,
        torch.ones(B, 4),
        torch.arange(B),
        torch.rand(B, len(TAGS), generator=draw),
        frames=(torch.rand(B, FRAMES, 4, generator=draw) < 0.2).float(),
        frame_known=torch.ones(B, FRAMES),
        curated=torch.tensor([1.0, 0.0, 1.0, 0.0]),
    )


def built(name: str, knobs: dict[str, Any]) -> tuple[Any, torch.nn.Module]:
    torch.manual_seed(0)
    config = family(name).config(**knobs)
    return config, family(name).build(config, LABELS, AUDIO)


@pytest.mark.parametrize(("name", "knobs"), CASES)
def test_output_terms_and_gradients(name: str, knobs: dict[str, Any], batch: Batch) -> None:
    config, model = built(name, knobs)
    output = answer(model.train(), batch)
    says_scenes = family(name).scenes and knobs.get("framework") != "event_only"
    check_shapes(output, scenes=3 if says_scenes else 0)

    terms, weights = family(name).terms(config), family(name).weights(config)
    assert terms.keys() == weights.keys()
    values = {term: function(output, batch) for term, function in terms.items()}
    for term, value in values.items():
        assert value.shape == () and torch.isfinite(value), term

    total(values, dict.fromkeys(values, 1.0)).backward()
    without = [n for n, p in model.named_parameters() if p.requires_grad and p.grad is None]
    assert without == []  # data-parallel training would wait for them
    for part_name, part in model.named_children():
        grads = [p.grad for p in part.parameters()]
        assert all(g is not None and torch.isfinite(g).all() for g in grads)
        assert not grads or any(g.abs().sum() > 0 for g in grads if g is not None), part_name


def check_shapes(output: JointOutput, scenes: int) -> None:
    assert output.scene_logits.shape == (B, scenes)
    if output.event_logits is not None:
        events = 4 if output.event_columns is None else len(output.event_columns)
        assert output.event_logits.shape == (B, events)
        assert output.event_embedding is not None and output.event_embedding.shape[0] == B
    if output.frame_logits is not None:
        assert output.frame_logits.shape == (B, FRAMES, 4) and output.event_logits is not None
        assert torch.equal(output.event_logits, output.frame_logits.amax(1))
    assert (output.scene_from_event is None) == (output.event_from_scene is None)
    if output.scene_from_event is not None and output.event_from_scene is not None:
        assert output.scene_from_event.shape == (B, 3) and output.event_from_scene.shape == (B, 4)


@pytest.mark.parametrize(("name", "knobs"), CASES)
def test_evaluation_is_deterministic_per_clip_and_enters_after_the_front_end(
    name: str, knobs: dict[str, Any], batch: Batch
) -> None:
    _, model = built(name, knobs)
    model.eval()
    one = Batch(*(getattr(batch, field.name)[2:3] for field in fields(Batch)))
    with torch.no_grad():
        whole = answer(model, batch)
        again = answer(model, batch)
        inner = answer_features(model, model.frontend(batch.waveform), batch.tags)
        alone = answer(model, one)
    for field in fields(JointOutput):
        value = getattr(whole, field.name)
        if value is not None:
            assert torch.equal(value, getattr(again, field.name)) and torch.equal(
                value, getattr(inner, field.name)
            )
            if field.name == "event_columns":  # the same for every clip
                continue
            torch.testing.assert_close(value[2:3], getattr(alone, field.name), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("name", "knobs"), CASES)
def test_bf16_autocast_gives_finite_float32_terms(name: str, knobs: dict[str, Any], batch: Batch) -> None:
    config, model = built(name, knobs)
    with torch.autocast("cpu", torch.bfloat16):
        output = answer(model.train(), batch)
    values = {term: function(output, batch) for term, function in family(name).terms(config).items()}
    assert all(value.dtype == torch.float32 and torch.isfinite(value) for value in values.values())
    total(values, dict.fromkeys(values, 1.0)).backward()


@pytest.mark.parametrize(("name", "knobs"), CASES)
def test_saved_weights_give_the_same_model(name: str, knobs: dict[str, Any], batch: Batch) -> None:
    _, model = built(name, knobs)
    answer(model.train(), batch)  # moves the running statistics away from their start
    torch.manual_seed(1)
    other = family(name).build(family(name).config(**knobs), LABELS, AUDIO)
    other.load_state_dict(model.state_dict())
    with torch.no_grad():
        ours, theirs = (answer(m.eval(), batch).scene_logits for m in (model, other))
    assert torch.equal(ours, theirs)


@pytest.mark.parametrize("name", FAMILIES)
def test_family_file_is_whole(name: str) -> None:
    found = family(name)
    assert found.name == name
    assert found.frame_hop in (None, Fraction(20, 1000))  # the hop of the batch these tests use
    assert fill(found.config, asdict(found.config())) == found.config()
    assert list(inspect.signature(found.suggest).parameters) == ["trial", "labels"]
    recipe_knobs = {f.name for f in fields(Recipe)}
    assert not recipe_knobs & {f.name for f in fields(found.config)}  # one flat name space for both


@pytest.mark.parametrize("name", FAMILIES)
def test_warm_starts_lie_inside_the_space_and_can_be_built(name: str) -> None:
    starts = [row for row in family(name).published if row.warm_start]
    assert starts
    replayed = []
    for row in starts:
        asked = Replayed(row.values)
        family(name).suggest(asked, AUDIOSET_SIZED)
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # FixedTrial only warns of a number out of range
            knobs = family(name).suggest(optuna.trial.FixedTrial(asked.params), AUDIOSET_SIZED)
        assert {k: row.values[k] for k in knobs} == knobs
        config, recipe = configure(name, row.values)
        assert (config, recipe) == configure(name, knobs)  # nothing that matters lies outside the space
        replayed.append(knobs)
    assert all(knobs not in replayed[:i] for i, knobs in enumerate(replayed)), "the same warm start twice"


@pytest.mark.parametrize("name", FAMILIES)
def test_published_rows_are_fractions_with_a_source(name: str) -> None:
    rows = family(name).published
    assert len({(r.table, r.row, r.corpus, r.split, r.metric) for r in rows}) == len(rows)
    for row in rows:
        assert row.paper and row.table and row.row and row.line >= 1
        assert row.values or row.needs
        if row.metric in METRICS:
            assert row.value is None or 0 <= row.value <= 1
            assert row.spread is None or (row.value is not None and 0 < row.spread < 0.2)
            assert row.split in ("validation", "test") and row.corpus


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize(
    "labels",
    [LABELS, replace(LABELS, events=()), replace(LABELS, tags=())],
    ids=["events", "no events", "no tags"],
)
def test_whatever_the_space_proposes_can_be_built_and_trained(name: str, labels: LabelSpace) -> None:
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    if not labels.events and name in NEEDS_EVENTS:
        with pytest.raises(ValueError, match=f"family {name} needs event labels; the corpus has none"):
            family(name).suggest(study.ask(), labels)
        return
    if not labels.tags and name in NEEDS_TAGS:
        with pytest.raises(ValueError, match=f"family {name} reads tag vectors; .* trainables.teacher"):
            family(name).suggest(study.ask(), labels)
        return
    for _ in range(60):
        trial = study.ask()
        knobs = family(name).suggest(trial, labels)
        for dimension, value in trial.params.items():  # "w_event off" decides whether w_event is 0
            assert value == (
                (knobs[knob_of(dimension)] == 0) if dimension.endswith(" off") else knobs[dimension]
            )
        config, _ = configure(name, knobs)
        with torch.device("meta"):
            family(name).build(config, labels, AUDIO)
        assert family(name).terms(config).keys() == family(name).weights(config).keys()
        study.tell(trial, 0.0)


def test_unknown_family_is_answered_with_the_known_ones() -> None:
    with pytest.raises(ValueError, match="family 'csm' is not known; known: csem"):
        family("csm")


def test_importing_a_model_needs_neither_ray_nor_optuna() -> None:
    """The engine runs on machines that have only torch, numpy, scikit-learn and safetensors."""
    script = (
        "import sys\n"
        "from trainables.registry import FAMILIES, family\n"
        "import trainables.losses, trainables.metrics, trainables.names\n"
        "[family(name) for name in FAMILIES]\n"
        "unwanted = {'ray', 'optuna', 'pandas', 'tyro', 'webdataset', 'soundfile'}\n"
        "print(sorted({m.split('.')[0] for m in sys.modules} & unwanted))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=PROJECT, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"
