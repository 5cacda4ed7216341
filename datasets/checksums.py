"""Sizes and MD5s that the place of a corpus publishes itself, for files of which archives.json has none."""

from __future__ import annotations

import base64
import json
import tempfile
from pathlib import Path
from typing import Any

from datasets.fetch import fetch
from datasets.remote import StorageError, shown


def from_record(url: str) -> dict[str, tuple[int, str]]:
    """What the record at `url` publishes (`published`). Raises StorageError in one line where it can't be had
    or read."""
    with tempfile.TemporaryDirectory(prefix="scenetune-record-") as folder:
        text = fetch(url, Path(folder) / "record.json").path.read_text(encoding="utf-8", errors="replace")
    try:
        return published(json.loads(text))
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise StorageError(
            f"{shown(url)}: no list of files with checksums ({type(error).__name__})"
        ) from None


def published(record: Any) -> dict[str, tuple[int, str]]:
    """File name → (bytes, MD5 in hex), of a record of Zenodo ("files" with "key" and "checksum": "md5:…"), of
    the Internet Archive ("files" with "name" and "md5") or of Google Cloud Storage ("items" with "md5Hash" in
    base 64). Files without an MD5 are left out."""
    found: dict[str, tuple[int, str]] = {}
    for file in record["items"] if "items" in record else record["files"]:
        name = str(file.get("key") or file["name"]).rsplit("/", 1)[-1]
        kind, _, digest = str(file.get("checksum", "")).partition(":")
        if "md5Hash" in file:
            digest = base64.b64decode(file["md5Hash"], validate=True).hex()
        elif kind != "md5":
            digest = str(file.get("md5", ""))
        if len(digest) == 32 and "size" in file:
            found[name] = int(file["size"]), digest.lower()
    return found
