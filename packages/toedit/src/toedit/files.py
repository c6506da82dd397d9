"""The files of a corpus: finding them and reading their rows, in an order that never changes.

JSON lines (plain, gzip, Zstandard), Parquet, Arrow; on this machine, or where fsspec reaches (`hf://`, `s3://`).
A row that cannot be read is told as a `BadRow`, and reading goes on.
"""

from __future__ import annotations

import gzip
import json
import os
import posixpath
import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from toedit.errors import MissingExtraError, ToEditError
from toedit.secrecy import without_secrets

FORMATS = {
    ".jsonl": "jsonl",
    ".jsonl.gz": "jsonl",
    ".jsonl.zst": "jsonl",
    ".parquet": "parquet",
    ".arrow": "arrow",
}

# Rows of a table that are in memory together.
TABLE_ROWS = 1000

_EXCERPT = 1000
_IPC_FILE = b"ARROW1"
_UNREADABLE = "the file cannot be read from here on"


@dataclass(frozen=True)
class Source:
    """A file of a corpus: where it is, its name among the others without its suffix, and the suffix.

    The `stem` is a path that stays below whatever folder it is put into, and holds no password of a URL.
    """

    path: str
    stem: str
    suffix: str

    @property
    def format(self) -> str:
        """One of the values of `FORMATS`."""
        return FORMATS[self.suffix]

    @property
    def name(self) -> str:
        """How messages and manifests call it."""
        return self.stem + self.suffix


@dataclass(frozen=True, eq=False)
class Row:
    """A row of a file. `number` counts from 1: in JSON lines it is the number of the line.

    `values` are the columns of a JSON object, or those that were wanted of a table. `origin` is what the
    row is written back from: its line, or (the record batch, the index in it).
    """

    number: int
    values: dict[str, Any]
    origin: Any


@dataclass(frozen=True)
class BadRow:
    """A row that could not be read, why, and how it begins."""

    number: int
    reason: str
    excerpt: str


def find_sources(inputs: Sequence[str | Path], results: Path | None = None) -> list[Source]:
    """The files that `inputs` mean: files, folders, patterns with `*`, URLs of fsspec.

    A folder means all files in it of a known kind; the folder of an earlier job means its results. The order
    is that of `inputs`, and by name within one. What a folder or a pattern has in the folder of `results` is
    left out: the job that asks may have written it in an earlier run.

    Raises `ToEditError` for an input that is not there or of another kind, for one that is meant twice, and
    for one that has no file outside of `results`.
    """
    paths: list[str] = []
    for entry in map(str, inputs):
        paths += _outside(results, entry, _found(entry))
    places = [_place(path) for path in paths]
    for place in _repeated(places):
        raise ToEditError(f"{place} is among the inputs twice")
    stems = _stems(places)
    for stem in _repeated(stems):
        raise ToEditError(f"two inputs are named {stem!r} and differ in the suffix only; rename one")
    return [Source(path, stem, _suffix(path)) for stem, path in zip(stems, paths, strict=True)]


def read_rows(source: Source, columns: Sequence[str]) -> Iterator[Row | BadRow]:
    """The rows of a file in order; of a table only `columns` are looked at, where it has them.

    Blank lines have numbers but are no rows. What cannot be read beyond some point (a broken archive) ends
    with a `BadRow`.

    Raises `ToEditError` for a table that cannot be opened, a URL that cannot be reached, and if a library for
    the format is missing; `OSError` where the disk or the network fails, which says nothing about the rows.
    """
    with opened(source) as file:
        if source.format == "jsonl":
            yield from _lines(file)
        else:
            yield from _table_rows(source, file, columns)


def column_names(source: Source) -> list[str] | None:
    """The columns of a table; None for JSON lines, where each row has its own."""
    if source.format == "jsonl":
        return None
    with opened(source) as file:
        return list(table_schema(source, file).names)


def table_schema(source: Source, file: IO[bytes]) -> Any:
    """The `pyarrow.Schema` of an open table."""
    return _table(source, file)[0]


def is_ipc_file(file: IO[bytes]) -> bool:
    """Whether an open Arrow file is of the kind with an index (Feather), not a stream as of `datasets`."""
    start = file.read(len(_IPC_FILE))
    file.seek(0)
    return start == _IPC_FILE


