"""Our frame and segment metrics against sed_eval's, the field's own tool: its numbers lie in
sed_eval_numbers.json, made by sed_eval_numbers.py beside it with the versions named there.

Two differences are known. sed_eval gives no F-score to an event that never occurs or is never found, and
leaves it out of the mean over events; ours is 0 and counts, as in the released code of Tonami et al. Where
a time lies on the border of two frames, its floats (0.14 / 0.02 is a little over 7) may take in one more: so
it did in 353 of 5,000 random spans to two decimals. The times here lie off the borders.
"""

import json
import math
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
import torch

from datasets.batch import Batch
from datasets.frames import clip_frames
from datasets.shards import ClipLabels
from trainables.contract import JointOutput
from trainables.metrics import Scores

THEIRS = json.loads(Path(__file__).with_name("sed_eval_numbers.json").read_text(encoding="utf-8"))
EVENTS, SCENES = THEIRS["events"], THEIRS["scene_names"]
HOP = Fraction(str(THEIRS["hop"]))
SEGMENT = round(Fraction(str(THEIRS["segment"])) / HOP)  # frames
SAME = 1e-9


def scored(clips: list[dict[str, Any]]) -> Scores:
    """The reference as frame labels made from onsets and offsets, the answers as logits of frames; clips
    shorter than the longest are unknown behind their end, where every event is answered."""
    columns = {name: column for column, name in enumerate(EVENTS)}
    lengths = [math.floor(Fraction(str(clip["seconds"])) / HOP) for clip in clips]
    size = (len(clips), max(lengths), len(EVENTS))
    labels, known, logits = torch.zeros(size), torch.zeros(size[:2]), torch.full(size, -1.0)
    for row, (clip, frames) in enumerate(zip(clips, lengths)):
        strong = tuple(tuple(one) for one in clip["reference"])
        made = clip_frames(ClipLabels(strong=strong), frames, columns, HOP)
        known[row, : made.known] = 1
        for first, stop, column in made.spans:
            labels[row, first:stop, column] = 1
        for first, stop, event in clip["found"]:
            logits[row, first:stop, columns[event]] = 1.0
        logits[row, frames:] = 1.0
    clip = torch.arange(len(clips))
    batch = Batch(
        torch.zeros(len(clips), 1, 4), torch.zeros(len(clips), 0), labels.amax(1),
        torch.ones(len(clips), len(EVENTS)), clip, frames=labels, frame_known=known,
    )  # fmt: skip
    scores = Scores(SEGMENT)
    scores.add(JointOutput(torch.zeros(len(clips), 0), logits.amax(1), frame_logits=logits), batch)
    return scores


@pytest.mark.parametrize("kind", ["frame", "segment"])
def test_events_that_occur_and_are_found_have_sed_evals_scores(kind: str) -> None:
    theirs, scores = THEIRS["all"][kind], scored(THEIRS["all"]["clips"])
    ours = scores.compute()
    for name in ("f_micro", "f_macro", "error_rate"):
        assert ours[f"{kind}_{name}"] == pytest.approx(theirs[name], abs=SAME)
    if kind == "frame":
        assert scores.per_event_frame_f().tolist() == pytest.approx(theirs["f"], abs=SAME)
    assert None not in theirs["f"] and 0.3 < theirs["f_micro"] < 0.9


@pytest.mark.parametrize("kind", ["frame", "segment"])
def test_an_event_without_an_f_in_sed_eval_counts_as_0_in_our_mean(kind: str) -> None:
    theirs, scores = THEIRS["rare"][kind], scored(THEIRS["rare"]["clips"])
    ours = scores.compute()
    for name in ("f_micro", "error_rate"):
        assert ours[f"{kind}_{name}"] == pytest.approx(theirs[name], abs=SAME)
    given = [f for f in theirs["f"] if f is not None]
    assert len(given) == len(EVENTS) - 3  # one never found, one that never occurs, one neither
    assert theirs["f_macro"] == pytest.approx(sum(given) / len(given), abs=SAME)
    assert ours[f"{kind}_f_macro"] == pytest.approx(sum(given) / len(EVENTS), abs=SAME)
    if kind == "frame":
        assert scores.per_event_frame_f().tolist() == pytest.approx([f or 0 for f in theirs["f"]], abs=SAME)


def test_scenes_are_right_as_often_as_for_sed_eval() -> None:
    theirs = THEIRS["scenes"]
    true, found = (
        torch.eye(len(SCENES))[[SCENES.index(name) for name in theirs[key]]] for key in ("true", "found")
    )
    scores, count = Scores(), len(true)
    nothing = torch.zeros(count, 0)
    scores.add(
        JointOutput(found), Batch(torch.zeros(count, 1, 4), true, nothing, nothing, torch.arange(count))
    )
    assert scores.compute()["scene_accuracy"] == pytest.approx(theirs["accuracy"], abs=SAME)
    assert scores.compute()["scene_accuracy_macro"] == pytest.approx(theirs["accuracy_macro"], abs=SAME)
