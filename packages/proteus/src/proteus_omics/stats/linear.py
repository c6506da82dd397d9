"""Least squares for every protein at once, each over the samples where it was measured (section 2.6).

The design is orthonormalised once, X = Q R. A set of proteins that lack the same samples shares one p x p
matrix N = Q_m' Q_m, the identity where nothing is missing; all of them come from one matrix product.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy.linalg import solve_triangular

from proteus_omics.errors import DataError, DesignError, MetadataError
from proteus_omics.stats.ebayes import Diagnostics, ModeratedFit, diagnose, moderate

Floats = NDArray[np.float64]

RANK_TOLERANCE = 1e-7  # of a singular value of Q_m, which are at most 1; R's `lm.fit` has the same
WELL_CONDITIONED = 1e-6  # a smallest eigenvalue of N below this one is looked at again, by the SVD of Q_m
SVD_CHUNK = 1_000_000  # values of Q_m that are held at once


@dataclass(frozen=True)
class LinearFit:
    """The fit of G proteins to a design with n samples and p terms."""

    proteins: pd.Index
    terms: tuple[str, ...]
    ave_expr: Floats
    """G: mean over the samples where the protein was measured, NaN where there are none."""
    n_valid: NDArray[np.int64]
    """G: how many samples those are."""
    df_residual: Floats
    """G: d_g = |m| - rank(X_m)."""
    sigma2: Floats
    """G: s_g^2, NaN where d_g = 0."""
    _beta: Floats  # G x p, in the basis Q; the shortest solution where the design is not of full rank
    _pattern: NDArray[np.int64]  # G: which set of measured samples
    _inverse: Floats  # patterns x p x p: pseudo-inverse of N
    _row_space: Floats  # patterns x p x p: projector on the rows of Q_m
    _r: Floats  # p x p

    @cached_property
    def coefficients(self) -> pd.DataFrame:
        """Proteins x terms, NaN where a term cannot be estimated."""
        identity = {term: {term: 1.0} for term in self.terms}
        return pd.DataFrame(self.contrasts(identity).estimate, self.proteins, list(self.terms))

    def contrasts(self, contrasts: Mapping[str, Mapping[str, float]]) -> ContrastFit:
        """Combinations of terms, `{"B_vs_A": {"B": 1, "A": -1}}`: l_g = c'b_g and u_g = c'(X_m'X_m)^- c.

        NaN, never 0, where c is not in the row space of X_m: what was not measured is not estimated.
        Raises `DesignError` for an unknown term, no contrast, or one without a weight.
        """
        if not contrasts:
            raise DesignError("there is no contrast to estimate")
        weights = np.zeros((len(self.terms), len(contrasts)))
        for column, (name, terms) in enumerate(contrasts.items()):
            for term, weight in terms.items():
                if term not in self.terms:
                    raise DesignError(
                        f"contrast {name!r}: the design has no term {term!r}; it has {', '.join(self.terms)}"
                    )
                weights[self.terms.index(term), column] = weight
            if not np.any(weights[:, column]) or not np.all(np.isfinite(weights[:, column])):
                raise DesignError(f"contrast {name!r} needs finite weights that are not all 0")
        c = solve_triangular(self._r, weights, trans="T")
        spread = self._inverse @ c  # patterns x p x k
        u = np.einsum("pk,gpk->gk", c, spread)
        outside = np.linalg.norm(c - self._row_space @ c, axis=1) > 1e-6 * np.linalg.norm(c, axis=0)
        u[outside] = np.nan
        estimate = self._beta @ c
        estimate[outside[self._pattern]] = np.nan
        return ContrastFit(self, tuple(contrasts), estimate, np.sqrt(u)[self._pattern], c)


@dataclass(frozen=True)
class ContrastFit:
    """k contrasts of a fit, before the proteins lend each other strength."""

    fit: LinearFit
    names: tuple[str, ...]
    estimate: Floats
    """G x k: l_g; log2 fold changes where Y is on that scale."""
    stdev_unscaled: Floats
    """G x k: sqrt(u_g), the standard error in units of sigma."""
    _weights: Floats  # p x k, in the basis Q

    def ebayes(self, trend: bool = False, robust: bool = False, legacy: bool | None = None) -> ModeratedFit:
        """Moderated t, p, B and intervals: Smyth 2004; `trend` lets the prior follow the mean intensity.

        `robust` keeps proteins of outlying variance from the prior (Phipson et al. 2016). `legacy=True` is
        the prior of limma before 3.61, `False` the newer one, which weighs proteins by their residual degrees
        of freedom; `None` takes the newer one where these differ and neither `trend` nor `robust` is set.
        Raises `NotImplementedError` for `legacy=False` with trend or robust, `NoReplicatesError` where no
        protein has a residual degree of freedom.
        """
        return moderate(self, trend=trend, robust=robust, legacy=legacy)

    def diagnose(self) -> Diagnostics:
        """Which settings of `ebayes` the residual variances ask for, whatever the estimates (section 2.3)."""
        return diagnose(self)

    def correlation(self, observed: bool = True) -> Floats:
        """Correlations of the estimates: a k x k matrix a protein, or one of the full design."""
        if not observed:
            return _correlation((self._weights.T @ self._weights)[None])[0]
        covariance = np.einsum("pk,gpq,ql->gkl", self._weights, self.fit._inverse, self._weights)
        return _correlation(covariance)[self.fit._pattern]


def lm_fit(Y: pd.DataFrame | ArrayLike, X: pd.DataFrame | ArrayLike) -> LinearFit:
    """Fit every column of Y (n samples x G proteins, float64, NaN = missing) to the design X (n x p).

    Columns of X are the terms of contrasts ("x1", "x2", ... of an array). Values should be logarithms.
    Raises `MetadataError` where the samples differ, `DataError` for infinite values, `DesignError` for a
    design with missing values, more terms than samples, or terms that depend on each other.
    """
    y, proteins = _matrix(Y, "y")
    x, terms = _matrix(X, "x")
    if isinstance(Y, pd.DataFrame) and isinstance(X, pd.DataFrame):
        _same_samples(Y.index, X.index)
    if len(y) != len(x):
        raise MetadataError(f"Y has {len(y)} samples, the design has {len(x)}")
    if np.isinf(y).any():
        raise DataError(f"{int(np.isinf(y).sum())} values are infinite; a logarithm of 0 is a missing value")
    q, r = _orthonormal(x, [str(term) for term in terms])
    measured = ~np.isnan(y)
    first, pattern = _patterns(measured)
    inverse, row_space, rank = _normal_matrices(q, measured[:, first])

    n_valid = measured.sum(axis=0)
    residual = np.where(measured, y, 0.0)
    with np.errstate(invalid="ignore"):
        ave_expr = residual.sum(axis=0) / np.where(n_valid, n_valid, np.nan)
    beta = np.zeros((y.shape[1], q.shape[1]))
    complete = len(first) == 1 and bool(measured.all())
    for _ in range(2):  # the second round takes the digits back that large means cost
        step = residual.T @ q
        if not complete:
            step = np.matmul(inverse[pattern], step[:, :, None])[:, :, 0]
        beta += step
        fitted = q @ step.T
        fitted *= measured
        residual -= fitted
    df = (n_valid - rank[pattern]).astype(float)
    sigma2 = np.einsum("ng,ng->g", residual, residual) / np.where(df > 0, df, np.nan)
    return LinearFit(
        proteins, tuple(str(t) for t in terms), ave_expr, n_valid, df, sigma2, beta, pattern, inverse,
        row_space, r,
    )  # fmt: skip


def _matrix(values: pd.DataFrame | ArrayLike, name: str) -> tuple[Floats, pd.Index]:
    """The values as float64 with the names of the columns."""
    try:
        array = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise DataError(f"{name.upper()} has values that are not numbers: {error}") from error
    if array.ndim != 2:
        raise DataError(f"{name.upper()} has {array.ndim} dimensions; it needs samples x columns")
    if isinstance(values, pd.DataFrame):
        return array, values.columns
    return array, pd.Index([f"{name}{column + 1}" for column in range(array.shape[1])])


def _same_samples(of_y: pd.Index, of_x: pd.Index) -> None:
    numbered = any(isinstance(index, pd.RangeIndex) for index in (of_y, of_x))
    if not numbered and not of_y.equals(of_x):
        apart = [f"{a!r} and {b!r}" for a, b in zip(of_y, of_x, strict=False) if a != b]
        first = f"; the first that differ are {apart[0]}" if apart else ""
        raise MetadataError(f"Y and the design need the same samples in the same order{first}")


def _orthonormal(x: Floats, terms: Sequence[str]) -> tuple[Floats, Floats]:
    """Q and R of the design; an error that names the terms which depend on the ones before."""
    if not np.isfinite(x).all():
        bad = [term for term, column in zip(terms, x.T, strict=True) if not np.isfinite(column).all()]
        raise DesignError(f"the design has missing or infinite values in {', '.join(bad)}")
    if len(set(terms)) < len(terms):
        raise DesignError("two terms of the design have the same name")
    if not 0 < x.shape[1] <= len(x):
        raise DesignError(f"the design has {x.shape[1]} terms for {len(x)} samples")
    q, r = np.linalg.qr(x)
    scale = np.linalg.norm(x, axis=0)
    bad = [term for term, size, left in zip(terms, scale, np.abs(np.diag(r)), strict=True)
           if left <= RANK_TOLERANCE * size]  # fmt: skip
    if bad:
        raise DesignError(f"terms of the design that follow from those before them: {', '.join(bad)}")
    return q, r


def _patterns(measured: NDArray[np.bool_]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Columns that are the first of their kind, and which kind each column is."""
    packed = np.ascontiguousarray(np.packbits(measured, axis=0).T)
    keys = packed.view(np.dtype((np.void, packed.shape[1]))).ravel()
    _, first, pattern = np.unique(keys, return_index=True, return_inverse=True)
    return first, pattern


def _normal_matrices(q: Floats, measured: NDArray[np.bool_]) -> tuple[Floats, Floats, NDArray[np.int64]]:
    """Of each pattern (a column of `measured`) the pseudo-inverse of N, the row projector and the rank."""
    p = q.shape[1]
    upper = np.triu_indices(p)
    normal = np.empty((measured.shape[1], p, p))
    products = measured.T.astype(float) @ (q[:, upper[0]] * q[:, upper[1]])
    normal[:, upper[0], upper[1]] = products
    normal[:, upper[1], upper[0]] = products
    full = np.linalg.eigvalsh(normal)[:, 0] > WELL_CONDITIONED
    inverse, row_space = np.empty_like(normal), np.empty_like(normal)
    inverse[full] = np.linalg.inv(normal[full])
    row_space[:] = np.eye(p)
    rank = np.full(len(normal), p)
    singular = np.flatnonzero(~full)
    size = max(1, SVD_CHUNK // q.size)
    for chunk in (singular[at : at + size] for at in range(0, len(singular), size)):
        _, values, rows = np.linalg.svd(measured.T[chunk, :, None] * q, full_matrices=False)
        keep = values > RANK_TOLERANCE
        weight = np.where(keep, 1 / np.where(keep, values, 1.0) ** 2, 0.0)
        columns = rows.transpose(0, 2, 1)
        inverse[chunk] = (columns * weight[:, None]) @ rows
        row_space[chunk] = (columns * keep[:, None]) @ rows
        rank[chunk] = keep.sum(axis=1)
    return inverse, row_space, rank


def _correlation(covariance: Floats) -> Floats:
    sd = np.sqrt(np.einsum("gkk->gk", covariance))
    with np.errstate(invalid="ignore", divide="ignore"):
        return covariance / (sd[:, :, None] * sd[:, None, :])
