"""Hashed n-grams of a corpus, equal to those of data-selection, and how concentrated they are.

Words are runs of letters, marks, digits and _, or of what is neither these nor space, in lower case (NLTK's
WordPunct); an n-gram is its words joined by a space, and its bucket the SHA-256 of that, modulo the number of
buckets. Words are found in the bytes of UTF-8 and become numbers, and n-grams pairs of numbers: each distinct
n-gram of a chunk is hashed once.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from hashlib import sha256
from itertools import islice

import numpy as np
import regex
from numpy.typing import ArrayLike, NDArray

from toedit.errors import ToEditError

_CHUNK = 16_000_000  # bytes of text at a time: some 30 bytes of memory each
_PIECE = 1_000_000  # bytes at a time to split into words: small arrays stay in the cache, and
_BATCH = 5_000  # n-grams at a time to make and hash: their memory is not taken anew from the system
_SLOTS = 18  # bits: a table of numbers that the cache can hold
_LONG = 32  # bytes: longer words are too few to be told apart in arrays
_PAIR = 0xFE << 56  # marks two numbers of up to 28 bits: no 8 bytes of UTF-8 end so, nor do fewer, filled up
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
    ids     int64, for each n-gram in its place which of `grams` it is
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
    for grams in iterate_grams(texts, n):
        np.add.at(counts, hash_buckets(grams.grams, buckets), grams.counts)
    return counts


def top_ngrams(texts: Iterable[str] | str, n: int = 2, k: int = 20) -> list[tuple[str, int]]:
    """The k most frequent n-grams of exactly n words, with their counts; equal ones in alphabetical order."""
    total: Counter[bytes] = Counter()
    for found in iterate_grams(texts, n):
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


def iterate_grams(texts: Iterable[str] | str, n: int) -> Iterator[Grams]:
    """The 1-grams, then the 2-grams, ..., the n-grams of some texts, then those of the next ones."""
    if n < 1:
        raise ToEditError(f"n-grams have n >= 1 words, not {n}")
    first = 0
    for chunk in _batches(_lowered([texts] if isinstance(texts, str) else texts), _CHUNK):
        words, ids, text = _words(chunk, first)
        first += len(chunk)
        grams, tail = words, ids
        yield Grams(1, grams, np.bincount(ids, minlength=len(grams)), ids, text)
        for order in range(2, n + 1):
            # An n-gram grows by the last word of the one behind it, if that is in the same text.
            grows = text[1:] == text[:-1]
            keys = (ids[:-1] * len(words) + tail[1:])[grows]
            text = text[1:][grows]
            ids, distinct = _number(keys.view(np.uint64))
            head, last = np.divmod(distinct.astype(np.int64), max(1, len(words)))
            made: Iterable[bytes] = _joined(grams, head, words, last)
            if order < n:
                made = grams = list(made)
                tail = tail[1:][grows]
            yield Grams(order, made, np.bincount(ids, minlength=len(distinct)), ids, text)


def _lowered(texts: Iterable[str]) -> Iterator[bytes]:
    for number, text in enumerate(texts):
        lower = text.lower()
        try:
            yield lower.encode()
        except UnicodeEncodeError as error:
            raise ToEditError(
                f"text {number} (from 0) has half a character, {lower[error.start]!r}, "
                "which UTF-8 cannot hold"
            ) from error


def _batches(texts: Iterable[bytes], size: int) -> Iterator[list[bytes]]:
    """The texts in lists of at least so many bytes each."""
    batch: list[bytes] = []
    held = 0
    for text in texts:
        batch.append(text)
        held += len(text)
        if held >= size:
            yield batch
            batch, held = [], 0
    if batch:
        yield batch


def _words(texts: list[bytes], first: int) -> tuple[list[bytes], Ints, Ints]:
    """The distinct words of the texts; then for each word in its place its number, and its text's."""
    numbers, pieces = _Numbers(), []
    for piece in _batches(texts, _PIECE):
        pieces.append(_numbered_words(piece, first, numbers))
        first += len(piece)
    ids, text = map(np.concatenate, zip(*pieces, strict=True))
    spelled = numbers.spelled()
    # Some are only parts of longer words.
    used = np.flatnonzero(np.bincount(ids, minlength=len(spelled)))
    rank = np.zeros(len(spelled), dtype=np.int64)
    rank[used] = np.arange(len(used))
    return [spelled[number] for number in used.tolist()], rank[ids], text


class _Numbers:
    """Numbers from 0 for keys, the same for equal ones, however many arrays of them come one after the other.

    A key is up to 8 bytes, or a pair of numbers: that of a word's beginning and that of its next 8 bytes.
    The table holds one key for each slot; those that it does not hold are looked up one by one.
    """

    def __init__(self) -> None:
        self.known: defaultdict[int | bytes, int] = defaultdict()
        self.known.default_factory = self.known.__len__
        self.keys, self.numbers = np.zeros(2**_SLOTS, dtype=np.uint64), np.zeros(2**_SLOTS, dtype=np.int64)
        self.keys[0] = 1  # 0 belongs here, and 1 does not: no slot holds a key that was not put there

    def of(self, keys: NDArray[np.uint64]) -> Ints:
        slot = _slots(keys, _FACTORS[0], _SLOTS)
        ids = self.numbers[slot]
        lost = np.flatnonzero(self.keys[slot] != keys)
        alike, distinct = _number(keys[lost])
        numbers = np.array([self.known[key] for key in distinct.tolist()], dtype=np.int64)
        ids[lost] = numbers[alike]
        slot = _slots(distinct, _FACTORS[0], _SLOTS)
        self.keys[slot], self.numbers[slot] = distinct, numbers
        return ids

    def spelled(self) -> list[bytes]:
        """The bytes of each number."""
        found: list[bytes] = []
        for key in self.known:
            if isinstance(key, bytes):
                found.append(key)
            elif key >> 56 == _PAIR >> 56:
                found.append(found[key >> 28 & 2**28 - 1] + found[key & 2**28 - 1])
            else:
                found.append(key.to_bytes(8, "little").rstrip(b"\xff"))
        return found


