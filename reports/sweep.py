"""Scores along one quantity, with the correlations a paper quotes:

    python -m reports.sweep STUDY                               a table's rows along the knob that varies
    python -m reports.sweep STUDY STUDY … --of hours --row 15   one row in studies of other training data
    python -m reports.sweep STUDY STUDY … --of events
    python -m reports.sweep STUDY STUDY … --of study            studies side by side, whatever sets them apart

Prints the points and, with --out FILE.png, draws them (Parikh et al. 2022, Figs. 2 to 5).
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from reports import collect, drawing, tables, units
from reports.figures.sweeps import FEWEST, SIZES, Sweep, correlated, data_sweep, draw_sweep, table_sweep

ACROSS = (*SIZES, "study")
HEADS = {"hours": "hours of all sets"}


def main(arguments: Sequence[str] | None = None) -> int:
    """0, or 2 after one line about what can't be drawn."""
    parser = argparse.ArgumentParser(
        prog="python -m reports.sweep", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("studies", nargs="+", metavar="STUDY", help="folders of tune_csem.py --table")
    parser.add_argument("--of", default="", help="hours or events of the data, study, or a knob's name")
    parser.add_argument("--row", type=int, help="the table's row, where a study has several")
    parser.add_argument("--out", type=Path, help="picture to draw (.png)")
    asked = parser.parse_args(arguments)
    try:
        studies = [collect.load(folder) for folder in asked.studies]
        found = _swept(studies, asked.of, asked.row)
        print(text(found))
        if asked.out:
            asked.out.write_bytes(drawing.render(draw_sweep, found).wide)
            print(asked.out)
    except (collect.StudyError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def _swept(studies: Sequence[collect.Study], of: str, row: int | None) -> Sweep:
    if of not in ACROSS and len(studies) > 1:
        raise collect.StudyError(f"--of {of!r}: expected hours, events or study for several studies")
    found = data_sweep(studies, of, row) if of in ACROSS else table_sweep(studies[0], of)
    if found.note:
        raise collect.StudyError(f"{studies[0].folder}: {found.note}")
    return found


def text(found: Sweep) -> str:
    """The points, a line each, and the correlations."""
    parts = []
    for line in found.lines:
        on = units.scale(line.column)
        rows = tuple(
            (point.name, tables.mean_sd(point.ours.mean, point.ours.sd, on), str(point.ours.n))
            for point in line.points
        )
        name = f"{on.split} {on.label}" + (f", {on.unit}" if on.unit else "")
        parts.append(
            tables.as_text(
                tables.Table((HEADS.get(found.of, found.of), name, "n"), rows, frozenset({0, 1, 2}))
            )
        )
        if found.of == "study":
            continue
        said = correlated(line)
        parts.append(
            f"correlation of {found.of} with the means, {units.plural(len(rows), 'point')}: "
            + (
                f"{said}, Spearman {units.number(line.spearman, 2)}\n"
                if said
                else f"none; it takes {FEWEST}\n"
            )
        )
    return "\n".join(parts).rstrip()


if __name__ == "__main__":
    sys.exit(main())
