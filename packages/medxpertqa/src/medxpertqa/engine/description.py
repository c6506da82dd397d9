"""What a folder of logs is about: written with the first run in it, and compared before the next one."""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from medxpertqa.errors import DataError, MedXpertQAError, MedXpertQAWarning
from medxpertqa.parsing import ParserName

FILE, BATCH_FILE = "medxpertqa.json", "batch.json"
"""Of a folder of logs, and of a folder of batches."""

DESCRIBED = "medxpertqa"
"""Where the metadata of a log of `inspect eval` says what was asked and how."""

SCHEMA = 1
_GROWS = ("n_expected", "asked")  # the same run with another --limit is the same run


@dataclass(frozen=True)
class RunDescription:
    """What was asked, of whom and how; nothing of the text of a question.

    `digest` is of the whole set of questions before any limit. `altered` holds the parameters of the request
    that differ from the protocol's, such as {"max_tokens": 96}. `demonstrations` is the digest of those of
    few-shot. `n_expected` counts questions; `asked` has the keys (see `Asked`) of what was asked for last,
    and is empty in a folder that was written before it was kept. `model_args` are those of the client or
    engine, without secrets; other ones (a port, a number of GPUs) may be the same run, so `check` only warns.
    """

    model: str
    protocol: str
    parser: ParserName
    dataset: str
    digest: str
    n_expected: int
    epochs: int = 1
    permute: int = 1
    ablate: tuple[str, ...] = ()
    shard: str = ""
    demonstrations: str = ""
    altered: Mapping[str, Any] = field(default_factory=dict, hash=False)
    asked: tuple[str, ...] = ()
    model_args: Mapping[str, Any] = field(default_factory=dict, hash=False)

    @property
    def n_replies(self) -> int:
        """How many replies its questions have when all are answered."""
        return self.n_expected * self.epochs * self.permute

    @property
    def how(self) -> str:
        """The protocol with all that differs from the official one, by which tables name it."""
        changes = [f"{key}={value}" for key, value in self.altered.items()]
        changes += [f"without {part}" for part in self.ablate]
        return f"{self.protocol} ({', '.join(changes)})" if changes else self.protocol

    def write(self, folder: Path, file: str = FILE) -> None:
        """Write it into a folder of logs, all or nothing."""
        partial = folder / f".{file}.partial"
        partial.write_text(json.dumps({"schema": SCHEMA, **asdict(self)}, indent=2), encoding="utf-8")
        os.replace(partial, folder / file)

    @classmethod
    def read(cls, folder: Path, file: str = FILE) -> RunDescription | None:
        """The description in a folder, or None if it has none. Raises `DataError` for one that is broken."""
        path = folder / file
        if not path.exists():
            return None
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
            if values.pop("schema") != SCHEMA:
                raise DataError(f"{path} is of another version of medxpertqa; use another log folder")
            lists = {"ablate": tuple(values["ablate"]), "asked": tuple(values.get("asked", ()))}
            return cls(**values | lists)
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            if isinstance(error, DataError):
                raise
            raise DataError(f"{path} does not describe a run: {error}; use another log folder") from None

    def check(self, folder: Path, file: str = FILE) -> None:
        """Raise `MedXpertQAError` if the folder holds another run, naming the first thing that differs.

        Warns of other `model_args`.
        """
        there = self.read(folder, file)
        if there is None:
            return
        for entry in fields(self):
            old, new = getattr(there, entry.name), getattr(self, entry.name)
            if entry.name == "model_args" and old != new:
                message = (
                    f"{folder} was begun with the model arguments {old}, not {new}: its replies are kept"
                )
                warnings.warn(message, MedXpertQAWarning, stacklevel=2)
            elif entry.name not in _GROWS and old != new:
                raise MedXpertQAError(
                    f"{folder} holds a run with {entry.name} {old!r}, not {new!r}; use another --log-dir"
                )


@contextmanager
def sole_user(folder: Path) -> Iterator[None]:
    """Hold a folder of logs alone. Raises `MedXpertQAError` if another process has it."""
    from filelock import FileLock, Timeout

    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / ".medxpertqa.lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise MedXpertQAError(
            f"another process is writing to {folder}; wait for it, or use another --log-dir"
        ) from None
    try:
        yield
    finally:
        lock.release()
