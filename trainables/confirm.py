"""The race of the finalists as a user sees it: who is out, told once, and its state kept in study.json."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from searchspace import record
from searchspace.race import Race
from searchspace.study import Ledger
from trainables.progress import Progress


def follow(
    study: Path,
    race: Race,
    ledger: Ledger,
    progress: Progress,
    ended: Callable[[], None],
    *,
    among: str = "",
) -> Callable[[], None]:
    """Let the race decide which runs `ledger` hands out; gives what is to be called after each of them.

    study.json holds it as "race"; of several (a table's, one for each source of event labels) as
    "races"[among].
    """
    ledger.more = race.next_jobs
    known = {drop.trial for drop in race.standing(ledger.rows()).dropped}

    def keep(rows: list[dict[str, Any]]) -> None:
        about, found = record.read(study), race.as_record(rows)
        races = {"races": about.get("races", {}) | {among: found}} if among else {"race": found}
        record.write(study, about | races)

    def after_a_run() -> None:
        ended()
        rows = ledger.rows()
        progress.jobs = race.at_most(rows)
        for drop in race.standing(rows).dropped:
            if drop.trial not in known:
                known.add(drop.trial)
                progress.say(f"trial {drop.trial} is out: {drop.reason}")
        keep(rows)

    if race.finalists:
        keep(ledger.rows())
    return after_a_run
