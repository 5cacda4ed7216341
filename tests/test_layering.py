"""Who may import whom. Data flows one way, Ray stays at the edge, reports read files only."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("searchspace", "datasets", "trainables", "reports", "tune_csem")
MAY_IMPORT = {
    "searchspace": {"searchspace"},
    "datasets": {"datasets"},
    "trainables": {"trainables", "datasets", "searchspace"},
    "reports": {"reports"},
    "tune_csem": set(PACKAGES),
}
WITH_RAY = {
    "trainables/cluster.py",  # the nodes there are and may be
    "trainables/gauges.py",  # Ray's metrics endpoint
    "trainables/teacher.py",
    "trainables/forgetting.py",
    "trainables/interruption.py",
    "trainables/phase.py",
    "trainables/trial.py",
    "trainables/worker.py",
    "tune_csem.py",
}
WITHOUT_TORCH = ("searchspace", "reports")


def modules() -> list[Path]:
    found = [p for package in PACKAGES for p in (ROOT / package).rglob("*.py")] + [ROOT / "tune_csem.py"]
    return sorted(p for p in found if p.is_file())


def imported(path: Path) -> set[str]:
    """Every module named in an import statement, at the top or inside a function."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module)
    return names


@pytest.mark.parametrize("path", modules(), ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_point_one_way(path: Path) -> None:
    name = str(path.relative_to(ROOT))
    package = name.removesuffix(".py").split("/")[0]
    tops = {module.split(".")[0] for module in imported(path)}
    assert (tops & set(PACKAGES)) <= MAY_IMPORT[package], name
    if name not in WITH_RAY:
        assert "ray" not in tops, f"{name}: Ray appears only in {', '.join(sorted(WITH_RAY))}"
    if package in WITHOUT_TORCH:
        assert not tops & {"torch", "torchaudio"}, name


def test_parts_know_no_family_and_the_engine_no_files() -> None:
    for path in (ROOT / "trainables" / "parts").glob("*.py"):
        assert not any(
            m.startswith(("trainables.families", "trainables.registry")) for m in imported(path)
        ), path
    assert not imported(ROOT / "trainables" / "engine.py") & {
        "pathlib",
        "json",
        "os",
        "trainables.checkpoint",
    }
