"""A paper's table run again: figures, verdicts and pairs as values, as text, as a file and as a page."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import study_folders as folders
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.text import Text
from scipy import stats

import reports
from reports import collect, drawing, figures, paper_table, statistics, tables, units
from reports.__main__ import summary

# The single runs behind two cells of Hou et al.'s Table III (TUT2018, AST).
MLHE = (77.79, 76.69, 78.28, 77.98, 76.93, 78.41, 78.43, 76.87, 76.66, 77.65)
CSEM = (78.39, 79.39, 78.62, 78.23, 79.99, 79.56, 78.85, 79.53, 79.76, 78.88)
DEVIATION = "max deviation of 10 runs"


def row(line: int, trial: int | None, value: float = 0.79, **changes: Any) -> dict[str, Any]:
    base = {"row": f"row {line}", "line": line, "corpus": "tut2018", "split": "test", "why": "", "unlike": []}
    figures = {"metric": "scene_accuracy", "value": value, "spread": 0.009, "spread_kind": DEVIATION}
    return base | figures | {"trial": trial} | changes


def study(
    folder: Path,
    rows: Sequence[dict[str, Any]],
    scores: dict[int, Sequence[float]],
    *,
    same_seeds: bool = True,
    baseline: int = 1,
    **changes: Any,
) -> collect.Study:
    """Scores of each trial by repeat, in per cent; NaN diverged."""
    runs = []
    for trial, values in scores.items():
        for repeat, value in enumerate(values, start=1):
            knobs = folders.config(framework="csem" if trial else "mlhe")
            one = folders.run(trial, value / 100, repeat=repeat, knobs=knobs, phase="table")
            one |= {
                "seed": repeat if same_seeds else 100 * trial + repeat,
                "test/scene_accuracy": value / 100,
            }
            runs.append(one | ({"state": "DIVERGED"} if math.isnan(value) else {}))
    table = {"name": "III", "paper": "Hou 2023", "baseline": baseline, "rows": list(rows)}
    seeds = max(map(len, scores.values()), default=0)
    return collect.load(folders.write(folder, runs, table=table, seeds=seeds, published=[], **changes))


def test_the_papers_own_runs_reproduce_its_cells_and_its_claim(tmp_path: Path) -> None:
    rows = [row(1, 0, 0.7757, spread=0.0091), row(2, 1, 0.7912, spread=0.0089)]
    found = paper_table.paper_table(study(tmp_path, rows, {0: MLHE, 1: CSEM}, same_seeds=False))
    for one in found.rows:
        assert one.verdict == "reproduced" and abs(one.difference) < 0.00005
        assert one.ours.max_deviation == pytest.approx(one.row["spread"], abs=0.00005)
    assert [round(100 * one.ours.sd, 2) for one in found.rows] == [0.72, 0.61]
    (pair,) = found.pairs
    assert (round(pair.comparison.t, 2), pair.comparison.df) == (5.21, 18)
    assert pair.comparison.p == pytest.approx(5.9e-5, abs=0.05e-5) and pair.p == pair.comparison.p


def test_repeats_of_one_seed_are_paired_and_corrected_after_holm(tmp_path: Path) -> None:
    scores = {0: (70.0, 72.0, 75.0, 71.0), 1: (71.0, 73.5, 75.5, 72.0), 2: (70.5, 71.0, math.nan, 73.0)}
    rows = [row(1, 0), row(2, 1), row(3, 2), row(3, 2, metric="scene_accuracy", corpus="jssed")]
    found = paper_table.paper_table(study(tmp_path, rows, scores))
    first, second = found.pairs  # the second row of trial 2 is the same training and the same metric
    expected = stats.ttest_rel(scores[1], scores[0])
    assert first.comparison.t == pytest.approx(expected.statistic) and first.comparison.df == 3
    kept = [0, 1, 3]
    other = stats.ttest_rel([scores[2][i] for i in kept], [scores[0][i] for i in kept])
    assert second.comparison.p == pytest.approx(other.pvalue)
    assert [first.p, second.p] == pytest.approx(statistics.holm([expected.pvalue, other.pvalue]))
    assert found.rows[2].lost == {"DIVERGED": 1} and found.rows[2].ours.n == 3


def test_another_baseline_turns_the_sign(tmp_path: Path) -> None:
    scores = {0: (70.0, 72.0, 75.0), 1: (71.0, 73.5, 75.5)}
    rows = [row(1, 0), row(2, 1)]
    (one,) = paper_table.paper_table(study(tmp_path / "a", rows, scores)).pairs
    (two,) = paper_table.paper_table(study(tmp_path / "b", rows, scores, baseline=2)).pairs
    assert (one.row["line"], two.row["line"]) == (2, 1)
    assert one.comparison.t == pytest.approx(-two.comparison.t)


def test_verdicts(tmp_path: Path) -> None:
    rows = [
        row(1, 0, 0.90),
        row(2, 0, 0.60),
        row(3, 0, 0.72),
        row(4, 0, 0.72, spread=None, spread_kind="unknown"),
        row(5, 0, 0.72, unlike=["reduced epochs (9, theirs 100)"]),
        row(6, 0, 0.72, metric="embedding_mi"),
        row(7, None, why="an ensemble"),
        row(8, 1, 0.72),
    ]
    found = paper_table.paper_table(study(tmp_path, rows, {0: (71.5, 72.5, 72.0)}))
    assert [one.verdict for one in found.rows] == [
        "worse",
        "better",
        "reproduced",
        "not comparable: its ± is unknown",
        "not comparable: reduced epochs (9, theirs 100)",
        "not comparable: no run has measured embedding_mi",
        "",
        "",
    ]
    assert found.rows[4].difference == pytest.approx(0.0)  # shown, and not judged
    board = paper_table.beside_table(found)
    assert board.rows[0][0] == "#1 row 1, test scene accuracy" and len(board.rows) == 7
    assert board.rows[4][5] == "0.0 (−1.0 to 1.0)"
    assert board.rows[-1][4] == "running"
    assert paper_table.left_out(found).rows == (
        ("#7 row 7, test scene accuracy", "79.00 ± 0.90", "an ensemble"),
    )
    said = paper_table.finding(study(tmp_path / "b", rows, {0: (71.5, 72.5, 72.0)}), found)
    assert said.headline == "Table III of Hou 2023: 1 reproduced, 1 better, 1 worse, 3 not comparable"
    assert said.status == "3 of 6 runs have ended. Everything below may change."
    assert "The test split was read once" in said.sure[0]


def test_a_row_that_is_only_drawn_has_our_figures_and_no_verdict(tmp_path: Path) -> None:
    rows = [row(1, 0), row(2, 1, None, spread=None, spread_kind="")]  # type: ignore[arg-type]
    one = study(tmp_path, rows, {0: (70.0, 71.0), 1: (72.0, 74.0)})
    found = paper_table.paper_table(one)
    drawn = found.rows[1]
    assert drawn.verdict == "not comparable: it prints no value" and math.isnan(drawn.difference)
    assert drawn.ours.mean == pytest.approx(0.73) and found.pairs[0].comparison.difference > 0
    assert paper_table.beside_table(found).rows[1][1] == "–"
    assert drawing.render(figures.draw_panels, figures.panels(found)).wide.startswith(b"\x89PNG")
    paper_table.write(one)
    kept = json.loads((one.folder / "table.json").read_text())["rows"][1]
    assert kept["value"] is None and kept["difference"] is None


def test_a_value_that_is_only_said_in_the_text_is_shown_so(tmp_path: Path) -> None:
    plain = {"spread": None, "spread_kind": "none printed"}
    rows = [row(1, 0, 0.68, **plain, said="text"), row(2, 1, None, **plain, said="")]  # type: ignore[arg-type]
    one = study(tmp_path, rows, {0: (70.0, 71.0), 1: (72.0, 74.0)})
    found = paper_table.paper_table(one)
    assert [line[1] for line in paper_table.beside_table(found).rows] == ["68 (text)", "–"]
    assert paper_table.IN_THE_TEXT in paper_table.finding(one, found).sure and "(text)" in summary(one)
    assert tables.printed({"metric": "pearson_hours", "value": 0.89, "said": "text"}) == "0.89 (text)"
    printed = paper_table.paper_table(study(tmp_path / "b", [row(1, 0)], {0: (70.0, 71.0)}))
    assert paper_table.IN_THE_TEXT not in paper_table.finding(one, printed).sure


def test_a_finished_row_whose_metric_was_not_measured_is_not_running(tmp_path: Path) -> None:
    rows = [row(1, 0), row(1, 0, 0.4, metric="frame_f_micro", unlike=["other corpus"]), row(2, 1)]
    one = study(tmp_path, rows, {0: (70.0, 71.0), 1: ()})
    runs = one.runs.assign(**{"test/frame_f_micro": math.nan})  # no clip of the split has onsets and offsets
    found = paper_table.paper_table(collect.Study(one.folder, one.record, runs, one.curves))
    words = [line[4] for line in paper_table.beside_table(found).rows]
    assert words[1:] == ["not comparable: no run has measured frame_f_micro", "running"]


def test_a_row_whose_runs_all_diverged_is_not_running(tmp_path: Path) -> None:
    rows = [row(1, 0), row(2, 1, unlike=["other corpus"]), row(3, 2)]
    nan = math.nan
    one = study(tmp_path, rows, {0: (70.0, 71.0), 1: (nan, nan), 2: (nan,)})
    words = [line[4] for line in paper_table.beside_table(paper_table.paper_table(one)).rows]
    assert words[1:] == ["not comparable: no run finished", "running"]


@pytest.mark.parametrize(
    "spread, kind, says",
    [
        (0.009, DEVIATION, "largest deviation of its runs from their mean. A verdict is Welch's t-test"),
        (0.009, "unknown", "does not say what its ± is"),
        (None, "none printed", "prints no ± here"),
    ],
)
def test_the_page_says_what_the_papers_spread_is(
    tmp_path: Path, spread: float | None, kind: str, says: str
) -> None:
    one = study(tmp_path, [row(1, 0, spread=spread, spread_kind=kind)], {0: (70.0, 71.0)})
    found = paper_table.paper_table(one)
    assert says in paper_table.about_spread(found)
    assert figures.has_bars(figures.panels(found)) == (spread is not None)


@pytest.mark.parametrize(
    "name, cited",
    [
        ("VII", "Table VII"),
        ("3 and 4", "Tables 3 and 4"),
        ("fig2", "Fig. 2"),
        ("fig3a and fig4", "Figs. 3a and 4"),
    ],
)
def test_a_table_or_figure_is_cited_as_the_paper_names_it(name: str, cited: str) -> None:
    assert units.cited(name) == cited


def test_no_title_of_a_panel_is_wider_than_the_phones_picture(tmp_path: Path) -> None:
    rows = [row(1, 0, row="Fake scene labels", metric=name) for name in ("frame_f_macro", "segment_f_macro")]
    one = study(tmp_path, rows, {0: (70.0, 71.0)})
    measured = {"test/frame_f_macro": 0.1, "test/segment_f_macro": 0.2}
    runs = one.runs.assign(**measured)
    found = paper_table.paper_table(collect.Study(one.folder, one.record, runs, one.curves))
    shown = figures.panels(found)
    with drawing.styled():
        figure = figures.draw_panels(shown, drawing.NARROW)
        FigureCanvasAgg(figure).draw()
        texts = [text for text in figure.findobj(Text) if "mean over events" in text.get_text()]
        edges = [text.get_window_extent() for text in texts]
    assert len(edges) == 2 and all(edge.x1 <= figure.bbox.x1 and edge.x0 >= 0 for edge in edges)


def test_what_holds_for_every_row_is_said_once(tmp_path: Path) -> None:
    both, own = "other corpus (mine, theirs tut2018)", "altered (width=0.1)"
    rows = [row(1, 0, split="validation", unlike=[both]), row(2, 1, split="validation", unlike=[both, own])]
    one = study(tmp_path, rows, {0: (70.0, 71.0), 1: (72.0, 74.0)})
    found = paper_table.paper_table(one)
    assert [line[4] for line in paper_table.beside_table(found).rows] == [
        "not comparable",
        f"not comparable: {own}",
    ]
    said = paper_table.finding(one, found)
    assert said.headline == "Table III of Hou 2023: no row can be judged" and said.status == ""
    assert said.sure[0] == f"Ours differs from the paper's in every row: {both}."
    assert said.sure[1].endswith("The test split was not read.")
    assert list(paper_table.knob_table(one, found).columns) == ["row", "framework"]


def test_the_file_holds_every_row_and_no_nan(tmp_path: Path) -> None:
    rows = [row(1, 0), row(2, 1), row(3, None, why="an ensemble")]
    one = study(tmp_path, rows, {0: (70.0, 71.0), 1: (72.0, 74.0)})
    paper_table.write(one)

    def refuse(name: str) -> None:
        raise AssertionError(name)

    kept = json.loads((one.folder / "table.json").read_text(), parse_constant=refuse)
    assert [found["verdict"] for found in kept["rows"]] == ["worse", "reproduced", ""]
    assert kept["rows"][0]["ours"]["values"] == [0.7, 0.71] and kept["rows"][2]["ours"]["n"] == 0
    assert kept["pairs"][0]["baseline"] == 0 and kept["pairs"][0]["column"] == "test/scene_accuracy"
    text = summary(one)
    assert "Table III of Hou 2023" in text and "an ensemble" in text and "p after Holm" in text


def test_a_row_that_a_race_put_out_says_so_and_its_missing_seeds_are_not_awaited(tmp_path: Path) -> None:
    scores = {0: (70.0, 71.0, 70.5), 1: (80.0, 81.0, 81.5, 80.5), 2: (60.0,)}
    drops = [
        {"trial": 0, "after": 3, "by": 1, "reason": ""},
        {"trial": 2, "after": 1, "by": None, "reason": "diverged"},
    ]
    rows = [row(1, 0, 0.7), row(2, 1, 0.8), row(3, 2, 0.6)]
    one = study(tmp_path, rows, scores, races={"tags>0.1": {"dropped": drops}})
    found = paper_table.paper_table(one)
    assert [line[3] for line in paper_table.beside_table(found).rows] == ["3 (out)", "4", "1 (out)"]
    said = paper_table.finding(one, found)
    assert said.status == "" and "stopped early" not in said.sure[0]
    assert "#1 row 1 after 3 seeds (beaten by #2 row 2); #3 row 3 after 1 seed (diverged)" in said.sure[1]
    paper_table.write(one)
    kept = json.loads((one.folder / "table.json").read_text())["rows"]
    assert [found["out"] and found["out"]["by"] for found in kept] == [1, None, None]
    still = study(tmp_path / "b", rows, {**scores, 1: (80.0, 81.0), 2: (60.0, 61.0, 60.0, 60.5)},
                  races={"labels": {"dropped": drops[:1]}})  # fmt: skip
    said = paper_table.finding(still, paper_table.paper_table(still))
    assert said.status == "9 of 11 runs have ended. Everything below may change."
    lost = study(tmp_path / "d", rows, {**scores, 2: (math.nan,)}, races={"labels": {"dropped": drops}})
    assert paper_table.paper_table(lost).rows[2].verdict == "not comparable: no run finished"
    none = study(tmp_path / "c", rows[:2], {0: (70.0,), 1: (71.0,)}, races={"labels": {"dropped": []}})
    assert "none was clearly beaten" in paper_table.finding(none, paper_table.paper_table(none)).sure[1]


def test_what_an_analysis_found_of_a_trained_model_stands_beside_table_10(tmp_path: Path) -> None:
    figures = {"spread": None, "spread_kind": "unknown"}
    rows = [
        row(1, 0, 4.784, metric="embedding_mi", **figures),
        row(2, 0, 1.0, metric="embedding_pcc", **figures),
    ]
    one = study(tmp_path, rows, {0: (70.0, 71.0)})
    assert all(found.ours.n == 0 for found in paper_table.paper_table(one).rows)
    written = one.folder / "runs" / "t0000-r1" / "analysis" / "test.json"
    written.parent.mkdir(parents=True)
    statistics = [
        {"statistic": "pearson", "estimator": "", "over": "dimensions", "mean": 0.9},
        {"statistic": "pearson", "estimator": "", "over": "clips", "mean": 0.5},
        {"statistic": "mutual information", "estimator": "exact values", "over": "dimensions", "mean": None},
    ]
    written.write_text(json.dumps({"dependence": statistics}))
    mi, pcc = paper_table.paper_table(one).rows
    assert (mi.ours.n, pcc.ours.n, pcc.ours.mean, round(pcc.difference, 9)) == (0, 1, 0.9, -0.1)
    assert pcc.verdict == "not comparable: ours is one run, a comparison needs 2"
    elsewhere = one.runs.assign(folder="../elsewhere")
    outside = tmp_path.parent / "elsewhere" / "analysis"
    outside.mkdir(parents=True)
    (outside / "test.json").write_text(json.dumps({"dependence": statistics}))
    moved = collect.Study(one.folder, one.record, elsewhere, one.curves)
    assert paper_table.paper_table(moved).rows[1].ours.n == 0  # the folder column is data


@pytest.mark.slow
def test_the_page_of_a_table_and_of_one_without_runs(tmp_path: Path) -> None:
    rows = [row(1, 0), row(2, 1, row="<script>alert(1)</script>"), row(3, None, why="an <b>ensemble</b>")]
    page = reports.build(study(tmp_path / "a", rows, {0: (70.0, 71.0), 1: (72.0, 74.0)}).folder).read_text()
    assert "Table III of Hou 2023" in page and "Ours beside the paper" in page
    assert "<script>" not in page and "&lt;script&gt;" in page and page.count("data:image/png") >= 2
    empty = reports.build(study(tmp_path / "b", rows, {}, status="running").folder).read_text()
    assert "No run has finished yet" in empty
