"""Texts that say the same thing: found by the runs of eight words that they share.

A text's shingles are its runs of `SHINGLE_WORDS` successive words, without case and punctuation. The
containment of a text in others is the share of its shingles that occur in any of them (Broder, "On the
resemblance and containment of documents", 1997). All shingles are compared, not a sample of them: at some
millions of words that takes seconds, and short texts would have next to nothing in a sample.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

SHINGLE_WORDS = 8
MAX_CONTAINMENT = 0.5

_WORD = re.compile(r"\w+")
_MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)  # odd, so multiplying by it is one to one modulo 2**64


@dataclass(frozen=True)
class Shingles:
    """The shingles of several texts, hashed to 64 bits, in a row: `counts[i]` of `hashes` are from text i."""

    hashes: NDArray[np.uint64]
    counts: NDArray[np.int64]

    @property
    def text_of(self) -> NDArray[np.int64]:
        """The number of the text that each hash is from."""
        return np.repeat(np.arange(len(self.counts)), self.counts)

    def select(self, texts: NDArray[np.bool_]) -> Shingles:
        """Those of the texts where `texts` is true."""
        return Shingles(self.hashes[np.repeat(texts, self.counts)], self.counts[texts])

    def share(self, hit: NDArray[np.bool_]) -> NDArray[np.float64]:
        """For each text, the share of its shingles where `hit` is true (0 for a text without shingles)."""
        hits = np.bincount(self.text_of[hit], minlength=len(self.counts))
        return hits / np.maximum(self.counts, 1)


def words(text: str) -> list[str]:
    """The words of a text in lower case; punctuation and white space only separate them."""
    return _WORD.findall(text.lower())


def shingles(texts: Sequence[str]) -> Shingles:
    """The shingles of each text; a text of fewer than `SHINGLE_WORDS` words has none."""
    numbers: dict[str, int] = {}
    sequences = [[numbers.setdefault(word, len(numbers)) for word in words(text)] for text in texts]
    lengths = np.array([len(sequence) for sequence in sequences], dtype=np.int64)
    stream = np.fromiter((n for sequence in sequences for n in sequence), np.uint64, int(lengths.sum()))
    if len(stream) < SHINGLE_WORDS:
        return Shingles(np.empty(0, np.uint64), np.zeros(len(texts), np.int64))
    count = len(stream) - SHINGLE_WORDS + 1
    hashes = np.zeros(count, np.uint64)
    for offset in range(SHINGLE_WORDS):
        hashes = _mix(hashes * _MULTIPLIER + stream[offset : offset + count])
    # A run that reaches into the next text is no shingle.
    ends = np.repeat(np.cumsum(lengths), lengths)[:count]
    inside = np.arange(count) + SHINGLE_WORDS <= ends
    return Shingles(hashes[inside], np.maximum(lengths - SHINGLE_WORDS + 1, 0))


def _mix(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """The finalizer of MurmurHash3: every bit of the input moves every bit of the output; one to one."""
    values = (values ^ (values >> np.uint64(33))) * np.uint64(0xFF51AFD7ED558CCD)
    values = (values ^ (values >> np.uint64(33))) * np.uint64(0xC4CEB9FE1A85EC53)
    return values ^ (values >> np.uint64(33))


def containment(those: Shingles, others: Shingles) -> NDArray[np.float64]:
    """For each of those texts, the share of its shingles that occur in any of the others."""
    return those.share(np.isin(those.hashes, others.hashes))


def containment_in_earlier(texts: Shingles) -> NDArray[np.float64]:
    """For each text, the share of its shingles that occur in any text before it."""
    if not len(texts.hashes):
        return np.zeros(len(texts.counts))
    _, first, inverse = np.unique(texts.hashes, return_index=True, return_inverse=True)
    text_of = texts.text_of
    return texts.share(text_of[first][inverse.reshape(-1)] < text_of)


def keep_distinct(texts: Sequence[str], for_evaluation: Sequence[bool]) -> NDArray[np.bool_]:
    """Which texts to keep so that none repeats another, and none kept for evaluation is known from training.

    First the evaluation texts, then the others are taken in order, and a text is left out if more than
    `MAX_CONTAINMENT` of its shingles came before. Then an evaluation text is left out if it is contained to
    more than that in all training texts together: a long training text may hold a short one whole.
    """
    evaluation = np.asarray(for_evaluation, dtype=bool)
    order = np.argsort(~evaluation, kind="stable")
    found = shingles([texts[i] for i in order])
    keep = containment_in_earlier(found) <= MAX_CONTAINMENT
    evaluated = evaluation[order]
    training = found.select(keep & ~evaluated)
    keep[evaluated] &= containment(found.select(evaluated), training) <= MAX_CONTAINMENT
    result = np.empty(len(texts), dtype=bool)
    result[order] = keep
    return result
