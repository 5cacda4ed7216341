"""A model as one file for other programs: it answers as the model does, or is not written."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from test_predict import untrained

from trainables import program
from trainables.export import load_model
from trainables.program import write_program

FAMILIES = [
    ("csem", {"backbone": "tinycnn", "framework": "csem", "width": 0.1}),
    pytest.param("csem", {"backbone": "ast", "width": 0.1, "depth": 2}, marks=pytest.mark.slow),
    pytest.param("ergl", {"width": 0.06, "n_events": 3, "node_width": 8}, marks=pytest.mark.slow),
    pytest.param("resnet_aet", {"width": 0.06}, marks=pytest.mark.slow),
    pytest.param("bigru_mtl", {"width": 0.06}, marks=pytest.mark.slow),
]


@pytest.mark.parametrize(("name", "knobs"), FAMILIES)
def test_a_program_answers_as_its_model_for_any_number_of_clips(
    tmp_path: Path, name: str, knobs: dict[str, object]
) -> None:
    folder = untrained(tmp_path, name, knobs)
    said = write_program(folder, "torch-export")
    assert said.startswith(f"{folder / 'model.pt2'}: outputs scene_logits, event_logits")
    answer = torch.export.load(folder / "model.pt2").module()
    model, _ = load_model(folder)
    for clips in (1, 2, 5):
        waveform = 0.1 * torch.randn(clips, 1, 16000)
        with torch.no_grad():
            ours, theirs = model(waveform), answer(waveform)
        assert torch.allclose(theirs["scene_logits"], ours.scene_logits, atol=1e-5)
        assert torch.allclose(theirs["event_logits"], ours.event_logits, atol=1e-5)


def test_a_program_that_answers_otherwise_is_not_written(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = shutil.copytree(model, tmp_path / "model")

    def another(named: program.Named, inputs: tuple[torch.Tensor, ...], path: Path) -> object:
        path.write_text("a file")
        return lambda *given: {n: x + 0.5 * (n == "event_logits") for n, x in named(*given).items()}

    monkeypatch.setattr(program, "_torch_export", another)
    with pytest.raises(ValueError, match="family csem as torch-export: its answers differ by up to"):
        write_program(folder, "torch-export")
    assert sorted(p.name for p in folder.iterdir()) == sorted(p.name for p in model.iterdir())


def test_what_cannot_be_exported_says_so_in_one_line(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = shutil.copytree(model, tmp_path / "model")

    def fails(*_: object) -> object:
        raise RuntimeError("an operator\nthat nobody translates")

    monkeypatch.setattr(program, "_torch_export", fails)
    with pytest.raises(
        ValueError, match="family csem can't be exported as torch-export here: RuntimeError: an"
    ):
        write_program(folder, "torch-export")


def test_onnx_needs_packages_that_are_named(model: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(model, tmp_path / "model")
    missing = [n for n in program.ONNX_PACKAGES if program.importlib.util.find_spec(n) is None]
    if not missing:
        assert write_program(folder, "onnx").startswith(str(folder / "model.onnx"))
        return
    with pytest.raises(ValueError, match=f"pip install {' '.join(missing)}"):
        write_program(folder, "onnx")
    assert not (folder / "model.onnx").exists()
