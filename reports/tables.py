"""The report's tables as plain text; `markup` turns them into HTML, `as_text` into a terminal's lines."""

from __future__ import annotations

import math
import shlex
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from reports import cost, units
from reports.collect import Study
from reports.findings import LOST, Comparable, lost, printed_row, reasons
from reports.rank import Ranking, Standing, differing, foreign, search_table
from reports.statistics import summarise

MOST_COLUMNS = 6  # knobs with a column of their own
MOST_PACKED = 5  # search runs whose knobs share a column: each takes several lines
LONGEST = 400  # rows of a table on the page; the rest is in trials.parquet


class Table(NamedTuple):
    """Columns and rows of plain text.

    numeric   indexes of the columns aligned to the right
    emphasis  indexes of the rows to stand out
    note      a sentence under the table, "" for none
    """

    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    numeric: frozenset[int] = frozenset()
    emphasis: frozenset[int] = frozenset()
    note: str = ""


def leaderboard(study: Study, result: Ranking) -> Table:
    """The confirmed configurations, best validation mean first, with the test result beside it."""
    val, test = units.scale(study.metric), units.scale(study.test_metric)
    unit = f", {test.unit}" if test.unit else ""
    costs, device = cost.by_trial(study, "confirm"), cost.reserved(study).device
    counted = any(math.isfinite(one.macs) for one in costs.values())
    several = any("family" in s.config for s in result.standings)
    columns = (
        "rank",
        "trial",
        *(["family"] if several else []),
        f"test{unit}",
        "seeds",
        "against the best",
        "test, 95 % interval",
        "test, largest deviation",
        f"validation{unit}",
        "validation, 95 % interval",
        "parameters",
        *(["MACs a clip"] if counted else []),
        f"{device}-hours a run",
    )
    rows = tuple(
        (
            str(s.rank),
            str(s.trial),
            *([str(s.config.get("family"))] if several else []),
            mean_sd(s.test.mean, s.test.sd, test),
            _runs(s),
            _against(s, place),
            units.mean_interval(s.test.low, s.test.high, test),
            units.score(s.test.max_deviation, test),
            mean_sd(s.validation.mean, s.validation.sd, val),
            units.mean_interval(s.validation.low, s.validation.high, val),
            units.size(s.parameters),
            *([units.size(costs[s.trial].macs)] if counted else []),
            cost.hours(costs[s.trial].hours),
        )
        for place, s in enumerate(result.standings)
    )
    waiting = ", ".join(f"trial {t} ({_counts(c)})" for t, c in result.waiting.items())
    intervals = [(s.test.low, s.test.high, test) for s in result.standings]
    intervals += [(s.validation.low, s.validation.high, val) for s in result.standings]
    notes = [f"Without a finished run: {waiting}."] if waiting else []
    notes += [units.CUT_OFF] if any(units.reaches_out(*one) for one in intervals) else []
    words = {"family", "against the best"}
    numeric = frozenset(place for place, name in enumerate(columns) if name not in words)
    return Table(columns, rows, numeric, frozenset({0} if rows else ()), " ".join(notes))


def mean_sd(mean: float, sd: float, on: units.Scale) -> str:
    """ "82.4 ± 0.7", the mean alone where there is no spread, "–" where there is nothing."""
    text = units.score(mean, on)
    return f"{text} ± {units.score(sd, on)}" if math.isfinite(sd) else text


def _runs(standing: Standing) -> str:
    return str(standing.validation.n) + (f" ({lost(standing)})" if standing.lost else "")


