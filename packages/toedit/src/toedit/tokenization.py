"""The prior's tokenizer as an edit needs it: ids with the characters they cover, and ids back to text."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from toedit.errors import ToEditError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


class TextTokenizer:
    """A tokenizer of transformers, without truncation, padding, special tokens added, or clean-up.

    Names of special tokens in the text become these tokens, as in training; `avoid_specials` protects them.

    Raises `ToEditError` for a tokenizer without offsets, and for more tokens than `vocab_size`, the model's.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, vocab_size: int) -> None:
        if not getattr(tokenizer, "is_fast", False):
            raise ToEditError(
                f"{type(tokenizer).__name__} gives no offsets, so edits cannot be put back into the text; "
                "load a fast tokenizer (one with a tokenizer.json)"
            )
        if len(tokenizer) > vocab_size:
            raise ToEditError(
                f"the tokenizer has {len(tokenizer)} tokens and the model {vocab_size}; "
                "they do not belong together"
            )
        self.base = tokenizer
        # A copy of our own: the wrapper changes settings at each call, which threads may not do together.
        self._tokenizer = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        added = tokenizer.added_tokens_decoder
        named = {token for token, content in added.items() if content.special}
        # Models have more rows than tokens where that is a rounder number; those rows mean nothing.
        rows = range(len(tokenizer), vocab_size)
        self.specials = frozenset({*named, *tokenizer.all_special_ids, *rows})

    def encode(self, texts: Sequence[str]) -> list[tuple[NDArray[np.int64], NDArray[np.int64]]]:
        """(ids int64 [n], offsets int64 [n, 2] in characters) of each text."""
        return [
            (np.array(found.ids, dtype=np.int64), np.array(found.offsets, dtype=np.int64).reshape(-1, 2))
            for found in self._tokenizer.encode_batch(list(texts), add_special_tokens=False)
        ]

    def decode(self, ids: list[int]) -> str:
        """The text of the ids, as the tokenizer's decoder gives it."""
        return self._tokenizer.decode(ids, skip_special_tokens=False)

    def difference(self, other: TextTokenizer) -> str | None:
        """What makes the other one split texts in another way, in a word; None if nothing does."""
        own, others = (json.loads(tokenizer._tokenizer.to_str()) for tokenizer in (self, other))
        for part in ("normalizer", "pre_tokenizer", "added_tokens", "model"):
            if own[part] != others[part]:
                return part
        return None

    def bos(self, add: Literal["auto"] | bool) -> int | None:
        """The token to put before a document; "auto": only if the tokenizer does so itself.

        Raises `ToEditError` if one is demanded and the tokenizer has none.
        """
        token = self.base.bos_token_id
        if add == "auto":
            start = self.base("a")["input_ids"][:1]
            return token if token is not None and start == [token] else None
        if add and token is None:
            raise ToEditError(
                "add_bos is True, but the tokenizer has no beginning-of-text token; set it False"
            )
        return token if add else None
