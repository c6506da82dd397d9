"""The rows as an engine elsewhere takes them: whole, one request a row, checked before any is sent."""

from __future__ import annotations

from collections.abc import Sequence

from implicit_prm.backends.batching import Row, read_row
from implicit_prm.errors import ImplicitPRMError, RowError


def read_rows(
    input_ids: Sequence[Sequence[int]],
    completion_mask: Sequence[Sequence[bool]],
    *,
    vocab_size: int | None = None,
    max_length: int | None = None,
) -> list[Row | None]:
    """The arguments of `LogProbBackend.token_log_probs` as rows; a limit that is None is not checked.

    Raises `RowError`, with the row's position, for what `read_row` refuses, an id that is not in
    [0, vocab_size), and a row with more than `max_length` tokens up to its last marked one;
    `ImplicitPRMError` where there are not as many masks as rows.
    """
    if len(input_ids) != len(completion_mask):
        raise ImplicitPRMError(f"{len(input_ids)} rows and {len(completion_mask)} masks: every row needs one")
    rows = [
        read_row(ids, marks, where)
        for where, (ids, marks) in enumerate(zip(input_ids, completion_mask, strict=True))
    ]
    for where, row in enumerate(rows):
        if row is None:
            continue
        if max_length is not None and len(row.ids) > max_length:
            raise RowError(
                where,
                f"has {len(row.ids)} tokens, and {max_length} fit: shorten it, or load the model with a "
                "larger max_model_len",
            )
        if vocab_size is not None and not 0 <= min(row.ids) <= max(row.ids) < vocab_size:
            wrong = next(token for token in row.ids if not 0 <= token < vocab_size)
            raise RowError(
                where,
                f"has the token id {wrong}, and the model has {vocab_size} tokens; "
                "was the text encoded with another model's tokenizer?",
            )
    return rows
