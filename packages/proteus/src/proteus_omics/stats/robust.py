"""The prior of the residual variances that a few outlying ones cannot spoil (Phipson et al. 2016)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.stats import rankdata, trim_mean

from proteus_omics.stats.fdist import (
    log_upper_tail,
    lower_quantile,
    lower_tail,
    upper_quantile,
    upper_tail,
    winsorised_log_moments,
)
from proteus_omics.stats.priors import Prior, off_zero, smyth_prior

Floats = NDArray[np.float64]

TAILS = (0.05, 0.1)


def robust_prior(s2: Floats, df: Floats, mean: Floats | None = None) -> Prior:
    """d0 of each protein, small where its variance is an outlier, and s0^2; the steps of section 2.6.

    `mean` (G: A_g) makes s0^2 a function of the mean intensity.
    """
    plain = smyth_prior(s2, df, mean)
    n = len(s2)
    kind = plain.kind + ", robust"
    if n < 3 or max(TAILS) < 1 / n:
        return Prior(np.full(n, plain.df), plain.s2, kind)
    d = float(df.max())
    z = np.log(_to_equal_df(off_zero(s2, 1e-12), df, plain))  # steps 2, 3
    centre = trim_mean(z, TAILS[1]) if mean is None else _lowess(z, mean)
    residual = z - centre
    low, high = np.quantile(residual, [TAILS[0], 1 - TAILS[1]])
    winsorised = np.clip(residual, low, high)  # step 4
    d0 = _prior_df(d, float(winsorised.var(ddof=1)), float(plain.df))
    if d0 is None:
        return Prior(np.full(n, np.inf), plain.s2, kind)
    log_s0 = centre + winsorised.mean() - winsorised_log_moments(d, d0, TAILS)[0]  # step 6
    s0 = np.exp(log_s0)
    return Prior(_shrunk_df(np.exp(z - log_s0), d, d0), s0 if mean is not None else float(s0), kind)


def _to_equal_df(s2: Floats, df: Floats, prior: Prior) -> Floats:
    """Variances as they would be with the most degrees of freedom, at the same tail probability (step 2)."""
    most = float(df.max())
    few = df < most - 1e-14
    if not few.any():
        return s2
    s0 = np.broadcast_to(prior.s2, s2.shape)[few]
    f, d0 = s2[few] / s0, float(prior.df)
    above, below = upper_tail(f, df[few], d0), lower_tail(f, df[few], d0)
    mapped = np.where(above < below, upper_quantile(above, most, d0), lower_quantile(below, most, d0))
    mapped = np.where(np.isfinite(mapped) & (mapped > 0), mapped, f)  # a probability of 0 says nothing
    equal = s2.copy()
    equal[few] = mapped * s0
    return equal


def _lowess(z: Floats, mean: Floats) -> Floats:
    from statsmodels.nonparametric.smoothers_lowess import lowess

    return lowess(z, mean, frac=0.4, it=3, delta=0.01 * float(np.ptp(mean)), return_sorted=False)


def _prior_df(d: float, variance: float, ordinary: float) -> float | None:
    """Step 5: the d0 whose winsorised ln F has this variance; None: keep the ordinary prior, d0 = inf."""

    def excess(share: float) -> float:
        d0 = np.inf if share >= 1 else share / (1 - share)
        return float(np.log(variance / winsorised_log_moments(d, d0, TAILS)[1]))

    if variance <= 0 or excess(1.0) <= 0:
        return np.inf
    if np.isinf(ordinary):
        return None
    lowest = ordinary / (1 + ordinary)
    if excess(lowest) >= 0:
        return ordinary
    share = brentq(excess, lowest, 1.0, xtol=1e-14, rtol=1e-14)
    return float(share / (1 - share))


def _shrunk_df(f: Floats, d: float, d0: float) -> Floats:
    """Steps 7 and 8: d0 of each protein, by how probable it is that it is no outlier."""
    n = len(f)
    log_tail = log_upper_tail(f, d, d0)
    log_empirical = np.log(n - rankdata(f) + 0.5) - np.log(n)
    inlier = np.exp(np.minimum(log_tail - log_empirical, 0))
    order = np.argsort(log_tail, kind="stable")
    shrunk = np.full(n, d0)
    if np.all(inlier >= 1):
        return shrunk
    if np.isinf(d0):
        shrunk[inlier < 1] = inlier[inlier < 1] * n * d
        shrunk[order] = np.maximum.accumulate(shrunk[order])
        return shrunk
    least = float(log_tail.min())
    outlier = np.log(0.5) / least * d0
    outlier *= np.log(0.5) / float(log_upper_tail(f.max(), d, outlier))
    ordered = (inlier * d0 + (1 - inlier) * outlier)[order]
    running = np.cumsum(ordered) / np.arange(1, n + 1)
    lowest = int(np.argmin(running))
    ordered[: lowest + 1] = running[lowest]
    shrunk[order] = np.maximum.accumulate(ordered)
    return shrunk
