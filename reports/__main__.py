"""`python -m reports STUDY [STUDY …]`: a report in each study folder, and its leaderboard on the terminal.

Several studies of the same clips are also compared: comparison.html in the folder that holds them, or --out.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import reports
from reports import collect, comparison, findings, notebook, paper_table, race, tables

SHORT = (
    "rank",
    "trial",
    "family",
    "test",
    "seeds",
    "against the best",
    "validation",
    "parameters",
)  # columns, up to a unit


def main(arguments: Sequence[str] | None = None) -> int:
    """Build the reports; 0, or 2 after one line about the first folder that is not a readable study."""
    parser = argparse.ArgumentParser(
        prog="python -m reports",
        description=__doc__,
        epilog="See also python -m reports.analysis (what a single model has learned) and python -m "
        "reports.compare (two sets of runs against each other).",
    )
    parser.add_argument("studies", nargs="+", metavar="STUDY", help="a study folder")
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="where the comparison of several goes")
    asked = parser.parse_args(arguments)
    try:
        studies = [collect.load(folder) for folder in asked.studies]  # all are checked before any is built
        home = asked.out or comparison.place_for(studies)
        contest = _contest(studies, home) if len(studies) > 1 else None
        for study in studies:
            page = reports.build(study.folder)
            print(summary(study))
            print(f"{page.with_suffix('.ipynb')}\n{page}")
        if contest:
            print("\n" + tables.as_text(comparison.board(contest)))
            print(notebook.build_comparison([study.folder for study in studies], home))
    except (collect.StudyError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def _contest(studies: Sequence[collect.Study], home: Path) -> comparison.Contest | None:
    """The studies side by side. None for papers' tables, which `reports.sweep` puts side by side."""
    if not home.is_dir():
        raise collect.StudyError(f"--out {home}: no such folder")
    if any(study.record.get("table") for study in studies):
        return None
    return comparison.contest(studies)


def summary(study: collect.Study) -> str:
    """The headline and a short leaderboard, of single search runs while nothing is confirmed; of a paper's
    table run again, ours beside the paper's and the rows against each other."""
    if study.record.get("table"):
        return _paper_table(study)
    result = findings.ranked(study)
    found = findings.finding(study, result)
    if result.standings:
        table = tables.leaderboard(study, result)
        named = {name.removesuffix(", %") for name in table.columns}
        board = tables.as_text(table, tuple(name for name in SHORT if name in named))
        if (raced := race.race_info(study, result)) is not None and len(raced.lanes) > 1:
            board = "\n".join([tables.as_text(race.race_table(raced)), *race.said(raced), board])
    else:
        table = tables.search_leaders(study)
        board = tables.as_text(table) if table.rows else ""
    name = tables.one_line(str(study.record["name"]))
    return "\n".join(filter(None, [f"{name}: {found.headline}", found.meaning, *found.sure[:2], board]))


def _paper_table(study: collect.Study) -> str:
    table = paper_table.paper_table(study)
    found = paper_table.finding(study, table)
    parts = [paper_table.beside_table(table), paper_table.pair_table(table), paper_table.left_out(table)]
    said = [found.status, found.headline, found.meaning, *found.sure]
    boards = ["\n" + tables.as_text(part) for part in parts if part.rows]
    return "\n".join([*filter(None, said), *boards])


if __name__ == "__main__":
    sys.exit(main())
