"""A model card: what a model is, what it was made from, how good it is, and what it is not for.

Written from the model's description (model.json) and the record of test reads alone, so that it can be
written again whenever either changes. Names of scenes, events, corpora and files are shown as code: whatever
is in them, they make no markup.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

SPLITS = {"val": "validation", "test": "test"}
SHOWN = (  # metrics in the card's table, in this order; the others are in model.json
    "scene_accuracy", "scene_accuracy_macro", "svm_accuracy", "event_map", "event_auc", "event_lwlrap",
    "frame_f_micro", "frame_f_macro", "segment_f_micro", "scene_f_macro",
)  # fmt: skip


def card(about: Mapping[str, Any], reads: Sequence[Mapping[str, Any]] = ()) -> str:
    """Markdown. What the description does not say is said to be unknown."""
    parts = [
        f"# {about['family']}: {len(about['scenes'])} scenes, {len(_events(about)) or 'no'} events",
        _use(about),
        "## How good it is\n\n" + _quality(about, reads),
        "## When it is unsure\n\n" + _unsure(about.get("calibration") or {}),
        "## What it was trained on\n\n" + _data(about),
        "## What it takes and gives\n\n" + _interface(about),
        "## Limits\n\n" + _limits(about),
        "## Where it comes from\n\n" + _provenance(about),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _use(about: Mapping[str, Any]) -> str:
    named = _events(about)
    events = " and which sound events are in it" if named else ""
    scenes = ", ".join(map(code, about["scenes"])) or "none"
    listed = ", ".join(map(code, named[:60]))
    more = f" and {len(named) - 60} more (model.json)" if len(named) > 60 else ""
    return (
        f"**Intended use.** It says of a sound recording in which scene it was made{events}, among these "
        f"and no "
        "others, for research and for sorting recordings like those it was trained on.\n\n"
        f"Scenes: {scenes}.\n\n" + (f"Events: {listed}{more}." if listed else "It tags no events.")
    )


def _events(about: Mapping[str, Any]) -> Sequence[str]:
    """Those it answers: none where its shards have events, but the model has no event branch."""
    return about["events"] if about.get("event_outputs", True) else ()


def _quality(about: Mapping[str, Any], reads: Sequence[Mapping[str, Any]]) -> str:
    metrics, intervals = about.get("metrics", {}), about.get("intervals", {})
    lines = [
        "| metric | split | this model | 95 % interval | its configuration over seeds |",
        "|---|---|---|---|---|",
    ]
    for split, said in SPLITS.items():
        for name in SHOWN:
            value = metrics.get(f"{split}/{name}")
            if value is None:
                continue
            low, high = intervals.get(f"{split}/{name}") or (None, None)
            seeds = _over_seeds((about.get("seeds") or {}).get(f"{split}/{name}"))
            lines.append(f"| {name} | {said} | {_number(value)} | {_range(low, high)} | {seeds} |")
    if len(lines) == 2:
        lines = ["Nothing was measured."]
    how = f"Intervals are of the choice of clips ({about['interval_method']})." if intervals else ""
    chosen = (
        "The configuration and its seed were chosen by validation, so validation figures are a little too "
        "good; "
        "test figures had no say in it."
    )
    return "\n\n".join(["\n".join(lines), " ".join(filter(None, (how, chosen))), _reads(about, reads)])


def _over_seeds(found: Mapping[str, Any] | None) -> str:
    if not found:
        return "–"
    if found["n"] < 2:
        return f"{_number(found['mean'])} (n = 1)"
    interval = _range(found["low"], found["high"])
    return f"{_number(found['mean'])} ± {_number(found['sd'])} (n = {found['n']}; mean {interval})"


def _reads(about: Mapping[str, Any], reads: Sequence[Mapping[str, Any]]) -> str:
    by_run = any(name.startswith("test/") for name in about.get("metrics", {}))
    first = (
        "The test split was read once by the training run itself"
        if by_run
        else "Its training run did not read the test split"
    )
    if not reads:
        return f"{first}, and never with this model since."
    lines = [
        f"- {read.get('time', 'unknown time')}: {code(read.get('command', ''))} on data "
        f"{str(read.get('data', ''))[:12]}"
        for read in reads
    ]
    return "\n".join([f"{first}. Since then, with this model:", "", *lines])


def _unsure(found: Mapping[str, Any]) -> str:
    if "temperature" not in found:
        return f"Not calibrated: {found.get('absent', 'it was exported without its validation clips')}."
    if found["threshold"] is None:
        return (
            f"No threshold on its probability halves its errors on {found['clips']} validation clips: "
            f"every answer "
            f"is marked unsure. Temperature {found['temperature']:.3g}. {found['method']}."
        )
    return (
        f"An answer whose probability is below {found['threshold']:.2f} is marked unsure. On "
        f"{found['clips']} "
        f"validation clips {100 * found['coverage']:.0f} % were answered surely, of these "
        f"{_percent(found['sure_accuracy'])} rightly (95 % interval {_percent(found['sure_low'])} to "
        f"{_percent(found['sure_high'])}), of the others {_percent(found['unsure_accuracy'])}; of all "
        f"{_percent(found['accuracy'])}. Logits are divided by {found['temperature']:.3g}; the calibration "
        f"error "
        f"goes from {found['error_before']:.3f} to {found['error_after']:.3f}. Method: {found['method']}."
    )


def _data(about: Mapping[str, Any]) -> str:
    data = about.get("data", {})
    lines = [
        f"- Corpus {code(data.get('corpus', 'unknown'))}, checksum {code(data.get('checksum', 'unknown'))}",
        f"- Licence of the data: {code(data.get('licence') or 'unknown')}",
    ]
    if data.get("citation"):
        lines.append(f"- To cite: {code(data['citation'])}")
    if data.get("clips"):
        lines.append("- Clips: " + ", ".join(f"{split} {count}" for split, count in data["clips"].items()))
    lines.append(f"- Event labels: {code(about.get('event_labels') or 'unknown')}")
    if about.get("mix"):
        lines.append("- Mixed in: " + ", ".join(map(code, about["mix"])))
    if about.get("tags") and about.get("reads_tags", True):
        lines.append(
            f"- It reads {len(about['tags']['names'])} tags of {code(about['tags']['model'])}, SHA-256 "
            f"{code(about['tags']['checksum'])}"
        )
    return "\n".join(lines)


def _interface(about: Mapping[str, Any]) -> str:
    audio = about["audio"]
    seconds = audio["samples"] / audio["sample_rate"]
    teacher = " --teacher TAGGER" if about.get("tags") and about.get("reads_tags", True) else ""
    return (
        f"Waveform (batch, {audio['channels']}, {audio['samples']}) in [-1, 1]: {seconds:g} s at "
        f"{audio['sample_rate']} Hz. The front end, normalisation included, is part of the model: "
        f"{code(about.get('front_end') or about.get('features') or 'unknown')}. "
        f"{code(f'python -m trainables.predict MODEL FILE{teacher}')} takes any length, rate and number of "
        "channels."
    )


def _limits(about: Mapping[str, Any]) -> str:
    audio = about["audio"]
    return "\n".join(
        (
            "- It knows the scenes above only, and names one of them whatever it hears. Unsure answers are "
            "marked, but a sound "
            "unlike all of its training data may still be answered surely.",
            "- Other places, devices, codecs and levels than in its training data are not measured here.",
            f"- It was trained on clips of up to {audio['samples'] / audio['sample_rate']:g} s; shorter "
            f"recordings are "
            "followed by silence, longer ones are cut into windows whose answers are averaged.",
            "- Not for decisions about people, nor where a wrong answer does harm. Recordings of people "
            "may be "
            "personal data.",
            "- Its licence follows from that of the data and of any pretrained weights; nothing here "
            "grants one.",
        )
    )


def _provenance(about: Mapping[str, Any]) -> str:
    run, made = about.get("run", {}), about.get("provenance", {})
    dirty = " with uncommitted changes" if made.get("dirty") else ""
    tree = f", code {code(made['code'])}" if made.get("code") else ""
    lines = [
        f"- Run {code(run.get('folder', 'unknown'))}, seed {run.get('seed', 'unknown')}, "
        f"{run.get('epochs', 'unknown')} epochs",
        f"- Code: commit {code(made.get('commit') or 'unknown')}{dirty}{tree}",
    ]
    if made.get("command"):
        lines.append(f"- Command: {code(' '.join(made['command']))}")
    if made.get("packages"):
        lines.append("- With " + ", ".join(f"{name} {version}" for name, version in made["packages"].items()))
    if made.get("pretrained"):
        lines.append(f"- Started from {code(made['pretrained'])}")
    if made.get("exported"):
        lines.append(f"- Exported {made['exported']}")
    knobs = ", ".join(f"{name}={value}" for name, value in about["values"].items() if value is not None)
    return "\n".join([*lines, f"- Knobs: {code(knobs)}"])


def code(text: object) -> str:
    """As inline code: one line, without backticks, and so without any markup."""
    plain = "".join(c if c.isprintable() else " " for c in str(text)).replace("`", "'").strip()
    return f"`{plain}`" if plain else "–"


def _number(value: Any) -> str:
    return "–" if value is None or not math.isfinite(value) else f"{value:.4f}"


def _percent(value: Any) -> str:
    return "–" if value is None or not math.isfinite(value) else f"{100 * value:.1f} %"


def _range(low: Any, high: Any) -> str:
    return "–" if "–" in (_number(low), _number(high)) else f"{_number(low)} to {_number(high)}"
