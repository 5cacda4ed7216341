"""α from the converged single-task losses."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from trainables.balance import alpha_from_losses, main


def run(folder: Path, losses: list[tuple[float, float]], alpha: float | None = None, epochs: int = 0) -> str:
    """A run folder with (scene, event) validation losses by epoch."""
    folder.mkdir()
    values = {} if alpha is None else {"alpha": alpha}
    (folder / "run.json").write_text(json.dumps({"epochs": epochs or len(losses), "values": values}))
    lines = [
        {"epoch": i, "val/term/scene_ce": asc, "val/term/event_bce": aet}
        for i, (asc, aet) in enumerate(losses, start=1)
    ]
    (folder / "epochs.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return str(folder)


def test_at_that_alpha_both_terms_weigh_the_same() -> None:
    for asc, aet in ((1.3, 0.06), (0.2, 0.9)):
        alpha = alpha_from_losses(asc, aet)
        assert alpha * aet == pytest.approx((1 - alpha) * asc)
    assert round(alpha_from_losses(1.0, 1 / 20), 2) == 0.95  # §4.1
    with pytest.raises(ValueError, match="event loss 0: expected a finite number above 0"):
        alpha_from_losses(1.0, 0.0)


def test_the_last_epochs_of_both_runs_are_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    asc = run(tmp_path / "asc", [(9, 0)] * 3 + [(1.0, 0), (1.2, 0), (0.8, 0)], 0.0)
    aet = run(tmp_path / "aet", [(0, 0.7), (0, 0.05)], 1.0)
    assert main([asc, aet, "--last", "1"]) == 0
    assert f"alpha={0.8 / 0.85:.4f}" in capsys.readouterr().out
    assert main([asc, aet, "--last", "3"]) == 0
    out = capsys.readouterr().out
    assert "scene_ce 1, mean of the last 3 of 6 epochs" in out and f"alpha={1 / 1.375:.4f}" in out
    assert "warning" not in out


def test_runs_that_do_not_fit_are_warned_of_or_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asc = run(tmp_path / "asc", [(1.0, 0.0)], 0.0)
    joint = run(tmp_path / "joint", [(1.0, 0.5)], 0.95, epochs=27)
    empty = run(tmp_path / "empty", [])
    assert main([asc, joint]) == 0
    out = capsys.readouterr().out
    assert f"{joint} is to have 27 epochs" in out and "trained with alpha=0.95, not on events alone" in out
    for runs, said in (
        ([joint, asc], "val/term/event_bce is 0: nothing was known of events there"),
        ([asc, empty], "no epoch is finished yet"),
        ([asc, str(tmp_path)], "no run there"),
    ):
        assert main(runs) == 2
        err = capsys.readouterr().err
        assert said in err and err.count("\n") == 1
