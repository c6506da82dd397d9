"""Least squares for every protein at once, each over the samples where it was measured (section 2.6).

The design is orthonormalised once, X = Q R. A set of proteins that lack the same samples shares one p x p
matrix N = Q_m' Q_m, the identity where nothing is missing; all of them come from one matrix product and are
inverted side by side. A fit starts from the protein's mean, so that large means cost no digits.
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

from proteus_omics.errors import DataError, DesignError, MetadataError
from proteus_omics.stats.ebayes import Diagnostics, ModeratedFit, diagnose, moderate

Floats = NDArray[np.float64]
Solution: TypeAlias = tuple[NDArray[np.int64] | slice, NDArray[np.int64], Floats, Floats]

RANK_TOLERANCE = 1e-7  # of a singular value of Q_m, which are at most 1; R's `lm.fit` has the same
LARGE = 1e3  # elements of an inverse of N below this have their digits; else Q_m itself is looked at
NO_VALUE = 1e-13  # a pivot of N below this is 0, but for rounding
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
    _beta: Floats  # G x p, in the basis Q; one of the solutions where Q_m is not of full rank
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
        c = np.asarray(np.linalg.solve(self._r.T, weights), dtype=np.float64)
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
    names = [str(term) for term in terms]
    q, r = orthonormal(x, names)
    units = _Units.of(x, names, list(absorb))
    if units is not None:
        names, x = units.without(names, x)
        q, r = np.linalg.qr(units.centred(x, np.ones_like(x)))
    measured = ~np.isnan(y)
    known = measured.astype(np.float64)
    y = np.where(measured, y, 0.0)
    n_valid = known.sum(axis=0)
    with np.errstate(invalid="ignore"):
        mean = y.sum(axis=0) / np.maximum(n_valid, 1)
    if not np.isfinite(mean).all():
        raise DataError(f"{int(np.isinf(y).sum())} values are infinite; a logarithm of 0 is a missing value")
    patterns = _Patterns.of(q, known, units)
    constant = q.sum(axis=0)
    beta = mean[:, None] * constant  # the mean, as far as the design has a constant
    fitted = (q @ constant)[:, None] * mean
    fitted *= known
    y -= fitted
    squares, rank = np.empty(y.shape[1]), np.zeros(y.shape[1])
    for chosen, pattern, inverse, row_space in patterns.solved():
        residual, seen = y[:, chosen], known[:, chosen]
        rounds = 1 if inverse.max() < LARGE else 2  # the second takes back the digits lost in the first
        for _ in range(rounds):
            if units is not None:
                residual = units.centred(residual, seen)
            step = np.einsum("gpq,gq->gp", inverse.take(pattern, axis=0), residual.T @ q)
            beta[chosen] += step
            fitted = q @ step.T
            fitted *= seen
            residual -= fitted
        if units is not None:
            residual = units.centred(residual, seen)
            rank[chosen] = units.seen(seen)
        squares[chosen] = np.einsum("ng,ng->g", residual, residual)
        rank[chosen] += np.rint(np.einsum("gpp->g", row_space)).take(pattern)
    df = n_valid - rank
    sigma2 = squares / np.where(df > 0, df, np.nan)
    ave_expr, counts = np.where(n_valid > 0, mean, np.nan), n_valid.astype(np.int64)
    return LinearFit(proteins, tuple(names), ave_expr, counts, df, sigma2, beta, r, patterns)


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
    known: Floats
    """n x P: 1 where the pattern has the sample."""
    of_protein: NDArray[np.int64]
    """G: the pattern of each protein."""
    units: _Units | None

    @classmethod
    def of(cls, q: Floats, known: Floats, units: _Units | None) -> _Patterns:
        sample = np.arange(len(known))
        powers = np.zeros((len(known), -(-len(known) // 52)))
        powers[sample, sample // 52] = 2.0 ** (sample % 52)
        codes = powers.T @ known  # whole numbers, exact: 52 samples each
        order = np.lexsort(codes)
        codes = codes[:, order]
        new = np.ones(len(order), dtype=bool)
        new[1:] = (codes[:, 1:] != codes[:, :-1]).any(axis=0)
        of_protein = np.empty(len(order), dtype=np.int64)
        of_protein[order] = np.cumsum(new) - 1
        return cls(q, known[:, order[new]], of_protein, units)

    def solved(self) -> Iterable[Solution]:
        """In chunks: proteins, the pattern of each, the inverses of N, the projectors on what N can tell.

        Inverses are generalised where N is not of full rank. They are kept where they are small; with a term
        for each of many subjects they would take gigabytes.
        """
        small = self.known.shape[1] * self.q.shape[1] ** 2 <= KEEP
        return self._kept if small else self._chunks()

    @cached_property
    def _kept(self) -> list[Solution]:
        return list(self._chunks())

    def _chunks(self) -> Iterator[Solution]:
        size, patterns = max(1, CHUNK // self.q.size), self.known.shape[1]
        for low in range(0, patterns, size):
            inverse, row_space = self._invert(self.known[:, low : low + size])
            if patterns <= size:
                yield slice(None), self.of_protein, inverse, row_space
                return
            chosen = np.flatnonzero((self.of_protein >= low) & (self.of_protein < low + size))
            yield chosen, self.of_protein[chosen] - low, inverse, row_space

    def _invert(self, known: Floats) -> tuple[Floats, Floats]:
        n, p = self.q.shape
        products = (self.q[:, :, None] * self.q[:, None, :]).reshape(n, p * p)
        normal = (known.T @ products).reshape(-1, p, p)
        if self.units is not None:
            normal -= self.units.between(self.q, known.T)
        inverse = _sweep(normal)
        row_space = normal @ inverse
        unclear = inverse.max(axis=(1, 2)) > LARGE
        if unclear.any():  # squared, small singular values drown: take them from Q_m itself
            inverse[unclear], row_space[unclear] = self._pseudo_inverse(known[:, unclear])
        return inverse, row_space

    def _pseudo_inverse(self, known: Floats) -> tuple[Floats, Floats]:
        _, singular, rows = np.linalg.svd(self._measured_q(known), full_matrices=False)
        keep = singular > RANK_TOLERANCE
        weight = np.where(keep, 1 / np.where(keep, singular, 1.0) ** 2, 0.0)
        vectors = rows.transpose(0, 2, 1)
        return (vectors * weight[:, None]) @ rows, (vectors * keep[:, None]) @ rows

    def _measured_q(self, known: Floats) -> Floats:
        """P x n x p: Q_m, centred within its units."""
        if self.units is None:
            return known.T[:, :, None] * self.q
        return np.stack([self.units.centred(term[:, None] * known, known).T for term in self.q.T], axis=2)


def _sweep(normal: Floats) -> Floats:
    """P x p x p: generalised inverses of symmetric matrices, side by side.

    Goodnight's sweep: a row that follows from those before it, pivot 0, is passed over and becomes 0.
    """
    a = normal.T.copy()  # p x p x P: long rows for numpy
    for k in range(len(a)):
        taken = a[k, k] > NO_VALUE
        scale = taken / np.where(taken, a[k, k], 1.0)
        scaled = a[k] * scale
        a -= a[k][:, None] * scaled
        a[k] = a[:, k] = scaled
        a[k, k] = -scale
    return np.negative(a.T, order="C")


def _matrix(values: pd.DataFrame | ArrayLike, name: str) -> tuple[Floats, pd.Index]:
    """The values as float64 with the names of the columns."""
    try:
        if isinstance(values, pd.DataFrame):
            return values.to_numpy(np.float64), values.columns
        array = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise DataError(f"{name.upper()} has values that are not numbers: {error}") from error
    if array.ndim != 2:
        raise DataError(f"{name.upper()} has {array.ndim} dimensions; it needs samples x columns")
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
    dependent = r.diagonal() ** 2 <= RANK_TOLERANCE**2 * (x**2).sum(axis=0)
    if dependent.any():
        bad = [terms[at] for at in np.flatnonzero(dependent)]
        raise DesignError(f"terms of the design that follow from those before them: {', '.join(bad)}")
    return q, r


def _outside(c: Floats, row_space: Floats) -> NDArray[np.bool_]:
    """... x k: is a column of c (... x p x k) not in the row space, and so cannot be estimated?"""
    left = c - row_space @ c
    return np.asarray((left**2).sum(axis=-2) > 1e-12 * (c**2).sum(axis=-2))


def _correlation(covariance: Floats) -> Floats:
    sd = np.sqrt(np.einsum("gkk->gk", covariance))
    with np.errstate(invalid="ignore", divide="ignore"):
        return covariance / (sd[:, :, None] * sd[:, None, :])