@contextmanager
def opened(source: Source) -> Iterator[IO[bytes]]:
    """The bytes of a file, unpacked if it is a packed JSON lines file."""
    with _open_raw(source.path) as raw:
        if source.suffix.endswith(".gz"):
            with gzip.open(raw) as file:
                yield file  # type: ignore[misc]  # a GzipFile is an IO[bytes] in all that is used
        elif source.suffix.endswith(".zst"):
            with zstandard().ZstdDecompressor().stream_reader(raw, read_across_frames=True) as file:
                yield _LineReader(file)  # type: ignore[misc]
        else:
            yield raw


def zstandard() -> Any:
    """The module. Raises `ToEditError` where it is missing."""
    try:
        import zstandard as module
    except ImportError:
        raise MissingExtraError(
            "files ending in .zst need zstandard: pip install 'toedit[datasets]'"
        ) from None
    return module


def pyarrow(path: str) -> Any:
    """The module, with its parts for Parquet and Arrow files. Raises `ToEditError` where it is missing."""
    try:
        import pyarrow as module
        import pyarrow.ipc
        import pyarrow.parquet
    except ImportError:
        raise MissingExtraError(
            f"{path}: Parquet and Arrow need pyarrow: pip install 'toedit[datasets]'"
        ) from None
    return module


