"""What is built once and then read: folders named by a hash of everything that they depend on."""

from __future__ import annotations

import hashlib
import json
import os
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
    digests = []
    for path in paths:
        with path.open("rb") as file:
            digests.append(hashlib.file_digest(file, "sha256").hexdigest())
    return fingerprint(digests)


def built_once(kind: str, name: str, build: Callable[[Path], None]) -> Path:
    """The folder `kind/name` of the cache; `build` fills it if it is not there.

    Any number of processes may ask at once: one builds, the others wait. The folder appears whole or not at
    all, so what is there can be trusted, also after a crash.
    """
    folder = cache_directory() / kind / name
    if folder.is_dir():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(folder.with_name(f".{name}.lock")):
        if folder.is_dir():
            return folder
        partial = folder.with_name(f".{name}.partial")
        shutil.rmtree(partial, ignore_errors=True)  # left by a process that was killed; ours under the lock
        partial.mkdir()
        build(partial)
        partial.rename(folder)
    return folder
