"""The space of a search: one family's, or several side by side."""

from __future__ import annotations

import functools
import itertools
import json
from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction
from typing import Any

from datasets.events import parse_events, with_events
from datasets.shards import Index
from searchspace.families import (
    complete_across,
    prefixed,
    rows_across,
    split,
    suggest_across,
)
from searchspace.methods import PRUNERS, SAMPLERS, choose
from searchspace.proposals import Proposals
from searchspace.pruners import Asha, Promotion
from searchspace.published import Published
from trainables.contract import AudioFormat
from trainables.describe import describe
from trainables.goals import priced
from trainables.recipe import complete, knobs_of, parse_pins
from trainables.registry import family


def families_of(text: str) -> tuple[str, ...]:
    """The families of "csem" or "csem,bigru_mtl". Raises ValueError for an unknown one or one given twice."""
    found = tuple(text.split(","))
    for name in found:
        family(name)
    if len(set(found)) < len(found):
        raise ValueError(f"--family {text}: a family is given twice")
    return found


def frames_of(families: Sequence[str]) -> Fraction | None:
    """The hop, in s, of the frames that some of the families learn the events of."""
    return next((hop for name in families if (hop := family(name).frame_hop) is not None), None)


def pins_across(families: Sequence[str], settings: Mapping[str, str]) -> dict[str, Any]:
    """Values for knobs named on a command line; in a search of several families "csem.backbone" is csem's,
    and "lr" that of every family that has it. Raises ValueError for a knob no family has."""
    if len(families) == 1:
        return parse_pins(families[0], settings)
    pins: dict[str, Any] = {}
    meant: set[str] = set()
    for name in families:
        own = {knob: text for knob, text in settings.items() if knob in knobs_of(name)}
        start = prefixed(name, "")
        named = {knob for knob in settings if knob.startswith(start)}
        meant |= own.keys() | named
        own |= {knob.removeprefix(start): settings[knob] for knob in named}  # over what is for all families
        pins |= {prefixed(name, knob): pin for knob, pin in parse_pins(name, own).items()}
    for knob in settings:
        if knob not in meant:
            raise ValueError(
                f"--set {knob}: none of the families {', '.join(families)} has it; a family's knob is named "
                f"as in {families[0]}.lr"
            )
    return pins


def published_of(families: Sequence[str]) -> list[Published]:
    """The papers' rows, those of several families in turn."""
    rows = {name: family(name).published for name in families}
    if len(families) == 1:
        return list(rows[families[0]])
    starts = {name: [row for row in found if row.warm_start] for name, found in rows.items()}
    return rows_across(starts)


def proposals_of(
    families: Sequence[str],
    index: Index,
    *,
    sampler: str,
    pins: Mapping[str, Any],
    trials: int,
    epochs: int,
    seed: int,
    limits: Mapping[str, float],
    strength: float,
    reseed: bool,
) -> Proposals:
    labels, audio = index.labels, format_of(index)
    suggests = {name: functools.partial(_suggest, name, labels) for name in families}
    completes = {name: functools.partial(complete, name, labels=labels, audio=audio) for name in families}
    one = families[0] if len(families) == 1 else ""

    return Proposals(
        suggest=suggests[one] if one else suggest_across(suggests),
        complete=completes[one] if one else complete_across(completes),
        sampler=choose("sampler", sampler, SAMPLERS),
        pins=pins,
        trials=trials,
        epochs=epochs,
        seed=seed,
        predict=predictor(one, index),
        limits=limits,
        published=published_of(families),
        strength=strength,
        reseed=reseed,
    )


def format_of(index: Index) -> AudioFormat:
    return AudioFormat(index.sample_rate, index.channels, index.samples)


def predictor(
    family_name: str, index: Index, events: str = "labels"
) -> Callable[[Mapping[str, Any]], dict[str, float]]:
    """What a configuration on these clips with these `events` needs, each asked for once. `family_name` is
    that of configurations that do not name their own."""
    labels = with_events(index, parse_events(events)).labels

    @functools.lru_cache(maxsize=64)
    def price(text: str) -> dict[str, float]:
        name, knobs = split(json.loads(text), family_name)
        return priced(describe(name, knobs, labels, format_of(index)))

    return lambda values: price(json.dumps(dict(values)))


def _suggest(name: str, labels: Any, trial: Any) -> dict[str, Any]:
    return family(name).suggest(trial, labels)


def notes_of(proposals: Proposals, sampler: str, pruner: str, *, objectives: int) -> list[str]:
    """What a reader of the plan should know of the sampler and the limits in this space. Raises ValueError
    for a space the sampler can't search."""
    method = SAMPLERS[sampler]
    try:
        said = method.notes(proposals.searchable, objectives, pruner != "none")
        points = len(proposals.searchable.points()) if sampler == "grid" else 0
    except ValueError as error:
        raise ValueError(f"--sampler {sampler}: {error}") from None
    lines = [f"{sampler}: {line}" for line in said]
    if points:
        lines.append(f"grid: {points:,} points, in shuffled order")
    if proposals.strength and method.learns:
        lines.append(
            f"prior: proposals near published rows, {proposals.strength:.0%} at first, half as many after "
            "every 10 trials"
        )
    rule, epochs = PRUNERS[pruner], proposals.epochs
    if isinstance(rule, Asha | Promotion) and not rule.rungs(epochs):
        least = next(length for length in itertools.count(epochs) if rule.rungs(length))
        lines.append(f"{pruner}: {epochs} epochs hold no rung, no trial is stopped early; {least} hold one")
    if pruner == "pbt":
        lines.append("pbt: knobs change on the way; a finalist is confirmed with its last ones throughout")
    if proposals.limits:
        most = ", ".join(f"{name} {value:.3g}" for name, value in proposals.limits.items())
        lines.append(f"limits: {most}; configurations that need more are not run")
    return lines
