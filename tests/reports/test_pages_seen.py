"""The page as a reader sees it: in headless Chromium at three widths and in print; and what each figure shows
without a browser."""

import html
import io
import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import study_folders as folders
from PIL import Image

import reports
from reports import collect, drawing, figures, findings, picture

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
NEEDS_CHROMIUM = pytest.mark.skipif(CHROMIUM is None, reason="no chromium, chromium-browser or google-chrome")
WIDTHS = (390, 1100, 1400)
LONG = "a_very_long_name_without_any_break_" * 3
# Measures the page from within; the page itself carries no script and forbids any, so a copy without that
# rule is measured. Boxes that scroll by themselves may hold more than they show.
PROBE = """<script>
addEventListener('load', () => {
  const told = {blank: [], wide: [], scrolls: [], page: document.documentElement.scrollWidth};
  for (const box of document.querySelectorAll('.scroll'))
    if (!box.closest('details') && box.scrollWidth > box.clientWidth + 1)
      told.scrolls.push(box.textContent.slice(0, 40));
  for (const image of document.images) {
    if (!image.complete || !image.naturalWidth || image.getBoundingClientRect().width < 100)
      told.blank.push(image.alt);
  }
  for (const one of document.querySelectorAll('h1,h2,h3,p,dt,dd,td,th,li,picture,summary,pre,.scroll')) {
    if (one.closest('.scroll') && !one.matches('.scroll')) {
      const cell = one.matches('td,th') && one.scrollWidth > one.clientWidth + 1;
      if (cell) told.wide.push(one.tagName + ' ' + one.textContent.slice(0, 60));
      continue;
    }
    if (one.closest('details:not([open])') && one.tagName != 'SUMMARY') continue;
    if (one.closest('nav')) continue;
    const box = one.getBoundingClientRect();
    const inner = getComputedStyle(one).overflowX == 'visible' ? box.left + one.scrollWidth : box.right;
    if (box.width && (Math.max(box.right, inner) > innerWidth + 1 || box.left < -1))
      told.wide.push(one.tagName + ' ' + one.textContent.slice(0, 60));
  }
  parent.postMessage(JSON.stringify(told), '*');
});
</script>"""
# Chromium's window is at least 500 pixels wide, a frame in it is as narrow as asked.
FRAME = """<iframe src="{page}" style="width:{width}px;height:2000px;border:0"></iframe>
<pre id="told"></pre><script>
addEventListener('message', event => document.getElementById('told').textContent = event.data);
</script>"""


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pages") / "study"
    data = {"scenes": [*folders.SCENES[:3], LONG], "events": [*folders.EVENTS[:5], LONG]}
    folders.searched(folder, 40, confirmed=3, seeds=3, name=f"csem {LONG}", data=data)
    return reports.build(folder)


