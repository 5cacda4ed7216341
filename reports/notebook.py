"""`report.ipynb` from the cell script, executed beside the study's files; `report.html` from its outputs."""

from __future__ import annotations

import json
import os
import re
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import nbformat
from jupyter_client.kernelspec import KernelSpecManager
from jupyter_client.manager import AsyncKernelManager
from nbclient import NotebookClient
from nbconvert.exporters import HTMLExporter

from reports import collect

TEMPLATES = Path(__file__).parent / "templates"
START_SECONDS, CELL_SECONDS = 120, 300
KERNEL = "python3"
FOOTER = (
    "Made by scenetune from the files of the study. The same content with its code is in report.ipynb beside "
    "this page."
)


def build(folder: Path) -> Path:
    """Write `report.ipynb` and `report.html` into a study folder, replacing older ones; returns the page.

    Raises collect.StudyError when the folder is not a readable study, nbclient's CellExecutionError (after
    writing the notebook up to there) when a cell fails.
    """
    study = collect.load(folder)  # a bad folder is one clear line here, not a kernel's traceback
    script = "table.py" if study.record.get("table") else "study.py"
    notebook = from_script((TEMPLATES / script).read_text(encoding="utf-8"))
    return _publish(notebook, study.folder.resolve() / "report.html", str(study.record["name"]), FOOTER)


def build_comparison(folders: Sequence[Path], home: Path) -> Path:
    """Write `comparison.ipynb` and `comparison.html` of several studies into the folder `home`; returns the
    page. Raises as `build` does."""
    home = home.resolve()
    places = [os.path.relpath(folder.resolve(), home) for folder in folders]
    text = (TEMPLATES / "comparison.py").read_text(encoding="utf-8")
    notebook = from_script(text.replace("STUDIES: list[str] = []", f"STUDIES = {places!r}", 1))
    title = ", ".join(folder.resolve().name for folder in folders)
    return _publish(notebook, home / "comparison.html", title, FOOTER.replace("report.", "comparison."))


def _publish(notebook: nbformat.NotebookNode, page: Path, title: str, footer: str) -> Path:
    """Execute the notebook in its folder and write it and its page."""
    try:
        execute(notebook, page.parent)
    finally:
        _replace(page.with_suffix(".ipynb"), nbformat.writes(notebook))
    _replace(page, to_html(notebook, title=title, footer=footer))
    return page


def from_script(text: str) -> nbformat.NotebookNode:
    """A notebook from `# %%` blocks; what stands before the first is the script's own comment."""
    blocks = re.split(r"^# %%", text, flags=re.M)[1:]
    cells = []
    for number, block in enumerate(blocks):
        marker, _, body = block.partition("\n")
        if marker.strip() == "[markdown]":
            lines = [line.removeprefix("#").removeprefix(" ") for line in body.strip().splitlines()]
            cell = nbformat.v4.new_markdown_cell("\n".join(lines))
        else:
            cell = nbformat.v4.new_code_cell(body.strip())
        cell["id"] = f"cell-{number:02d}"
        cells.append(cell)
    spec = {"name": KERNEL, "display_name": "Python 3", "language": "python"}
    return nbformat.v4.new_notebook(
        cells=cells, metadata={"kernelspec": spec, "language_info": {"name": "python"}}
    )


def execute(notebook: nbformat.NotebookNode, folder: Path) -> None:
    """Run all cells in `folder` with this very interpreter, over sockets in a private folder.

    The kernel reads no kernelspec, profile or startup file of the user, and imports nothing from the study
    folder: a file named pandas.py in it stays data. (Windows lacks such sockets: there it is loopback.)
    """
    with tempfile.TemporaryDirectory(prefix="scenetune-report-") as scratch:
        manager = AsyncKernelManager(kernel_name=KERNEL, kernel_spec_manager=_kernelspec(Path(scratch)))
        manager.connection_file = str(Path(scratch) / "connection.json")
        if os.name == "posix":
            manager.transport, manager.ip = "ipc", str(Path(scratch) / "kernel")
        client = NotebookClient(
            notebook,
            km=manager,
            timeout=CELL_SECONDS,
            startup_timeout=START_SECONDS,
            resources={"metadata": {"path": str(folder)}},
            record_timing=False,
        )
        client.execute(env=_environment(Path(scratch)))


def _kernelspec(scratch: Path) -> KernelSpecManager:
    """The only kernel known: `-P` and `ignore_cwd` keep the working directory off the import path."""
    command = [sys.executable, "-P", "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    options = ["--InteractiveShellApp.ignore_cwd=True", "--HistoryManager.enabled=False", "--log-level=ERROR"]
    home = scratch / "kernels" / KERNEL
    home.mkdir(parents=True)
    spec = {"argv": command + options, "display_name": "Python 3", "language": "python"}
    (home / "kernel.json").write_text(json.dumps(spec))
    return KernelSpecManager(kernel_dirs=[str(home.parent)], ensure_native_kernel=False)


def _environment(scratch: Path) -> dict[str, str]:
    """Ours, with this package importable from anywhere and IPython's own files kept in the scratch folder."""
    project = str(Path(__file__).resolve().parents[1])
    path = os.pathsep.join(filter(None, [project, os.environ.get("PYTHONPATH", "")]))
    # A PYTHONPATH with an empty entry would mean the working directory.
    return {**os.environ, "PYTHONPATH": path.strip(os.pathsep), "IPYTHONDIR": str(scratch / "ipython")}


def to_html(notebook: nbformat.NotebookNode, *, title: str, footer: str = FOOTER) -> str:
    """One self-contained page of the notebook's outputs: pictures and style inside, no code, no script."""
    exporter = HTMLExporter(raw_template=(TEMPLATES / "page.html.j2").read_text(encoding="utf-8"))
    resources = {
        "title": title,
        "footer": footer,
        "css": (TEMPLATES / "page.css").read_text(encoding="utf-8"),
        "sections": sections(notebook),
    }
    body, _ = exporter.from_notebook_node(notebook, resources=resources)
    return body


def sections(notebook: nbformat.NotebookNode) -> list[dict[str, Any]]:
    """The page's parts: {"id", "title", "lead", "outputs" (one list a code cell)}; the first has no title."""
    parts: list[dict[str, Any]] = [{"id": "top", "title": "", "lead": "", "outputs": []}]
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            first, _, rest = cell.source.partition("\n")
            title = first.removeprefix("## ")
            anchor = re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-")
            parts.append({"id": anchor, "title": title, "lead": " ".join(rest.split()), "outputs": []})
        elif shown := [o for o in cell.outputs if o.output_type in ("display_data", "execute_result")]:
            parts[-1]["outputs"].append(shown)
    return parts


def _replace(path: Path, text: str) -> None:
    """Write whole or not at all: somebody may be reading the report of a running study."""
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}-")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as stream:
            stream.write(text)
        os.chmod(name, 0o644)
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
