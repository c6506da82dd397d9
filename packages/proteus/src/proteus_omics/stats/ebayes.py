"""Empirical Bayes: moderated t, F, B, intervals and `treat`, as limma computes them (section 2.6)."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.special import fdtrc, stdtr, stdtrit
from scipy.stats import linregress

from proteus_omics.errors import DesignError, NoReplicatesError
from proteus_omics.stats.fdist import upper_quantile
from proteus_omics.stats.multiple import bh
from proteus_omics.stats.priors import Prior, smyth_prior, unequal_df_prior
from proteus_omics.stats.robust import robust_prior

if TYPE_CHECKING:
    from proteus_omics.stats.linear import ContrastFit

Floats = NDArray[np.float64]

PROPORTION = 0.01  # of proteins that differ, as B supposes
EFFECT_LIMITS = (0.1, 4.0)  # of the standard deviation of their log2 fold changes


@dataclass(frozen=True)
class Diagnostics:
    """What the residual variances say of the prior; no estimate or p-value of a contrast is looked at."""

    trend: bool
    """ln s_g^2 depends on the mean intensity (regression, p < 0.01)."""
    robust: bool
    """More than 1 % of the variances are above the 0.999 quantile of the fitted F."""
    trend_p: float
    outlying: float
    """Share of variances above that quantile; 0.001 is expected."""


@dataclass(frozen=True)
class ModeratedFit:
    """Contrasts whose variances were squeezed towards a common prior."""

    contrasts: ContrastFit
    prior: Prior
    s2_post: Floats
    """G: (d0 s0^2 + d_g s_g^2)/(d0 + d_g)."""
    df_total: Floats
    """G: min(d0 + d_g, sum of all d_g)."""
    t: Floats
    """G x k, NaN where the contrast cannot be estimated."""

    @property
    def standard_error(self) -> Floats:
        """G x k: of the estimates, with the posterior variance."""
        return np.sqrt(self.s2_post)[:, None] * self.contrasts.stdev_unscaled

    @cached_property
    def p_value(self) -> Floats:
        """G x k, two-sided."""
        return 2 * stdtr(self.df_total[:, None], -np.abs(self.t))

    @cached_property
    def b(self) -> Floats:
        """G x k: log-odds of differential abundance, supposing that 1 % of the proteins differ."""
        return _log_odds(self)

    def top_table(self, contrast: str | None = None, sort: bool = True) -> pd.DataFrame:
        """A row for each protein: `protein, contrast, log2fc, ci_low, ci_high, ave_expr, t, p_value, q_value,
        b, df_total, sigma, sd_post, n_valid`; by p where `sort`, the untested ones last.

        `contrast=None` takes the only one. q is Benjamini-Hochberg's over the tested proteins of this
        contrast, the interval covers 95 %. `sigma` is the residual standard deviation, `sd_post` the squeezed
        one that t has. `table.attrs` says which prior was used.
        """
        at = self._at(contrast)
        estimate = self.contrasts.estimate[:, at]
        df, which = np.unique(self.df_total, return_inverse=True)  # quantiles are dear
        half = stdtrit(df, 0.975)[which] * self.standard_error[:, at]
        columns = {
            "log2fc": estimate,
            "ci_low": estimate - half,
            "ci_high": estimate + half,
            "ave_expr": self.contrasts.fit.ave_expr,
            "t": self.t[:, at],
            "p_value": self.p_value[:, at],
            "q_value": bh(self.p_value[:, at]),
            "b": self.b[:, at],
        }
        return self._table(at, columns, sort)

    def treat(self, lfc: float, contrast: str | None = None, sort: bool = True) -> pd.DataFrame:
        """Test |log2fc| > lfc (McCarthy and Smyth 2009); the columns of `top_table` but interval and b.

        t is 0 where |log2fc| <= lfc. Raises `DesignError` for a negative lfc.
        """
        if not lfc >= 0:
            raise DesignError(f"lfc = {lfc!r}: the least fold change is a number from 0 up")
        at = self._at(contrast)
        estimate, se, df = self.contrasts.estimate[:, at], self.standard_error[:, at], self.df_total
        size = np.abs(estimate)
        p = stdtr(df, -(size - lfc) / se) + stdtr(df, -(size + lfc) / se)
        columns = {
            "log2fc": estimate,
            "ave_expr": self.contrasts.fit.ave_expr,
            "t": np.sign(estimate) * np.maximum(size - lfc, 0) / se,
            "p_value": p,
            "q_value": bh(p),
        }
        return self._table(at, columns, sort)

    def f_test(self, observed: bool = False) -> pd.DataFrame:
        """Moderated F over all contrasts: `protein, f, df1, df_total, p_value, q_value`, as proteins stand.

        limma takes the correlation of the contrasts from the full design, also for a protein with missing
        values; `observed=True` takes it from the samples where the protein was measured, which is exact. The
        two are the same without missing values. NaN where a contrast cannot be estimated.
        """
        f, df1 = _f_statistic(self.t, self.contrasts.correlation(observed))
        p = fdtrc(df1, self.df_total, f)
        table = {"protein": self.contrasts.fit.proteins, "f": f, "df1": df1, "df_total": self.df_total}
        return pd.DataFrame({**table, "p_value": p, "q_value": bh(p)})

    def _at(self, contrast: str | None) -> int:
        names = self.contrasts.names
        if contrast is None and len(names) == 1:
            return 0
        if contrast not in names:
            raise DesignError(f"there is no contrast {contrast!r}; there are {', '.join(names)}")
        return names.index(contrast)

    def _table(self, at: int, columns: dict[str, Floats], sort: bool) -> pd.DataFrame:
        fit = self.contrasts.fit
        name = self.contrasts.names[at]
        rest = {
            "df_total": self.df_total, "sigma": np.sqrt(fit.sigma2), "sd_post": np.sqrt(self.s2_post),
            "n_valid": fit.n_valid,
        }  # fmt: skip
        table = pd.DataFrame({"protein": fit.proteins, "contrast": name, **columns, **rest})
        if sort:
            table = table.sort_values("p_value", kind="stable", ignore_index=True)
        table.attrs = {
            "prior": self.prior.kind,
            "df_prior": float(np.median(self.prior.df)),
            "s2_prior": self.prior.median_s2,
        }
        return table


def moderate(contrasts: ContrastFit, *, trend: bool, robust: bool, legacy: bool | None) -> ModeratedFit:
    """`ContrastFit.ebayes`."""
    fit = contrasts.fit
    s2, df = fit.sigma2, fit.df_residual
    tested = df > 0
    if not tested.any():
        raise NoReplicatesError(
            "no protein has more measured samples than the design has terms, so no variance can be estimated"
        )
    known = slice(None) if tested.all() else tested
    prior = _prior(s2[known], df[known], fit.ave_expr[known], trend=trend, robust=robust, legacy=legacy)
    prior = _for_all(prior, tested, fit.ave_expr)
    s2_post = _squeeze(np.where(tested, s2, 0.0), df, prior)
    df_total = np.minimum(df + prior.df, df.sum())
    with np.errstate(divide="ignore", invalid="ignore"):
        t = contrasts.estimate / (np.sqrt(s2_post)[:, None] * contrasts.stdev_unscaled)
    return ModeratedFit(contrasts, prior, s2_post, df_total, t)


def diagnose(contrasts: ContrastFit) -> Diagnostics:
    """`ContrastFit.diagnose`."""
    fit = contrasts.fit
    tested = (fit.df_residual > 0) & (fit.sigma2 > 0)
    s2, df, mean = fit.sigma2[tested], fit.df_residual[tested], fit.ave_expr[tested]
    if len(s2) < 3 or np.ptp(mean) == 0:
        return Diagnostics(False, False, float("nan"), 0.0)
    p = float(linregress(mean, np.log(s2)).pvalue)
    prior = smyth_prior(s2, df)
    levels, which = np.unique(df, return_inverse=True)
    limit = np.array([upper_quantile(0.001, level, float(prior.df)) for level in levels])[which]
    outlying = float(np.mean(s2 / prior.s2 > limit))
    return Diagnostics(p < 0.01, outlying > 0.01, p, outlying)


def _prior(s2: Floats, df: Floats, mean: Floats, *, trend: bool, robust: bool, legacy: bool | None) -> Prior:
    if legacy is False and (trend or robust):
        raise NotImplementedError(
            "limma's newer prior with trend or robust needs its weighted lowess, which is not here; "
            "use legacy=True or None"
        )
    if legacy is None:
        legacy = trend or robust or len(s2) == 1 or bool(np.all(df == df[0]))
    if not legacy:
        return unequal_df_prior(s2, df)
    return (robust_prior if robust else smyth_prior)(s2, df, mean if trend else None)


def _for_all(prior: Prior, tested: NDArray[np.bool_], mean: Floats) -> Prior:
    """The prior of all proteins, also those whose own variance is not known."""
    if tested.all():
        return prior
    df, s2 = prior.df, prior.s2
    if isinstance(df, np.ndarray):
        df = np.full(len(tested), df.max())
        df[tested] = prior.df
    if isinstance(s2, np.ndarray):
        order = np.argsort(mean[tested])
        s2 = np.interp(mean, mean[tested][order], np.log(s2)[order])
        s2 = np.exp(s2)
        s2[tested] = prior.s2
    return Prior(df, s2, prior.kind)


def _squeeze(s2: Floats, df: Floats, prior: Prior) -> Floats:
    with np.errstate(invalid="ignore"):
        squeezed = (prior.df * prior.s2 + df * s2) / (prior.df + df)
    return np.where(np.isfinite(prior.df), squeezed, prior.s2)


def _f_statistic(t: Floats, correlation: Floats) -> tuple[Floats, Floats]:
    """t' R^- t / r and r, the rank of the correlation R of the contrasts."""
    values, vectors = np.linalg.eigh(np.nan_to_num(correlation))
    keep = values > 1e-8 * values[..., -1:]
    rank = keep.sum(axis=-1)
    scaled = np.where(keep, 1 / np.sqrt(np.where(keep, values, 1.0)), 0.0)
    along = np.matmul(t[:, None, :], vectors)[:, 0, :] * scaled
    f = np.sum(along**2, axis=1) / np.maximum(rank, 1)
    return f, np.broadcast_to(rank, f.shape).astype(float)


