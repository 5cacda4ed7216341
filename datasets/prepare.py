"""Raw recordings to shards.

    python -m datasets.prepare NAME --source DIR --out SHARDS [--rate HZ] [--channels mono] …
    python -m datasets.prepare --help                 the NAMEs

A reader (datasets/corpora) says which files, splits and labels there are, and datasets/build.py makes shards
of them. Every listed file is decoded in full (datasets/encode.py), by as many threads as there are cores;
`--rate` and `--channels` make mixed files alike (datasets/convert.py), and loudness is not touched. Damaged
clips are left out, counted and named, and above `--max-damaged` the preparation fails. Shards are made in a
staging folder (datasets/staging.py), from which a killed preparation goes on; the result has the same bytes
as if it had not been killed. `--out` is a folder, which gets its name when everything is in place, or an
fsspec URL, whose index.json is put last.
"""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro
from tyro.extras import SubcommandApp

from datasets import storage
from datasets.build import build_shards
from datasets.command import READING, exit_code, explained
from datasets.convert import Channels, Conversion
from datasets.corpora import (
    ABOUT,
    UNKNOWN,
    About,
    Classes2013,
    Corpus,
    TestList,
    TrainingLists,
    TrainingPart,
    Validation,
    read_audioset,
    read_audioset_strong,
    read_dcase2013,
    read_fsdkaggle2019,
    read_imoto,
    read_jssed,
    read_listing,
    read_tau2019,
    read_tau_like,
    read_tut2018,
    read_tut_as,
    read_tut_sed,
)
from datasets.corpora.jssed import is_mixed
from datasets.jssed_recipe import Recipe, make_jssed
from datasets.shard_writer import SHARD_BYTES
from datasets.shards import Index
from datasets.staging import check_free


def summary(index: Index, notes: Sequence[str]) -> str:
    """What a preparation ends with."""
    lines = [
        f"{index.place}: corpus {index.corpus!r}, {index.sample_rate} Hz, {index.channels} channel(s), "
        f"{index.sample_type}"
    ]
    for name, split in index.splits.items():
        lines.append(f"  {name:5} {split.clips:6} clips  {split.hours:7.2f} h  {len(split.shards)} shard(s)")
    lines.append(f"  {len(index.labels.scenes)} scenes, {len(index.labels.events)} events")
    lines += [f"  note: {note}" for note in notes]
    lines.append(f"  {len(index.dropped)} damaged clips dropped")
    lines += [f"    {file}: {reason}" for file, reason in index.dropped]
    lines += [f"  licence: {index.licence}", f"  checksum {index.checksum}"]
    return "\n".join(lines)


app = SubcommandApp()


