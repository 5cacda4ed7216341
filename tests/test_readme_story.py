"""The README's commands as they are written, in its order, in one folder, on a newcomer's recordings.

They run in this process, one after the other, and their studies on one Ray cluster. What is smaller here than
there, what stands for a name, and what can't be run, is said below, and nowhere else.
"""

from __future__ import annotations

import csv
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
import soundfile
import torch
from ray.cluster_utils import Cluster
from readme_commands import ROOT, commands, run_here

from datasets import synthetic
from searchspace import record

CHROMIUM = shutil.which("chromium")
RATE, SECONDS, CLIPS = 8000, 1.7, {"train": 30, "val": 20, "test": 20}

NAMES = {  # of the README, and what they are in this folder; all its other names are taken as they are
    "prepare NAME --source DIR": "prepare table --source recordings",
    "studies/NAME:7 studies/NAME:12": "studies/NAME:0 studies/NAME:1",
    "--trial 7": "--trial 0",
}
NUMBERS = {  # how many, how long
    r"--trials 40": "--trials 2",
    r"--trials 80": "--trials 3",
    r"--epochs \d+": "--epochs 2",
    r"--(confirm|seeds) \d\b": r"--\1 2",
    r"--seeds 10": "--seeds 1",
    r"--events \d+": "--events 3",
    r"--hours \d+": "--hours 0.005",
    r":128\b": ":4",
}
ADDED = {  # to what begins so, where it does not say it itself
    "python tune_csem.py": "--no-dashboard --set batch_size=8",
    "python -m datasets.prepare jssed-recipe": "--clips 10 --seconds 1 --rate 8000",
    "python -m trainables.serve": "--port 0",
}
SEARCH = {"--trials": "1", "--epochs": "2", "--confirm": "0"}
TABLE = {"--epochs": "1", "--rows": "1"}
STUDIES = {  # the studies that later commands name, by a word of the command that makes them
    "--confirm": "NAME",
    "csem,resnet_aet": "A",
    "--objective": "B",
}
NOT_RUN = {
    "make search": "installs packages; what it runs then is `python tune_csem.py`",
    "make test": "runs this test",
    "pip install": "installs packages",
    "python -m datasets.download tut2018": "needs the internet; test_download.py has a server of its own",
    "pretrained=Cnn14.pth": "needs 330 MB from the internet; test_weights.py loads files of the same tensors",
    "python -m searchspace.simulate": "needs 12 runs of full length; test_simulate.py has curves for it",
    "python -m reports.sweep": "needs a table with three values of a knob; test_sweep.py has one",
    "clusters/onprem.yaml": "needs a cluster's hosts; tests/clusters starts one over SSH",
} | ({} if CHROMIUM else {"python -m reports.picture": "needs Chromium"})
LEFT_BEHIND = {
    ".": ("p.png", "MIXED/scenes.tsv", "RUN/test.json", "T/epochs.jsonl", "MODEL/model.json"),
    "studies": ("comparison.html", "NAME/study.json", "NAME/study.db", "NAME/runs/t0001-r1/epochs.jsonl"),
    "studies/NAME": ("report.html", "report.ipynb", "trials.parquet", "curves.parquet"),
    "studies/NAME/best": ("model.json", "MODEL_CARD.md", "analysis"),
}


def smaller(command: str) -> str:
    """The command with this folder's names and numbers."""
    for name, here in NAMES.items():
        command = command.replace(name, here)
    for number, here in NUMBERS.items():
        command = re.sub(number, here, command)
    resumed = "--resume" in command or "--help" in command
    words = [] if resumed else [more for start, more in ADDED.items() if command.startswith(start)]
    if command.startswith("python tune_csem.py") and not resumed:
        limits = TABLE if "--table" in command else SEARCH
        words += [f"{option} {value}" for option, value in limits.items() if option not in command]
        words += ["--set width=0.1"] * ("width=" not in command)
        words += [f"--study studies/{name}" for word, name in STUDIES.items() if word in command]
    return " ".join([command, *words])


