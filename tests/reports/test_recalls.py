"""The confusions of a table's rows: which rows have one, summed over seeds, and as ink."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import study_folders as folders
from test_paper_table import row, study

from reports import collect, drawing
from reports.figures import draw_recalls, recalls

SCORES = {0: (70.0, 72.0), 1: (71.0, float("nan")), 2: (25.0, 25.0), 3: (60.0, 61.0)}
ROWS = [
    row(1, 0),
    row(1, 0, metric="scene_f_macro"),
    row(2, 1),
    row(3, 2, metric="frame_f_micro"),  # events alone: no scenes to confuse
    row(4, 3, split="validation"),
    row(5, None, why="needs something"),
]


def written(folder: Path, scenes: int = 4) -> dict[tuple[int, int], np.ndarray]:
    """A test.json of every run; the counts in it."""
    made = {}
    for trial, values in SCORES.items():
        for repeat in range(1, len(values) + 1):
            result = folders.scored_test(scenes, 6, 0.7, seed=10 * trial + repeat)
            folders.write(folder, tests={(trial, repeat): result})
            made[trial, repeat] = np.asarray(result["confusion"])
    return made


def test_rows_with_scenes_on_test_have_a_confusion_of_all_finished_seeds(tmp_path: Path) -> None:
    counts = written(tmp_path)
    found = recalls(study(tmp_path, ROWS, SCORES))
    assert [(line, name, one.runs) for line, name, one in found.rows] == [(1, "row 1", 2), (2, "row 2", 1)]
    assert (found.hidden, found.note) == (0, "")
    both = counts[0, 1] + counts[0, 2]
    assert found.rows[0][2].counts == tuple(map(tuple, both.tolist()))
    for true in range(4):
        for predicted in range(4):
            share = found.rows[0][2].shares[true][predicted]
            assert share == pytest.approx(both[true, predicted] / both[true].sum())
    assert found.rows[1][2].counts == tuple(map(tuple, counts[1, 1].tolist()))  # its other seed diverged


def test_nothing_is_drawn_before_the_first_test(tmp_path: Path) -> None:
    found = recalls(study(tmp_path, ROWS, SCORES))
    assert found.rows == () and found.note.startswith("No row with a score of scenes")


def test_counts_of_other_scenes_are_one_line(tmp_path: Path) -> None:
    written(tmp_path, scenes=3)
    with pytest.raises(collect.StudyError, match=r"t0000-r1/test\.json: no confusion of 4 scenes"):
        recalls(study(tmp_path, ROWS, SCORES))


@pytest.mark.parametrize("rows", [1, 9, 20])
def test_many_rows_are_drawn_in_two_widths_and_the_rest_is_counted(tmp_path: Path, rows: int) -> None:
    for trial in range(rows):
        folders.write(tmp_path, tests={(trial, 1): folders.scored_test(4, 6, 0.7, seed=trial)})
    printed = [row(n + 1, n) for n in range(rows)]
    found = recalls(study(tmp_path, printed, {n: (70.0 + n,) for n in range(rows)}))
    assert (len(found.rows), found.hidden) == (min(rows, 12), max(0, rows - 12))
    picture = drawing.render(draw_recalls, found)
    assert picture.wide.startswith(b"\x89PNG") and picture.narrow.startswith(b"\x89PNG")
