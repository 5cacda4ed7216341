"""The local page: a real server, real uploads over HTTP, and a real browser."""

from __future__ import annotations

import asyncio
import json
import os
import re
import socket
import subprocess
import sys
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import matplotlib.image
import numpy as np
import pytest

pytest.importorskip("fastapi", reason="the extra serve is not installed")
pytest.importorskip("uvicorn", reason="the extra serve is not installed")

from browser import CHROMIUM, browser

from trainables.local_page import PAGES
from trainables.predict import Answer, Predictor, why_text
from trainables.serve import listening, main

PROJECT = Path(__file__).resolve().parents[2]
NASTY = "<img src=x onerror=document.title='hacked'>`${1}`.wav"


@pytest.fixture(scope="module")
def server(model: Path) -> Iterator[str]:
    """The address of a server of `model` in a process of its own, which takes 2 MB."""
    process = subprocess.Popen(
        [
            sys.executable,
            "-m",
            "trainables.serve",
            str(model),
            "--port",
            "0",
            "--limit-mb",
            "2",
            "--threads",
            "1",
        ],
        cwd=PROJECT,
        env=os.environ | {"PYTHONPATH": str(PROJECT)},
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        found = re.match(r"(http://127\.0\.0\.1:\d+/)", line)
        assert found, line
        yield found[1]
    finally:
        process.terminate()
        process.wait(30)


def asked(
    url: str, body: bytes | None = None, headers: dict[str, str] | None = None
) -> tuple[int, Any, dict[str, str]]:
    """(status, JSON or text, headers)"""
    request = urllib.request.Request(url, body, headers or {}, method="POST" if body is not None else "GET")
    try:
        answer = urllib.request.urlopen(request, timeout=120)
    except urllib.error.HTTPError as error:
        answer = error
    content = answer.read().decode()
    is_json = "json" in answer.headers["content-type"]
    return answer.status, json.loads(content) if is_json else content, dict(answer.headers)


def test_an_upload_is_answered_as_predict_answers(
    server: str, model: Path, recordings: dict[Path, str]
) -> None:
    predictor = Predictor(model)
    for path in list(recordings)[:3]:
        status, found, _ = asked(f"{server}predict?name={path.name}", path.read_bytes())
        expected = next(predictor.predict([path]))
        assert status == 200 and isinstance(expected, Answer) and expected.why is not None
        assert (found["file"], found["scene"], found["unsure"]) == (
            path.name,
            expected.scene,
            expected.unsure,
        )
        assert found["scenes"] == pytest.approx(expected.scenes, abs=1e-5)
        assert found["events"] == pytest.approx(expected.events, abs=1e-5)
        assert found["why_text"].split(" (")[0] == why_text(expected.why).split(" (")[0]


def test_what_is_no_recording_gets_one_line_and_the_server_goes_on(
    server: str, recordings: dict[Path, str]
) -> None:
    name = urllib.parse.quote(NASTY)
    status, found, _ = asked(f"{server}predict?name={name}", b"not audio")
    assert status == 422 and found == {"file": NASTY, "error": "no audio: Format not recognised."}
    assert asked(f"{server}predict", b"")[1] == {"file": "recording", "error": "the file is empty"}
    status, found, _ = asked(f"{server}predict?name=big", bytes(3 * 2**20))
    assert status == 413 and found == {"file": "big", "error": "larger than 2 MB"}
    assert asked(f"{server}predict", next(iter(recordings)).read_bytes())[0] == 200


def test_only_its_own_page_may_ask_and_nothing_comes_from_elsewhere(
    server: str, recordings: dict[Path, str]
) -> None:
    body = next(iter(recordings)).read_bytes()
    assert asked(f"{server}predict", body, {"Origin": "https://example.org"})[0] == 403
    assert asked(f"{server}predict", body, {"Origin": server.rstrip("/")})[0] == 200
    assert asked(f"{server}predict", body, {"Host": "example.org"})[0] == 400  # a name made to point here
    assert asked(f"{server}model", headers={"Host": "example.org"})[0] == 400
    for path in ("", "serve.js", "listen.js", "serve.css", "model"):
        status, content, headers = asked(server + path)
        assert status == 200 and "default-src 'none'" in headers["content-security-policy"]
        assert not re.findall(r"(?:https?:)?//[a-z]+\.[a-z]+", str(content)), path
    assert asked(f"{server}docs")[0] == asked(f"{server}../pyproject.toml")[0] == 404
    assert "innerHTML" not in (PAGES / "serve.js").read_text()
    port = urllib.parse.urlparse(server).port
    with socket.socket() as other, pytest.raises(OSError):  # on the loopback address alone
        other.settimeout(5)
        other.connect((_another_address(), port))


def _another_address() -> str:
    """127.0.0.2 is this machine as well, and is not 127.0.0.1."""
    return "127.0.0.2"


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine (apt-get install chromium)")
def test_a_person_drops_a_sound_and_sees_scene_events_and_reasons(
    server: str, model: Path, recordings: dict[Path, str], tmp_path: Path
) -> None:
    clip = next(iter(recordings))
    expected = next(Predictor(model).predict([clip]))
    assert isinstance(expected, Answer)
    (tmp_path / "up").mkdir()
    broken = tmp_path / "up" / NASTY.replace("/", "")
    broken.write_text("not audio")
    big = tmp_path / "up" / "big.wav"
    big.write_bytes(bytes(3 * 2**20))

    async def visit() -> None:
        async with browser(tmp_path / "profile") as page:
            await page.open(server)
            await page.until("document.getElementById('about')?.textContent.includes('10 scenes, 12 events')")
            await page.choose_files("#file", clip)
            shown = await page.until("document.querySelector('.scene strong')?.textContent")
            assert shown == expected.scene
            assert await page.value("document.querySelectorAll('.unsure').length") == int(
                bool(expected.unsure)
            )
            names = await page.value("[...document.querySelectorAll('.name')].map((e) => e.textContent)")
            assert names == [*list(expected.scenes)[1:4], *expected.events]
            assert "speak for" in await page.value("document.querySelector('article').innerText")

            await page.choose_files("#file", broken, big)
            await page.until("document.querySelectorAll('.failed').length == 2")
            told = await page.value("[...document.querySelectorAll('.failed')].map((e) => e.textContent)")
            assert told == [
                "Not answered: larger than 2 MB",
                "Not answered: no audio: Format not recognised.",
            ]
            assert await page.value("document.querySelectorAll('h2')[1].textContent") == broken.name
            assert (
                await page.value("document.title + document.querySelectorAll('img').length") == "scenetune0"
            )

            await page.value("document.getElementById('record').click()")
            await page.until("document.getElementById('record').textContent.startsWith('Stop (1')")
            await page.value("document.getElementById('record').click()")
            await page.until("document.querySelectorAll('.scene').length == 2")
            assert "recording at" in await page.value("document.querySelector('h2').textContent")
            assert "resampled from" in await page.value("document.querySelector('.notes').textContent")

            for width in (390, 1100):
                await page.resize(width, 900)
                assert await page.value("document.documentElement.scrollWidth") <= width, "text overflows"
                await page.picture(tmp_path / f"{width}.png")  # less wide by a scroll bar
                pixels = matplotlib.image.imread(tmp_path / f"{width}.png")
                assert width - 20 <= pixels.shape[1] <= width
                assert len(np.unique(pixels.reshape(-1, pixels.shape[2]), axis=0)) > 20
            refused = [text for text in page.trouble if "422" not in text]
            assert refused == []  # no error, and no request to anywhere but here

    asyncio.run(visit())
    if folder := os.environ.get("SCENETUNE_PICTURES"):
        for width in (390, 1100):
            (Path(folder) / f"serve-{width}.png").write_bytes((tmp_path / f"{width}.png").read_bytes())


def test_mistakes_are_one_line(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def refused(*arguments: object) -> str:
        assert main([str(word) for word in arguments]) == 2
        error = capsys.readouterr().err
        assert error.startswith("error: ") and error.count("\n") == 1
        return error

    assert "no model there" in refused(tmp_path)
    assert "--limit-mb 0: expected at least 1" in refused(model, "--limit-mb", 0)
    assert "--port 70000: expected 0 to 65535" in refused(model, "--port", 70000)
    with listening(0) as taken:
        port = taken.getsockname()[1]
        assert f"--port {port} on 127.0.0.1: Address already in use" in refused(model, "--port", port)
