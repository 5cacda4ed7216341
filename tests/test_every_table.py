"""Every table of every paper by its own command, in miniature: `tune_csem.py --table` in this process, all
tables on one Ray cluster. A row or two of each are trained; all rows are planned."""

from __future__ import annotations

import io
import json
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile
from ray.cluster_utils import Cluster

import reports
import tune_csem
from datasets import synthetic
from datasets.labels import LabelSpace
from datasets.mix import open_sources
from datasets.shard_writer import Sample, write_split
from datasets.shards import ClipLabels, Index, Tags, make_index
from datasets.tagged import tagged_index, write_tagged
from searchspace import tables
from trainables.printed import here
from trainables.recipe import parse_pins
from trainables.registry import FAMILIES, family
from trainables.space import frames_of

RATE, SECONDS = 8000, 3.4
CLIPS = {"train": 12, "val": 10, "test": 10}
TAGS = tuple(f"tag {k}" for k in range(30))
# So that Table 4 of Imoto et al. finds events of its own.
NAMES = {"bird": "bird singing", "typing": "keyboard typing", "horn": "car"}
# What makes the rows small; none is a knob that a row fixes.
SMALL = {
    "csem": {"width": "0.05"},
    "ergl": {"width": "0.05"},
    "tagvector": {"width": "0.06"},
    "bigru_mtl": {"width": "0.06", "batch_size": "4"},
    "resnet_aet": {"width": "0.06"},
    "tagger": {"width": "0.06"},
}
TOGETHER = ("bigru_mtl", "3,4")
EVERY = [
    *((name, table) for name in FAMILIES for table in tables.names(family(name).published)),
    TOGETHER,  # runs the rows of 3 and of 4
]
# No row of these is one training on one shard set.
NOT_RUN = [("csem", "V"), ("resnet_aet", "fig3a"), ("resnet_aet", "fig3b"), ("resnet_aet", "fig4")]
IN_TOGETHER = [("bigru_mtl", "3"), ("bigru_mtl", "4")]
RUN_ALSO = {("csem", "XI"): 4}  # RGASC: its prior is counted on the training labels
WITH_PAGE = {("csem", "XII"), ("ergl", "MEL"), ("tagvector", "6"), TOGETHER, ("resnet_aet", "fig5")}
REASONS = (
    "needs ", "can't be built here: ", "another ", "an event set for every point", "a count", "its teacher",
    "nothing is trained for it", "a model of another family", "an ensemble ",
)  # fmt: skip


@pytest.fixture(scope="module")
def stereo(tmp_path_factory: pytest.TempPathFactory) -> Index:
    """Generated scenes with timed events on two channels, tagged at random."""
    root = tmp_path_factory.mktemp("stereo")
    plain, tagged, draw = root / "plain", root / "tagged", np.random.default_rng(0)
    plain.mkdir()
    tagged.mkdir()
    splits = {
        name: write_split(plain, name, _clips(name, count), RATE, 2**24) for name, count in CLIPS.items()
    }
    index = make_index(
        plain, splits, corpus="generated", sample_rate=RATE, channels=2, sample_type="int16", licence="",
        citation="", labels=LabelSpace(synthetic.SCENES, tuple(NAMES.get(e, e) for e in synthetic.EVENTS)),
    )  # fmt: skip
    index.save()
    taught = {}
    for name, split in index.splits.items():
        drawn = [draw.random((len(shard.clips), len(TAGS))).astype(np.float16) for shard in split.shards]
        shards = [write_tagged(index, *one, tagged) for one in zip(split.shards, drawn)]
        taught[name] = replace(split, shards=tuple(shards))
    tagged_index(index, taught, Tags(TAGS, "no tagger", "a" * 64), tagged).save()
    return Index.load(tagged)


def _clips(split: str, count: int) -> Iterator[Sample]:
    for recipe in synthetic.recipes(split, count, 7):
        sound, labels = synthetic.render(recipe, SECONDS, RATE)
        file = io.BytesIO()
        soundfile.write(file, np.stack([sound, 0.5 * np.roll(sound, 9)], 1), RATE, "PCM_16", format="FLAC")
        yield Sample(recipe.key, file.getvalue(), "flac", len(sound), _renamed(labels))


