"""Editing the edited text again and again with the same prior (Table 15 of the paper)."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from toedit.documents import Document, check_unique, or_raise
from toedit.editor import Editor
from toedit.errors import ToEditError
from toedit.mapping import text_ids
from toedit.statistics import EditStats


@dataclass(frozen=True)
class Generation:
    """One edit of the whole data: `data` is what came out, `stats` are its counts."""

    number: int
    data: Any
    stats: EditStats


def generations(
    ds: Any,
    n: int,
    editor: Editor | None = None,
    text_column: str = "text",
    id_column: str | None = "id",
    on_progress: Callable[[int, int], None] | None = None,
) -> list[Generation]:
    """Edit `ds` `n` times, each time what the time before gave; generation i draws with the seed + i - 1.

    `ds` is a `datasets.Dataset`, of which all columns are kept, or a sequence of texts. `id_column` None (and
    a sequence) takes the hash of a text as it was in the beginning as its id. `editor` is by default one with
    `DEFAULT_PRIOR`. The candidates of the generations are what Table 15 counts as edited tokens.
    `on_progress(documents edited, documents in all generations)` is called now and then.

    Raises `ToEditError` for columns that are not there, repeated ids, and a text that cannot be edited.
    """
    if n < 1:
        raise ToEditError(f"n is {n}; it must be at least 1 generation")
    first = editor or Editor.from_pretrained()
    texts = list(ds) if _is_sequence(ds) else _column(ds, text_column)
    if _is_sequence(ds) or id_column is None:
        ids: list[Any] = list(text_ids(texts, range(len(texts))))
    else:
        ids = _column(ds, id_column)
        check_unique(ids, set())
    found: list[Generation] = []
    for number in range(1, n + 1):
        one = copy.copy(first)
        # With the same noise a token that was drawn once would be drawn the same way for ever.
        one.config = first.config.replace(seed=first.config.seed + number - 1)
        new, stats = [], EditStats()
        documents = (Document(doc_id, text) for doc_id, text in zip(ids, texts, strict=True))
        for done, outcome in enumerate(one.edit_stream(documents), start=1):
            result = or_raise(outcome)
            new.append(result.text)
            stats += result.stats
            if on_progress is not None:
                on_progress((number - 1) * len(texts) + done, n * len(texts))
        texts = new
        found.append(Generation(number, new if _is_sequence(ds) else _replaced(ds, text_column, new), stats))
    return found


def _is_sequence(ds: Any) -> bool:
    return isinstance(ds, Sequence) and not isinstance(ds, str)


def _column(ds: Any, name: str) -> list[Any]:
    columns = getattr(ds, "column_names", None)
    if not isinstance(columns, list) or not hasattr(ds, "map"):
        raise ToEditError(f"ds is a datasets.Dataset or a sequence of texts, not {type(ds).__name__}")
    if name not in columns:
        raise ToEditError(f"there is no column {name!r}; there are: {', '.join(columns)}")
    return list(ds[name])


def _replaced(ds: Any, name: str, texts: list[str]) -> Any:
    return ds.map(
        lambda batch, indices: {name: [texts[index] for index in indices]}, batched=True, with_indices=True
    )
