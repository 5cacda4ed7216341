"""Family bigru_mtl: the published shapes and counts, where reversals sit, what single tasks and fake labels
train."""

import copy
import io
import math
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch

from datasets.batch import Batch
from datasets.labels import LabelSpace
from datasets.mix import open_sources
from datasets.shard_writer import Sample, write_split
from datasets.shards import ClipLabels, make_index
from datasets.source import Source
from searchspace import tables
from searchspace.papers.imoto2022 import METHODS, ROWS
from trainables import losses
from trainables.contract import AudioFormat, JointOutput
from trainables.engine import mix
from trainables.families.bigru_mtl import FAMILY, HOP, Config, SceneEventNet, build, terms, weights
from trainables.folder import RunFolder
from trainables.names import FRAME_F, direction, measured
from trainables.parts.frontend import LogMel
from trainables.printed import here
from trainables.recipe import configure
from trainables.request import refuse_unfit
from trainables.run import Run

TUT = LabelSpace(tuple("abcd"), tuple(f"event {i}" for i in range(25)))
AUDIO = AudioFormat(16000, 1, 160000)
SMALL: dict[str, Any] = {"width": 0.05, "batch_size": 16}

# The tensors of the released MultitaskNet, in the order of its state dict.
CONV = [((128, 1 if i == 0 else 128, 3, 3), (128,)) for i in range(3)]
NORM = [(128,)] * 4 + [()]
GRU = [(192, 256), (192, 64), (192,), (192,)] * 2
RELEASED = [
    *(shape for pair in CONV for shape in pair), *NORM * 3, *GRU, (32, 128), (32,), (25, 32), (25,),
    (256, 128, 3, 3), (256,), (256, 256, 3, 3), (256,), *([(256,)] * 4 + [()]) * 2,
    (32, 512), (32,), (4, 32), (4,),
]  # fmt: skip