def record_sounds(folder: Path) -> None:
    """Recordings as a newcomer has them, listed in a table; and some to mix a corpus from."""
    (folder / "recordings").mkdir()
    rows = [("path", "split", "scene", "events", "onset", "offset", "location")]
    for split, count in CLIPS.items():
        for recipe in synthetic.recipes(split, count, 5):
            sound, labels = synthetic.render(recipe, SECONDS, RATE)
            name = f"{recipe.key}-{split}.wav"
            soundfile.write(folder / "recordings" / name, sound, RATE)
            for onset, offset, event in labels.strong or [("", "", "")]:
                rows.append((name, split, recipe.scene, event, onset, offset, recipe.location.name))
    with (folder / "recordings" / "table.csv").open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    some = sorted((folder / "recordings").glob("*.wav"))
    shutil.copy(some[0], folder / "park.wav")
    for number, kind in enumerate(("BACKGROUNDS/park", "BACKGROUNDS/tram", "SOUNDS/bird", "SOUNDS/bell")):
        (folder / kind).mkdir(parents=True)
        for file in some[3 * number : 3 * number + 3]:
            shutil.copy(file, folder / kind)


@pytest.fixture
def newcomer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder with recordings and nothing else, a small built-in corpus, and a Ray cluster to join."""
    record_sounds(tmp_path)
    (tmp_path / "SCENES").symlink_to("SHARDS")
    (tmp_path / "EVENTS").symlink_to("SHARDS")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SCENETUNE_CACHE", str(tmp_path / "cache"))
    with monkeypatch.context() as little, tempfile.TemporaryDirectory(prefix="ray") as ray_files:
        little.setattr(synthetic.build, "__kwdefaults__", synthetic.build.__kwdefaults__ | CLIPS)
        synthetic.ensure(tmp_path / "cache")
        monkeypatch.setenv("RAY_TMPDIR", ray_files)
        monkeypatch.setenv("PYTHONPATH", str(ROOT))  # for the cluster's processes
        cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
        monkeypatch.setenv("RAY_ADDRESS", cluster.address)
        yield tmp_path
        cluster.shutdown()


def serve(command: str) -> None:
    """The page answers, and a sound that is dropped on it gets a scene."""
    words = [sys.executable, *command.split()[1:]]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True, env=os.environ) as server:
        try:
            assert server.stdout is not None
            found = re.match(r"http://127\.0\.0\.1:\d+/", server.stdout.readline())
            assert found
            assert b"<html" in urllib.request.urlopen(found[0], timeout=60).read()
            sound = Path("park.wav").read_bytes()
            answer = json.load(urllib.request.urlopen(f"{found[0]}predict", sound, timeout=60))
            assert answer["scene"] in synthetic.SCENES
        finally:
            server.terminate()


def do(command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run it. Raises AssertionError unless it ends with exit code 0."""
    if command.startswith("python -m trainables.serve"):
        return serve(command)
    with pytest.raises(SystemExit) as ended:
        run_here(command, monkeypatch)
        raise SystemExit(0)  # it ended without a code
    assert not ended.value.code, command
    return None


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.filterwarnings("ignore:.*found in sys.modules:RuntimeWarning")
def test_the_readme_works_as_it_is_written(newcomer: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    typed = commands("README.md")
    left_out = {one for one in typed for word in NOT_RUN if word in one}
    assert all(any(word in one for one in left_out) for word in NOT_RUN), "listed, and not in the README"
    for command in typed:
        if command not in left_out:
            began = time.monotonic()
            do(smaller(command), monkeypatch)
            print(f"{time.monotonic() - began:.1f} s: {smaller(command)}\n")
    assert record.read(newcomer / "studies" / "NAME")["status"] == "complete"
    missing = [
        one for folder, names in LEFT_BEHIND.items() for one in names if not Path(folder, one).exists()
    ]
    assert missing == []
    (code,) = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    exec(code, {"waveform": torch.zeros(1, 1, round(RATE * SECONDS))})
