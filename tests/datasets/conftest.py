"""Small corpora for the data tests: generated audio only."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
from sounds import tone

from datasets import synthetic
from datasets.shards import Index, Tags
from datasets.tagged import tagged_index, write_tagged


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Index:
    """43 training, 17 validation and 10 test clips of 0.25 s, training in several shards. Read only."""
    out = tmp_path_factory.mktemp("tiny") / "shards"
    index = synthetic.build(out, train=43, val=17, test=10, seconds=0.25, sample_rate=8000, shard_bytes=25000)
    assert len(index.splits["train"].shards) > 3
    return index


@pytest.fixture(scope="session")
def tagged(tiny: Index, tmp_path_factory: pytest.TempPathFactory) -> Index:
    """The tiny corpus with 5 tags a clip: drawn, in steps of 1/64 so that float16 holds them. Read only."""
    root = tmp_path_factory.mktemp("tagged")
    rng = np.random.default_rng(5)
    splits = {}
    for name, split in tiny.splits.items():
        shards = []
        for shard in split.shards:
            tags = rng.integers(0, 65, (len(shard.clips), 5)) / 64
            shards.append(write_tagged(tiny, shard, tags.astype(np.float16), root))
        splits[name] = replace(split, shards=tuple(shards))
    about = Tags(tuple(f"tag {k}" for k in range(5)), "drawn", "0" * 64)
    tagged_index(tiny, splits, about, root).save()
    return Index.load(root)


@pytest.fixture
def tau_folder(tmp_path: Path) -> Callable[..., Path]:
    """Makes a folder like TAU2019's: 2 scenes x 4 locations x 3 segments, the last of each in no list."""

    def make(name: str = "source", subtype: str = "PCM_16", val: bool = True, rate: int = 8000) -> Path:
        root = tmp_path / name
        (root / "audio").mkdir(parents=True)
        (root / "evaluation_setup").mkdir()
        lists: dict[str, list[tuple[str, str]]] = {"train": [], "val": [], "evaluate": []}
        meta, strong, weak = [], [], []
        for s, scene in enumerate(("park", "tram")):
            for place in range(4):
                for segment in range(3):
                    file = f"audio/{scene}-lisbon-{place}-{segment}-a.wav"
                    sound = tone(rate=rate, pitch=200.0 + 50 * s + 10 * place + segment)
                    soundfile.write(root / file, sound, rate, subtype=subtype)
                    meta.append(f"{file}\t{scene}\tlisbon-{s}{place}\ta")
                    split = ("train", "train", "val" if val else "train", "evaluate")[place]
                    if not (place == 3 and segment == 2):
                        lists[split].append((file, scene))
                    event = ("bird", "bell")[segment % 2]
                    strong.append(f"{file}\t0.01\t0.05\t{event}" if segment else f"{file}\t\t\t")
                    weak.append(f"{file}\t{event if segment else ''}")
        write_table(root / "meta.csv", "filename\tscene_label\tidentifier\tsource_label", meta)
        for kind, rows in lists.items():
            if rows:
                text = [f"{file}\t{scene}" for file, scene in rows]
                write_table(root / f"evaluation_setup/fold1_{kind}.csv", "filename\tscene_label", text)
        names = [file for file, _ in lists["evaluate"]]
        write_table(root / "evaluation_setup/fold1_test.csv", "filename", names)
        write_table(root / "events_strong.tsv", "filename\tonset\toffset\tevent_label", strong)
        write_table(root / "events_weak.tsv", "filename\tevent_labels", weak)
        return root

    return make


def write_table(path: Path, header: str, rows: list[str]) -> None:
    path.write_bytes(("\n".join([header, *rows]) + "\n").encode())
