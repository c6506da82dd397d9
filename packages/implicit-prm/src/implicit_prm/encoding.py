"""Rows of prompt and completion as token ids, with the characters that every token covers (section 2.4)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True, slots=True)
class Encoded:
    """A row as the models read it.

    id              the row's id; its position among the rows, as text, where it has none
    prompt_ids      tokens of the prompt, special tokens and chat template included
    completion_ids  tokens of the response: the ones that are scored
    completion      the response's text
    offsets         (start, end) in `completion` of every completion token, in characters; tokens that end
                    the response (EOS, end of turn) have the empty span at its end
    truncated       whether the response was cut off, by its sampler or by `max_length`
    """

    id: str
    prompt_ids: tuple[int, ...]
    completion_ids: tuple[int, ...]
    completion: str
    offsets: tuple[tuple[int, int], ...]
    truncated: bool

    @property
    def input_ids(self) -> tuple[int, ...]:
        """Prompt and completion, as they go into a model."""
        return self.prompt_ids + self.completion_ids

    @property
    def completion_mask(self) -> tuple[bool, ...]:
        """True for every token of `input_ids` that belongs to the completion."""
        return (False,) * len(self.prompt_ids) + (True,) * len(self.completion_ids)


def encode_rows(
    rows: Iterable[Mapping[str, Any]],
    tokenizer: PreTrainedTokenizerBase,
    *,
    add_eos: bool = False,
    max_length: int | None = None,
    truncate: Literal["error", "right"] = "error",
    render: Literal["original", "official"] = "original",
) -> list[Encoded]:
    """Encode rows, in their order."""
    raise NotImplementedError
