"""Members out of a shard's tar, safely: a shard may come from anywhere.

A member is a plain file called <key>.<suffix> in no folder, with a suffix that is allowed and no more bytes
than that suffix may have, as its header promises them: nothing is allocated for what is refused. Links,
devices, folders and sparse files (whose zeros take no room in the tar) are refused and not skipped;
compressed tars are not read. Nothing is ever written to a disk by a member's name, and nothing is unpickled.
"""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterator, Mapping
from typing import BinaryIO

AUDIO = ("flac", "wav", "ogg", "mp3")
ARRAYS = ("tags.npy", "frames.npy")
ALLOWED = (*AUDIO, "json", *ARRAYS)
CLIP_BYTES = 256 * 2**20
LABEL_BYTES = 2**20
ARRAY_BYTES = 64 * 2**20


class ShardError(ValueError):
    """A shard set that is missing, unfinished, damaged or not what its index says. The message is one
    line."""


def expand_tar(
    stream: BinaryIO, where: str, bufsize: int = tarfile.RECORDSIZE
) -> Iterator[tuple[str, bytes]]:
    """(name, content) of every member of an uncompressed tar stream, in order.

    Raises ShardError, beginning with `where`, that names the member that is refused, or for what is no tar.
    """
    name, seen = "", set[str]()
    try:
        with tarfile.open(fileobj=stream, mode="r|", bufsize=bufsize) as tar:
            for member in tar:
                name = member.name
                _check_header(member)
                if name in seen:
                    raise _Refused("there are two of it")
                seen = {name} | {other for other in seen if _key(other) == _key(name)}
                file = tar.extractfile(member)
                yield name, b"" if file is None else file.read()
                tar.members = []  # type: ignore[attr-defined]  # or it grows by every member read
    except _Refused as error:
        raise ShardError(f"{where}: member {name!r}: {error}") from error
    except (tarfile.TarError, EOFError, ValueError, OverflowError) as error:
        if isinstance(error, ShardError):
            raise
        after = f" after member {name!r}" if name else ""
        reason = f"not a readable tar where the index says a clip begins{after}: {error}"
        raise ShardError(f"{where}: {reason}") from error


def clip_members(data: bytes, shard: str, key: str) -> dict[str, bytes]:
    """{suffix: content} of one clip's stretch of a shard. Raises ShardError, also for members of another
    clip."""
    members: dict[str, bytes] = {}
    for name, content in _plain_members(data) or expand_tar(io.BytesIO(data), f"{shard}: clip {key}"):
        if _key(name) != key:
            raise ShardError(f"{shard}: expected clip {key} from the index, found {name}")
        members[name.partition(".")[2]] = content
    try:
        check_members(members)
    except ValueError as error:
        raise ShardError(f"{shard}: clip {key}: {error}") from error
    return members


def _plain_members(data: bytes) -> list[tuple[str, bytes]] | None:
    """What `expand_tar` gives of whole members that are all allowed and have plain headers; None for anything
    else, which `expand_tar` is there to read or refuse. Several times faster."""
    found: list[tuple[str, bytes]] = []
    at = 0
    while at < len(data):
        try:
            member = tarfile.TarInfo.frombuf(data[at : at + tarfile.BLOCKSIZE], "utf-8", "surrogateescape")
            _check_header(member)
        except (tarfile.TarError, ValueError):
            return None
        at += tarfile.BLOCKSIZE
        if member.type not in (tarfile.REGTYPE, tarfile.AREGTYPE) or at + member.size > len(data):
            return None
        if any(name == member.name for name, _ in found):
            return None
        found.append((member.name, data[at : at + member.size]))
        at += -(-member.size // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE
    return found


def check_members(members: Mapping[str, bytes]) -> None:
    """Raises ValueError for a suffix that is not allowed, a member that is too large, no labels, or not
    exactly one audio file."""
    for suffix, data in members.items():
        _check_size(suffix, len(data))
    audio = [suffix for suffix in members if suffix in AUDIO]
    if len(audio) != 1 or "json" not in members:
        raise ValueError(f"has members {', '.join(members)}; expected one audio file and one .json")


class _Refused(ValueError):
    pass


def _key(name: str) -> str:
    return name.partition(".")[0]


def _check_header(member: tarfile.TarInfo) -> None:
    key, _, suffix = member.name.partition(".")
    if "/" in member.name or "\\" in member.name or not key:
        raise _Refused("a name is <key>.<suffix>, in no folder")
    if not member.isreg() or member.issparse():
        kinds = {
            tarfile.SYMTYPE: "a symbolic link",
            tarfile.LNKTYPE: "a hard link",
            tarfile.DIRTYPE: "a folder",
        }
        kind = "a sparse file" if member.issparse() else kinds.get(member.type, "a device")
        raise _Refused(f"is {kind}; shards hold plain files only")
    _check_size(suffix, member.size)


def _check_size(suffix: str, size: int) -> None:
    if suffix not in ALLOWED:
        raise _Refused(f"member .{suffix} is not one of: {', '.join('.' + name for name in ALLOWED)}")
    limit = LABEL_BYTES if suffix == "json" else ARRAY_BYTES if suffix in ARRAYS else CLIP_BYTES
    if not 0 <= size <= limit:
        raise _Refused(f"member .{suffix} has {size} bytes, the limit is {limit}")