def _log_odds(fit: ModeratedFit) -> Floats:
    """limma's B: the standard deviation of true effects is matched to the largest t of each contrast."""
    contrasts, df = fit.contrasts, fit.df_total[:, None]
    limits = np.square(EFFECT_LIMITS) / fit.prior.median_s2
    u = contrasts.stdev_unscaled
    v0 = np.array([
        _effect_variance(fit.t[:, k], fit.p_value[:, k] / 2, u[:, k], fit.df_total, limits)
        for k in range(u.shape[1])
    ])  # fmt: skip
    r = (u**2 + v0) / u**2
    t2 = fit.t**2
    kernel = (1 + df) / 2 * np.log((t2 + df) / (t2 / r + df))
    if np.max(fit.prior.df) > 1e6:
        kernel = np.where(np.reshape(fit.prior.df, (-1, 1)) > 1e6, t2 * (1 - 1 / r) / 2, kernel)
    return np.log(PROPORTION / (1 - PROPORTION)) - np.log(r) / 2 + kernel


def _effect_variance(t: Floats, tail: Floats, u: Floats, df: Floats, limits: Floats) -> float:
    """Variance of true effects over s0^2: the largest |t| beside their expected quantiles (Smyth 2004).

    `tail` is P(T > |t|) on each protein's own degrees of freedom.
    """
    known = ~np.isnan(t)
    n = int(np.count_nonzero(known))
    if not n:
        return float("nan")
    n_top = int(np.ceil(PROPORTION / 2 * n))
    proportion = max(n_top / n, PROPORTION)
    most = df[known].max()
    near = np.flatnonzero(tail <= np.partition(tail, n_top - 1)[n_top - 1])  # no other can be among the top
    t, u, df, tail = np.abs(t[near]), u[near], df[near], tail[near]
    with np.errstate(invalid="ignore"):
        t = np.where((df < most) & (tail > 0), -stdtrit(most, tail), t)  # to equal degrees of freedom
    top = np.argsort(-t, kind="stable")[:n_top]
    p0 = 2 * stdtr(most, -t[top])
    target = ((np.arange(1, n_top + 1) - 0.5) / n - (1 - proportion) * p0) / proportion
    v0 = np.zeros(n_top)
    above = target > p0
    quantile = -stdtrit(most, target[above] / 2)
    v0[above] = u[top][above] ** 2 * ((t[top][above] / quantile) ** 2 - 1)
    return float(np.minimum(np.maximum(v0, limits[0]), limits[1]).mean())
