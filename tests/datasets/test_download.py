"""Archives over HTTP into a folder: gone on with, checked, unpacked safely. On real servers that fail on
demand."""

from __future__ import annotations

import base64
import errno
import hashlib
import io
import json
import os
import resource
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from servers import Faults, Files, serving

from datasets import download
from datasets.checksums import published
from datasets.fetch import fetch
from datasets.remote import Retry, StorageError
from datasets.unpack import UnpackError, unpack

BRIEF = Retry(first=0.01, longest=0.05, total=0.3)
PATIENT = Retry(first=0.01, longest=0.05, total=20)
NOISE = np.random.default_rng(0).bytes(3_000_000)
FIXED = hashlib.md5(NOISE).hexdigest()
PROJECT = Path(__file__).resolve().parents[2]


@pytest.fixture
def web(tmp_path: Path) -> Iterator[tuple[str, Faults, Path]]:
    folder = tmp_path / "served"
    folder.mkdir()
    (folder / "noise.bin").write_bytes(NOISE)
    with serving(Files, folder=folder) as (url, faults):
        yield url, faults, folder


def asked_ranges(faults: Faults) -> list[str]:
    return [spread for _, _, spread in faults.seen]


def test_a_broken_connection_is_gone_on_with(web: tuple[str, Faults, Path], tmp_path: Path) -> None:
    url, faults, _ = web
    faults.next = ["cut", 503, "reset", "cut"]
    seen: list[int] = []
    found = fetch(
        f"{url}/noise.bin", tmp_path / "noise.bin", size=len(NOISE), md5=FIXED, retry=PATIENT,
        progress=lambda done, total: seen.append(done),
    )  # fmt: skip
    assert (tmp_path / "noise.bin").read_bytes() == NOISE
    assert found.verified and found.sha256 == hashlib.sha256(NOISE).hexdigest()
    assert asked_ranges(faults)[0] == "" and asked_ranges(faults)[1:] == [
        "bytes=1500000-", "bytes=1500000-", "bytes=1500000-", "bytes=2250000-",
    ]  # fmt: skip
    assert seen == sorted(seen) and seen[-1] == len(NOISE)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["noise.bin", "served"]


def test_what_a_killed_process_left_is_gone_on_with(web: tuple[str, Faults, Path], tmp_path: Path) -> None:
    url, faults, folder = web
    (tmp_path / "noise.bin.part").write_bytes(NOISE[:1_000_000])
    etag = f'"{(folder / "noise.bin").stat().st_mtime_ns}"'
    (tmp_path / "noise.bin.part.validator").write_text(etag)
    fetch(f"{url}/noise.bin", tmp_path / "noise.bin", md5=FIXED, retry=PATIENT)
    assert asked_ranges(faults) == ["bytes=1000000-"]


def test_a_file_that_was_changed_since_is_begun_anew(web: tuple[str, Faults, Path], tmp_path: Path) -> None:
    url, _, _ = web
    (tmp_path / "noise.bin.part").write_bytes(b"older" * 1000)
    (tmp_path / "noise.bin.part.validator").write_text('"of another version"')
    found = fetch(f"{url}/noise.bin", tmp_path / "noise.bin", retry=BRIEF)
    assert (tmp_path / "noise.bin").read_bytes() == NOISE and not found.verified


@pytest.mark.parametrize("left", [3_000_000, 3_000_001, 5_000_000])
def test_a_part_as_long_as_the_file_or_longer(
    web: tuple[str, Faults, Path], tmp_path: Path, left: int
) -> None:
    (tmp_path / "noise.bin.part").write_bytes((NOISE + NOISE)[:left])
    fetch(f"{web[0]}/noise.bin", tmp_path / "noise.bin", size=len(NOISE), md5=FIXED, retry=PATIENT)
    assert (tmp_path / "noise.bin").read_bytes() == NOISE


def test_a_server_without_ranges_begins_anew_each_time(web: tuple[str, Faults, Path], tmp_path: Path) -> None:
    url, faults, _ = web
    faults.ranges, faults.next = False, ["cut", "cut"]
    fetch(f"{url}/noise.bin", tmp_path / "noise.bin", md5=FIXED, retry=PATIENT)
    assert (tmp_path / "noise.bin").read_bytes() == NOISE and len(faults.seen) == 3


