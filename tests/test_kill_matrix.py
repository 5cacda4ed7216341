"""One round of the kill matrix for each victim; python -m tests.kill_matrix takes as many as asked for."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.kill_matrix import VICTIMS, Bench


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    made = Bench(tmp_path_factory.mktemp("killed"), seed=1)
    yield made
    made.close()


@pytest.mark.alone
@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.parametrize(("number", "victim"), list(enumerate(VICTIMS)))
def test_the_study_ends_as_if_left_alone(bench: Bench, number: int, victim: str) -> None:
    result = bench.round(number, victim)
    assert result["killed"] != "nothing", result
    assert result["preemptions"] or victim != "raylet of a node", result
    assert result["same"] and not result["lost"] and not result["twice"], result


@pytest.mark.alone
@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.timeout(600)
def test_through_a_spot_notice_a_new_node_and_a_stopped_one_every_trial_ends(bench: Bench) -> None:
    result = bench.nodes_that_come_and_go()
    assert result["code"] == 0 and result["nodes used"], result
    assert set(result["ended"].values()) <= {"COMPLETE", "DIVERGED"} and len(result["ended"]) == 6, result
    assert result["were on nodes that went"] <= result["preemptions"].keys(), result
    assert result["retries"] == 0, result
