"""Gumbel noise that depends only on what it is for, from a counter-based generator (section 2.3).

The same document gets the same noise whatever the batch size, the shards, their order, the windows, the
backend or the number of workers. The layout is frozen; golden values hold it:

    digest  = BLAKE2b, 16 bytes, of "toedit:1:{seed}:{document id}" in UTF-8: little-endian uint32 d0 d1 d2 d3
    key     = (d0, d1)
    counter = (position, block, d2, d3)
    words   = Philox4x32-10(counter, key), four uint32

Candidate rank r of the token at `position` takes word r % 4 of block r // 4; position counts the tokens of
the document from 0, rank counts the candidates from the most probable one. A word w is u = (w + 1/2) / 2**32
in (0, 1), and the noise is g = -log(-log u). Word 0 of block 2**32 - 1 is the position's place in the queue
when `max_edit_fraction` lets only some changes through. Document ids 7 and "7" are the same document.

Philox: Salmon et al., Parallel random numbers: as easy as 1, 2, 3 (SC 2011).
"""

from __future__ import annotations

import hashlib
import operator
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from toedit.errors import ToEditError

Words: TypeAlias = NDArray[np.uint32]

_MULTIPLIERS = np.uint64(0xD2511F53), np.uint64(0xCD9E8D57)
_WEYL = np.uint64(0x9E3779B9), np.uint64(0xBB67AE85)
_LOW = np.uint64(0xFFFFFFFF)
_HALF = np.uint64(32)
_QUEUE_BLOCK = 2**32 - 1


def document_words(seed: int, doc_id: int | str) -> Words:
    """The four words [4] that stand for `doc_id` under `seed`.

    Raises `ToEditError` for an id that is neither a whole number nor text.
    """
    text = f"toedit:1:{seed}:{document_name(doc_id)}"
    digest = hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()
    return np.frombuffer(digest, dtype="<u4").astype(np.uint32)


def document_name(doc_id: Any) -> str:
    """The text by which a document is known. Raises `ToEditError` unless the id is a whole number or text."""
    if isinstance(doc_id, str):
        return doc_id
    try:
        return str(operator.index(doc_id))
    except TypeError:
        raise ToEditError(f"a document id is a whole number or text, not {doc_id!r}") from None


def seeded_generator(seed: int, *more: int) -> np.random.Generator:
    """numpy's own generator, for what no sharding can touch: mixtures, maps, simulations.

    Raises `ToEditError` for a seed that numpy does not take.
    """
    if seed < 0:
        raise ToEditError(f"seed is {seed}; it must be a whole number, at least 0")
    return np.random.default_rng([seed, *more] if more else seed)


def philox(counter: Words, key: Words) -> Words:
    """Philox4x32 with 10 rounds: `counter` [..., 4] and `key` [2] give four words [..., 4]."""
    c0, c1, c2, c3 = np.moveaxis(counter.astype(np.uint64), -1, 0)
    k0, k1 = key.astype(np.uint64)
    for _ in range(10):
        p0, p1 = c0 * _MULTIPLIERS[0], c2 * _MULTIPLIERS[1]
        c0, c1, c2, c3 = (p1 >> _HALF) ^ c1 ^ k0, p1 & _LOW, (p0 >> _HALF) ^ c3 ^ k1, p0 & _LOW
        k0, k1 = (k0 + _WEYL[0]) & _LOW, (k1 + _WEYL[1]) & _LOW
    return np.stack([c0, c1, c2, c3], axis=-1).astype(np.uint32)


def gumbel(document: Words, positions: NDArray[np.int64], ranks: int) -> NDArray[np.float64]:
    """Standard Gumbel noise [m, ranks] for the tokens at `positions` [m] of a document (`document_words`)."""
    blocks = np.arange((ranks + 3) // 4)
    words = _words(document, positions[:, None], blocks[None, :])
    words = words.reshape(len(positions), 4 * len(blocks))[:, :ranks]
    return -np.log(-np.log((words + 0.5) / 2.0**32))


def queue_places(document: Words, positions: NDArray[np.int64]) -> Words:
    """A random number [m] for each position: who comes first where not all changes are allowed."""
    return _words(document, positions, np.array(_QUEUE_BLOCK))[..., 0]


def _words(document: Words, positions: NDArray[np.int64], blocks: NDArray[np.int64]) -> Words:
    positions, blocks = np.broadcast_arrays(positions, blocks)
    counter = np.empty((*positions.shape, 4), dtype=np.uint32)
    counter[..., 0], counter[..., 1] = positions, blocks
    counter[..., 2:] = document[2:]
    return philox(counter, document[:2])
