"""Many tests: the false discovery rate of Benjamini and Hochberg."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray


def bh(p: ArrayLike) -> NDArray[np.float64]:
    """Benjamini-Hochberg q-values of one family, in the order given; NaN was not tested and stays NaN."""
    p = np.asarray(p, dtype=np.float64)
    q = np.full(p.shape, np.nan)
    tested = np.flatnonzero(~np.isnan(p))
    if len(tested):
        order = tested[np.argsort(p[tested], kind="stable")[::-1]]
        ranks = np.arange(len(tested), 0, -1)
        q[order] = np.minimum(np.minimum.accumulate(p[order] * len(tested) / ranks), 1.0)
    return q
