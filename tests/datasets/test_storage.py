"""Places and requests, on real servers that fail on demand."""

from __future__ import annotations

import pickle
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from servers import Faults, Files, serving

from datasets import remote, storage
from datasets.storage import NotFoundError, Retry, StorageError

FIFTY = bytes(range(50))
BRIEF = Retry(first=0.01, longest=0.05, total=0.3)
PATIENT = Retry(first=0.01, longest=0.05, total=20)


@pytest.fixture
def web(tmp_path: Path) -> Iterator[tuple[str, Faults]]:
    (tmp_path / "fifty").write_bytes(FIFTY)
    (tmp_path / "none").write_bytes(b"")
    with serving(Files, folder=tmp_path) as (url, faults):
        yield url, faults


@pytest.mark.parametrize("scheme", ["path", "file", "http", "memory"])
def test_every_place_reads_alike(web: tuple[str, Faults], tmp_path: Path, scheme: str) -> None:
    root = {"path": tmp_path, "file": f"file://{tmp_path}", "http": web[0], "memory": "memory://alike/"}[
        scheme
    ]
    if scheme == "memory":
        storage.put(tmp_path / "fifty", root, "fifty")
        storage.put(tmp_path / "none", root, "none")
    assert storage.read_bytes(root, "fifty") == FIFTY and storage.size(root, "fifty") == 50
    assert storage.read_range(root, "fifty", 7, 11) == FIFTY[7:18]
    assert storage.read_range(root, "fifty", 7, 0) == b"" == storage.read_bytes(root, "none")
    assert storage.sizes(root, ["none", "fifty"]) == [0, 50]
    assert storage.exists(root, "fifty") and not storage.exists(root, "sixty")
    with storage.open_stream(root, "fifty", 40) as stream:
        assert stream.read() == FIFTY[40:]
    with storage.open_stream(root, "fifty", 10, 0) as stream:
        assert stream.read() == b""
    with pytest.raises(NotFoundError, match="sixty: no such file"):
        storage.read_bytes(root, "sixty")
    with pytest.raises(StorageError, match="fifty"):
        storage.read_range(root, "fifty", 45, 10, retry=BRIEF)


@given(st.integers(0, 60), st.integers(0, 60), st.integers(1, 9), st.booleans())
def test_a_stream_gives_these_bytes_and_no_others(
    tmp_path_factory: pytest.TempPathFactory, offset: int, size: int, chunk: int, far: bool
) -> None:
    folder = tmp_path_factory.getbasetemp()
    (folder / "fifty").write_bytes(FIFTY)
    storage.put(folder / "fifty", "memory://these", "fifty")
    whole = pytest.MonkeyPatch()
    whole.setattr(storage, "BLOCK_BYTES", 16)
    root = "memory://these" if far else folder
    size = min(size, max(0, 50 - offset)) if far else size
    with storage.open_stream(root, "fifty", offset, size, buffer_bytes=4) as stream:
        data = b"".join(iter(lambda: stream.read(chunk), b""))
    whole.undo()
    assert data == FIFTY[offset : offset + size]


@pytest.mark.parametrize("fault", [500, 503, 429, "cut", "reset"])
def test_what_passes_is_tried_again(web: tuple[str, Faults], fault: int | str) -> None:
    url, faults = web
    faults.next = [fault, fault]
    assert storage.read_range(url, "fifty", 0, 50, retry=PATIENT) == FIFTY
    assert len(faults.seen) == 3
    faults.next = [fault]
    assert storage.size(url, "fifty", retry=PATIENT) == 50


def test_silence_is_a_timeout_and_tried_again(
    web: tuple[str, Faults], monkeypatch: pytest.MonkeyPatch
) -> None:
    url, faults = web
    monkeypatch.setenv("SCENETUNE_READ_TIMEOUT", "0.2")
    remote.forget()
    faults.next, faults.silence = ["slow"], 1.0
    assert storage.read_bytes(url, "fifty", retry=PATIENT) == FIFTY
    faults.always = "slow"
    with pytest.raises(StorageError, match="no answer in time .*; tried .+ times"):
        storage.read_bytes(url, "fifty", retry=BRIEF)
    monkeypatch.undo()
    remote.forget()


@pytest.mark.parametrize("fault", [500, "cut", "reset"])
def test_what_stays_is_one_line_with_the_attempts(web: tuple[str, Faults], fault: int | str) -> None:
    url, faults = web
    faults.always = fault
    with pytest.raises(StorageError) as error:
        storage.read_bytes(url, "fifty", retry=BRIEF)
    text = str(error.value)
    assert text.startswith(f"{url}/fifty: ") and re.search(r"tried \d+ times", text) and "\n" not in text
    assert len(faults.seen) > 3
    assert str(pickle.loads(pickle.dumps(error.value))) == text  # as it comes out of a DataLoader's worker


