"""The memory that a plan promises: whose it is, per worker, and against what a node has."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from datasets.shards import Index
from searchspace.proposals import Proposals
from trainables.cluster import Share, short_of_memory
from trainables.demand import expected, of_process, of_search, one_of_each_kind
from trainables.space import pins_across, predictor, proposals_of

GB = 1e9


def proposals(shards: Path, *, limits: dict[str, float] | None = None, **pins: str) -> Proposals:
    return proposals_of(
        ("csem",), Index.load(shards), sampler="random", pins=pins_across(("csem",), pins), trials=4,
        epochs=3, seed=0, limits=limits or {}, strength=0.0, reseed=False,
    )  # fmt: skip


def test_the_figure_is_what_describe_predicts_of_the_published_row(shards: Path) -> None:
    space = proposals(shards, backbone="tinycnn")
    (origin, values), *_ = space.fitting
    memory = predictor("csem", Index.load(shards))(values)["memory"]
    assert of_search(space, space.check(), 1) == {
        "bytes": memory,
        "clips": values["batch_size"],
        "of": origin,
    }
    assert "Hou et al. 2023, Table II" in origin and 1e7 < memory < GB


def test_each_of_two_workers_takes_half_the_batch_and_all_the_parameters(shards: Path) -> None:
    space = proposals(shards, backbone="tinycnn")
    one, two = (of_search(space, space.check(), workers)["bytes"] for workers in (1, 2))
    assert one / 2 < two < 0.6 * one


def test_without_a_published_row_that_fits_it_is_a_drawn_configurations(shards: Path) -> None:
    space = proposals(shards, backbone="tinycnn", framework="moe", width="0.3")
    drawn = space.check()
    assert not space.fitting
    assert space.predict is not None
    assert of_search(space, drawn, 1) == {
        "bytes": space.predict(drawn)["memory"],
        "clips": drawn["batch_size"],
        "of": "a configuration drawn at random",
    }


def test_what_is_over_the_limit_does_not_count(shards: Path) -> None:
    space = proposals(shards, backbone="tinycnn", limits={"memory": 1e6})
    found = of_search(space, space.check(), 1)
    assert (found["bytes"], found["of"]) == (1e6, "the --limit")


def test_one_of_each_backbone_is_looked_at_and_the_largest_is_named() -> None:
    rows: list[tuple[str, dict[str, Any]]] = [
        (f"{name}{i}", {"backbone": name, "optimiser": "adam", "batch_size": size})
        for i in range(3)
        for name, size in (("tinycnn", 64), ("ast", 32), ("pann", 16))
    ]
    assert [origin for origin, _ in one_of_each_kind(rows)] == ["tinycnn0", "ast0", "pann0"]
    found = expected(rows, lambda values: {"memory": 2.0 * values["batch_size"]}, workers=4)
    assert found == {"bytes": 32.0, "clips": 16, "of": "tinycnn0, the largest of 3 kinds"}
    several = [(name, {"family": name, **row}) for name in ("csem", "ergl") for _, row in rows]
    assert len(one_of_each_kind(several)) == 4


def test_a_process_on_a_cpu_takes_what_was_measured() -> None:
    """tests/benchmarks/README.md, "Memory": TinyCNN, CNN-Transformer and PANN on clips of 10 s at 16 kHz."""
    for step, clips, took in (
        (94e6, 16, 0.76e9),
        (363e6, 64, 2.2e9),
        (847e6, 16, 2.0e9),
        (3496e6, 16, 4.3e9),
    ):
        assert 0.8 * took < of_process({"bytes": step, "clips": clips}, 160_000) < 1.4 * took


def test_a_node_with_too_little_memory_is_named_with_the_sums() -> None:
    node = {"CPU": 8.0, "memory": 9 * GB, "object_store_memory": 3 * GB}
    each = 2 * GB
    (line,) = short_of_memory(Share(1, 1.0, 0.0), [node, node], each)
    assert line.startswith("memory: 8 workers x 2.0 GB") and "= 16.0 GB on a node that has 12.0 GB" in line
    for share in (
        Share(1, 2.0, 0.0),
        Share(1, 1.0, 0.0, at_once=6),
        Share(2, 1.0, 0.0, at_once=3),
        Share(1, 1.0, 1.0),
    ):
        assert not short_of_memory(share, [node], each)
    assert not short_of_memory(Share(1, 1.0, 0.0), [{"CPU": 8.0}], each)  # a node to come, of no known size
    with pytest.raises(ValueError, match="a trial needs"):
        Share(1, 9.0, 0.0).fits([node])
