"""Prompts with their reference answers, as token ids."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from implicit_prime.errors import PrimeError, PrimeWarning
from implicit_prm import ImplicitPRMError
from implicit_prm.sampling import prompt_ids

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True, slots=True)
class PromptRow:
    """A prompt's tokens, and what its verifier compares responses with."""

    ids: tuple[int, ...]
    answer: Any


def read_prompts(
    rows: Iterable[Mapping[str, Any]],
    tokenizer: PreTrainedTokenizerBase,
    max_length: int,
    name: str = "train_dataset",
) -> list[PromptRow]:
    """The rows' "prompt" (text, messages for the chat template, or token ids) and "answer".

    Prompts of more than `max_length` tokens are left out, with a `PrimeWarning`. Raises `PrimeError`, naming
    data set and row, for rows without a prompt or an answer, prompts that cannot be read, and no row left.
    """
    rows = list(rows)
    for number, row in enumerate(rows):
        for key in ("prompt", "answer"):
            if not isinstance(row, Mapping) or row.get(key) is None:
                found = sorted(row) if isinstance(row, Mapping) else type(row).__name__
                raise PrimeError(
                    f"{name}, row {number}, has no {key!r} (found: {found}); a row needs a 'prompt', and an "
                    "'answer' that the verifier can compare responses with"
                )
        if not isinstance(row["prompt"], Sequence):
            raise PrimeError(
                f"{name}, row {number}: the prompt is {row['prompt']!r:.60}; it must be text, messages or "
                "token ids"
            )
    try:
        ids = prompt_ids([row["prompt"] for row in rows], tokenizer)
    except ImplicitPRMError as error:
        raise PrimeError(f"{name}: {error}") from error
    kept = [
        PromptRow(tokens, row["answer"])
        for tokens, row in zip(ids, rows, strict=True)
        if len(tokens) <= max_length
    ]
    if not kept:
        longest = f", all of more than max_prompt_length={max_length} tokens" if rows else ""
        raise PrimeError(f"{name} has no prompt to use: it has {len(rows)} rows{longest}")
    if len(kept) < len(rows):
        warnings.warn(
            f"{name}: {len(rows) - len(kept)} of {len(rows)} prompts are left out, as they have more than "
            f"max_prompt_length={max_length} tokens",
            PrimeWarning,
            stacklevel=3,
        )
    return kept


def check_context(
    rows: Iterable[PromptRow], name: str, max_completion_length: int, context: int | None
) -> None:
    """Raises `PrimeError` where a prompt and a response are more than the `context` tokens of a model.

    A run would come to that prompt hours later.
    """
    longest = max(len(row.ids) for row in rows)
    if context is not None and longest + max_completion_length > context:
        raise PrimeError(
            f"{name}: the longest prompt has {longest} tokens, which with max_completion_length="
            f"{max_completion_length} are more than the {context} that the model reads: lower that, or "
            "max_prompt_length, over which prompts are left out"
        )
