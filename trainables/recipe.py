"""How a model is trained, whatever its family: optimiser, schedule, batch, precision."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Literal, get_type_hints

import torch

from datasets.labels import LabelSpace
from trainables.contract import AudioFormat
from trainables.knobs import check, check_range, fill, parse_value, refuse_unknown
from trainables.pretrained import open_source, refuse_unfit
from trainables.registry import config_from, family


@dataclass(frozen=True)
class Recipe:
    """Defaults are those of cSEM's CNN models (Hou et al. 2023, §IV; released loops): Adam 1e-3, batch 64, no
    schedule.

    optimiser      adam | adamw | radam
    lr             learning rate after warm-up
    weight_decay   decoupled for adamw, L2 for the others
    schedule       none | cosine (to zero at the last epoch)
    warmup_epochs  epochs of linear warm-up from zero
    batch_size     clips a step of the data loop, over all workers
    accumulate     gradients of this many batches make one optimiser step
    clip_norm      largest gradient norm; 0 leaves gradients alone
    mixup          α of Beta(α, α) for waveform mixup; 0 is off
    precision      auto (bf16 autocast on a GPU that has it, else fp32) | fp32 | bf16
    pretrained     weights to start from: a state dict, a best/ folder or a run's folder; "" = random ones
                   (trainables/pretrained.py). Never suggested, only set by the user
    accept_mismatch  start from them even if not every tensor fits
    """

    optimiser: Literal["adam", "adamw", "radam"] = "adam"
    lr: float = 1e-3
    weight_decay: float = 0.0
    schedule: Literal["none", "cosine"] = "none"
    warmup_epochs: float = 0.0
    batch_size: int = 64
    accumulate: int = 1
    clip_norm: float = 0.0
    mixup: float = 0.0
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    pretrained: str = ""
    accept_mismatch: bool = False

    def __post_init__(self) -> None:
        check(self)
        check_range(self, "lr", 0.0, above=True)
        for name in ("weight_decay", "warmup_epochs", "clip_norm", "mixup"):
            check_range(self, name, 0.0)
        for name in ("batch_size", "accumulate"):
            check_range(self, name, 1)


def configure(family_name: str, values: Mapping[str, Any]) -> tuple[Any, Recipe]:
    """Split one flat dict of knobs into the family's config and the recipe; knobs not named keep their
    defaults.

    Strings (from a command line) are parsed by the knob's type. Raises ValueError for an unknown family or
    knob, or a value out of range, naming what is accepted.
    """
    recipe_knobs = [f.name for f in fields(Recipe)]
    family_knobs = [f.name for f in fields(family(family_name).config)]
    refuse_unknown(values, family_knobs + recipe_knobs, f"family {family_name}")
    config = config_from(family_name, {k: v for k, v in values.items() if k in family_knobs})
    return config, fill(Recipe, {k: v for k, v in values.items() if k in recipe_knobs})


def complete(
    family_name: str, values: Mapping[str, Any], labels: LabelSpace, audio: AudioFormat
) -> dict[str, Any]:
    """Every knob of a configuration, defaults included. Raises ValueError if it can't be built for these
    clips, or started from the weights it names."""
    config, recipe = configure(family_name, values)
    try:
        with torch.device("meta"):  # shapes are checked, nothing is allocated
            model = family(family_name).build(config, labels, audio)
    except RuntimeError as error:
        raise ValueError(f"torch can't build this model: {error}") from error
    if recipe.pretrained:
        refuse_unfit(model, recipe.pretrained, labels, accept=recipe.accept_mismatch)
    return asdict(config) | asdict(recipe)


def knobs_of(family_name: str) -> dict[str, Any]:
    """{knob: its type} of a family and its training."""
    return get_type_hints(family(family_name).config) | get_type_hints(Recipe)


def parse_pins(family_name: str, settings: Mapping[str, str]) -> dict[str, Any]:
    """Values for knobs named on a command line, by the knobs' types; "a,b" becomes the tuple of choices (a,
    b).

    Raises ValueError naming the knob, the value and what is accepted.
    """
    kinds = knobs_of(family_name)
    refuse_unknown(settings, kinds, f"family {family_name}")
    pins: dict[str, Any] = {}
    for name, text in settings.items():
        try:
            choices = tuple(parse_value(kinds[name], word) for word in text.split(","))
        except ValueError as error:
            raise ValueError(f"--set {name}={text}: {error}") from None
        if name == "pretrained":
            choices = tuple(path and _readable(path) for path in choices)
        pins[name] = choices if len(choices) > 1 else choices[0]
    choices_of = {name: pin if isinstance(pin, tuple) else (pin,) for name, pin in pins.items()}
    for name, choices in choices_of.items():
        for value in choices:
            _refuse_impossible(family_name, choices_of | {name: (value,)})
    return pins


def _readable(path: str) -> str:
    """The path from the root, whatever folder a worker runs in. Raises as `open_source` if it holds no
    weights.
    """
    open_source(Path(path))
    return str(Path(path).resolve())


def _refuse_impossible(family_name: str, choices_of: Mapping[str, tuple[Any, ...]]) -> None:
    """Raises ValueError if no combination of the choices makes a configuration."""
    for values in itertools.product(*choices_of.values()):
        try:
            configure(family_name, dict(zip(choices_of, values)))
            return
        except ValueError as error:
            refused = error
    raise refused