def chromium(scratch: Path, *arguments: str) -> str:
    assert CHROMIUM is not None
    done = subprocess.run(
        [
            *(CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking"),
            *("--hide-scrollbars", "--force-device-scale-factor=1", f"--user-data-dir={scratch / 'profile'}"),
            *arguments,
        ],
        capture_output=True,
        text=True,
        timeout=180,
        env={**os.environ, "HOME": str(scratch)},
    )
    assert done.returncode == 0, done.stderr[-500:]
    return done.stdout


def told(scratch: Path, page: Path, width: int) -> dict[str, object]:
    """What PROBE finds on a copy of the page in a window of that width."""
    text, rules = re.subn(r"<meta[^>]*Content-Security-Policy[^>]*>", "", page.read_text())
    assert rules == 1
    copy = scratch / f"probe-{width}.html"
    copy.write_text(text.replace("</body>", PROBE + "</body>"))
    frame = scratch / f"frame-{width}.html"
    frame.write_text(FRAME.format(page=copy.name, width=width))
    shown = chromium(scratch, "--virtual-time-budget=4000", "--dump-dom", f"file://{frame}")
    found = re.search(r'<pre id="told">(.+?)</pre>', shown, re.S)
    assert found, shown[-500:]
    return json.loads(html.unescape(found[1]))


@NEEDS_CHROMIUM
@pytest.mark.slow
@pytest.mark.parametrize("width", WIDTHS)
def test_no_figure_is_blank_and_nothing_sticks_out(page: Path, tmp_path: Path, width: int) -> None:
    found = told(tmp_path, page, width)
    found.pop("scrolls")
    assert found == {"blank": [], "wide": [], "page": width}


@NEEDS_CHROMIUM
@pytest.mark.slow
def test_no_table_of_several_families_has_to_be_scrolled_at_a_desk(tmp_path: Path) -> None:
    """Neither the leaderboard nor what sets the configurations apart; on a phone they may scroll."""
    folder = folders.searched(tmp_path / "study", 40, confirmed=3, seeds=3)
    runs = pd.read_parquet(folder / "trials.parquet")
    runs["config.family"] = [("csem", "resnet_aet", "tagvector")[trial % 3] for trial in runs["trial"]]
    runs["macs"] = 123_456_789.0
    knobs = [c.removeprefix("config.") for c in runs.columns if c.startswith("config.") and "family" not in c]
    families = runs["config.family"].unique()
    for number in range(40):
        runs[f"config.only_{number}"] = runs["config.lr"].where(runs["config.family"] == families[number % 3])
    runs.to_parquet(folder / "trials.parquet")
    record = json.loads((folder / "study.json").read_text())
    space = [f"{family}.{knob}" for family in families for knob in knobs]
    (folder / "study.json").write_text(json.dumps(record | {"space": [*space, "family"]}))
    page = reports.build(folder)
    for width in (1100, 1400):
        found = told(tmp_path, page, width)
        assert found == {"blank": [], "wide": [], "scrolls": [], "page": width}
    assert [s[:9] for s in told(tmp_path, page, 390)["scrolls"]][:1] == ["ranktrial"]  # type: ignore[index,union-attr]


@NEEDS_CHROMIUM
@pytest.mark.slow
def test_the_probe_sees_a_blank_figure_and_overflowing_text(page: Path, tmp_path: Path) -> None:
    """A check that cannot fail would prove nothing."""
    broken = tmp_path / "broken.html"
    blank = 'src="data:image/png;base64,AAAA"'
    text = re.sub(r'src="data:image/png;base64,[^"]*"', blank, page.read_text(), count=1)
    wide = f'<p style="white-space:nowrap;overflow-wrap:normal">{LONG * 5}</p></main>'
    broken.write_text(text.replace("</main>", wide))
    found = told(tmp_path, broken, 1100)
    assert len(found["blank"]) == 1 and len(found["wide"]) == 1, found  # type: ignore[arg-type]


@NEEDS_CHROMIUM
@pytest.mark.slow
def test_the_screenshots_and_the_print_have_ink(page: Path, tmp_path: Path) -> None:
    for width in WIDTHS:
        picture = tmp_path / f"{width}.png"
        chromium(tmp_path, f"--window-size={width},2400", f"--screenshot={picture}", f"file://{page}")
        shown = np.asarray(Image.open(picture).convert("L"))
        assert shown.shape == (2400, width)
        bands = shown[:2400].reshape(8, 300, width)  # 300 pixels without any ink would be a hole
        assert all((band < 128).mean() > 0.001 for band in bands)
    pdf = tmp_path / "print.pdf"
    chromium(tmp_path, "--no-pdf-header-footer", f"--print-to-pdf={pdf}", f"file://{page}")
    assert pdf.read_bytes().startswith(b"%PDF")
    if shutil.which("pdftotext"):
        done = subprocess.run(["pdftotext", str(pdf), "-"], capture_output=True, text=True, check=True)
        words = done.stdout
        assert "Where the numbers come from" in words and "trainables.train" in words


@NEEDS_CHROMIUM
@pytest.mark.slow
def test_nothing_is_cut_off_in_print(tmp_path: Path) -> None:
    """By the rules for print, in a window as wide as the text of an A4 page: 180 mm, at which Chromium lays
    out a third more than 96 pixels an inch and shrinks it."""
    folder = folders.searched(tmp_path / "study", 40, confirmed=2, seeds=2)
    runs = pd.read_parquet(folder / "trials.parquet")
    runs["origin"] = [
        f"published: Hou et al. 2023, Table {t}, {'a row of many words ' * 4}" for t in runs.trial
    ]
    runs.to_parquet(folder / "trials.parquet")
    printed = tmp_path / "printed.html"
    printed.write_text(reports.build(folder).read_text().replace("@media print", "@media all"))
    width = round(180 / 25.4 * 96 * 4 / 3)
    found = told(tmp_path, printed, width)
    assert (found["wide"], found["page"]) == ([], width)


@NEEDS_CHROMIUM
@pytest.mark.slow
def test_a_picture_of_the_page_is_small(page: Path, tmp_path: Path) -> None:
    out = tmp_path / "top.png"
    assert picture.main([str(page), "--out", str(out), "--width", "1000", "--height", "1200"]) == 0
    assert Image.open(out).size == (1000, 1200) and out.stat().st_size < 200_000


def test_a_picture_without_a_page_or_a_browser_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    page, out = tmp_path / "page.html", str(tmp_path / "out.png")
    assert picture.main([str(page), "--out", out]) == 2
    assert (
        capsys.readouterr().err == f"error: {page}: no such page; python -m reports STUDY makes report.html\n"
    )
    page.write_text("<p>x</p>")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert picture.main([str(page), "--out", out]) == 2
    assert capsys.readouterr().err.startswith(
        "error: no browser to take a picture with; looked for chromium,"
    )


def test_every_figure_of_the_page_has_ink_in_its_plot_without_a_browser(tmp_path: Path) -> None:
    study = collect.load(folders.searched(tmp_path, 40, confirmed=3, seeds=3))
    found = figures.importance(study.runs, findings.searched_knobs(study), epochs=9, mode="max")
    ranking = findings.ranked(study)
    assert ranking.best is not None
    drawn = {
        figures.draw_learning_curves: figures.learning_curves(study),
        figures.draw_search_history: figures.search_history(study),
        figures.draw_tradeoff: figures.tradeoff(study),
        figures.draw_timeline: figures.timeline(study),
        figures.draw_importance: found,
        figures.draw_slices: figures.slices(study, found),
        figures.draw_parallel_coordinates: figures.parallel_coordinates(study, found),
        figures.draw_confirmation: figures.confirmation(study, ranking),
        figures.draw_confusion: figures.confusion(study, ranking.best.trial),
        figures.draw_event_precision: figures.event_precision(study, ranking.best.trial),
    }
    for draw, info in drawn.items():
        for png in drawing.render(draw, info):  # type: ignore[arg-type]
            pixels = np.asarray(Image.open(io.BytesIO(png)).convert("RGB")).astype(int)
            rows, columns, _ = pixels.shape
            middle = pixels[rows // 6 : -rows // 6, columns // 6 : -columns // 8]
            coloured = (middle.max(axis=2) - middle.min(axis=2)) > 60  # blue, red, green: data, not frame
            assert coloured.sum() > 40, draw.__name__
