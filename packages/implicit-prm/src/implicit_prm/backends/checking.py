"""The checks that every `LogProbBackend` makes of its rows, with the same words."""

from __future__ import annotations

from collections.abc import Sequence

from implicit_prm.errors import ImplicitPRMError


def check_rows(
    input_ids: Sequence[Sequence[int]],
    completion_mask: Sequence[Sequence[bool]],
    *,
    vocab_size: int | None = None,
    max_length: int | None = None,
) -> None:
    """Check the arguments of `LogProbBackend.token_log_probs`; a limit that is None is not checked.

    Raises `ImplicitPRMError`, with the row's position, where rows and masks do not fit each other, a row's
    first token is marked, an id is not in [0, vocab_size) or a row has more than `max_length` tokens.
    """
    if len(input_ids) != len(completion_mask):
        raise ImplicitPRMError(f"there are {len(input_ids)} rows of tokens but {len(completion_mask)} masks")
    for row, (ids, mask) in enumerate(zip(input_ids, completion_mask, strict=True)):
        if len(ids) != len(mask):
            raise ImplicitPRMError(f"row {row} has {len(ids)} tokens but a mask of {len(mask)}")
        if len(mask) and mask[0]:
            raise ImplicitPRMError(
                f"row {row} asks for its first token, which has nothing before it to predict it from; "
                "give the prompt (or the BOS token) with it"
            )
        if max_length is not None and len(ids) > max_length:
            raise ImplicitPRMError(
                f"row {row} has {len(ids)} tokens; at most {max_length} fit: shorten it or raise the limit"
            )
        if vocab_size is not None and len(ids) and not 0 <= min(ids) <= max(ids) < vocab_size:
            wrong = next(token for token in ids if not 0 <= token < vocab_size)
            raise ImplicitPRMError(
                f"row {row} has the token id {wrong}, but the model has {vocab_size} tokens; "
                "was it encoded by another model's tokenizer?"
            )
