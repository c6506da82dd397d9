"""The prior of the residual variances, s_g^2 ~ s0^2 F(d_g, d0): Smyth 2004 and limma's newer estimate.

Equations of section 2.6. All functions take proteins with d_g > 0 only.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.special import psi, zeta

from proteus_omics.errors import ProteusWarning

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Prior:
    """What the proteins know of each other's variances; `kind` says by which estimate."""

    df: float | Floats
    """d0, one number or, where robust, one a protein."""
    s2: float | Floats
    """s0^2, one number or, with a trend, one a protein."""
    kind: str

    @property
    def median_s2(self) -> float:
        """The typical s0^2."""
        return float(np.median(self.s2)) if isinstance(self.s2, np.ndarray) else float(self.s2)


def trigamma(x: Any) -> Any:
    """psi'(x) for x > 0, as Hurwitz' zeta, without the checks of `scipy.special.polygamma`."""
    return zeta(2, x)


def trigamma_inverse(x: float) -> float:
    """The y with trigamma(y) = x, for x > 0, by Newton's method on 1/trigamma."""
    if x > 1e7:
        return x**-0.5
    if x < 1e-6:
        return 1 / x
    y = 0.5 + 1 / x
    for _ in range(50):
        value = trigamma(y)
        step = value * (1 - value / x) / (-2 * zeta(3, y))  # its derivative
        y += step
        if -step / y < 1e-8:
            break
    return float(y)


def off_zero(s2: Floats, share: float) -> Floats:
    """Variances, at least `share` of their median: a protein with none would rule out every other."""
    if s2.min() > share * 2 * s2.mean():  # which is at least their median
        return s2
    median = float(np.median(s2))
    if median <= 0:
        warnings.warn(
            "more than half of the residual variances are 0: the moderated statistics are not to be trusted; "
            "are the values rounded or imputed?",
            ProteusWarning,
            stacklevel=2,
        )
        median = 1.0
    return np.maximum(s2, share * median)


def half_levels(df: Floats) -> tuple[Floats, NDArray[np.int64]]:
    """1/2, 1, ... up to half of the largest d_g, and which of these each d_g/2 is.

    d_g are whole numbers, of which there are few, and functions of them are dear.
    """
    which = df.astype(np.int64) - 1
    return np.arange(1, which.max() + 2) / 2, which


def smyth_prior(s2: Floats, df: Floats, mean: Floats | None = None) -> Prior:
    """Moments of ln s_g^2: limma's estimate before 3.61, with `mean` (G: A_g) as a function of it."""
    kind = "limma < 3.61" + ("" if mean is None else ", trend")
    if len(s2) == 1:
        return Prior(0.0, s2[0], kind)
    s2 = off_zero(s2, 1e-5)
    levels, which = half_levels(df)
    e = np.log(s2) + (np.log(levels) - psi(levels))[which]
    basis = None if mean is None else spline_basis(mean)
    if basis is None:
        centre, rank = e.mean(), 1
    else:
        coefficients, _, rank, _ = np.linalg.lstsq(basis, e, rcond=None)
        centre = basis @ coefficients
    variance = np.sum((e - centre) ** 2) / max(len(e) - rank, 1) - trigamma(levels)[which].mean()
    if variance <= 0:
        return Prior(np.inf, float(s2.mean()) if basis is None else np.exp(centre), kind)
    half = trigamma_inverse(variance)
    s0 = np.exp(centre + psi(half) - np.log(half))
    return Prior(2 * half, s0 if basis is not None else float(s0), kind)


def spline_basis(x: Floats) -> Floats | None:
    """Natural cubic splines at x, with an intercept and knots at equally spaced quantiles; None for one x.

    The basis of truncated powers: that of R's `ns` spans the same space, so fitted values are the same.
    """
    columns = min(1 + (len(x) >= 3) + (len(x) >= 6) + (len(x) >= 30), len(np.unique(x)))
    if columns < 2:
        return None
    x = (x - x.min()) / np.ptp(x)
    knots = np.quantile(x, np.linspace(0, 1, columns))

    def beyond(knot: float) -> Floats:
        return np.maximum(x - knot, 0) ** 3

    last = (beyond(knots[-2]) - beyond(knots[-1])) / (knots[-1] - knots[-2]) if columns > 2 else 0.0
    curved = [(beyond(knot) - beyond(knots[-1])) / (knots[-1] - knot) - last for knot in knots[: columns - 2]]
    return np.column_stack([np.ones_like(x), x, *curved])


def unequal_df_prior(s2: Floats, df: Floats) -> Prior:
    """limma's prior since 3.61: d0 maximises the likelihood given the weighted mean of ln s_g^2."""
    s2 = off_zero(s2, 1e-12)
    levels, which = half_levels(df)
    half, weight, count = df / 2, 1 / trigamma(levels), np.bincount(which)
    centre = np.average(np.log(s2) + (np.log(levels) - psi(levels))[which], weights=weight[which])
    half_s2, half_sum = half * s2, half.sum()

    def score(share: float) -> float:
        """Derivative of the log likelihood by h = share/(1 - share); h s0^2(h) = exp(centre + psi(h))."""
        h = share / (1 - share)
        ratio = half_s2 / np.exp(centre + psi(h))
        slope = trigamma(h) * ((half + h) @ (ratio / (1 + ratio)) - half_sum)
        return float(slope - np.log1p(ratio).sum() + count @ (psi(levels + h) - psi(h)))

    low, high = 0.5, 0.9998  # limma's range
    if score(low) <= 0:
        share = low
    elif score(high) >= 0:
        share = high
    else:
        share = brentq(score, low, high, xtol=1e-12, rtol=1e-14)
    h = share / (1 - share)
    return Prior(2 * h, float(np.exp(centre + psi(h) - np.log(h))), "limma >= 3.61")
