"""A file of JSON lines in, one line out for each row, resumable at any moment (section 9).

    out.jsonl            a line a row, whole or not there, in the input's order
    out.jsonl.job.json   what the lines depend on: settings, shard, the input's length and checksum

Rows are worked on in chunks of fixed borders. The last bits of a log-probability depend on what is scored
together, so a chunk that was begun is worked on again as a whole and only its missing lines are added: an
interrupted job gives the same bytes as one that ran through.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO

from implicit_prm.errors import ImplicitPRMError
from implicit_prm.secrecy import without_secrets

try:
    from fcntl import LOCK_EX, LOCK_NB, flock
except ImportError:  # Windows: there nobody is told that two jobs write to one file
    flock = None  # type: ignore[assignment]

CHUNK_ROWS = 256

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Shard:
    """Part `index` of `count` of a file, counted from 1: every count-th chunk of its rows."""

    index: int = 1
    count: int = 1

    def __post_init__(self) -> None:
        if not 1 <= self.index <= self.count:
            raise ImplicitPRMError(f"there is no shard {self}: of four shards the first is 1/4, the last 4/4")

    def __str__(self) -> str:
        return f"{self.index}/{self.count}"

    @classmethod
    def parse(cls, text: str) -> Shard:
        """Read "2/8". Raises `ImplicitPRMError` for anything else."""
        found = re.fullmatch(r"(\d+)/(\d+)", text)
        if found is None:
            raise ImplicitPRMError(f"{text!r} is no shard: write which and of how many, as in 1/4")
        return cls(int(found[1]), int(found[2]))


WHOLE = Shard()


@dataclass(frozen=True)
class JobSummary:
    """`n_rows` of the shard's rows are in the output, `n_new` of them written by this run."""

    n_rows: int
    n_new: int


