"""What sed_eval (Mesaros, Heittola, Virtanen 2016) makes of made-up answers: sed_eval_numbers.json beside
this file, which test_sed_eval.py compares our metrics with. sed_eval is none of our dependencies; to make the
file anew, in an environment of its own:

    python -m venv SED && SED/bin/pip install sed_eval==0.2.1 dcase_util==0.2.20 'setuptools<81'
    SED/bin/python tests/trainables/sed_eval_numbers.py

Reference events have onsets and offsets anywhere (to the microsecond), answers are runs of frames of 20 ms,
which sed_eval gets as times inside their first and last frame. Its frame-based metrics are its segment-based
ones with segments of 20 ms.

In the corpus "all" every event occurs and is found. In "rare" the last three don't: one is never found, one
never occurs, one neither; the last clip has no events at all.
"""

from __future__ import annotations

import json
import math
import random
from importlib.metadata import version
from pathlib import Path
from typing import Any

HOP, SEGMENT = 0.02, 1.0  # s
EVENTS = ("car", "dishes", "keyboard typing", "bird singing", "door slam", "siren")
LENGTHS = (10.0, 10.0, 10.0, 10.0, 4.5, 10.0)  # s
SCENES = ("city center", "home", "office", "residential area")


def spans(draw: random.Random, seconds: float, events: tuple[str, ...]) -> list[tuple[float, float, str]]:
    """(onset, offset, event), some overlapping, off the grid of frames by more than a float's rounding."""
    found = []
    for event in events:
        for _ in range(draw.randint(1, 3)):
            onset = draw.uniform(0, seconds - 0.5)
            offset = min(seconds - 0.001, onset + draw.choice((0.05, 0.4, 2.5)) * draw.uniform(0.5, 1.5))
            times = [_off_grid(time) for time in (onset, offset)]
            found.append((*times, event))
    return found


def _off_grid(time: float) -> float:
    frame, inside = divmod(time, HOP)
    return round(frame * HOP + min(max(inside, 0.001), HOP - 0.001), 6)


def runs(
    draw: random.Random, reference: list[tuple[float, float, str]], seconds: float, events: tuple[str, ...]
) -> list[tuple[int, int, str]]:
    """Answers (first frame, frame after the last, event): the reference moved, some of it missed or given
    another name, and some made up."""
    frames = math.floor(seconds / HOP)
    found = []
    for onset, offset, event in reference:
        if draw.random() < 0.7:
            first = min(frames - 1, max(0, math.floor(onset / HOP) + draw.randint(-20, 20)))
            stop = min(frames, max(first + 1, math.ceil(offset / HOP) + draw.randint(-20, 20)))
            found.append(
                (first, stop, event if draw.random() < 0.8 and event in events else draw.choice(events))
            )
    for _ in range(draw.randint(0, 2)):
        first = draw.randrange(frames - 60)
        found.append((first, first + draw.randint(1, 60), draw.choice(events)))
    return found


def corpus(seed: int, occurring: tuple[str, ...], answered: tuple[str, ...], empty: bool) -> dict[str, Any]:
    draw, clips = random.Random(seed), []
    for place, seconds in enumerate(LENGTHS):
        last = empty and place == len(LENGTHS) - 1
        reference = [] if last else spans(draw, seconds, occurring)
        clips.append(
            {
                "seconds": seconds,
                "reference": reference,
                "found": [] if last else runs(draw, reference, seconds, answered),
            }
        )
    return {"clips": clips, "frame": measured(clips, HOP), "segment": measured(clips, SEGMENT)}


def measured(clips: list[dict[str, Any]], resolution: float) -> dict[str, Any]:
    """sed_eval's numbers; None for its NaN."""
    import sed_eval  # type: ignore[import-not-found]

    metrics = sed_eval.sound_event.SegmentBasedMetrics(list(EVENTS), time_resolution=resolution)
    for clip in clips:
        metrics.evaluate(
            [_named(*event) for event in clip["reference"]],
            [_named((a + 0.25) * HOP, (b - 0.25) * HOP, event) for a, b, event in clip["found"]],
            evaluated_length_seconds=clip["seconds"],
        )
    overall, each = metrics.results_overall_metrics(), metrics.results_class_wise_metrics()
    return {
        "f_micro": _number(overall["f_measure"]["f_measure"]),
        "f_macro": _number(metrics.results_class_wise_average_metrics()["f_measure"]["f_measure"]),
        "error_rate": _number(overall["error_rate"]["error_rate"]),
        "f": [_number(each[event]["f_measure"]["f_measure"]) for event in EVENTS],
    }


def _named(onset: float, offset: float, event: str) -> dict[str, Any]:
    return {"file": "clip", "event_onset": onset, "event_offset": offset, "event_label": event}


def scenes(seed: int) -> dict[str, Any]:
    import sed_eval

    draw = random.Random(seed)
    true = [draw.choice(SCENES) for _ in range(60)]
    answered = [scene if draw.random() < 0.6 else draw.choice(SCENES) for scene in true]
    metrics = sed_eval.scene.SceneClassificationMetrics(list(SCENES))
    metrics.evaluate(
        *([{"file": f"{n}", "scene_label": s} for n, s in enumerate(v)] for v in (true, answered))
    )
    found = metrics.results()
    return {
        "true": true,
        "found": answered,
        "accuracy": _number(found["overall"]["accuracy"]),
        "accuracy_macro": _number(found["class_wise_average"]["accuracy"]["accuracy"]),
    }


def _number(value: float) -> float | None:
    return None if math.isnan(value) else float(value)


def main() -> None:
    packages = ("sed_eval", "dcase_util", "numpy", "scipy")
    made = {
        "versions": {name: version(name) for name in packages},
        "hop": HOP,
        "segment": SEGMENT,
        "events": EVENTS,
        "scene_names": SCENES,
        "all": corpus(1, EVENTS, EVENTS, empty=False),
        "rare": corpus(2, EVENTS[:4], (*EVENTS[:3], EVENTS[4]), empty=True),
        "scenes": scenes(3),
    }
    path = Path(__file__).with_suffix(".json")
    path.write_text(json.dumps(made, indent=None, separators=(",", ":")).replace("},{", "},\n{") + "\n")
    print(path)


if __name__ == "__main__":
    main()
