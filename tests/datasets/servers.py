"""Real servers on this machine for the tests of remote reading: files over HTTP with faults on demand, a
proxy that puts the same faults in front of another server, and one that speaks S3's protocol."""

from __future__ import annotations

import http.client
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

EXPIRED = (
    b'<?xml version="1.0" encoding="UTF-8"?><Error><Code>ExpiredToken</Code><Message>The provided token has '
    b"expired.</Message><RequestId>1</RequestId></Error>"
)


@dataclass
class Faults:
    """What the next requests get instead of an answer: a status code, "cut" (half the body, then a closed
    connection), "reset" (no answer), "slow" (silence for `silence` s before the body), "expired" (S3's own
    words).

    `always` is what every request gets once `next` is used up. `seen` is what was asked for, and the Range.
    """

    next: list[int | str] = field(default_factory=list)
    always: int | str | None = None
    silence: float = 5.0
    ranges: bool = True
    seen: list[tuple[str, str, str]] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def take(self, handler: BaseHTTPRequestHandler) -> int | str | None:
        with self.lock:
            self.seen.append((handler.command, handler.path, handler.headers.get("Range", "")))
            return self.next.pop(0) if self.next else self.always


class Faulty(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    faults: Faults

    def log_message(self, *_: object) -> None:
        pass

    def answer(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        """Send a response, spoilt as `faults` want it."""
        fault = self.faults.take(self)
        if isinstance(fault, int):
            status, body, headers = fault, b"injected", {}
        elif fault == "expired":
            status, body, headers = 400, EXPIRED, {"Content-Type": "application/xml"}
        elif fault == "reset":
            self.close_connection = True
            self.connection.close()
            return
        self.send_response(status)
        for name, value in headers.items():
            if name.lower() not in ("content-length", "transfer-encoding", "connection", "date", "server"):
                self.send_header(name, value)
        length = headers.get("Content-Length", str(len(body))) if self.command == "HEAD" else str(len(body))
        self.send_header("Content-Length", length)
        self.end_headers()
        if fault == "slow":
            time.sleep(self.faults.silence)
        if self.command != "HEAD":
            self.wfile.write(body[: len(body) // 2] if fault == "cut" else body)
        if fault == "cut":
            self.close_connection = True


class Files(Faulty):
    """GET and HEAD of the files below `folder`, with ranges unless `faults.ranges` is False."""

    folder: Path

    def do_GET(self) -> None:
        path = self.folder / self.path.partition("?")[0].lstrip("/")
        if not path.is_file():
            self.answer(404, b"", {})
            return
        data, headers = path.read_bytes(), {"ETag": f'"{path.stat().st_mtime_ns}"'}
        asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        unchanged = self.headers.get("If-Range", headers["ETag"]) == headers["ETag"]
        if not asked or not self.faults.ranges or not unchanged:
            self.answer(200, data, headers)
            return
        start, stop = int(asked[1]), min(int(asked[2] or len(data)) + 1, len(data))
        if start >= len(data):
            self.answer(416, b"", {"Content-Range": f"bytes */{len(data)}"})
            return
        headers["Content-Range"] = f"bytes {start}-{stop - 1}/{len(data)}"
        self.answer(206, data[start:stop], headers)

    do_HEAD = do_GET


class Proxy(Faulty):
    """Passes requests on to 127.0.0.1:`port`."""

    port: int

    def do_GET(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        connection.request(self.command, self.path, body, dict(self.headers))
        response = connection.getresponse()
        data = response.read()
        connection.close()
        self.answer(response.status, data, dict(response.getheaders()))

    do_HEAD = do_PUT = do_POST = do_DELETE = do_GET


@contextmanager
def serving(handler: type[Faulty], **attributes: object) -> Iterator[tuple[str, Faults]]:
    """("http://127.0.0.1:port", its faults) of a server that runs while the block does."""
    faults = Faults()
    made = type("Handler", (handler,), {"faults": faults, **attributes})
    server = ThreadingHTTPServer(("127.0.0.1", 0), made)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}", faults
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@contextmanager
def moto() -> Iterator[int]:
    """The port of a server that speaks S3's protocol, in a process of its own that runs while the block
    does."""
    port = free_port()
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        wait_for(port, process)
        yield port
    finally:
        process.terminate()
        process.wait(10)


def credentials(endpoint: str) -> dict[str, str]:
    """The environment in which s3:// is moto's at `endpoint`."""
    return {
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_ACCESS_KEY_ID": "test-key-id",
        "AWS_SECRET_ACCESS_KEY": "test-secret",
        "AWS_DEFAULT_REGION": "us-east-1",
    }


def free_port() -> int:
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_for(port: int, process: subprocess.Popen[bytes]) -> None:
    for _ in range(300):
        with closing(socket.socket()) as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        assert process.poll() is None, f"the server ended with {process.returncode}"
        time.sleep(0.1)
    raise TimeoutError(f"no server on port {port}")
