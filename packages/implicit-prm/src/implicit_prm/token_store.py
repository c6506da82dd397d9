"""Many tokenised responses in a few arrays, so that a batch is cut out of them without a loop over rows."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from operator import index as whole_number

import numpy as np
import numpy.typing as npt

from implicit_prm.errors import ImplicitPRMError

Integers = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class TokenStore:
    """n sequences, each a prompt and a completion, end to end: 4 bytes a token.

    tokens   [N] int32, all sequences
    starts   [n + 1] where each sequence begins, and the end of the last
    splits   [n] where each completion begins
    ids      the sequences' names, for messages
    """

    tokens: npt.NDArray[np.int32]
    starts: Integers
    splits: Integers
    ids: tuple[str, ...]

    @classmethod
    def of(cls, sequences: Iterable[tuple[str, Sequence[int], Sequence[int]]]) -> TokenStore:
        """Store sequences of (id, tokens of the prompt, tokens of the completion).

        Raises `ImplicitPRMError` for one that lacks a prompt or a completion, or has other things than ids.
        """
        pieces, lengths, prompts, ids = [], [], [], []
        for name, prompt, completion in sequences:
            if not len(prompt) or not len(completion):
                missing = "completion" if len(prompt) else "prompt"
                raise ImplicitPRMError(
                    f"row {name!r} has no token in its {missing}; "
                    "a response needs at least one token, and one before it to be scored from"
                )
            try:
                pieces.append(np.array(list(map(whole_number, (*prompt, *completion))), np.int32))
            except (TypeError, OverflowError) as error:
                raise ImplicitPRMError(f"row {name!r} has something else than token ids: {error}") from error
            lengths.append(len(pieces[-1]))
            prompts.append(len(prompt))
            ids.append(name)
        starts = np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)]).astype(np.int64)
        tokens = np.concatenate(pieces) if pieces else np.empty(0, np.int32)
        return cls(tokens, starts, starts[:-1] + np.array(prompts, np.int64), tuple(ids))

    def __len__(self) -> int:
        return len(self.splits)

    @property
    def lengths(self) -> Integers:
        """[n] tokens of each sequence."""
        return np.diff(self.starts)

    @property
    def prompt_lengths(self) -> Integers:
        """[n] tokens of each prompt."""
        return self.splits - self.starts[:-1]

    @property
    def completion_lengths(self) -> Integers:
        """[n] tokens of each completion."""
        return self.starts[1:] - self.splits

    def sequence(self, index: int) -> npt.NDArray[np.int32]:
        """The tokens of one sequence (a view)."""
        return self.tokens[self.starts[index] : self.starts[index + 1]]

    def join(self, other: TokenStore) -> TokenStore:
        """This store's sequences and then the other's."""
        shift = len(self.tokens)
        return TokenStore(
            np.concatenate([self.tokens, other.tokens]),
            np.concatenate([self.starts, other.starts[1:] + shift]),
            np.concatenate([self.splits, other.splits + shift]),
            self.ids + other.ids,
        )

    def recombined(self, partners: Sequence[int] | Integers) -> TokenStore:
        """Prompt i with the completion of sequence `partners[i]`, for every i."""
        pieces = []
        for index, partner in enumerate(partners):
            pieces.append(self.tokens[self.starts[index] : self.splits[index]])
            pieces.append(self.tokens[self.splits[partner] : self.starts[partner + 1]])
        prompts = self.prompt_lengths
        lengths = prompts + self.completion_lengths[np.asarray(partners)]
        starts = np.concatenate([[0], np.cumsum(lengths)])
        ids = tuple(f"{name}+{self.ids[partner]}" for name, partner in zip(self.ids, partners, strict=True))
        return TokenStore(np.concatenate(pieces), starts, starts[:-1] + prompts, ids)

    def digest(self) -> str:
        """SHA-256 of all tokens and boundaries; names and labels are not part of it."""
        digest = hashlib.sha256()
        for array in (self.tokens, self.starts, self.splits):
            digest.update(np.ascontiguousarray(array).data)
        return digest.hexdigest()