class LineJob:
    """A job from `source` to `out`; made before a model is loaded, since it may refuse.

    `read(source)` gives the rows, the same at each call; a row without an "id" gets its number, from 1.
    `settings` are JSON values on which the lines depend; keys and tokens among them are neither kept nor
    compared (`implicit_prm.secrecy`). `n_done` of `n_rows` rows are in the output already.

    Raises `ImplicitPRMError` for two rows with one id, for an output that is the input or is not of this job
    (other settings, another shard, a changed input, other rows), and passes on what `read` raises.
    """

    def __init__(
        self,
        source: str | Path,
        out: str | Path,
        read: Callable[[Path], Iterable[Row]],
        settings: Mapping[str, Any],
        shard: Shard = WHOLE,
        chunk_rows: int = CHUNK_ROWS,
    ) -> None:
        self.source, self.out, self._read = Path(source), Path(out), read
        self.shard, self.chunk_rows = shard, chunk_rows
        _check_paths(self.source, self.out)
        self._note = self.out.with_name(f"{self.out.name}.job.json")
        ids = self._ids()
        self.n_rows = len(ids)
        n_bytes = self.source.stat().st_size
        self._now = {
            "settings": {**without_secrets(settings), "shard": str(shard), "chunk_rows": chunk_rows},
            "input": {"bytes": n_bytes, "sha256": _checksum(self.source, n_bytes)},
        }
        self._check_note()
        done, _ = _read_done(self.out)
        if strange := sorted(done - ids):
            raise ImplicitPRMError(
                f"{self.out} has the row {strange[0]!r}, which {self.source} has not; give another output"
            )
        self.n_done = len(done)

    @property
    def complete(self) -> bool:
        """Nothing is left to do."""
        return self.n_done == self.n_rows

    def run(
        self,
        work: Callable[[Sequence[Row]], Iterable[Mapping[str, Any]]],
        on_progress: Callable[[int, int], None] = lambda done, total: None,
    ) -> JobSummary:
        """Write the lines that are missing: `work(rows of a chunk)` gives one, of JSON values, for each row.

        A line begins with its row's id. `on_progress(rows done, rows)` is called after each chunk.

        Raises `OSError` for a full disk and passes on what `work` raises; whole lines stay, and the same job
        goes on from there. Raises `ImplicitPRMError` if another process is writing to `out`.
        """
        n_new = 0
        with _locked(self.out) as file:
            _write_whole(self._note, json.dumps(self._now, indent=2).encode())
            done, length = _read_done(self.out)
            file.truncate(length)
            on_progress(len(done), self.n_rows)
            for chunk in self._chunks():
                if all(row["id"] in done for row in chunk):
                    continue
                lines = [
                    _json_line({"id": row["id"], **line})
                    for row, line in zip(chunk, work(chunk), strict=True)
                    if row["id"] not in done
                ]
                _append(file, b"".join(lines))
                n_new += len(lines)
                done.update(row["id"] for row in chunk)
                on_progress(len(done), self.n_rows)
        self.n_done = len(done)
        return JobSummary(self.n_rows, n_new)

    def _rows(self) -> Iterator[dict[str, Any]]:
        for number, row in enumerate(self._read(self.source), 1):
            given = row.get("id")
            yield {**row, "id": str(number) if given is None else str(given)}

    def _chunks(self) -> Iterator[list[dict[str, Any]]]:
        """The shard's chunks. Responses of one prompt, mostly neighbours, stay together."""
        rows, number = self._rows(), 0
        while chunk := list(islice(rows, self.chunk_rows)):
            if number % self.shard.count == self.shard.index - 1:
                yield chunk
            number += 1

    def _ids(self) -> set[str]:
        """The ids of the shard's rows; all rows are looked at, so that no shard begins with a bad file."""
        first: dict[str, int] = {}
        for number, row in enumerate(self._rows(), 1):
            if row["id"] in first:
                raise ImplicitPRMError(
                    f"{self.source}: rows {first[row['id']]} and {number} have the same id {row['id']!r}; "
                    "give every row its own id, or none at all"
                )
            first[row["id"]] = number
        if not first:
            raise ImplicitPRMError(f"{self.source} has no rows")
        chunk_of = ((row_id, (number - 1) // self.chunk_rows) for row_id, number in first.items())
        return {row_id for row_id, chunk in chunk_of if chunk % self.shard.count == self.shard.index - 1}

    def _check_note(self) -> None:
        """Is what is there already of this job? Rows may have been appended to the input."""
        if not self.out.exists() or self.out.stat().st_size == 0:
            return
        try:
            there = json.loads(self._note.read_bytes())
            old, seen = dict(without_secrets(there["settings"])), there["input"]
            n_bytes, checksum = seen["bytes"], seen["sha256"]
        except FileNotFoundError:
            raise ImplicitPRMError(
                f"{self.out} is there already, and {self._note.name}, which would say what made it, is not; "
                "give another output"
            ) from None
        except (ValueError, KeyError, TypeError) as error:
            raise ImplicitPRMError(f"{self._note} is damaged ({error}); give another output") from error
        new = self._now["settings"]
        for key in sorted(old.keys() | new.keys()):
            if old.get(key) != new.get(key):
                raise ImplicitPRMError(
                    f"{self.out} was made with other settings ({key}: {old.get(key)!r} there, "
                    f"{new.get(key)!r} now); give the same ones, or another output"
                )
        if _checksum(self.source, n_bytes) != checksum:
            raise ImplicitPRMError(
                f"{self.source} was changed since {self.out} was begun (rows may only be appended to it); "
                "give another output"
            )


def _check_paths(source: Path, out: Path) -> None:
    if not source.is_file():
        raise ImplicitPRMError(f"there is no file {source}")
    if out.is_dir() or not out.parent.is_dir():
        wrong = f"{out} is a folder" if out.is_dir() else f"there is no folder {out.parent}"
        raise ImplicitPRMError(f"{wrong}; the output is a file in a folder that exists")
    if out.exists() and out.samefile(source):
        raise ImplicitPRMError(f"{out} is the input; give another output")


def _read_done(path: Path) -> tuple[set[str], int]:
    """The ids of the whole lines, and their length in bytes; what follows them was cut off."""
    done: set[str] = set()
    length = 0
    if not path.exists():
        return done, length
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            if not line.endswith(b"\n"):
                break
            try:
                row_id = json.loads(line)["id"]
            except (ValueError, KeyError, TypeError):
                row_id = None
            if not isinstance(row_id, str):
                raise ImplicitPRMError(
                    f"{path}, line {number} is no line of this job; delete it, or give another output"
                )
            if row_id in done:
                raise ImplicitPRMError(
                    f"{path}, line {number}: {row_id!r} is there twice; delete one of its lines"
                )
            done.add(row_id)
            length += len(line)
    return done, length


@contextmanager
def _locked(path: Path) -> Iterator[BinaryIO]:
    """The file, opened to be appended to by this process alone."""
    with path.open("ab", buffering=0) as file:
        if flock is not None:
            try:
                flock(file, LOCK_EX | LOCK_NB)
            except BlockingIOError:
                raise ImplicitPRMError(
                    f"another process is writing to {path}; wait for it, or give another output"
                ) from None
        yield file


def _append(file: BinaryIO, content: bytes) -> None:
    """All of it, safely on the disk; of a write that fails the whole lines stay, and no part of one."""
    rest = memoryview(content)
    try:
        while rest:
            rest = rest[file.write(rest) :]
        os.fsync(file.fileno())
    except OSError:
        n_written = len(content) - len(rest)
        n_whole = content.rfind(b"\n", 0, n_written) + 1
        with suppress(OSError):  # the next run cuts it off as well
            file.truncate(file.seek(0, os.SEEK_END) - n_written + n_whole)
        raise


def _json_line(value: Mapping[str, Any]) -> bytes:
    try:
        return json.dumps(value, ensure_ascii=False, allow_nan=False).encode() + b"\n"
    except ValueError as error:  # a number that is not finite, half of a surrogate pair
        raise ImplicitPRMError(f"the row {value['id']!r} cannot be written as JSON: {error}") from error


def _write_whole(path: Path, content: bytes) -> None:
    part = path.with_name(f"{path.name}.part")
    part.write_bytes(content)
    os.replace(part, path)


def _checksum(path: Path, n_bytes: int) -> str | None:
    """Of the first `n_bytes` bytes; None of a file that is shorter."""
    if path.stat().st_size < n_bytes:
        return None
    found, left = hashlib.sha256(), n_bytes
    with path.open("rb") as file:
        while block := file.read(min(left, 1 << 20)):
            found.update(block)
            left -= len(block)
    return found.hexdigest()
