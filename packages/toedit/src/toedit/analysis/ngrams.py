"""Hashed n-grams of a corpus, equal to those of data-selection, and how concentrated they are.

Words are runs of letters, marks, digits and _, or of what is neither these nor space, in lower case (NLTK's
WordPunct); an n-gram is its words joined by a space, and its bucket the SHA-256 of that, modulo the number of
buckets. Words become numbers and n-grams pairs of numbers: each distinct n-gram of a chunk is hashed once.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from hashlib import sha256
from itertools import islice
from typing import Any

import numpy as np
import regex
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import ArrayLike, NDArray

from toedit.errors import ToEditError

_CHUNK = 16_000_000  # characters at a time: some 30 bytes of memory each
_PIECE = 1_000_000  # characters at a time to split into words: small arrays stay in the cache, and
_BATCH = 5_000  # n-grams at a time to make and hash: their memory is not taken anew from the system
_MAX_BUCKETS = 2**28  # eight products of 32 bits and 28 still fit into 64

# The engine that NLTK has moved to: unlike those of `re`, its words hold combining marks, and no ² or ½.
_SPACE, _WORD = regex.compile(r"\s"), regex.compile(r"\w")
_FACTORS = (0x9E3779B97F4A7C15, 0xC2B2AE3D27D4EB4F, 0x165667B19E3779F9)  # odd, of the golden ratio and xxHash

Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Concentration:
    """How unevenly counts lie in their buckets.

    entropy            H of the counts' shares, in nats
    effective_buckets  e^H: as many equally full buckets would have this entropy
    gini               0 where all buckets are equally full, towards 1 where one holds everything
    top_share          the share of all counts in the fullest 1 % of the buckets
    """

    entropy: float
    effective_buckets: float
    gini: float
    top_share: float


@dataclass(frozen=True, eq=False)
class Grams:
    """All n-grams of one order in some of the texts.

    grams   the distinct ones; those of the highest order are made while they are read, once
    counts  int64, how often each of `grams` is there
    ids     int64, for each n-gram in its place which of `grams` it is (if they were numbered)
    text    int64, for each n-gram in its place the number of its text
    """

    order: int
    grams: Iterable[bytes]
    counts: Ints
    ids: Ints
    text: Ints


def hashed_ngrams(texts: Iterable[str] | str, n: int = 2, buckets: int = 10_000) -> Ints:
    """Int64 [buckets]: how many 1- to n-grams of the texts fall into each bucket.

    Bit-equal to `data_selection.get_ngram_counts` summed over the texts; n-grams do not run from one text
    into the next. Raises `ToEditError` for n < 1, impossible buckets, and text that UTF-8 cannot hold.
    """
    if not 1 <= buckets <= _MAX_BUCKETS:
        raise ToEditError(f"buckets must lie between 1 and 2**28, not {buckets}")
    counts = np.zeros(buckets, dtype=np.int64)
    for grams in iterate_grams(texts, n, numbered=False):
        np.add.at(counts, hash_buckets(grams.grams, buckets), grams.counts)
    return counts


def top_ngrams(texts: Iterable[str] | str, n: int = 2, k: int = 20) -> list[tuple[str, int]]:
    """The k most frequent n-grams of exactly n words, with their counts; equal ones in alphabetical order."""
    total: Counter[bytes] = Counter()
    for found in iterate_grams(texts, n, numbered=False):
        if found.order == n:
            total.update(dict(zip(found.grams, found.counts.tolist(), strict=True)))
    ranked = sorted(total.items(), key=lambda item: (-item[1], item[0]))[:k]
    return [(gram.decode(), count) for gram, count in ranked]


def concentration(counts: ArrayLike) -> Concentration:
    """How unevenly counts lie in their buckets. Raises `ToEditError` for counts below 0, or all 0."""
    ordered = np.sort(np.asarray(counts, dtype=np.float64).reshape(-1))
    total = ordered.sum()
    if not total > 0 or ordered[0] < 0:
        raise ToEditError("the concentration of counts needs counts >= 0 that are not all 0")
    shares = ordered[ordered > 0] / total
    entropy = float(-np.sum(shares * np.log(shares)))
    size = len(ordered)
    ranks = np.arange(1, size + 1)
    return Concentration(
        entropy=entropy,
        effective_buckets=float(np.exp(entropy)),
        gini=float((2 * ranks - size - 1) @ ordered / (size * total)),
        top_share=float(ordered[-max(1, round(size / 100)) :].sum() / total),
    )


def hash_buckets(grams: Iterable[bytes], buckets: int) -> Ints:
    """Int64, in the order of the n-grams: the SHA-256 of each, as a whole number, modulo `buckets`."""
    powers = np.array([pow(2, 32 * place, buckets) for place in reversed(range(8))], dtype=np.uint64)
    found, rest = [np.empty(0, dtype=np.int64)], iter(grams)
    while batch := list(islice(rest, _BATCH)):
        digests = b"".join([sha256(gram).digest() for gram in batch])
        words = np.frombuffer(digests, dtype=">u4").reshape(-1, 8).astype(np.uint64)
        found.append((words @ powers % np.uint64(buckets)).astype(np.int64))
    return np.concatenate(found)


def iterate_grams(texts: Iterable[str] | str, n: int, numbered: bool = True) -> Iterator[Grams]:
    """The 1-grams, then the 2-grams, ..., the n-grams of some texts, then those of the next ones.

    Without `numbered` the n-grams of the highest order are only counted, which is faster.
    """
    if n < 1:
        raise ToEditError(f"n-grams have n >= 1 words, not {n}")
    first = 0
    for chunk in _batches(map(str.lower, [texts] if isinstance(texts, str) else texts), _CHUNK):
        words, ids, text = _words(chunk, first)
        first += len(chunk)
        grams, tail = words, ids
        yield Grams(1, grams, np.bincount(ids, minlength=len(grams)), ids, text)
        for order in range(2, n + 1):
            # An n-gram grows by the last word of the one behind it, if that is in the same text.
            grows = text[1:] == text[:-1]
            heads, tail, text = ids[:-1][grows], tail[1:][grows], text[1:][grows]
            keys = heads * len(words) + tail
            if order < n or numbered:
                ids, distinct = _number(keys.view(np.uint64))
                counts = np.bincount(ids, minlength=len(distinct))
            else:
                # Sorting 32 bits takes half the time of sorting 64.
                small = keys.astype(np.min_scalar_type(len(grams) * len(words)))
                distinct, counts = np.unique(small, return_counts=True)
            head, last = np.divmod(distinct.astype(np.int64), max(1, len(words)))
            made: Iterable[bytes] = _joined(grams, head, words, last)
            if order < n:
                made = grams = list(made)
            yield Grams(order, made, counts, ids, text)


def _batches(texts: Iterable[str], characters: int) -> Iterator[list[str]]:
    """The texts in lists of at least so many characters each."""
    batch: list[str] = []
    size = 0
    for text in texts:
        batch.append(text)
        size += len(text)
        if size >= characters:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _words(texts: list[str], first: int) -> tuple[list[bytes], Ints, Ints]:
    """The distinct words of the texts; then for each word in its place its number, and its text's."""
    number: defaultdict[str, int] = defaultdict()
    number.default_factory = number.__len__
    pieces = []
    for piece in _batches(texts, _PIECE):
        pieces.append(_numbered_words(piece, first, number))
        first += len(piece)
    ids, text = map(np.concatenate, zip(*pieces, strict=True))
    return [word.encode() for word in number], ids, text


