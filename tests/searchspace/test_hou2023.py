"""The paper's tables as data: whole, consistent with each other and with what the text says of them."""

from __future__ import annotations

from collections import Counter

import pytest

from searchspace.papers.hou2023 import ROWS, TABLE_7, TABLE_8
from searchspace.papers.hou2023_rows import ACCURACY, MAX_DEVIATION
from searchspace.published import Published


def table(name: str, **fields: object) -> list[Published]:
    rows = [row for row in ROWS if row.table == name]
    return [row for row in rows if all(getattr(row, key) == value for key, value in fields.items())]


def one(name: str, line: int, backbone: str = "", **fields: object) -> Published:
    (found,) = (
        row for row in table(name, line=line, **fields) if row.values.get("backbone", "").startswith(backbone)
    )
    return found


def test_every_table_has_all_its_cells() -> None:
    assert Counter(row.table for row in ROWS) == {
        "I": 16, "II": 16, "III": 12, "IV": 6, "V": 12, "VI": 9, "VII": 14, "VIII": 14, "IX": 10, "X": 12,
        "XI": 11, "XII": 7, "XIII": 8, "VII (text)": 1, "VIII (text)": 1,
    }  # fmt: skip
    assert sorted(row.line for row in table("VII")) == list(TABLE_7) == list(TABLE_8) == list(range(1, 15))


def test_a_cell_printed_twice_is_the_same_figure_and_the_same_training() -> None:
    same = [
        (one("I", 4, "ast"), one("VII", 9)),
        (one("I", 2, "pann"), one("VIII", 9)),
        (one("IX", 5, "ast"), one("VII", 13)),
        (one("IX", 5, "pann"), one("VIII", 14)),
        (one("II", 4, "pann"), one("VI", 3, metric=ACCURACY)),
        *((one("II", 4, "ast"), row) for row in table("III", line=1) if row.values["framework"] == "csem"),
    ]
    assert len(same) == 6
    for a, b in same:
        assert (a.value, a.spread, dict(a.values), a.split) == (b.value, b.spread, dict(b.values), b.split)
    for metric in ("parameters", "macs"):
        assert one("V", 6, metric=metric).value == one("VI", 3, metric=metric).value


def test_the_text_and_the_abstract_agree_with_the_tables() -> None:
    ast, pann = table("VII (text)")[0], table("VIII (text)")[0]
    assert round(100 * (ast.value - one("II", 3, "ast").value), 2) == 3.97
    assert round(100 * (pann.value - one("II", 3, "pann").value), 2) == 4.15
    assert one("XI", 11).value == pytest.approx(ast.value, abs=0.0006)
    assert one("XI", 8).value == pann.value and one("XIII", 4).value == one("XI", 11).value
    assert [one("XI", 11).value, one("XII", 7).value, one("XIII", 8).value] == [0.81, 0.889, 0.972]
    cell = {model: one("V", line, metric="macs").value for line, model in ((4, "mlhe"), (5, "csem"))}
    assert cell["csem"] - cell["mlhe"] == 0.034e9
    best = {name: max(table(name), key=lambda row: row.value).line for name in ("VII", "VIII", "IX")}
    assert best == {"VII": 13, "VIII": 14, "IX": 5}
    assert max(table("I", events="tags>0.1"), key=lambda row: row.value).line == 4


def test_systems_are_listed_from_the_weakest_to_the_strongest() -> None:
    for name in ("XI", "XII"):
        values = [row.value for row in sorted(table(name), key=lambda row: row.line)]
        assert values == sorted(values)


def test_every_spread_says_what_it_is() -> None:
    for row in ROWS:
        assert (row.spread is None) == (row.spread_kind == "unknown")
        assert row.spread is None or row.spread_kind == MAX_DEVIATION


def test_a_row_can_be_trained_or_says_what_it_needs() -> None:
    assert all(row.trainable != bool(row.needs) for row in ROWS)
    needy = Counter(row.table for row in ROWS if row.needs)
    assert needy == {"V": 12, "VI": 6, "XI": 4, "XII": 5}
    assert all("quoted" in row.needs or "family" in row.needs for row in ROWS if not row.values)


def test_labels_and_weights_to_start_from_follow_the_corpus_and_the_text() -> None:
    for row in (row for row in ROWS if row.trainable):
        with_events = row.values["framework"] != "scene_only"
        if row.table == "IV":
            assert row.events == {1: "labels@0.8", 2: "tags>0.5"}[row.line]
        else:
            assert row.events == (("labels" if row.corpus == "jssed" else "tags>0.1") if with_events else "")
    assert [bool(row.pretrained) for row in table("II") if row.line <= 2] == [False] * 8
    assert all(row.pretrained for name in ("I", "III", "IV", "VII", "VIII", "IX") for row in table(name))
