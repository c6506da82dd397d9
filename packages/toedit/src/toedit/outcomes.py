"""What became of a row: its new columns with the counts, or the reason why it is not among the results."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from math import isfinite
from typing import Any

from toedit.documents import EditFailure, EditResult
from toedit.layouts import Task
from toedit.provenance import provenance_columns
from toedit.statistics import EditStats

# Edits of a document that are kept for the report, and the text shown on both sides of one.
_EXAMPLES = 3
_CONTEXT = 60

_NO_JSON = (
    "the column {column} holds a value that the journal of a job, which is JSON, cannot ({error}); make it a "
    "text or a number"
)


@dataclass(frozen=True)
class Outcome:
    """`new` columns and `stats` of an edited row, or the `reason` why there are none."""

    doc_id: int | str | None
    new: dict[str, Any] = field(default_factory=dict)
    stats: EditStats | None = None
    examples: list[dict[str, str]] = field(default_factory=list)
    reason: str = ""
    excerpt: str = ""

    @classmethod
    def of(cls, result: EditResult | EditFailure, task: Task, provenance: bool) -> Outcome:
        """The outcome of a task, with the columns of `toedit.provenance` if they are wanted.

        A row of a table may hold values in its messages that JSON has no form for, and with it the journal:
        it has none but a reason.
        """
        if isinstance(result, EditFailure):
            return cls(result.doc_id, reason=result.reason)
        new = task.updated(result)
        try:
            json.dumps(new)
        except TypeError as error:
            return cls(result.doc_id, reason=_NO_JSON.format(column=", ".join(new), error=error))
        if provenance:
            new |= provenance_columns(result, task.placed(result.edits))
        return cls(result.doc_id, new, result.stats, _examples(task.document.text, result))

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {**vars(self), "stats": None if self.stats is None else self.stats.to_dict()}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Outcome:
        """The outcome that `to_dict` wrote."""
        stats = values["stats"]
        return cls(**{**values, "stats": None if stats is None else EditStats.from_dict(stats)})


def document_line(outcome: Outcome, shard: str, number: int) -> dict[str, Any]:
    """A document's line in `documents.jsonl`."""
    stats = outcome.stats or EditStats()
    return {
        "id": outcome.doc_id,
        "shard": shard,
        "row": number,
        "tokens": stats.n_tokens,
        "candidates": stats.n_candidates,
        "changed": stats.n_changed,
        "dropped": stats.n_dropped,
        "perplexity": stats.perplexity if isfinite(stats.perplexity) else None,
    }


def _examples(text: str, result: EditResult) -> list[dict[str, str]]:
    return [
        {
            "id": str(result.doc_id),
            "before": text[max(0, edit.start - _CONTEXT) : edit.start],
            "old": edit.old,
            "new": edit.new,
            "after": text[edit.end : edit.end + _CONTEXT],
        }
        for edit in result.edits[:_EXAMPLES]
    ]
