"""Cox regression of survival on every protein at once: Efron's ties, Newton's method (sections 2.5, 7.3, 8).

Samples stand in descending order of time, so that a risk set is a prefix and its sums are cumulative ones.
Of d deaths at one time the l-th (l = 0 ... d-1) sees the sums of the risk set less l/d of those of the d.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy.special import chdtrc, ndtr, ndtri

from proteus_omics.errors import DataError, DesignError, MetadataError
from proteus_omics.stats.multiple import bh

Floats = NDArray[np.float64]

STEPS = 30
CHUNK = 60_000  # values a chunk of proteins holds: the sums then stay in the cache
TOLERANCE = 1e-7  # of a step, in standard deviations; the error after it is about its square


@dataclass(frozen=True)
class CoxFit:
    """A model for each of G proteins: the protein first, then q covariates that all of them share."""

    proteins: pd.Index
    terms: tuple[str, ...]
    """The covariates."""
    coef: Floats
    """G x (1 + q): log hazard ratios per unit; NaN where there is no finite estimate."""
    covariance: Floats
    """G x (1 + q) x (1 + q)."""
    n: NDArray[np.int64]
    n_events: NDArray[np.int64]
    flag: NDArray[np.str_]
    """Empty, or why there is no estimate: "no events", "constant" in every risk set, "monotone likelihood"
    (each death has the largest value of its risk set, or each the smallest: the hazard ratio grows without
    end), "no finite estimate" (the same, or collinear, together with the covariates)."""

    def table(self) -> pd.DataFrame:
        """`protein, coef, se, hr, ci_low, ci_high, z, p_value, q_value, n, n_events, flag` of the proteins.

        The interval is that of the hazard ratio, 95 %; z and p are Wald's; q is over all estimated proteins.
        """
        coef, se = self.coef[:, 0], np.sqrt(self.covariance[:, 0, 0])
        half = ndtri(0.975) * se
        z = coef / se
        p = 2 * ndtr(-np.abs(z))
        return pd.DataFrame(
            {
                "protein": self.proteins,
                "coef": coef,
                "se": se,
                "hr": np.exp(coef),
                "ci_low": np.exp(coef - half),
                "ci_high": np.exp(coef + half),
                "z": z,
                "p_value": p,
                "q_value": bh(p),
                "n": self.n,
                "n_events": self.n_events,
                "flag": self.flag,
            }
        )


def cox_fit(
    X: pd.DataFrame | ArrayLike,
    time: ArrayLike,
    event: ArrayLike,
    covariates: pd.DataFrame | ArrayLike | None = None,
) -> CoxFit:
    """Fit h(t) = h0(t) exp(b x + c'z) for each column x of X (n samples x G proteins, NaN = missing).

    `time` (n, at least 0), `event` (n, 0 or 1), `covariates` (n x q, complete). A protein's model is of the
    samples where it was measured. Equal to R's `coxph(ties="efron")`.
    Raises `MetadataError` for other lengths, `DataError` for values that are not allowed, `DesignError`
    without an event or for a constant covariate.
    """
    names, x, z, risk = _arranged(X, time, event, covariates)
    z, z_scale = _standardised(z)
    coef, covariance, n, n_events, flag = [], [], [], [], []
    for columns in _chunks(*x.shape):
        measured = ~np.isnan(x[:, columns])
        standard, scale = _standardised(x[:, columns])
        found = _fit(standard, measured, z, risk)
        unit = np.column_stack([scale, np.broadcast_to(z_scale, (len(scale), len(z_scale)))])
        coef.append(found[0] / unit)
        covariance.append(found[1] / (unit[:, :, None] * unit[:, None, :]))
        flag.append(found[2])
        n.append(measured.sum(axis=0))
        n_events.append(measured[risk.death].sum(axis=0))
    terms = covariates.columns if isinstance(covariates, pd.DataFrame) else range(1, 1 + z.shape[1])
    return CoxFit(names, tuple(map(str, terms)), *map(np.concatenate, (coef, covariance, n, n_events, flag)))


def schoenfeld_test(
    X: pd.DataFrame | ArrayLike,
    time: ArrayLike,
    event: ArrayLike,
    covariates: pd.DataFrame | ArrayLike | None = None,
) -> pd.DataFrame:
    """Does a protein's hazard ratio change with time? A row a column of X: `protein, chi2, p_value`.

    Grambsch and Therneau's score test of g(t) x beside x, with g the share that has died before t, as R's
    `cox.zph(fit, transform="km")`. NaN where the model has no estimate. Arguments and errors as of `cox_fit`;
    for a few proteins (the hits).
    """
    names, x, z, risk = _arranged(X, time, event, covariates)
    measured = ~np.isnan(x)
    x, z = _standardised(x)[0], _standardised(z)[0]
    coef, covariance, flag = _fit(x, measured, z, risk)
    coef = np.where(flag[:, None] == "", coef, 0.0)
    g = risk.died_before[:, None]
    gradient, cross = _derivatives(x, z, measured, coef, risk, g)
    _, information = _derivatives(x, z, measured, coef, risk, g**2)
    shift = cross[:, :, 0]
    variance = information[:, 0, 0] - np.einsum("gi,gij,gj->g", shift, covariance, shift)
    chi2 = gradient[:, 0] ** 2 / variance
    return pd.DataFrame({"protein": names, "chi2": chi2, "p_value": chdtrc(1, chi2)})


@dataclass(frozen=True)
class _RiskSets:
    """Where the deaths stand among samples in descending order of time."""

    death: NDArray[np.int64]
    """D: rows of the samples that died."""
    last: NDArray[np.int64]
    """D: the last row of each one's risk set."""
    tie: NDArray[np.int64]
    """D: which deaths fell together."""
    start: NDArray[np.int64]
    """First place in `death` of each such group."""
    died_before: Floats
    """D: one minus Kaplan and Meier's survival just before each death."""

    @classmethod
    def of(cls, time: Floats, event: NDArray[np.bool_]) -> _RiskSets:
        death = np.flatnonzero(event)
        last = len(time) - 1 - np.searchsorted(time[::-1], time[death], side="left")
        _, start, tie = np.unique(-time[death], return_index=True, return_inverse=True)
        deaths = np.bincount(tie)[::-1]  # of the distinct times, the first one first
        survival = np.cumprod(1 - deaths / (last[start] + 1)[::-1])
        died_before = 1 - np.r_[1.0, survival[:-1]][::-1][tie]
        return cls(death, last, tie, start, died_before)

    def sums(self, values: Floats, share: Floats | None) -> Floats:
        """D x G: of `values` (n x G) over each death's risk set, less `share` of those that died with it."""
        at_risk = np.cumsum(values, axis=0)[self.last]
        if share is None:
            return at_risk
        return at_risk - share * np.add.reduceat(values[self.death], self.start, axis=0)[self.tie]

    def shares(self, measured: NDArray[np.bool_]) -> Floats | None:
        """l/d of each death, D x G or, where all are measured, D x 1; None without ties."""
        if len(self.start) == len(self.death):
            return None
        died = measured[self.death].astype(float)
        if died.all():
            died = np.ones((len(died), 1))
        total = np.add.reduceat(died, self.start, axis=0)[self.tie]
        before = np.cumsum(died, axis=0) - died
        return (before - before[self.start][self.tie]) / np.maximum(total, 1)


def _fit(
    x: Floats, measured: NDArray[np.bool_], z: Floats, risk: _RiskSets
) -> tuple[Floats, Floats, NDArray[np.str_]]:
    """Coefficients, covariances and flags of standardised proteins and covariates."""
    largest, smallest = (_every_death_is_largest(sign * x, measured, risk) for sign in (1, -1))
    flag = np.full(x.shape[1], "", dtype="<U19")
    flag[largest | smallest] = "monotone likelihood"
    flag[largest & smallest] = "constant"
    flag[~measured[risk.death].any(axis=0)] = "no events"
    p = 1 + z.shape[1]
    coef, covariance = np.zeros((x.shape[1], p)), np.full((x.shape[1], p, p), np.nan)
    active = np.flatnonzero(flag == "")
    for _ in range(STEPS):
        if not len(active):
            break
        gradient, information = _derivatives(x[:, active], z, measured[:, active], coef[active], risk)
        step, inverse, flat = _newton(gradient, information)
        coef[active] += step
        done = (np.abs(step).max(axis=1) < TOLERANCE) & ~flat
        covariance[active[done]] = inverse[done]
        flag[active[flat]] = "no finite estimate"
        active = active[~done & ~flat]
    flag[active] = "no finite estimate"
    coef[flag != ""] = np.nan
    covariance[flag != ""] = np.nan
    return coef, covariance, flag


def _derivatives(
    x: Floats,
    z: Floats,
    measured: NDArray[np.bool_],
    coef: Floats,
    risk: _RiskSets,
    times: Floats | float = 1.0,
) -> tuple[Floats, Floats]:
    """Gradient (G x p), information (G x p x p) of the log partial likelihood; each death `times` (D x 1)."""
    eta = x * coef[:, 0] + z @ coef[:, 1:].T
    weight = np.exp(eta - eta.max(axis=0))
    weight *= measured
    share = risk.shares(measured)
    died = measured[risk.death].astype(float)
    total = risk.sums(weight, share)
    inverse = np.divide(died, total, out=np.zeros_like(total), where=total > 0)
    features = [x, *(column[:, None] for column in z.T)]
    p = len(features)
    gradient, information = np.empty((x.shape[1], p)), np.empty((x.shape[1], p, p))
    means = []
    for i, one in enumerate(features):
        weighted = weight * one
        means.append(risk.sums(weighted, share) * inverse)
        gradient[:, i] = (times * (died * one[risk.death] - means[i])).sum(axis=0)
        for j in range(i + 1):
            products = risk.sums(weighted * features[j], share) * inverse
            products -= means[i] * means[j]
            information[:, i, j] = information[:, j, i] = (times * products).sum(axis=0)
    return gradient, information


def _newton(gradient: Floats, information: Floats) -> tuple[Floats, Floats, NDArray[np.bool_]]:
    """A step of at most 2 standard deviations, the inverse information, and where that is singular."""
    diagonal = np.einsum("gii->gi", information)
    size = np.prod(diagonal, axis=1)
    flat = (diagonal <= 1e-10).any(axis=1) | (np.linalg.det(information) <= 1e-10 * size)
    inverse = np.linalg.inv(np.where(flat[:, None, None], np.eye(diagonal.shape[1]), information))
    return np.clip(np.matmul(inverse, gradient[:, :, None])[:, :, 0], -2, 2), inverse, flat


def _every_death_is_largest(x: Floats, measured: NDArray[np.bool_], risk: _RiskSets) -> NDArray[np.bool_]:
    """G: each measured death has the largest value of its risk set: larger coefficients fit ever better."""
    largest = np.maximum.accumulate(np.where(measured, x, -np.inf), axis=0)[risk.last]
    return np.all(~measured[risk.death] | (x[risk.death] >= largest), axis=0)


def _arranged(
    X: pd.DataFrame | ArrayLike,
    time: ArrayLike,
    event: ArrayLike,
    covariates: pd.DataFrame | ArrayLike | None,
) -> tuple[pd.Index, Floats, Floats, _RiskSets]:
    """Names of the proteins, their values and the covariates in descending order of time, the risk sets."""
    x = np.asarray(X, dtype=np.float64)
    if x.ndim != 2:
        raise DataError(f"X has {x.ndim} dimensions; it needs samples x proteins")
    if np.isinf(x).any():
        raise DataError(f"{int(np.isinf(x).sum())} values are infinite; a logarithm of 0 is a missing value")
    names = X.columns if isinstance(X, pd.DataFrame) else pd.Index([f"x{k + 1}" for k in range(x.shape[1])])
    times, died = _times(time, event, len(x))
    z = _covariates(covariates, len(x))
    order = np.lexsort((~died, -times))  # deaths before those censored at the same time
    return names, x[order], z[order], _RiskSets.of(times[order], died[order])


def _standardised(values: Floats) -> tuple[Floats, Floats]:
    """Columns with mean 0 and standard deviation 1, missing values 0, constant columns 0; and the scale."""
    measured = ~np.isnan(values)
    count = np.maximum(measured.sum(axis=0), 1)
    centre = np.where(measured, values, 0).sum(axis=0) / count
    values = np.where(measured, values - centre, 0)
    scale = np.sqrt(np.sum(values**2, axis=0) / count)
    constant = scale <= 1e-12 * np.abs(centre)
    scale[constant] = 1.0
    values[:, constant] = 0
    return values / scale, scale


def _times(time: ArrayLike, event: ArrayLike, n: int) -> tuple[Floats, NDArray[np.bool_]]:
    time, event = np.asarray(time, dtype=np.float64), np.asarray(event, dtype=np.float64)
    if time.shape != (n,) or event.shape != (n,):
        raise MetadataError(f"X has {n} samples, time {time.shape}, event {event.shape}")
    if not (np.isfinite(time) & (time >= 0)).all():
        raise DataError("survival times have to be finite and not below 0; leave out samples without one")
    if not np.isin(event, (0, 1)).all():
        raise DataError("events have to be 0 (censored) or 1 (died); leave out samples without one")
    if not event.any():
        raise DesignError("no sample has an event, so no hazard can be estimated")
    return time, event == 1


def _covariates(covariates: pd.DataFrame | ArrayLike | None, n: int) -> Floats:
    if covariates is None:
        return np.empty((n, 0))
    z = np.asarray(covariates, dtype=np.float64)
    if z.ndim != 2 or len(z) != n:
        raise MetadataError(f"X has {n} samples, the covariates have the shape {z.shape}")
    if not np.isfinite(z).all():
        raise DataError("covariates have missing or infinite values; leave out those samples")
    if (z.std(axis=0) == 0).any():
        raise DesignError("a covariate has the same value in all samples")
    return z


def _chunks(n: int, proteins: int) -> list[slice]:
    size = max(1, CHUNK // n)
    return [slice(at, at + size) for at in range(0, proteins, size)]
