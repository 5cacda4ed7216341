"""What an earlier study found out, as knowledge of a new one's sampler."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import optuna
from optuna.trial import FrozenTrial, TrialState

from searchspace import extension, record
from searchspace.families import FAMILY, split
from searchspace.proposals import Proposals
from searchspace.study import open_storage, sqlite_url


def warm_started(
    folder: Path,
    study: optuna.Study,
    proposals: Proposals,
    about: Mapping[str, Any],
    families: tuple[str, ...],
) -> str:
    """Let the sampler of `study` know what the study in `folder` found out; what came of that, in a line.
    Raises ValueError as `known_trials`."""
    database = record.read(folder)["request"].get("database")
    storage = open_storage(database or sqlite_url(folder / "study.db"))
    inside, outside = learn(study, proposals, known_trials(folder, storage, about, families))
    left = f"; {outside} lie outside this study's space" if outside else ""
    return f"{inside} trials of {folder} are known to the sampler{left}"


class Known(NamedTuple):
    """A finished trial of another study: where from, its configuration and its trial there."""

    origin: str
    values: dict[str, Any]
    trial: FrozenTrial


def known_trials(
    folder: Path, storage: optuna.storages.BaseStorage, about: Mapping[str, Any], families: tuple[str, ...]
) -> list[Known]:
    """The finished search trials of the study in `folder`, their configurations as a search of `families` has
    them. Raises ValueError unless it had the objectives and the data of the study `about`."""
    theirs = record.read(folder)
    for what, ours_, theirs_ in (
        ("objective", about["objective"], theirs.get("objective")),
        ("second objective", about.get("second"), theirs.get("second")),
        ("data", about["data"]["checksum"][:12], theirs.get("data", {}).get("checksum", "")[:12]),
    ):
        if ours_ != theirs_:
            raise ValueError(
                f"--warm-start {folder}: its {what} is {theirs_}, this study's is {ours_}; what it measured "
                "says nothing here"
            )
    name = f"{theirs['id']} search" if theirs["request"].get("database") else "search"
    try:
        latest = extension.current(storage, name, None)
        trials = optuna.load_study(study_name=latest, storage=storage).get_trials(deepcopy=False)
    except KeyError:
        raise ValueError(f"--warm-start {folder}: nothing was searched there") from None
    found = []
    for one in trials:
        if one.state not in (TrialState.COMPLETE, TrialState.PRUNED) or "values" not in one.user_attrs:
            continue
        family, knobs = split(one.user_attrs["values"], theirs["family"])
        if family in families and one.user_attrs.get("outcome") != "DIVERGED":
            values = knobs if len(families) == 1 else {FAMILY: family} | knobs
            found.append(Known(f"warm start: {theirs['name']}, trial {one.number}", values, one))
    return found


def learn(study: optuna.Study, proposals: Proposals, known: Iterable[Known]) -> tuple[int, int]:
    """Let the study's sampler know trials of another one, each once. They are no trials of this study: its
    tables and its ranking do not have them.

    One that ended at another length than this study's trials is told as one that was stopped there. Returns
    how many lie in this study's space, and how many do not.
    """
    there = {t.user_attrs.get("warm_start") for t in study.get_trials(deepcopy=False)}
    inside = outside = 0
    for one in known:
        made = _as_trial(proposals, one)
        inside, outside = inside + (made is not None), outside + (made is None)
        if made is not None and one.origin not in there:
            study.add_trial(made)
    return inside, outside


def _as_trial(proposals: Proposals, known: Known) -> FrozenTrial | None:
    """The trial in the dimensions of this study's space; None if it lies outside."""
    try:
        placed = proposals.placed(known.values)
        if placed.outside() or proposals.propose(placed) != known.values:
            return None
    except (KeyError, ValueError):
        return None
    complete = known.trial.state == TrialState.COMPLETE and (
        known.trial.user_attrs["epochs"] == proposals.epochs
    )
    return optuna.trial.create_trial(
        state=TrialState.COMPLETE if complete else TrialState.PRUNED,
        values=known.trial.values if complete else None,
        params=placed.params,
        distributions=placed.distributions,
        intermediate_values=known.trial.intermediate_values,
        user_attrs={"warm_start": known.origin, "origin": known.origin},
        constraints=proposals.within(known.values),
    )