def test_a_wrong_checksum_is_refused_and_the_file_kept_aside(
    web: tuple[str, Faults, Path], tmp_path: Path
) -> None:
    with pytest.raises(StorageError) as error:
        fetch(f"{web[0]}/noise.bin", tmp_path / "noise.bin", md5="0" * 32, retry=BRIEF)
    text = str(error.value)
    assert FIXED in text and "0" * 32 in text and "noise.bin.bad" in text and "\n" not in text
    assert sorted(path.name for path in tmp_path.iterdir()) == ["noise.bin.bad", "served"]
    with pytest.raises(StorageError, match="has 3000000 bytes, .*; expected 7 bytes"):
        fetch(f"{web[0]}/noise.bin", tmp_path / "noise.bin", size=7, retry=BRIEF)


def test_no_such_file_and_no_server(web: tuple[str, Faults, Path], tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="/none.zip: no such file"):
        fetch(f"{web[0]}/none.zip", tmp_path / "x", retry=BRIEF)
    assert len(web[1].seen) == 1
    with pytest.raises(StorageError, match="tried .* times"):
        fetch("http://127.0.0.1:9/x", tmp_path / "x", retry=BRIEF)
    assert not (tmp_path / "x").exists()


def test_a_disk_that_fills_up_is_said_and_what_came_is_kept(
    web: tuple[str, Faults, Path], tmp_path: Path
) -> None:
    """A file may not grow beyond 1 MB in that process: writes fail as on a full disk."""
    code = (
        "import resource, signal, sys; from pathlib import Path; from datasets.fetch import fetch\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, resource.RLIM_INFINITY))\n"
        "try: fetch(sys.argv[1], Path(sys.argv[2]))\n"
        "except OSError as error: sys.exit(str(error))"
    )
    command = [sys.executable, "-c", code, f"{web[0]}/noise.bin", str(tmp_path / "noise.bin")]
    found = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True)
    assert found.returncode == 1 and os.strerror(errno.EFBIG) in found.stderr
    assert "what has come is kept" in found.stderr and found.stderr.count("\n") == 1
    assert 0 < (tmp_path / "noise.bin.part").stat().st_size <= 1_000_000
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] == resource.RLIM_INFINITY


