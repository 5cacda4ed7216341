"""What a study shows on the cluster's metrics endpoint, beside Ray's own figures, for Prometheus and Grafana.

The driver sets them from what the trials report, so that a node that dies takes no figures along.
clusters/grafana.json draws them. Prometheus shows them with Ray's prefix: ray_scenetune_best_score, say.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from ray.util.metrics import Gauge

FIGURES = {
    "best_score": "Best value of the objective so far, in this phase",
    "running_trials": "Trials that run now",
    "ended_trials": "Trials that have ended, however they did",
    "restarted_trials": "How often a trial was started again because its process died",
    "clips_per_second": "Training speed of all running trials together, clips/s",
    "data_wait": "Share of the last epochs' time that running trials waited for data, mean, 0-1",
}


def gauges(study: str, phase: str) -> Callable[[Mapping[str, float]], None]:
    """A function that sets the gauges to the figures given; those not given keep their last value."""
    made = {
        name: Gauge(f"scenetune_{name}", description=text, tag_keys=("study", "phase"))
        for name, text in FIGURES.items()
    }
    tags = {"study": study, "phase": phase}

    def tell(figures: Mapping[str, float]) -> None:
        for name, value in figures.items():
            made[name].set(float(value), tags=tags)

    return tell
