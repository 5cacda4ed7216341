"""The words a search space is written in: each a function of an Optuna trial, with its meaning, unit and
range.

A word means the same in every family. Ranges hold the papers' values, so that a published configuration can
be proposed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from searchspace.pins import off

if TYPE_CHECKING:
    from optuna.trial import BaseTrial


def choice(trial: BaseTrial, name: str, choices: Sequence[str]) -> str:
    """One of several by name. Keep the choices the same in all trials of a study: the store refuses other
    ones.
    """
    return trial.suggest_categorical(name, list(choices))


def switch(trial: BaseTrial, name: str) -> bool:
    return trial.suggest_categorical(name, [False, True])


def shared_layers(trial: BaseTrial, blocks: int) -> int:
    """How many of a backbone's `blocks` both tasks share before they part, 1 … blocks."""
    return trial.suggest_int("shared_layers", 1, blocks)


def loss_weight(trial: BaseTrial, name: str) -> float:
    """Weight of a loss term: 0 by a choice of its own (dimension "<name> off"), else log scale, 0.001 … 2."""
    if switch(trial, off(name)):
        return 0.0
    return trial.suggest_float(name, 1e-3, 2.0, log=True)


def auxiliary_share(trial: BaseTrial) -> float:
    """α: weight of the auxiliary task's term, 1 - α being that of scenes, in steps of 0.01 from 0 to 0.99;
    never 1, for the search is for scenes."""
    return trial.suggest_float("alpha", 0.0, 0.99, step=0.01)


def scene_weight(trial: BaseTrial) -> float:
    """Weight of scene_ce beside other terms, log scale, 0.1 … 2; never off, for the search is for scenes."""
    return trial.suggest_float("w_scene", 0.1, 2.0, log=True)


def small_weight(trial: BaseTrial, name: str) -> float:
    """Weight of a task that may have next to no say in layers shared with another, log scale, 1e-5 … 2."""
    return trial.suggest_float(name, 1e-5, 2.0, log=True)


def reversal_strength(trial: BaseTrial) -> float:
    """λ of a gradient reversal, log scale, 0.01 … 2."""
    return trial.suggest_float("reversal_strength", 0.01, 2.0, log=True)


def embedding(trial: BaseTrial) -> int:
    """Values of an embedding, before `width` scales them: one of the papers' 100, 512, 2048, or 1024.

    A choice and no range: every continuous dimension more slows the sampler down in finding the backbone.
    """
    return trial.suggest_categorical("embedding", [100, 512, 1024, 2048])


def stitch(trial: BaseTrial, name: str) -> float:
    """How much of a task's own, or of the other's, activations a cross-stitch unit passes at the start, in
    steps of 0.1 from 0 to 1.
    """
    return trial.suggest_float(name, 0.0, 1.0, step=0.1)


def learning_rate(trial: BaseTrial, low: float = 1e-4, high: float = 1e-2) -> float:
    """Highest learning rate, log scale, `low` … `high`; transformers need lower ones than convolutions."""
    return trial.suggest_float("lr", low, high, log=True)


def weight_decay(trial: BaseTrial) -> float:
    """Weight decay, log scale, 1e-5 … 0.1: decoupled with adamw, else L2. Without adamw ask only in a family
    whose paper has it so.
    """
    return trial.suggest_float("weight_decay", 1e-5, 0.1, log=True)


def optimiser(trial: BaseTrial) -> str:
    return choice(trial, "optimiser", ("adam", "adamw", "radam"))


def schedule(trial: BaseTrial) -> str:
    """Learning rate over the run: constant, or a half cosine to zero."""
    return choice(trial, "schedule", ("none", "cosine"))


def dropout(trial: BaseTrial) -> float:
    """Probability of dropping a value after every block, 0 … 0.5."""
    return trial.suggest_float("dropout", 0.0, 0.5)


def mixup(trial: BaseTrial) -> float:
    """α of mixup's Beta(α, α), in steps of 0.1 from 0 (off) to 0.5."""
    return trial.suggest_float("mixup", 0.0, 0.5, step=0.1)


def spec_augment(trial: BaseTrial) -> bool:
    """Whether stripes of time and frequency are masked in training."""
    return switch(trial, "spec_augment")


def top_n_events(trial: BaseTrial, events: int) -> int:
    """How many of the `events` a graph has as nodes, log scale, 10 … 400 or as many as there are."""
    return trial.suggest_int("n_events", min(10, events), min(400, events), log=True)


def node_width(trial: BaseTrial) -> int:
    """Numbers in a node and in an edge of a graph."""
    return trial.suggest_categorical("node_width", [16, 32, 64, 128])


def attention_heads(trial: BaseTrial) -> int:
    """Heads of an attention; they share its channels."""
    return trial.suggest_categorical("heads", [1, 2, 4, 8])


def gcn_layers(trial: BaseTrial) -> int:
    """Graph convolutions one after another, 1 … 8."""
    return trial.suggest_int("gcn_layers", 1, 8)


def gcn_dropout(trial: BaseTrial) -> float:
    """Probability of dropping a value after every graph convolution, 0 … 0.5."""
    return trial.suggest_float("gcn_dropout", 0.0, 0.5)


def batch_size(trial: BaseTrial) -> int:
    """Clips a step, where the papers' is not the default of 64."""
    return trial.suggest_categorical("batch_size", [24, 64])


def tag_layers(trial: BaseTrial, name: str, most: int) -> int:
    """Fully-connected layers that a tag vector goes through before it is used, 0 … `most`."""
    return trial.suggest_int(name, 0, most)


def tag_width(trial: BaseTrial) -> int:
    """Outputs of each such layer; 0 = as many as tags."""
    return trial.suggest_categorical("tag_width", [0, 64, 128, 256])


def filter_heads(trial: BaseTrial) -> int:
    """Groups of filters, each with an attention of its own."""
    return trial.suggest_categorical("heads", [2, 4, 8, 16, 32])


def crop(trial: BaseTrial) -> float:
    """Length of the random piece of a clip that a training step sees, s; 0 = the whole clip."""
    return trial.suggest_categorical("crop", [0.0, 5.0])


def crop_frames(trial: BaseTrial) -> int:
    """Frames of the random piece of a clip that a training step sees, Akiyama & Sato's two lengths."""
    return trial.suggest_categorical("crop_frames", [512, 1024])


def frequency_mask(trial: BaseTrial) -> int:
    """Mel bins that a masked stripe has at most; 0 = no mask."""
    return trial.suggest_categorical("freq_mask", [0, 8, 16, 32])


def strong_mixup(trial: BaseTrial) -> float:
    """α of mixup's Beta(α, α), in steps of 0.1 from 0 (off) to 1, where halves are as likely as any."""
    return trial.suggest_float("mixup", 0.0, 1.0, step=0.1)


def code_width(trial: BaseTrial) -> int:
    """Numbers in the code that the scene is classified from."""
    return trial.suggest_categorical("code_width", [64, 128])


def training(trial: BaseTrial, low: float = 1e-4, high: float = 1e-2) -> dict[str, Any]:
    """How a model of features is trained: augmentation, learning rate `low` … `high`, schedule, optimiser."""
    knobs: dict[str, Any] = {"spec_augment": spec_augment(trial), "mixup": mixup(trial)}
    knobs["lr"] = learning_rate(trial, low, high)
    knobs["schedule"] = schedule(trial)
    knobs["optimiser"] = optimiser(trial)
    if knobs["optimiser"] == "adamw":
        knobs["weight_decay"] = weight_decay(trial)
    return knobs
