"""The F distribution where its second degrees of freedom may be infinite, and its winsorised logarithm."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special, stats

Floats = NDArray[np.float64]

_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(128)
_NODES, _WEIGHTS = (_NODES + 1) / 2, _WEIGHTS / 2


def upper_tail(f: ArrayLike, d1: ArrayLike, d2: float) -> Floats:
    """P(F > f)."""
    if np.isinf(d2):
        return special.chdtrc(d1, np.multiply(f, d1))
    return special.fdtrc(d1, d2, f)


def log_upper_tail(f: ArrayLike, d1: float, d2: float) -> Floats:
    """ln P(F > f), finite where P itself is 0 in floating point."""
    f = np.asarray(f, dtype=np.float64)
    with np.errstate(divide="ignore"):
        log_p = np.log(upper_tail(f, d1, d2))
    far = np.isneginf(log_p) & np.isfinite(f)
    if far.any() and np.isfinite(d2):
        # y = d2/(d2 + d1 f) is tiny: I_y(a, b) = y^a / (a B(a, b)) to first order.
        a, b = d2 / 2, d1 / 2
        log_p[far] = -a * np.log1p(d1 * f[far] / d2) - np.log(a) - special.betaln(a, b)
    return log_p


def lower_tail(f: ArrayLike, d1: ArrayLike, d2: float) -> Floats:
    """P(F < f)."""
    if np.isinf(d2):
        return special.chdtr(d1, np.multiply(f, d1))
    return special.fdtr(d1, d2, f)


def lower_quantile(p: ArrayLike, d1: float, d2: float) -> Floats:
    """The f with P(F < f) = p."""
    if np.isinf(d2):
        return special.gammaincinv(d1 / 2, p) * 2 / d1
    y = special.betaincinv(d1 / 2, d2 / 2, p)
    return d2 * y / (d1 * (1 - y))


def upper_quantile(p: ArrayLike, d1: float, d2: float) -> Floats:
    """The f with P(F > f) = p."""
    if np.isinf(d2):
        return special.gammainccinv(d1 / 2, p) * 2 / d1
    return 1 / lower_quantile(p, d2, d1)


def winsorised_log_moments(d1: float, d2: float, tails: tuple[float, float]) -> tuple[float, float]:
    """Mean and variance of ln F, winsorised at the tail probabilities (section 2.6, step 5)."""
    ends = np.array([lower_quantile(tails[0], d1, d2), upper_quantile(tails[1], d1, d2)], dtype=np.float64)
    low, high = ends / (1 + ends)
    u = low + (high - low) * _NODES
    f = u / (1 - u)
    density = stats.chi2.pdf(f * d1, d1) * d1 if np.isinf(d2) else stats.f.pdf(f, d1, d2)
    weight = (high - low) * _WEIGHTS * density / (1 - u) ** 2
    at_ends = np.asarray(tails)
    mean = weight @ np.log(f) + at_ends @ np.log(ends)
    variance = weight @ (np.log(f) - mean) ** 2 + at_ends @ (np.log(ends) - mean) ** 2
    return float(mean), float(variance)
