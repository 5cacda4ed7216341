"""What Ray Tune keeps of trials that have ended, given up while a long search is running.

Tune keeps each until the end (about 85 kB: windows of every metric, its state as text) and writes all of them
down again every few seconds, for a restore that never happens here: what came of a trial is in the ledger and
in its run folder.
"""

from __future__ import annotations

from contextlib import suppress
from typing import Any

from ray.tune.progress_reporter import TrialProgressCallback


class Silent(TrialProgressCallback):
    """In the place of Tune's own, which makes a text of every result and keeps every trial, whatever is
    printed of them."""

    def on_trial_result(self, *args: Any, **info: Any) -> None: ...

    def on_trial_error(self, *args: Any, **info: Any) -> None: ...

    def on_trial_complete(self, *args: Any, **info: Any) -> None: ...


def forget_ended(controller: Any) -> None:
    """Take the trials that have ended, and whose process is no longer theirs, out of Tune's controller.

    These are attributes of ray 2.60's TuneController and RayActorManager, not of their interfaces. Another
    version that has them not keeps its trials, and is slower in long searches for it.
    """
    with suppress(AttributeError):
        busy, ended = controller._trial_to_actor, controller._stopped_trials | controller._failed_trials
        for trial in [trial for trial in ended if trial not in busy]:
            controller._trials.remove(trial)
            controller._stopped_trials.discard(trial)
            controller._failed_trials.discard(trial)
            controller._trials_to_cache.discard(trial)
            controller._trial_metadata.pop(trial.trial_id, None)
        # A process asked for that never came, for the trial was given to one that had become free: told to
        # stop, it has an order that waits for it for ever
        actors = controller._actor_manager
        known = {*actors.pending_actors, *actors.live_actors}
        orders = actors._pending_actors_to_enqueued_actor_tasks
        for actor in orders.keys() - known:
            del orders[actor]
