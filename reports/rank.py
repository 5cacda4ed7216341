"""What won, and is that sure: repeated trainings of configurations, compared with each other.

Configurations are chosen by their validation mean. Test means are reported beside it and choose nothing. Only
finished trainings of full length are averaged; single search runs have a table of their own (`search_table`).
Where the study holds a race (searchspace/race.py), the order is the race's, over its own seeds, and the
headline comes from further seeds, which chose nothing.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from reports.statistics import (
    ALPHA,
    NAN,
    Comparison,
    Summary,
    compare,
    holm,
    sampling_error,
    summarise,
    with_clips,
)


class Standing(NamedTuple):
    """One confirmed configuration.

    rank            1 is best; equal means share a rank
    validation      of the seeds that chose
    headline        the same metric over further seeds; n = 0 without a race
    p               against the best, corrected over all comparisons (Holm; in a race over its pairs and
                    looks, and against the trial that put it out); NaN for the best and if untestable
    tied            cannot be told apart from the best, or cannot be tested; False for the best itself
    sampling_error  95 % half-width of the test mean from the choice of clips; NaN if not a share of clips
    interval        95 % of the test mean with both errors: seeds and choice of clips; NaN likewise
    tests           every test metric by its name without "test/"
    lost            runs not in the mean, by state ("SHORT": finished below full length, "NAN": no score)
    """

    rank: int
    trial: int
    validation: Summary
    test: Summary
    comparison: Comparison | None
    p: float
    tied: bool
    sampling_error: float
    parameters: float
    origin: str
    config: Mapping[str, Any]
    lost: Mapping[str, int]
    tests: Mapping[str, Summary]
    headline: Summary
    interval: tuple[float, float]


class Ranking(NamedTuple):
    """The confirmed configurations, best first.

    test        "paired t-test" if all shared repeats ran with the same seeds, else "Welch t-test"
    waiting     confirmed configurations without a single usable run: trial -> why, by state
    differing   knobs on which the standings differ
    correction  what the p values are corrected by
    """

    standings: tuple[Standing, ...]
    waiting: Mapping[int, Mapping[str, int]]
    test: str
    differing: tuple[str, ...]
    correction: str = "Holm"

    @property
    def best(self) -> Standing | None:
        return self.standings[0] if self.standings else None

    @property
    def tied(self) -> tuple[Standing, ...]:
        """The configurations that cannot be told apart from the best."""
        return tuple(s for s in self.standings if s.tied)


class SearchRow(NamedTuple):
    """One full-length search run: a single number (n = 1), never mixed with the confirmed."""

    trial: int
    score: float
    parameters: float
    origin: str
    config: Mapping[str, Any]


def usable(runs: pd.DataFrame, epochs: int) -> pd.DataFrame:
    """The runs that may be compared: finished, at full length, with a finite score."""
    return runs[(runs["state"] == "COMPLETE") & (runs["epochs"] >= epochs) & np.isfinite(runs["score"])]


def ranking(
    runs: pd.DataFrame,
    *,
    epochs: int,
    mode: str = "max",
    test_metric: str = "",
    test_clips: int | None = None,
    race: Mapping[str, Any] | None = None,
) -> Ranking:
    """Rank the configurations of the confirmation phase by the mean of `score`.

    epochs       full length; shorter runs are left out and counted in `lost`
    test_metric  column reported, never ranked by; test_clips sizes its sampling error if a share of clips
    race         study.json's; without one (older studies) every confirmation run chooses and is tested
    """
    confirm = runs[runs["phase"] == "confirm"]
    lost = {trial: _lost(group, epochs) for trial, group in _by_trial(confirm).items()}
    groups = _by_trial(usable(confirm, epochs))
    waiting = {trial: counts for trial, counts in lost.items() if trial not in groups}
    if not groups:
        return Ranking((), waiting, "", ())
    clips = test_clips if is_share_of_clips(test_metric) else None
    paired = True
    if race:
        judged = _as_raced(groups, race)
    else:
        sign = -1 if mode == "max" else 1
        order = sorted(groups, key=lambda t: (sign * groups[t]["score"].mean(), -len(groups[t]), t))
        best, others = groups[order[0]], [groups[t] for t in order[1:]]
        paired = bool(others) and all(_same_seeds(best, other) for other in others)
        comparisons = [_against(best, other, paired) for other in others]
        corrected = holm([c.p for c in comparisons])
        judged = [
            _Judged(t, groups[t], None, comparison, p, comparison is not None and not p < ALPHA)
            for t, comparison, p in zip(order, [None, *comparisons], [NAN, *corrected])
        ]
    standings: list[Standing] = []
    for one in judged:
        standing = _standing(one, test_metric, clips, lost[one.trial])
        above = standings[-1] if standings and not race else None
        alike = above is not None and above.validation.mean == standing.validation.mean
        standings.append(standing._replace(rank=above.rank if above and alike else len(standings) + 1))
    test = "paired t-test" if paired else "Welch t-test"
    correction = "correction for pairs and looks" if race else "Holm"
    return Ranking(tuple(standings), waiting, test, differing([s.config for s in standings]), correction)


class _Judged(NamedTuple):
    """A configuration in its place: the runs that chose, those of the headline (None: the same ones)."""

    trial: int
    chose: pd.DataFrame
    further: pd.DataFrame | None
    comparison: Comparison | None
    p: float
    tied: bool


def _as_raced(groups: Mapping[int, pd.DataFrame], race: Mapping[str, Any]) -> list[_Judged]:
    """Those still in, as the race orders them, then those that are out, the last out first."""
    out = {drop["trial"]: drop for drop in race["dropped"]}
    counted = {t: int(out[t]["after"]) if t in out else int(race["seeds"]) for t in groups}
    chose = {t: group[group["repeat"] <= counted[t]] for t, group in groups.items()}
    further = {t: group[group["repeat"].isin(race["headline"])] for t, group in groups.items()}
    alive = [t for t in race["alive"] if t in groups]
    left = sorted(
        (t for t in groups if t not in alive), key=lambda t: (-counted[t], -chose[t]["score"].mean(), t)
    )
    first = (alive or left)[0]
    last = race["looks"].get(str(race["rounds"]))
    judged = []
    for trial in [*alive, *left]:
        comparison = _against(chose[first], chose[trial], paired=True) if trial != first else None
        p = NAN
        if trial in out and out[trial]["p"] is not None:
            p = min(1.0, out[trial]["p"] * race["level"] / out[trial]["level"])
        elif comparison is not None and trial in alive and last:
            p = min(1.0, comparison.p * race["level"] / last)
        judged.append(
            _Judged(trial, chose[trial], further[trial], comparison, p, trial in alive and trial != first)
        )
    return judged


def _by_trial(runs: pd.DataFrame) -> dict[int, pd.DataFrame]:
    return {
        trial: runs[runs["trial"] == trial].sort_values("repeat")
        for trial in sorted({int(t) for t in runs["trial"]})
    }


def _standing(one: _Judged, test_metric: str, clips: int | None, lost: Mapping[str, int]) -> Standing:
    tested = one.chose if one.further is None else one.further
    known = one.chose if len(one.chose) else tested  # a single finalist has further seeds only
    test = summarise(tested[test_metric].tolist() if test_metric in tested else [])
    return Standing(
        rank=0,
        trial=one.trial,
        validation=summarise(known["score"].tolist()),
        test=test,
        comparison=one.comparison,
        p=one.p,
        tied=one.tied,
        sampling_error=sampling_error(test.mean, clips),
        parameters=float(known["parameters"].iloc[0]),
        origin=str(known["origin"].iloc[0]),
        config=_config(known.to_dict("records")[0]),
        tests=_tests(tested),
        lost=lost,
        headline=summarise([] if one.further is None else one.further["score"].tolist()),
        interval=with_clips(test, clips),
    )


def _tests(group: pd.DataFrame) -> dict[str, Summary]:
    columns = [str(name) for name in group.columns if str(name).startswith("test/")]
    return {name.removeprefix("test/"): summarise(group[name].tolist()) for name in columns}


def is_share_of_clips(metric: str) -> bool:
    """Whether the metric is the share of clips answered rightly, so that its sampling error is binomial."""
    return metric.split("/", 1)[-1] == "scene_accuracy"


def _lost(group: pd.DataFrame, epochs: int) -> dict[str, int]:
    counts: dict[str, int] = {}
    for state, done, score in zip(group["state"], group["epochs"], group["score"]):
        if state == "COMPLETE":
            if done < epochs:
                state = "SHORT"
            elif not math.isfinite(score):
                state = "NAN"
            else:
                continue
        counts[state] = counts.get(state, 0) + 1
    return counts


def _config(row: Mapping[Any, Any]) -> dict[str, Any]:
    values = {str(k).removeprefix("config."): v for k, v in row.items() if str(k).startswith("config.")}
    return {k: v.item() if isinstance(v, np.generic) else v for k, v in values.items()}


def _same_seeds(a: pd.DataFrame, b: pd.DataFrame) -> bool:
    """Pairing by repeat means something only where the same repeat had the same seed on both sides."""
    seeds_a = dict(zip(a["repeat"], a["seed"]))
    seeds_b = dict(zip(b["repeat"], b["seed"]))
    shared = seeds_a.keys() & seeds_b.keys()
    return len(shared) >= 2 and all(seeds_a[r] == seeds_b[r] for r in shared)


def _against(best: pd.DataFrame, other: pd.DataFrame, paired: bool) -> Comparison:
    if not paired:
        return compare(best["score"].tolist(), other["score"].tolist(), "welch")
    both = best.merge(other, on="repeat", suffixes=("_a", "_b"))
    return compare(both["score_a"].tolist(), both["score_b"].tolist(), "paired")


def differing(configs: Sequence[Mapping[str, Any]]) -> tuple[str, ...]:
    """The knobs whose values are not the same in all configurations (missing equals missing)."""
    names = list(dict.fromkeys(name for config in configs for name in config))
    return tuple(n for n in names if len({value_key(config.get(n)) for config in configs}) > 1)


def value_key(value: Any) -> str:
    """A knob's value for comparison: 1 and 1.0 are the same, so are None and NaN."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    return repr(float(value)) if isinstance(value, int | float | np.number) else repr(value)


