"""Missing values: which proteins have enough, imputation, and tests of detection (section 2.5).

Values are log2 intensities, samples x proteins, NaN = missing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy.special import chdtrc, xlogy
from scipy.stats import fisher_exact

from proteus_omics.errors import DataError, DesignError
from proteus_omics.stats.multiple import bh

Floats = NDArray[np.float64]
Method = Literal["minprob", "downshift", "knn", "mixed"]

NEIGHBOURS = 10


@dataclass(frozen=True)
class Imputed:
    """A table without missing values, and which cells were made up."""

    values: Floats
    mask: NDArray[np.bool_]


def enough_valid(
    X: ArrayLike, groups: ArrayLike | None = None, min_frac: float = 0.5, rule: Literal["any", "all"] = "any"
) -> NDArray[np.bool_]:
    """G: proteins with at least `min_frac` of their values in any or all of the groups (default: one)."""
    measured = ~np.isnan(np.asarray(X, dtype=np.float64))
    if not 0 <= min_frac <= 1:
        raise DataError(f"min_frac = {min_frac!r} is a share, from 0 to 1")
    if rule not in ("any", "all"):
        raise DataError(f"rule = {rule!r} is 'any' or 'all'")
    labels = np.zeros(len(measured), dtype=int) if groups is None else _labels(groups, len(measured))
    shares = np.stack([measured[labels == level].mean(axis=0) for level in np.unique(labels)])
    enough = shares >= min_frac - 1e-12
    return np.any(enough, axis=0) if rule == "any" else np.all(enough, axis=0)


def impute(
    X: ArrayLike, method: Method = "minprob", *, groups: ArrayLike | None = None, seed: int = 0
) -> Imputed:
    """Fill the missing values of X (n samples x G proteins); the same seed gives the same values.

    `minprob`: left-censored, N(1 % quantile of the sample, median sd of the proteins). `downshift`: N(mean -
    1.8 sd, 0.3 sd) of the sample. `knn`: from the ten nearest proteins. `mixed`: proteins that some group
    lacks altogether by minprob (their absence says something), the others by knn; needs `groups`.
    Raises `DataError` for an unknown method, a sample without a value, and, with knn, a protein without one.
    """
    x = np.array(X, dtype=np.float64)
    mask = np.isnan(x)
    if mask.all(axis=1).any():
        raise DataError(f"{int(mask.all(axis=1).sum())} samples have no value at all; leave them out first")
    rng = np.random.default_rng(seed)
    if method == "minprob":
        filled = _minprob(x, rng)
    elif method == "downshift":
        filled = _draw(x, np.nanmean(x, axis=1) - 1.8 * _sd(x, 1), 0.3 * _sd(x, 1), rng)
    elif method == "knn":
        filled = _knn(x)
    elif method == "mixed":
        if groups is None:
            raise DataError("method 'mixed' needs the groups of the samples")
        labels = _labels(groups, len(x))
        lacking = np.any([mask[labels == level].all(axis=0) for level in np.unique(labels)], axis=0)
        filled = np.where(lacking, _minprob(x, rng), x)
        filled[:, ~lacking] = _knn(filled)[:, ~lacking]
    else:
        raise DataError(f"there is no imputation {method!r}; there are minprob, downshift, knn, mixed")
    return Imputed(filled, mask)


def detection_test(
    detected: pd.DataFrame | ArrayLike,
    groups: ArrayLike,
    level: str | None = None,
    reference: str | None = None,
) -> pd.DataFrame:
    """Is a protein detected more often in one group? A row a column of `detected` (n x G, true or false).

    `level` against `reference`: Fisher's exact test, two-sided, `protein, contrast, n_alt, detected_alt,
    n_ref, detected_ref, difference, p_value, q_value`; `difference` is of the shares detected. Without them:
    the likelihood ratio of a logistic model with a term a group, `protein, stat, df, p_value, q_value`.
    A protein detected in all or in none of these samples is not tested: NaN.
    Raises `DesignError` for a group that is not there.
    """
    seen = np.asarray(detected, dtype=bool)
    names = detected.columns if isinstance(detected, pd.DataFrame) else pd.Index(range(seen.shape[1]))
    labels = _labels(groups, len(seen))
    levels = list(dict.fromkeys(labels))
    if level is None and reference is None:
        return _detection_ratio(seen, labels, names)
    for name in (level, reference):
        if name not in levels:
            raise DesignError(f"there is no group {name!r}; there are {', '.join(map(str, levels))}")
    alt, ref = seen[labels == level], seen[labels == reference]
    a, b = alt.sum(axis=0), ref.sum(axis=0)
    p = np.full(len(a), np.nan)
    for one, other in {*zip(a, b, strict=True)}:
        if 0 < one + other < len(alt) + len(ref):
            counts = [[one, len(alt) - one], [other, len(ref) - other]]
            p[(a == one) & (b == other)] = fisher_exact(counts).pvalue
    return pd.DataFrame(
        {
            "protein": names,
            "contrast": f"{level}_vs_{reference}",
            "n_alt": len(alt),
            "detected_alt": a,
            "n_ref": len(ref),
            "detected_ref": b,
            "difference": a / len(alt) - b / len(ref),
            "p_value": p,
            "q_value": bh(p),
        }
    )


def _detection_ratio(seen: NDArray[np.bool_], labels: NDArray, names: pd.Index) -> pd.DataFrame:
    """2 (ln L(groups) - ln L(one share)): the model with a term a group fits each group's share."""

    def log_likelihood(of: NDArray[np.bool_]) -> Floats:
        k, n = of.sum(axis=0), len(of)
        return xlogy(k, k / n) + xlogy(n - k, 1 - k / n)

    levels = np.unique(labels)
    stat = 2 * (sum(log_likelihood(seen[labels == level]) for level in levels) - log_likelihood(seen))
    stat = np.where(seen.all(axis=0) | ~seen.any(axis=0), np.nan, np.maximum(stat, 0))
    df = len(levels) - 1
    p = chdtrc(df, stat)
    return pd.DataFrame({"protein": names, "stat": stat, "df": df, "p_value": p, "q_value": bh(p)})


def _labels(groups: ArrayLike, n: int) -> NDArray:
    labels = np.asarray(groups).astype(str)
    if labels.shape != (n,):
        raise DesignError(f"there are {n} samples and {labels.size} group labels")
    return labels


def _sd(x: Floats, axis: int) -> Floats:
    """Standard deviation of the measured values; 0 where there is one."""
    count = (~np.isnan(x)).sum(axis=axis, keepdims=True)
    mean = np.nansum(x, axis=axis, keepdims=True) / np.maximum(count, 1)
    squares = np.nansum((x - mean) ** 2, axis=axis, keepdims=True)
    return np.sqrt(squares / np.maximum(count - 1, 1)).squeeze(axis)


def _minprob(x: Floats, rng: np.random.Generator) -> Floats:
    often = (~np.isnan(x)).sum(axis=0) >= max(2, 0.5 * len(x))
    if not often.any():
        raise DataError("no protein is measured in half of the samples, so the noise cannot be told")
    sd = np.median(_sd(x[:, often], 0))
    return _draw(x, np.nanquantile(x, 0.01, axis=1), np.full(len(x), sd), rng)


def _draw(x: Floats, mean: Floats, sd: Floats, rng: np.random.Generator) -> Floats:
    drawn = rng.normal(mean[:, None], sd[:, None], x.shape)
    return np.where(np.isnan(x), drawn, x)


def _knn(x: Floats) -> Floats:
    from sklearn.impute import KNNImputer

    empty = np.isnan(x).all(axis=0)
    if empty.any():
        raise DataError(f"{int(empty.sum())} proteins have no value at all; filter them out before knn")
    return KNNImputer(n_neighbors=NEIGHBOURS).fit_transform(x.T).T
