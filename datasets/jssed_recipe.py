"""A corpus made as JSSED was, from your own recordings:

    python -m datasets.prepare jssed-recipe --backgrounds DIR --events DIR --out DIR

    --backgrounds  <scene>/*.wav …     --events  <event>/*.wav …         (.flac, .ogg, .opus, .mp3 too)

Paper 000 (§V-A): 3000 clips of 30 s, 10 scenes with 10 background recordings each, 32 events that are related
to the scene, event-to-background ratio uniform from -15 to 15 dB; 2400 / 300 / 300 clips. Our choices, where
it is silent: 1 to 10 events a clip, each with a uniform onset; the ratio is that of the event's RMS over its
length to the background's over the clip; a background longer than the clip is cut at a random start, a
shorter one is repeated with cross-fades; a mixture that would clip is turned down as a whole.

Everything follows from the seed and the names of the files: the same sources give the same bytes, whatever
`jobs` is. Scenes are equally frequent. Sources of train, val and test are different files wherever a class
has three or more. recipe.json says what each clip is made of. The result is in the form of
datasets/corpora/jssed.py.
"""

from __future__ import annotations

import functools
import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import soundfile

from datasets.command import explained
from datasets.convert import Conversion
from datasets.corpora.audioset import SUFFIXES
from datasets.corpora.corpus import SPLITS
from datasets.corpora.jssed import CLIPS, EVENTS, SCENES, spelling
from datasets.encode import quantise, reason
from datasets.prefetch import map_ahead
from datasets.progress import Progress
from datasets.shard_writer import check_unused, unfinished
from datasets.tables import read_table

FADE_SECONDS = 0.05
# The rows of JSSED's scene-to-event table that are known (facts: meta-formats); other scenes take all events.
RELATIONS: Mapping[str, tuple[str, ...]] = {
    "bus": ("clearthroat", "cough", "keys", "laughter", "phone", "speech"),
    "busystreet": ("buspassby", "doorclose", "footsteps", "keylock", "knock", "laughter", "motorbike",
                   "speech", "running", "wind"),
    "office": ("chairsmoving", "doorslam", "drawer", "keys", "knock", "laughter", "switch", "phone"),
    "openairmarket": ("bagrustle", "buspassby", "cooking", "footsteps", "footstepsongrass", "lightrain",
                      "money", "speech", "wind"),
    "park": ("buspassby", "birdsong", "footstepsongrass", "gate", "laughter", "lightrain", "phone",
             "pushbike", "speech", "wind"),
    "quietstreet": ("birdsong", "footsteps", "keylock", "lightrain", "pushbike", "wind"),
    "restaurant": ("chairsmoving", "cooking", "doorclose", "footsteps", "laughter", "speech"),
}  # fmt: skip


@explained
@dataclass(frozen=True)
class Recipe:
    """How the clips are mixed."""

    clips: int = 3000
    """a tenth of them for validation, a tenth for test"""
    seconds: float = 30.0
    """length of a clip"""
    snr_db: tuple[float, float] = (-15.0, 15.0)
    """lowest and highest ratio of event to background in dB"""
    events_per_clip: tuple[int, int] = (1, 10)
    """fewest and most"""
    rate: int = 44100
    """sampling rate in Hz"""
    stereo: bool = False
    """two channels instead of one"""
    relations: Path | None = None
    """a table (TAB) scene_label, event_label: which events occur in which scene; default: JSSED's, as far as
    it is known, for its names, and every event in any other scene"""
    seed: int = 0
    """of all that is drawn"""
    jobs: int = os.cpu_count() or 1
    """threads that mix"""


@dataclass(frozen=True)
class Placed:
    """An event of a clip: times in s, ratio to the background in dB."""

    file: str
    label: str
    onset: float
    offset: float
    snr_db: float


@dataclass(frozen=True)
class Mixture:
    """What a clip is made of; `start` is where it begins in the background (s)."""

    file: str
    split: str
    scene: str
    background: str
    start: float
    events: tuple[Placed, ...]