def command(name: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Makes a function the command `name`."""
    return lambda function: app.command(name=name)(explained(function))


@explained
@dataclass(frozen=True)
class Work:
    """Where the shards go and how they are made."""

    out: str
    """the folder for the shards (must not exist or be empty), or an fsspec URL such as s3://bucket/name"""
    rate: int | None = None
    """resample to this sampling rate in Hz; without it all files must have the same"""
    channels: Channels = "keep"
    """mono = mean of the channels; stereo, mid_side and left_right_difference (L, R, L-R) take mono and
    stereo files"""
    max_damaged: float = 0.01
    """the fraction of clips that may be damaged"""
    jobs: int = os.cpu_count() or 1
    """threads that decode and encode"""
    shard_mb: float = SHARD_BYTES / 2**20
    """about how large a shard gets, in MiB"""

    def run(self, name: str, reader: Callable[..., Corpus], source: Path, **options: Any) -> None:
        if not (math.isfinite(self.shard_mb) and self.shard_mb > 0):
            raise ValueError(f"--shard-mb {self.shard_mb}: expected a number of MiB above 0")
        if (seed := options.get("seed", 0)) < 0:
            raise ValueError(f"--seed {seed}: expected 0 or more")
        if not 0 < (fraction := options.get("validation_fraction", 0.5)) < 1:
            raise ValueError(f"--validation-fraction {fraction}: accepted are values between 0 and 1")
        conversion = Conversion(self.rate, self.channels)
        out = self.out if storage.is_url(self.out) else Path(self.out)
        check_free(out)
        listing = reader(source, **options)
        built = build_shards(
            listing,
            source,
            out,
            name=name,
            conversion=conversion,
            max_damaged=self.max_damaged,
            jobs=self.jobs,
            shard_bytes=round(self.shard_mb * 2**20),
        )
        print(summary(built.index, built.notes))


@explained
@dataclass(frozen=True)
class HoldOut:
    """How a validation split is made where there is none."""

    validation: Validation = "auto"
    """auto = the corpus's val list if there is one, else by location; random is what the papers do"""
    validation_fraction: float = 0.2
    """how much of the training list is held out where there is no val list"""
    seed: int = 0
    """of the hold-out"""


WorkFlags = Annotated[Work, tyro.conf.arg(name="")]
HoldOutFlags = Annotated[HoldOut, tyro.conf.arg(name="")]
RecipeFlags = Annotated[Recipe, tyro.conf.arg(name="")]
DEFAULT_HOLD_OUT = HoldOut()
DEFAULT_RECIPE = Recipe()


def _plain(name: str, reader: Callable[..., Corpus], about: str) -> None:
    """A command for a corpus that has no options of its own."""

    def plain(source: Path, work: WorkFlags, hold_out: HoldOutFlags = DEFAULT_HOLD_OUT) -> None:
        work.run(name, reader, source, **vars(hold_out))

    plain.__doc__ = f"{about}\n\nArgs:\n    source: the folder that its archives were unpacked into\n"
    command(name)(plain)


_plain("tau2019", read_tau2019, "TAU Urban Acoustic Scenes 2019, development set.")
_plain("tut2018", read_tut2018, "TUT Urban Acoustic Scenes 2018, development set (the mobile variant too).")


@command("tau-like")
def tau_like(
    source: Path,
    work: WorkFlags,
    fold: int = 1,
    corpus: str | None = None,
    hold_out: HoldOutFlags = DEFAULT_HOLD_OUT,
) -> None:
    """A folder laid out like TAU Urban Acoustic Scenes 2019 (datasets/corpora/tau_like.py has the layout).

    Args:
        source: the corpus folder, with meta.csv, evaluation_setup/ and audio/
        fold: which of evaluation_setup/fold<k>_*.csv
        corpus: its name in reports (tau2019, tut2018, jssed: with licence, citation); default: the folder's
    """
    name = corpus or source.resolve().name
    work.run(name, read_tau_like, source, fold=fold, about=ABOUT.get(name, UNKNOWN), **vars(hold_out))


@command("tut-as")
def tut_as(source: Path, work: WorkFlags, fold: int = 1, hold_out: HoldOutFlags = DEFAULT_HOLD_OUT) -> None:
    """TUT Acoustic Scenes 2016 or 2017, development set: 15 scenes, four folds.

    Args:
        source: TUT-acoustic-scenes-2016-development/ or that of 2017
        fold: which of the four
    """
    work.run("tut-as", read_tut_as, source, fold=fold, **vars(hold_out))


@command("dcase2013")
def dcase2013(
    source: Path,
    work: WorkFlags,
    fold: int = 1,
    classes: Classes2013 = "tau2019",
    clip_seconds: float = 0.0,
    hold_out: HoldOutFlags = DEFAULT_HOLD_OUT,
) -> None:
    """DCASE 2013 scenes: ten scenes, 30 s; the public set and, where it is there, the private one as test.

    Args:
        source: the folder with scenes_stereo/ and scenes_stereo_testset/, or scenes_stereo/ itself
        fold: which fifth of the public set is the test split where there is no private set
        classes: tau2019 = its ten scenes, as paper 000 §V-G maps them; own = the corpus's own ten
        clip_seconds: cut the recordings into clips of this length; 0 = whole
    """
    options = {"fold": fold, "classes": classes, "clip_seconds": clip_seconds}
    work.run("dcase2013", read_dcase2013, source, **options, **vars(hold_out))


@command("jssed")
def jssed(source: Path, work: WorkFlags, hold_out: HoldOutFlags = DEFAULT_HOLD_OUT) -> None:
    """JSSED, or a corpus made by jssed-recipe, in the generic form that datasets/corpora/jssed.py describes.

    Args:
        source: the folder with scenes.tsv, events_strong.tsv and the clips
    """
    # A mixture of other recordings must not pass for JSSED in a report.
    name = "jssed-recipe" if is_mixed(source) else "jssed"
    work.run(name, read_jssed, source, **vars(hold_out))


@command("jssed-recipe")
def jssed_recipe(backgrounds: Path, events: Path, out: Path, recipe: RecipeFlags = DEFAULT_RECIPE) -> None:
    """Mix a corpus like JSSED from your own recordings; `jssed` prepares what it writes.

    Args:
        backgrounds: a folder a scene, with recordings in each
        events: a folder an event, with recordings in each
        out: the folder for the clips and their lists; must not exist or be empty
    """
    print(make_jssed(backgrounds, events, out, recipe))


@command("audioset")
def audioset(
    source: Path,
    work: WorkFlags,
    train: TrainingLists = "balanced",
    hold_out: HoldOutFlags = DEFAULT_HOLD_OUT,
) -> None:
    """AudioSet: 527 events, no scenes, weak labels. Listed clips without a file are counted, not fatal.

    Args:
        source: the folder with class_labels_indices.csv, the segment lists and, anywhere below, the clips
        train: the training lists; eval_segments.csv is the test split
    """
    work.run("audioset", read_audioset, source, train=train, **vars(hold_out))


@command("audioset-strong")
def audioset_strong(
    source: Path,
    work: WorkFlags,
    test: TestList = "strong",
    hold_out: HoldOutFlags = DEFAULT_HOLD_OUT,
) -> None:
    """AudioSet's strong labels of 2021: 456 events with onsets and offsets, no scenes.

    Args:
        source: the folder with audioset_{train,eval}_strong.tsv, mid_to_display_name.tsv and, below, clips
        test: the test list; framed = audioset_eval_strong_framed_posneg.tsv
    """
    work.run("audioset-strong", read_audioset_strong, source, test=test, **vars(hold_out))


@command("fsdkaggle2019")
def fsdkaggle2019(
    source: Path,
    work: WorkFlags,
    train: TrainingPart = "curated",
    hold_out: HoldOutFlags = DEFAULT_HOLD_OUT,
) -> None:
    """FSDKaggle2019 (DCASE 2019 task 2): 80 events, no scenes.

    Args:
        source: the folder with FSDKaggle2019.meta/ and the FSDKaggle2019.audio_… folders
        train: the training clips; validation is held out of the curated ones where they are used
    """
    work.run("fsdkaggle2019", read_fsdkaggle2019, source, train=train, **vars(hold_out))


@command("tut-sed")
def tut_sed(
    source: Path,
    work: WorkFlags,
    fold: int = 1,
    clip_seconds: float = 10.0,
    merge_years: bool = False,
    hold_out: HoldOutFlags = DEFAULT_HOLD_OUT,
) -> None:
    """TUT Sound Events 2016 and 2017: scenes and events with onsets and offsets.

    Args:
        source: TUT-sound-events-2016-development/, that of 2017, or the folder that holds both
        fold: which of the four
        clip_seconds: the length of the clips that the recordings are cut into; 0 = whole recordings
        merge_years: "car passing by" and "children shouting" of 2016 become "car" and "children" of 2017
    """
    options = {"fold": fold, "clip_seconds": clip_seconds, "merge_years": merge_years}
    work.run("tut-sed", read_tut_sed, source, **options, **vars(hold_out))


@command("imoto")
def imoto(
    source: Path,
    work: WorkFlags,
    fold: int = 0,
    clip_seconds: float = 10.0,
    hold_out: HoldOutFlags = DEFAULT_HOLD_OUT,
) -> None:
    """The joint set of Imoto et al.: TUT Acoustic Scenes and Sound Events, 4 scenes, 25 timed events.

    Args:
        source: the folder with metadata_SEDandASC01/ and the TUT-… folders that its lists name
        fold: 0 = the development and the evaluation set; 1 to 4 = a fold of the development set
        clip_seconds: the length of the clips that the recordings are cut into; 0 = whole recordings
    """
    work.run("imoto", read_imoto, source, fold=fold, clip_seconds=clip_seconds, **vars(hold_out))


@command("table")
def table(
    source: Path,
    work: WorkFlags,
    list_file: str | None = None,
    separator: str = ",",
    corpus: str | None = None,
    licence: str = UNKNOWN.licence,
    citation: str = UNKNOWN.citation,
    hold_out: HoldOutFlags = DEFAULT_HOLD_OUT,
) -> None:
    """Any recordings with one table: path, split, scene, events, onset, offset, location.

    datasets/corpora/listing.py has the rules.

    Args:
        source: the folder that the table's paths start from
        list_file: the table inside it; default: table.csv, table.tsv or table.parquet
        separator: between the names in a cell of events
        corpus: its name in reports; default: the folder's
        licence: what its users are allowed; it stays with the shards, tagged and mixed ones too
        citation: whom to cite; it stays with them too
    """
    name = corpus or source.resolve().name
    options = {"table": list_file, "separator": separator, "about": About(licence, citation)}
    work.run(name, read_listing, source, **options, **vars(hold_out))


def main(argv: list[str] | None = None) -> int:
    about = "Raw recordings to shards: python -m datasets.prepare NAME --help lists a corpus' options."
    prog = "python -m datasets.prepare"
    return exit_code(lambda: app.cli(args=argv, prog=prog, description=about, config=READING))


if __name__ == "__main__":
    sys.exit(main())