def parameters(model: torch.nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


def made(knobs: dict[str, Any], labels: LabelSpace = TUT, audio: AudioFormat = AUDIO) -> SceneEventNet:
    with torch.device("meta"):
        return build(Config(**knobs), labels, audio)


def test_the_released_network_has_its_shapes_and_1328637_parameters() -> None:
    model = made({"variant": "code"})
    assert parameters(model) == 1_328_637
    shapes = [tuple(t.shape) for name, t in model.state_dict().items() if not name.startswith("frontend.")]
    assert sorted(shapes) == sorted(RELEASED) and len(shapes) == 51


def test_the_papers_network_counted_by_hand() -> None:
    conv = lambda i, o: 9 * i * o + 3 * o  # noqa: E731 - weights, bias and the norm's two
    shared = conv(1, 128) + 2 * conv(128, 128)
    scene = conv(128, 256) + conv(256, 256) + 256 * 32 + 32 + 32 * 4 + 4
    event = 2 * (96 * (256 + 32) + 2 * 96) + 64 * 32 + 32 + 32 * 25 + 25
    assert parameters(made({})) == shared + scene + event == 1_250_429
    assert parameters(made({"task": "scene"})) == shared + scene
    assert parameters(made({"task": "events"})) == shared + event


@pytest.mark.parametrize("rate", [8000, 16000, 22050, 32000, 44100, 48000])
def test_ten_seconds_are_500_frames_at_every_rate(rate: int) -> None:
    model = made({}, audio=AudioFormat(rate, 1, 10 * rate))
    assert model.frontend.frames(10 * rate) == 500 and model.frontend.n_mels == 64
    assert model.frontend.hop_samples == rate // 50


def test_a_frames_window_lies_around_its_stretch() -> None:
    """A click in frame t is loudest in frame t, and in no frame further than one away."""
    frontend = LogMel(8000, window=Fraction(40, 1000), hop=HOP, f_min=0.0, whole_hops=True)
    for t in (0, 7, 24):
        waveform = torch.zeros(1, 1, 4000)
        waveform[0, 0, t * 160 + 80] = 1.0
        energy = frontend.raw(waveform).exp().sum((1, 3))[0]
        assert energy.shape == (25,) and energy.argmax() == t
        assert {i for i in range(25) if energy[i] > 1e-3} <= {t - 1, t, t + 1}
    padded = torch.nn.functional.pad(waveform, (80, 80))
    plain = LogMel(8000, window=Fraction(40, 1000), hop=HOP, f_min=0.0)
    assert torch.equal(plain.raw(padded), frontend.raw(waveform)) and repr(plain) != repr(frontend)
    assert frontend.seconds(25) == 0.5 and plain.frames(4000) == 24


def features(clips: int = 2) -> torch.Tensor:
    return torch.randn(clips, 1, 100, 64, generator=torch.Generator().manual_seed(1))


def gradients(reversal: str, task: str, strength: float = 1.0) -> dict[str, torch.Tensor]:
    """Of the sum of one task's logits, by parameter; "" as the task's terms would have it in mtl."""
    torch.manual_seed(0)
    config = Config(width=0.05, reversal=reversal, reversal_strength=strength)  # type: ignore[arg-type]
    model = build(config, TUT, AUDIO).train()
    output = model.from_features(features())
    logits = output.scene_logits if task == "scene" else output.frame_logits
    assert logits is not None
    logits.square().sum().backward()
    return {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


# Whose gradients a reversal turns round: the layers before it.
TURNED = {
    "s1": ("shared.",),
    "s2": ("shared.", "scene.conv1.", "scene.conv2."),
    "e1": ("shared.",),
    "e2": ("shared.", "event.gru."),
}


@pytest.mark.parametrize("place", TURNED)
def test_what_lies_before_a_reversal_has_its_gradient_turned_and_nothing_else(place: str) -> None:
    own, other = ("scene", "events") if place[0] == "s" else ("events", "scene")
    plain, turned = gradients("none", own), gradients(place, own, strength=0.5)
    assert plain.keys() == turned.keys()
    for name, gradient in plain.items():
        factor = -0.5 if name.startswith(TURNED[place]) else 1.0
        torch.testing.assert_close(turned[name], factor * gradient, rtol=1e-4, atol=1e-5)
    untouched = gradients("none", other)
    assert all(torch.equal(gradients(place, other)[name], g) for name, g in untouched.items())


def test_alpha_weighs_scenes_and_beta_events() -> None:
    assert weights(Config()) == {"scene_ce": 1e-4, "frame_bce": 1.0} and Config() == Config(
        w_scene=1e-4, w_event=1.0
    )
    for task, term in (("scene", "scene_ce"), ("events", "frame_bce")):
        config = Config(task=task, w_scene=0.3, w_event=0.7)  # type: ignore[arg-type]
        assert weights(config) == {term: 1.0} and list(terms(config)) == [term]


def test_frame_bce_is_the_mean_over_known_frames_and_events() -> None:
    draw = torch.Generator().manual_seed(0)
    logits, frames = torch.randn(3, 6, 4, generator=draw), torch.rand(3, 6, 4, generator=draw)
    frame_known, event_known = torch.ones(3, 6), torch.ones(3, 4)
    frame_known[0], frame_known[1, 4:], event_known[2, 1] = 0, 0, 0
    batch = Batch(
        torch.zeros(3, 1, 4), torch.eye(3), frames.amax(1), event_known, torch.arange(3), frames=frames,
        frame_known=frame_known,
    )  # fmt: skip
    summed, count, clips = 0.0, 0, 0.0
    for clip in range(3):
        entries = 0
        for t in range(6):
            for event in range(4):
                if frame_known[clip, t] and event_known[clip, event]:
                    p, y = 1 / (1 + math.exp(-logits[clip, t, event].item())), frames[clip, t, event].item()
                    summed -= y * math.log(p) + (1 - y) * math.log(1 - p)
                    entries += 1
        count, clips = count + entries, clips + entries / 24
    output = JointOutput(torch.zeros(3, 3), frame_logits=logits)
    assert losses.frame_bce(output, batch).item() == pytest.approx(summed / count, rel=1e-5)
    assert losses.known_clips(losses.frame_bce, batch).item() == pytest.approx(clips)
    with pytest.raises(ValueError, match=r"frame logits \(3, 6, 4\) and frame labels \(3, 0, 4\) don't fit"):
        losses.frame_bce(
            output, Batch(*(torch.zeros(3, 1, 4), torch.eye(3), frames[:, 0], event_known, batch.clip))
        )


def test_mixup_treats_frames_like_labels() -> None:
    draw = torch.Generator().manual_seed(0)
    frames = (torch.rand(8, 5, 3, generator=draw) < 0.4).float()
    known = torch.ones(8, 5)
    known[2] = 0
    batch = Batch(
        torch.arange(8.0)[:, None, None].expand(8, 1, 2), torch.eye(8), frames.amax(1), torch.ones(8, 3),
        torch.arange(8), frames=frames, frame_known=known,
    )  # fmt: skip
    mixed = mix(batch, 0.5, torch.Generator().manual_seed(3))
    for row in range(8):
        # the scene row, one-hot before, says which two clips these are and in what shares
        shares = mixed.scene[row]
        parts = [i for i in range(8) if shares[i] > 0]
        expected = sum(shares[i] * frames[i] for i in parts)
        torch.testing.assert_close(mixed.frames[row], expected)
        assert mixed.frame_known[row].tolist() == [float(2 not in parts)] * 5


@pytest.fixture(scope="module")
def framed(shards: Path, cache: Path) -> Source:
    return open_sources(shards, cache=cache, frames=HOP)


def run(framed: Source, epochs: int = 2, **knobs: Any) -> Run:
    return Run("bigru_mtl", SMALL | knobs, framed, seed=0, epochs=epochs)


def test_a_run_learns_from_frames_and_measures_them(framed: Source) -> None:
    trained = run(framed, epochs=3, lr=0.01, w_scene=1.0)
    losses = [trained.next_epoch() for _ in range(3)]
    assert losses[2]["train/term/frame_bce"] < losses[0]["train/term/frame_bce"]
    shown = {name.removeprefix("val/") for name in losses[0] if name.startswith("val/")}
    assert {"scene_accuracy", "scene_f_macro", "event_map"} <= shown
    assert {f"{k}_{m}" for k in ("frame", "segment") for m in ("f_micro", "f_macro", "error_rate")} <= shown


@pytest.mark.parametrize("knobs", [{"task": "scene"}, {"task": "events"}])
def test_a_single_task_has_the_other_tasks_figures_not_at_all_or_at_chance(
    framed: Source, knobs: dict[str, Any]
) -> None:
    metrics = run(framed, **knobs).next_epoch()
    if knobs["task"] == "scene":
        assert "val/frame_f_micro" not in metrics and "val/event_map" not in metrics
    else:
        assert metrics["val/scene_accuracy"] == pytest.approx(0.1, abs=0.05)  # always the first scene
    assert math.isfinite(metrics["val/loss"])


@pytest.mark.parametrize("fake", ["scene", "events"])
def test_fake_labels_are_the_training_batches_alone_fixed_or_redrawn(framed: Source, fake: str) -> None:
    name = "scene" if fake == "scene" else "frames"

    def labels(one: Run) -> dict[int, torch.Tensor]:
        return {
            int(number): getattr(batch, name)[row]
            for batch in one._train_batches()
            for row, number in enumerate(batch.clip)
        }

    true, fixed, redrawn = run(framed), run(framed, fake=fake), run(framed, fake=fake, fake_redrawn=True)
    epochs = []
    for epoch in (0, 1):
        for one in (true, fixed, redrawn):
            one.epoch = epoch
        epochs.append([labels(one) for one in (true, fixed, redrawn)])

    def same(a: dict[int, torch.Tensor], b: dict[int, torch.Tensor]) -> bool:
        return a.keys() == b.keys() and all(torch.equal(a[clip], b[clip]) for clip in a)

    (t0, f0, r0), (t1, f1, r1) = epochs
    assert same(t0, t1) and same(f0, f1) and same(f0, r0)
    assert not same(t0, f0) and not same(r0, r1)
    fixed.epoch = 0
    assert fixed.next_epoch()["val/term/frame_bce"] > 0  # validation has the true labels: see Run.score


def test_the_test_split_has_every_events_f_score(framed: Source, tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run", run(framed, epochs=1), {})
    folder.next_epoch()
    metrics = folder.test()
    names = {f"test/{FRAME_F}{event}" for event in framed.index.labels.events}
    assert names <= metrics.keys() and folder.test() == metrics
    assert all(direction(name) == "max" and measured(name.removeprefix("test/")) for name in names)
    assert sum(metrics[name] for name in names) / 12 == pytest.approx(metrics["test/frame_f_macro"])


def test_rows_are_the_papers_tables() -> None:
    table = {name: [row for row in ROWS if row.table == name] for name in ("3", "4")}
    assert len(table["3"]) == 2 + 2 + 7 * 4 and len(table["4"]) == 25
    assert len({row.line for row in table["3"]}) == 9
    for row in ROWS:
        config, recipe = configure("bigru_mtl", row.values)
        assert recipe.optimiser == "radam" and row.values.items() >= METHODS[row.row].items()
        assert measured(row.metric) and not row.spread and row.split == "test"
        assert (config.task == "scene") == (row.row == "CNN (ASC)")
    best = next(row for row in table["3"] if row.row == "Conventional MTL")
    assert best.value == pytest.approx(0.8857) and configure("bigru_mtl", best.values)[0] == FAMILY.config()


def test_table_3_is_nine_trainings_and_table_4_needs_its_events(framed: Source) -> None:
    made = tables.plan(tables.rows_of(ROWS, "3"), {"width": 0.1}, here(framed, "bigru_mtl", None, 2))
    assert len(made.configurations) == 9 and all(row.trial is not None for row in made.rows)

    def plan_on(*events: str) -> tables.Plan:
        other = copy.copy(framed)
        other.index = replace(framed.index, labels=LabelSpace(framed.index.labels.scenes, events))
        return tables.plan(tables.rows_of(ROWS, "4"), {}, here(other, "bigru_mtl", None, 2))

    measured_here = {row.published.metric for row in plan_on("car", "dishes").rows if row.trial is not None}
    assert measured_here == {"frame_f/car", "frame_f/dishes"}
    with pytest.raises(ValueError, match="none of its 25 rows can be run: needs the event 'bird singing'"):
        plan_on("car horn")


def untimed_in(root: Path, split: str) -> Source:
    """Three splits of two clips of 1 s, those of `split` without onsets and offsets."""
    root.mkdir()
    sound, splits = io.BytesIO(), {}
    soundfile.write(sound, np.zeros(8000), 8000, format="WAV", subtype="PCM_16")
    for name in ("train", "val", "test"):
        strong = None if name == split else ((0.1, 0.4, "car"),)
        labels = ClipLabels("park", ("car",), strong)
        samples = [Sample(f"{name}{i}", sound.getvalue(), "wav", 8000, labels) for i in range(2)]
        splits[name] = write_split(root, name, samples, 8000)
    space = LabelSpace(("park", "tram"), ("car", "dishes"))
    index = make_index(
        root, splits, corpus="made", sample_rate=8000, channels=1, sample_type="int16", labels=space,
        licence="", citation="",
    )  # fmt: skip
    index.save()
    return open_sources(root, cache=None, frames=HOP)


def test_events_in_time_need_onsets_and_offsets_in_the_split_they_are_measured_on(tmp_path: Path) -> None:
    source = untimed_in(tmp_path / "a", "test")
    made = tables.plan(tables.rows_of(ROWS, "3"), {"width": 0.1}, here(source, "bigru_mtl", None, 2))
    needing = {row.published.metric for row in made.rows if "of the" in row.why}
    assert needing == {"frame_f_micro", "frame_f_macro"} and len(made.configurations) == 8
    assert all(
        row.why.endswith("counts those that have ('strong')") for row in made.rows if row.trial is None
    )
    refuse_unfit(source, {}, test=True, columns=["val/frame_f_micro"])
    source = untimed_in(tmp_path / "b", "val")
    refuse_unfit(source, {}, test=True, columns=["val/scene_f_macro", "macs"])
    for column in ("val/frame_f_micro", "val/segment_error_rate"):
        with pytest.raises(
            ValueError, match=rf"--objective {column}: none of the \d+ val clips of .*b.* has"
        ):
            refuse_unfit(source, {}, test=True, columns=["macs", column])


@pytest.mark.parametrize(
    "labels, column, says",
    [
        (LabelSpace((), ("car",)), "val/scene_accuracy", "has no scenes; take one of events"),
        (LabelSpace((), ("car",)), "val/svm_accuracy", "has no scenes; take one of events"),
        (LabelSpace(("park", "tram"), ()), "val/event_map", "has no event labels; take one of scenes"),
    ],
)
def test_an_objective_needs_its_kind_of_labels(
    framed: Source, labels: LabelSpace, column: str, says: str
) -> None:
    other = copy.copy(framed)
    other.index = replace(framed.index, labels=labels)
    with pytest.raises(ValueError, match=f"--objective {column}: .*{says}"):
        refuse_unfit(other, {}, test=True, columns=[column])
    made = tables.plan(tables.rows_of(ROWS, "3", "2,3"), {}, here(framed, "bigru_mtl", None, 2))
    assert len(made.configurations) == 2
    if not labels.scenes:
        rows = tables.plan(tables.rows_of(ROWS, "3", "2,3"), {}, here(other, "bigru_mtl", None, 2)).rows
        whys = {row.published.metric: row.why for row in rows if row.published.line == 3}
        assert whys["scene_accuracy"] == "needs scenes, which these shards do not have"


def test_what_the_paper_does_not_print_can_be_set_and_is_told(framed: Source) -> None:
    pins = {"lr": 0.003, "width": 0.1}
    made = tables.plan(tables.rows_of(ROWS, "3"), pins, here(framed, "bigru_mtl", None, 2))
    assert all(one.values["lr"] == 0.003 for one in made.configurations)
    assert all("altered (lr=0.003)" in row.unlike for row in made.rows)
    for pins in ({"optimiser": "adam"}, {"lr": (0.1, 0.2)}):
        with pytest.raises(ValueError, match="leaves it out: it has (radam|0.0002)"):
            tables.plan(tables.rows_of(ROWS, "3"), pins, here(framed, "bigru_mtl", None, 2))


def test_a_run_that_goes_on_has_the_fake_labels_it_would_have_had(framed: Source, tmp_path: Path) -> None:
    knobs: dict[str, Any] = {"fake": "events", "fake_redrawn": True, "reversal": "s2", "mixup": 0.2}
    whole, first, second = (run(framed, **knobs) for _ in range(3))
    expected = [whole.next_epoch(), whole.next_epoch()]
    assert same_numbers(first.next_epoch(), expected[0])
    first.save(tmp_path / "checkpoint")
    second.load(tmp_path / "checkpoint")
    assert same_numbers(second.next_epoch(), expected[1])


def same_numbers(a: dict[str, float], b: dict[str, float]) -> bool:
    timings = ("seconds", "clips_per_second", "data_wait")
    return a.keys() == b.keys() and all(a[k] == b[k] for k in a if not k.endswith(timings))


@pytest.mark.parametrize(
    ("knobs", "message"),
    [
        ({"reversal": "s1", "task": "scene"}, "reversal=s1 is for task=mtl, not for task=scene"),
        ({"fake": "events", "task": "events"}, "fake=events is for task=mtl, not for task=events"),
        ({"w_scene": 0.0, "w_event": 0.0}, "w_scene=0 and w_event=0: nothing is trained"),
        ({"n_mels": 16}, "n_mels=16"),
        ({"w_scene": -1.0}, "w_scene=-1"),
        ({"reversal_strength": -0.5}, "reversal_strength=-0.5"),
    ],
)
def test_settings_that_make_no_sense_are_refused_in_one_line(knobs: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Config(**knobs)


def test_corpora_that_do_not_fit_are_refused() -> None:
    with pytest.raises(
        ValueError, match=r"clips of 0.40 s give 20 frames; the scene branch pools 25, 0.50 s"
    ):
        made({}, audio=AudioFormat(16000, 1, 6400))
    assert parameters(made({"task": "events"}, LabelSpace((), ("bird",)), AudioFormat(16000, 1, 6400)))
    with pytest.raises(ValueError, match="needs scene labels; the corpus has none"):
        made({}, LabelSpace((), ("bird",)))
    with pytest.raises(ValueError, match="needs event labels; the corpus has none"):
        made({}, LabelSpace(("park",), ()))
