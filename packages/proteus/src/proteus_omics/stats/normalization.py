"""Make samples comparable: the differences between them that no protein explains are taken out.

Values are log2 intensities, samples x proteins, NaN = missing and left missing.
"""

from __future__ import annotations

import warnings
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import rankdata

from proteus_omics.errors import DataError, DesignError

Floats = NDArray[np.float64]
Method = Literal["none", "median", "quantile", "mad"]


def normalize(X: ArrayLike, method: Method = "median") -> Floats:
    """Normalised copy of X (n samples x G proteins).

    `median` moves each sample to the mean of the medians; `mad` also scales it to the mean of the median
    absolute deviations; `quantile` gives all samples one distribution (as limma does, also with missing
    values); `none` copies. Raises `DataError` for an unknown method, a sample without values and, with mad,
    a sample in which most values are the same.
    """
    x = np.array(X, dtype=np.float64)
    empty = np.isnan(x).all(axis=1)
    if empty.any():
        raise DataError(f"{int(empty.sum())} samples have no value at all; leave them out first")
    if method == "none":
        return x
    if method == "quantile":
        return _quantile(x)
    if method not in ("median", "mad"):
        raise DataError(f"there is no normalisation {method!r}; there are none, median, quantile, mad")
    median = np.nanmedian(x, axis=1, keepdims=True)
    centred = x - median
    if method == "mad":
        spread = np.nanmedian(np.abs(centred), axis=1, keepdims=True)
        if (spread == 0).any():
            raise DataError(f"{int((spread == 0).sum())} samples have a median absolute deviation of 0")
        centred *= spread.mean() / spread
    return centred + median.mean()


def ratio_to_reference(X: ArrayLike, is_reference: ArrayLike, batch: ArrayLike | None = None) -> Floats:
    """Log2 ratios to the mean of the reference samples (pool channels), within each batch (plex) where given.

    X is n x G, `is_reference` n, true or false. NaN where the reference was not measured. Raises
    `DesignError` for a batch without a reference.
    """
    x, pool = np.asarray(X, dtype=np.float64), np.asarray(is_reference, dtype=bool)
    labels = np.zeros(len(x), dtype=int) if batch is None else np.asarray(batch)
    ratios = np.empty_like(x)
    for level in dict.fromkeys(labels.tolist()):
        inside = labels == level
        if not (inside & pool).any():
            raise DesignError(f"the batch {level!r} has no reference sample")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # of proteins that no reference has: NaN is meant
            ratios[inside] = x[inside] - np.nanmean(x[inside & pool], axis=0)
    return ratios


def _quantile(x: Floats) -> Floats:
    """limma's `normalizeQuantiles`: sorted values interpolated to G places, their means, read off by rank."""
    places = np.linspace(0, 1, x.shape[1])
    measured = [np.sort(row[~np.isnan(row)]) for row in x]
    mean = np.mean([np.interp(places, np.linspace(0, 1, len(row)), row) for row in measured], axis=0)
    result = np.full_like(x, np.nan)
    for row, values in zip(result, x, strict=True):
        known = ~np.isnan(values)
        ranks = rankdata(values[known]) - 1
        row[known] = np.interp(ranks / max(len(ranks) - 1, 1), places, mean)
    return result
