"""Who may reach a search's Ray: the token's mode, and nodes with public addresses."""

from __future__ import annotations

import shutil
import stat
import subprocess
from pathlib import Path

import pytest

from trainables.access import keep_token_private, of_this_machine, reachable, refuse_public

PRIVATE = ["10.0.0.1", "192.168.7.2", "127.0.0.1", "::1", "fd00::1", "fe80::1%eth0", "node-7"]
PUBLIC = ["10.0.0.1", "141.20.5.6"]


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_a_token_that_others_could_read_is_closed(tmp_path: Path) -> None:
    folder = tmp_path / ".ray"
    folder.mkdir(mode=0o755)
    (folder / "auth_token").write_text("0" * 64)
    (folder / "auth_token").chmod(0o644)
    keep_token_private(folder)
    assert (mode(folder), mode(folder / "auth_token")) == (0o700, 0o600)


def test_what_ray_writes_later_lies_in_a_closed_folder(tmp_path: Path) -> None:
    keep_token_private(tmp_path / "home" / ".ray")
    assert mode(tmp_path / "home" / ".ray") == 0o700
    assert not list((tmp_path / "home" / ".ray").iterdir())


def test_a_home_that_is_no_folder_is_left_to_ray(tmp_path: Path) -> None:
    (tmp_path / "home").write_text("no folder")
    keep_token_private(tmp_path / "home" / ".ray")
    assert (tmp_path / "home").read_text() == "no folder"


@pytest.mark.skipif(not shutil.which("ip"), reason="asks Debian's iproute2")
def test_every_address_of_this_machine_is_known() -> None:
    shown = subprocess.run(["ip", "-o", "address"], capture_output=True, text=True, check=True).stdout
    known = [line.split()[3].split("/")[0] for line in shown.splitlines()]
    assert "127.0.0.1" in known and {one.split("%")[0] for one in of_this_machine()} == set(known)


def test_private_addresses_are_nothing_to_speak_of(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SCENETUNE_PUBLIC_NODES", raising=False)
    refuse_public(PRIVATE)
    assert reachable(PRIVATE) == []


def test_nodes_do_not_talk_over_the_internet_unless_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SCENETUNE_PUBLIC_NODES", raising=False)
    with pytest.raises(
        ValueError, match=r"public address 141\.20\.5\.6: .*private.*SCENETUNE_PUBLIC_NODES=1"
    ):
        refuse_public(PUBLIC)
    monkeypatch.setenv("SCENETUNE_PUBLIC_NODES", "1")
    refuse_public(PUBLIC)
    assert reachable([*PUBLIC, *PUBLIC])[0].startswith("141.20.5.6: public address")
    assert reachable(["2a02:8109::5"])[0].startswith("2a02:8109::5: public address")
