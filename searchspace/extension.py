"""A running study whose space has become wider.

The database refuses other choices for a dimension it has trials of. So the trials are written again, under
the same numbers and with all that is known of them, into a study of the database that has the wider space;
the old one stays as it was and points to it.
"""

from __future__ import annotations

import json

import optuna
from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial

from searchspace.proposals import Proposals

NEXT, SPACE = "extended to", "space"  # attributes of a study


def current(storage: BaseStorage, name: str, proposals: Proposals | None) -> str:
    """The study of the database that goes on with the search `name` (which exists) in the space of
    `proposals`; made now if it is a wider one."""
    study = optuna.load_study(study_name=_chain(storage, name)[-1], storage=storage)
    if proposals is None:
        return study.study_name
    space = json.dumps(proposals.searched(), sort_keys=True)
    known = study.user_attrs.get(SPACE)
    if known == space:
        return study.study_name
    if known is None or not study.get_trials(deepcopy=False):
        study.set_user_attr(SPACE, space)
        return study.study_name
    return _extend(storage, study, name, proposals, space)


def _extend(storage: BaseStorage, old: optuna.Study, name: str, proposals: Proposals, space: str) -> str:
    names = optuna.get_all_study_names(storage)
    wider = f"{name}, extended {len(_chain(storage, name)) + 1}"
    if wider in names:  # an earlier attempt was cut off before the old study pointed to it
        optuna.delete_study(study_name=wider, storage=storage)
    made = optuna.create_study(storage=storage, study_name=wider, directions=old.directions)
    study_id = storage.get_study_id_from_name(wider)
    for trial in old.get_trials(deepcopy=False):
        storage.create_new_trial(study_id, template_trial=_again(trial, proposals))
    for key, value in old.user_attrs.items():
        made.set_user_attr(key, value)
    made.set_user_attr(SPACE, space)
    old.set_user_attr(NEXT, wider)  # last: until then the old study goes on
    return wider


def _chain(storage: BaseStorage, name: str) -> list[str]:
    found = [name]
    while (
        after := optuna.load_study(study_name=found[-1], storage=storage).user_attrs.get(NEXT)
    ) is not None:
        found.append(after)
    return found


def _again(trial: FrozenTrial, proposals: Proposals) -> FrozenTrial:
    """The trial in the dimensions of the wider space; without any where it does not fit, so that it is kept
    but teaches the sampler nothing."""
    values = trial.user_attrs.get("values", trial.user_attrs.get("proposed"))
    try:
        placed = proposals.placed(values) if values else None
    except (KeyError, ValueError):
        placed = None
    fits = placed if placed and placed.outside() is None else None
    return FrozenTrial(
        number=trial.number,
        state=trial.state,
        value=None,
        values=trial.values,
        datetime_start=trial.datetime_start,
        datetime_complete=trial.datetime_complete,
        params=fits.params if fits else {},
        distributions=fits.distributions if fits else {},
        user_attrs=trial.user_attrs,
        system_attrs=trial.system_attrs,
        intermediate_values=trial.intermediate_values,
        trial_id=-1,
    )
