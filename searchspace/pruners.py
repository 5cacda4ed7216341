"""Rules that end a training early, by what others had reached at the same epoch.

A rule is a pure function of the curves in the store: a reopened study has its rungs, brackets and pauses back
because they are never kept anywhere else. Every reason to stop is one line with its numbers.
"""

from __future__ import annotations

import math
import statistics
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

GOLDEN = (math.sqrt(5) - 1) / 2


@dataclass(frozen=True)
class Curve:
    """What a training was measured at: `values` {epoch: objective}, `second` the same of a second objective,
    both better when higher."""

    number: int
    values: Mapping[int, float]
    second: Mapping[int, float] = field(default_factory=dict)

    def at(self, epoch: int) -> tuple[float, ...] | None:
        """Its objectives after `epoch`; None if it did not come so far, or not to finite ones."""
        found = [one[epoch] for one in (self.values, self.second) if epoch in one]
        return tuple(found) if epoch in self.values and all(map(math.isfinite, found)) else None


def dominators(points: Sequence[tuple[float, ...]]) -> np.ndarray:
    """(n,) how many of the (n, objectives) points dominate each: no worse in any objective and better in one.
    With one objective, how many are better."""
    table = np.asarray(points, dtype=float)
    if table.shape[1] == 1:
        return len(table) - np.searchsorted(np.sort(table[:, 0]), table[:, 0], side="right")
    no_worse = (table[None] >= table[:, None]).all(-1)
    better = (table[None] > table[:, None]).any(-1)
    return (no_worse & better).sum(1)


def halving(own: Curve, epoch: int, others: Sequence[Curve], reduction: int, among: str) -> str | None:
    """Why `own` is not among the best 1/`reduction` of all seen at `epoch`, or None.

    Points are ranked by how many dominate them; ties go on. With one objective that is its order. Fewer than
    `reduction` points stop nobody.
    """
    mine, points = own.at(epoch), [p for one in others if (p := one.at(epoch)) is not None]
    if mine is None or len(points) + 1 < reduction:
        return None
    points.append(mine)
    beaten, goes_on = dominators(points), len(points) // reduction
    if (beaten < beaten[-1]).sum() < goes_on:
        return None
    if len(mine) == 1:
        cut_off = sorted((p[0] for p in points), reverse=True)[goes_on - 1]
        return f"{mine[0]:.4f} < {cut_off:.4f}, the cut-off at epoch {epoch} among {len(points)} {among}"
    most = int(sorted(beaten)[goes_on - 1])
    return (
        f"dominated by {beaten[-1]} of {len(points)} {among} at epoch {epoch}, where those that go on are by "
        f"at most {most}"
    )


@dataclass(frozen=True)
class Asha:
    """Asynchronous successive halving, the stopping kind (Li et al., MLSys 2020).

    Rungs lie at 1/η, 1/η² … of the full length, none below `grace` epochs, where scores say little yet. A
    trial at a rung goes on if it is among the best 1/η of all values seen there so far; fewer than η values
    stop nobody. With two objectives: among the 1/η that the fewest dominate.
    """

    grace: int = 3
    reduction: int = 3
    objectives: int = 2

    def rungs(self, epochs: int) -> list[int]:
        lengths = [round(epochs / self.reduction**level) for level in range(1, 20)]
        return sorted({length for length in lengths if self.grace <= length < epochs})

    def judges(self, epoch: int, epochs: int) -> bool:
        """Whether the rule has a say after `epoch` of `epochs`."""
        return epoch in self.rungs(epochs)

    def stop_reason(self, own: Curve, epoch: int, epochs: int, others: Sequence[Curve]) -> str | None:
        """Why the training with the curve `own` stops after `epoch`, or None. `others`: all other curves."""
        return halving(own, epoch, others, self.reduction, "trials")


@dataclass(frozen=True)
class Hyperband(Asha):
    """Asynchronous Hyperband (Li et al., JMLR 2018 and MLSys 2020): ASHA in brackets with later and later
    first rungs, the last without any, for curves that cross.

    A bracket with s rungs gets a share of the trials in proportion to η^s / (s + 1), so that all cost about
    the same. The bracket follows from the trial's number alone: multiples of the golden ratio, which fall
    into any share evenly. Only trials of one bracket are compared.
    """

    def bracket(self, number: int, epochs: int) -> int:
        """0 … the number of rungs; bracket b starts at the b-th rung."""
        most = len(self.rungs(epochs))
        shares = np.array([self.reduction**s / (s + 1) for s in range(most, -1, -1)])
        return int(np.searchsorted(np.cumsum(shares / shares.sum()), number * GOLDEN % 1.0, side="right"))

    def stop_reason(self, own: Curve, epoch: int, epochs: int, others: Sequence[Curve]) -> str | None:
        mine = self.bracket(own.number, epochs)
        if epoch not in self.rungs(epochs)[mine:]:
            return None
        peers = [one for one in others if self.bracket(one.number, epochs) == mine]
        return halving(own, epoch, peers, self.reduction, f"trials of bracket {mine}")


@dataclass(frozen=True)
class Median:
    """The median stopping rule (Golovin et al., KDD 2017, §3.2.1): a training stops when its best value so
    far is below the median of the others' running means at the same epoch; from `grace` epochs on, and when
    `enough` others came so far."""

    grace: int = 3
    enough: int = 4
    objectives: int = 1

    def judges(self, epoch: int, epochs: int) -> bool:
        return self.grace <= epoch < epochs

    def stop_reason(self, own: Curve, epoch: int, epochs: int, others: Sequence[Curve]) -> str | None:
        means = [
            statistics.fmean(v for e, v in one.values.items() if e <= epoch)
            for one in others
            if one.at(epoch) is not None
        ]
        best = max(v for e, v in own.values.items() if e <= epoch)
        if len(means) < self.enough or best >= (median := statistics.median(means)):
            return None
        return (
            f"{best:.4f}, its best, < {median:.4f}, the median of {len(means)} other trials' means up to "
            f"epoch {epoch}"
        )