@dataclass(frozen=True)
class Sources:
    """{class: {split: files}} below `root`, and the classes with too few files to keep splits apart."""

    root: Path
    files: Mapping[str, Mapping[str, Sequence[Path]]]
    shared: tuple[str, ...]

    def name(self, path: Path) -> str:
        return path.relative_to(self.root).as_posix()


def make_jssed(backgrounds: Path, events: Path, out: Path, recipe: Recipe, *, progress: bool = True) -> str:
    """Write the clips and their lists into the folder `out`; gives back a summary.

    Raises ValueError or OSError with one line for options that make no sense, folders without recordings, a
    silent or unreadable recording.
    """
    _check(recipe)
    check_unused(out)
    scenes = _sources(backgrounds, "scene", recipe.seed, 0)
    sounds = _sources(events, "event", recipe.seed, 1)
    related = _related(scenes, sounds, recipe)
    read = functools.lru_cache(maxsize=256)(
        functools.partial(_read, conversion=Conversion(recipe.rate, "stereo" if recipe.stereo else "mono"))
    )
    jobs = [(split, number) for split, count in _counts(recipe).items() for number in range(count)]
    plan = functools.partial(_plan, scenes=scenes, sounds=sounds, related=related, recipe=recipe, read=read)
    with unfinished(out) as folder, Progress(len(jobs), progress) as bar:
        (folder / "audio").mkdir()

        def make(job: tuple[str, int]) -> Mixture:
            mixture = plan(*job)
            _write(folder / mixture.file, _mix(mixture, scenes.root, sounds.root, recipe, read), recipe.rate)
            return mixture

        made = []
        for mixture in map_ahead(make, jobs, recipe.jobs):
            made.append(mixture)
            bar.step()
        _write_lists(folder, made, scenes, sounds, recipe)
    return _summary(out, made, scenes, sounds)


def _check(recipe: Recipe) -> None:
    low, high = recipe.events_per_clip
    if recipe.clips < 10:
        raise ValueError(f"--clips {recipe.clips}: at least 10, for a tenth of them to be something")
    if not 1 <= recipe.seconds <= 3600:
        raise ValueError(f"--seconds {recipe.seconds:g}: accepted are 1 to 3600 s")
    if not -100 <= recipe.snr_db[0] <= recipe.snr_db[1] <= 100:
        raise ValueError(f"--snr-db {recipe.snr_db[0]:g} {recipe.snr_db[1]:g}: the lowest first, -100 to 100")
    if not 0 <= low <= high <= 1000:
        raise ValueError(f"--events-per-clip {low} {high}: the fewest first, 0 to 1000")
    if recipe.seed < 0:
        raise ValueError(f"--seed {recipe.seed}: expected 0 or more")
    if recipe.jobs < 1:
        raise ValueError(f"--jobs {recipe.jobs}: at least 1")


def _counts(recipe: Recipe) -> dict[str, int]:
    tenth = round(recipe.clips / 10)
    return {"train": recipe.clips - 2 * tenth, "val": tenth, "test": tenth}


def _sources(root: Path, kind: str, seed: int, code: int) -> Sources:
    """The recordings of each class, divided 8 : 1 : 1 among the splits."""
    if not root.is_dir():
        what = "a file, not a folder" if root.exists() else "no such folder"
        raise FileNotFoundError(f"{root}: {what}; expected a folder for each {kind}, with recordings")
    files: dict[str, dict[str, Sequence[Path]]] = {}
    shared = []
    for number, folder in enumerate(sorted(path for path in root.iterdir() if path.is_dir())):
        found = sorted(path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES)
        if not found:
            continue
        order = [
            found[place] for place in np.random.default_rng([seed, code, number]).permutation(len(found))
        ]
        tenth = max(1, round(len(found) / 10))
        if len(found) < len(SPLITS):
            shared.append(folder.name)
            files[folder.name] = dict.fromkeys(SPLITS, order)
        else:
            parts = (order[2 * tenth :], order[:tenth], order[tenth : 2 * tenth])
            files[folder.name] = dict(zip(SPLITS, parts))
    if not files:
        raise FileNotFoundError(
            f"{root}: no folder with recordings ({', '.join(SUFFIXES)}); expected one for each {kind}"
        )
    return Sources(root, files, tuple(shared))


