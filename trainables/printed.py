"""What a paper's table needs to know of the models: which of its rows can be built, and what its trained ones
say."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch

from datasets.events import parse_events, with_events
from datasets.frames import untimed
from datasets.source import Source
from searchspace.study import run_folder
from searchspace.tables import Here, Plan, shares_sites
from trainables.analyse import BATCH, analyse
from trainables.contract import AudioFormat
from trainables.names import FRAME_F, OF_SCENES, TIMED, measured
from trainables.recipe import complete


def here(source: Source, family: str, events: str | None, epochs: int) -> Here:
    """What these shards offer the rows of a table; `events` is the source of event labels asked for by
    name."""
    index = source.index
    audio = AudioFormat(index.sample_rate, index.channels, index.samples)

    def every_knob(values: Mapping[str, Any], source: str) -> dict[str, Any]:
        labels = with_events(index, parse_events(source)).labels
        return complete(family, values, labels=labels, audio=audio)

    splits = [index.splits[name].entries() if name in index.splits else () for name in ("train", "val")]
    return Here(
        corpus=index.corpus,
        events=bool(index.labels.events),
        tags=len(index.tags.names) if index.tags else 0,
        asked_events=events,
        epochs=epochs,
        random_validation=shares_sites(*([clip.key for _, clip in split] for split in splits)),
        complete=every_knob,
        unmeasured=partial(_unmeasured, source),
    )


def _unmeasured(source: Source, metric: str, split: str) -> str:
    event = metric.removeprefix(FRAME_F)
    if metric.startswith(FRAME_F) and event not in source.index.labels.events:
        return f"needs the event {event!r}, which these shards do not have"
    if metric in OF_SCENES and not source.index.labels.scenes:
        return "needs scenes, which these shards do not have"
    if metric.startswith(TIMED) and (why := untimed(source, "val" if split == "validation" else split)):
        return why
    return ""


def analyse_rows(study: Path, made: Plan, opened: Callable[[str], Source]) -> None:
    """What no training measures but a table prints (Table X of Hou et al.): an analysis of every such row's
    first model on the split it is printed for. One that fails is a line, the study is finished all the same.

    `opened` gives the clips with a source of event labels.
    """
    printed = [row for row in made.rows if row.trial is not None and not measured(row.published.metric)]
    for trial, split in sorted({(row.trial or 0, row.published.split) for row in printed}):
        folder = study / run_folder(trial, 1)
        if (folder / "analysis" / f"{split}.json").is_file():
            continue
        source = opened(made.configurations[trial].events)
        device = "cuda" if torch.cuda.is_available() else "cpu"
        try:
            analyse(folder, source.index, split, source.eval_batches(split, BATCH, device=device))
        except (ValueError, OSError, RuntimeError) as error:
            print(f"warning: {folder} could not be analysed: {error}")
