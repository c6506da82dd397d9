"""How wide the perplexities of documents spread: human text has a long tail that synthetic text lacks."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from toedit.errors import ToEditError

Array = NDArray[np.float64]


def ppl_histogram(*corpora: ArrayLike, bins: int = 40) -> tuple[Array, Array]:
    """Edges float64 [bins + 1] and shares [len(corpora), bins] of documents by their perplexity.

    The edges are the same for all corpora and equally spaced in log, from the least to the largest
    perplexity; each row of shares adds to 1. Raises `ToEditError` for an empty corpus and for perplexities
    that are not finite or below 1 (documents without a scored token have none: leave them out).
    """
    checked = [_checked(corpus) for corpus in corpora]
    least, most = (float(limit([limit(corpus) for corpus in checked])) for limit in (np.min, np.max))
    edges = np.geomspace(least, max(most, least * 1.001), bins + 1)
    edges[-1] = max(edges[-1], most)  # rounding must not lose the largest
    edges[0] = least
    counts = [np.histogram(corpus, edges)[0] for corpus in checked]
    return edges, np.array([count / count.sum() for count in counts])


def coverage(human: ArrayLike, synth: ArrayLike) -> float:
    """The share of the human range that lies between the synthetic 1 % and 99 % quantiles.

    Of perplexities, one a document; the range is that from the least to the largest. Raises as
    `ppl_histogram`, and for human perplexities that are all the same.
    """
    human, synth = _checked(human), _checked(synth)
    low, high = human.min(), human.max()
    if low == high:
        raise ToEditError("all human perplexities are the same: they have no range to cover")
    first, last = np.quantile(synth, [0.01, 0.99])
    return float(max(0.0, min(high, last) - max(low, first)) / (high - low))


def _checked(perplexities: ArrayLike) -> Array:
    values = np.asarray(perplexities, dtype=np.float64).reshape(-1)
    if not values.size:
        raise ToEditError("a corpus without perplexities: give one for each document")
    bad = np.flatnonzero(~(np.isfinite(values) & (values >= 1)))
    if bad.size:
        raise ToEditError(
            f"perplexity {bad[0]} (from 0) is {values[bad[0]]}; perplexities are finite and at least 1: "
            "leave out documents that have none"
        )
    return values
