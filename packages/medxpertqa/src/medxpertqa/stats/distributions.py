"""The two distributions that the tests need, so that the core does without scipy."""

from __future__ import annotations

from math import erfc, exp, fsum, lgamma, log, log1p, pi, sqrt
from statistics import NormalDist

from medxpertqa.errors import MedXpertQAError


def normal_quantile(probability: float) -> float:
    """The z below which a standard normal variable lies with that probability (0 < probability < 1)."""
    return NormalDist().inv_cdf(probability)


def two_sided(z: float) -> float:
    """P(|Z| >= |z|) for a standard normal Z."""
    return erfc(abs(z) / sqrt(2))


def chi2_survival(statistic: float, dof: int) -> float:
    """P(X >= statistic) for a chi-squared X with a whole number of degrees of freedom (1 or more).

    With h = x/2: for even dof exp(-h) sum_{i < dof/2} h^i / i!; for odd dof erfc(sqrt h) plus
    exp(-h) sum_{i=1}^{(dof-1)/2} h^(i-1/2) / Gamma(i + 1/2).
    """
    if dof < 1 or statistic < 0:
        raise MedXpertQAError(f"chi2 of {statistic} with {dof} degrees of freedom; needed: >= 0 and >= 1")
    half = statistic / 2
    if dof % 2 == 0:
        term = total = exp(-half)
        for i in range(1, dof // 2):
            term *= half / i
            total += term
        return min(total, 1.0)
    total, term = erfc(sqrt(half)), exp(-half) * sqrt(half) / (sqrt(pi) / 2)
    for i in range(1, (dof - 1) // 2 + 1):
        total += term
        term *= half / (i + 0.5)
    return min(total, 1.0)


def binomial_tail(k: int, n: int, p: float) -> float:
    """P(X >= k) for X binomial with n trials of probability p (0 < p < 1)."""
    if not 0 <= k <= n or not 0 < p < 1:
        raise MedXpertQAError(f"{k} of {n} at {p}: needed: 0 to n right, a probability between 0 and 1")
    whole = lgamma(n + 1)
    return min(
        1.0,
        fsum(
            exp(whole - lgamma(i + 1) - lgamma(n - i + 1) + i * log(p) + (n - i) * log1p(-p))
            for i in range(k, n + 1)
        ),
    )
