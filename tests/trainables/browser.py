"""A headless Chromium driven over its debugging protocol: what a person does with a page, and what they
see."""

from __future__ import annotations

import asyncio
import base64
import itertools
import shutil
import subprocess
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
PATIENCE = 120.0  # s


class Browser:
    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._socket, self._numbers = socket, itertools.count(1)
        self.trouble: list[str] = []  # what the page's console and network complained of

    async def call(self, method: str, **options: Any) -> dict[str, Any]:
        number = next(self._numbers)
        await self._socket.send_json({"id": number, "method": method, "params": options})
        while True:
            message = await asyncio.wait_for(self._socket.receive_json(), PATIENCE)
            if message.get("id") == number:
                assert "error" not in message, (method, message)
                return message["result"]
            self._note(message)

    def _note(self, message: dict[str, Any]) -> None:
        kind, told = message.get("method"), message.get("params", {})
        if kind == "Runtime.exceptionThrown":
            self.trouble.append(str(told["exceptionDetails"]))
        if kind == "Log.entryAdded" and told["entry"]["level"] == "error":
            self.trouble.append(told["entry"]["text"])
        if kind == "Network.requestWillBeSent":
            self.trouble += [] if "127.0.0.1" in told["request"]["url"] else [told["request"]["url"]]

    async def open(self, url: str, width: int = 1100, height: int = 900) -> None:
        for domain in ("Page", "Runtime", "Log", "Network", "DOM"):
            await self.call(f"{domain}.enable")
        await self.resize(width, height)
        await self.call("Page.navigate", url=url)

    async def resize(self, width: int, height: int) -> None:
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 500}
        await self.call("Emulation.setDeviceMetricsOverride", **size)

    async def value(self, expression: str) -> Any:
        found = await self.call(
            "Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True, userGesture=True
        )
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    async def until(self, expression: str) -> Any:
        """The expression's value as soon as it is one."""
        ends = time.monotonic() + PATIENCE
        while not (value := await self.value(expression)):
            assert time.monotonic() < ends, f"never true: {expression}"
            await asyncio.sleep(0.1)
        return value

    async def choose_files(self, selector: str, *files: Path) -> None:
        root = (await self.call("DOM.getDocument"))["root"]["nodeId"]
        node = (await self.call("DOM.querySelector", nodeId=root, selector=selector))["nodeId"]
        await self.call("DOM.setFileInputFiles", nodeId=node, files=[str(file) for file in files])

    async def picture(self, path: Path) -> bytes:
        found = await self.call("Page.captureScreenshot", captureBeyondViewport=True)
        path.write_bytes(content := base64.b64decode(found["data"]))
        return content


@asynccontextmanager
async def browser(home: Path) -> AsyncIterator[Browser]:
    """A Chromium of its own, with a microphone that beeps."""
    assert CHROMIUM is not None
    options = ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run")
    microphone = ("--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream")
    process = subprocess.Popen(
        [
            CHROMIUM,
            *options,
            *microphone,
            "--remote-debugging-port=0",
            f"--user-data-dir={home}",
            "about:blank",
        ],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        port = await _port(home / "DevToolsActivePort", process)
        async with aiohttp.ClientSession() as session:
            async with session.get(f"http://127.0.0.1:{port}/json/list") as answer:
                pages = [page for page in await answer.json() if page["type"] == "page"]
            async with session.ws_connect(pages[0]["webSocketDebuggerUrl"], max_msg_size=2**28) as socket:
                yield Browser(socket)
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()


async def _port(file: Path, process: subprocess.Popen[bytes]) -> int:
    ends = time.monotonic() + PATIENCE
    while not (file.is_file() and (lines := file.read_text().splitlines())):
        assert process.poll() is None and time.monotonic() < ends, "Chromium did not start"
        await asyncio.sleep(0.1)
    return int(lines[0])
