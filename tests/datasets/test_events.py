"""The choice of event labels: the grammar, and what batches hold under each choice."""

from pathlib import Path

import numpy as np
import pytest
import torch

from datasets.degrade import degrade, wrong_entries
from datasets.events import EventChoice, parse_events
from datasets.shards import Index, ShardError
from datasets.source import Source, open_source


def gathered(source: Source, split: str) -> dict[str, torch.Tensor]:
    batches = list(source.eval_batches(split, 5))
    return {n: torch.cat([getattr(b, n) for b in batches]) for n in ("events", "event_known", "tags", "clip")}


@pytest.mark.parametrize(
    ("text", "choice"),
    [
        ("labels", EventChoice("labels")),
        ("tags", EventChoice("tags")),
        ("tags>0.1", EventChoice("tags", threshold=0.1)),
        ("tags>0", EventChoice("tags", threshold=0.0)),
        ("labels@0.80", EventChoice("labels", accuracy=0.8)),
        ("labels@1:7", EventChoice("labels", accuracy=1.0, seed=7)),
    ],
)
def test_a_choice_reads_back_what_it_writes(text: str, choice: EventChoice) -> None:
    assert parse_events(text) == choice == parse_events(str(choice))


@pytest.mark.parametrize(
    "text", ["", "tag", "Labels", "tags>", "tags>1", "tags>-0.1", "tags>nan", "tags >0.1", "tags>=0.1",
             "labels@", "labels@1.1", "labels@nan", "labels@0.8:", "labels@0.8:-1", "labels@0.8:x"],
)  # fmt: skip
def test_anything_else_is_refused_naming_what_is_accepted(text: str) -> None:
    with pytest.raises(ValueError, match=r"events .*: expected labels, tags, tags>THRESHOLD .* labels@ACC"):
        parse_events(text)


@pytest.mark.parametrize("cached", [True, False])
@pytest.mark.parametrize("threshold", [None, 0.0, 0.5])
def test_tags_become_the_events(tagged: Index, cache: Path, cached: bool, threshold: float | None) -> None:
    events = "tags" if threshold is None else f"tags>{threshold}"
    source = open_source(tagged.root, cache=cache if cached else None, events=events)
    assert tagged.tags and source.index.labels.events == tagged.tags.names
    rows = gathered(source, "val")
    for got, tags in zip(rows["events"].tolist(), rows["tags"].tolist(), strict=True):
        assert got == (tags if threshold is None else [float(t > threshold) for t in tags])
    assert rows["event_known"].min() == 1 and rows["events"].shape == (17, 5)
    batch = next(source.train_batches(8, epoch=0, seed=0))
    assert torch.equal(batch.events, batch.tags if threshold is None else (batch.tags > threshold).float())


def test_each_choice_has_a_checksum_of_its_own_and_all_share_one_cache(tagged: Index, tmp_path: Path) -> None:
    choices = ("labels", "tags", "tags>0.1", "tags>0.3", "labels@0.8", "labels@0.8:1", "labels@0.9")
    sources = [open_source(tagged.root, cache=tmp_path, events=events) for events in choices]
    assert sources[0].index == tagged
    assert len({source.index.checksum for source in sources}) == len(choices)
    assert len(list(tmp_path.iterdir())) == 1


def test_tags_that_are_not_there_are_refused_before_anything_is_decoded(tiny: Index, tmp_path: Path) -> None:
    with pytest.raises(ShardError, match=r"'tags>0.1': this shard set has no tags; .*trainables.teacher"):
        open_source(tiny.root, cache=tmp_path / "cache", events="tags>0.1")
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize("cached", [True, False])
def test_degraded_training_labels_are_right_to_the_fraction_asked(
    tiny: Index, cache: Path, cached: bool
) -> None:
    place = cache if cached else None
    plain, worse, other = (
        open_source(tiny.root, cache=place, events=e) for e in ("labels", "labels@0.8", "labels@0.8:1")
    )
    truth, got = gathered(plain, "train")["events"], gathered(worse, "train")["events"]
    assert int((truth != got).sum()) == round(0.2 * truth.numel())
    assert not torch.equal(got, gathered(other, "train")["events"])
    for batch in worse.train_batches(8, epoch=3, seed=1):  # a clip's labels are wrong in the same way always
        assert torch.equal(batch.events, got[batch.clip])
    for split in ("val", "test"):
        assert torch.equal(gathered(worse, split)["events"], gathered(plain, split)["events"])


@pytest.mark.parametrize("accuracy", [0.0, 0.5, 0.8, 0.815, 1.0])
def test_exactly_the_fraction_of_known_labels_is_right(accuracy: float) -> None:
    rng = np.random.default_rng(1)
    labels = (rng.random((40, 9)) < 0.2).astype(np.float32)
    known = rng.random((40, 9)) < 0.7
    worse = degrade(labels, accuracy, seed=3, known=known)
    wrong = [(i, j) for i in range(40) for j in range(9) if worse[i, j] != labels[i, j]]
    assert len(wrong) == round((1 - accuracy) * known.sum()) and all(known[place] for place in wrong)
    assert set(np.unique(worse)) <= {0.0, 1.0} and worse.dtype == np.float32
    assert np.array_equal(worse, degrade(labels, accuracy, seed=3, known=known))


def test_wrong_labels_lie_anywhere_with_equal_chance() -> None:
    counts = sum(wrong_entries(np.ones((6, 5)), 0.8, seed=seed).astype(int) for seed in range(2000))
    # 2000 draws of chance 0.2: a standard deviation of 17.9
    assert np.abs(counts - 400).max() < 5 * 17.9


def test_soft_labels_and_impossible_accuracies_are_refused() -> None:
    with pytest.raises(ValueError, match="only hard labels"):
        degrade(np.array([[0.3]]), 0.8, seed=0)
    with pytest.raises(ValueError, match=r"accuracy 1.2 .* expected 0 to 1"):
        degrade(np.array([[1.0]]), 1.2, seed=0)
