"""Texts as points of a plane, where alike texts lie near each other."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from toedit.errors import MissingExtraError, ToEditError

_WIDTH = 50  # dimensions that t-SNE starts from, as its authors do

Encoder = Callable[[list[str]], Any]


def embed_2d(
    texts: Sequence[str], *, encoder: Encoder | None = None, perplexity: float = 30.0, seed: int = 0
) -> NDArray[np.float32]:
    """Float32 [len(texts), 2]: the map of the texts that t-SNE draws; the same seed gives the same map.

    Without an `encoder` texts are compared by TF-IDF and its largest 50 singular vectors, which needs no
    model. With one, `encoder(texts)` gives the vectors [len(texts), width], as
    `SentenceTransformer("all-MiniLM-L6-v2").encode` does. The perplexity is lowered for few texts.
    Raises `ToEditError` without scikit-learn, for fewer than 4 texts, if there are no words, and for a seed
    that is none.
    """
    if not 0 <= seed < 2**32:
        raise ToEditError(f"seed is {seed}; for a map it must be from 0 to 2**32 - 1")
    texts = list(texts)
    if len(texts) < 4:
        raise ToEditError(f"a map needs at least 4 texts, not {len(texts)}")
    try:
        from sklearn.manifold import TSNE
    except ImportError as error:
        raise MissingExtraError(
            "a map of texts needs scikit-learn: pip install 'toedit[analysis]'"
        ) from error

    vectors = np.asarray((encoder or _term_vectors)(texts), dtype=np.float32)
    if len(vectors) != len(texts) or vectors.ndim != 2:
        raise ToEditError(f"the encoder gave {vectors.shape} for {len(texts)} texts, not [texts, width]")
    # The usual limit: each point needs three times as many others as the neighbours that it looks at.
    few = (len(texts) - 1) / 3
    tsne = TSNE(perplexity=min(perplexity, few), init="random", random_state=seed)
    return np.asarray(tsne.fit_transform(vectors), dtype=np.float32)


def _term_vectors(texts: list[str]) -> NDArray[np.float32]:
    from sklearn.decomposition import TruncatedSVD
    from sklearn.feature_extraction.text import TfidfVectorizer

    try:
        terms = TfidfVectorizer(sublinear_tf=True, token_pattern=r"(?u)\w+").fit_transform(texts)
    except ValueError as error:
        raise ToEditError("the texts hold no words to compare them by") from error
    if terms.shape[1] <= _WIDTH:
        return terms.toarray()
    return TruncatedSVD(min(_WIDTH, len(texts) - 1), random_state=0).fit_transform(terms)
