"""What a configuration is, without training it: parameters, multiply-accumulates, memory, shapes.

    python -m trainables.describe csem --set backbone=cnnt framework=mlhe --json

The model is built on torch's meta device, so nothing of its size is allocated.
"""

from __future__ import annotations

import json
import sys
import textwrap
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import torch
import tyro
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from datasets.command import asked, exit_code
from datasets.labels import LabelSpace
from searchspace.pins import parse_settings
from trainables.contract import AudioFormat, answer_features
from trainables.memory import training_memory
from trainables.pretrained import open_source
from trainables.recipe import configure, shape_of

MEMORY = ("parameters", "gradients", "optimiser", "activations")


@dataclass(frozen=True)
class Request:
    """Which configuration of which family, on what clips and labels."""

    family: Annotated[str, tyro.conf.Positional]
    """Model family."""
    set: Annotated[tuple[tuple[str, ...], ...], tyro.conf.UseAppendAction] = ()
    """Knobs by the search space's own names, key=value; what is not named keeps its default."""
    scenes: int = 10
    """Number of scene classes."""
    events: int = 527
    """Number of event classes."""
    tags: int = 80
    """Length of the clips' tag vectors, for families that read them; 0 = none."""
    seconds: float = 10.0
    """Length of a clip, s."""
    sample_rate: int = 44100
    """Hz."""
    channels: int = 1
    """Channels of the recordings."""
    json: bool = False
    """Print JSON instead of a table."""


def describe(
    family_name: str, values: Mapping[str, Any], labels: LabelSpace, audio: AudioFormat
) -> dict[str, Any]:
    """{"family", "config", "recipe", "input", "parts", "parameters", "trainable", "macs", "memory"}, ready
    for JSON.

    "parts" has parameters, trainable and macs of each part of the model. MACs are multiply-accumulates of one
    clip from features to output, convolutions and matrix products only. "memory" is in bytes, of one training
    step of the recipe's batch size on one device (trainables/memory.py); activations in bf16 if the recipe
    says bf16, else in fp32. Raises ValueError for a configuration that cannot be built, FileNotFoundError for
    pretrained weights that are not there; whether they fit is not asked.
    """
    config, recipe = configure(family_name, values)
    if recipe.pretrained:
        open_source(Path(recipe.pretrained))
    model = shape_of(family_name, config, labels, audio)
    shape = features_shape(model, audio)
    macs = count_macs(model.to("meta"), shape)
    parts = {
        name: {
            "parameters": _count(part),
            "trainable": _count(part, trainable=True),
            "macs": macs.get(name, 0),
        }
        for name, part in model.named_children()
    }
    described = {
        "family": family_name,
        "config": asdict(config),
        "recipe": asdict(recipe),
        "input": {"waveform": [1, audio.channels, audio.samples], "features": list(shape), **asdict(audio)},
        "parts": {name: part for name, part in parts.items() if part["parameters"]},
        "parameters": _count(model),
        "trainable": _count(model, trainable=True),
        "macs": macs[""],
    }
    bf16 = recipe.precision == "bf16"
    batch = (recipe.batch_size, *shape[1:])
    memory = training_memory(
        model, batch, optimiser=recipe.optimiser, autocast=torch.bfloat16 if bf16 else None
    )
    kind = {"batch_size": recipe.batch_size, "precision": "bf16" if bf16 else "fp32"}
    return described | {"memory": kind | memory}


def features_shape(model: nn.Module, audio: AudioFormat) -> tuple[int, ...]:
    """Shape (1, C, T, F) of what `from_features` reads for one clip; the front end's filters are small and
    real.
    """
    frontend: Any = model.frontend
    return tuple(frontend.raw(torch.zeros(1, audio.channels, audio.samples)).shape)