class _LineReader:
    """Lines of a stream that has none of its own."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def __iter__(self) -> Iterator[bytes]:
        rest = b""
        while piece := self._stream.read(1 << 20):
            *lines, rest = (rest + piece).split(b"\n")
            yield from lines
        if rest:
            yield rest


def _repeated(names: Sequence[str]) -> list[str]:
    return [name for name, count in Counter(names).items() if count > 1]


def _found(entry: str) -> list[str]:
    if "://" in entry:
        return _found_remote(entry)
    path = Path(entry)
    if path.is_dir():
        folder = path / "data" if (path / "manifest.jsonl").is_file() else path
        files = sorted(str(file) for file in folder.rglob("*") if _suffix(file.name) and file.is_file())
        return files or _nothing(entry, "no file in it ends in one of")
    if path.is_file():
        return [entry] if _suffix(entry) else _nothing(entry, "a file that is read ends in one of")
    if any(sign in entry for sign in "*?["):
        root = Path(path.anchor) if path.anchor else Path()
        pattern = str(path.relative_to(path.anchor)) if path.anchor else entry
        files = sorted(str(file) for file in root.glob(pattern) if _suffix(file.name) and file.is_file())
        return files or _nothing(entry, "no file matches that ends in one of")
    raise ToEditError(f"{entry}: there is no such file or folder")


def _found_remote(entry: str) -> list[str]:
    with _reaching(entry) as (system, path):
        if any(sign in path for sign in "*?["):
            names = system.glob(path)
        else:
            names = system.find(path) if system.isdir(path) else [path]
    files = sorted(system.unstrip_protocol(name) for name in names if _suffix(name))
    return files or _nothing(entry, "no file there ends in one of")


@contextmanager
def _reaching(url: str) -> Iterator[tuple[Any, str]]:
    """The file system of a URL, and the name there; what goes wrong meanwhile is a `ToEditError`.

    Libraries of file systems raise what they like: offline, without credentials, without the file.
    """
    from fsspec.core import url_to_fs

    try:
        yield url_to_fs(url)
    except Exception as error:
        said = without_secrets(f"{url}: cannot be reached: {str(error) or type(error).__name__}")
        raise ToEditError(
            f"{said}; see to the address, the network and the credentials, or give files of this machine"
        ) from error


def _nothing(entry: str, what: str) -> list[str]:
    raise ToEditError(f"{without_secrets(entry)}: {what} {', '.join(FORMATS)}")


def _suffix(name: str) -> str:
    return next((suffix for suffix in FORMATS if name.endswith(suffix)), "")


def _outside(results: Path | None, entry: str, files: list[str]) -> list[str]:
    """Those of the files of an input that are not in the folder of results."""
    if results is None:
        return files
    folder = results.resolve()
    kept = [path for path in files if "://" in path or folder not in Path(path).resolve().parents]
    if not kept:
        raise ToEditError(f"the input {entry} is in the folder of results, {results}, or has no other files")
    return kept


def _place(path: str) -> str:
    """Where a file is, however the input was written; without the password that a URL may have."""
    return str(without_secrets(path)) if "://" in path else os.path.abspath(path)


def _stems(places: Sequence[str]) -> list[str]:
    """The places without suffix, and without the folders that they have in common.

    What is left names files of results, so none of it may lead out of their folder: inputs of several disks
    or machines have nothing in common, and a URL may have `..` in it.
    """
    paths = [place.removesuffix(_suffix(place)).replace("\\", "/").replace(":/", "/") for place in places]
    parts = [posixpath.normpath("/" + path.lstrip("/")).split("/") for path in paths]
    shared = 0
    shortest = min((len(part) for part in parts), default=1)
    while shared < shortest - 1 and len({part[shared] for part in parts}) == 1:
        shared += 1
    return ["/".join(part[shared:]) for part in parts]


def _open_raw(path: str) -> Any:
    if "://" in path:
        with _reaching(path) as (system, name):
            return system.open(name, "rb")
    return open(path, "rb")  # closed by `opened`


def file_size(path: str) -> int:
    """The bytes of a file or URL. Raises `ToEditError` for a URL that cannot be reached."""
    if "://" not in path:
        return os.path.getsize(path)
    with _reaching(path) as (system, name):
        return int(system.size(name))


def _lines(file: IO[bytes]) -> Iterator[Row | BadRow]:
    number = 0
    try:
        for number, line in enumerate(file, start=1):
            content = line.rstrip(b"\r\n")
            if content.strip():
                yield _parsed(content.removeprefix(b"\xef\xbb\xbf") if number == 1 else content, number)
    except (EOFError, OSError, zlib.error, _zstd_error()) as error:
        _refuse_failure(error)
        yield BadRow(number + 1, f"{_UNREADABLE}: {error}", "")


def _refuse_failure(error: Exception) -> None:
    """Raise the error again if the disk or the network failed: the rows beyond it are not lost then.

    gzip and pyarrow tell damage within a file by an `OSError` as well, but by one without a number.
    """
    if isinstance(error, ConnectionError | TimeoutError) or getattr(error, "errno", None) is not None:
        raise error


def _zstd_error() -> type[Exception]:
    try:
        import zstandard as module
    except ImportError:
        return EOFError
    return module.ZstdError


def _parsed(line: bytes, number: int) -> Row | BadRow:
    excerpt = line[:_EXCERPT].decode("utf-8", "backslashreplace")
    try:
        values = json.loads(line.decode("utf-8"))
    except UnicodeDecodeError as error:
        return BadRow(
            number, f"the line is not UTF-8: byte {error.start} is {line[error.start]:#04x}", excerpt
        )
    except (ValueError, RecursionError) as error:
        return BadRow(number, f"the line is not JSON: {error}", excerpt)
    if not isinstance(values, dict):
        return BadRow(number, f"the line is JSON of type {type(values).__name__}, not an object", excerpt)
    return Row(number, values, line)


def _table_rows(source: Source, file: IO[bytes], columns: Sequence[str]) -> Iterator[Row | BadRow]:
    schema, batches = _table(source, file)
    wanted = [name for name in columns if name in schema.names]
    number = 0
    try:
        for batch in batches:
            lists = [batch.column(name).to_pylist() for name in wanted]
            for index in range(batch.num_rows):
                number += 1
                values = {name: column[index] for name, column in zip(wanted, lists, strict=True)}
                yield Row(number, values, (batch, index))
    except (OSError, pyarrow(source.path).ArrowException) as error:
        _refuse_failure(error)
        yield BadRow(number + 1, f"{_UNREADABLE}: {error}", "")


def _table(source: Source, file: IO[bytes]) -> tuple[Any, Iterator[Any]]:
    """The schema of a table, and its record batches."""
    pa = pyarrow(source.path)
    try:
        if source.format == "parquet":
            parquet = pa.parquet.ParquetFile(file)
            return parquet.schema_arrow, parquet.iter_batches(batch_size=TABLE_ROWS)
        if is_ipc_file(file):
            ipc = pa.ipc.open_file(file)
            stored: Iterator[Any] = (ipc.get_batch(index) for index in range(ipc.num_record_batches))
        else:
            ipc = pa.ipc.open_stream(file)
            stored = iter(ipc)
    except pa.ArrowInvalid as error:
        raise ToEditError(f"{source.path} is not a file of {source.format.capitalize()}: {error}") from error
    return ipc.schema, (
        batch.slice(at, TABLE_ROWS) for batch in stored for at in range(0, len(batch), TABLE_ROWS)
    )
