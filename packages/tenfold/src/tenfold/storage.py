"""Files that survive a crash: written whole or not at all, and read with suspicion.

A file that cannot be trusted is moved aside under a name that says so, and the caller is told;
it is never used, and never ends a command with a traceback.
"""

from __future__ import annotations

import errno
import os
import re
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

Tell: TypeAlias = Callable[[str], None]
"""How a message reaches the person who started the command."""


class Stored(BaseModel):
    """A model that is kept in a file: no unknown keys, NaN and Infinity as Python's own json writes them."""

    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="constants")


Model = TypeVar("Model", bound=Stored)


def write_atomically(path: Path, content: str | bytes) -> None:
    """Write `content` so that after any crash `path` holds either the old content or the new one."""
    data = content.encode() if isinstance(content, str) else content
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o666 & ~_umask())  # mkstemp made it private; results are for everyone
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def append_line(path: Path, line: str, *, sync: bool) -> None:
    """Append one line with one write; with `sync`, wait until it is on the disk.

    O_APPEND makes the lines of processes that run side by side follow each other and never mix.
    Raises `OSError` naming the file.
    """
    data = (line + "\n").encode(errors="replace")
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
    try:
        written = os.write(descriptor, data)
        if written != len(data):
            raise OSError(errno.ENOSPC, f"only {written} of {len(data)} bytes could be written")
        if sync:
            os.fsync(descriptor)
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from error
    finally:
        os.close(descriptor)


def sync_folder(folder: Path) -> None:
    """Make renames inside `folder` durable, where the system can."""
    if os.name == "nt":  # Windows cannot open a folder
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def free_name(path: Path, word: str) -> Path:
    """Return the first of `path.word-1`, `path.word-2`, ... that does not exist."""
    pattern = re.compile(rf"{re.escape(path.name)}\.{word}-(\d+)")
    taken = [int(m.group(1)) for p in path.parent.glob("*") if (m := pattern.fullmatch(p.name))]
    return path.with_name(f"{path.name}.{word}-{max(taken, default=0) + 1}")


def move_aside(path: Path, word: str) -> Path:
    """Rename a file or folder to its next free name with `word`, and return that name."""
    target = free_name(path, word)
    path.rename(target)
    sync_folder(path.parent)
    return target


def write_json(path: Path, model: Stored) -> None:
    """Write a model as indented JSON."""
    write_atomically(path, model.model_dump_json(indent=2) + "\n")


def read_json(path: Path, model: type[Model], tell: Tell) -> Model | None:
    """Return the model stored at `path`, or None if there is no file.

    A file that is not JSON or has another schema is moved aside to `<name>.damaged-<n>`, `tell` is told
    which file and why, and the answer is None.
    """
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return None
    try:
        return model.model_validate_json(content)
    except ValidationError as error:
        report_damage(path, first_problem(error), tell)
        return None


def report_damage(path: Path, problem: str, tell: Tell) -> None:
    """Move a damaged file aside and say so."""
    aside = move_aside(path, "damaged")
    tell(f"{path} is damaged ({problem}); it was moved to {aside.name} and is not used.")


def first_problem(error: ValidationError) -> str:
    """Return the first of a validation's complaints on one line, with the key that it is about."""
    problem = error.errors(include_url=False, include_context=False)[0]
    where = ".".join(str(part) for part in problem["loc"])
    return f"{where}: {problem['msg']}" if where else str(problem["msg"])


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
