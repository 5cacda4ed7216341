"""Memory of a training step: counted without numbers, it is what the real step keeps."""

import json

import pytest
import torch
from torch import nn

from datasets.labels import LabelSpace
from trainables.contract import AudioFormat
from trainables.describe import main
from trainables.engine import make_optimiser
from trainables.families.csem import Config, build
from trainables.memory import kept_for_backward, optimiser_bytes, training_memory

LABELS = LabelSpace(("a", "b", "c"), ("u", "v", "w", "x"))
MODELS = {
    "pann": ({"width": 0.1}, AudioFormat(16000, 1, 48000)),
    "cnnt": ({"width": 0.25}, AudioFormat(16000, 1, 48000)),
    "tinycnn": ({}, AudioFormat(16000, 1, 48000)),
    "ast": ({"width": 0.1, "depth": 3, "shared_layers": 1}, AudioFormat(16000, 1, 16000)),
}


def model_of(backbone: str, device: str, **knobs: object) -> tuple[nn.Module, tuple[int, ...]]:
    own, audio = MODELS[backbone]
    with torch.device(device):
        model = build(Config(backbone=backbone, **own, **knobs), LABELS, audio)
    return model, (1, model.frontend.frames(audio.samples), model.frontend.n_mels)


@pytest.mark.parametrize("dropout", [0.0, 0.3])
@pytest.mark.parametrize("backbone", MODELS)
def test_activations_are_those_of_a_real_forward_pass(backbone: str, dropout: float) -> None:
    real, shape = model_of(backbone, "cpu", dropout=dropout)
    expected = kept_for_backward(real.train(), torch.zeros(5, *shape))
    model, _ = model_of(backbone, "meta", dropout=dropout)
    found = training_memory(model, (5, *shape), optimiser="adam")
    assert found["activations"] == expected > 5 * 4 * 1000


def test_storages_are_counted_once_and_parameters_not_at_all() -> None:
    """x → Linear → ReLU → product with itself and with a view of itself: x and the ReLU's output are kept."""

    class Small(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(6, 4)

        def from_features(self, x: torch.Tensor) -> torch.Tensor:
            y = torch.relu(self.layer(x))
            return (y * y).sum() + (y.view(-1, 2) * y.view(-1, 2)).sum()

    x = torch.zeros(3, 6)
    assert kept_for_backward(Small(), x) == 4 * (3 * 6 + 3 * 4)


def test_bytes_of_parameters_gradients_and_optimiser() -> None:
    model, shape = model_of("tinycnn", "meta")
    numbers = sum(p.numel() for p in model.parameters())
    held = sum(t.nbytes for t in (*model.parameters(), *model.buffers()))
    found = training_memory(model, (2, *shape), optimiser="adamw")
    assert (found["parameters"], found["gradients"], found["optimiser"]) == (held, 4 * numbers, 8 * numbers)
    assert found["total"] == held + 12 * numbers + found["activations"]


@pytest.mark.parametrize("name", ["adam", "adamw", "radam"])
def test_optimiser_state_is_that_of_a_real_step(name: str) -> None:
    model, shape = model_of("tinycnn", "cpu")
    optimiser = make_optimiser(name, list(model.parameters()), 1e-3, 0.0)
    model.from_features(torch.randn(2, *shape)).event_from_scene.sum().backward()
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimiser.step()
    state = [v for slots in optimiser.state.values() for v in slots.values() if v.numel() > 1]
    numbers = sum(p.numel() for p in model.parameters())
    assert sum(v.nbytes for v in state) == optimiser_bytes(name) * numbers


def test_checkpointed_blocks_keep_their_inputs_only() -> None:
    plain, shape = model_of("ast", "meta")
    checkpointed, _ = model_of("ast", "meta", activation_checkpointing=True)
    found = [training_memory(m, (4, *shape), optimiser="adam")["activations"] for m in (plain, checkpointed)]
    clips, tokens, size, inputs = (
        4,
        2 + 12 * 12,
        12 * 6,
        1 + 1 + 2 * 1,
    )  # the two branches' first share theirs
    assert clips * tokens * size * inputs * 4 < found[1] < found[0] / 5


def test_activations_grow_with_the_batch_and_shrink_with_bf16() -> None:
    sizes = {}
    for clips, kind in ((4, None), (8, None), (8, torch.bfloat16)):
        model, shape = model_of("cnnt", "meta")
        found = training_memory(model, (clips, *shape), optimiser="adam", autocast=kind)
        sizes[clips, kind] = found["activations"]
    assert 1.9 < sizes[8, None] / sizes[4, None] < 2.1
    assert sizes[8, torch.bfloat16] < 0.75 * sizes[8, None]


def test_describe_says_it_for_the_recipe_s_batch(capsys: pytest.CaptureFixture) -> None:
    assert main(["csem", "--set", "backbone=ast", "batch_size=8", "--json"]) == 0
    memory = json.loads(capsys.readouterr().out)["memory"]
    assert (memory["batch_size"], memory["precision"]) == (8, "fp32")
    assert memory["gradients"] == 4 * 118_793_497 and memory["optimiser"] == 8 * 118_793_497
    assert 7e9 < memory["activations"] < 9e9  # and this machine has not allocated them
    assert main(["csem", "--set", "backbone=ast", "batch_size=8", "precision=bf16"]) == 0
    out = capsys.readouterr().out
    assert "memory of a training step, batch of 8, bf16, MiB" in out and "activations 4,366" in out
