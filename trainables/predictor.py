"""A trained model that answers recordings, one after the other or in batches of windows.

Scene probabilities are the model's, divided by its calibration's temperature (trainables/calibration.py) and
averaged over the windows of a long recording; an event's is the largest of the windows.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from datasets.frames import hop_samples
from datasets.prefetch import map_ahead
from trainables.calibration import Calibration
from trainables.contract import JointOutput, tags_read
from trainables.engine import autocast_dtype, autocasting
from trainables.evaluate import device as any_device
from trainables.model_folder import load_model
from trainables.reasons import EdgeReasons, Reasons, reasons_of
from trainables.recipe import configure
from trainables.recordings import Heard, Listening, Unreadable, Window, cut, hear, windows
from trainables.registry import family
from trainables.taggers import load_tagger
from trainables.tagging import resampler, tag_clips

WINDOWS = {"cpu": 16, "cuda": 64}  # windows a forward pass
LEAST = 0.5  # share of the model's length from which on an answer may be sure: it is calibrated on clips
FOUND = 0.5  # an event is in a frame from this probability on
REASONS = 5


@dataclass(frozen=True)
class Failed:
    """A file without an answer, and why."""

    file: str
    error: str


@dataclass(frozen=True)
class Span:
    """An event from `onset` to `offset` (s), with its largest probability in between."""

    event: str
    onset: float
    offset: float
    probability: float


@dataclass(frozen=True)
class Reason:
    """`events`: one, or the edge's (from, to); `probability` of the event, of the one the edge leads to;
    what it gave to the scene named, against the runner-up."""

    events: tuple[str, ...]
    probability: float
    contribution: float


@dataclass(frozen=True)
class Why:
    """kind     coupling, prior or edges: see trainables/reasons.py
    against  the runner-up
    total    what all reasons together gave to the scene named against it; below 0 they spoke for the other
    reasons  those that gave most, most first
    """

    kind: str
    against: str
    total: float
    reasons: tuple[Reason, ...]


@dataclass(frozen=True)
class Answer:
    """file, seconds  the recording and its length
    scene, probability  the most probable scene; None where the model knows none
    unsure  whether that is below the model's threshold, or the recording too short for one; None where the
            model is not calibrated
    scenes  {scene: probability}, most probable first
    events  {event: probability}, most probable first, at most as many as asked for
    spans   those events over time, by onset; None where the model has no frames
    why     None where nothing in the model relates events to scenes
    notes   what was done to the recording
    """

    file: str
    seconds: float
    scene: str | None
    probability: float | None
    unsure: bool | None
    scenes: Mapping[str, float]
    events: Mapping[str, float]
    spans: tuple[Span, ...] | None
    why: Why | None
    notes: tuple[str, ...]


class Predictor:
    """A model folder, ready for recordings.

    `teacher`: the tagger whose tags a model with `reads_tags` reads. Raises FileNotFoundError or ValueError
    in one line: see `load_model`; a teacher that is missing, not needed, or another than in training.
    """

    def __init__(
        self,
        folder: Path,
        *,
        device: str | None = None,
        teacher: Path | None = None,
        top_events: int = 10,
        batch: int | None = None,
    ) -> None:
        self.model, self.about = load_model(folder)
        self.device = torch.device(device or any_device())
        self.model.to(self.device)
        self.listening = Listening.of(self.about)
        self.calibration = Calibration.read(self.about.get("calibration"))
        self.top_events, self.batch = top_events, batch or WINDOWS[self.device.type]
        self.reasons: Reasons | None = reasons_of(self.model, self.about["events"])
        _, recipe = configure(self.about["family"], self.about["values"])
        self.autocast = autocast_dtype(recipe.precision, self.device)
        hop = family(self.about["family"]).frame_hop
        self.hop = hop_samples(hop, self.listening.sample_rate) if hop else 0
        self._tag = self._tagger(folder, teacher)

    def predict(self, files: Iterable[Path | Failed]) -> Iterator[Answer | Failed]:
        """One answer a file, in order; the next files are decoded meanwhile."""
        open_files: deque[_Open | Failed] = deque()
        waiting: list[tuple[_Open, Window]] = []
        for heard in map_ahead(self._hear, files, threads=2, ahead=2):
            open_files.append(heard)
            if isinstance(heard, _Open):
                for window in heard.windows:
                    waiting.append((heard, window))
                    if len(waiting) == self.batch:
                        self._listen(waiting)
                        waiting = []
            while open_files and _ended(open_files[0]):
                yield self._answer(open_files.popleft())
        if waiting:
            self._listen(waiting)
        for one in open_files:
            yield self._answer(one)

    def _hear(self, file: Path | Failed) -> _Open | Failed:
        if isinstance(file, Failed):
            return file
        try:
            heard = hear(file, self.listening)
        except Unreadable as error:
            return Failed(str(file), str(error))
        except (MemoryError, OSError) as error:
            return Failed(str(file), " ".join(f"{type(error).__name__}: {error}".split()))
        total, length = heard.samples.shape[1], self.listening.samples
        return _Open(str(file), heard, windows(total, length, self.hop or 1))

    @torch.no_grad()
    def _listen(self, waiting: list[tuple[_Open, Window]]) -> None:
        """One forward pass; each window's numbers go to its recording."""
        length = self.listening.samples
        clips = [cut(one.heard.samples, window, length) for one, window in waiting]
        waveform = torch.from_numpy(np.stack(clips)).to(self.device)
        lengths = [min(length, one.heard.samples.shape[1] - window.start) for one, window in waiting]
        listening = self.reasons.listening() if isinstance(self.reasons, EdgeReasons) else nullcontext()
        with listening, autocasting(self.device, self.autocast):
            output = (
                self.model(waveform)
                if self._tag is None
                else self.model(waveform, self._tag(waveform, lengths))
            )
        scenes = output.scene_logits.float().cpu().numpy()
        numbers = {"scenes": self._probabilities(scenes)}
        if output.event_logits is not None and output.event_logits.shape[1]:
            numbers["events"] = output.event_logits.float().sigmoid().cpu().numpy()
        if output.frame_logits is not None:
            numbers["frames"] = output.frame_logits.float().sigmoid().cpu().numpy()
        if self.reasons is not None:
            numbers["pull"] = self.reasons.pull(_float(output)).float().cpu().numpy()
        for row, (one, window) in enumerate(waiting):
            one.add(window, {name: values[row] for name, values in numbers.items()}, self.hop)

    def _probabilities(self, logits: np.ndarray) -> np.ndarray:
        if not logits.shape[1]:
            return logits
        if self.calibration is not None:
            return self.calibration.probabilities(logits.astype(np.float64))
        return torch.from_numpy(logits).double().softmax(1).numpy()

    def _answer(self, one: _Open | Failed) -> Answer | Failed:
        if isinstance(one, Failed):
            return one
        if not all(np.isfinite(values).all() for values in (one.scenes, one.events)):
            return Failed(one.file, "the model's answer is not a number")
        names, heard = self.about["scenes"], one.heard
        order = np.argsort(-one.scenes, kind="stable")
        scenes = {names[s]: float(one.scenes[s]) for s in order}
        best = next(iter(scenes), None)
        sure = (
            None
            if self.calibration is None or best is None
            else bool(self.calibration.sure(one.scenes[order[:1]])[0])
        )
        events = self._events(one)
        notes = list(heard.notes)
        if heard.samples.shape[1] < self.listening.samples:
            length = f"{self.listening.samples / self.listening.sample_rate:g} s"
            notes.append(f"shorter than the model's {length}: followed by silence")
            if sure is not None and heard.samples.shape[1] < LEAST * self.listening.samples:
                sure = False
                notes.append("less than half of that: never called sure")
        if len(one.windows) > 1:
            of_scenes = "the scenes averaged, " if scenes else ""
            notes.append(f"{len(one.windows)} windows: {of_scenes}the largest of each event")
        return Answer(
            file=one.file,
            seconds=heard.seconds,
            scene=best,
            probability=None if best is None else scenes[best],
            unsure=None if sure is None else not sure,
            scenes=scenes,
            events=events,
            spans=self._spans(one, events) if self.hop and one.frames is not None else None,
            why=self._why(one, order),
            notes=tuple(notes),
        )

    def _events(self, one: _Open) -> dict[str, float]:
        names = self._event_names(one)
        order = np.argsort(-one.events, kind="stable")[: self.top_events]
        return {names[e]: float(one.events[e]) for e in order}

    def _event_names(self, one: _Open) -> list[str]:
        """In the order of the model's event logits."""
        columns = getattr(self.model, "columns", None)
        names = self.about["events"]
        return [names[c] for c in columns.tolist()] if isinstance(columns, Tensor) else list(names)

    def _spans(self, one: _Open, events: Mapping[str, float]) -> tuple[Span, ...]:
        assert one.frames is not None
        seconds = self.hop / self.listening.sample_rate
        names = self._event_names(one)
        found = []
        for name in events:
            probabilities = one.frames[:, names.index(name)]
            edges = np.flatnonzero(np.diff(np.pad((probabilities >= FOUND).astype(np.int8), 1)))
            for first, stop in edges.reshape(-1, 2).tolist():
                peak = float(probabilities[first:stop].max())
                found.append(Span(name, first * seconds, stop * seconds, peak))
        return tuple(sorted(found, key=lambda span: (span.onset, span.offset, span.event)))

    def _why(self, one: _Open, order: np.ndarray) -> Why | None:
        if self.reasons is None or one.pull is None or len(order) < 2:
            return None
        gave = one.pull[order[0]] - one.pull[order[1]]
        names, probabilities = self._event_names(one), one.events
        most = [k for k in np.argsort(-gave, kind="stable")[:REASONS] if gave[k] > 0]
        reasons = tuple(
            Reason(said, float(probabilities[names.index(said[-1])]), float(gave[k]))
            for k, said in ((k, self.reasons.names[k]) for k in most)
        )
        against = self.about["scenes"][order[1]]
        return Why(self.reasons.kind, against, float(gave.sum()), reasons)

    def _tagger(self, folder: Path, teacher: Path | None) -> Any:
        """(waveform, lengths) → tags (B, K), for a model that reads them; else None."""
        count = tags_read(self.model)
        if not count and teacher is not None:
            raise ValueError(f"--teacher {teacher}: {folder} reads no tags; leave it out")
        if not count:
            return None
        tags = self.about["tags"]
        read = f"{folder} reads the {count} tags of {tags['model']} ({tags['checksum'][:12]})"
        if teacher is None:
            raise ValueError(f"{read}: name that tagger with --teacher")
        tagger = load_tagger(teacher, accept=True)
        if tagger.checksum != tags["checksum"]:
            raise ValueError(f"{read}; --teacher {teacher} is another ({tagger.checksum[:12]})")
        module = tagger.module.to(self.device)
        resample = resampler(self.listening.sample_rate, tagger.sample_rate).to(self.device)

        def tag(waveform: Tensor, lengths: list[int]) -> Tensor:
            where = ["a recording"] * len(lengths)
            return tag_clips(module, waveform, lengths, resample, where).half().float()  # as shards keep them

        return tag


