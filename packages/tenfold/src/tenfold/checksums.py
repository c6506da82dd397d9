"""SHA-256 of files, computed again only when a file may have changed."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import time
from pathlib import Path

from tenfold.storage import write_atomically

# A second write within a clock tick of the file system may leave the times as they are.
_SETTLED_S = 2.0


def sha256(path: Path, memory: Path) -> str:
    """The SHA-256 of a file in hexadecimal digits.

    The folder `memory` keeps it with the file's inode, size and times of change; while these stay the same
    the file is not read again. Where `memory` cannot be written the file is read each time.
    Raises `OSError` if the file cannot be read.
    """
    state = _state(path)
    note = memory / f"{hashlib.sha256(str(path.absolute()).encode()).hexdigest()[:32]}.json"
    known = _remembered(note, state)
    if known is not None:
        return known
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if time.time() - max(state[2:]) / 1e9 > _SETTLED_S:
        with contextlib.suppress(OSError):  # a note only saves time
            write_atomically(
                note, json.dumps({"path": str(path.absolute()), "state": state, "sha256": digest})
            )
    return digest


def _state(path: Path) -> list[int]:
    there = os.stat(path)
    return [there.st_ino, there.st_size, there.st_mtime_ns, there.st_ctime_ns]


def _remembered(note: Path, state: list[int]) -> str | None:
    try:
        kept = json.loads(note.read_bytes())
    except (OSError, ValueError):
        return None
    matches = isinstance(kept, dict) and kept.get("state") == state and isinstance(kept.get("sha256"), str)
    return kept["sha256"] if matches else None
