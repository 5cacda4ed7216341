"""Parikh et al.'s figures as rows: the whole grid, and only the figures their text says."""

from __future__ import annotations

from searchspace.papers.parikh2022 import GRID, ROWS


def test_the_grid_is_the_papers() -> None:
    assert (0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, *(round(0.9 + i / 100, 2) for i in range(11))) == GRID
    for metric in ("scene_accuracy_macro", "event_lwlrap"):
        rows = sorted((r for r in ROWS if r.table == "fig2" and r.metric == metric), key=lambda r: r.line)
        assert [row.values["alpha"] for row in rows] == list(GRID)
        assert [row.line for row in rows] == list(range(1, 21)) and all(row.trainable for row in rows)


def test_a_row_has_a_figure_only_where_the_text_says_one() -> None:
    said = {(row.table, row.row, row.metric): row.value for row in ROWS if row.value is not None}
    assert said == {
        ("fig2", "alpha=0", "scene_accuracy_macro"): 0.68,
        ("fig2", "alpha=1", "scene_accuracy_macro"): 0.1,
        ("fig2", "alpha=0", "event_lwlrap"): 0.1,
        ("fig2", "alpha=0.5", "event_lwlrap"): 0.76,
        ("fig3b", "11 to 360 hours against scene accuracy", "pearson_hours"): 0.89,
        ("fig4", "2 to 115 events against scene accuracy", "pearson_events"): 0.24,
        ("fig5", "scenes alone", "scene_accuracy_macro"): 0.68,
    }
    assert all(row.spread is None for row in ROWS)
    assert all((row.said == "text") == (row.value is not None) for row in ROWS)


def test_rows_that_need_another_event_set_say_so() -> None:
    assert {row.table for row in ROWS if row.needs} == {"fig3a", "fig3b", "fig4"}
    assert next(row for row in ROWS if row.warm_start).values["alpha"] == 0.95
