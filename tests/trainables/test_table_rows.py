"""Every row of the paper that can be trained is: built at full size without memory, trained small, and run
through a table's ledger without Ray."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from datasets.batch import Batch
from datasets.labels import LabelSpace
from searchspace import tables
from searchspace.methods import PRUNERS
from searchspace.papers.hou2023 import ROWS
from searchspace.study import Ledger, open_storage, sqlite_url
from trainables.contract import AudioFormat
from trainables.losses import total
from trainables.recipe import complete, configure
from trainables.registry import family
from trainables.trial import Place, advance, open_run

TABLES = [name for name in tables.names(ROWS) if name != "V"]
LABELS = LabelSpace(("bus", "park", "tram"), ("speech", "bird", "car", "dog"))
STEREO = AudioFormat(44100, 2, 441000)
SHORT = AudioFormat(8000, 2, 16000)
# Small and within every row: what a row says of itself stays as it is.
SMALL = {"width": 0.06, "n_mels": 64}


def here(corpus: str, audio: AudioFormat, labels: LabelSpace = LABELS) -> tables.Here:
    def every_knob(values: Mapping[str, Any], events: str) -> dict[str, Any]:
        return complete("csem", values, labels=labels, audio=audio)

    return tables.Here(corpus, True, 527, None, 100, None, every_knob)


@pytest.mark.parametrize("name", TABLES)
def test_every_row_is_a_training_of_published_size_on_its_own_corpus(name: str) -> None:
    rows = tables.rows_of(ROWS, name)
    for corpus in {row.corpus for row in rows} - {"none"}:
        made = tables.plan(rows, {}, here(corpus, STEREO))
        for row in made.rows:
            printed = row.published
            expected = printed.needs or ("" if printed.corpus == corpus else f"needs {printed.corpus} shards")
            assert row.why == expected, printed.row
            assert row.trial is not None or row.why
            kinds = (
                "not pretrained",
                "other network",
                "other prior",
                "mixup's α",
                "its estimator",
                "a reading of",
                "reduced epochs (100, theirs 200",
                "accuracy of the pseudo labels",
            )
            assert all(reason.startswith(kinds) for reason in row.unlike), row.unlike
        for one in made.configurations:
            assert complete("csem", one.values, labels=LABELS, audio=STEREO) == one.values


@functools.cache
def configurations() -> dict[str, list[dict[str, Any]]]:
    """By table, the small configurations that no table before has."""
    seen: list[dict[str, Any]] = []
    found: dict[str, list[dict[str, Any]]] = {}
    for name in TABLES:
        made = tables.plan(tables.rows_of(ROWS, name), SMALL, here("elsewhere", SHORT))
        found[name] = [dict(one.values) for one in made.configurations if one.values not in seen]
        seen += found[name]
        assert sum(row.trial is None for row in made.rows) == sum(
            bool(row.published.needs) for row in made.rows
        )
    return found


@pytest.mark.parametrize("name", TABLES)
def test_every_row_learns_something_in_small(name: str) -> None:
    draw = torch.Generator().manual_seed(0)
    events = (torch.rand(2, 4, generator=draw) < 0.5).float()
    batch = Batch(
        0.1 * torch.randn(2, 2, 16000, generator=draw), torch.eye(3)[[0, 1]], events, torch.ones(2, 4),
        torch.arange(2), torch.zeros(2, 0),
    )  # fmt: skip
    for values in configurations()[name]:
        config, _ = configure("csem", values)
        torch.manual_seed(0)
        model = family("csem").build(config, LABELS, SHORT).train()
        terms, weights = family("csem").terms(config), family("csem").weights(config)
        output = model(batch.waveform)
        loss = total({term: function(output, batch) for term, function in terms.items()}, weights)
        assert torch.isfinite(loss)
        loss.backward()
        assert any(p.grad is not None and p.grad.abs().sum() > 0 for p in model.parameters())


def test_a_table_runs_without_ray_as_with_it(shards: Path, cache: Path, tmp_path: Path) -> None:
    """Table II's TinyCNN of both frameworks, two seeds of one epoch; its rows are printed for test."""
    from datasets.source import open_source

    index = open_source(shards, cache=cache).index
    audio = AudioFormat(index.sample_rate, index.channels, index.samples)
    pins = {"backbone": "tinycnn", "width": 0.25}
    made = tables.plan(tables.rows_of(ROWS, "II", "1,2"), pins, here(index.corpus, audio, index.labels))
    assert [row.published.line for row in made.rows if row.trial is not None] == [1, 2]
    ledger = Ledger(open_storage(sqlite_url(tmp_path / "s.db")), tables.PHASE, pruner=PRUNERS["none"])
    jobs = tables.jobs(made.configurations, seeds=2, study_seed=0, epochs=1)
    ledger.plan(jobs)
    ledger.plan(jobs)  # resumed: nothing is planned twice
    place = Place("csem", str(shards), str(tmp_path), "val/scene_accuracy", str(cache))
    while job := ledger.next_job():
        result = advance(open_run(job, place), job)
        ledger.report(job, 1, result["val/scene_accuracy"])
        ledger.finish(job, "COMPLETE", "", {"metrics": {k: v for k, v in result.items() if "/" in k}})
    rows = ledger.rows()
    assert [(row["trial"], row["repeat"]) for row in rows] == [(0, 1), (1, 1), (0, 2), (1, 2)]
    assert all(0 <= row["test/scene_accuracy_macro"] <= 1 for row in rows)
    assert [row["seed"] for row in rows][::2] == [row["seed"] for row in rows][1::2]


@pytest.mark.parametrize("backbone", ["pann", "cnnt", "tinycnn", "ast"])
def test_the_embedding_is_as_wide_as_asked_and_printed(backbone: str) -> None:
    printed = {"pann": 2048, "cnnt": 512, "tinycnn": 100, "ast": 2048}[backbone]
    for asked, width, expected in ((None, 1.0, printed), (512, 1.0, 512), (512, 0.25, 128)):
        config, _ = configure("csem", {"backbone": backbone, "embedding": asked, "width": width})
        with torch.device("meta"):
            model: Any = family("csem").build(config, LABELS, STEREO)
        assert model.scene_classifier.in_features == model.event_classifier.in_features == expected
    named = {row.values.get("embedding", printed) for row in ROWS if row.values.get("backbone") == backbone}
    assert named == {printed}
