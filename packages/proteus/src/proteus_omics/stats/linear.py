"""Least squares for every protein at once, each over the samples where it was measured (section 2.6).

The design is orthonormalised once, X = Q R. A set of proteins that lack the same samples shares one p x p
matrix N = Q_m' Q_m, the identity where nothing is missing; all of them come from one matrix product.
Indicators of many subjects are swept out first, by centring within subjects (Frisch, Waugh and Lovell), so
that p is small.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeAlias

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy.linalg import solve_triangular

from proteus_omics.errors import DataError, DesignError, MetadataError
from proteus_omics.stats.ebayes import Diagnostics, ModeratedFit, diagnose, moderate

Floats = NDArray[np.float64]
Solution: TypeAlias = tuple[NDArray[np.int64], NDArray[np.int64], Floats, Floats]

RANK_TOLERANCE = 1e-7  # of a singular value of Q_m, which are at most 1; R's `lm.fit` has the same
WELL_CONDITIONED = 1e-6  # an eigenvalue of N above this one has its digits
NO_VALUE = 1e-13  # one below this is 0, but for rounding
CHUNK = 1_000_000  # values of all Q_m that are held at once
KEEP = 2_000_000  # values of all N that are kept


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
    _beta: Floats  # G x p, in the basis Q; the shortest solution where Q_m is not of full rank
    _r: Floats  # p x p
    _patterns: _Patterns

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
        estimate = self._beta @ c
        u = np.empty_like(estimate)
        for proteins, pattern, inverse, row_space in self._patterns.solved():
            part = np.einsum("pk,gpk->gk", c, inverse @ c)
            part[_outside(c, row_space)] = np.nan
            u[proteins] = part[pattern]
        estimate[np.isnan(u)] = np.nan
        return ContrastFit(self, tuple(contrasts), estimate, np.sqrt(u), c)


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
        c, patterns = self._weights, self.fit._patterns
        if not observed:
            return _correlation((c.T @ c)[None])[0]
        result = np.empty((len(self.estimate), c.shape[1], c.shape[1]))
        for proteins, pattern, inverse, _ in patterns.solved():
            result[proteins] = _correlation(np.einsum("pk,gpq,ql->gkl", c, inverse, c))[pattern]
        return result


def lm_fit(Y: pd.DataFrame | ArrayLike, X: pd.DataFrame | ArrayLike, absorb: Iterable[str] = ()) -> LinearFit:
    """Fit every column of Y (n samples x G proteins, float64, NaN = missing) to the design X (n x p).

    Columns of X are the terms of contrasts ("x1", "x2", ... of an array). Values should be logarithms.
    `absorb` names terms that are in the model, but of which nothing will be asked: indicators, of which a
    sample has at most one, such as those of the subjects of a paired design. The fit is the same and has no
    coefficients of them; with a hundred subjects and missing values it takes a small part of the time.
    Raises `MetadataError` where the samples differ, `DataError` for infinite values, `DesignError` for a
    design with missing values, more terms than samples, terms that depend on each other, or terms to absorb
    that are no such indicators.
    """
    y, proteins = _matrix(Y, "y")
    x, terms = _matrix(X, "x")
    if isinstance(Y, pd.DataFrame) and isinstance(X, pd.DataFrame):
        _same_samples(Y.index, X.index)
    if len(y) != len(x):
        raise MetadataError(f"Y has {len(y)} samples, the design has {len(x)}")
    if np.isinf(y).any():
        raise DataError(f"{int(np.isinf(y).sum())} values are infinite; a logarithm of 0 is a missing value")
    names = [str(term) for term in terms]
    q, r = orthonormal(x, names)
    units = _Units.of(x, names, list(absorb))
    if units is not None:
        names, x = units.without(names, x)
        q, r = np.linalg.qr(units.centred(x, np.ones_like(x)))
    measured = ~np.isnan(y)
    patterns = _Patterns.of(q, measured, units)
    n_valid = measured.sum(axis=0)
    y = np.where(measured, y, 0.0)
    ave_expr = y.sum(axis=0) / np.where(n_valid, n_valid, np.nan)
    beta = np.zeros((y.shape[1], q.shape[1]))
    squares, rank = np.empty(y.shape[1]), np.zeros(y.shape[1])
    for chosen, pattern, inverse, row_space in patterns.solved():
        residual, known = y[:, chosen], measured[:, chosen]
        for _ in range(2):  # the second round takes the digits back that large means cost
            if units is not None:
                residual = units.centred(residual, known)
            step = np.matmul(inverse[pattern], (residual.T @ q)[:, :, None])[:, :, 0]
            beta[chosen] += step
            residual -= (q @ step.T) * known
        if units is not None:
            residual = units.centred(residual, known)
            rank[chosen] = units.seen(known)
        squares[chosen] = np.einsum("ng,ng->g", residual, residual)
        rank[chosen] += np.rint(np.trace(row_space, axis1=1, axis2=2))[pattern]
    df = n_valid - rank
    sigma2 = squares / np.where(df > 0, df, np.nan)
    return LinearFit(proteins, tuple(names), ave_expr, n_valid, df, sigma2, beta, r, patterns)


@dataclass(frozen=True)
class _Units:
    """The indicators that are absorbed: within each of their S units a protein is centred."""

    columns: NDArray[np.int64]
    member: Floats
    """n x S: 1 where the sample is of the unit; a sample may be of none."""

    @classmethod
    def of(cls, x: Floats, names: Sequence[str], absorb: Sequence[str]) -> _Units | None:
        if not absorb:
            return None
        unknown = [name for name in absorb if name not in names]
        if unknown:
            raise DesignError(f"the design has no term {unknown[0]!r} to absorb; it has {', '.join(names)}")
        columns = np.array([names.index(name) for name in dict.fromkeys(absorb)])
        given = x[:, columns]
        member = (given != 0).astype(float)
        if (member.sum(axis=1) > 1).any() or not np.array_equal(given, member * given.max(axis=0)):
            raise DesignError("terms to absorb are indicators, of which a sample has at most one")
        if len(columns) == len(names):
            raise DesignError("all terms are absorbed: nothing is left to ask")
        return cls(columns, member)

    def without(self, names: Sequence[str], x: Floats) -> tuple[list[str], Floats]:
        kept = np.setdiff1d(np.arange(len(names)), self.columns)
        return [names[at] for at in kept], x[:, kept]

    def centred(self, values: Floats, known: NDArray[Any]) -> Floats:
        """n x g, 0 where not known: less the mean of what is known of its unit."""
        mean = (self.member.T @ (values * known)) / np.maximum(self.member.T @ known, 1)
        return np.asarray((values - self.member @ mean) * known)

    def seen(self, known: NDArray[Any]) -> Floats:
        """g: in how many units something is known, the rank of their indicators."""
        return np.asarray((self.member.T @ known > 0).sum(axis=0), dtype=np.float64)

    def between(self, q: Floats, measured: Floats) -> Floats:
        """P x p x p: what the means of the units make of Q_m' Q_m; `measured` is P x n."""
        sums = np.stack([measured @ (self.member * term[:, None]) for term in q.T], axis=2)
        sums /= np.sqrt(np.maximum(measured @ self.member, 1))[:, :, None]
        return np.asarray(sums.transpose(0, 2, 1) @ sums)


