"""F-scores and error rates of events in time, against loops over clips, frames and events."""

import math

import numpy as np
import pytest
import torch

from datasets.batch import Batch
from trainables.contract import JointOutput
from trainables.frame_metrics import event_f, scene_f
from trainables.metrics import Scores

CLIPS, T, E, S, SEGMENT = 9, 23, 5, 4, 10


def drawn(seed: int = 0, sure: float = 2.0) -> tuple[JointOutput, Batch]:
    """Clip 2 has no frame labels, clip 3 is shorter, event 4 is unknown in clip 5, the last event and the
    last scene never occur and are never found."""
    draw = torch.Generator().manual_seed(seed)
    frames = (torch.rand(CLIPS, T, E, generator=draw) < 0.2).float()
    logits = torch.randn(CLIPS, T, E, generator=draw) - 0.7 + sure * frames
    logits[0, 0, 0] = 0.0  # a probability of exactly 0.5
    frames[..., E - 1], logits[..., E - 1] = 0.0, -1.0
    known, event_known = torch.ones(CLIPS, T), torch.ones(CLIPS, E)
    known[2], known[3, 15:], event_known[5, 3] = 0, 0, 0
    scene_logits = torch.randn(CLIPS, S, generator=draw)
    scene_logits[:, S - 1] = -9
    scene = torch.eye(S)[torch.randint(S - 1, (CLIPS,), generator=draw)]
    batch = Batch(
        torch.zeros(CLIPS, 1, 4), scene, frames.amax(1), event_known, torch.arange(CLIPS), frames=frames,
        frame_known=known,
    )  # fmt: skip
    return JointOutput(scene_logits, logits.amax(1), frame_logits=logits), batch


def rows_of(output: JointOutput, batch: Batch, clips: list[int]) -> tuple[JointOutput, Batch]:
    def cut(record: object, names: tuple[str, ...]) -> dict[str, torch.Tensor]:
        return {name: getattr(record, name)[clips] for name in names}

    return (
        JointOutput(**cut(output, ("scene_logits", "event_logits", "frame_logits"))),
        Batch(**cut(batch, ("waveform", "scene", "events", "event_known", "clip", "frames", "frame_known"))),
    )


def slow(output: JointOutput, batch: Batch, length: int) -> dict[str, float | list[float]]:
    """Counts of stretches of `length` frames, one at a time."""
    tp, fp, fn, errors = [0] * E, [0] * E, [0] * E, 0
    for clip in range(CLIPS):
        for start in range(0, T, length):
            missed = wrong = 0
            for event in range(E):
                here = [
                    t
                    for t in range(start, min(T, start + length))
                    if batch.frame_known[clip, t] and batch.event_known[clip, event]
                ]
                present = any(batch.frames[clip, t, event] >= 0.5 for t in here)
                found = any(
                    1 / (1 + math.exp(-output.frame_logits[clip, t, event].item())) >= 0.5 for t in here
                )
                tp[event] += present and found
                fp[event] += found and not present
                fn[event] += present and not found
                missed += present and not found
                wrong += found and not present
            substituted = min(missed, wrong)
            errors += substituted + (missed - substituted) + (wrong - substituted)
    each = [2 * a / (2 * a + b + c) if a + b + c else 0.0 for a, b, c in zip(tp, fp, fn)]
    micro = 2 * sum(tp) / (2 * sum(tp) + sum(fp) + sum(fn))
    return {"micro": micro, "macro": sum(each) / E, "rate": errors / (sum(tp) + sum(fn)), "each": each}


def test_counts_equal_the_definitions() -> None:
    output, batch = drawn()
    scores = Scores(SEGMENT)
    scores.add(output, batch)
    found = scores.compute()
    for kind, length in (("frame", 1), ("segment", SEGMENT)):
        expected = slow(output, batch, length)
        assert found[f"{kind}_f_micro"] == pytest.approx(expected["micro"])
        assert found[f"{kind}_f_macro"] == pytest.approx(expected["macro"])
        assert found[f"{kind}_error_rate"] == pytest.approx(expected["rate"])
        assert 0.2 < found[f"{kind}_f_micro"] < 0.95
    assert scores.per_event_frame_f().tolist() == pytest.approx(slow(output, batch, 1)["each"])
    assert scores.per_event_frame_f()[E - 1] == 0 and 0 < found["frame_f_macro"] < found["frame_f_micro"]


def test_ranks_batches_and_clips_met_twice_change_nothing() -> None:
    output, batch = drawn()
    whole, one, other = Scores(SEGMENT), Scores(SEGMENT), Scores(SEGMENT)
    whole.add(output, batch)
    one.add(*rows_of(output, batch, [0, 4, 8]))
    one.add(*rows_of(output, batch, [2]))
    other.add(*rows_of(output, batch, [1, 3, 5, 6, 7, 4]))
    assert Scores.merge([one, Scores(SEGMENT), other]).compute() == whole.compute()


def test_scene_f_scores_against_a_loop_and_their_micro_mean_is_the_accuracy() -> None:
    output, batch = drawn(seed=3)
    scores = Scores()
    scores.add(output, batch)
    true, predicted = batch.scene.argmax(1).tolist(), output.scene_logits.argmax(1).tolist()
    each, sums = [], [0, 0, 0]
    for scene in range(S):
        tp = sum(t == p == scene for t, p in zip(true, predicted))
        fp = sum(p == scene != t for t, p in zip(true, predicted))
        fn = sum(t == scene != p for t, p in zip(true, predicted))
        each.append(2 * tp / (2 * tp + fp + fn) if tp + fp + fn else 0.0)
        sums = [a + b for a, b in zip(sums, (tp, fp, fn))]
    found = scores.compute()
    assert scene_f(scores.confusion()).tolist() == pytest.approx(each) and each[S - 1] == 0
    assert found["scene_f_macro"] == pytest.approx(sum(each) / S)
    assert found["scene_accuracy"] == pytest.approx(2 * sums[0] / (2 * sums[0] + sums[1] + sums[2]))


def test_they_appear_where_frames_were_asked_for_and_the_model_has_them() -> None:
    output, batch = drawn()
    scenes_only, plain = Scores(), Scores()
    scenes_only.add(JointOutput(output.scene_logits), batch)
    assert set(scenes_only.compute()) == {"scene_accuracy", "scene_accuracy_macro", "scene_f_macro"}
    assert scenes_only.per_event_frame_f().shape == (0,)
    unasked = Batch(batch.waveform, batch.scene, batch.events, batch.event_known, batch.clip)
    plain.add(output, unasked)
    assert not any(name.startswith(("frame", "segment", "scene_f")) for name in plain.compute())


def test_nothing_known_and_logits_that_are_no_numbers_make_no_scores() -> None:
    output, batch = drawn()
    batch.frame_known.zero_()
    unknown, broken = Scores(), Scores()
    unknown.add(output, batch)
    assert math.isnan(unknown.compute()["frame_error_rate"])
    assert math.isnan(unknown.compute()["frame_f_micro"]) and math.isnan(unknown.compute()["segment_f_macro"])
    output, batch = drawn()
    output.frame_logits[1, 2, 3] = float("nan")
    broken.add(output, batch)
    assert math.isnan(broken.compute()["frame_f_micro"]) and math.isnan(broken.compute()["segment_f_macro"])


def test_f_of_an_event_from_counts() -> None:
    counts = {"frame_tp": np.array([[1, 0], [2, 0]]), "frame_fp": np.array([[1, 0], [0, 0]])}
    assert event_f(counts | {"frame_fn": np.array([[0, 0], [3, 0]])}).tolist() == [6 / 10, 0.0]
