"""Confirmation as a race: the best of a search are trained over fresh seeds until they can be told apart.

A search's best score was chosen for being high, so it is too high. The finalists therefore run again, at full
length, one seed after another, the same seeds for all of them. After every seed each two are compared by a
paired t-test, and a configuration that another one beats is out. What is still in after the last seed is tied
with the winner, the one with the highest mean. The winner then trains over further seeds, which had no say in
choosing it: they give the headline, and they alone ever see the test split.

How sure is "A beats B"? Over all pairs and all looks together the chance that any such statement of a
study is false is at most `LEVEL`. It is spent by Bonferroni's inequality: an equal share for each pair of
finalists, and of that half for the look after the last seed, the rest in equal parts for the looks before
(alpha spending in steps: Lan & DeMets, Biometrika 1983; Jennison & Turnbull, Group Sequential Methods, 2000,
ch. 7). The paired t-test asks only that a pair's differences be normal, so the level holds whatever the
configurations' own spreads are and however much they share by sharing seeds. Pooling the spread of all
finalists would tell them apart sooner, and was left out: one unstable configuration among them tripled the
errors (tests/benchmarks/bench_race.py has the figures, also of an anytime-valid test, which drops next to
nothing within ten seeds).

Everything here is a function of the ledger's rows: which runs ended first, and whether the driver was killed
in between, changes nothing of what is decided.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any, NamedTuple

import numpy as np
from scipy import special

from searchspace.study import Job, run_folder, seed_for

LEVEL = 0.05
FIRST_LOOK = 3  # seeds; with two a t-test has one degree of freedom, and coarse scores often agree by chance
EVERYONE = {"drop": False, "full": True}  # what --race says
ENDED = ("COMPLETE", "PRUNED", "DIVERGED", "FAIL")

Row = Mapping[str, Any]


class Drop(NamedTuple):
    """A configuration that is out.

    after   racing seeds that were known then
    by      the trial that beat it; None where it diverged
    difference  mean of (by - trial) over their common seeds, in the objective's unit; p of the paired t-test,
            two-sided, and the `level` it was held against; NaN where it diverged
    """

    trial: int
    after: int
    by: int | None
    difference: float
    p: float
    level: float
    reason: str


class Standing(NamedTuple):
    """How a race stands.

    alive   trials still in, highest mean first; once the race is over these are the winner and its ties
    rounds  seeds of all that were in then which have ended and been looked at
    over    whether it is decided
    """

    alive: tuple[int, ...]
    dropped: tuple[Drop, ...]
    rounds: int
    over: bool

    @property
    def winner(self) -> int | None:
        """None before the race is over, or if no run of it was completed."""
        return self.alive[0] if self.over and self.alive else None


@dataclass(frozen=True)
class Race:
    """A race between `finalists` (search runs, best first) over at most `seeds` seeds each.

    `headline` is how many further seeds the winner gets; with 0 all that are in at the end run every seed,
    even one that is left alone. With `everyone`, nobody is spared: every finalist runs every seed, the
    further ones too, and what is decided is the same. Runs are of `phase`, and tested where their finalist
    is, or with a further seed.
    """

    finalists: Sequence[Job]
    seeds: int
    headline: int
    study_seed: int
    everyone: bool = False
    phase: str = "confirm"

    @property
    def looks(self) -> range:
        """The numbers of seeds after which configurations are compared."""
        return range(FIRST_LOOK, self.seeds + 1)

    def level(self, look: int) -> float:
        """The two-sided level of one pair's test after `look` seeds."""
        pairs = math.comb(len(self.finalists), 2)
        if len(self.looks) == 1:
            return LEVEL / pairs
        share = 0.5 if look == self.seeds else 0.5 / (len(self.looks) - 1)
        return LEVEL / pairs * share

    def standing(self, rows: Sequence[Row]) -> Standing:
        """What the rows of the confirmation runs decide, round by round.

        A round is looked at when its seed has ended for all that are in. Runs of configurations that are out
        by then, and of later seeds, do not count.
        """
        runs = {(row["trial"], row["repeat"]): row for row in rows if row["state"] in ENDED}
        alive = [job.trial for job in self.finalists]
        dropped: list[Drop] = []
        rounds = 0
        while rounds < self.seeds and len(alive) > 1 and all((trial, rounds + 1) in runs for trial in alive):
            rounds += 1
            out = self._look(runs, alive, rounds)
            dropped += out
            alive = [trial for trial in alive if trial not in {drop.trial for drop in out}]
        over = len(alive) <= 1 or rounds == self.seeds
        means = {trial: _mean(_scores(runs, trial, rounds)) for trial in alive}
        ranked = sorted(alive, key=lambda trial: -means[trial])  # stable: ties go to the better search run
        if over and rounds:
            ranked = [trial for trial in ranked if means[trial] > -math.inf]
        return Standing(tuple(ranked), tuple(dropped), rounds, over)

    def next_jobs(self, rows: Sequence[Row]) -> list[Job]:
        """The next run to start, as a list of at most one; `rows` hold what is running too.

        All seeds up to the first look are needed whatever comes. After that a machine that would wait for the
        round to end gets a run of the next round, which is lost if its configuration drops out.
        """
        standing = self.standing(rows)
        started = {(row["trial"], row["repeat"]) for row in rows}
        everyone = [job.trial for job in self.finalists]
        racing = everyone if self.everyone else list(standing.alive)
        ahead = self.seeds if self.everyone else min(self.seeds, max(FIRST_LOOK, standing.rounds + 2))
        ahead = ahead if self.headline or not standing.over else self.seeds
        decided = standing.over and self.headline and not self.everyone
        wanted = [] if decided else [*range(1, ahead + 1)]
        found = self._first(racing, wanted, started)
        if not found and (standing.over or self.everyone):
            racing = everyone if self.everyone else list(standing.alive[:1])
            found = self._first(racing, self.headline_repeats, started)
        return found

    @property
    def headline_repeats(self) -> range:
        return range(self.seeds + 1, self.seeds + self.headline + 1)

    def at_most(self, rows: Sequence[Row] = ()) -> int:
        """How many runs there will be, if nobody more drops out."""
        standing, finalists = self.standing(rows), len(self.finalists)
        if self.everyone:
            return finalists * (self.seeds + self.headline)
        rounds = 0 if finalists == 1 and self.headline else self.seeds
        known = {(row["trial"], row["repeat"]) for row in rows}
        if not (standing.over and self.headline):
            known |= {(trial, n) for trial in standing.alive for n in range(1, rounds + 1)}
        headline = self.headline if finalists and (standing.alive or not standing.over) else 0
        return len([1 for _, n in known if n <= self.seeds]) + headline

    def as_record(self, rows: Sequence[Row]) -> dict[str, Any]:
        """The race as study.json keeps it and reports read it."""
        standing = self.standing(rows)
        return {
            "finalists": [job.trial for job in self.finalists],
            "seeds": self.seeds,
            "headline": list(self.headline_repeats),
            "everyone": self.everyone,
            "level": LEVEL,
            "looks": {str(look): self.level(look) for look in self.looks} if len(self.finalists) > 1 else {},
            "rounds": standing.rounds,
            "over": standing.over,
            "winner": standing.winner,
            "tied": list(standing.alive[1:]) if standing.over else [],
            "alive": list(standing.alive),
            "dropped": [_plain(drop._asdict()) for drop in standing.dropped],
        }

    def _first(
        self, trials: Sequence[int], repeats: Sequence[int], started: set[tuple[int, int]]
    ) -> list[Job]:
        """The first run not yet started: one seed of all before the next of any."""
        jobs = {job.trial: job for job in self.finalists}
        ordered = [job.trial for job in self.finalists if job.trial in trials]
        left = [(t, n) for n in repeats for t in ordered if (t, n) not in started]
        return [self._job(jobs[trial], repeat) for trial, repeat in left[:1]]

    def _job(self, finalist: Job, repeat: int) -> Job:
        return Job(
            number=-1,
            trial=finalist.trial,
            repeat=repeat,
            phase=self.phase,
            values=finalist.values,
            seed=seed_for(self.study_seed, {}, repeat),  # the same for every configuration: they are paired
            epochs=finalist.epochs,
            folder=run_folder(finalist.trial, repeat),
            origin=finalist.origin,
            test=finalist.test or repeat in self.headline_repeats,
        )

    def _look(self, runs: Mapping[tuple[int, int], Row], alive: list[int], seeds: int) -> list[Drop]:
        """Who is out after `seeds` seeds: those that diverged with this one, unless all did, and those that
        another one beats."""
        diverged = [trial for trial in alive if runs[trial, seeds]["state"] == "DIVERGED"]
        if len(diverged) == len(alive):
            return []
        out = [
            Drop(trial, seeds, None, math.nan, math.nan, math.nan, _why_diverged(runs[trial, seeds]))
            for trial in diverged
        ]
        if seeds not in self.looks:
            return out
        beaten: dict[int, Drop] = {}
        for pair in combinations([trial for trial in alive if trial not in diverged], 2):
            drop = self._beaten(runs, *pair, seeds)
            if drop and (drop.trial not in beaten or drop.p < beaten[drop.trial].p):
                beaten[drop.trial] = drop
        return [*out, *(beaten[trial] for trial in alive if trial in beaten)]

    def _beaten(
        self, runs: Mapping[tuple[int, int], Row], first: int, second: int, seeds: int
    ) -> Drop | None:
        """The worse of two, if the paired t-test over their common seeds says so."""
        a, b = _scores(runs, first, seeds), _scores(runs, second, seeds)
        common = sorted(a.keys() & b.keys())
        gaps = np.asarray([a[n] - b[n] for n in common])
        if len(gaps) < FIRST_LOOK or (spread := float(gaps.std(ddof=1))) < 1e-12:
            return None  # no spread at all is a coarse score
        t, level = abs(float(gaps.mean())) / spread * math.sqrt(len(gaps)), self.level(seeds)
        p = 2 * float(special.stdtr(len(gaps) - 1, -t))
        if p > level:
            return None
        better, worse = (first, second) if gaps.mean() > 0 else (second, first)
        by = abs(float(gaps.mean()))
        reason = (
            f"{by:.4f} below trial {better} over {len(gaps)} seeds, paired t-test p = {p:.2g} <= {level:.2g}"
        )
        return Drop(worse, seeds, better, by, p, level, reason)


def _scores(runs: Mapping[tuple[int, int], Row], trial: int, seeds: int) -> dict[int, float]:
    """{repeat: score} of a configuration's completed runs among the first `seeds`."""
    rows = {n: runs[trial, n] for n in range(1, seeds + 1) if (trial, n) in runs}
    return {
        n: float(row["score"])
        for n, row in rows.items()
        if row["state"] == "COMPLETE" and math.isfinite(row["score"])
    }


def _mean(scores: Mapping[int, float]) -> float:
    return math.fsum(scores.values()) / len(scores) if scores else -math.inf


def _why_diverged(row: Row) -> str:
    said = f": {row['reason']}" if row.get("reason") else ""
    return f"diverged with its seed {row['repeat']}{said}"


def _plain(values: Mapping[str, Any]) -> dict[str, Any]:
    return {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in values.items()}
