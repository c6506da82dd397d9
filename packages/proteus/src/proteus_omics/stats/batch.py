"""Take a batch effect out for pictures and modules; a test keeps the batch in its design instead."""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy.linalg import solve_triangular

from proteus_omics.errors import DesignError
from proteus_omics.stats.linear import _outside, lm_fit

Floats = NDArray[np.float64]


def remove_batch_effect(
    X: pd.DataFrame | ArrayLike, batch: ArrayLike, design: pd.DataFrame | None = None
) -> Floats:
    """X (n samples x G proteins, NaN = missing) less the batch's part of a linear model, protein by protein.

    `design` (n x p, default an intercept) holds the effects that are to stay. Each protein keeps its mean.
    Values become NaN where the samples with that protein cannot tell the batch's effect from the design's.
    Raises `DesignError` where even all samples cannot.
    """
    x = np.asarray(X, dtype=np.float64)
    labels = pd.Series(np.asarray(batch)).astype(str)
    if len(labels) != len(x):
        raise DesignError(f"there are {len(x)} samples and {len(labels)} batch labels")
    dummies = pd.get_dummies(labels).astype(np.float64)
    kept = pd.DataFrame({"intercept": np.ones(len(x))}) if design is None else design.reset_index(drop=True)
    added = dummies.iloc[:, 1:].add_prefix("batch=")
    if added.shape[1] == 0:
        return x.copy()
    fit = lm_fit(x, pd.concat([kept, added], axis=1))
    terms = len(fit.terms)
    levels = np.zeros((dummies.shape[1], terms))  # L x p: the batch's terms of each batch
    levels[1:, terms - added.shape[1] :] = np.eye(added.shape[1])
    measured = (~np.isnan(x)).astype(float)
    with np.errstate(invalid="ignore"):
        shares = (measured.T @ dummies.to_numpy()) / measured.sum(axis=0)[:, None]  # G x L
    away = levels[None] - (shares @ levels)[:, None]  # G x L x p: each batch from the protein's mean
    effect = np.empty(away.shape[:2])
    for proteins, pattern, _, row_space in fit._patterns.solved():
        weights = away[proteins].reshape(-1, terms).T  # those of unmeasured proteins are NaN
        c = solve_triangular(fit._r, weights, trans="T", check_finite=False).T.reshape(away[proteins].shape)
        part = np.einsum("glp,gp->gl", c, fit._beta[proteins])
        part[_outside(c.transpose(0, 2, 1), row_space[pattern])] = np.nan
        effect[proteins] = part
    return x - effect.T[dummies.to_numpy().argmax(axis=1)]
