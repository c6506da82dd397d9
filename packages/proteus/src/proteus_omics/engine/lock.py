"""One writer a run: a lock file with the writer's process number."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from proteus_omics.errors import ResumeError

LOCK = ".lock"
PROCESS = "lock.pid"


@contextmanager
def writing(folder: Path) -> Iterator[bool]:
    """Hold the run's lock; yields whether an earlier writer ended without letting go of it.

    The operating system frees the lock of a process that was killed; its number stays in `lock.pid`. Raises
    `ResumeError` while another process writes, or where the folder cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / LOCK, timeout=0)
        lock.acquire()
    except Timeout:
        raise ResumeError(
            f"process {_owner(folder)} is writing to {folder}: wait for it, or give another --out"
        ) from None
    except OSError as error:
        raise ResumeError(f"cannot write to {folder}: {error.strerror or error}") from error
    note = folder / PROCESS
    stale = note.exists()
    try:
        note.write_text(str(os.getpid()), encoding="utf-8")
        yield stale
    finally:
        note.unlink(missing_ok=True)
        lock.release()


def _owner(folder: Path) -> str:
    try:
        return (folder / PROCESS).read_text(encoding="utf-8")
    except OSError:
        return "another"
