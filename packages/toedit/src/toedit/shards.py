"""Files of results, written row by row beside their place and put there whole.

A shard has the format of the file that its rows came from, and all its columns. A JSON line of which nothing
changed is written as it was, and of a table only the edited columns are made anew.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from toedit.files import Row, Source, is_ipc_file, opened, pyarrow, table_schema, zstandard
from toedit.provenance import EDIT_FIELDS, PROVENANCE

PART = ".part"
"""Ends the name of a shard that is being written."""


@dataclass(frozen=True)
class Written:
    """A shard that is in its place."""

    n_bytes: int
    sha256: str


class ShardWriter:
    """Writes one shard; `commit` puts it in its place, `discard` leaves nothing behind.

    `provenance` says that each row comes with the columns of `PROVENANCE`.

    Raises `OSError` where the disk is full or may not be written to.
    """

    def __init__(self, path: Path, source: Source, provenance: bool) -> None:
        self.path = path
        self._part = path.with_name(path.name + PART)
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = _Hashed(self._part)
        rows = _JsonRows if source.format == "jsonl" else _TableRows
        self._rows: _JsonRows | _TableRows = rows(self._file, source, provenance)

    def add(self, row: Row, new: Mapping[str, Any]) -> None:
        """Write a row, its columns replaced by the `new` ones."""
        self._rows.add(row, new)

    def commit(self) -> Written:
        """Put the shard in its place, safe from a loss of power."""
        self._rows.close()
        self._file.close()
        os.replace(self._part, self.path)
        sync_folder(self.path.parent)
        return Written(self._file.n_bytes, self._file.hash.hexdigest())

    def discard(self) -> None:
        """Forget the shard."""
        self._file.abandon()
        self._part.unlink(missing_ok=True)


def sync_folder(folder: Path) -> None:
    """Make the names in a folder safe from a loss of power."""
    if os.name == "posix":
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


class _Hashed(io.RawIOBase):
    """A file for writing that counts and hashes what goes through."""

    def __init__(self, path: Path) -> None:
        self._handle = open(path, "wb")  # noqa: SIM115
        self.hash = hashlib.sha256()
        self.n_bytes = 0

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self.hash.update(data)
        self.n_bytes += memoryview(data).nbytes
        return self._handle.write(data)

    def tell(self) -> int:
        return self.n_bytes

    def close(self) -> None:
        if not self._handle.closed:
            self._handle.flush()
            os.fsync(self._handle.fileno())
            self._handle.close()
        super().close()

    def abandon(self) -> None:
        with suppress(OSError):  # what it still held does not fit on the disk
            self._handle.close()


class _JsonRows:
    def __init__(self, file: IO[bytes] | Any, source: Source, provenance: bool) -> None:
        if source.suffix.endswith(".gz"):
            # No time and no name in it: the same rows are the same bytes.
            self._stream: Any = gzip.GzipFile(filename="", mode="wb", fileobj=file, compresslevel=6, mtime=0)
        elif source.suffix.endswith(".zst"):
            self._stream = zstandard().ZstdCompressor().stream_writer(file, closefd=False)
        else:
            self._stream = file

    def add(self, row: Row, new: Mapping[str, Any]) -> None:
        line = row.origin
        if any(name not in row.values or row.values[name] != value for name, value in new.items()):
            line = json_line({**row.values, **new})
        self._stream.write(line.rstrip(b"\r\n") + b"\n")

    def close(self) -> None:
        if isinstance(self._stream, gzip.GzipFile) or not isinstance(self._stream, _Hashed):
            self._stream.close()


def json_line(values: Any) -> bytes:
    """A value as one line of JSON, without its end."""
    try:
        return json.dumps(values, ensure_ascii=False).encode()
    except UnicodeEncodeError:  # half of a surrogate pair, which UTF-8 cannot hold and an escape can
        return json.dumps(values).encode()


class _TableRows:
    def __init__(self, file: IO[bytes] | Any, source: Source, provenance: bool) -> None:
        self._pa = pyarrow(source.path)
        with opened(source) as original:
            indexed = source.format == "arrow" and is_ipc_file(original)
            self._schema = table_schema(source, original)
        if provenance:
            self._schema = _with_provenance(self._pa, self._schema)
        self._kept: list[tuple[Row, Mapping[str, Any]]] = []
        if source.format == "parquet":
            self._writer = self._pa.parquet.ParquetWriter(file, self._schema)
        elif indexed:
            self._writer = self._pa.ipc.new_file(file, self._schema)
        else:
            self._writer = self._pa.ipc.new_stream(file, self._schema)

    def add(self, row: Row, new: Mapping[str, Any]) -> None:
        if self._kept and self._kept[0][0].origin[0] is not row.origin[0]:
            self._flush()
        self._kept.append((row, new))

    def close(self) -> None:
        self._flush()
        self._writer.close()

    def _flush(self) -> None:
        if not self._kept:
            return
        pa = self._pa
        batch, first = self._kept[0][0].origin
        places = [row.origin[1] for row, _ in self._kept]
        whole = places[-1] - first + 1 == len(places)
        same = batch.slice(first, len(places)) if whole else batch.take(pa.array(places))
        columns = []
        for field in self._schema:
            if any(field.name in new for _, new in self._kept):
                values = [new.get(field.name, row.values.get(field.name)) for row, new in self._kept]
                columns.append(pa.array(values, type=field.type))
            else:
                columns.append(same.column(field.name))
        self._writer.write_batch(pa.record_batch(columns, schema=self._schema))
        self._kept = []


def _with_provenance(pa: Any, schema: Any) -> Any:
    edit = pa.struct([(name, getattr(pa, kind)()) for name, kind in EDIT_FIELDS.items()])
    for name, kind in zip(PROVENANCE, (pa.int64(), pa.int64(), pa.list_(edit)), strict=True):
        column = pa.field(name, kind)
        place = schema.get_field_index(name)  # not -1 where results are edited again, maybe older ones
        schema = schema.append(column) if place < 0 else schema.set(place, column)
    # What `datasets` notes about the columns is no longer all of them.
    kept = {key: value for key, value in (schema.metadata or {}).items() if key != b"huggingface"}
    return schema.with_metadata(kept)
