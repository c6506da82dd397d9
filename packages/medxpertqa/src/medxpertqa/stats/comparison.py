"""Two accuracies: on the same questions, on others, and as published percentages."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from math import comb, sqrt

import numpy as np
from numpy.typing import ArrayLike

from medxpertqa.errors import MedXpertQAError
from medxpertqa.stats.distributions import normal_quantile, two_sided
from medxpertqa.stats.intervals import Interval, cluster_bootstrap, cluster_standard_error

Share = tuple[int, int]
"""(right, of how many)."""


@dataclass(frozen=True)
class Difference:
    """First minus second, as a share, its confidence interval and the p-value of no difference."""

    difference: float
    ci: Interval
    p_value: float


def mcnemar(b: int, c: int, *, mid_p: bool = False) -> float:
    """The exact two-sided p-value for b questions that only the first and c that only the second got right.

    min(1, 2 P(X <= min(b, c))) for X binomial with b + c trials of 1/2; `mid_p` counts P(X = min) half.
    """
    if b < 0 or c < 0:
        raise MedXpertQAError(f"{b} and {c} discordant questions; needed: two counts")
    n, least = b + c, min(b, c)
    tail = sum(comb(n, i) for i in range(least + 1))  # whole numbers: exact for any n
    doubled = 2 * tail - (comb(n, least) if mid_p else 0)
    return min(1.0, doubled / 2**n)


def paired_difference(
    first: ArrayLike, second: ArrayLike, clusters: Sequence[Hashable] | None = None, *, seed: int = 0
) -> Difference:
    """Compare the scores of two runs on the same questions: (n,) each, 0, 1 or a mean over epochs.

    The difference of the means, its percentile interval by a paired (and, with `clusters`, a cluster)
    bootstrap, and McNemar's exact p-value. Scores that are no 0 or 1 give b = questions on which the first is
    better and c = worse, which makes it the sign test.
    """
    one, two = np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)
    if one.shape != two.shape:
        raise MedXpertQAError(f"the runs have {one.size} and {two.size} questions; needed: the same ones")
    change = one - two
    p_value = mcnemar(int((change > 0).sum()), int((change < 0).sum()))
    return Difference(float(change.mean()), cluster_bootstrap(change, clusters, seed=seed), p_value)


def interaction(
    first: ArrayLike, second: ArrayLike, clusters: Sequence[Hashable] | None = None, confidence: float = 0.95
) -> Difference:
    """How much more two runs differ on some questions, `first` (n,), than on others, `second` (m,).

    Both hold each question's score in one run less that in the other. The difference of their means by Wald,
    with the cluster-robust standard error; `clusters` has n + m entries, those of `first` before the others.
    """
    groups = [np.asarray(values, dtype=np.float64) for values in (first, second)]
    if not all(values.size for values in groups):
        raise MedXpertQAError("an interaction needs questions of both kinds")
    value = float(groups[0].mean() - groups[1].mean())
    # n times the mean of these is the difference of the means, less itself.
    residuals = [(values - values.mean()) / values.size for values in groups]
    signed = np.concatenate([residuals[0], -residuals[1]])
    error = signed.size * cluster_standard_error(signed, clusters)
    reach = normal_quantile((1 + confidence) / 2) * error
    return Difference(
        value, Interval(value - reach, value + reach), two_sided(value / error) if error else 1.0
    )


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's adjusted p-values, in the order given: the step-down maximum of (m - rank) p, at most 1."""
    adjusted, least, m = [0.0] * len(p_values), 0.0, len(p_values)
    for rank, place in enumerate(sorted(range(m), key=p_values.__getitem__)):
        least = max(least, min(1.0, (m - rank) * p_values[place]))
        adjusted[place] = least
    return adjusted


def two_proportion(k1: int, n1: int, k2: int, n2: int, confidence: float = 0.95) -> Difference:
    """k1/n1 against k2/n2 on different questions: chi-squared without correction, and a Wald interval.

    The test pools the two shares for its variance, the interval does not.
    """
    p1, p2 = _share((k1, n1)), _share((k2, n2))
    pooled = (k1 + k2) / (n1 + n2)
    error = sqrt(pooled * (1 - pooled) * (1 / n1 + 1 / n2))
    p_value = two_sided((p1 - p2) / error) if error else 1.0
    return Difference(p1 - p2, _wald(p1 - p2, [(k1, n1), (k2, n2)], confidence)[0], p_value)


def diff_in_diff(a1: Share, a0: Share, b1: Share, b0: Share, confidence: float = 0.95) -> Difference:
    """(a1 - a0) - (b1 - b0), each (right, of how many) on its own questions; Wald, not pooled."""
    value = _share(a1) - _share(a0) - (_share(b1) - _share(b0))
    interval, error = _wald(value, [a1, a0, b1, b0], confidence)
    return Difference(value, interval, two_sided(value / error) if error else 1.0)


def _share(share: Share) -> float:
    k, n = share
    if not 0 <= k <= n or n < 1:
        raise MedXpertQAError(f"{k} right out of {n} is not possible")
    return k / n


def _wald(value: float, shares: Sequence[Share], confidence: float) -> tuple[Interval, float]:
    error = sqrt(sum(k / n * (1 - k / n) / n for k, n in shares))
    reach = normal_quantile((1 + confidence) / 2) * error
    return Interval(value - reach, value + reach), error