def own_column(runs: pd.DataFrame, knob: str) -> pd.Series | None:
    """What a searched knob was in each run, None where `runs` have no such column. "csem.lr", as a search of
    several families names it, is known of csem's runs alone: another family's lr is another knob."""
    family, several, name = knob.rpartition(".")
    if f"config.{name}" not in runs:
        return None
    column = runs[f"config.{name}"]
    return column.astype(object).where(runs["config.family"] == family, None) if several else column


def took_several(runs: pd.DataFrame, knob: str) -> bool:
    """Whether a searched knob had more than one value; no value is one too, but not in others' runs."""
    column = own_column(runs, knob)
    if column is None:
        return False
    own = column[runs["config.family"] == knob.rpartition(".")[0]] if "." in knob else column
    return len({value_key(value) for value in own}) > 1


def foreign(config: Mapping[str, Any], name: str) -> bool:
    """Whether the knob, in a search of several families, is another family's: this one has no value for it
    (or none by default)."""
    return "family" in config and value_key(config.get(name)) == ""


def label(result: Ranking, standing: Standing) -> str:
    """What tells a configuration from the others in words: at most two choices that differ, "" if none.

    A knob on which some configuration says "none" says nothing without its name, and is left out.
    """
    words = {name: [s.config.get(name) for s in result.standings] for name in result.differing}
    telling = [n for n, said in words.items() if all(isinstance(w, str) for w in said) and "none" not in said]
    return ", ".join(str(standing.config[name]) for name in telling[:2])


def search_table(runs: pd.DataFrame, *, epochs: int, mode: str = "max") -> tuple[SearchRow, ...]:
    """The full-length search runs, best first: one seed each, so neighbours in this table say nothing."""
    good = usable(runs[runs["phase"] == "search"], epochs)
    good = good.sort_values(["score", "trial"], ascending=[mode == "min", True])
    return tuple(
        SearchRow(int(r["trial"]), r["score"], r["parameters"], r["origin"], _config(r))
        for r in good.to_dict("records")
    )