def _related(scenes: Sources, sounds: Sources, recipe: Recipe) -> dict[str, tuple[str, ...]]:
    """{scene: its events}"""
    events = sorted(sounds.files)
    if recipe.relations is None:
        known = {spelling(event): event for event in events}
        found = {}
        for scene in scenes.files:
            names = [known[name] for name in RELATIONS.get(spelling(scene), ()) if name in known]
            found[scene] = tuple(names or events)
        return found
    rows: dict[str, list[str]] = {scene: [] for scene in scenes.files}
    for row in read_table(recipe.relations, ("scene_label", "event_label")):
        for kind, name, there in (
            ("scene_label", row["scene_label"], scenes.files),
            ("event_label", row["event_label"], sounds.files),
        ):
            if name not in there:
                raise ValueError(f"{row.where}: {kind} {name!r} has no folder; there are: {', '.join(there)}")
        rows[row["scene_label"]].append(row["event_label"])
    if silent := [scene for scene, names in rows.items() if not names]:
        raise ValueError(f"{recipe.relations}: no event for scene {silent[0]!r}")
    return {scene: tuple(dict.fromkeys(names)) for scene, names in rows.items()}


Read = Callable[[Path], np.ndarray]


def _plan(
    split: str,
    number: int,
    *,
    scenes: Sources,
    sounds: Sources,
    related: Mapping[str, Sequence[str]],
    recipe: Recipe,
    read: Read,
) -> Mixture:
    """Clip `number` of a split. What it is made of depends on nothing but its number, the seed and the
    sources."""
    rng = np.random.default_rng([recipe.seed, 2, SPLITS.index(split), number])
    names = sorted(scenes.files)
    scene = names[number % len(names)]
    background = _choose(scenes.files[scene][split], rng)
    spare = len(read(background)) / recipe.rate - recipe.seconds
    start = round(float(rng.uniform(0, spare)), 3) if spare > 0 else 0.0
    placed = []
    for _ in range(int(rng.integers(recipe.events_per_clip[0], recipe.events_per_clip[1] + 1))):
        label = related[scene][int(rng.integers(len(related[scene])))]
        path = _choose(sounds.files[label][split], rng)
        length = min(len(read(path)) / recipe.rate, recipe.seconds)
        onset = round(float(rng.uniform(0, recipe.seconds - length)), 3)
        snr_db = round(float(rng.uniform(*recipe.snr_db)), 2)
        offset = round(min(onset + length, recipe.seconds), 3)
        placed.append(Placed(sounds.name(path), label, onset, offset, snr_db))
    file = f"audio/{''.join(c if c.isalnum() else '_' for c in scene)}-{split}-{number:05d}.flac"
    events = tuple(sorted(placed, key=lambda event: (event.onset, event.file)))
    return Mixture(file, split, scene, scenes.name(background), start, events)


def _choose(files: Sequence[Path], rng: np.random.Generator) -> Path:
    return files[int(rng.integers(len(files)))]


def _read(path: Path, conversion: Conversion) -> np.ndarray:
    """(n, C) float64, not silent. Raises ValueError naming the file."""
    try:
        samples, rate = soundfile.read(path, always_2d=True)
        samples = conversion.apply(samples, rate)
    except (soundfile.SoundFileError, OSError, ValueError) as error:
        raise ValueError(f"{path}: {reason(error, path)}") from error
    if len(samples) == 0 or not np.isfinite(samples).all() or not _rms(samples) > 0:
        raise ValueError(f"{path}: silent, empty or not finite; take it out")
    return samples


def _rms(samples: np.ndarray) -> float:
    return float(np.sqrt(np.mean(samples**2)))


