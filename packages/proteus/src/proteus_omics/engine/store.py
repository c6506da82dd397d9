"""A run's folder: events are the source of truth; artifacts are written whole (section 2.12)."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from proteus_omics.errors import ProteusError, ResumeError

if TYPE_CHECKING:
    from anndata import AnnData
    from matplotlib.figure import Figure

    from proteus_omics.tools.registry import Artifact, ArtifactKind

EVENTS = "events.jsonl"
INPUT_FILE = "data/input.h5ad"
"""The data that the run began with."""
FOLDERS: Mapping[ArtifactKind, tuple[str, str]] = {
    "matrix": ("data", ".h5ad"),
    "table": ("tables", ".parquet"),
    "figure": ("figures", ".svg"),
}


def file_hash(path: Path) -> str:
    """SHA-256 of a file, in hex."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def write_whole(path: Path, write: Callable[[Path], object]) -> str:
    """Let `write` fill a temporary file, bring it to disk, and give it its name; returns its hash.

    Raises `ResumeError` where the disk is full or read-only; the file then does not appear.
    """
    temporary = path.with_name(f".{path.name}.tmp{path.suffix}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write(temporary)
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        found = file_hash(temporary)
        temporary.replace(path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise ResumeError(
            f"cannot write {path}: {error.strerror or error}; what was finished is kept: make room and resume"
        ) from error
    return found


@contextmanager
def readable(path: Path) -> Iterator[None]:
    """Raise `ResumeError` where a file of a run is not what was written: no JSON, or other fields."""
    try:
        yield
    except ProteusError:
        raise
    except (ValueError, KeyError, TypeError) as error:  # pydantic's and JSON's are ValueErrors
        what = (str(error).splitlines() or [type(error).__name__])[0]
        raise ResumeError(f"{path} is damaged ({what}): start the run anew") from error


class Store:
    """The events and the artifacts of one run. Only the holder of the run's lock writes."""

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)

    # ---- events

    def append(self, event: str, **payload: Any) -> dict[str, Any]:
        """Add an event, on disk before this returns. Raises `ResumeError` where it cannot be written."""
        entry = {"event": event, "time": datetime.now(UTC).isoformat(timespec="milliseconds"), **payload}
        try:
            with (self.folder / EVENTS).open("a", encoding="utf-8") as file:
                file.write(json.dumps(entry, default=str) + "\n")
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise ResumeError(f"cannot write {self.folder / EVENTS}: {error.strerror or error}") from error
        return entry

    def events(self) -> Iterator[dict[str, Any]]:
        """Every whole event; the last line of a run that was killed may be cut off, and is left out.

        Raises `ResumeError` for a damaged line before the last.
        """
        path = self.folder / EVENTS
        lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
        for number, line in enumerate(lines, start=1):
            try:
                yield json.loads(line)
            except json.JSONDecodeError:
                if number < len(lines):
                    raise ResumeError(f"{path}, line {number}, is damaged: start the run anew") from None

    def mend(self) -> None:
        """Cut off the half line that a killed run left, so that the next event begins a line."""
        path = self.folder / EVENTS
        if path.exists():
            content = path.read_bytes()
            whole = content[: content.rfind(b"\n") + 1]
            if whole != content:
                path.write_bytes(whole)

    # ---- artifacts

    def path(self, kind: ArtifactKind, name: str) -> Path:
        """Where an artifact lies, relative to the folder; `name` is made of ids, never of data."""
        folder, suffix = FOLDERS[kind]
        return Path(folder) / f"{name}{suffix}"

    def save(self, kind: ArtifactKind, name: str, artifact: Artifact) -> tuple[str, str]:
        """Write an artifact; returns its path relative to the folder, and its hash."""
        path = self.path(kind, name)
        return path.as_posix(), write_whole(self.folder / path, WRITERS[kind](artifact))

    def load(self, kind: ArtifactKind, path: str, sha256: str) -> Artifact:
        """Read an artifact. Raises `ResumeError` if it is missing or was changed."""
        place = self.folder / path
        if not self.intact(path, sha256):
            raise ResumeError(f"{place} is missing or damaged")
        if kind == "table":
            return pd.read_parquet(place)
        if kind == "matrix":
            import anndata

            return anndata.read_h5ad(place)
        return place

    def intact(self, path: str, sha256: str) -> bool:
        """Whether the file is there and as it was written."""
        place = self.folder / path
        return place.is_file() and file_hash(place) == sha256

    def write_tsv(self, path: str) -> None:
        """Write a table once more, for people, beside its file."""
        text = tsv_text(pd.read_parquet(self.folder / path))
        write_whole(self.folder / tsv_of(path), lambda place: place.write_bytes(text.encode()))

    def is_tsv_of(self, path: str) -> bool:
        """Whether the copy for people is there, and says what the table says."""
        place, text = self.folder / tsv_of(path), tsv_text(pd.read_parquet(self.folder / path))
        return place.is_file() and place.read_bytes() == text.encode()

    def write_text(self, name: str, text: str) -> str:
        """Write a text file of the run; returns its hash."""
        return write_whole(self.folder / name, lambda path: path.write_text(text, encoding="utf-8"))

    def write_json(self, name: str, content: Any) -> str:
        """Write JSON in a form that is the same for the same content; returns its hash."""
        return self.write_text(name, json.dumps(content, indent=1, sort_keys=True, default=str) + "\n")


def tsv_of(path: str) -> str:
    """Where a table's copy for people lies."""
    return path.removesuffix(".parquet") + ".tsv"


def tsv_text(table: pd.DataFrame) -> str:
    """A table as text, tabs between its columns; the same for the same table."""
    return table.to_csv(sep="\t", index=False, lineterminator="\n")


def _matrix_writer(adata: AnnData) -> Callable[[Path], object]:
    return lambda path: adata.write_h5ad(path)


def _table_writer(table: pd.DataFrame) -> Callable[[Path], object]:
    plain = table.reset_index(drop=True)
    plain.attrs = {}  # parquet would keep it in an order of its own
    return lambda path: plain.to_parquet(path, index=False)


def _figure_writer(figure: Figure) -> Callable[[Path], object]:
    from matplotlib import rc_context

    def write(path: Path) -> None:
        # No date and no random ids: the same figure has the same bytes.
        with rc_context({"svg.hashsalt": "proteus-omics", "svg.fonttype": "none"}):
            figure.savefig(path, format="svg", metadata={"Date": None}, bbox_inches="tight")

    return write


WRITERS: Mapping[ArtifactKind, Callable[[Any], Callable[[Path], object]]] = {
    "matrix": _matrix_writer,
    "table": _table_writer,
    "figure": _figure_writer,
}
