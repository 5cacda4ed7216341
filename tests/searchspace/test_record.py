"""The tables of a study folder."""

from __future__ import annotations

import random
from typing import Any

import pandas as pd

from searchspace.record import joined


def test_a_table_made_of_pieces_is_the_one_made_at_once() -> None:
    chance, lines = random.Random(0), list[dict[str, Any]]()
    for number in range(400):
        line: dict[str, Any] = {"trial": number // 9, "epoch": number % 9 + 1, "phase": "search"}
        if number > 150:  # another family's metric, not measured of every clip
            line["val/event_map"] = chance.choice([None, float("nan"), chance.random()])
        if chance.random() < 0.5:
            line["val/scene_accuracy"] = chance.random()
        if 200 <= number < 260:
            line["workers"] = 2
        lines.append(line)
    whole = pd.DataFrame(lines)
    for piece in (1, 7, 100, 400, 1000):
        pd.testing.assert_frame_equal(joined(iter(lines), piece), whole)
    assert joined([]).empty and len(joined([]).columns) == 0
