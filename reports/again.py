"""How to train the winner again: its seeds, and the command that gives the same numbers; how to ask it."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from reports import cost, units
from reports.collect import Study
from reports.rank import Ranking, foreign, search_table


class Again(NamedTuple):
    """What it takes to train the best again: of the confirmed, or of the search while there are none."""

    trial: int
    confirmed: bool
    config: Mapping[str, Any]
    parameters: float
    seeds: tuple[int, ...]


def best_again(study: Study, result: Ranking) -> Again | None:
    """The ranking's winner with the seeds of its confirmation runs, else the best search run, else None."""
    if result.best is not None:
        best = result.best
        return Again(best.trial, True, best.config, best.parameters, winner_seeds(study, best.trial))
    for row in search_table(study.runs, epochs=study.epochs, mode=study.mode):
        runs = study.runs[(study.runs["trial"] == row.trial) & (study.runs["phase"] == "search")]
        return Again(row.trial, False, row.config, row.parameters, tuple(int(seed) for seed in runs["seed"]))
    return None


def winner_seeds(study: Study, trial: int) -> tuple[int, ...]:
    """The seeds of a configuration's finished full-length confirmation runs: those scored on test first, else
    in the order of its repeats."""
    runs = study.runs
    mine = runs[(runs["trial"] == trial) & (runs["phase"] == "confirm") & (runs["state"] == "COMPLETE")]
    mine = mine[mine["epochs"] >= study.epochs]
    untested = mine[study.test_metric].isna() if study.test_metric in mine else mine["seed"] < 0
    ordered = mine.assign(_untested=untested).sort_values(["_untested", "repeat"])
    return tuple(int(seed) for seed in ordered["seed"])


def train_command(study: Study, config: Mapping[str, Any], seed: int | None, out: str = "") -> str:
    """The shell command that trains a configuration again, every word quoted, in lines of a page; `out`: the
    folder to keep the run in, its test score with it."""
    known = {name: v for name, v in config.items() if name != "family" and not foreign(config, name)}
    settings = [f"{name}={text}" for name, value in known.items() if (text := units.knob(value))]
    asked = study.record.get("request") or {}
    events, threads = str(asked.get("events") or "labels"), int(asked.get("cpus_per_trial") or 1)
    options = [
        ["python", "-m", "trainables.train", str(config.get("family") or study.record["family"])],
        ["--data", str(study.record["data"].get("path", "SHARDS"))],
        *(["--mix", str(mixed)] for mixed in asked.get("mix") or ()),
        *([["--events", events]] if events != "labels" else []),
        ["--epochs", str(study.epochs)],
        *([["--seed", str(seed)]] if seed is not None else []),
        *([["--threads", str(threads)]] if threads != 1 else []),  # sums depend on how they are shared out
        *([["--test", "--out", out]] if out else []),
        *([["--set", *settings]] if settings else []),
    ]
    lines: list[str] = []
    for number, words in enumerate(options):
        lines += _folded_words(words, indent=4 if number else 0)
    return " \\\n".join(lines)


def exactness(study: Study) -> tuple[str, str]:
    """(whether the winner can be trained again, for the top of the page; how exactly, for below the
    command)."""
    held = cost.reserved(study)
    workers = int((study.record.get("request") or {}).get("workers_per_trial") or 1)
    if held.gpus or workers > 1:
        why = "a GPU" if held.gpus else f"{workers} workers"
        top = f"Yes, but for rounding: the command under Best configuration trains it again; on {why} sums "
        top += "are added in another order each time."
        below = "With the same versions this gives the same numbers up to rounding, which grows over epochs"
    else:
        top = "Yes: the command under Best configuration trains it again to the same numbers."
        below = (
            "On a CPU of the same kind, with the same versions, this gives the same numbers to the last digit"
        )
    if (study.record.get("git") or {}).get("dirty"):
        top += " The code had uncommitted changes, which the commit below does not hold."
    return top, f"{below}, in epochs.jsonl and test.json of that folder."


def predict_command(best: Path) -> str:
    """The shell command that asks the model in `best`, beside the report, about a recording; with the tagger
    of a model that reads tags."""
    words = ["python", "-m", "trainables.predict", best.name]
    if tagger := tagger_of(best):
        words += ["--teacher", tagger]
    return f"{shlex.join(words)} RECORDING …"


def tagger_of(best: Path) -> str:
    """The name of the tagger whose tags the model in `best` reads; "" for one that reads none."""
    try:
        about = json.loads((best / "model.json").read_text(encoding="utf-8"))
        return str(about["tags"]["model"]) if about.get("reads_tags") else ""
    except (OSError, ValueError, KeyError, TypeError):
        return ""


def _folded_words(words: list[str], indent: int, width: int = 76) -> list[str]:
    lines = [" " * indent]
    for word in map(shlex.quote, words):
        if len(lines[-1]) + len(word) > width and lines[-1].strip():
            lines.append(" " * (indent + 4))
        lines[-1] += ("" if lines[-1].isspace() or not lines[-1] else " ") + word
    return lines