def _numbered_words(texts: list[bytes], first: int, numbers: _Numbers) -> tuple[Ints, Ints]:
    """For each word in its place its number, and the number of its text."""
    # Space on both sides of every word; 8 bytes more, so that 8 can be read from anywhere in a text.
    data = b"\n".join([b"", *texts, b" " * 8])
    kind = _kinds(data)
    edge = np.flatnonzero(kind[1:] != kind[:-1]) + 1
    words = np.flatnonzero(kind[edge])
    start = edge[words]
    length = edge[words + 1] - start
    ids = numbers.of(_packed(data, start, np.minimum(length, 8)))
    for place in range(8, _LONG, 8):
        longer = np.flatnonzero(length > place)
        more = numbers.of(_packed(data, start[longer] + place, np.minimum(length[longer] - place, 8)))
        ids[longer] = numbers.of((ids[longer] << 28 | more).view(np.uint64) | np.uint64(_PAIR))
    for longest in np.flatnonzero(length > _LONG).tolist():
        begin = int(start[longest])
        ids[longest] = numbers.known[data[begin : begin + int(length[longest])]]
    ends = np.cumsum([len(text) + 1 for text in texts])  # the place of the line feed behind each text
    per_text = np.diff(np.searchsorted(start, ends), prepend=0)
    return ids, np.repeat(np.arange(first, first + len(texts)), per_text)


def _kind(character: str) -> int:
    return 0 if _SPACE.match(character) else 1 if _WORD.match(character) else 2


_ASCII = bytes(_kind(chr(byte)) if byte < 128 else 0 for byte in range(256))


def _kinds(data: bytes) -> NDArray[np.uint8]:
    """For each byte the kind of its character: 0 space, 1 letters, marks, digits and _, 2 others."""
    kind = np.frombuffer(bytearray(data.translate(_ASCII)), dtype=np.uint8)
    raw = np.frombuffer(data, dtype=np.uint8)
    others = raw[raw >= 128].tobytes().decode()  # the characters that are not ASCII
    points = np.frombuffer(others.encode("utf-32-le"), dtype="<u4").astype(np.intp)
    seen = np.flatnonzero(np.bincount(points))
    kinds = np.zeros(seen.max(initial=0) + 1, dtype=np.uint8)
    kinds[seen] = [_kind(chr(point)) for point in seen.tolist()]
    found = kinds[points]
    lead, width = np.flatnonzero(raw >= 0xC0), 2 + (points >= 0x800) + (points >= 0x10000)
    for place in range(4):
        has = width > place
        kind[lead[has] + place] = found[has]
    return kind


def _packed(data: bytes, start: Ints, length: Ints) -> NDArray[np.uint64]:
    """The 1 to 8 bytes from each start as one number, filled up with 255, which is no byte of UTF-8."""
    filling = np.array([2**64 - 2 ** (8 * size) for size in range(9)], dtype=np.uint64)
    eights = np.ndarray(len(data) - 7, "<u8", data, strides=(1,))
    return eights[start] | filling[length]


def _number(keys: NDArray[np.uint64], factors: tuple[int, ...] = _FACTORS) -> tuple[Ints, NDArray[np.uint64]]:
    """Numbers from 0 for the distinct keys, [len(keys)], and the key of each number.

    Each key writes itself into a slot of a table; those that find themselves there are done, and those that
    another one has overwritten go on, by another hash function. The few left over are sorted.
    """
    if not factors:
        distinct, ids = np.unique(keys, return_inverse=True)
        return ids, distinct
    bits = min(_SLOTS, max(1, len(keys).bit_length() - 2))
    slot = _slots(keys, factors[0], bits)
    table, number = np.empty(2**bits, dtype=np.uint64), np.zeros(2**bits, dtype=np.int64)
    table[slot] = keys
    number[slot] = 1
    taken = np.flatnonzero(number)
    number[taken] = np.arange(len(taken))
    ids = number[slot]
    lost = np.flatnonzero(table[slot] != keys)
    others, distinct = _number(keys[lost], factors[1:])
    ids[lost] = len(taken) + others
    return ids, np.concatenate([table[taken], distinct])


def _slots(keys: NDArray[np.uint64], factor: int, bits: int) -> Ints:
    """For each key its place in a table of 2**bits."""
    return ((keys * np.uint64(factor)) >> np.uint64(64 - bits)).view(np.int64)


def _joined(heads: list[bytes], head: Ints, words: list[bytes], last: Ints) -> Iterator[bytes]:
    """The n-grams of heads[head[i]] and words[last[i]], a space between."""
    spaced, ended = np.array([gram + b" " for gram in heads], dtype=object), np.array(words, dtype=object)
    for start in range(0, len(head), _BATCH):
        here = slice(start, start + _BATCH)
        yield from (spaced[head[here]] + ended[last[here]]).tolist()