class _Open:
    """A recording some of whose windows are still to be answered."""

    def __init__(self, file: str, heard: Heard, its_windows: list[Window]) -> None:
        self.file, self.heard, self.windows = file, heard, its_windows
        self.left = len(its_windows)
        self.scenes: np.ndarray = np.zeros(0)
        self.events: np.ndarray = np.zeros(0)
        self.pull: np.ndarray | None = None
        self.frames: np.ndarray | None = None

    def add(self, window: Window, numbers: Mapping[str, np.ndarray], hop: int) -> None:
        first = self.left == len(self.windows)
        weighted = numbers["scenes"] * window.weight
        self.scenes = weighted if first else self.scenes + weighted
        if "events" in numbers:
            self.events = numbers["events"] if first else np.maximum(self.events, numbers["events"])
        if "pull" in numbers:
            pull = numbers["pull"] * window.weight
            self.pull = pull if self.pull is None else self.pull + pull
        if "frames" in numbers:
            self._put_frames(window, numbers["frames"], hop)
        self.left -= 1

    def _put_frames(self, window: Window, frames: np.ndarray, hop: int) -> None:
        """Into their place; where two windows overlap, the earlier one's stay."""
        if self.frames is None:
            total = max(1, self.heard.samples.shape[1] // hop)
            self.frames = np.zeros((total, frames.shape[1]), np.float32)
            self.done = 0
        start = window.start // hop
        stop = min(start + len(frames), len(self.frames))
        self.frames[self.done : stop] = frames[self.done - start : stop - start]
        self.done = max(self.done, stop)


def _ended(one: _Open | Failed) -> bool:
    return isinstance(one, Failed) or one.left == 0


def _float(output: JointOutput) -> JointOutput:
    """In full precision, whatever the model was run in."""
    changed = {
        n: v.float() for n, v in vars(output).items() if isinstance(v, Tensor) and v.is_floating_point()
    }
    return JointOutput(**vars(output) | changed)
