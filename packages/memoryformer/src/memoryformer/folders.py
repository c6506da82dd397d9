"""Folders to write to: refused before the work where they cannot be had, and written whole or not at all."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from memoryformer.errors import MemoryFormerError


def check_folder(folder: Path, name: str) -> None:
    """Raise `MemoryFormerError` if a file stands where `folder`, or one above it, is to be.

    `name` is what the folder is called on the command line.
    """
    there = next(place for place in (folder, *folder.parents) if place.exists())
    if not there.is_dir():
        raise MemoryFormerError(f"{there} is a file; {name} is the folder to write to")


def check_new_folder(folder: Path, name: str) -> None:
    """`check_folder`, and raise if something is in it already."""
    check_folder(folder, name)
    if folder.exists() and any(folder.iterdir()):
        raise MemoryFormerError(f"{folder} is there already and not empty; give another folder as {name}")


@contextmanager
def whole_folder(target: Path) -> Iterator[Path]:
    """Yield an empty folder beside `target`, which must not be there or be empty, and rename it at the end.

    What is interrupted, or fails for a full disk, leaves nothing.
    """
    target = target.resolve()
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{target.name}-", dir=target.parent) as around:
        folder = Path(around) / target.name  # made here, it may be read by whom the umask allows
        folder.mkdir()
        yield folder
        for file in filter(Path.is_file, folder.rglob("*")):
            with file.open("rb+") as handle:
                os.fsync(handle.fileno())
        if target.exists():
            target.rmdir()  # Windows does not rename onto an empty folder
        folder.rename(target)
