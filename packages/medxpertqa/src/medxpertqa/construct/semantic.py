"""Pairs of texts whose embeddings are outliers of similarity: cosine of all pairs, fence Q3 + k·IQR.

The paper embeds with MedCPT's query encoder. It does not state k nor what the quartiles are taken of. With
TF-IDF over all pairs k = 1.5 flags 21,371 of MedQA's 809,628 pairs; over each text's nearest-neighbour
similarity k = 3 flags 12 texts, the scale of the paper's step: that is the default (`scope="nearest"`).
Short texts can put the fence above 1, where it flags nothing: their copies are the edit filter's to find.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np

from medxpertqa.construct.edit_pairs import SimilarPair
from medxpertqa.errors import DataError, MissingExtraError

MEDCPT = "ncbi/MedCPT-Query-Encoder"
_BLOCK = 512
_BINS = 2**20


class Embedder(Protocol):
    """Texts to one row each: a float array, or a scipy sparse matrix, of shape (texts, dimensions)."""

    def __call__(self, texts: Sequence[str]) -> Any:
        """Embed."""


@dataclass(frozen=True)
class TfidfEmbedder:
    """Words weighted by TF-IDF with 1 + log(count): offline, with no model."""

    def __call__(self, texts: Sequence[str]) -> Any:
        """Return a sparse matrix (texts, words) with rows of length 1."""
        try:
            from sklearn.feature_extraction.text import TfidfVectorizer
        except ImportError:
            raise MissingExtraError(
                "the TF-IDF embedding needs an optional extra: pip install 'medxpertqa[embed]'"
            ) from None
        try:
            return TfidfVectorizer(sublinear_tf=True, dtype=np.float32).fit_transform(texts)
        except ValueError:
            raise DataError("the TF-IDF embedding found no words in the texts") from None


@dataclass(frozen=True)
class TransformersEmbedder:
    """The vector of the first token (CLS) in the last layer of a Hugging Face encoder; MedCPT by default.

    The model card truncates at 64 tokens; vignettes have about 250, so `max_length` is 512.
    """

    model: str = MEDCPT
    max_length: int = 512
    batch_size: int = 16
    device: str = "cpu"

    def __call__(self, texts: Sequence[str]) -> np.ndarray:
        """Return float32 (texts, dimensions)."""
        try:
            import torch
            from transformers import AutoModel, AutoTokenizer
        except ImportError:
            raise MissingExtraError(
                f"the embedding by {self.model} needs an optional extra: pip install 'medxpertqa[embed]'"
            ) from None
        tokenizer = AutoTokenizer.from_pretrained(self.model)
        model = AutoModel.from_pretrained(self.model).to(self.device).eval()
        order = sorted(range(len(texts)), key=lambda i: len(texts[i]))
        rows: list[Any] = [None] * len(texts)
        for start in range(0, len(texts), self.batch_size):
            batch = order[start : start + self.batch_size]
            inputs = tokenizer(
                [texts[i] for i in batch],
                truncation=True,
                padding=True,
                max_length=self.max_length,
                return_tensors="pt",
            )
            with torch.inference_mode():
                vectors = model(**inputs.to(self.device)).last_hidden_state[:, 0].float().cpu().numpy()
            for i, vector in zip(batch, vectors, strict=True):
                rows[i] = vector
        return np.stack(rows)


def iqr_fence(values: Any, k: float = 3.0) -> float:
    """Return Q3 + k·(Q3 - Q1) of the values, quartiles by linear interpolation."""
    values = np.asarray(values, dtype=float)
    if not values.size or not np.isfinite(values).all():
        raise DataError("the fence needs at least one value, all of them finite")
    q1, q3 = np.percentile(values, [25, 75])
    return float(q3 + k * (q3 - q1))


def iqr_outliers(values: Any, k: float = 3.0) -> np.ndarray:
    """Return the positions of the values above the fence Q3 + k·IQR, int64, rising."""
    return np.flatnonzero(np.asarray(values, dtype=float) > iqr_fence(values, k))


@dataclass(frozen=True)
class SemanticSimilarity:
    """What was found: the pairs above the fence, the fence, each text's highest similarity to another."""

    pairs: list[SimilarPair]
    fence: float
    nearest: np.ndarray


