"""DSIR (Xie et al. 2023): choose the texts of a raw corpus that look like a target, by their hashed n-grams.

The numbers are those of data-selection's HashedNgramDSIR.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from toedit.analysis.ngrams import hash_buckets, hashed_ngrams, iterate_grams
from toedit.errors import ToEditError
from toedit.randomness import seeded_generator

_LEAST = 1e-8


class DSIR:
    """Importance weights log p − log q of hashed 1- to n-grams, target p and raw q, and a draw by them.

    log_ratio  float64 [buckets], log(p + 1e-8) − log(q + 1e-8)
    """

    def __init__(
        self, target: Iterable[str], raw: Iterable[str], *, n: int = 2, buckets: int = 10_000
    ) -> None:
        """Fit the n-grams of both corpora. Raises `ToEditError` for a corpus without any word."""
        self.n, self.buckets = n, buckets
        p, q = (self._shares(name, texts) for name, texts in (("target", target), ("raw", raw)))
        self.log_ratio = np.log(p + _LEAST) - np.log(q + _LEAST)

    def _shares(self, name: str, texts: Iterable[str]) -> NDArray[np.float64]:
        counts = hashed_ngrams(texts, self.n, self.buckets)
        if not counts.any():
            raise ToEditError(f"the {name} texts hold no words, so they have no n-grams to compare")
        return counts / counts.sum()

    def log_weights(self, texts: Iterable[str]) -> NDArray[np.float64]:
        """Float64 [len(texts)]: the log importance weights, sums of `log_ratio` over a text's n-grams."""
        texts = list(texts)
        weights = np.zeros(len(texts))
        for found in iterate_grams(texts, self.n):
            ratios = self.log_ratio[hash_buckets(found.grams, self.buckets)][found.ids]
            weights += np.bincount(found.text, weights=ratios, minlength=len(texts))
        return weights

    def select(
        self,
        texts: Sequence[str],
        k: int,
        *,
        min_words: int = 100,
        seed: int = 0,
        noise: ArrayLike | None = None,
    ) -> NDArray[np.int64]:
        """Int64 [k], rising: the texts drawn, without replacement, with probabilities as their weights.

        Texts of fewer than `min_words` words (data-selection's default) are never drawn. The draw takes the k
        largest log weights plus Gumbel noise: from `seed`, or `noise` for the texts that are long enough.
        Raises `ToEditError` if fewer than k texts are long enough or the noise does not fit them.
        """
        texts = list(texts)
        words = np.zeros(len(texts), dtype=np.int64)
        for found in iterate_grams(texts, 1):
            words += np.bincount(found.text, minlength=len(texts))
        enough = np.flatnonzero(words >= min_words)
        if not 0 <= k <= len(enough):
            raise ToEditError(
                f"{len(enough)} of {len(texts)} texts have at least min_words={min_words} words; "
                f"k={k} cannot be drawn: lower min_words or k"
            )
        if noise is None:
            noise = seeded_generator(seed).gumbel(size=len(enough))
        noise = np.asarray(noise, dtype=np.float64)
        if noise.shape != enough.shape:
            raise ToEditError(f"noise has the shape {noise.shape}; {len(enough)} texts are long enough")
        scores = self.log_weights(texts)[enough] + noise
        return np.sort(enough[np.argsort(-scores, kind="stable")[:k]])