def count_macs(model: nn.Module, features: tuple[int, ...]) -> dict[str, int]:
    """Multiply-accumulates of `model.from_features` on the meta device: by part, and "" for the whole.

    FlopCounterMode counts two operations a multiply-accumulate. On real devices it misses fused attention,
    which the meta device does not have.
    """
    counter = FlopCounterMode(display=False)
    with counter, torch.no_grad():
        FromFeatures(model.eval())(torch.empty(features, device="meta"))
    by_module = {name: sum(kinds.values()) // 2 for name, kinds in counter.get_flop_counts().items()}

    def of(name: str, part: nn.Module) -> int:
        if name in by_module or not isinstance(part, nn.ModuleList | nn.ModuleDict):
            return by_module.get(name, 0)
        return sum(of(f"{name}.{own}", one) for own, one in part.named_children())  # a list is never called

    parts = {name: of(f"FromFeatures.model.{name}", part) for name, part in model.named_children()}
    return parts | {"": by_module["Global"]}


class FromFeatures(nn.Module):
    """A model entered after its front end. The counter names modules by the module they were called from."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: torch.Tensor) -> Any:
        return answer_features(self.model, x)


def table(found: Mapping[str, Any]) -> str:
    """The description as plain text."""
    about = found["input"]
    knobs = "  ".join(f"{name}={value}" for name, value in found["config"].items())
    rows = [
        (name, part["parameters"], part["trainable"], part["macs"]) for name, part in found["parts"].items()
    ]
    rest = found["macs"] - sum(row[3] for row in rows)
    rows += [("between the parts", 0, 0, rest)] if rest else []
    rows.append(("total", found["parameters"], found["trainable"], found["macs"]))
    lines = [
        *textwrap.wrap(f"{found['family']}  {knobs}", 100, subsequent_indent="  ", break_on_hyphens=False),
        f"input  {about['samples'] / about['sample_rate']:g} s at {about['sample_rate']} Hz → features "
        f"{' × '.join(map(str, about['features'][1:]))} (channels × frames × mel bins)",
        "",
        f"{'part':20}{'parameters':>14}{'trainable':>14}{'MACs a clip':>18}",
    ]
    lines += [
        f"{name:20}{parameters:14,}{trainable:14,}{macs:18,}" for name, parameters, trainable, macs in rows
    ]
    memory = found["memory"]
    sizes = ", ".join(f"{n} {memory[n] / 2**20:,.0f}" for n in MEMORY)
    lines += [
        "",
        f"memory of a training step, batch of {memory['batch_size']}, {memory['precision']}, MiB",
        f"{sizes}; together {memory['total'] / 2**20:,.0f}",
    ]
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> int:
    request = asked(Request, "python -m trainables.describe", __doc__, arguments)

    def work() -> None:
        values = parse_settings([setting for group in request.set for setting in group])
        found = describe(request.family, values, _labels(request), _audio(request))
        print(json.dumps(found, indent=1) if request.json else table(found))

    return exit_code(work)


def _labels(request: Request) -> LabelSpace:
    for name in ("scenes", "events", "tags"):
        if getattr(request, name) < (1 if name == "scenes" else 0):
            raise ValueError(f"--{name} {getattr(request, name)}: expected a number of classes")
    scenes = tuple(f"scene {i}" for i in range(request.scenes))
    events, tags = (
        tuple(f"{kind} {i}" for i in range(count))
        for kind, count in (("event", request.events), ("tag", request.tags))
    )
    return LabelSpace(scenes, events, tags=tags)


def _audio(request: Request) -> AudioFormat:
    if request.channels < 1:
        raise ValueError(f"--channels {request.channels}: expected 1 or more")
    if request.sample_rate < 1 or not 0 < request.seconds < 3600:
        raise ValueError(
            f"--seconds {request.seconds:g} --sample-rate {request.sample_rate}: expected a length above 0 "
            "and below 3600 s, and a rate above 0 Hz"
        )
    return AudioFormat(request.sample_rate, request.channels, round(request.seconds * request.sample_rate))


def _count(part: nn.Module, trainable: bool = False) -> int:
    return sum(p.numel() for p in part.parameters() if p.requires_grad or not trainable)


if __name__ == "__main__":
    sys.exit(main())