def semantic_similar_pairs(
    texts: Any,
    embedder: Embedder | None = None,
    scope: Literal["nearest", "pairs"] = "nearest",
    k: float = 3.0,
) -> list[SimilarPair]:
    """Return the pairs whose cosine is above the fence, sorted by position.

    `texts` are strings, embedded by `embedder` (TF-IDF by default), or the vectors (n, d) themselves. The
    fence is of the n nearest-neighbour similarities, or of all n(n-1)/2 similarities.

    Raises:
        DataError: an unknown scope; a vector that is not finite.
    """
    return semantic_similarity(texts, embedder, scope, k).pairs


def semantic_similarity(
    texts: Any,
    embedder: Embedder | None = None,
    scope: Literal["nearest", "pairs"] = "nearest",
    k: float = 3.0,
) -> SemanticSimilarity:
    """As `semantic_similar_pairs`, with the fence and the nearest similarities. O(n²d) time, O(n) memory."""
    if scope not in ("nearest", "pairs"):
        raise DataError(f"scope {scope!r}: must be nearest or pairs")
    if isinstance(texts, Sequence):
        texts = (embedder or TfidfEmbedder())(texts) if len(texts) > 1 else np.ones((len(texts), 1))
    vectors = _unit(texts)
    if vectors.shape[0] < 2:
        return SemanticSimilarity([], float("inf"), np.full(vectors.shape[0], -1.0))
    nearest = np.full(vectors.shape[0], -np.inf, dtype=np.float32)
    histogram = np.zeros(_BINS, dtype=np.int64)
    for start, block in _blocks(vectors):
        height, width = block.shape
        own = np.arange(height)
        block[own, own] = -np.inf
        nearest[start : start + height] = np.maximum(nearest[start : start + height], block.max(axis=1))
        nearest[start:] = np.maximum(nearest[start:], block.max(axis=0))
        if scope == "pairs":
            upper = block[np.arange(width) > own[:, None]]
            histogram += np.bincount(_bin(upper), minlength=_BINS)
    fence = iqr_fence(nearest, k) if scope == "nearest" else _histogram_fence(histogram, k)
    return SemanticSimilarity(_above(vectors, fence, nearest), fence, nearest)


def _unit(vectors: Any) -> Any:
    """Rows of length 1, float32; a row of zeros stays (similar to nothing)."""
    if hasattr(vectors, "tocsr"):
        vectors = vectors.tocsr().astype(np.float32)
        length = np.sqrt(np.asarray(vectors.multiply(vectors).sum(axis=1)).ravel())
    else:
        vectors = np.asarray(vectors, dtype=np.float32)
        if vectors.ndim != 2:
            raise DataError(f"embeddings have shape {vectors.shape}; needed: (texts, dimensions)")
        length = np.linalg.norm(vectors, axis=1)
    if not np.isfinite(length).all():
        raise DataError(f"the embedding of text {int(np.flatnonzero(~np.isfinite(length))[0])} is not finite")
    scale = (1 / np.where(length > 0, length, 1)).astype(np.float32)[:, None]
    return vectors.multiply(scale).tocsr() if hasattr(vectors, "tocsr") else vectors * scale


def _blocks(vectors: Any) -> Iterator[tuple[int, np.ndarray]]:
    """Yield start and the similarities of 512 texts to themselves and all later ones."""
    for start in range(0, vectors.shape[0], _BLOCK):
        yield start, _dense(vectors[start : start + _BLOCK] @ vectors[start:].T)


def _dense(product: Any) -> np.ndarray:
    return np.asarray(product.todense() if hasattr(product, "todense") else product)


def _above(vectors: Any, fence: float, nearest: np.ndarray) -> list[SimilarPair]:
    """Both texts of a pair above the fence have a nearest similarity above it: only those are compared."""
    flagged = np.flatnonzero(nearest > fence)
    chosen = vectors[flagged]
    found: list[SimilarPair] = []
    for start, block in _blocks(chosen):
        first, second = np.nonzero(np.triu(block > fence, 1))
        found += [
            SimilarPair(int(flagged[start + i]), int(flagged[start + j]), float(block[i, j]))
            for i, j in zip(first, second, strict=True)
        ]
    return found


def _bin(similarity: np.ndarray) -> np.ndarray:
    return np.clip((similarity + 1) * (_BINS / 2), 0, _BINS - 1).astype(np.int64)


def _histogram_fence(histogram: np.ndarray, k: float) -> float:
    """The fence of counts over [-1, 1]: exact to the width of a bin, 2e-6, whatever the number of pairs."""
    middle = (np.arange(_BINS) + 0.5) * (2 / _BINS) - 1
    share = np.cumsum(histogram) / histogram.sum()
    q1, q3 = (float(middle[np.searchsorted(share, q)]) for q in (0.25, 0.75))
    return q3 + k * (q3 - q1)
