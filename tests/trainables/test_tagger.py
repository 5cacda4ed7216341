"""The tagger of Akiyama & Sato: two heads for two kinds of labels, soft pseudo labels, and its way into a
teacher, on shards in the layout of FSDKaggle2019."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch

from datasets import prepare
from datasets.batch import Batch
from datasets.labels import LabelSpace
from datasets.shards import Index
from datasets.source import open_source
from trainables import losses
from trainables.contract import AudioFormat
from trainables.engine import mix
from trainables.export import export_run
from trainables.families.tagger import Config, build
from trainables.folder import RunFolder
from trainables.parts.sounding_crop import SoundingCrop, sounding_frames
from trainables.run import Run
from trainables.taggers import load_tagger
from trainables.teacher import Request, teach

EVENTS = tuple(f"Event_{i:02d}" for i in range(80))
LABELS = LabelSpace((), EVENTS)
AUDIO = AudioFormat(16000, 1, 16000)
SMALL = {"width": 0.06, "n_mels": 32, "crop_frames": 40}


@pytest.fixture(scope="module")
def fsd(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Shards of 9 curated clips for training and 3 for validation, 6 noisy and 3 test clips, 0.4 to 0.8 s."""
    root = tmp_path_factory.mktemp("fsd")
    meta, draw = root / "FSDKaggle2019.meta", np.random.default_rng(0)
    meta.mkdir()
    (meta / "vocabulary.csv").write_text("".join(f"{i},{name}\n" for i, name in enumerate(EVENTS)))
    for part, clips in (("train_curated", 12), ("train_noisy", 6), ("test", 3)):
        (root / f"FSDKaggle2019.audio_{part}").mkdir()
        lines = ["fname,labels"]
        for clip in range(clips):
            lines.append(f"{part}{clip}.wav,{EVENTS[clip % 4]}")
            sound = draw.normal(0, 0.1, 8000 * (4 + clip % 5) // 10)
            soundfile.write(root / f"FSDKaggle2019.audio_{part}/{part}{clip}.wav", sound, 8000)
        (meta / f"{part}_post_competition.csv").write_text("\n".join(lines) + "\n")
    out = root / "shards"
    command = ["fsdkaggle2019", "--source", str(root), "--out", str(out), "--train", "both"]
    assert prepare.main([*command, "--validation-fraction", "0.25"]) == 0
    return out


def random_batch(clips: int = 4, events: int = 3) -> Batch:
    draw = torch.Generator().manual_seed(0)
    return Batch(
        torch.rand(clips, 1, 16000, generator=draw) - 0.5,
        torch.zeros(clips, 0),
        (torch.rand(clips, events, generator=draw) < 0.5).float(),
        torch.ones(clips, events),
        torch.arange(clips),
        torch.rand(clips, events, generator=draw),
        curated=torch.tensor([1.0, 0.0, 0.0, 1.0])[:clips],
    )


def small_model(**knobs: Any) -> torch.nn.Module:
    torch.manual_seed(0)
    return build(Config(**SMALL | knobs), LabelSpace((), EVENTS[:3], tags=EVENTS[:3]), AUDIO)  # type: ignore[arg-type]


@pytest.mark.parametrize("cached", [True, False])
def test_shards_say_whose_events_nobody_has_checked(fsd: Path, tmp_path: Path, cached: bool) -> None:
    source = open_source(fsd, cache=tmp_path if cached else None)
    for split, curated in (("train", 9), ("val", 3), ("test", 3)):
        flags = torch.cat([batch.curated for batch in source.eval_batches(split, 4)])
        assert flags.sum() == curated and len(flags) == {"train": 15, "val": 3, "test": 3}[split]
    keys = [clip.key for _, clip in source.index.split("train").entries()]
    for batch in source.train_batches(6, epoch=0, seed=1):
        for number, flag in zip(batch.clip.tolist(), batch.curated.tolist()):
            assert ("noisy" in keys[number]) == (flag == 0)


def test_each_head_learns_from_its_own_clips() -> None:
    model, batch = small_model().train(), random_batch()
    for term, head, other in (
        (losses.curated_bce, "event_classifier", "noisy_classifier"),
        (losses.noisy_bce, "noisy_classifier", "event_classifier"),
    ):
        model.zero_grad()
        term(model(batch.waveform), batch).backward()
        assert all(p.grad is not None for p in getattr(model, head).parameters())
        assert all(p.grad is None for p in getattr(model, other).parameters())
    output = model.eval()(batch.waveform)
    each = torch.nn.functional.binary_cross_entropy
    checked, rest = [0, 3], [1, 2]
    expected = each(output.event_logits[checked].sigmoid(), batch.events[checked])
    assert losses.curated_bce(output, batch).item() == pytest.approx(expected.item(), rel=1e-5)
    noisy = output.noisy_event_logits[rest].sigmoid()
    assert losses.noisy_bce(output, batch).item() == pytest.approx(
        each(noisy, batch.events[rest]).item(), rel=1e-5
    )
    assert losses.noisy_bce_of_sigmoid(output, batch).item() == pytest.approx(
        each(noisy.sigmoid(), batch.events[rest]).item(), rel=1e-5
    )
    assert losses.known_clips(losses.curated_bce, batch) == 2 == losses.known_clips(losses.noisy_bce, batch)
    alone = replace(batch, curated=torch.ones(4))
    assert losses.noisy_bce(output, alone) == 0 == losses.known_clips(losses.noisy_bce, alone)


def test_soft_pseudo_labels_are_sharpened_tags_where_nobody_has_checked() -> None:
    batch, model = random_batch(), small_model().eval()
    batch.tags[2] = 0.0  # a teacher that hears nothing
    output = model(batch.waveform)
    errors = []
    for clip in range(4):
        wanted = batch.events[clip].tolist()
        if not batch.curated[clip]:
            powers = [p**2 for p in batch.tags[clip].tolist()]
            wanted = [p / sum(powers) if sum(powers) else 0.0 for p in powers]
        for event in range(3):
            errors.append((torch.sigmoid(output.event_logits[clip, event]).item() - wanted[event]) ** 2)
    found = losses.pseudo_mse(2.0)(output, batch)
    assert found.item() == pytest.approx(sum(errors) / len(errors), rel=1e-5)


def test_mixup_keeps_checked_and_other_clips_apart() -> None:
    batch = random_batch()
    marked = replace(batch, waveform=batch.curated[:, None, None] * torch.ones(4, 1, 8))
    mixed = mix(marked, 1.0, torch.Generator().manual_seed(5))
    assert torch.equal(mixed.waveform, marked.waveform)


def test_crops_are_from_where_a_clip_sounds() -> None:
    x = torch.zeros(3, 1, 50, 2)  # 0 is the least value: digital silence
    x[0, 0, :20, 1] = torch.arange(1.0, 21)
    x[1, 0, :, 0] = 1 + torch.rand(50)
    assert sounding_frames(x)[0] == 20 and sounding_frames(x)[2] == 0
    torch.manual_seed(0)
    starts = set()
    for _ in range(60):
        cropped = SoundingCrop(8)(x)
        assert cropped.shape == (3, 1, 8, 2)
        first = int(cropped[0, 0, 0, 1]) - 1
        assert torch.equal(cropped[0], x[0, :, first : first + 8]) and first + 8 <= 20
        starts.add(first)
    assert starts == set(range(13))
    assert torch.equal(SoundingCrop(99)(x), x)


def test_the_size_of_the_code_less_what_it_never_calls() -> None:
    with torch.device("meta"):
        model = build(Config(), LABELS, AudioFormat(44100, 1, 441000))
    count = sum(p.numel() for p in model.parameters())
    unused = 3 * 64 * 7 * 7 + 512 * 1000 + 1000  # the first convolution and the last layer of its base
    assert count == 24_592_224 == 25_114_632 - unused


@pytest.mark.parametrize(
    ("knobs", "labels", "message"),
    [
        ({}, LabelSpace(("bus",), ()), "family tagger needs event labels; the corpus has none"),
        ({"w_pseudo": 20.0}, LABELS, "tags of the corpus's 80 events in their order; the shards hold none"),
        (
            {"w_pseudo": 20.0},
            replace(LABELS, tags=EVENTS[:7]),
            "the 7 tags there are of others: train a tagger on these shards with w_pseudo=0",
        ),
    ],
)
def test_what_it_refuses(knobs: dict[str, Any], labels: LabelSpace, message: str) -> None:
    with pytest.raises(ValueError, match=message) as error:
        build(Config(**SMALL | knobs), labels, AUDIO)  # type: ignore[arg-type]
    assert "\n" not in str(error.value)


def test_trained_tagging_and_trained_again_by_its_own_tags(fsd: Path, tmp_path: Path) -> None:
    values = SMALL | {"batch_size": 5, "mixup": 1.0}
    folder = RunFolder(
        tmp_path / "run", Run("tagger", values, open_source(fsd, cache=None), seed=0, epochs=1), {}
    )
    metrics = folder.next_epoch()
    assert metrics["train/term/noisy_bce"] > 0 and metrics["val/term/noisy_bce"] == 0
    assert 0 < metrics["val/event_lwlrap"] <= 1 and np.isnan(metrics["val/scene_accuracy"])
    best = tmp_path / "best"
    export_run(tmp_path / "run", Index.load(fsd), best)
    assert load_tagger(best).names == EVENTS
    index, clips, _ = teach(Request(data=fsd, model=best, out=tmp_path / "tagged", actors=0))
    assert clips == 21 and index.labels.tags == EVENTS
    again = Run(
        "tagger",
        values | {"w_pseudo": 20.0, "pretrained": str(best)},
        open_source(tmp_path / "tagged", cache=tmp_path / "cache"),
        seed=0,
        epochs=1,
    )
    assert torch.equal(
        again.model.state_dict()["encoder.conv.weight"],
        folder.run.model.state_dict()["encoder.conv.weight"],
    )
    assert again.next_epoch()["train/term/pseudo_mse"] > 0
