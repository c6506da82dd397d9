"""What goes into an editor and what comes out."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from toedit.editing import Scores
from toedit.errors import ToEditError
from toedit.randomness import document_name
from toedit.splicing import Edit
from toedit.statistics import EditStats

_T = TypeVar("_T")


@dataclass(frozen=True)
class Document:
    """A text with the id that keys its draws; `editable` are the only character ranges that may change."""

    doc_id: int | str
    text: str
    editable: tuple[tuple[int, int], ...] | None = None


@dataclass(frozen=True, eq=False)
class EditResult:
    """An edited document.

    text    the new text; outside the edits it is the old one, byte for byte
    ids     int64 [m], its tokens as edited; what a training on ids should use
    edits   every change, in order, positions counted in the old text
    stats   the counts; candidates were drawn anew, changed ones came out different
    """

    doc_id: int | str
    text: str
    ids: NDArray[np.int64]
    edits: list[Edit]
    stats: EditStats

    @property
    def n_tokens(self) -> int:
        """Tokens of the old text."""
        return self.stats.n_tokens

    @property
    def n_candidates(self) -> int:
        """Tokens that were drawn anew; most draws give the old token back."""
        return self.stats.n_candidates

    @property
    def n_changed(self) -> int:
        """Tokens that became others. Deleted ones are `stats.n_dropped`."""
        return self.stats.n_changed

    @property
    def retokenized(self) -> bool:
        """Whether the tokenizer splits the new text into other tokens than `ids`."""
        return self.stats.n_retokenized > 0


@dataclass(frozen=True)
class EditFailure:
    """A document that could not be edited, and why."""

    doc_id: int | str
    reason: str


@dataclass(frozen=True, eq=False)
class ScoredText:
    """A text as the prior sees it, n tokens.

    ids        int64 [n]
    offsets    int64 [n, 2]  the characters that each token covers
    protected  bool [n]      tokens that are never touched
    scores     log P of each token, and the top tokens of the candidates
    second     float32 [n]   log P of each token under the second prior, where there is one
    """

    document: Document
    ids: NDArray[np.int64]
    offsets: NDArray[np.int64]
    protected: NDArray[np.bool_]
    scores: Scores
    second: NDArray[np.floating] | None = None

    @property
    def log_p(self) -> NDArray[np.floating]:
        """float32 [n]: log P(x_i | x_<i); NaN where not scored (the first token, without a BOS)."""
        return self.scores.log_p


def or_raise(outcome: _T | EditFailure) -> _T:
    """The outcome. Raises `ToEditError` if it is a failure."""
    if isinstance(outcome, EditFailure):
        raise ToEditError(f"document {outcome.doc_id!r}: {outcome.reason}")
    return outcome


def check_unique(doc_ids: Iterable[int | str], seen: set[str]) -> None:
    """Add the ids to those `seen`. Raises `ToEditError` for one that was there: draws are keyed by the id."""
    for doc_id in doc_ids:
        name = document_name(doc_id)
        if name in seen:
            raise ToEditError(
                f"document id {name!r} is there twice; the draws are keyed by the id, so each needs its own"
            )
        seen.add(name)
