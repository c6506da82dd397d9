"""The columns that tell every edit of a row, so that it can be looked at, and undone."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict
from typing import Any, TypeAlias

from toedit.documents import EditResult
from toedit.splicing import Edit

PROVENANCE = ("toedit_candidates", "toedit_changed", "toedit_edits")

EDIT_FIELDS = {
    "message": "int64",
    "start": "int64",
    "end": "int64",
    "old": "string",
    "new": "string",
    "p_old": "float64",
    "p_new": "float64",
}
"""The fields of an entry of `toedit_edits`, and their types in Arrow."""

PlacedEdit: TypeAlias = tuple[int | None, Edit]
"""An edit as the column has it that is edited: `start` and `end` count the characters of its text, or of the
`content` of the message with this number, where the column is a list of messages."""


def provenance_columns(result: EditResult, placed: Iterable[PlacedEdit] | None = None) -> dict[str, Any]:
    """The columns of `PROVENANCE` for an edited row.

    `placed` are its edits where they stand in the row's column; None if the column is the text of the
    document. Of the column before the edit, `text[start:end]` is `old`. A deleted token's `p_new` is null,
    since JSON has no NaN.
    """
    placed = [(None, edit) for edit in result.edits] if placed is None else placed
    edits = [
        {"message": message} | {key: None if value != value else value for key, value in asdict(edit).items()}
        for message, edit in placed
    ]
    return dict(zip(PROVENANCE, (result.n_candidates, result.n_changed, edits), strict=True))