def _numbered_words(texts: list[str], first: int, number: defaultdict[str, int]) -> tuple[Ints, Ints]:
    """For each word in its place its number, new words given new ones, and the number of its text."""
    joined = "\n".join(["", *texts, ""])
    ends = np.cumsum([len(text) + 1 for text in texts])  # the place of the line feed behind each text
    try:
        points = np.frombuffer(joined.encode("utf-32-le"), dtype="<u4")
    except UnicodeEncodeError as error:
        text = first + int(np.searchsorted(ends, error.start))
        raise ToEditError(
            f"text {text} (from 0) has half a character, {joined[error.start]!r}, which UTF-8 cannot hold"
        ) from error
    code, kind = _alphabet(points.astype(np.intp))
    change = kind[1:] != kind[:-1]
    start = np.flatnonzero(change & (kind[1:] != 0)) + 1
    length = np.flatnonzero(change & (kind[:-1] != 0)) + 1 - start
    ids = np.empty(len(start), dtype=np.int64)
    for words, alike in _alike(code, start, length):
        example = np.empty(alike.max(initial=-1) + 1, dtype=np.int64)
        example[alike] = words
        spans = zip(start[example].tolist(), length[example].tolist(), strict=True)
        numbers = np.array([number[joined[a : a + n]] for a, n in spans], dtype=np.int64)
        ids[words] = numbers[alike]
    per_text = np.diff(np.searchsorted(start, ends), prepend=0)
    return ids, np.repeat(np.arange(first, first + len(texts)), per_text)


