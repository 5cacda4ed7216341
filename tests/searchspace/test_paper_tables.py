"""A table becomes trainings: every row has one or says why not, and what sets it apart from the paper's."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from searchspace import tables
from searchspace.papers import imoto2022, parikh2022
from searchspace.published import Published
from searchspace.tables import Here


def row(line: int, corpus: str = "tut2018", **changes: Any) -> Published:
    base = Published(
        "P", "VII", f"#{line}", corpus, "validation", "scene_accuracy", 0.8, 0.01, "max deviation of 10 runs",
        {"kind": "a", "lr": 0.1 * line}, line=line, events="labels", epochs=100,
    )  # fmt: skip
    return replace(base, **changes)


def complete(values: Mapping[str, Any], events: str) -> dict[str, Any]:
    if values.get("kind") == "impossible":
        raise ValueError("no such kind")
    return {"width": 1.0, "batch_size": 64, "accumulate": 1, "pretrained": ""} | dict(values)


def here(**changes: Any) -> Here:
    usual: dict[str, Any] = {
        "corpus": "TUT 2018", "events": True, "tags": 527, "asked_events": None, "epochs": 100,
        "random_validation": True, "complete": complete,
    }  # fmt: skip
    return Here(**usual | changes)


def test_rows_are_found_by_roman_or_plain_number_and_line() -> None:
    published = [row(2), row(1), row(1, table="VIII"), row(1, table="II"), row(3, table="VII (text)")]
    assert tables.names(published) == ["II", "VII", "VII (text)", "VIII"]
    for name in ("VII", "vii", "7"):
        assert [one.line for one in tables.rows_of(published, name)] == [1, 2]
    assert [one.line for one in tables.rows_of(published, "VII (text)")] == [3]
    assert [one.line for one in tables.rows_of(published, "VII", "2")] == [2]
    with pytest.raises(ValueError, match=r"--table IX: .* has no such table; known: II, VII, VII \(text\)"):
        tables.rows_of(published, "IX")
    for lines in ("3", "1,x", "1,", "0"):
        with pytest.raises(ValueError, match="is no row of this table; expected numbers from 1 to 2"):
            tables.rows_of(published, "VII", lines)


def test_tables_whose_lines_are_the_same_rows_are_one_study() -> None:
    def numbered(table: str, *lines: int) -> list[Published]:
        return [row(line, table=table, metric=f"of {table}") for line in lines]

    published = [*numbered("3", 2, 1), *numbered("4", 3, 2), row(2, table="5", row="another")]
    found = tables.rows_of(published, "3,4")
    assert [(one.table, one.line) for one in found] == [("3", 1), ("3", 2), ("4", 2), ("4", 3)]
    assert tables.rows_of(published, "3, 3") == tables.rows_of(published, "3")
    assert [one.table for one in tables.rows_of(published, "4,3", "2")] == ["4", "3"]
    made = tables.plan(found, {}, here())
    assert made.table == "3 and 4" and [one.trial for one in made.rows] == [0, 1, 1, 2]
    with pytest.raises(ValueError, match=r"--table 3,5: row 2 is '#2' in 3 and 'another' in 5; run them one"):
        tables.rows_of(published, "3,5")
    with pytest.raises(ValueError, match="--table 9: P has no such table; known: 3, 4, 5"):
        tables.rows_of(published, "3,9")


def test_imotos_tables_3_and_4_share_their_trainings() -> None:
    rows = tables.rows_of(imoto2022.ROWS, "3,4")
    assert {one.table for one in rows} == {"3", "4"} and len(rows) == 32 + 25
    assert len({str(one.values) for one in rows}) == 9
    assert len({(one.line, one.row) for one in rows}) == 9


def test_rows_of_one_training_share_it_and_the_test_split_is_read_only_where_printed() -> None:
    rows = [row(1), row(2), row(3, values=row(1).values, metric="event_auc"), row(4, split="test")]
    made = tables.plan(rows, {}, here())
    assert [one.trial for one in made.rows] == [0, 1, 0, 2]
    assert [one.test for one in made.configurations] == [False, False, True]
    assert all(one.why == "" and one.unlike == () for one in made.rows)
    shared = tables.plan([row(1), row(2, values=row(1).values, split="test")], {}, here())
    assert [one.test for one in shared.configurations] == [True]
    other_labels = tables.plan([row(1), row(2, values=row(1).values, events="tags>0.1")], {}, here())
    assert [one.events for one in other_labels.configurations] == ["labels", "tags>0.1"]


def test_what_sets_a_training_apart_from_the_papers_is_named() -> None:
    def unlike(
        published: Published, pins: Mapping[str, Any] | None = None, **changes: Any
    ) -> tuple[str, ...]:
        (found,) = tables.plan([published], pins or {}, here(**changes)).rows
        return found.unlike

    assert unlike(row(1)) == ()
    assert unlike(row(1), epochs=27) == ("reduced epochs (27, theirs 100)",)
    assert unlike(row(1), epochs=200) == ()
    assert unlike(row(1), corpus="mine") == ("other corpus (mine, theirs tut2018)",)
    assert unlike(row(1), random_validation=None) == ()
    assert "validation at other sites" in unlike(row(1), random_validation=False)[0]
    assert unlike(row(1, split="test"), random_validation=False) == ()
    assert unlike(row(1), {"width": 0.1}) == ("altered (width=0.1)",)
    assert unlike(row(1), {"width": 1.0, "lr": 0.1}) == ()
    assert unlike(row(1), {"batch_size": 8, "accumulate": 8}) == ()  # the same gradient
    assert unlike(row(1), {"batch_size": 8}) == ("altered (batch_size=8)",)
    weights = {"pretrained": "ast.safetensors"}
    assert unlike(row(1, pretrained="AudioSet")) == ("not pretrained (theirs: AudioSet)",)
    assert unlike(row(1, pretrained="AudioSet"), weights) == ()
    assert unlike(row(1), weights) == ("pretrained (theirs is not)",)
    assert unlike(row(1, unlike="other network")) == ("other network",)
    assert unlike(row(1, events="tags>0.1"), tags=32) == ("other tagger (32 classes, theirs AudioSet's 527)",)
    assert unlike(row(1, events="tags>0.1"), tags=0) == (
        "other event labels (the corpus's, theirs tags>0.1)",
    )
    assert unlike(row(1), asked_events="tags") == ("other event labels (tags, theirs labels)",)


def test_weights_to_start_from_are_for_the_rows_printed_with_some() -> None:
    """Table II of Hou et al.: its first lines are without pretraining."""
    rows = [row(1), row(2), row(3, values=row(1).values, pretrained="AudioSet")]
    made = tables.plan(rows, {"pretrained": "ast.safetensors", "width": 1.0}, here())
    starts = [
        made.configurations[one.trial].values["pretrained"] for one in made.rows if one.trial is not None
    ]
    assert starts == ["", "", "ast.safetensors"] and all(one.unlike == () for one in made.rows)


def test_rows_that_are_not_run_say_why() -> None:
    def why(published: Published, pins: Mapping[str, Any] | None = None, **changes: Any) -> str:
        found = tables.plan([row(9), published], pins or {}, here(**changes)).rows[1]
        assert found.trial is None
        return found.why

    assert why(row(1, values={}, needs="an ensemble")) == "an ensemble"
    assert why(row(1, corpus="jssed")) == "needs jssed shards"
    assert why(row(1, values={"kind": "b", "lr": 0.9}), {"kind": "a"}) == "--set kind leaves it out: it has b"
    assert why(row(1, values={"kind": "impossible"})) == "can't be built here: no such kind"
    scene_only = {"events": False, "tags": 0}
    rows = [row(9, events=""), row(1), row(2, events="tags>0.1")]
    found = [one.why for one in tables.plan(rows, {}, here(**scene_only)).rows]
    assert found[0] == "" and "needs event labels" in found[1] and "python -m trainables.teacher" in found[2]


def test_a_plan_without_rows_or_with_choices_is_refused() -> None:
    with pytest.raises(ValueError, match="--table VII: none of its 2 rows can be run: an ensemble; a count"):
        tables.plan([row(1, values={}, needs="an ensemble"), row(2, needs="a count")], {}, here())
    with pytest.raises(ValueError, match="--set width=0.1,0.2: with --table one value"):
        tables.plan([row(1)], {"width": (0.1, 0.2)}, here())
    made = tables.plan([row(1), row(2, values={"kind": "b", "lr": 1.0})], {"kind": ("b", "c")}, here())
    assert [one.trial for one in made.rows] == [None, 0]


def test_the_same_repeat_of_every_row_has_the_same_seed() -> None:
    made = tables.plan([row(1), row(2), row(3, split="test")], {}, here())
    jobs = tables.jobs(made.configurations, seeds=3, study_seed=5, epochs=7)
    assert [(job.trial, job.repeat) for job in jobs[:4]] == [(0, 1), (1, 1), (2, 1), (0, 2)]
    seeds = {repeat: {job.seed for job in jobs if job.repeat == repeat} for repeat in (1, 2, 3)}
    assert all(len(found) == 1 for found in seeds.values()) and len(set.union(*seeds.values())) == 3
    assert {job.trial for job in jobs if job.test} == {2}
    assert all(job.phase == "table" and job.epochs == 7 for job in jobs)
    others = tables.jobs(made.configurations, seeds=3, study_seed=6, epochs=7)
    assert {job.seed for job in jobs}.isdisjoint(job.seed for job in others)


def test_the_baseline_is_a_row_that_runs() -> None:
    made = tables.plan([row(1, values={}, needs="an ensemble"), row(2), row(3)], {}, here())
    assert tables.baseline_line(made, None) == 2 and tables.baseline_line(made, 3) == 3
    with pytest.raises(ValueError, match="--baseline 1: not a row that runs; those are 2, 3"):
        tables.baseline_line(made, 1)
    kept = tables.as_record(made, 2)
    assert [(one["line"], one["trial"], one["why"]) for one in kept["rows"]] == [
        (1, None, "an ensemble"),
        (2, 0, ""),
        (3, 1, ""),
    ]


def test_the_record_has_the_correlations_of_the_papers_text() -> None:
    made = tables.plan([row(1)], {}, here())
    assert tables.as_record(made, 1)["quoted"] == {}
    kept = tables.as_record(made, 1, parikh2022.ROWS)
    assert kept["quoted"] == {"pearson_hours": 0.89, "pearson_events": 0.24} and len(kept["rows"]) == 1


def test_validation_at_the_training_sites_is_seen_in_the_keys() -> None:
    train = ["bus-paris-1-0-a", "park-milan-7-3-a"]
    assert tables.shares_sites(train, ["bus-paris-1-9-a"]) is True
    assert tables.shares_sites(train, ["bus-paris-2-0-a", "park-milan-8-1-a"]) is False
    assert tables.shares_sites(train, ["clip17"]) is None and tables.shares_sites([], []) is None