def _mix(mixture: Mixture, scenes: Path, sounds: Path, recipe: Recipe, read: Read) -> np.ndarray:
    """(n, C) float64 within full scale"""
    samples = round(recipe.seconds * recipe.rate)
    first = round(mixture.start * recipe.rate)
    fade = round(FADE_SECONDS * recipe.rate)
    mixed = extend(read(scenes / mixture.background)[first:], samples, fade).copy()
    level = _rms(mixed)
    if level == 0:
        raise ValueError(f"{scenes / mixture.background}: silent from {mixture.start:g} s on; take it out")
    for event in mixture.events:
        at = round(event.onset * recipe.rate)
        sound = _faded_end(read(sounds / event.file), samples - at, fade)
        mixed[at : at + len(sound)] += sound * (level / _rms(sound) * 10 ** (event.snr_db / 20))
    peak = float(np.abs(mixed).max())
    return mixed / peak * (1 - 2.0**-15) if peak > 1 - 2.0**-15 else mixed


def extend(samples: np.ndarray, length: int, fade: int) -> np.ndarray:
    """(n, C) cut or repeated to (length, C), each repetition cross-faded into the one before over `fade`
    samples, at equal power."""
    fade = min(fade, len(samples) // 2)
    made = samples
    while len(made) < length:
        ramp = np.sin(np.pi / 2 * (np.arange(fade) + 0.5) / max(fade, 1))[:, None]
        joint = made[len(made) - fade :] * ramp[::-1] + samples[:fade] * ramp
        made = np.concatenate((made[: len(made) - fade], joint, samples[fade:]))
    return made[:length]


def _faded_end(sound: np.ndarray, room: int, fade: int) -> np.ndarray:
    """An event, faded out where it has to be cut."""
    if len(sound) <= room:
        return sound
    cut = sound[:room].copy()
    fade = min(fade, room)
    cut[room - fade :] *= np.linspace(1, 0, fade)[:, None]
    return cut


def _write(path: Path, samples: np.ndarray, rate: int) -> None:
    soundfile.write(path, quantise(samples, 16)[0], rate, format="FLAC", subtype="PCM_16")


def _write_lists(
    folder: Path, made: Sequence[Mixture], scenes: Sources, sounds: Sources, recipe: Recipe
) -> None:
    clips = ["filename\tscene_label\tsplit\tlocation"]
    events = ["filename\tonset\toffset\tevent_label"]
    for m in made:
        clips.append(f"{m.file}\t{m.scene}\t{m.split}\t{Path(m.background).with_suffix('').as_posix()}")
        events += [f"{m.file}\t{e.onset:.3f}\t{e.offset:.3f}\t{e.label}" for e in m.events]
    labels = ["label,kind,index"]
    for kind, names, theirs in (("scene", scenes.files, SCENES), ("event", sounds.files, EVENTS)):
        labels += [f'"{name}",{kind},{place}' for place, name in enumerate(_ordered(names, theirs))]
    about = {name: value for name, value in asdict(recipe).items() if name not in ("jobs", "relations")}
    record = {"recipe": about, "clips": [asdict(m) for m in made]}
    for name, text in (
        (CLIPS, "\n".join(clips)),
        ("events_strong.tsv", "\n".join(events)),
        ("labels.csv", "\n".join(labels)),
        ("recipe.json", json.dumps(record, ensure_ascii=False)),
    ):
        (folder / name).write_text(text + "\n", encoding="utf-8")


def _ordered(names: Mapping[str, object], theirs: Sequence[str]) -> list[str]:
    """In JSSED's order where all are its names, else alphabetical."""
    if all(spelling(name) in theirs for name in names):
        return sorted(names, key=lambda name: theirs.index(spelling(name)))
    return sorted(names)


def _summary(out: Path, made: Sequence[Mixture], scenes: Sources, sounds: Sources) -> str:
    counts = " / ".join(str(sum(m.split == split for m in made)) for split in SPLITS)
    lines = [
        f"{out}: {counts} clips (train / val / test), {len(scenes.files)} scenes, {len(sounds.files)} "
        f"events, {sum(len(m.events) for m in made)} events placed"
    ]
    for kind, sources in (("backgrounds", scenes), ("events", sounds)):
        lines.append(
            f"  {kind}: fewer than three recordings of {', '.join(sources.shared)}, which all splits share"
            if sources.shared
            else f"  {kind}: no recording is in two splits"
        )
    lines.append(f"  next: python -m datasets.prepare jssed --source {out} --out SHARDS")
    return "\n".join(lines)
