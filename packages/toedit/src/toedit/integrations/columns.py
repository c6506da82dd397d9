"""A batch of rows as columns, edited: what `datasets` and Ray Data hand to a function."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from toedit.documents import or_raise
from toedit.editor import Editor
from toedit.errors import ToEditError
from toedit.layouts import Layout, content_id
from toedit.provenance import provenance_columns
from toedit.survey import missing


def edit_columns(
    editor: Editor,
    columns: Mapping[str, Sequence[Any]],
    layout: Layout,
    id_column: str | None = "id",
    provenance: bool = False,
) -> dict[str, list[Any]]:
    """The new columns of a batch: those that the layout edits, and of `provenance`.

    The edit of a row depends on its content and its id alone, not on the batch. `id_column` None makes ids of
    the content. That ids differ between batches is for the caller to see to. Lists may be arrays of numpy, as
    Ray hands them out.

    Raises `ToEditError` for columns that are not there and for a row that cannot be edited.
    """
    problem = missing(columns, [*layout.columns, *filter(None, [id_column])])
    if problem is not None:
        raise ToEditError(problem)
    tokenizer = editor.tokenizer.base
    tasks = []
    # Other columns, which may be large, are not looked at.
    names = [name for name in columns if name in {*layout.columns, *layout.optional, id_column}]
    for values in zip(*(columns[name] for name in names), strict=True):
        row = dict(zip(names, map(_plain, values), strict=True))
        doc_id = content_id(row, layout) if id_column is None else row[id_column]
        tasks.append(layout.task(row, doc_id, tokenizer))
    new: dict[str, list[Any]] = {}
    outcomes = editor.edit_stream([task.document for task in tasks], max(1, len(tasks)))
    for task, outcome in zip(tasks, outcomes, strict=True):
        result = or_raise(outcome)
        row = task.updated(result)
        if provenance:
            row |= provenance_columns(result, task.placed(result.edits))
        for name, value in row.items():
            new.setdefault(name, []).append(value)
    return new


def _plain(value: Any) -> Any:
    """The same value with lists for the arrays in it, in messages too."""
    if isinstance(value, np.ndarray):
        value = value.tolist()
    if isinstance(value, list):
        return [_plain(part) for part in value]
    return {name: _plain(part) for name, part in value.items()} if isinstance(value, dict) else value
