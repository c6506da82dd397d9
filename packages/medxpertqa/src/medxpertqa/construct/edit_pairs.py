"""Pairs of texts whose edit similarity reaches a threshold, without comparing all pairs (section 2.5).

The similarity is s = 1 - Levenshtein(a, b) / m on characters, m = max(|a|, |b|). Two bounds spare most
comparisons, and neither loses a pair: s >= t needs min(|a|, |b|) >= t·m; and floor((1 - t)·m) edits touch at
most as many of any pieces of the longer text that do not overlap, so that all others stand in the shorter one
too, at most as many places further on or back. The pieces are trigrams, those which are rare together.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from rapidfuzz import process
from rapidfuzz.distance import Levenshtein

from medxpertqa.errors import DataError

_Q = 3  # characters of a piece; with 2 or 4 more of MedQA's pairs survive
_HASH_BITS = 14  # 6 % of MedQA's pairs that pass the length test survive; 8 % with 13
_WIDTH = (
    96  # a piece is looked for around its stretch of so many characters; 5 % survive with 64, in as much time
)
_SEGMENT = 64  # pieces are chosen for so many characters at a time, and for all such segments at once
_BLOCK = 2**14 * _SEGMENT  # characters for which they are chosen at once: bounds the memory
_ROWS = 256  # texts whose candidates are compared at once
_CUTOFF_SLACK = 1e-4  # of a similarity that is just its cutoff rapidfuzz 3.14 may say 0 (5 edits of 25, 0.8)


class SimilarPair(NamedTuple):
    """Two positions in the list of texts, first < second, and their similarity."""

    first: int
    second: int
    similarity: float


def edit_similar_pairs(texts: Sequence[str], threshold: float = 0.8, workers: int = 1) -> list[SimilarPair]:
    """Return every pair of `texts` with edit similarity of at least `threshold`, sorted by position.

    The same pairs as rapidfuzz's `Levenshtein.normalized_similarity` on all n(n-1)/2 pairs. Below a threshold
    of about 0.7 the pieces say nothing, and only the lengths spare work. `workers` threads compare.

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
    found: list[SimilarPair] = []
    for first, second in _candidates([texts[i] for i in order], threshold):
        found += _compare(texts, order[first], order[second], threshold, workers)
    return sorted(found)


def _compare(
    texts: Sequence[str], first: np.ndarray, second: np.ndarray, threshold: float, workers: int
) -> list[SimilarPair]:
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


def _candidates(texts: Sequence[str], threshold: float) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield arrays of positions i < j of pairs that neither bound rules out; `texts` are sorted by length."""
    lengths = np.array([len(text) for text in texts], dtype=np.int64)
    # a little too high, never too low: the exact comparison decides
    limits = np.floor((1 - threshold) * lengths + 1e-6).astype(np.int64)
    reach = np.searchsorted(lengths - limits, lengths, side="right")
    starts = np.concatenate([[0], np.cumsum(lengths)])
    grams = _hashed_grams(texts)
    pieces = _pieces(grams, starts)
    borders = np.searchsorted(pieces, starts)
    needed = np.diff(borders) - limits
    stretch = (pieces - np.repeat(starts[:-1], np.diff(borders))) // _WIDTH
    places = (stretch << _HASH_BITS) + grams[pieces]
    for row in range(0, len(texts), _ROWS):
        rows = range(row, min(row + _ROWS, len(texts)))
        block = grams[starts[row] : starts[rows.stop]].astype(np.intp)  # of texts that stand side by side
        close = []
        for i in rows:
            start, stop = i + 1, int(reach[i])
            own = block[starts[i] - starts[row] : starts[i + 1] - starts[row]]
            near = slice(borders[start], borders[stop])
            # `reduceat` wants borders inside; a text without pieces gets one hit at most, which loses no pair
            hits = np.zeros(near.stop - near.start + 1, dtype=bool)
            if start < stop:
                stands = _surroundings(own, int(lengths[stop - 1]), int(limits[stop - 1]))
                stands.take(places[near], out=hits[:-1], mode="clip")
            common = np.add.reduceat(hits, borders[start:stop] - near.start, dtype=np.int32)
            close.append(start + (common >= needed[start:stop]).nonzero()[0])
        second = np.concatenate(close)
        if len(second):
            yield np.repeat(rows, [len(some) for some in close]), second


def _surroundings(grams: np.ndarray, length: int, shift: int) -> np.ndarray:
    """Return which grams start in or within `shift` of each stretch of a text, bool (stretches · hashes,)."""
    stands = np.zeros((length // _WIDTH + 1, 2**_HASH_BITS), dtype=bool)
    for number, stretch in enumerate(stands):
        start = number * _WIDTH
        stretch[grams[max(0, start - shift) : start + _WIDTH + shift]] = True
    return stands.ravel()


def _hashed_grams(texts: Sequence[str]) -> np.ndarray:
    """Return a hash of the gram that starts at each character of the texts, one after the other, uint16."""
    points = np.frombuffer(("".join(texts) + "\0" * (_Q - 1)).encode("utf-32-le", "surrogatepass"), np.uint32)
    hashes = np.empty(len(points) - _Q + 1, dtype=np.uint16)
    for start in range(0, len(hashes), _BLOCK):
        near = points[start : start + _BLOCK + _Q - 1].astype(np.uint64)
        # 21 bits a character: a gram is its own number
        grams = near[:-2] | near[1:-1] << np.uint64(21) | near[2:] << np.uint64(42)
        hashes[start : start + _BLOCK] = grams * np.uint64(0xD6E8FEB86659FD93) >> np.uint64(64 - _HASH_BITS)
    return hashes


def _pieces(grams: np.ndarray, starts: np.ndarray) -> np.ndarray:
    """Return where grams start that do not overlap and of which a text holds the fewest by chance, ascending.

    A gram that occurs c times in n texts counts as exp(-c / 2n): it is looked for in about half a text. The
    best sum over a segment is found from its end, best[i] = max(best[i + 1], gain[i] + best[i + q]).
    """
    gains = np.exp(-0.5 * np.bincount(grams, minlength=2**_HASH_BITS) / (len(starts) - 1)).astype(np.float32)
    chosen = []
    for start in range(0, len(grams), _BLOCK):
        gain = gains[grams[start : start + _BLOCK]]
        for back in range(1, _Q):  # grams that leave their text
            across = starts - back - start
            gain[across[(across >= 0) & (across < len(gain))]] = 0
        gain = np.append(gain, np.zeros(-len(gain) % _SEGMENT, np.float32)).reshape(-1, _SEGMENT).T.copy()
        best = np.zeros((_SEGMENT + 1, gain.shape[1]), np.float32)
        for i in range(_SEGMENT - _Q, -1, -1):
            np.maximum(best[i + 1], gain[i] + best[i + _Q], out=best[i])
        taken = best[:-1] > best[1:]
        for i in range(1, _SEGMENT):
            taken[i] &= ~taken[max(0, i - _Q + 1) : i].any(axis=0)
        chosen.append(start + np.flatnonzero(taken.T))
    return np.concatenate(chosen) if chosen else np.empty(0, np.int64)
