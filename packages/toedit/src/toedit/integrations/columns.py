"""A batch of rows as columns, edited: what `datasets` and Ray Data hand to a function."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from toedit.documents import or_raise
from toedit.editor import Editor
from toedit.errors import ToEditError
from toedit.layouts import Layout, content_id
from toedit.outcomes import provenance_columns
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
    the content. That ids differ between batches is for the caller to see to.

    Raises `ToEditError` for columns that are not there and for a row that cannot be edited.
    """
    problem = missing(columns, [*layout.columns, *filter(None, [id_column])])
    if problem is not None:
        raise ToEditError(problem)
    tokenizer = editor.tokenizer.base
    tasks = []
    for values in zip(*columns.values(), strict=True):
        row = dict(zip(columns, values, strict=True))
        doc_id = content_id(row, layout) if id_column is None else row[id_column]
        tasks.append(layout.task(row, doc_id, tokenizer))
    new: dict[str, list[Any]] = {}
    outcomes = editor.edit_stream([task.document for task in tasks], max(1, len(tasks)))
    for task, outcome in zip(tasks, outcomes, strict=True):
        result = or_raise(outcome)
        row = task.updated(result) | (provenance_columns(result) if provenance else {})
        for name, value in row.items():
            new.setdefault(name, []).append(value)
    return new
