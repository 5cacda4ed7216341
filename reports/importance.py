"""Which knobs decided the score: PED-ANOVA over the finished full-length search runs and nothing else.

Optuna does it, in its form for conditional spaces (some weights exist in some frameworks only): the one part
of a report that needs Optuna, and the only one missing where that is not installed.
"""

from __future__ import annotations

import importlib.util
import math
import warnings
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from reports.rank import own_column, took_several, usable

FEWEST_RUNS = 6


class Importance(NamedTuple):
    """Shares that add up to 1, largest first; `note` says why there are none.

    runs      how many runs they come from
    constant  searched knobs that had one value in all of these runs
    thin      families (of several) whose knobs are left out for want of runs
    """

    shares: tuple[tuple[str, float], ...]
    runs: int
    constant: tuple[str, ...]
    note: str
    thin: tuple[str, ...] = ()


def importance(runs: pd.DataFrame, knobs: tuple[str, ...], *, epochs: int, mode: str) -> Importance:
    """How much each searched knob decides whether a run is among the best tenth.

    runs  the study's frame; only finished search runs of `epochs` epochs count, so no fidelities are mixed.
    A knob without a value in some runs (a conditional one) is handled by the evaluator.
    """
    good = usable(runs[runs["phase"] == "search"], epochs)
    if len(good) < FEWEST_RUNS:
        return Importance((), len(good), (), _too_few(len(good), epochs))
    known = [knob for knob in knobs if own_column(good, knob) is not None]
    varied = [knob for knob in known if took_several(good, knob)]
    constant = tuple(knob for knob in known if knob not in varied)
    thin = _thin(good, varied)
    varied = [knob for knob in varied if knob.rpartition(".")[0] not in thin]
    if not varied:
        return Importance((), len(good), constant, "The runs do not differ in any searched knob.")
    if good["score"].nunique() == 1:
        return Importance(
            (), len(good), constant, "All runs have the same score, so no knob made a difference."
        )
    if importlib.util.find_spec("optuna") is None:
        return Importance((), len(good), constant, "Importance needs Optuna, which is not installed here.")
    with warnings.catch_warnings():  # tqdm's about notebooks, Optuna's about `normalize` being experimental
        warnings.simplefilter("ignore")
        shares = _ped_anova(good, varied, mode)
    if not math.isfinite(sum(shares.values())) or sum(shares.values()) <= 0:
        return Importance(
            (), len(good), constant, "No knob separates the best of these runs from the others."
        )
    ordered = sorted(shares.items(), key=lambda item: (-item[1], item[0]))
    return Importance(tuple((k, float(v)) for k, v in ordered), len(good), constant, "", thin)


def _thin(good: pd.DataFrame, knobs: list[str]) -> tuple[str, ...]:
    """The families with too few runs of their own to say anything about their knobs."""
    families = dict.fromkeys(knob.rpartition(".")[0] for knob in knobs if "." in knob)
    return tuple(f for f in families if (good["config.family"] == f).sum() < FEWEST_RUNS)


def _too_few(found: int, epochs: int) -> str:
    runs = "run has" if found == 1 else "runs have"
    counted = f"{found or 'No'} search {runs} finished all {epochs} epochs"
    return f"{counted}; importance needs at least {FEWEST_RUNS}."


def _ped_anova(good: pd.DataFrame, knobs: list[str], mode: str) -> dict[str, float]:
    """Importances from a clean in-memory study that sum to 1; {} when the evaluator finds none."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(direction="maximize" if mode == "max" else "minimize")
    found = {knob: own_column(good, knob) for knob in knobs}
    columns = {knob: [_plain(v) for v in column] for knob, column in found.items() if column is not None}
    spans = {knob: _distribution(optuna, values) for knob, values in columns.items()}
    for index, score in enumerate(good["score"]):
        values = {knob: columns[knob][index] for knob in knobs if columns[knob][index] is not None}
        used = {knob: spans[knob] for knob in values}
        study.add_trial(optuna.trial.create_trial(params=values, distributions=used, value=float(score)))
    evaluator = optuna.importance.PedAnovaImportanceEvaluator()
    # Optuna's own normalisation would share 1 out equally when no knob matters.
    raw = optuna.importance.get_param_importances(study, evaluator=evaluator, normalize=False)
    total = sum(raw.values())
    return {knob: value / total for knob, value in raw.items()} if total > 0 else {}


def _distribution(optuna: Any, values: list[Any]) -> Any:
    """The span of the values seen; floats are logarithmic where `logarithmic` says so."""
    seen = [v for v in values if v is not None]
    if any(isinstance(v, bool | str) for v in seen):
        return optuna.distributions.CategoricalDistribution(sorted(set(seen), key=repr))
    low, high = min(seen), max(seen)
    if all(isinstance(v, int) for v in seen):
        return optuna.distributions.IntDistribution(low, high)
    return optuna.distributions.FloatDistribution(float(low), float(high), log=logarithmic(seen))


def logarithmic(values: list[Any]) -> bool:
    """Whether positive numbers over more than a factor of 10 are likelier log-uniform than uniform."""
    low, high = min(values), max(values)
    if low <= 0 or high / low <= 10:
        return False
    uniform = -len(values) * math.log(high - low)
    return -len(values) * math.log(math.log(high / low)) - sum(map(math.log, values)) > uniform


def _plain(value: Any) -> Any:
    """A knob's value as Optuna takes it; None where a run has none. Numbers that are whole become int."""
    if value is None or (isinstance(value, float | np.floating) and math.isnan(value)):
        return None
    if isinstance(value, bool | np.bool_):
        return bool(value)
    if isinstance(value, int | np.integer):
        return int(value)
    if isinstance(value, float | np.floating):
        return float(value)
    return str(value)
