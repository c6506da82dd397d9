"""One command at a time in a run's folder, and none before the processes of a killed one are gone."""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from tenfold.errors import UsageError

PATIENCE_S = 10.0  # the processes of a killed command need a moment to notice


def _lock_file(directory: Path) -> Path:
    return directory.with_name(f".{directory.name}.lock")  # beside it, so that it stays when the folder moves


if sys.platform == "win32":  # no flock; Windows refuses to move a folder in use, which is some protection

    @contextlib.contextmanager
    def own_lock(directory: Path) -> Iterator[None]:
        """Do nothing on Windows."""
        yield

    @contextlib.contextmanager
    def share_lock(directory: Path) -> Iterator[None]:
        """Do nothing on Windows."""
        yield

else:
    import fcntl

    @contextlib.contextmanager
    def own_lock(directory: Path) -> Iterator[None]:
        """Hold the run's folder for this command and the trial processes that it starts.

        Raises `UsageError` if another command holds it for longer than it takes to die.
        """
        with _open(_lock_file(directory)) as descriptor:
            deadline = time.monotonic() + PATIENCE_S
            while True:
                try:
                    # Exclusive proves that nobody is here; shared lets our own children in. Should another
                    # command slip in between the two, the second call fails and we are the one to wait.
                    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if time.monotonic() > deadline:
                        raise UsageError(
                            f"another tenfold command is running in {directory}; wait for it or stop it, "
                            "or give another --results folder"
                        ) from None
                    time.sleep(0.05)
            yield

    @contextlib.contextmanager
    def share_lock(directory: Path) -> Iterator[None]:
        """Hold the folder as a trial process does: no new command starts while this is held."""
        with _open(_lock_file(directory)) as descriptor:
            fcntl.flock(descriptor, fcntl.LOCK_SH)
            yield


@contextlib.contextmanager
def _open(path: Path) -> Iterator[int]:
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        yield descriptor
    finally:
        os.close(descriptor)
