"""The race of the finalists as a user sees it: who is out, told once, and its state kept in study.json."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from searchspace import record
from searchspace.race import Race
from searchspace.study import Ledger
from trainables.progress import Progress


def follow(
    study: Path, race: Race, ledger: Ledger, progress: Progress, ended: Callable[[], None]
) -> Callable[[], None]:
    """Let the race decide which runs `ledger` hands out; gives what is to be called after each of them."""
    ledger.more = race.next_jobs
    known = {drop.trial for drop in race.standing(ledger.rows()).dropped}

    def after_a_run() -> None:
        ended()
        rows = ledger.rows()
        progress.jobs = race.at_most(rows)
        for drop in race.standing(rows).dropped:
            if drop.trial not in known:
                known.add(drop.trial)
                progress.say(f"trial {drop.trial} is out: {drop.reason}")
        record.write(study, record.read(study) | {"race": race.as_record(rows)})

    if race.finalists:
        record.write(study, record.read(study) | {"race": race.as_record(ledger.rows())})
    return after_a_run
