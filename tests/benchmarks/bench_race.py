"""Is the race honest, and is what it chooses as good? Simulated studies whose truth is known.

    python tests/benchmarks/bench_race.py [--studies 2000]

Scores are in points of accuracy, a configuration's seeds scatter by 0.67 (what the papers' raw runs show).
Three tables, each through `searchspace.race.Race` itself: how often any "A beats B" of a study is false when
nothing differs, under kinds of noise; the same of other rules one could stop by; and, at the same number of
runs, what a study reports and chooses with the race and without (the best of single runs).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import combinations
from typing import Any, NamedTuple

import numpy as np
import tyro
from scipy import special

from searchspace.race import LEVEL, Race, Standing
from searchspace.study import Job

SD = 0.67
Noise = Callable[[np.random.Generator, int, int], np.ndarray]  # (finalists, seeds) -> deviations, points


@dataclass
class Request:
    studies: int = 2000
    seed: int = 0


def normal(rng: np.random.Generator, k: int, n: int) -> np.ndarray:
    return rng.normal(0, SD, (k, n))


def shared(rng: np.random.Generator, k: int, n: int) -> np.ndarray:
    """Half of the variance belongs to the seed, whatever the configuration."""
    return SD * math.sqrt(0.5) * (rng.standard_normal((1, n)) + rng.standard_normal((k, n)))


def one_unstable(rng: np.random.Generator, k: int, n: int) -> np.ndarray:
    return rng.standard_normal((k, n)) * np.array([2.0] + [0.4] * (k - 1))[:, None]


def heavy(rng: np.random.Generator, k: int, n: int) -> np.ndarray:
    """Student's t with 4 degrees of freedom."""
    return SD / math.sqrt(2) * rng.standard_t(4, (k, n))


def skewed(rng: np.random.Generator, k: int, n: int) -> np.ndarray:
    """A few bad seeds: an exponential tail downwards."""
    return SD * (1 - rng.exponential(1, (k, n)))


def coarse(rng: np.random.Generator, k: int, n: int) -> np.ndarray:
    """Accuracies of 240 validation clips."""
    step = 100 / 240
    return np.round((80 + rng.normal(0, SD, (k, n))) / step) * step - 80


NOISES: dict[str, Noise] = {
    "normal": normal,
    "half shared by seed": shared,
    "one unstable": one_unstable,
    "heavy tails": heavy,
    "skewed": skewed,
    "240 clips": coarse,
}


def race_of(k: int, seeds: int) -> Race:
    return Race([Job(t, t, 0, "search", {}, t, 1, "") for t in range(k)], seeds, seeds, 0)


def run_race(scores: np.ndarray) -> Standing:
    """The race over (finalists, seeds) scores."""
    rows = [
        {"trial": t, "repeat": n, "state": "COMPLETE", "score": float(scores[t, n - 1])}
        for t in range(scores.shape[0])
        for n in range(1, scores.shape[1] + 1)
    ]
    return race_of(*scores.shape).standing(rows)


def false_drops(noise: Noise, k: int, seeds: int, studies: int, rng: np.random.Generator) -> float:
    """The share of studies with any "A beats B" where all configurations are equally good."""
    return sum(bool(run_race(noise(rng, k, seeds)).dropped) for _ in range(studies)) / studies


# --- other rules ------------------------------------------------------------------------------------------


def pooled(gaps: np.ndarray, scores: np.ndarray) -> float:
    """t-test with the spread of all that are in: residuals of configuration + seed."""
    k, n = scores.shape
    rest = scores - scores.mean(0) - scores.mean(1, keepdims=True) + scores.mean()
    df = (k - 1) * (n - 1)
    error = math.sqrt(2 * float((rest**2).sum()) / df / n)
    return 2 * float(special.stdtr(df, -abs(gaps.mean()) / error))


def anytime(gaps: np.ndarray, scores: np.ndarray, g: float = 4.0) -> float:
    """1 / e-value of the t-test with a normal prior on the effect (variance g), valid at any look
    (Pérez-Ortiz et al., Annals of Statistics 2024; the g-prior Bayes factor)."""
    n, df = len(gaps), len(gaps) - 1
    t2 = float(gaps.mean() ** 2 / (gaps.var(ddof=1) / n))
    factor = ((1 + t2 / df) / (1 + t2 / (df * (1 + n * g)))) ** (n / 2) / math.sqrt(1 + n * g)
    return min(1.0, 1 / factor)


class Rule(NamedTuple):
    """A p value of a pair, and whether its level is shared out over looks (else every look has all of it)."""

    p: Callable[[np.ndarray, np.ndarray], float]
    spent: bool


def paired(gaps: np.ndarray, scores: np.ndarray) -> float:
    t = float(gaps.mean() / gaps.std(ddof=1)) * math.sqrt(len(gaps))
    return 2 * float(special.stdtr(len(gaps) - 1, -abs(t)))


RULES = {
    "paired t, level spent over looks (ours)": Rule(paired, True),
    "paired t, full level at every look": Rule(paired, False),
    "pooled spread, level spent over looks": Rule(pooled, True),
    "anytime-valid paired t": Rule(anytime, False),
}