def test_no_room_is_said_before_anything_comes(
    web: tuple[str, Faults, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = type("Usage", (), {"free": 1000})
    monkeypatch.setattr("datasets.fetch.shutil.disk_usage", lambda _: usage)
    with pytest.raises(StorageError, match="0.00 GB are still to come, 0.00 GB are free in"):
        fetch(f"{web[0]}/noise.bin", tmp_path / "noise.bin", retry=BRIEF)
    assert not list(tmp_path.glob("noise*"))


def zipped(path: Path, files: dict[str, bytes], **attributes: Any) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            info = zipfile.ZipInfo(name)
            info.compress_type = zipfile.ZIP_DEFLATED
            for key, value in attributes.items():
                setattr(info, key, value)
            archive.writestr(info, data)
    return path


def tarred(path: Path, *members: tuple[str, bytes, dict[str, Any]]) -> Path:
    with tarfile.open(path, "w:gz") as archive:
        for name, data, attributes in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            for key, value in attributes.items():
                setattr(info, key, value)
            archive.addfile(info, io.BytesIO(data))
    return path


HOSTILE: dict[str, tuple[Callable[[Path], Path], str]] = {
    "zip with an absolute name": (lambda p: zipped(p, {"/etc/x": b"1"}), "'/etc/x': leads out"),
    "zip with ..": (lambda p: zipped(p, {"a": b"1", "a/../../x": b"1"}), "leads out of the folder"),
    "zip with a drive": (lambda p: zipped(p, {"C:x": b"1"}), "'C:x': leads out"),
    "zip with a backslash": (lambda p: zipped(p, {"a\\..\\..\\x": b"1"}), "leads out"),
    "zip with a link": (
        lambda p: zipped(p, {"link": b"/etc/passwd"}, external_attr=0o120777 << 16),
        "'link': is a link or a device",
    ),
    "zip bomb of zeros": (lambda p: zipped(p, {"zeros": bytes(100 * 2**20)}), "'zeros': unpacks to more"),
    "tar with ..": (lambda p: tarred(p, ("../x", b"1", {})), "'../x': leads out"),
    "tar with an absolute name": (lambda p: tarred(p, ("/x", b"1", {})), "'/x': leads out"),
    "tar with a symbolic link": (
        lambda p: tarred(p, ("l", b"", {"type": tarfile.SYMTYPE, "linkname": "/etc"}), ("l/x", b"1", {})),
        "'l': is a link",
    ),
    "tar with a hard link": (
        lambda p: tarred(p, ("l", b"", {"type": tarfile.LNKTYPE, "linkname": "/etc/passwd"})),
        "'l': is a link",
    ),
    "tar with a device": (lambda p: tarred(p, ("d", b"", {"type": tarfile.CHRTYPE})), "is a link, a device"),
    "neither": (lambda p: p.write_bytes(b"<html>not found</html>") and p, "is neither zip nor tar"),
    "zip cut off": (
        lambda p: p.write_bytes(zipped(p, {"a": NOISE}).read_bytes()[:-9000]) and p, "neither zip nor tar"
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", HOSTILE)
def test_hostile_archives_are_refused_before_anything_is_written(tmp_path: Path, kind: str) -> None:
    make, message = HOSTILE[kind]
    out = tmp_path / "deep" / "out"
    out.mkdir(parents=True)
    archive = make(tmp_path / "a.zip")
    with pytest.raises(UnpackError, match="a.zip: ") as error:
        unpack(archive, out)
    assert message in str(error.value) and "\n" not in str(error.value)
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["a.zip", "deep", "out"]


def test_a_member_that_is_damaged_leaves_no_file_by_its_name(tmp_path: Path) -> None:
    archive = zipped(tmp_path / "a.zip", {"good": b"1", "noise": NOISE})
    data = bytearray(archive.read_bytes())
    data[1_000_000] ^= 1
    archive.write_bytes(data)
    with pytest.raises((UnpackError, OSError), match="a.zip: can't be unpacked: "):
        unpack(archive, tmp_path)
    assert not [path.name for path in tmp_path.iterdir() if "noise" in path.name]


def test_a_link_that_was_in_the_folder_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out/inside").symlink_to(tmp_path)
    with pytest.raises(UnpackError, match="leads out of the folder by a link"):
        unpack(zipped(tmp_path / "a.zip", {"inside/x": b"1"}), tmp_path / "out")
    assert not (tmp_path / "x").exists()


def test_honest_archives_are_unpacked(tmp_path: Path) -> None:
    unpack(zipped(tmp_path / "a.zip", {"C/": b"", "C/a.txt": b"1", "C/d/b.txt": b"22"}), tmp_path)
    unpack(tarred(tmp_path / "b.tgz", ("C", b"", {"type": tarfile.DIRTYPE}), ("C/c.txt", b"3", {})), tmp_path)
    texts = {str(p.relative_to(tmp_path)): p.read_bytes() for p in (tmp_path / "C").rglob("*.txt")}
    assert texts == {"C/a.txt": b"1", "C/d/b.txt": b"22", "C/c.txt": b"3"}


def test_every_corpus_says_where_its_files_are() -> None:
    known = download.corpora()
    assert {"tut2018", "tau2019", "tut-sed-2016", "tut-sed-2017", "fsdkaggle2019"} <= set(known)
    for corpus in known.values():
        files = download.archives(corpus)
        assert corpus["page"].startswith("https://") and len({file.name for file in files}) == len(files) > 0
        for file in files:
            assert file.url.startswith("https://") and file.name in file.url
            assert file.md5 is None or (len(file.md5) == 32 and int(file.md5, 16) >= 0)
            assert file.bytes is None or file.bytes > 0
    # What has a reader is told how to go on; the rest are evaluation sets, and lists without audio.
    prepared = {name: corpus["prepare"] for name, corpus in known.items() if "prepare" in corpus}
    rest = known.keys() - prepared.keys()
    assert all(name.endswith("-evaluation") for name in rest - {"audioset-lists"})
    assert {"tau2019", "tut2018", "tut-as", "tut-sed", "dcase2013", "fsdkaggle2019"} == set(prepared.values())


@pytest.fixture
def mirror(
    web: tuple[str, Faults, Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> tuple[str, Faults]:
    """A corpus of two archives, a list and a split zip, described as archives.json does."""
    url, faults, folder = web
    zipped(folder / "c.meta.zip", {"c/meta.csv": b"m"})
    zipped(folder / "c.audio.1.zip", {"c/audio/a.wav": NOISE})
    (folder / "c.csv").write_bytes(b"1,2")
    for name in ("c.more.z01", "c.more.zip"):
        (folder / name).write_bytes(b"piece")
    files = []
    for path in sorted(folder.glob("c.*")):
        data = path.read_bytes()
        files.append({"name": path.name, "bytes": len(data), "md5": hashlib.md5(data).hexdigest()})
    files[-1] |= {"bytes": None, "md5": None}
    corpus = {"title": "C", "page": "https://c", "url": "https://c/{name}", "folder": "c", "files": files}
    (tmp_path / "archives.json").write_text(json.dumps({"corpora": {"c": corpus | {"prepare": "table"}}}))
    monkeypatch.setattr(download, "DATA", tmp_path / "archives.json")
    monkeypatch.setenv("SCENETUNE_RETRY_FIRST", "0.01")
    monkeypatch.setenv("SCENETUNE_RETRY_TOTAL", "2")
    return url, faults


def test_the_command_downloads_checks_and_unpacks(
    mirror: tuple[str, Faults], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    url, faults = mirror
    out = tmp_path / "out"
    command = ["c", "--out", str(out), "--mirror", url]
    faults.next = ["cut"]
    assert download.main([*command, "--only", "meta", "audio"]) == 0
    assert (out / "c/meta.csv").read_bytes() == b"m" and (out / "c/audio/a.wav").read_bytes() == NOISE
    text = capsys.readouterr().out
    assert text.count("MD5 as expected") == 2 and f"prepare table --source {out / 'c'}" in text
    faults.seen.clear()
    assert download.main(command) == 0
    text = capsys.readouterr().out
    assert text.count("there already") == 2 and len(faults.seen) == 3
    assert (out / "c.csv").read_bytes() == b"1,2"
    assert (
        f"could not be verified (no checksum is known); SHA-256 {hashlib.sha256(b'piece').hexdigest()}"
        in text
    )
    assert "zip -s 0 c.more.zip --out c.more.joined.zip" in text
    left = sorted(path.name for path in (out / "archives").iterdir() if path.suffix != ".json")
    assert left == ["c.more.z01", "c.more.zip"]


def test_a_checksum_that_is_not_known_is_asked_of_the_record(
    mirror: tuple[str, Faults],
    web: tuple[str, Faults, Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (url, _), folder = mirror, web[2]
    corpora = json.loads(download.DATA.read_text())
    corpora["corpora"]["c"]["record"] = f"{url}/record"
    download.DATA.write_text(json.dumps(corpora))
    command = ["c", "--mirror", url, "--only", "more"]
    digest = hashlib.md5(b"piece").hexdigest()
    right = {"key": "c.more.zip", "size": 5, "checksum": f"md5:{digest}"}
    (folder / "record").write_text(json.dumps({"files": [right]}))
    assert download.main([*command, "--out", str(tmp_path / "a")]) == 0
    assert "c.more.zip: 5 bytes, MD5 as expected" in capsys.readouterr().out
    (folder / "record").write_text(json.dumps({"files": [right | {"checksum": "md5:" + 32 * "0"}]}))
    assert download.main([*command, "--out", str(tmp_path / "b")]) == 2
    assert f"MD5 {digest}; expected 5 bytes, MD5 0000" in capsys.readouterr().err
    for text in ("[1]", "<html>"):
        (folder / "record").write_text(text)
        assert download.main([*command, "--out", str(tmp_path / text[1])]) == 0
        said = capsys.readouterr()
        assert said.err.startswith(f"note: {url}/record: no list of files") and said.err.count("\n") == 1
        assert "could not be verified" in said.out


def test_the_record_is_asked_only_about_files_that_are_still_to_come(
    mirror: tuple[str, Faults], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A record that can't be reached costs minutes of tries, and a note that nothing can be verified."""
    url, faults = mirror
    corpora = json.loads(download.DATA.read_text())
    corpora["corpora"]["c"]["record"] = f"{url}/record"
    download.DATA.write_text(json.dumps(corpora))
    command = ["c", "--mirror", url, "--out", str(tmp_path / "out")]
    asked = []
    for only in (["meta"], ["meta", "more"], ["meta", "more"], []):
        faults.seen.clear()
        assert download.main([*command, *(["--only", *only] if only else [])]) == 0
        asked.append([path for _, path, _ in faults.seen])
    assert asked == [
        ["/c.meta.zip"],  # archives.json has its checksum
        ["/record", "/c.more.z01", "/c.more.zip"],
        [],
        ["/c.audio.1.zip", "/c.csv"],
    ]
    assert capsys.readouterr().out.count("there already") == 1 + 3 + 3


def test_records_of_three_places_are_read() -> None:
    digest = hashlib.md5(b"a").digest()
    for record in (
        {"files": [{"key": "a", "size": 1, "checksum": f"md5:{digest.hex()}"}, {"key": "b", "size": 2}]},
        {"files": [{"name": "a", "size": "1", "md5": digest.hex()}, {"name": "b"}]},
        {"items": [{"name": "x/a", "size": "1", "md5Hash": base64.b64encode(digest).decode()}]},
    ):
        assert published(record) == {"a": (1, digest.hex())}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["d", "--out", "x"], "corpus 'd' is not one of: c"),
        (["c"], "--out is missing"),
        (
            ["c", "--out", "x", "--only", "nothing"],
            "--only nothing: no file has that part in its name: c.audio",
        ),
        (["c", "--out", "x", "--mirror", "file:///etc"], "--mirror file:///etc: expected an http"),
    ],
)
def test_mistakes_are_one_line(
    mirror: tuple[str, Faults], capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    assert download.main(arguments) == 2
    text = capsys.readouterr().err
    assert text.startswith("error: ") and message in text and text.count("\n") == 1


def test_a_failing_server_is_one_line_and_the_same_command_goes_on(
    mirror: tuple[str, Faults], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    url, faults = mirror
    command = ["c", "--out", str(tmp_path / "out"), "--mirror", url, "--only", "audio"]
    faults.next, faults.always = ["cut"], 503
    assert download.main(command) == 2
    text = capsys.readouterr().err.splitlines()[-1]
    assert text.startswith("error: ") and "c.audio.1.zip: the server failed (503); tried" in text
    faults.always = None
    faults.seen.clear()
    assert download.main(command) == 0
    assert asked_ranges(faults)[0].startswith("bytes=15")


@pytest.mark.parametrize("name", ["a.tar.gz", "a.tar.xz", "a.zip"])
def test_a_flipped_byte_in_an_archive_is_one_line(tmp_path: Path, name: str) -> None:
    """tarfile stops reading before it would come to a stream's own checksum."""
    content = np.random.default_rng(0).bytes(100_000)
    archive = tmp_path / name
    if name.endswith("zip"):
        with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as made:
            made.writestr("x.wav", content)
    else:
        with tarfile.open(archive, f"w:{name[-2:]}") as tar:
            info = tarfile.TarInfo("x.wav")
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    out = tmp_path / "out"
    out.mkdir()
    assert unpack(archive, out)[0].read_bytes() == content
    damaged = bytearray(archive.read_bytes())
    damaged[len(damaged) // 2] ^= 0xFF
    archive.write_bytes(damaged)
    with pytest.raises(UnpackError, match=f"^{name}: can't be unpacked: "):
        unpack(archive, out)
