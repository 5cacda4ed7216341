"""A trained model for other programs: one file that holds the network and its weights, without our code.

    torch-export   model.pt2, read by torch.export.load: no package of ours, no source
    onnx           model.onnx, read by ONNX Runtime; needs the packages onnx, onnxscript and onnxruntime,
                   which are not among ours

Input "waveform" (B, C, N) float32 in [-1, 1], of any B and the clips' own C and N; of a model that reads tags
also "tags" (B, K). Output: the tensors of `JointOutput` that the model gives, by name. Either file is run on
clips of noise, silence and full scale, and written only if it answers as the model does.
"""

from __future__ import annotations

import importlib.util
import logging
import os
import warnings
from collections.abc import Callable, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from trainables.contract import JointOutput, tags_read
from trainables.model_folder import load_model

FILES = {"torch-export": "model.pt2", "onnx": "model.onnx"}
NEAR = 1e-3  # largest difference of an output that is allowed, of its largest value or of 1
ONNX_PACKAGES = ("onnx", "onnxscript", "onnxruntime")

Outputs = Mapping[str, Tensor]


class Named(nn.Module):
    """The model with a dict of plain tensors for its answer."""

    def __init__(self, model: nn.Module, names: tuple[str, ...]) -> None:
        super().__init__()
        self.model, self.names = model, names

    def forward(self, waveform: Tensor, tags: Tensor | None = None) -> dict[str, Tensor]:
        output = self.model(waveform) if tags is None else self.model(waveform, tags)
        return {name: getattr(output, name).clone() for name in self.names}


def write_program(folder: Path, kind: str) -> str:
    """Write the model of `folder` as FILES[kind] into it; what was written and how near it is, in one line.

    Raises ValueError in one line where packages are missing, this model can't be written so, or the file does
    not answer as the model does.
    """
    model, about = load_model(folder)
    inputs = probes(about, model)
    with torch.no_grad():
        names = given_by(model(*inputs))
    named = Named(model, names).eval()
    path = folder / FILES[kind]
    fresh = path.with_name(f".{os.getpid()}.{path.name}")
    write = _torch_export if kind == "torch-export" else _onnx
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            answer = _quietly(lambda: write(named, inputs, fresh))
        far = farthest(named, answer, inputs)
        if not far <= NEAR:
            raise ValueError(
                f"its answers differ by up to {far:.2g} from the model's, at most {NEAR:g} is allowed"
            )
        os.replace(fresh, path)
    except ValueError as error:
        raise ValueError(f"family {about['family']} as {kind}: {error}") from error
    except Exception as error:  # exporters raise whatever the part that they can't translate raises
        told = " ".join(f"{type(error).__name__}: {error}".split())[:300]
        raise ValueError(f"family {about['family']} can't be exported as {kind} here: {told}") from error
    finally:
        fresh.unlink(missing_ok=True)
    return f"{path}: outputs {', '.join(names)}, up to {far:.1g} from the model's"


def probes(about: Mapping[str, Any], model: nn.Module) -> tuple[Tensor, ...]:
    """Three clips to compare on: noise, silence and a square wave of full scale; and tags where it reads
    some."""
    audio = about["audio"]
    draw = torch.Generator().manual_seed(0)
    noise = 0.1 * torch.randn(audio["channels"], audio["samples"], generator=draw)
    square = torch.ones_like(noise)
    square[:, ::2] = -1
    waveform = torch.stack([noise, torch.zeros_like(noise), square])
    count = tags_read(model)
    return (waveform, torch.rand(3, count, generator=draw)) if count else (waveform,)


def given_by(output: JointOutput) -> tuple[str, ...]:
    """The names of the floating-point tensors that the model gives."""
    found = ((f.name, getattr(output, f.name)) for f in fields(output))
    return tuple(name for name, value in found if value is not None and value.is_floating_point())


@torch.no_grad()
def farthest(named: Named, answer: Callable[..., Outputs], inputs: tuple[Tensor, ...]) -> float:
    """The largest difference between the two, for three clips at once and for the first alone, of the
    output's largest value or of 1."""
    far = 0.0
    for some in (inputs, tuple(x[:1] for x in inputs)):
        ours, theirs = named(*some), answer(*some)
        for name, expected in ours.items():
            scale = max(1.0, float(expected.abs().max())) if expected.numel() else 1.0
            gap = (theirs[name] - expected).abs()
            far = max(far, float(gap.max()) / scale if gap.numel() else 0.0)
    return far


def _traced(named: nn.Module, inputs: tuple[Tensor, ...]) -> torch.export.ExportedProgram:
    """For any number of clips. Running the code itself is quicker than reading its bytecode, but takes a
    recurrent layer's batch for a constant."""
    batch = tuple({0: torch.export.Dim("batch", min=1)} for _ in inputs)
    try:
        return torch.export.export(named, inputs, dynamic_shapes=batch, strict=False)
    except torch._dynamo.exc.UserError:
        return torch.export.export(named, inputs, dynamic_shapes=batch, strict=True)


def _torch_export(named: Named, inputs: tuple[Tensor, ...], path: Path) -> Callable[..., Outputs]:
    torch.export.save(_traced(named, inputs), path)
    return torch.export.load(path).module()


def _onnx(named: Named, inputs: tuple[Tensor, ...], path: Path) -> Callable[..., Outputs]:
    if missing := [name for name in ONNX_PACKAGES if importlib.util.find_spec(name) is None]:
        raise ValueError(f"needs the package(s) {', '.join(missing)}: pip install {' '.join(missing)}")
    import onnxruntime

    names = ("waveform", "tags")[: len(inputs)]
    made = torch.onnx.export(
        _traced(named, inputs), input_names=names, output_names=named.names, verbose=False
    )
    assert made is not None
    made.save(str(path))
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])

    def answer(*given: Tensor) -> Outputs:
        found = session.run(None, {name: x.numpy() for name, x in zip(names, given)})
        return {name: torch.from_numpy(x) for name, x in zip(named.names, found)}

    return answer


def _quietly(write: Callable[[], Callable[..., Outputs]]) -> Callable[..., Outputs]:
    """Without what the exporters log about themselves."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        return write()
    finally:
        logging.disable(before)
