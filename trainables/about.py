"""study.json of a study that begins: what is asked of what data, with what code on what machine; and the same
in a few lines for the terminal."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from datasets.shards import Index
from datasets.storage import shown
from searchspace import record
from searchspace.study import clock
from trainables import names
from trainables.registry import family
from trainables.request import EXTENSIBLE, Request

PROJECT = Path(__file__).resolve().parents[1]


def describe_study(
    study: Path, request: Request, index: Index, machines: dict[str, Any], planned: dict[str, Any]
) -> dict[str, Any]:
    """study.json: what was asked, of what, with what."""
    about = record.read(study) | record.provenance(PROJECT)
    objective, second = request.goals()
    about["hardware"] |= {"gpus": [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]}
    about |= {name: getattr(request, name) for name in ("family", "sampler", "pruner", "seed")}
    about |= request.budget()._asdict()
    return (
        about
        | planned
        | machines
        | {
            "request": about["request"] | {name: getattr(request, name) for name in EXTENSIBLE},
            "status": "running",
            "command": about.get("command", [shown(word) for word in sys.argv]),
            "objective": {"metric": objective, "mode": "max"},
            "second": second and {"metric": second.name, "mode": "max" if second.maximize else "min"},
            "limits": request.limits(),
            "spending": request.spending()._asdict(),
            "data": about_data(index),
            "published": [
                asdict(row)
                for name in request.families()
                for row in family(name).published
                if row.metric in names.METRICS
            ],
        }
    )


def about_data(index: Index) -> dict[str, Any]:
    return {
        "path": index.place,
        "seconds": index.samples / index.sample_rate,
        "scenes": list(index.labels.scenes),
        "events": list(index.labels.events),
        "clips": {name: split.clips for name, split in index.splits.items()},
        "hours": {name: split.hours for name, split in index.splits.items()},
    } | {name: getattr(index, name) for name in ("corpus", "checksum", "licence", "sample_rate", "channels")}


def print_plan(study: Path, about: dict[str, Any]) -> None:
    data, clips = about["data"], about["data"]["clips"]
    git = about["git"]
    code = f"commit {git['commit'][:10]}" if git["commit"] else f"code {git['code'][:10]}"
    print(f"study    {study}  (seed {about['seed']}, {code})")
    print(
        f"data     {data['corpus']}: {clips.get('train', 0)} training, {clips.get('val', 0)} validation "
        f"clips of {data['seconds']:g} s"
    )
    grows = f", may grow to {about['may_grow_to']}" if about["may_grow_to"] else ""
    print(f"machines {about['nodes']}{grows}; a trial takes {about['trial_takes']}")
    memory = about["memory"]
    print(
        f"memory   about {_size(memory['bytes'])} a worker in a training step ({memory['of']}); on a CPU its "
        f"process takes about {_size(memory['process'])}"
    )
    if about["request"]["events"] not in (None, "labels"):
        print(f"events   {about['request']['events']}: {len(data['events'])} event labels")
    if "table" in about:
        print_rows(about)
    else:
        print(
            f"search   {about['trials']} configurations x up to {about['epochs']} epochs, {about['sampler']} "
            f"+ {about['pruner']}, {about['concurrent']} at a time"
        )
        second, spending = about["second"], about["spending"]
        if second:
            first = about["objective"]["metric"]
            print(f"for      {first} (max) against {second['metric']} ({second['mode']})")
        if any(spending.values()):
            asked = [f"{spending['epochs']} epochs"] if spending["epochs"] else []
            asked += [clock(spending["seconds"])] if spending["seconds"] else []
            print(f"budget   {' and '.join(asked)} for the search")
        if about["confirm"]:
            print(confirmation(about))
    for line in about.get("notes", ()):
        print(f"note     {line}")
    if about["pins"]:
        print(
            "fixed    "
            + ", ".join(
                f"{k}={'|'.join(map(str, v)) if isinstance(v, tuple) else v}"
                for k, v in about["pins"].items()
            )
        )


def confirmation(about: dict[str, Any]) -> str:
    """What the race will cost, in a line."""
    seeds = about["seeds"]
    if about["request"].get("race") == "full":
        return f"confirm  the best {about['confirm']}, each over {seeds} fresh seeds and {seeds} tested ones"
    return (
        f"confirm  the best {about['confirm']} race over up to {seeds} fresh seeds each; the winner gets "
        f"{seeds} more, which are tested"
    )


def list_refused(study: Path, refused: Sequence[Mapping[str, Any]]) -> None:
    """refused.json: the configurations that were over a limit, each with the reason."""
    if refused:
        (study / "refused.json").write_text(json.dumps(list(refused), indent=1))
        print(f"refused  {len(refused)} configurations over a limit; each with its reason: refused.json")


def print_rows(about: dict[str, Any]) -> None:
    table = about["table"]
    running = [row["trial"] for row in table["rows"] if row["trial"] is not None]
    raced = about["request"].get("race") == "drop"
    print(
        f"table    {table['name']} of {table['paper']}: {len(running)} of {len(table['rows'])} rows are "
        f"{len(set(running))} configurations x {'up to ' * raced}{about['seeds']} seeds x "
        f"{about['epochs']} epochs, "
        f"{about['concurrent']} at a time"
    )
    left = [
        f"#{row['line']} {row['row']} ({row['corpus']}): {row['why']}" for row in table["rows"] if row["why"]
    ]
    for line in dict.fromkeys(left):
        print(f"not run  {line}")


def _size(of: float) -> str:
    return f"{of / 1e9:.1f} GB" if of >= 1e9 else f"{of / 1e6:.0f} MB"
