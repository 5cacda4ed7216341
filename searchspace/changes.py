"""What Optuna's writes change of a trial, in memory and as rows of Optuna's tables.

A write need not be read back when what comes of it is known, and several can be one transaction: what differs
between a trial before and after.
"""

from __future__ import annotations

import copy
import functools
import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any

from optuna.distributions import BaseDistribution, distribution_to_json
from optuna.storages._rdb import models
from optuna.trial import FrozenTrial, TrialState

Rows = list[dict[str, Any]]


def _changed(trial: FrozenTrial, **fields: Any) -> FrozenTrial:
    changed = copy.copy(trial)
    for name, value in fields.items():
        setattr(changed, name, value)
    return changed


def _with_param(
    trial: FrozenTrial, name: str, internal: float, distribution: BaseDistribution, _: Any = None
) -> FrozenTrial:
    params = trial.params | {sys.intern(name): distribution.to_external_repr(internal)}
    distributions = trial.distributions | {sys.intern(name): _shared(distribution)}
    return _changed(trial, params=params, distributions=distributions)


@functools.lru_cache(maxsize=1000)
def _shared(distribution: BaseDistribution) -> BaseDistribution:
    """The same object for equal ones: a long search would hold thousands."""
    return distribution


def _with_user_attr(trial: FrozenTrial, key: str, value: Any) -> FrozenTrial:
    return _changed(trial, user_attrs=trial.user_attrs | {key: _as_stored(value)})


def _with_system_attr(trial: FrozenTrial, key: str, value: Any) -> FrozenTrial:
    return _changed(trial, system_attrs=trial.system_attrs | {key: _as_stored(value)})


def _as_stored(value: Any) -> Any:
    """As the database gives it back. Equal words are one object: a long search would hold thousands of each
    knob's name."""
    stored = json.loads(json.dumps(value), object_pairs_hook=_of_one_word)
    return sys.intern(stored) if isinstance(stored, str) else stored


def _of_one_word(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    return {sys.intern(name): sys.intern(v) if isinstance(v, str) else v for name, v in pairs}


def without(trial: FrozenTrial, name: str) -> FrozenTrial:
    """The trial less one of its attributes."""
    if name not in trial.user_attrs:
        return trial
    return _changed(trial, user_attrs={key: v for key, v in trial.user_attrs.items() if key != name})


def _with_value(trial: FrozenTrial, step: int, intermediate_value: float) -> FrozenTrial:
    return _changed(trial, intermediate_values=trial.intermediate_values | {step: intermediate_value})


def _with_state(
    trial: FrozenTrial, state: TrialState, values: Sequence[float] | None = None
) -> FrozenTrial | None:
    if trial.state.is_finished() or not state.is_finished():
        return None
    return _changed(trial, state=state, values=values, datetime_complete=datetime.now())


# By the name of the storage's operation, whose arguments they take; None where it has to be read back
CHANGES: dict[str, Callable[..., FrozenTrial | None]] = {
    "_set_trial_param": _with_param,
    "set_trial_user_attr": _with_user_attr,
    "set_trial_system_attr": _with_system_attr,
    "set_trial_intermediate_value": _with_value,
    "set_trial_state_values": _with_state,
}


def differences(before: FrozenTrial, after: FrozenTrial) -> Iterator[tuple[Any, str, Rows]]:
    """(table, the column that tells a trial's rows apart, rows) of what Optuna's tables are to hold of
    `after` and do not of `before`."""
    told = {} if before.values else dict(enumerate(after.values or ()))
    found = (
        (models.TrialParamModel, "param_name", _params(before, after)),
        (models.TrialUserAttributeModel, "key", _attributes(before.user_attrs, after.user_attrs)),
        (models.TrialSystemAttributeModel, "key", _attributes(before.system_attrs, after.system_attrs)),
        (models.TrialIntermediateValueModel, "step", _measured(before, after)),
        (models.TrialValueModel, "objective", [_told(*one) for one in told.items()]),
    )
    for model, key, rows in found:
        if rows:
            yield model.__table__, key, [{"trial_id": after._trial_id} | row for row in rows]


def _new(before: Mapping[Any, Any], after: Mapping[Any, Any]) -> list[Any]:
    return [name for name, value in after.items() if name not in before or before[name] is not value]


def _params(before: FrozenTrial, after: FrozenTrial) -> Rows:
    return [
        {
            "param_name": name,
            "param_value": after.distributions[name].to_internal_repr(after.params[name]),
            "distribution_json": distribution_to_json(after.distributions[name]),
        }
        for name in _new(before.params, after.params)
    ]


def _attributes(before: Mapping[str, Any], after: Mapping[str, Any]) -> Rows:
    return [{"key": name, "value_json": json.dumps(after[name])} for name in _new(before, after)]


def _measured(before: FrozenTrial, after: FrozenTrial) -> Rows:
    rows = []
    for step in _new(before.intermediate_values, after.intermediate_values):
        stored = models.TrialIntermediateValueModel.intermediate_value_to_stored_repr
        value, kind = stored(after.intermediate_values[step])
        rows.append({"step": step, "intermediate_value": value, "intermediate_value_type": kind})
    return rows


def _told(objective: int, value: float) -> dict[str, Any]:
    stored, kind = models.TrialValueModel.value_to_stored_repr(value)
    return {"objective": objective, "value": stored, "value_type": kind}
