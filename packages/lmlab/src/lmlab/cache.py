"""What is built once and then read: folders named by a hash of everything that they depend on."""

from __future__ import annotations

import functools
import hashlib
import json
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import platformdirs
from filelock import FileLock


def cache_directory() -> Path:
    """The folder `lmlab` in `$TENFOLD_CACHE`, or else in the user's cache folder for tenfold."""
    root = os.environ.get("TENFOLD_CACHE") or platformdirs.user_cache_dir("tenfold", appauthor=False)
    return Path(root).expanduser() / "lmlab"


def fingerprint(*parts: Any) -> str:
    """16 hexadecimal digits that depend on the parts (anything that JSON can hold) and nothing else."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]


def file_fingerprint(*paths: Path) -> str:
    """16 hexadecimal digits that depend on the files' contents alone."""
    return fingerprint([_digest(path, *_state(path)) for path in paths])


def _state(path: Path) -> tuple[int, int, int]:
    there = path.stat()
    return there.st_ino, there.st_size, there.st_mtime_ns


@functools.lru_cache(maxsize=256)  # one call of `prepare` asks several times about a file that may be large
def _digest(path: Path, inode: int, size: int, modified: int) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def built_once(kind: str, name: str, key: str, build: Callable[[Path], None]) -> Path:
    """The folder for `key` among those of this `kind`; `build` fills it if it is not there.

    `name` only makes the folder's name readable. Any number of processes may ask at once: one builds, the
    others wait. The folder appears whole or not at all, so what is there can be trusted, also after a crash.
    """
    readable = re.sub(r"\W+", "-", name, flags=re.ASCII)[-40:].strip("-")
    folder = cache_directory() / kind / f"{readable}-{key}"
    if folder.is_dir():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(folder.with_name(f".{folder.name}.lock")):
        if folder.is_dir():
            return folder
        partial = folder.with_name(f".{folder.name}.partial")
        shutil.rmtree(partial, ignore_errors=True)  # left by a process that was killed; ours under the lock
        partial.mkdir()
        build(partial)
        partial.rename(folder)
    return folder
