"""Rows and texts of a corpus of files for the verbs that read and do not edit."""

from __future__ import annotations

import hashlib
import heapq
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from math import isfinite, nan
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from toedit.documents import Document, ScoredText
from toedit.errors import ToEditError
from toedit.files import BadRow, find_sources, read_rows
from toedit.layouts import Layout, TextLayout
from toedit.survey import COLUMN_HELP, missing

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True)
class CorpusRow:
    """A row of a corpus: its id as text, its columns, and where it stands, for messages."""

    doc_id: str
    values: Mapping[str, Any]
    where: str

    def answers(self, layout: Layout) -> list[str]:
        """The texts of the row that may be edited. Raises `ToEditError` for values of another form."""
        with self._named():
            return layout.answers(self.values)

    def document(self, layout: Layout, tokenizer: PreTrainedTokenizerBase) -> Document:
        """What the prior reads of the row. Raises as `answers`, and where the chat template does not fit."""
        self.answers(layout)  # `task` leaves a text that is no string to the editor, which knows no row
        with self._named():
            return layout.task(self.values, self.doc_id, tokenizer).document

    @contextmanager
    def _named(self) -> Iterator[None]:
        try:
            yield
        except ToEditError as error:
            raise ToEditError(f"{self.where}: {error}") from error


def corpus_rows(inputs: Sequence[str | Path], layout: Layout, id_column: str = "id") -> Iterator[CorpusRow]:
    """The rows of a corpus; one without an id is called by its number in the whole of it.

    Raises `ToEditError` at a row that cannot be read or lacks a column: there is no quarantine here.
    """
    place = 0
    for source in find_sources(inputs):
        for row in read_rows(source, (*layout.columns, *layout.optional, id_column)):
            where = f"{source.path}, row {row.number}"
            if isinstance(row, BadRow):
                raise ToEditError(f"{where}: {row.reason}")
            problem = missing(row.values, layout.columns)
            if problem is not None:
                raise ToEditError(f"{where}: {problem}. {COLUMN_HELP}")
            place += 1
            yield CorpusRow(str(row.values.get(id_column, f"row {place}")), row.values, where)


def read_texts(
    inputs: Sequence[str | Path], layout: Layout | None = None, id_column: str = "id"
) -> Iterator[tuple[str, str]]:
    """(id, text) of each row; of pairs and chats the answers, with a blank line between them.

    Raises `ToEditError` as `corpus_rows`, and for values of another form.
    """
    layout = layout or TextLayout()
    for row in corpus_rows(inputs, layout, id_column):
        yield row.doc_id, "\n\n".join(row.answers(layout))


def row_batches(rows: Iterable[CorpusRow], size: int) -> Iterator[list[CorpusRow]]:
    """The same, `size` at a time."""
    stream = iter(rows)
    while batch := list(islice(stream, size)):
        yield batch


def sample_rows(inputs: Sequence[str | Path], n: int, layout: Layout) -> list[CorpusRow]:
    """`n` rows of the whole corpus (or all, if there are fewer), the same ones each time.

    Those of which a hash of the place is smallest. Raises as `corpus_rows`.
    """
    ranked = (
        (hashlib.blake2b(str(place).encode(), digest_size=8).digest(), row)
        for place, row in enumerate(corpus_rows(inputs, layout))
    )
    return [row for _, row in heapq.nsmallest(n, ranked, key=lambda entry: entry[0])]


def document_score(scored: ScoredText, tokens: bool = False) -> dict[str, Any]:
    """Tokens, scored tokens and perplexity of a document; log P of each too if `tokens`.

    Of a pair or a chat also the tokens and the perplexity of the answers alone, after their prompts. What is
    no number in JSON is null: a token that was not scored, a perplexity that is not finite.
    """
    log_p = scored.log_p
    found: dict[str, Any] = {
        "tokens": len(log_p),
        "scored": int((~np.isnan(log_p)).sum()),
        "perplexity": perplexity(log_p),
    }
    if scored.document.editable is not None:
        answers = log_p[~scored.protected]
        found |= {"answer_tokens": len(answers), "answer_perplexity": perplexity(answers)}
    if tokens:
        found["log_p"] = [float(value) if isfinite(value) else None for value in log_p]
    return found


def perplexity(log_p: NDArray[np.floating]) -> float | None:
    """exp(-mean log P) of the scored ones of the tokens [n]; None where that is not finite."""
    scored = log_p[~np.isnan(log_p)].astype(np.float64)
    with np.errstate(over="ignore"):
        value = float(np.exp(-scored.mean())) if len(scored) else nan
    return value if isfinite(value) else None
