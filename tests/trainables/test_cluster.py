"""What a cluster holds and may grow to, and how long a node is waited for; without a cluster."""

from __future__ import annotations

from pathlib import Path

import pytest

from trainables.cluster import Room, Share, possible_nodes, shown

HEAD = {"CPU": 0.0, "node:__internal_head__": 1.0}
WORKER = {"CPU": 8.0, "GPU": 1.0}
LAUNCHED = """
head_node_type: head
max_workers: 3
available_node_types:
    head: {resources: {CPU: 0}}
    worker: {max_workers: 8, resources: {CPU: 8, GPU: 1}}
"""


def test_without_a_launcher_there_are_the_nodes_that_are_up(tmp_path: Path) -> None:
    assert possible_nodes([HEAD, WORKER], tmp_path / "none.yaml") == [HEAD, WORKER]


def test_a_launcher_may_add_nodes_up_to_its_limit(tmp_path: Path) -> None:
    file = tmp_path / "cluster.yaml"
    file.write_text(LAUNCHED)
    for up in ([HEAD], [HEAD, WORKER]):
        assert possible_nodes(up, file) == [HEAD, WORKER, WORKER, WORKER]
    assert len(possible_nodes([HEAD, *[WORKER] * 5], file)) == 6  # more are up than it knows of
    assert Share(1, 2.0, 0.5).fits(possible_nodes([HEAD], file)) == 6


def test_a_launcher_of_given_machines_adds_none(tmp_path: Path) -> None:
    file = tmp_path / "cluster.yaml"
    kind = "local.cluster.node"
    file.write_text(
        f"head_node_type: {kind}\navailable_node_types: {{{kind}: {{resources: {{}}, max_workers: 2}}}}"
    )
    assert possible_nodes([HEAD, WORKER], file) == [HEAD, WORKER]


def test_as_many_trials_as_wanted_or_as_there_is_room_for() -> None:
    nodes = [{"CPU": 4.0}, {"CPU": 2.0}]
    assert Share(1, 1.0, 0.0).fits(nodes) == 6
    assert Share(1, 1.0, 0.0, at_once=9).fits(nodes) == 9  # three wait for nodes to come
    assert Share(2, 1.0, 0.0, at_once=9).fits(nodes) == 3  # Ray Train's workers do not wait
    sums = "a trial needs 3 x 3 = 9 CPUs, the cluster's nodes have 4 CPUs; 2 CPUs"
    with pytest.raises(ValueError, match=sums):
        Share(3, 3.0, 0.0, at_once=1).fits(nodes)
    assert Share(3, 3.0, 0.0, least=1).fits(nodes) == 1  # fewer workers will do, in one trial
    with pytest.raises(ValueError, match="a trial needs 1 x 5 = 5 CPUs"):
        Share(3, 5.0, 0.0, least=1).fits(nodes)


def test_a_node_is_waited_for_aloud_and_not_for_ever() -> None:
    said: list[str] = []
    room = Room(Share(1, 1.0, 1.0), said.append, limit=60.0)
    assert room._look([{"CPU": 4.0, "GPU": 2.0}], 0.0) == 2 and not said
    assert room._look([{"CPU": 4.0}], 10.0) == 1
    assert room._look([{"CPU": 4.0}], 50.0) == 1
    needs = "a trial needs 1 x 1 = 1 CPUs and 1 x 1 = 1 GPUs, the cluster's nodes have 4 CPUs and 0 GPUs"
    assert said == [f"waiting up to 1 min for a node: {needs}"]
    with pytest.raises(TimeoutError, match="no node came up in 1 min .* 0 GPUs"):
        room._look([{"CPU": 4.0}], 71.0)
    assert Room(Share(1, 1.0, 1.0), said.append, limit=60.0)._look([{"CPU": 1.0, "GPU": 1.0}], 99.0) == 1


def test_nodes_are_shown_by_kind() -> None:
    assert shown([HEAD, WORKER, WORKER]) == "1 x (no CPUs), 2 x (8 CPUs, 1 GPUs)"
