"""What Ray's actor manager keeps for processes that never came is given up; what waits for one is not."""

from __future__ import annotations

from types import SimpleNamespace

from ray.air.execution import FixedResourceManager, ResourceRequest
from ray.air.execution._internal import RayActorManager

from trainables.forgetting import forget_ended


class Process:
    """Of a trial."""


def test_orders_to_processes_that_never_came_are_forgotten() -> None:
    manager = RayActorManager(FixedResourceManager({"CPU": 0}))
    gone, waits = (manager.add_actor(Process, {}, ResourceRequest([{"CPU": 1}])) for _ in range(2))
    for actor in (gone, waits):
        manager.schedule_actor_task(actor, "stop")
    manager.remove_actor(gone)  # the trial was given to another process
    orders = manager._pending_actors_to_enqueued_actor_tasks
    assert set(orders) == {gone, waits}, "Ray forgets by itself now: forget_ended need not"
    controller = SimpleNamespace(
        _trial_to_actor={}, _stopped_trials=set(), _failed_trials=set(), _actor_manager=manager
    )
    forget_ended(controller)
    assert set(orders) == {waits}