@dataclass(frozen=True)
class Patience:
    """A training stops when the (first) objective was not higher than before for `epochs` epochs."""

    epochs: int = 5
    objectives: int = 2

    def judges(self, epoch: int, epochs: int) -> bool:
        return self.epochs < epoch < epochs

    def stop_reason(self, own: Curve, epoch: int, epochs: int, others: Sequence[Curve]) -> str | None:
        known = {e: v for e, v in own.values.items() if e <= epoch}
        best = max(known.values())
        since = min(e for e, v in known.items() if v == best)
        if epoch - since < self.epochs:
            return None
        return f"not above {best:.4f} of epoch {since} for {epoch - since} epochs"


@dataclass(frozen=True)
class NoPruning:
    """Every trial runs to its full length."""

    objectives: int = 2

    def judges(self, epoch: int, epochs: int) -> bool:
        return False

    def stop_reason(self, own: Curve, epoch: int, epochs: int, others: Sequence[Curve]) -> str | None:
        return None


@dataclass(frozen=True)
class Entry:
    """A training in a search that pauses: of which `configuration` (a trial's number), from which `seed` (0,
    1, …), paused after `until` epochs or on its way there; `open` False once it has ended."""

    configuration: int
    seed: int
    curve: Curve
    until: int
    open: bool

    @property
    def paused(self) -> bool:
        return self.open and self.until in self.curve.values


@dataclass(frozen=True)
class Step:
    """Go on with the training `number` until the epoch `until`; `number` None: with `configuration` from its
    seed `seed`."""

    until: int
    number: int | None = None
    configuration: int = -1
    seed: int = 0


@dataclass(frozen=True)
class Promotion(NoPruning):
    """Asynchronous successive halving as published (Li et al., MLSys 2020, Algorithm 2): every training
    pauses at its rung, and goes on from its checkpoint once it is among the best 1/η there.

    Nothing is decided too early, as by the stopping kind, whose first η trials at a rung all go on. When no
    new configurations are left, at least the best of a rung goes on, so that something is completed.

    With `seeds` > 1 rungs are over (epochs, seeds): a configuration among the best is first trained from its
    next seed to the same rung, until it has `seeds` there, and goes on only if it still is among the best by
    its mean. What was lucky once does not get the epochs.
    """

    grace: int = 3
    reduction: int = 3
    seeds: int = 1

    def rungs(self, epochs: int) -> list[int]:
        """Where trainings pause; Asha's rungs."""
        return Asha(self.grace, self.reduction).rungs(epochs)

    def first(self, epochs: int) -> int:
        """How far a new training goes before it is compared."""
        return next(iter(self.rungs(epochs)), epochs)

    def step(self, entries: Sequence[Entry], epochs: int, *, closing: bool) -> Step | None:
        """What is to go on next, highest rung first; None if nothing is. `closing`: no more trainings will
        come to any rung."""
        rungs = self.rungs(epochs)
        for rung, following in reversed(list(zip(rungs, [*rungs[1:], epochs]))):
            for configuration in self._promotable(entries, rung, closing):
                mine = sorted((e for e in entries if e.configuration == configuration), key=lambda e: e.seed)
                step = self._step_of(mine, rung, following)
                if step:
                    return step
        return None

    def standing(self, entries: Sequence[Entry], own: Entry) -> str:
        """Where a paused training stands, in one line."""
        ranked = self._ranked(entries, own.until)
        place = [configuration for configuration, _ in ranked].index(own.configuration) + 1
        best = max(1, len(ranked) // self.reduction)
        return f"paused at epoch {own.until}: {place} of {len(ranked)} there, where the best {best} go on"

    def _step_of(self, mine: Sequence[Entry], rung: int, following: int) -> Step | None:
        """The next step of one configuration's trainings, seeds in order, from `rung` to `following`."""
        lead, there = mine[0], [one for one in mine if one.curve.at(rung) is not None]
        if any(one.open and not one.paused for one in mine) or not lead.open or lead.until != rung:
            return None  # on its way, ended, or gone on already
        behind = next((one for one in mine if one.paused and one.until < rung), None)
        if len(there) < self.seeds and behind:
            return Step(rung, behind.curve.number)
        if len(there) < self.seeds and len(mine) < self.seeds:
            return Step(rung, None, lead.configuration, len(mine))
        return Step(following, lead.curve.number)

    def _promotable(self, entries: Sequence[Entry], rung: int, closing: bool) -> list[int]:
        ranked = self._ranked(entries, rung)
        goes_on = max(len(ranked) // self.reduction, int(closing))
        return [configuration for configuration, _ in ranked[:goes_on]]

    def _ranked(self, entries: Sequence[Entry], rung: int) -> list[tuple[int, tuple[float, ...]]]:
        """(configuration, means over its seeds) of all that came to `rung`, best first."""
        points: dict[int, list[tuple[float, ...]]] = defaultdict(list)
        for one in entries:
            if (point := one.curve.at(rung)) is not None:
                points[one.configuration].append(point)
        means = {c: tuple(map(statistics.fmean, zip(*found))) for c, found in points.items()}
        if not means:
            return []
        beaten = dict(zip(means, dominators(list(means.values()))))
        return sorted(means.items(), key=lambda item: (beaten[item[0]], -item[1][0], item[0]))
