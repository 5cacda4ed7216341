"""Who may reach the Ray that a search runs on: whoever has its token, from wherever its nodes' ports can be
reached, and Ray (2.60) opens them on every address of a machine.
"""

from __future__ import annotations

import ipaddress
import os
import socket
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

import psutil

OPENLY = "SCENETUNE_PUBLIC_NODES"


def keep_token_private(folder: Path = Path("~/.ray")) -> None:
    """Leave the token that Ray keeps in `folder` to this user alone.

    Ray makes one for a cluster on one machine, with the mode that the umask gives: mostly for everybody who
    has an account there to read, and to run code as this user with. Call it before Ray starts, for then what
    Ray writes can't be reached, and after.
    """
    folder = folder.expanduser()
    with suppress(OSError):  # no home to write in: Ray says so if it needs one
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        folder.chmod(0o700)
    with suppress(OSError):
        (folder / "auth_token").chmod(0o600)


def of_this_machine() -> list[str]:
    """All its addresses, IPv6 among them: Ray's gRPC ports listen on both kinds (`ss -ltn`: *:PORT)."""
    interfaces, kinds = psutil.net_if_addrs().values(), (socket.AF_INET, socket.AF_INET6)
    return [one.address for found in interfaces for one in found if one.family in kinds]


def public(addresses: Iterable[str]) -> list[str]:
    """Those that the whole internet can route to, each once; a name is none."""
    return [one for one in dict.fromkeys(addresses) if _is_global(one)]


def _is_global(address: str) -> bool:
    try:
        return ipaddress.ip_address(address).is_global
    except ValueError:
        return False


def refuse_public(addresses: Iterable[str]) -> None:
    """Raises ValueError if the nodes of a cluster have a public address: token and data would cross the
    internet in clear. SCENETUNE_PUBLIC_NODES=1 allows it."""
    found = public(addresses)
    if found and not os.environ.get(OPENLY):
        raise ValueError(
            f"a node has the public address {found[0]}: Ray's ports listen there, and its nodes talk "
            "unencrypted. Give the nodes private addresses alone, or set "
            f"{OPENLY}=1 if a firewall closes all but SSH"
        )


def reachable(addresses: Iterable[str]) -> list[str]:
    """A line about the public ones, none where all are private."""
    found = ", ".join(public(addresses))
    said = (
        "public address, and Ray's ports listen there; they answer only with the token, a firewall is better"
    )
    return [f"{found}: {said}"] if found else []
