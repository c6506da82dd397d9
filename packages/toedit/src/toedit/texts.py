"""Texts of a corpus of files for the verbs that read and do not edit."""

from __future__ import annotations

import hashlib
import heapq
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from math import isfinite, nan
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from toedit.errors import ToEditError
from toedit.files import BadRow, find_sources, read_rows
from toedit.survey import missing


def read_texts(
    inputs: Sequence[str | Path], text_column: str = "text", id_column: str = "id"
) -> Iterator[tuple[str, str]]:
    """(id, text) of each row; a row without an id is called by its number in the whole corpus.

    Raises `ToEditError` at a row that cannot be read or has no text: there is no quarantine here.
    """
    place = 0
    for source in find_sources(inputs):
        for row in read_rows(source, (text_column, id_column)):
            where = f"{source.path}, row {row.number}"
            if isinstance(row, BadRow):
                raise ToEditError(f"{where}: {row.reason}")
            problem = missing(row.values, (text_column,))
            if problem is not None:
                raise ToEditError(f"{where}: {problem}. --text-column names it")
            text = row.values[text_column]
            if not isinstance(text, str):
                raise ToEditError(
                    f"{where}: the {text_column} is of type {type(text).__name__}, not a string"
                )
            place += 1
            yield str(row.values.get(id_column, f"row {place}")), text


def text_batches(texts: Iterable[tuple[str, str]], size: int) -> Iterator[list[tuple[str, str]]]:
    """The same, `size` at a time."""
    stream = iter(texts)
    while batch := list(islice(stream, size)):
        yield batch


def document_score(log_p: NDArray[np.floating], tokens: bool = False) -> dict[str, Any]:
    """Tokens, scored tokens and perplexity of a document from its `log_p` [n]; those too if `tokens`.

    What is no number in JSON is null: a token that was not scored, a perplexity that is not finite.
    """
    scored = log_p[~np.isnan(log_p)].astype(np.float64)
    perplexity = float(np.exp(-scored.mean())) if len(scored) else nan
    found: dict[str, Any] = {
        "tokens": len(log_p),
        "scored": len(scored),
        "perplexity": perplexity if isfinite(perplexity) else None,
    }
    if tokens:
        found["log_p"] = [float(value) if isfinite(value) else None for value in log_p]
    return found


def sample_texts(inputs: Sequence[str | Path], n: int, text_column: str = "text") -> list[str]:
    """`n` texts of the whole corpus (or all, if there are fewer), the same ones each time.

    Those of which a hash of the place is smallest. Raises as `read_texts`.
    """
    ranked = (
        (hashlib.blake2b(str(place).encode(), digest_size=8).digest(), text)
        for place, (_, text) in enumerate(read_texts(inputs, text_column))
    )
    return [text for _, text in heapq.nsmallest(n, ranked, key=lambda entry: entry[0])]
