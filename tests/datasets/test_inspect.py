from pathlib import Path

import pytest

from datasets import inspect
from datasets.shards import Index, read_labels


def test_counts_against_a_slow_loop(tiny: Index) -> None:
    found = inspect.contents(tiny, "train")
    labels = list(read_labels(tiny, "train"))
    for i, scene in enumerate(tiny.labels.scenes):
        assert found.scenes[i] == sum(clip.scene == scene for clip in labels)
        for j, event in enumerate(tiny.labels.events):
            here = [clip for clip in labels if event in (clip.events or ())]
            assert found.events[j] == len(here)
            assert found.together[i, j] == sum(clip.scene == scene for clip in here)
    assert found.clips == found.strong == 43 and found.unknown_events == found.unknown_scene == 0
    assert found.no_event == sum(clip.events == () for clip in labels)


def test_text(tiny: Index, capsys: pytest.CaptureFixture[str]) -> None:
    assert inspect.main([str(tiny.root)]) == 0
    text = capsys.readouterr().out
    for part in (
        tiny.checksum,
        "8000 Hz, 1 channel(s), int16, clips up to 0.25 s",
        "harbour",
        "announcement",
    ):
        assert part in text
    assert max(map(len, text.splitlines())) < 120


def test_wrong_folder_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert inspect.main([str(tmp_path)]) == 2
    assert capsys.readouterr().err == (
        f"error: {tmp_path}: no index.json; an empty folder or an unfinished preparation, not a shard set\n"
    )
