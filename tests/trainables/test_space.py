"""What the plan says of a method before the search."""

from __future__ import annotations

from pathlib import Path

import pytest

from datasets.shards import Index
from trainables.space import notes_of, pins_across, proposals_of


@pytest.mark.parametrize("pruner", ["asha", "hyperband", "promotion"])
def test_a_length_without_a_rung_is_said(shards: Path, pruner: str) -> None:
    def notes(epochs: int) -> str:
        proposals = proposals_of(
            ("csem",), Index.load(shards), sampler="random", pins=pins_across(("csem",), {}), trials=4,
            epochs=epochs, seed=0, limits={}, strength=0.0, reseed=False,
        )  # fmt: skip
        return "\n".join(notes_of(proposals, "random", pruner, objectives=1))

    assert f"{pruner}: 6 epochs hold no rung, no trial is stopped early; 8 hold one" in notes(6)
    assert "rung" not in notes(8) and "rung" not in notes(27)