def _renamed(labels: ClipLabels) -> ClipLabels:
    strong = tuple((on, off, NAMES.get(name, name)) for on, off, name in labels.strong or ())
    return replace(labels, events=tuple(NAMES.get(e, e) for e in labels.events or ()), strong=strong)


@pytest.fixture(scope="module")
def cluster() -> Iterator[str]:
    """The address of a Ray cluster of one CPU, which all tables join. It keeps its files, and the address
    where other programs on this machine would look for one to join, in a folder of its own."""
    with pytest.MonkeyPatch.context() as patch, tempfile.TemporaryDirectory(prefix="ray") as folder:
        patch.setenv("RAY_TMPDIR", folder)
        made = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
        yield made.address
        made.shutdown()


def whole(name: str, table: str, index: Index) -> tables.Plan:
    """The plan of all rows of a table on these shards."""
    rows = tables.rows_of(family(name).published, table)
    source = open_sources(index.root, cache=None, frames=frames_of([name]))
    return tables.plan(rows, parse_pins(name, SMALL[name]), here(source, name, None, epochs=1))


def few(name: str, table: str, made: tables.Plan) -> list[int]:
    """The first and the last line that run, and the first with another source of event labels; the last
    alone where all are of the largest model."""
    running = [row.published for row in made.rows if row.trial is not None]
    if all(row.values.get("backbone") == "ast" for row in running):
        return [running[-1].line]
    other = [row.line for row in running if row.events != running[0].events][:1]
    also = [RUN_ALSO[name, table]] if (name, table) in RUN_ALSO else []
    return sorted({running[0].line, running[-1].line, *other, *also})


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.parametrize(("name", "table"), [one for one in EVERY if one not in (*NOT_RUN, *IN_TOGETHER)])
def test_a_table_of_a_paper_runs_by_its_command(
    name: str,
    table: str,
    stereo: Index,
    cluster: str,
    cache: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made = whole(name, table, stereo)
    for row in made.rows:
        assert row.trial is not None or row.why.startswith(REASONS), (row.published.row, row.why)
    lines, study = few(name, table, made), tmp_path / "study"
    monkeypatch.setenv("RAY_ADDRESS", cluster)
    monkeypatch.setenv("SCENETUNE_CACHE", str(cache))
    if (name, table) not in WITH_PAGE:  # a page takes seconds
        monkeypatch.setattr(reports, "build", lambda folder: folder / "report.html")
    asked = ["--family", name, "--table", table, "--rows", ",".join(map(str, lines)), "--data", stereo.place]
    budget = ["--seeds", "1", "--epochs", "1", "--study", str(study), "--no-dashboard", "--set"]
    small = [f"{knob}={value}" for knob, value in SMALL[name].items()]
    monkeypatch.setattr(sys, "argv", ["tune_csem.py", *asked, *budget, *small])
    assert tune_csem.main() == 0

    runs = pd.read_parquet(study / "trials.parquet")
    assert set(runs["state"]) == {"COMPLETE"}, runs[["origin", "state", "reason"]].to_string()
    kept = json.loads((study / "table.json").read_text())["rows"]
    assert sorted({row["line"] for row in kept}) == lines
    assert len(kept) == sum(row.published.line in lines for row in made.rows)
    for row in kept:
        measured = row["trial"] is not None
        assert row["ours"]["n"] == int(measured) and (row["verdict"] or row["why"]), row
        assert measured == (not row["why"])
    if (name, table) in WITH_PAGE:
        assert "Ours beside the paper" in (study / "report.html").read_text()


@pytest.mark.parametrize(("name", "table"), NOT_RUN)
def test_a_table_without_a_training_says_what_gives_its_rows(name: str, table: str, stereo: Index) -> None:
    with pytest.raises(ValueError, match="none of its .* rows can be run: .*python -m"):
        whole(name, table, stereo)
