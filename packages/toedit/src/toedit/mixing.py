"""Corpora of human and synthetic text in a given share, of exactly as many tokens as asked for."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from toedit.errors import ToEditError
from toedit.randomness import seeded_generator

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_NEAR = 32  # characters around a cut that are tried until the tokens are as many as asked for


@dataclass(frozen=True, eq=False)
class Mixture(Sequence[Any]):
    """A mixture, in the order in which to train; a sequence of its n documents.

    documents  as they were given, but the last ones taken of each source are cut
    human      bool [n], whether it is human
    rows       int64 [n], its place in its source
    sizes      int64 [n], its tokens
    """

    documents: list[Any]
    human: NDArray[np.bool_]
    rows: NDArray[np.int64]
    sizes: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.documents)

    def __getitem__(self, index: Any) -> Any:
        return self.documents[index]


def mix(
    human: Sequence[Any],
    synthetic: Sequence[Any],
    alpha: float,
    *,
    tokens: int,
    tokenizer: PreTrainedTokenizerBase | None = None,
    seed: int = 0,
) -> Mixture:
    """Draw documents of `tokens` tokens, round(alpha * tokens) of them human and the others synthetic.

    Documents are sequences of token ids (an array [n, length] has n of them), or texts with a `tokenizer`.
    Each source is drawn in an order of its own without repeating, and the last document cut, so that the
    budget is met to the token, as the tokenizer counts a cut text. (A text that has no beginning of so many
    tokens is cut shorter, and the next document brings the rest.) Only documents that
    are drawn are read. The same arguments give the same mixture, and mixtures of one seed draw alike: with a
    larger share come more documents of a source, after the same first ones, in the same places.
    Raises `ToEditError` for a share outside [0, 1], a budget below 1, a seed below 0, and too few tokens.
    """
    if not 0 <= alpha <= 1:
        raise ToEditError(f"alpha is the share of human tokens, between 0 and 1, not {alpha}")
    if tokens < 1:
        raise ToEditError(f"a mixture has at least 1 token, not {tokens}")
    n_human = round(alpha * tokens)
    taken = []
    for name, source, budget in (("human", human, n_human), ("synthetic", synthetic, tokens - n_human)):
        random = seeded_generator(seed, name == "human")
        order, places = random.permutation(len(source)), random.random(len(source))
        for row, document, size in _draw(name, source, order, budget, tokenizer):
            taken.append((places[row], name == "human", row, size, document))
    taken.sort(key=lambda entry: entry[:3])
    return Mixture(
        documents=[entry[4] for entry in taken],
        human=np.array([entry[1] for entry in taken], dtype=np.bool_),
        rows=np.array([entry[2] for entry in taken], dtype=np.int64),
        sizes=np.array([entry[3] for entry in taken], dtype=np.int64),
    )


def _draw(
    name: str, source: Sequence[Any], order: NDArray[np.int64], budget: int, tokenizer: Any
) -> Iterator[tuple[int, Any, int]]:
    """The row, document and size of documents in this order, until the budget is spent."""
    left = budget
    for row in order.tolist():
        if not left:
            return
        document, size = _cut(source[row], left, tokenizer, f"{name} document {row}")
        if size:
            left -= size
            yield row, document, size
    if left:
        raise ToEditError(
            f"the {name} documents give only {budget - left} of the {budget} tokens needed: "
            "ask for fewer tokens or give more documents"
        )


def _cut(document: Any, most: int, tokenizer: Any, name: str) -> tuple[Any, int]:
    """The document, or its beginning of at most `most` tokens, and how many it has."""
    if not isinstance(document, str):
        if not hasattr(document, "__len__"):
            raise ToEditError(f"{name} is {document!r}; documents are texts or sequences of token ids")
        return (document, len(document)) if len(document) <= most else (document[:most], most)
    if tokenizer is None:
        raise ToEditError(f"{name} is a text; to count its tokens, mix needs a tokenizer")
    encoded = tokenizer(document, add_special_tokens=False, return_offsets_mapping=True)
    ends = [end for _, end in encoded["offset_mapping"]]
    if len(ends) <= most:
        return document, len(ends)
    # The beginning up to the last token wanted may split into others, where it ends within a word.
    middle = ends[most - 1]
    best = ("", 0)
    for end in sorted(range(max(1, middle - _NEAR), middle + _NEAR), key=lambda end: abs(end - middle)):
        size = len(tokenizer(document[:end], add_special_tokens=False)["input_ids"])
        if best[1] < size <= most:
            best = (document[:end], size)
        if size == most:
            break
    return best
