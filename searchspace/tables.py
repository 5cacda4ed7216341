"""A paper's table run again: which of its rows can be trained here, as what, and from which seeds.

The rows are fixed: nothing is proposed, stopped early or chosen; raced, a row that another one clearly beats
on the validation split gets no more seeds. Rows that print several figures of one
training (a scene and an event metric, say) share a configuration. Repeat r of every configuration has the
same seed, so that rows are compared seed by seed. Every row either has a trial or says why not, and a row
that runs but differs from the paper's (fewer epochs, no pretrained weights, other data …) says so: its
figures stand beside the paper's without a verdict.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from searchspace.pins import agrees
from searchspace.published import Published
from searchspace.race import Race
from searchspace.study import Job, run_folder, seed_for

PHASE = "table"
AUDIOSET_CLASSES = 527
CORRELATION = "pearson_"  # … of the size named after it with scene accuracy
START = ("pretrained", "accept_mismatch")
SAME_TRAINING = ("precision", "activation_checkpointing", *START)
NUMERALS = {"I": 1, "V": 5, "X": 10}


@dataclass(frozen=True)
class Here:
    """What this study has to offer a row.

    events             whether the shards hold event labels
    tags               of how many classes they hold a tagger's probabilities, 0 for none
    asked_events       the source of event labels that the user wants for all rows; None = each row's own
    random_validation  whether validation shares recording sites with training; None if it can't be told
    complete           (knobs, source of event labels) → every knob; raises ValueError for what can't be
                       built for these clips
    unmeasured         (a row's metric, its split) → why no run here can measure it, "" if one can
    """

    corpus: str
    events: bool
    tags: int
    asked_events: str | None
    epochs: int
    random_validation: bool | None
    complete: Callable[[Mapping[str, Any], str], dict[str, Any]]
    unmeasured: Callable[[str, str], str] = lambda metric, split: ""


@dataclass(frozen=True)
class Configuration:
    """One training to be repeated. `events` is the source of its event labels, as `open_source` takes it;
    `test`: whether a row of it is printed for the test split, which is read for no other."""

    trial: int
    values: Mapping[str, Any]
    events: str
    test: bool
    origin: str


@dataclass(frozen=True)
class Row:
    """A printed row with the trial that trains it, or with why none does; `unlike`: in what that training
    differs from the paper's."""

    published: Published
    trial: int | None = None
    why: str = ""
    unlike: tuple[str, ...] = ()


@dataclass(frozen=True)
class Plan:
    table: str
    rows: tuple[Row, ...]
    configurations: tuple[Configuration, ...]


def names(published: Iterable[Published]) -> list[str]:
    """The tables that have rows, in the paper's order."""
    return sorted({row.table for row in published}, key=lambda name: (_number(name), name))


def rows_of(published: Sequence[Published], table: str, lines: str = "") -> list[Published]:
    """The rows of a table ("VII", "vii" or "7"), all or those on `lines` ("1,2,14"), in its order; of
    several ("3,4") whose lines are numbered alike, one table's after the other's.

    Raises ValueError for an unknown table or line, with those there are, and for tables in which one line is
    two different rows.
    """
    found = list(dict.fromkeys(_table(published, word.strip()) for word in table.split(",")))
    rows = sorted(
        (row for row in published if row.table in found), key=lambda row: (found.index(row.table), row.line)
    )
    if len(found) > 1:
        _refuse_other_lines(rows)
    there = sorted({row.line for row in rows})
    wanted = _lines(lines, there) if lines else there
    return [row for row in rows if row.line in wanted]


def _table(published: Sequence[Published], asked: str) -> str:
    known = names(published)
    for name in known:
        if asked.lower() == name.lower() or asked == str(_number(name)):
            return name
    papers = ", ".join(dict.fromkeys(row.paper for row in published))
    raise ValueError(f"--table {asked}: {papers} has no such table; known: {', '.join(known)}")


def _refuse_other_lines(rows: Iterable[Published]) -> None:
    first: dict[int, Published] = {}
    for row in rows:
        other = first.setdefault(row.line, row)
        if other.table != row.table and other.row != row.row:
            raise ValueError(
                f"--table {other.table},{row.table}: row {row.line} is {other.row!r} in {other.table} and "
                f"{row.row!r} in {row.table}; run them one after the other"
            )


def _lines(text: str, there: Sequence[int]) -> list[int]:
    words = [word.strip() for word in text.split(",")]
    for word in words:
        if not word.isdecimal() or int(word) not in there:
            raise ValueError(
                f"--rows {text}: {word!r} is no row of this table; expected numbers from {there[0]} to "
                f"{there[-1]}, separated by commas"
            )
    return [int(word) for word in words]


def plan(rows: Sequence[Published], pins: Mapping[str, Any], here: Here) -> Plan:
    """What to train for `rows`. `pins` set knobs the rows leave open; rows they contradict are not run.
    Weights to start from are for the rows that are printed with some, where any is.

    Raises ValueError when no row is left, with the reasons, and for a choice of values where rows have none.
    """
    for name, pin in pins.items():
        if isinstance(pin, tuple) and not all(name in row.values for row in rows if row.trainable):
            raise ValueError(f"--set {name}={','.join(map(str, pin))}: with --table one value, for its rows")
    planned: list[Row] = []
    configurations: list[Configuration] = []
    from_scratch = {name: pin for name, pin in pins.items() if name not in START}
    asked, some = pins, any(row.pretrained for row in rows)
    for row in rows:
        pins = from_scratch if some and not row.pretrained else asked
        source, unlike, why = _events(row, here)
        why = why or row.needs or here.unmeasured(row.metric, row.split)
        why = why or _elsewhere(row, rows, here) or _contradiction(row, pins)
        values: dict[str, Any] = {}
        if not why:
            try:
                values = here.complete({**pins, **_fixed(row, pins)}, source)
            except ValueError as error:
                why = f"can't be built here: {error}"
        if why:
            planned.append(Row(row, None, why))
            continue
        trial = _configuration(configurations, row, values, source)
        unlike = [*_unlike(row, values, here), *unlike, *_altered(row, values, source, pins, here)]
        planned.append(Row(row, trial, "", tuple(unlike)))
    tables = list(dict.fromkeys(row.table for row in rows))
    if not configurations:
        reasons = "; ".join(dict.fromkeys(row.why for row in planned))
        raise ValueError(f"--table {','.join(tables)}: none of its {len(rows)} rows can be run: {reasons}")
    return Plan(" and ".join(tables), tuple(planned), tuple(configurations))


def jobs(configurations: Iterable[Configuration], seeds: int, study_seed: int, epochs: int) -> list[Job]:
    """Every configuration from the same `seeds` seeds, the first seed of all before the second of any."""
    found = list(configurations)
    return [
        Job(
            number=-1,
            trial=one.trial,
            repeat=repeat,
            phase=PHASE,
            values=dict(one.values),
            seed=seed_for(study_seed, {}, repeat),
            epochs=epochs,
            folder=run_folder(one.trial, repeat),
            origin=one.origin,
            test=one.test,
        )
        for repeat in range(1, seeds + 1)
        for one in found
    ]


def race(jobs: Sequence[Job], seeds: int, study_seed: int) -> Race:
    """The same runs as a race between configurations: one that another clearly beats on validation gets no
    more of its seeds; the others get all."""
    first = [job for job in jobs if job.repeat == 1]
    return Race(first, seeds, headline=0, study_seed=study_seed, phase=PHASE)


def as_record(made: Plan, baseline: int, published: Iterable[Published] = ()) -> dict[str, Any]:
    """The plan as study.json keeps it and reports read it; the others are compared with line `baseline`.
    "quoted" are the correlations that the paper, all of whose rows are `published`, gives in its text."""
    columns = ("row", "line", "corpus", "split", "metric", "value", "spread", "spread_kind", "said")
    return {
        "name": made.table,
        "paper": made.rows[0].published.paper,
        "baseline": baseline,
        "quoted": {row.metric: row.value for row in published if row.metric.startswith(CORRELATION)},
        "rows": [
            {name: getattr(row.published, name) for name in columns}
            | {"trial": row.trial, "why": row.why, "unlike": list(row.unlike)}
            for row in made.rows
        ],
    }


def baseline_line(made: Plan, asked: int | None) -> int:
    """The line to compare with: the one asked for, else the first that runs. Raises ValueError if it does not
    run."""
    running = list(dict.fromkeys(row.published.line for row in made.rows if row.trial is not None))
    if asked is not None and asked not in running:
        raise ValueError(f"--baseline {asked}: not a row that runs; those are {', '.join(map(str, running))}")
    return running[0] if asked is None else asked


def shares_sites(train: Iterable[str], val: Iterable[str]) -> bool | None:
    """Whether validation clips come from recording sites that training has too, by the clips' keys.

    Keys of the TUT and TAU corpora are scene-city-location-segment-device; None for others.
    """
    sites = []
    for keys in (train, val):
        parts = [key.split("-") for key in keys]
        if not parts or any(len(part) != 5 for part in parts):
            return None
        sites.append({tuple(part[:3]) for part in parts})
    return bool(sites[0] & sites[1])


def _configuration(found: list[Configuration], row: Published, values: Mapping[str, Any], events: str) -> int:
    """The trial of these values, a new one if there is none yet."""
    for place, one in enumerate(found):
        if one.values == values and one.events == events:
            found[place] = Configuration(
                one.trial, values, events, one.test or row.split == "test", one.origin
            )
            return one.trial
    origin = f"published: {row.paper}, Table {row.table}, {row.row}"
    found.append(Configuration(len(found), values, events, row.split == "test", origin))
    return len(found) - 1


def _events(row: Published, here: Here) -> tuple[str, list[str], str]:
    """(source of the event labels, in what it differs from the paper's, why there is none)."""
    if not row.events:
        return "labels", [], ""
    if here.asked_events and here.asked_events.removesuffix(":0") != row.events:  # seed 0 is the default
        return here.asked_events, [f"other event labels ({here.asked_events}, theirs {row.events})"], ""
    if row.events.startswith("tags") and not here.tags:
        if here.events:
            return "labels", [f"other event labels (the corpus's, theirs {row.events})"], ""
        return "", [], f"needs a tagger's labels ({row.events}): python -m trainables.teacher writes them"
    if row.events.startswith("labels") and not here.events:
        return "", [], "needs event labels, these shards have none"
    if row.events.startswith("tags") and here.tags != AUDIOSET_CLASSES:
        return row.events, [f"other tagger ({here.tags} classes, theirs AudioSet's {AUDIOSET_CLASSES})"], ""
    return row.events, [], ""


def _elsewhere(row: Published, rows: Sequence[Published], here: Here) -> str:
    """Rows of another corpus wait for it where the table has rows of this one."""
    ours = any(_plain(other.corpus) == _plain(here.corpus) for other in rows)
    return f"needs {row.corpus} shards" if ours and _plain(row.corpus) != _plain(here.corpus) else ""


def _fixed(row: Published, pins: Mapping[str, Any]) -> dict[str, Any]:
    """What the row says of the knobs; one that is assumed gives way to a pin of one value."""
    open_to = [name for name in row.assumed if name in pins and not isinstance(pins[name], tuple)]
    return {name: value for name, value in row.values.items() if name not in open_to}


def _contradiction(row: Published, pins: Mapping[str, Any]) -> str:
    fixed = _fixed(row, pins)
    wrong = [name for name, pin in pins.items() if name in fixed and not agrees(fixed, {name: pin})]
    return ", ".join(f"--set {name} leaves it out: it has {fixed[name]}" for name in wrong)


def _altered(
    row: Published, values: Mapping[str, Any], source: str, pins: Mapping[str, Any], here: Here
) -> list[str]:
    """The pins that make another training of the row: other than its defaults, and not only another way to
    the same gradient."""
    try:
        usual: Mapping[str, Any] = here.complete(row.values, source) if pins else {}
    except ValueError:  # these clips are too short for it unless a pin helps, say
        usual = {}
    fixed = _fixed(row, pins)
    changed = [name for name in pins if name not in fixed and usual.get(name, pins) != values[name]]
    batch = usual.get("batch_size", 0) * usual.get("accumulate", 0)
    if batch and values["batch_size"] * values["accumulate"] == batch:
        changed = [name for name in changed if name not in ("batch_size", "accumulate")]
    return [f"altered ({name}={values[name]})" for name in changed if name not in SAME_TRAINING]


def _unlike(row: Published, values: Mapping[str, Any], here: Here) -> list[str]:
    found = [row.unlike] if row.unlike else []
    if _plain(row.corpus) != _plain(here.corpus):
        found.append(f"other corpus ({here.corpus}, theirs {row.corpus})")
    if row.split == "validation" and here.random_validation is False:
        found.append("other split (validation at other sites than training, theirs random)")
    if row.pretrained and not values.get("pretrained"):
        found.append(f"not pretrained (theirs: {row.pretrained})")
    if values.get("pretrained") and not row.pretrained:
        found.append("pretrained (theirs is not)")
    if row.epochs and here.epochs < row.epochs:
        found.append(f"reduced epochs ({here.epochs}, theirs {row.epochs})")
    return found


def _number(name: str) -> int:
    """Roman numeral at the start of a table's name → its value; 0 without one."""
    found = re.match(r"[IVX]+", name)
    digits = [NUMERALS[letter] for letter in found[0]] if found else []
    return sum(-d if d < after else d for d, after in zip(digits, [*digits[1:], 0]))


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())
