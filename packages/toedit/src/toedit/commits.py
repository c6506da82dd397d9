"""The writing side of a job: every row's outcome once, whatever happens in between.

Outcomes are appended to the journal as they come. A shard is finished in this order: its file is put in its
place, the growing files are made safe, its line is added to the manifest, the journal is emptied. Whatever
part of that was done when a process was killed is undone or repeated by the next one.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from toedit.errors import ToEditError
from toedit.files import BadRow, Row
from toedit.layouts import Task
from toedit.manifest import DATA, DOCUMENTS, JOURNAL, QUARANTINE, Manifest, ShardRecord
from toedit.outcomes import Outcome, document_line
from toedit.shards import PART, ShardWriter, json_line
from toedit.statistics import EditStats
from toedit.survey import Surveyed

if TYPE_CHECKING:
    from toedit.job import JobSettings

# Edits of a shard that the report may show.
_EXAMPLES = 20

# Documents that are edited together. The last bits of a probability depend on them, so a resumed job edits
# the same ones together again, from the beginning of a chunk; chunks do not reach over shards.
CHUNK = 256


@dataclass(eq=False)
class Item:
    """A row on its way: first with its `task`, in the end with its `outcome`."""

    source: int
    row: Row | BadRow
    task: Task | None = None
    outcome: Outcome | None = None
    replayed: bool = False


class Commits:
    """Takes the items in order, makes shards of them and notes them in the manifest.

    position  (source, row) up to which finished shards reach
    replayed  the outcomes of whole chunks after it that an earlier process had in its journal

    Raises `ToEditError` if a finished shard was changed since.
    """

    def __init__(
        self, folder: Path, manifest: Manifest, files: Sequence[Surveyed], settings: JobSettings
    ) -> None:
        self._folder, self._manifest, self._files, self._settings = folder, manifest, files, settings
        shards = manifest.state.shards
        for record in shards:
            _check(folder, record)
        self.position = (shards[-1].source, shards[-1].last) if shards else (0, 0)
        lengths = shards[-1].lengths if shards else {}
        for part in folder.rglob(f"*{PART}"):
            part.unlink()
        self._growing = {name: _cut(folder / name, lengths.get(name, 0)) for name in (DOCUMENTS, QUARANTINE)}
        self.replayed = self._read_journal(folder / JOURNAL)
        self._shard: _Shard | None = None

    def __enter__(self) -> Commits:
        return self

    def __exit__(self, *_: Any) -> None:
        """An unfinished shard is forgotten; its outcomes are in the journal."""
        if self._shard is not None:
            self._shard.writer.discard()
        for file in (*self._growing.values(), self._journal):
            with suppress(OSError):  # what counts was made safe before
                file.close()

    def take(self, item: Item) -> None:
        """Write an item. Raises `OSError` where the disk is full."""
        assert item.outcome is not None
        first = item.row.number - (item.row.number - 1) % self._settings.shard_rows
        if self._shard is not None and (self._shard.source, self._shard.first) != (item.source, first):
            self._commit()
        if self._shard is None:
            self._shard = self._opened(item.source, first)
        if item.task is not None:
            where = {"source": item.source, "row": item.row.number}
            self._journal.write(json_line({**where, "outcome": item.outcome.to_dict()}) + b"\n")
            self._journal.flush()
        self._write(self._shard, item.row, item.outcome)

    def finish(self) -> None:
        """Finish the last shard."""
        if self._shard is not None:
            self._commit()

    def _opened(self, source: int, first: int) -> _Shard:
        file, rows = self._files[source], self._settings.shard_rows
        name = f"{file.source.stem}-{first // rows:05d}{file.source.suffix}"
        path = self._folder / DATA / name
        writer = ShardWriter(path, file.source, self._settings.provenance)
        return _Shard(f"{DATA}/{name}", source, first, min(first + rows - 1, file.n_rows), writer)

    def _write(self, shard: _Shard, row: Row | BadRow, outcome: Outcome) -> None:
        if outcome.stats is None or isinstance(row, BadRow):
            shard.n_quarantined += 1
            line = {
                "input": self._files[shard.source].source.name,
                "row": row.number,
                "id": outcome.doc_id,
                "reason": outcome.reason,
                "line": outcome.excerpt,
            }
            self._growing[QUARANTINE].write(json_line(line) + b"\n")
            return
        shard.n_documents += 1
        shard.stats += outcome.stats
        shard.examples += outcome.examples[: _EXAMPLES - len(shard.examples)]
        shard.writer.add(row, outcome.new)
        line = document_line(outcome, shard.name, shard.n_documents)
        self._growing[DOCUMENTS].write(json_line(line) + b"\n")

    def _commit(self) -> None:
        shard = self._shard
        assert shard is not None
        written = shard.writer.commit()
        for file in self._growing.values():
            file.flush()
            os.fsync(file.fileno())
        record = ShardRecord(
            *(shard.name, shard.source, shard.first, shard.last, shard.n_documents, shard.n_quarantined),
            *(written.n_bytes, written.sha256),
            lengths={name: file.tell() for name, file in self._growing.items()},
            stats=shard.stats,
            examples=shard.examples,
        )
        self._manifest.add(record)
        self._shard = None
        self._journal.truncate(0)

    def _read_journal(self, path: Path) -> dict[tuple[int, int], Outcome]:
        """The outcomes that it holds beyond the finished shards; a line that was cut off is none."""
        content = path.read_bytes() if path.exists() else b""
        *lines, _ = content.split(b"\n")
        entries = [json.loads(line) for line in lines]
        if entries and (entries[0]["source"], entries[0]["row"]) <= self.position:
            entries = []  # of a shard that was finished when the process ended
        n_kept = len(entries) - len(entries) % CHUNK
        self._journal = _cut(path, sum(len(line) + 1 for line in lines[:n_kept]))
        return {
            (entry["source"], entry["row"]): Outcome.from_dict(entry["outcome"]) for entry in entries[:n_kept]
        }


class _Shard:
    def __init__(self, name: str, source: int, first: int, last: int, writer: ShardWriter) -> None:
        self.name, self.source, self.first, self.last, self.writer = name, source, first, last, writer
        self.n_documents = self.n_quarantined = 0
        self.stats = EditStats()
        self.examples: list[dict[str, str]] = []


def _cut(path: Path, length: int) -> Any:
    """A growing file, opened at its end, with what no finished shard covers cut off."""
    file = open(path, "ab")  # noqa: SIM115
    if file.tell() < length:
        file.close()
        raise ToEditError(
            f"{path} was changed since: it is shorter than its manifest says; start in a new folder"
        )
    file.truncate(length)
    return file


def _check(folder: Path, record: ShardRecord) -> None:
    path = folder / record.shard
    if not path.is_file() or path.stat().st_size != record.n_bytes:
        raise ToEditError(f"{path} was removed or changed since it was finished; start in a new folder")
