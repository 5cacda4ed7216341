"""Population-based training (Jaderberg et al., arXiv 1711.09846): all trainings run side by side, and every
few epochs the worst go on as copies of the best with changed knobs.

Ray has a scheduler for it (PopulationBasedTraining). It is not used: it keeps its decisions in the driver's
memory and changes a trial's knobs under way, so a restart forgets them (ray#54755), and a trial's record
would not say what it was trained with. Here a decision is written into the study before it is acted on; what
is replaced ends (PRUNED, with the reason), and its copy is a trial of its own, whose record names the
parent and the epoch that it was copied at. A generation is decided when all of it have come to the same
epoch, so what is decided depends on no timing.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from optuna.distributions import FloatDistribution
from optuna.trial import FrozenTrial

from searchspace.pins import bare, knob
from searchspace.pruners import NoPruning

FACTORS = (0.8, 1.25)


@dataclass(frozen=True)
class Population(NoPruning):
    """Generations end every ninth of the full length, at least every `grace` epochs; of each the worst
    1/`share` are replaced by copies of the best 1/`share`, the worst by the best."""

    grace: int = 3
    share: int = 4
    objectives: int = 1

    def rungs(self, epochs: int) -> list[int]:
        """Where generations end."""
        every = max(self.grace, round(epochs / 9))
        return list(range(every, epochs, every))

    def first(self, epochs: int) -> int:
        return self.following(0, epochs)

    def following(self, epoch: int, epochs: int) -> int:
        """The end of the generation after `epoch`."""
        return next((one for one in self.rungs(epochs) if one > epoch), epochs)

    def replaced(self, scores: Mapping[int, float]) -> list[tuple[int, int]]:
        """(trial that ends, trial that it is replaced by a copy of) of a generation's {trial: score}."""
        ranked = sorted(scores, key=lambda number: (-scores[number], number))
        count = len(ranked) // self.share
        return list(zip(ranked[::-1][:count], ranked[:count]))

    def reason(self, scores: Mapping[int, float], loser: int, parent: int, epoch: int) -> str:
        return (
            f"{scores[loser]:.4f} is among the worst {len(scores) // self.share} of {len(scores)} at epoch "
            f"{epoch}; a copy of trial {parent} ({scores[parent]:.4f}) goes on"
        )


def explored(parent: FrozenTrial, values: Mapping[str, Any], seed: int) -> dict[str, Any]:
    """`values` with each continuous knob that was searched times 0.8 or 1.25, within its range. Knobs that
    shape the model stay: its weights go on."""
    chance, changed = random.Random(seed), dict(values)
    for name, one in sorted(parent.distributions.items()):
        if isinstance(one, FloatDistribution) and not one.single():
            value = min(max(parent.params[name] * chance.choice(FACTORS), one.low), one.high)
            if one.step:
                value = min(one.low + one.step * round((value - one.low) / one.step), one.high)
            changed[bare(knob(name))] = value
    return changed


def together(untils: Sequence[int], paused: Sequence[int]) -> int | None:
    """The epoch at which a generation is complete: every open training waits there or has gone on from there
    already; None while some are on their way. `untils` of all open ones, `paused` of those that wait."""
    epoch = min(paused, default=None)
    on_their_way = sum(until <= epoch for until in untils) - paused.count(epoch) if epoch else 0
    return epoch if epoch and not on_their_way else None