@pytest.mark.parametrize(
    ("status", "message"),
    [(403, "access denied"), (401, "credentials"), (404, "no such file"), (400, "refused")],
)
def test_what_does_not_pass_is_not_tried_again(web: tuple[str, Faults], status: int, message: str) -> None:
    url, faults = web
    faults.always = status
    with pytest.raises(StorageError, match=message):
        storage.read_bytes(url, "fifty")
    assert len(faults.seen) == 1


def test_a_server_without_ranges_says_so_and_sends_no_file(web: tuple[str, Faults]) -> None:
    url, faults = web
    faults.ranges = False
    with pytest.raises(StorageError, match="the server ignores ranges"):
        storage.read_range(url, "fifty", 3, 5)
    assert storage.size(url, "fifty") == 50 and storage.read_bytes(url, "fifty") == FIFTY


def test_a_server_that_is_not_there() -> None:
    with pytest.raises(StorageError, match=r"http://127.0.0.1:9/x: the connection broke .* tried"):
        storage.read_bytes("http://127.0.0.1:9", "x", retry=BRIEF)


def test_passwords_and_tokens_are_used_but_never_shown(web: tuple[str, Faults]) -> None:
    url, faults = web
    secret = url.replace("http://", "http://me:hunter2@") + "?sig=t0ken"
    assert storage.read_bytes(secret, "fifty") == FIFTY
    assert faults.seen[-1][1] == "/fifty?sig=t0ken"
    for fault in (403, 404, 500, "reset"):
        faults.always = fault
        with pytest.raises(StorageError) as error:
            storage.read_bytes(secret, "fifty", retry=BRIEF)
        assert f"{url}/fifty" in str(error.value)
        assert not any(word in str(error.value) for word in ("hunter2", "t0ken", "me:"))
    assert storage.shown("s3://key:secret@bucket/a?b=c#d") == "s3://bucket/a"
    assert storage.shown("--data=http://me:hunter2@h/a?sig=t0ken") == "--data=http://h/a"


@pytest.mark.parametrize(
    "name", ["", "/etc/passwd", "../x", "a/../../x", "s3://b/x", "pipe:cat x", "a\\b", "C:x"]
)
@pytest.mark.parametrize("root", ["http://host/a", "/folder"])
def test_names_stay_below_the_root(name: str, root: str) -> None:
    with pytest.raises(ValueError, match="leads out of"):
        storage.join(root, name)


def test_places_are_parsed() -> None:
    assert storage.parse("/a/b") == Path("/a/b") == storage.parse("file:///a/b")
    assert storage.parse("s3://bucket/a/") == "s3://bucket/a"
    assert storage.join("s3://bucket/a/", "x.tar") == "s3://bucket/a/x.tar"
    assert storage.join("/a", "b/x.tar") == Path("/a/b/x.tar")
    assert storage.join("https://h/a/?sig=1", "x.tar") == "https://h/a/x.tar?sig=1"
    assert not storage.is_url("pipe:cat x") and not storage.is_url(Path("a")) and storage.is_url("gs://b")
    for place in ("ftp://a/b", "simplecache::s3://a", "pipe://cat", "file://host/a"):
        with pytest.raises(ValueError, match="accepted are local folders|three slashes"):
            storage.parse(place)


def test_pauses_grow_and_are_cut_by_chance(monkeypatch: pytest.MonkeyPatch) -> None:
    pauses = [pause for pause, _ in zip(Retry(first=1, longest=6).pauses(), range(5))]
    for pause, most in zip(pauses, (1, 2, 4, 6, 6)):
        assert most / 2 <= pause <= most
    monkeypatch.setenv("SCENETUNE_RETRY_TOTAL", "7")
    assert Retry.from_environment().total == 7
    monkeypatch.setenv("SCENETUNE_RETRY_TOTAL", "soon")
    with pytest.raises(ValueError, match="SCENETUNE_RETRY_TOTAL=soon: expected a number of seconds"):
        Retry.from_environment()


def test_writing(tmp_path: Path, web: tuple[str, Faults]) -> None:
    storage.put(tmp_path / "fifty", tmp_path / "new", "sub/copy")
    assert (tmp_path / "new/sub/copy").read_bytes() == FIFTY
    assert [path.name for path in (tmp_path / "new/sub").iterdir()] == ["copy"]
    with pytest.raises(StorageError, match="http servers can't be written to"):
        storage.put(tmp_path / "fifty", web[0], "copy")