def _alike(code: NDArray[Any], start: Ints, length: Ints) -> Iterator[tuple[Ints, Ints]]:
    """Some of the words, then others until all are there; and for each a number that equal ones share.

    Words of up to 8 bytes are told apart by one number of 64 bits, those of up to 16 by two; the few that are
    longer get a number each.
    """
    most = 8 // code.itemsize
    short = np.flatnonzero(length <= most)
    yield short, _number(_packed(code, start[short], length[short]))[0]
    middle = np.flatnonzero((length > most) & (length <= 2 * most))
    begin, _ = _number(_packed(code, start[middle], np.full(len(middle), most)))
    end, _ = _number(_packed(code, start[middle] + most, length[middle] - most))
    yield middle, _number((begin << 32 | end).view(np.uint64))[0]
    long = np.flatnonzero(length > 2 * most)
    yield long, np.arange(len(long))


def _alphabet(points: NDArray[np.intp]) -> tuple[NDArray[Any], NDArray[np.int8]]:
    """Each character as a number from 1, in as few bytes as they need; and its kind: 0 for space, or 1, 2."""
    seen = np.zeros(points.max() + 1, dtype=np.bool_)
    seen[points] = True
    alphabet = np.flatnonzero(seen)
    kinds = np.array([0 if _SPACE.match(c := chr(p)) else 1 if _WORD.match(c) else 2 for p in alphabet])
    numbers = np.zeros(len(seen), dtype=np.min_scalar_type(len(alphabet)))
    # Numbered by kind, so that the number tells the kind.
    numbers[alphabet[np.argsort(kinds)]] = np.arange(1, len(alphabet) + 1)
    spaces, others = np.cumsum(np.bincount(kinds, minlength=3))[:2]
    code = numbers[points]
    return code, (code > spaces).astype(np.int8) + (code > others)


def _packed(code: NDArray[Any], start: Ints, length: Ints) -> NDArray[np.uint64]:
    """The characters of short words, packed into one number of 64 bits each."""
    most = 8 // code.itemsize
    padded = np.append(code, np.zeros(most, dtype=code.dtype))
    keys = sliding_window_view(padded, most)[start].view("<u8")[:, 0]
    lowest = [2 ** (8 * code.itemsize * n) - 1 for n in range(most + 1)]
    return keys & np.array(lowest, dtype=np.uint64)[length]


def _number(keys: NDArray[np.uint64]) -> tuple[Ints, NDArray[np.uint64]]:
    """Numbers from 0 for the distinct keys, [len(keys)], and the key of each number.

    Each key writes itself into a slot of a table; those that find themselves there are done, and those that
    another one has overwritten go on, by another hash function. The few left over are sorted.
    """
    ids = np.empty(len(keys), dtype=np.int64)
    rest, found, done = np.arange(len(keys)), [], 0
    bits = min(20, max(1, len(keys).bit_length()))
    table, number = np.empty(2**bits, dtype=np.uint64), np.empty(2**bits, dtype=np.int64)
    for factor in _FACTORS:
        slot = (keys * np.uint64(factor)) >> np.uint64(64 - bits)
        table[slot] = keys
        taken = np.zeros(2**bits, dtype=np.bool_)
        taken[slot] = True
        found.append(table[taken])
        number[taken] = np.arange(done, done + len(found[-1]))
        ids[rest] = number[slot]
        done += len(found[-1])
        lost = table[slot] != keys
        rest, keys = rest[lost], keys[lost]
    distinct, inverse = np.unique(keys, return_inverse=True)
    ids[rest] = done + inverse
    return ids, np.concatenate([*found, distinct])


def _joined(heads: list[bytes], head: Ints, words: list[bytes], last: Ints) -> Iterator[bytes]:
    """The n-grams of heads[head[i]] and words[last[i]], a space between: joined and split, many at a time."""
    spaced = np.array([gram + b" " for gram in heads], dtype=object)
    ended = np.array([word + b"\n" for word in words], dtype=object)
    for start in range(0, len(head), _BATCH):
        here = slice(start, start + _BATCH)
        parts = np.stack([spaced[head[here]], ended[last[here]]], axis=1)
        yield from b"".join(parts.ravel().tolist()).split(b"\n")[:-1]