def _counts(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{n} {LOST.get(state, state.lower())}" for state, n in counts.items())


def _against(standing: Standing, place: int) -> str:
    if place == 0:
        return "best"
    if standing.p != standing.p:
        return "tied (no test)"
    text = units.p_value(standing.p)
    p = text if text.startswith("<") else f"= {text}"
    return f"tied, p {p}" if standing.tied else f"worse, p {p}"


def _origin(origin: str) -> str:
    return {"sampler": "sampler", "": units.NONE}.get(origin, origin)


def apart(study: Study, result: Ranking) -> Table:
    """What sets the confirmed configurations apart, and which of them come from a paper or an earlier study.

    One row a knob and one column a trial; of several families, whose knobs are not the same, one row a trial.
    """
    standings = result.standings
    origins = tuple(_origin(s.origin) for s in standings)
    if any("family" in s.config for s in standings):
        told = _own_knobs(study, [s.config for s in standings])
        found = zip(standings, told, origins)
        lines = tuple((str(s.trial), str(s.config["family"]), text, origin) for s, text, origin in found)
        return _unless_all(Table(("trial", "family", "its knobs", "from"), lines), "from", "sampler")
    trials = tuple(f"trial {s.trial}" for s in standings)
    rows = [(n, *(units.short_knob(s.config.get(n)) for s in standings)) for n in result.differing]
    rows += [("from", *origins)] if set(origins) != {"sampler"} else []
    return Table(("knob", *trials), tuple(rows), frozenset(range(1, len(trials) + 1)))


def _own_knobs(study: Study, configs: Sequence[Mapping[str, Any]]) -> list[str]:
    """The knobs in which every configuration differs from those of its family, and of several families those
    that its own searched: "lr=0.001, mixup=0.2"."""
    space, said = set(map(str, study.record.get("space", ()))), []
    for config in configs:
        family = config.get("family")
        varied = differing([other for other in configs if other.get("family") == family])
        names = [n for n in config if n in varied or f"{family}.{n}" in space]
        told = [n for n in names if n != "family" and not foreign(config, n)]
        said.append(", ".join(f"{n}={units.short_knob(config[n])}" for n in told) or units.NONE)
    return said


def search_leaders(study: Study, most: int = 10) -> Table:
    """The best full-length search runs: single numbers, with the knobs they differ in; many knobs, or those
    of several families, share a column."""
    found = search_table(study.runs, epochs=study.epochs, mode=study.mode)
    on = units.scale(study.metric)
    knobs = differing([row.config for row in found])
    several = any("family" in row.config for row in found)
    packed = several or len(knobs) > MOST_COLUMNS
    most = min(most, MOST_PACKED) if packed else most
    shown = found[:most]
    told = _own_knobs(study, [row.config for row in shown])
    named = (*(["family"] if several else []), "its knobs") if packed else knobs
    columns = ("place", "trial", _header(on), "n", *named, "parameters", "from")
    rows = tuple(
        (
            str(place),
            str(row.trial),
            units.score(row.score, on),
            "1",
            *([str(row.config.get("family"))] if several else []),
            *([text] if packed else [units.short_knob(row.config.get(knob)) for knob in knobs]),
            units.size(row.parameters),
            _origin(row.origin),
        )
        for place, (row, text) in enumerate(zip(shown, told), start=1)
    )
    words = {"family", "its knobs", "from"}
    numeric = frozenset(place for place, name in enumerate(columns) if name not in words)
    more = f"The best {most} of {len(found):,}." if len(found) > most else ""
    board = Table(columns, rows, numeric, note=more)
    if packed:  # the knobs need the width; where each comes from is in the table of all runs
        return board._replace(columns=columns[:-1], rows=tuple(row[:-1] for row in rows))
    return _unless_all(board, "from", "sampler")


def _unless_all(table: Table, column: str, text: str) -> Table:
    """The table without a last column that says the same in every row."""
    if table.columns[-1] != column or any(row[-1] != text for row in table.rows):
        return table
    return table._replace(columns=table.columns[:-1], rows=tuple(row[:-1] for row in table.rows))


def _header(on: units.Scale) -> str:
    return f"{on.split} {on.label}" + (f", {on.unit}" if on.unit else "")


def best_knobs(study: Study, config: Mapping[str, Any]) -> Table:
    """Every knob of a configuration, of its own family where several were searched, and where its value
    comes from."""
    family = str(config.get("family") or study.record["family"])
    prefix = f"{family}."
    searched = {str(name).removeprefix(prefix) for name in study.record.get("space", ())}
    pins = {str(name).removeprefix(prefix) for name in study.record.get("pins") or {}}
    own = [name for name in config if not foreign(config, name)]
    ordered = sorted(own, key=lambda name: (name not in searched, name not in pins))
    rows = tuple(
        (
            name,
            units.knob(config[name]),
            "searched" if name in searched else "pinned" if name in pins else "default",
        )
        for name in ordered
    )
    return Table(("knob", "value", "chosen by"), rows, frozenset({1}))


def published_rows(judged: tuple[Comparable, ...], result: Ranking) -> tuple[Table, Table]:
    """(rows with a verdict, rows that cannot be compared)."""
    by_trial = {s.trial: s for s in result.standings}
    comparable = [item for item in judged if item.verdict.trial is not None]
    others = [item for item in judged if item.verdict.trial is None]
    first = Table(
        ("paper", "row", "metric", "published", "ours", "verdict", "difference", "ours is"),
        tuple(_comparable_row(item, by_trial) for item in comparable),
        frozenset({3, 4}),
    )
    second = Table(
        ("paper", "row", "corpus", "split", "metric", "published", "why not comparable"),
        tuple(_other_row(item) for item in others),
        frozenset({5}),
    )
    return first, second


def why_not(others: Table) -> Table:
    """The reasons of the rows that cannot be compared, with how many rows each has, most first."""
    said = [row[-1] for row in others.rows]
    counts = sorted({why: said.count(why) for why in said}.items(), key=lambda item: -item[1])
    return Table(("not comparable because", "rows"), tuple((w, str(n)) for w, n in counts), frozenset({1}))


def _comparable_row(item: Comparable, by_trial: Mapping[int, Standing]) -> tuple[str, ...]:
    row, found = item.row, item.verdict
    on = units.scale(f"test/{row['metric']}")
    ours = by_trial[found.trial].tests[row["metric"]] if found.trial is not None else summarise([])
    difference = units.number(found.difference * on.factor, 1 if on.unit else 3, sign=True)
    return (
        str(row.get("paper", "")),
        printed_row(row),
        on.label,
        printed(row),
        mean_sd(ours.mean, ours.sd, on),
        found.word,
        f"{difference} ({units.interval(found.low, found.high, on)})",
        f"trial {found.trial}, {found.against}",
    )


def _other_row(item: Comparable) -> tuple[str, ...]:
    row = item.row
    return (
        str(row.get("paper", "")),
        printed_row(row),
        str(row.get("corpus", "")),
        str(row.get("split", "")),
        units.scale(f"test/{row.get('metric', '')}").label,
        printed(row),
        item.verdict.word.removeprefix("not comparable: "),
    )


def printed(row: Mapping[str, Any]) -> str:
    """The value as the paper prints it, two decimals, with its ± where it has one; "68 (text)" where its text
    says it and no table does."""
    on = units.scale(f"test/{row.get('metric', '')}")
    value, spread, said = row.get("value"), row.get("spread"), str(row.get("said") or "")
    places = (2 if on.unit else 3) if not said else (0 if on.unit else 2)
    text = units.score(float(value), on, places) if isinstance(value, int | float) else units.NONE
    text += f" ({said})" if said and text != units.NONE else ""
    return f"{text} ± {units.score(float(spread), on, places)}" if isinstance(spread, int | float) else text


# --- all runs -----------------------------------------------------------------------------------------------

STATE_WORDS = {
    "COMPLETE": "finished",
    "PRUNED": "stopped early",
    "DIVERGED": "diverged",
    "FAIL": "failed",
    "RUNNING": "running",
}


def reason_table(study: Study) -> Table:
    """Why runs did not finish: failed and diverged first, kinds of reasons with counts."""
    rows = tuple(
        (STATE_WORDS.get(r.state, r.state), str(r.runs), r.example, _some(r.trials))
        for r in reasons(study.runs)
    )
    return Table(("what happened", "runs", "reason (of one of them)", "trials"), rows, frozenset({1}))


def _some(trials: tuple[int, ...], most: int = 12) -> str:
    shown = ", ".join(str(t) for t in trials[:most])
    return shown + (f", and {len(trials) - most} more" if len(trials) > most else "")


def all_runs(study: Study) -> Table:
    """Every run: failed and diverged first, then by phase and trial."""
    on = units.scale(study.metric)
    order = {"FAIL": 0, "DIVERGED": 1, "RUNNING": 2}
    runs = study.runs.assign(_first=study.runs["state"].map(order).fillna(3))
    runs = runs.sort_values(["_first", "phase", "trial", "repeat"], ascending=[True, False, True, True])
    rows = tuple(
        (
            f"{r['trial']}" + (f" / {r['repeat']}" if r["repeat"] else ""),
            {"confirm": "confirmation"}.get(r["phase"], r["phase"]),
            STATE_WORDS.get(r["state"], r["state"]),
            str(r["epochs"]),
            units.score(r["score"], on),
            units.duration(r["seconds"]),
            str(r["seed"]),
            _origin(r["origin"]),
            r["reason"],
        )
        for r in runs.head(LONGEST).to_dict("records")
    )
    note = (
        f"The first {LONGEST} of {len(runs):,} runs; all are in trials.parquet."
        if len(runs) > LONGEST
        else ""
    )
    columns = ("trial / repeat", "phase", "state", "epochs", _header(on), "time", "seed", "from", "reason")
    return Table(columns, rows, frozenset({0, 3, 4, 5, 6}), note=note)


# --- provenance ---------------------------------------------------------------------------------------------

MAIN_PACKAGES = ("scenetune", "torch", "torchaudio", "ray", "optuna", "numpy", "pandas", "webdataset")


def provenance(study: Study) -> Table:
    """Where every number comes from: code, command, data, machine, seeds, time."""
    record, data = study.record, study.record["data"]
    git, hardware = record.get("git") or {}, record.get("hardware") or {}
    packages = record.get("packages") or {}
    clips = data.get("clips") or {}
    commit = str(git.get("commit") or "not a git checkout")
    if git.get("dirty"):
        commit += " with uncommitted changes"
    gpus = hardware.get("gpus") or []
    code = {"code": f"{git['code']} (how to find its commit: clusters/README.md)"} if git.get("code") else {}
    rows = {
        "command": shlex.join(str(word) for word in record.get("command") or ()),
        "commit": commit,
        **code,
        "versions": ", ".join(f"{name} {packages[name]}" for name in MAIN_PACKAGES if name in packages),
        "data": f"{data.get('corpus', '')} at {data.get('path', '')}",
        "data checksum": str(data.get("checksum", "")),
        "data licence": str(data.get("licence", "")),
        "clips": ", ".join(f"{name} {clips[name]:,}" for name in ("train", "val", "test") if name in clips),
        "audio": _audio(data),
        "labels": f"{units.plural(len(study.scenes), 'scene')}, {units.plural(len(study.events), 'event')}",
        "hardware": _hardware(hardware, gpus),
        "search": _search(record),
        "seeds": f"study seed {record.get('seed')}; each run's own is in the table of all runs",
        "started": units.instant(record.get("created")),
        "finished": units.instant(record.get("finished")),
    }
    return Table(("", ""), tuple((name, text or units.NONE) for name, text in rows.items()))


def _audio(data: Mapping[str, Any]) -> str:
    rate, channels, seconds = data.get("sample_rate"), data.get("channels"), data.get("seconds")
    parts = [
        f"{rate:,} Hz" if isinstance(rate, int) else "",
        f"{channels} channel{'s' if channels != 1 else ''}",
    ]
    parts.append(f"clips of up to {seconds:g} s" if isinstance(seconds, int | float) else "")
    return ", ".join(part for part in parts if part)


def _hardware(hardware: Mapping[str, Any], gpus: list[Any]) -> str:
    names = ", ".join(str(g) for g in gpus) or "no GPU"
    parts = [f"{hardware.get('cpus', '?')} CPU cores", names, str(hardware.get("platform", ""))]
    if hardware.get("python"):
        parts.append(f"Python {hardware['python']}")
    return ", ".join(part for part in parts if part)


def _search(record: Mapping[str, Any]) -> str:
    if record.get("table"):
        length = f"{record.get('seeds')} seeds of {record.get('epochs')} epochs"
        return f"none: the rows of {units.cited(str(record['table'].get('name')))}, {length} each"
    plan = f"{record.get('trials')} trials of up to {record.get('epochs')} epochs"
    methods = f"sampler {record.get('sampler')}, pruner {record.get('pruner')}"
    return (
        f"{plan}, {methods}; the best {record.get('confirm')} confirmed over {record.get('seeds')} seeds each"
    )


def all_versions(study: Study) -> Table:
    """Every recorded package and its version."""
    packages = study.record.get("packages") or {}
    return Table(("package", "version"), tuple((str(k), str(v)) for k, v in sorted(packages.items())))


def as_text(table: Table, columns: tuple[str, ...] = ()) -> str:
    """A table as aligned lines for a terminal; `columns` picks some by their names without ", unit"."""
    names = [name.removesuffix(", %") for name in table.columns]
    picked = [names.index(name) for name in columns] or list(range(len(names)))
    lines = [[table.columns[i] for i in picked], *([one_line(row[i]) for i in picked] for row in table.rows)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(picked))]
    return "\n".join(
        "  ".join(
            cell.rjust(width) if index in table.numeric else cell.ljust(width)
            for cell, width, index in zip(line, widths, picked)
        ).rstrip()
        for line in lines
    )


def one_line(text: str) -> str:
    """One line without control characters: a name must not be able to move a terminal's cursor."""
    return "".join(c if c.isprintable() else " " for c in text)
