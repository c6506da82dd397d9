"""Pairs of texts whose edit similarity reaches a threshold, without comparing all pairs (section 2.5).

The similarity is s = 1 - Levenshtein(a, b) / max(|a|, |b|) on characters. Two bounds spare most comparisons,
and neither loses a pair: s >= t needs min(|a|, |b|) / max(|a|, |b|) >= t; and one edit destroys at most q
grams of length q, so s >= t needs at least m - q + 1 - q·floor((1 - t)·m) grams in common, m = max(|a|, |b|).
How many are in common comes for a whole tile of pairs from one matrix product.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from rapidfuzz import process
from rapidfuzz.distance import Levenshtein

from medxpertqa.errors import DataError

_Q = 3  # of MedQA's pairs that pass the length test 15 % survive; 61 % with bigrams, 63 % with 4-grams
_CUTOFF_SLACK = 1e-4  # of a similarity that is just its cutoff rapidfuzz 3.14 may say 0 (5 edits of 25, 0.8)
_HASH_BITS = 18
_MOST_COLUMNS = 8192  # with twice as many, 7 % fewer of MedQA's pairs survive, for twice the products
_TABLE = 2**24  # numbers in a tile's table, 64 MB
_STRIP = 256  # rows of a tile that are compared at once


class SimilarPair(NamedTuple):
    """Two positions in the list of texts, first < second, and their similarity."""

    first: int
    second: int
    similarity: float


def edit_similar_pairs(texts: Sequence[str], threshold: float = 0.8, workers: int = 1) -> list[SimilarPair]:
    """Return every pair of `texts` with edit similarity of at least `threshold`, sorted by position.

    The same pairs as rapidfuzz's `Levenshtein.normalized_similarity` on all n(n-1)/2 pairs. Below a threshold
    of about 0.7 the gram bound says nothing, and only the lengths spare work. `workers` threads compare.

    Raises:
        DataError: the threshold is not in (0, 1], or a text is no string.
    """
    if not 0 < threshold <= 1:
        raise DataError(f"threshold {threshold}: must be above 0 and at most 1")
    for position, text in enumerate(texts):
        if not isinstance(text, str):
            raise DataError(f"text {position} is a {type(text).__name__}: give strings")
    if len(texts) < 2:
        return []
    order = np.argsort([len(text) for text in texts], kind="stable")
    lengths = np.array([len(texts[i]) for i in order], dtype=np.float32)
    # a little too wide, never too narrow: the exact comparison decides
    limits = np.floor((1 - threshold) * lengths.astype(float) + 1e-6).astype(np.float32)
    needed = (lengths - _Q + 1 - _Q * limits) * np.float32(1 - 1e-4)
    grams = _Grams([texts[i] for i in order])
    found: list[SimilarPair] = []
    for rows, columns, left, right in grams.tiles(np.searchsorted(lengths - limits, lengths, side="right")):
        close = lengths[columns] - lengths[rows, None] <= limits[columns]
        close &= np.arange(columns.start, columns.stop) > np.arange(rows.start, rows.stop)[:, None]
        if needed[columns.stop - 1] > 0:
            close &= left @ right.T >= needed[columns]
        first, second = np.nonzero(close)
        found += _compare(texts, order[first + rows.start], order[second + columns.start], threshold, workers)
    return sorted(found)


def _compare(
    texts: Sequence[str], first: np.ndarray, second: np.ndarray, threshold: float, workers: int
) -> list[SimilarPair]:
    if not len(first):
        return []
    similarity = process.cpdist(
        [texts[i] for i in first],
        [texts[j] for j in second],
        scorer=Levenshtein.normalized_similarity,
        score_cutoff=threshold - _CUTOFF_SLACK,
        dtype=np.float64,
        workers=workers,
    )
    return [
        SimilarPair(int(min(first[k], second[k])), int(max(first[k], second[k])), float(similarity[k]))
        for k in np.flatnonzero(similarity >= threshold)
    ]


class _Grams:
    """Which grams each text holds, as column numbers: the dot product of two rows bounds their common grams.

    The r-th occurrence of a gram in a text is a feature of its own, so that for features with their own
    column the dot product IS the size of the intersection of multisets; rare features share columns by hash.
    A table holds the roots of the counts, and sqrt(ca)·sqrt(cb) >= min(ca, cb).
    """

    def __init__(self, texts: Sequence[str]) -> None:
        features = [_features(text) for text in texts]
        self._starts = np.concatenate([[0], np.cumsum([len(f) for f in features])])
        every = np.concatenate(features)
        counts = np.bincount(every, minlength=2**_HASH_BITS)
        columns = int(np.clip(8 * len(every) / len(texts), 1024, _MOST_COLUMNS))
        shared = columns // 8
        place = np.arange(2**_HASH_BITS, dtype=np.int32) % shared
        used = np.flatnonzero(counts)
        own = used[np.argsort(-counts[used], kind="stable")[: columns - shared]]
        place[own] = shared + np.arange(len(own))
        self._width = shared + len(own)
        self._columns = place[every]

    def tiles(self, reach: np.ndarray) -> Iterator[tuple[slice, slice, np.ndarray, np.ndarray]]:
        """Yield rows, columns and both tables for blocks that hold every pair i < j < reach[i].

        `reach` does not fall. Tables are float32 (rows, features).
        """
        count, tile = len(reach), max(_STRIP, _TABLE // self._width)
        for start in range(0, count, tile):
            left = self._dense(start, min(start + tile, count))
            for other in range(start, int(reach[start + len(left) - 1]), tile):
                right = left if other == start else self._dense(other, min(other + tile, count))
                for strip in range(start, start + len(left), _STRIP):
                    rows = slice(strip, min(strip + _STRIP, start + len(left)))
                    low, high = max(strip, other), min(other + len(right), int(reach[rows.stop - 1]))
                    if low < high:
                        table = left[strip - start : rows.stop - start]
                        yield rows, slice(low, high), table, right[low - other : high - other]

    def _dense(self, start: int, stop: int) -> np.ndarray:
        """Return the root of how often each column occurs in each of the texts, float32 (texts, columns)."""
        starts = self._starts[start : stop + 1]
        row = np.repeat(np.arange(stop - start), np.diff(starts))
        table = np.zeros((stop - start) * self._width, dtype=np.float32)
        np.add.at(table, row * self._width + self._columns[starts[0] : starts[-1]], np.float32(1))
        return np.sqrt(table, out=table).reshape(stop - start, self._width)


def _features(text: str) -> np.ndarray:
    """Return one hash for each gram of the text together with its rank among equal grams, int64."""
    points = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype=np.uint32).astype(np.uint64)
    if len(points) < _Q:
        return np.empty(0, np.int64)
    # 21 bits a character: a gram is its own number
    grams = np.sort(points[:-2] | points[1:-1] << np.uint64(21) | points[2:] << np.uint64(42))
    new = np.concatenate([[True], grams[1:] != grams[:-1]])
    rank = np.arange(len(grams)) - np.flatnonzero(new)[np.cumsum(new) - 1]
    # a collision of the hash can only raise the bound
    mixed = (grams + rank.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)) * np.uint64(0xD6E8FEB86659FD93)
    return (mixed >> np.uint64(64 - _HASH_BITS)).astype(np.int64)
