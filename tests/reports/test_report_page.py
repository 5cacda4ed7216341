"""The notebook and the page, made for real; and the command."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
import study_folders as folders

import reports
from reports import notebook
from reports.__main__ import main

EVIL = "<script>alert(1)</script> `rm -rf` $x^2$ 'q' \"d\" </style>"


def outputs(folder: Path) -> list[nbformat.NotebookNode]:
    read = nbformat.read(folder / "report.ipynb", as_version=4)
    nbformat.validate(read)
    return [output for cell in read.cells if cell.cell_type == "code" for output in cell.outputs]


def test_the_cell_script_becomes_a_notebook() -> None:
    script = (
        "# a comment\n\n# %%\na = 1\n\n# %% [markdown]\n# ## Title\n# Words `x`,\n# more.\n\n# %%\nb = 2\n"
    )
    made = notebook.from_script(script)
    assert [(c.cell_type, c.source) for c in made.cells] == [
        ("code", "a = 1"),
        ("markdown", "## Title\nWords `x`,\nmore."),
        ("code", "b = 2"),
    ]
    nbformat.validate(made)
    assert notebook.from_script(script) == made  # the same bytes every time: no random ids
    assert [(s["id"], s["title"], s["lead"]) for s in notebook.sections(made)] == [
        ("top", "", ""),
        ("title", "Title", "Words `x`, more."),
    ]


def test_bad_folders_end_in_one_line_and_build_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    good = folders.write(tmp_path / "good")
    assert main([str(good), str(tmp_path / "none")]) == 2
    error = capsys.readouterr().err
    assert error == f"error: {tmp_path / 'none'}: no such folder\n"
    assert not (good / "report.html").exists()


@pytest.mark.slow
def test_a_whole_study_with_hostile_names(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = {
        "scenes": [EVIL + str(i) for i in range(4)],
        "events": [EVIL + str(i) for i in range(6)],
        "path": "/data/" + EVIL,
        "corpus": "tut2018",
    }
    published = [row | {"row": EVIL, "paper": EVIL} for row in folders.PUBLISHED]
    folder = folders.searched(
        tmp_path / "a study", 24, name=EVIL, data=data, published=published, command=[EVIL]
    )
    # Neither is ever imported: the study is data.
    (folder / "pandas.py").write_text("raise SystemExit('the study was run as code')")
    (folder / "reports.py").write_text("raise SystemExit('the study was run as code')")
    assert main([str(folder)]) == 0
    printed = capsys.readouterr().out
    assert str(folder / "report.html") in printed and "rank  trial" in printed
    made = outputs(folder)
    assert not [o for o in made if o.output_type in ("error", "stream")]
    assert sum("image/png" in o.get("data", {}) for o in made) == 10
    page = (folder / "report.html").read_text()
    assert "<script" not in page and "onerror" not in page and page.count("</style>") == 1
    assert "&lt;script&gt;alert(1)&lt;/script&gt; `rm -rf` $x^2$" in page
    pictures = re.findall(r'(?:src|srcset)="([^"]{0,30})', page)
    assert len(pictures) == 20 and all(p.startswith("data:image/png;base64,") for p in pictures)
    assert not re.search(r"https?://|url\(|@import|<link|<iframe|<object", page)
    assert all(target.startswith("#") for target in re.findall(r'href="([^"]*)', page))
    assert set(re.findall(r'href="#([^"]*)', page)) <= set(re.findall(r'id="([^"]*)', page))


@pytest.mark.slow
def test_a_running_study_has_a_page_and_is_left_alone(tmp_path: Path) -> None:
    folder = folders.write(tmp_path, status="running")
    before = (folder / "study.json").read_bytes()
    page = reports.build(folder)
    assert page == folder.resolve() / "report.html"
    text = page.read_text()
    assert "This study is still running" in text and "No run has finished yet" in text
    assert sorted(p.name for p in folder.iterdir()) == ["report.html", "report.ipynb", "study.json"]
    assert (folder / "study.json").read_bytes() == before


@pytest.mark.slow
def test_the_notebook_runs_again_from_another_directory(tmp_path: Path) -> None:
    folder = folders.searched(tmp_path / "study", 12, confirmed=1, seeds=2)
    reports.build(folder)
    moved = shutil.move(folder, tmp_path / "moved")
    environment = {
        **os.environ,
        "PYTHONPATH": str(Path(reports.__file__).parents[1]),
        "JUPYTER_PLATFORM_DIRS": "1",
    }
    again = [sys.executable, "-m", "nbconvert", "--to", "notebook", "--execute", "--output", "again.ipynb"]
    done = subprocess.run(
        [*again, str(Path(moved) / "report.ipynb")],
        cwd="/",
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    first = [o.data for o in outputs(Path(moved)) if "text/html" in o.get("data", {})]
    read = nbformat.read(Path(moved) / "again.ipynb", as_version=4)
    second = [
        o.data
        for c in read.cells
        if c.cell_type == "code"
        for o in c.outputs
        if "text/html" in o.get("data", {})
    ]
    assert first == second and len(first) > 10
