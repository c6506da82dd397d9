"""A look at a whole corpus before the long work starts: its columns, its ids, how much there is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from toedit.errors import ToEditError
from toedit.files import BadRow, Row, Source, column_names, file_size, read_rows
from toedit.layouts import Layout
from toedit.randomness import document_name

COLUMN_HELP = "--text-column names it"
"""What to do about a column that is not there."""


@dataclass(frozen=True)
class Surveyed:
    """A file with its size in bytes and the number of its last row."""

    source: Source
    n_bytes: int
    n_rows: int

    def to_dict(self) -> dict[str, Any]:
        """What a manifest keeps; not the path, so that a corpus may move."""
        return {"name": self.source.name, "bytes": self.n_bytes, "rows": self.n_rows}


def survey(sources: Sequence[Source], layout: Layout, id_column: str | None) -> list[Surveyed]:
    """Look at every row of the files once; `id_column` None means that ids are made of the content.

    Raises `ToEditError` for a file none of whose rows has the columns, naming those that are there, and for
    an id that two rows have, naming both.
    """
    needed = [*layout.columns, *([] if id_column is None else [id_column])]
    ids: dict[str, tuple[int, int]] = {}
    return [_file(sources, index, needed, id_column, ids) for index in range(len(sources))]


def missing(values: Mapping[str, Any], needed: Sequence[str]) -> str | None:
    """What to say of a row that lacks a needed column; None of one that has them all."""
    for column in needed:
        if column not in values:
            return f"there is no column {column!r}; there are: {', '.join(map(repr, values))}"
    return None


def _file(
    sources: Sequence[Source],
    index: int,
    needed: Sequence[str],
    id_column: str | None,
    ids: dict[str, tuple[int, int]],
) -> Surveyed:
    source, number, first_problem, fits = sources[index], 0, None, False
    names = column_names(source)
    if names is not None:
        _refuse(source, missing(dict.fromkeys(names), needed), id_column)
    for row in read_rows(source, [] if id_column is None else [id_column]):
        number = row.number
        if isinstance(row, BadRow):
            continue
        problem = missing(row.values, needed) if names is None else None
        fits = fits or problem is None
        first_problem = first_problem or problem
        if problem is None and id_column is not None:
            _note(sources, index, row, id_column, ids)
    if not fits:
        _refuse(source, first_problem, id_column)
    return Surveyed(source, file_size(source.path), number)


def _refuse(source: Source, problem: str | None, id_column: str | None) -> None:
    if problem is None:
        return
    lacks_id = id_column is not None and problem.startswith(f"there is no column {id_column!r}")
    remedy = "--id-column names it, or --id-from hash makes ids of the text"
    raise ToEditError(f"{source.path}: {problem}. {remedy if lacks_id else COLUMN_HELP}")


def _note(
    sources: Sequence[Source], index: int, row: Row, id_column: str, ids: dict[str, tuple[int, int]]
) -> None:
    try:
        name = document_name(row.values[id_column])
    except ToEditError:
        return  # the row will be put in quarantine
    if name in ids:
        other, number = ids[name]
        raise ToEditError(
            f"document id {name!r} is there twice: row {number} of {sources[other].path} and "
            f"row {row.number} of {sources[index].path}. The draws are keyed by the id, so each document "
            "needs its own; --id-column names another column, --id-from hash makes ids of the text"
        )
    ids[name] = index, row.number
