"""Power of a two-sample t-test: what was visible, and how many samples another cohort needs."""

from __future__ import annotations

import math

from scipy.integrate import quad
from scipy.optimize import brentq
from scipy.special import chdtr
from scipy.stats import t

from proteus_omics.errors import DataError

MOST = 10_000_000  # samples a group, above which an effect cannot be tested
BOUND = 9.0  # beyond it the normal density holds 2e-19


def t_test_power(
    effect: float, sd: float, n_ref: int, n_alt: int, alpha: float = 0.05, df: float | None = None
) -> float:
    """Probability that a two-sided t-test with these group sizes sees a true difference of `effect`.

    `df` are those of the standard deviation, n_ref + n_alt - 2 where none are given; a moderated t has more.
    Raises `DataError` for fewer than one of them, or sd that is not above 0.
    """
    df = n_ref + n_alt - 2 if df is None else df
    if not df >= 1 or not sd > 0:
        raise DataError(
            f"power needs a degree of freedom and sd > 0, not {n_ref} + {n_alt} samples, df = {df:g} and "
            f"sd = {sd!r}"
        )
    noncentral = abs(effect) / (sd * math.sqrt(1 / n_ref + 1 / n_alt))
    critical = float(t.isf(alpha / 2, df))
    return min(1.0, _upper_tail(critical, df, noncentral) + _upper_tail(critical, df, -noncentral))


def _upper_tail(critical: float, df: float, noncentral: float) -> float:
    """P((Z + noncentral) / sqrt(V / df) > critical), Z normal and V chi-square, as an integral over Z.

    Not SciPy's `nct`: its series gives NaN where a tail is small or the noncentrality large.
    """

    def density(z: float) -> float:
        largest_v = df * ((z + noncentral) / critical) ** 2
        return math.exp(-z * z / 2) / math.sqrt(2 * math.pi) * float(chdtr(df, largest_v))

    low = max(-BOUND, -noncentral)
    if low >= BOUND:
        return 0.0
    step = min(
        max(critical - noncentral, low), BOUND
    )  # where V's distribution function rises, steeply if df is large
    return sum(quad(density, *ends, epsabs=1e-10, limit=200)[0] for ends in ((low, step), (step, BOUND)))


def n_needed(effect: float, sd: float, wanted: float = 0.8, alpha: float = 0.05) -> int | None:
    """The least number of samples a group with that power; None where ten million are too few."""
    if not math.isfinite(effect) or effect == 0:
        return None
    few, many = 1, 2
    while t_test_power(effect, sd, many, many, alpha) < wanted:
        few, many = many, 2 * many
        if many > MOST:
            return None
    while many - few > 1:
        middle = (few + many) // 2
        if t_test_power(effect, sd, middle, middle, alpha) < wanted:
            few = middle
        else:
            many = middle
    return many


def detectable_effect(
    sd: float,
    n_ref: int,
    n_alt: int,
    wanted: float = 0.8,
    alpha: float = 0.05,
    df: float | None = None,
) -> float:
    """The least true difference that these groups see with that power; `df` as of `t_test_power`."""
    unit = sd * math.sqrt(1 / n_ref + 1 / n_alt)

    def lack(size: float) -> float:
        return t_test_power(size * unit, sd, n_ref, n_alt, alpha, df) - wanted

    high = 1.0
    while lack(high) < 0:
        high *= 2
    return unit * brentq(lack, 0, high, xtol=1e-9)