@dataclass(frozen=True)
class _Patterns:
    """The sets of measured samples, and the matrix N of each."""

    q: Floats
    measured: NDArray[np.bool_]
    """n x patterns."""
    proteins: NDArray[np.int64]
    """G: proteins in the order of their patterns."""
    start: NDArray[np.int64]
    """Where in `proteins` each pattern begins, and where the last one ends."""
    units: _Units | None

    @classmethod
    def of(cls, q: Floats, measured: NDArray[np.bool_], units: _Units | None) -> _Patterns:
        packed = np.packbits(measured, axis=0).T
        bits = np.zeros((len(packed), -(-packed.shape[1] // 8) * 8), dtype=np.uint8)
        bits[:, : packed.shape[1]] = packed
        words = bits.view(np.uint64)  # numbers are sorted faster than bytes
        one = words.shape[1] == 1
        keys = words.ravel() if one else bits.view(np.dtype((np.void, bits.shape[1]))).ravel()
        _, first, which = np.unique(keys, return_index=True, return_inverse=True)
        order = np.argsort(which, kind="stable")
        start = np.searchsorted(which[order], np.arange(len(first) + 1))
        return cls(q, measured[:, first], order, start, units)

    def solved(self) -> Iterable[Solution]:
        """In chunks: proteins, the pattern of each, the pseudo-inverses of N, the projectors on their rows.

        They are kept where they are small; with a term for each of many subjects they would take gigabytes.
        """
        small = self.measured.shape[1] * self.q.shape[1] ** 2 <= KEEP
        return self._kept if small else self._chunks()

    @cached_property
    def _kept(self) -> list[Solution]:
        return list(self._chunks())

    def _chunks(self) -> Iterator[Solution]:
        size = max(1, CHUNK // self.q.size)
        for low in range(0, self.measured.shape[1], size):
            high = min(low + size, self.measured.shape[1])
            counts = np.diff(self.start[low : high + 1])
            chosen = self.proteins[self.start[low] : self.start[high]]
            yield chosen, np.repeat(np.arange(high - low), counts), *self._invert(slice(low, high))

    def _invert(self, chunk: slice) -> tuple[Floats, Floats]:
        measured = self.measured.T[chunk]
        p = self.q.shape[1]
        upper = np.triu_indices(p)
        products = measured.astype(float) @ (self.q[:, upper[0]] * self.q[:, upper[1]])
        normal = np.empty((len(measured), p, p))
        normal[:, upper[0], upper[1]] = products
        normal[:, upper[1], upper[0]] = products
        if self.units is not None:
            normal -= self.units.between(self.q, measured.astype(float))
        full = np.linalg.eigvalsh(normal)[:, 0] > WELL_CONDITIONED
        inverse, row_space = np.empty_like(normal), np.tile(np.eye(p), (len(measured), 1, 1))
        inverse[full] = np.linalg.inv(normal[full])
        if not full.all():
            inverse[~full], row_space[~full] = self._pseudo_inverse(normal[~full], measured[~full])
        return inverse, row_space

    def _pseudo_inverse(self, normal: Floats, measured: NDArray[np.bool_]) -> tuple[Floats, Floats]:
        values, vectors = np.linalg.eigh(normal)
        unclear = ((values > NO_VALUE) & (values < WELL_CONDITIONED)).any(axis=1)
        keep = values > NO_VALUE
        if unclear.any():  # squared, small singular values drown: take them from Q_m itself
            _, singular, rows = np.linalg.svd(self._measured_q(measured[unclear]), full_matrices=False)
            values[unclear], vectors[unclear] = singular**2, rows.transpose(0, 2, 1)
            keep[unclear] = singular > RANK_TOLERANCE
        weight = np.where(keep, 1 / np.where(keep, values, 1.0), 0.0)
        rows = vectors.transpose(0, 2, 1)
        return (vectors * weight[:, None]) @ rows, (vectors * keep[:, None]) @ rows

    def _measured_q(self, measured: NDArray[np.bool_]) -> Floats:
        """P x n x p: Q_m, centred within its units."""
        if self.units is None:
            return measured[:, :, None] * self.q
        known = measured.T
        return np.stack([self.units.centred(term[:, None] * known, known).T for term in self.q.T], axis=2)


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


def orthonormal(x: Floats, terms: Sequence[str]) -> tuple[Floats, Floats]:
    """Q and R of the design; a `DesignError` that names the terms which depend on the ones before."""
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


def _outside(c: Floats, row_space: Floats) -> NDArray[np.bool_]:
    """... x k: is a column of c (... x p x k) not in the row space, and so cannot be estimated?"""
    return np.linalg.norm(c - row_space @ c, axis=-2) > 1e-6 * np.linalg.norm(c, axis=-2)


def _correlation(covariance: Floats) -> Floats:
    sd = np.sqrt(np.einsum("gkk->gk", covariance))
    with np.errstate(invalid="ignore", divide="ignore"):
        return covariance / (sd[:, :, None] * sd[:, None, :])