def slow_race(rule: Rule, scores: np.ndarray) -> tuple[list[int], list[tuple[int, int]], int]:
    """(still in, [(out, by)], runs) by a rule, in a plain loop; with ours the same as `run_race`."""
    k, seeds = scores.shape
    one, alive, out, runs = race_of(k, seeds), list(range(k)), [], 0
    for n in range(1, seeds + 1):
        if len(alive) == 1:
            break
        runs += len(alive)
        if n < 3:
            continue
        level = one.level(n) if rule.spent else LEVEL / math.comb(k, 2)
        lost = {}
        for a, b in combinations(alive, 2):
            gaps = scores[a, :n] - scores[b, :n]
            if gaps.std() > 1e-12 and rule.p(gaps, scores[alive, :n]) <= level:
                better, worse = (a, b) if gaps.mean() > 0 else (b, a)
                lost[worse] = better
        out += list(lost.items())
        alive = [t for t in alive if t not in lost]
    return alive, out, runs


# --- what a study reports ---------------------------------------------------------------------------------


class Outcome(NamedTuple):
    """reported: the headline less the truth; chosen: the truth of what was chosen, less the best of the best
    192 on average; runs spent."""

    reported: float
    chosen: float
    runs: float


def best_of_singles(truth: np.ndarray, rng: np.random.Generator) -> Outcome:
    """One run each; the highest is chosen and reported."""
    seen = truth + rng.normal(0, SD, len(truth))
    best = int(seen.argmax())
    return Outcome(float(seen[best] - truth[best]), float(truth[best]), len(truth))


def with_race(truth: np.ndarray, k: int, seeds: int, rng: np.random.Generator) -> Outcome:
    """As many single runs as k * seeds + seeds leave, then the race; the headline is its further seeds'."""
    singles = len(truth) - (k + 1) * seeds
    seen = truth[:singles] + rng.normal(0, SD, singles)
    finalists = np.argsort(-seen)[:k]
    scores = truth[finalists][:, None] + normal(rng, k, seeds)
    found = run_race(scores)
    assert found.winner is not None
    winner = truth[finalists[found.winner]]
    headline = winner + rng.normal(0, SD, seeds).mean()
    spent = sum(d.after for d in found.dropped) + found.rounds * len(found.alive)
    return Outcome(float(headline - winner), float(winner), singles + spent + seeds)


def compare(
    spread: float, k: int, seeds: int, studies: int, seed: int, runs: int = 192
) -> tuple[np.ndarray, np.ndarray]:
    """(studies, 3) outcomes of both at the same number of runs, on the same configurations."""
    rng = np.random.default_rng(seed)
    both = []
    for _ in range(studies):
        truth = rng.normal(0, spread, runs)
        both.append((best_of_singles(truth, rng), with_race(truth, k, seeds, rng)))
    return np.array([one for one, _ in both]), np.array([two for _, two in both])


# --- the tables -------------------------------------------------------------------------------------------

SHAPES = ((2, 5), (3, 3), (3, 5), (4, 8), (8, 8))


def table(rows: list[list[Any]]) -> str:
    head, *body = [[f"{x:.3f}" if isinstance(x, float) else str(x) for x in row] for row in rows]
    return "\n".join(f"| {' | '.join(row)} |" for row in [head, ["---"] * len(head), *body])


def main(request: Request) -> None:
    rng = np.random.default_rng(request.seed)
    print(f"\nAny false 'A beats B' in a study, nothing differs, level {LEVEL}, {request.studies} studies\n")
    shares: list[list[Any]] = [["noise", *(f"{k} over {n} seeds" for k, n in SHAPES)]]
    for name, noise in NOISES.items():
        shares.append([name, *(false_drops(noise, k, n, request.studies, rng) for k, n in SHAPES)])
    print(table(shares), flush=True)

    print(
        "\nOther rules, 4 finalists over 8 seeds (32 runs at most); truth scattered by 1 point in the last\n"
    )
    rules: list[list[Any]] = [["rule", "false, normal", "false, one unstable", "runs", "told apart", "loss"]]
    for label, rule in RULES.items():
        nothing = [
            np.mean([bool(slow_race(rule, noise(rng, 4, 8))[1]) for _ in range(request.studies)])
            for noise in (normal, one_unstable)
        ]
        found = []
        for _ in range(request.studies):
            truth = rng.normal(0, 1.0, 4)
            scores = truth[:, None] + normal(rng, 4, 8)
            alive, _, runs = slow_race(rule, scores)
            winner = max(alive, key=lambda t: scores[t].mean())
            found.append((runs, 4 - len(alive), truth.max() - truth[winner]))
        rules.append([label, *map(float, nothing), *map(float, np.mean(found, axis=0))])
    print(table(rules), flush=True)

    print("\n192 runs: the best of single runs against search, race and headline (means over studies)\n")
    outcomes: list[list[Any]] = [
        [
            "spread",
            "race",
            "over-report, singles",
            "over-report, race",
            "chosen: race - singles",
            "error",
            "runs",
        ]
    ]
    for spread in (0.5, 1.0, 2.0):
        for k, n in ((4, 8), (8, 5), (8, 8)):
            one, two = compare(spread, k, n, request.studies, request.seed)
            gain = two[:, 1] - one[:, 1]
            error = float(gain.std(ddof=1) / math.sqrt(len(gain)))
            means = [float(one[:, 0].mean()), float(two[:, 0].mean()), float(gain.mean()), error]
            outcomes.append([spread, f"{k} over {n}", *means, float(two[:, 2].mean())])
    print(table(outcomes))


if __name__ == "__main__":
    main(tyro.cli(Request))
