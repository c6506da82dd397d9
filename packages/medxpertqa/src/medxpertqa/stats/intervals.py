"""Confidence intervals of one accuracy, with and without clusters of questions, and what n can show."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from math import sqrt
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from medxpertqa.errors import MedXpertQAError
from medxpertqa.stats.distributions import normal_quantile

_BLOCK = 4_000_000  # counts held at once: 32 MB


class Interval(NamedTuple):
    """Lower and upper end."""

    low: float
    high: float


def wilson(k: float, n: int, confidence: float = 0.95) -> Interval:
    """Wilson's score interval of k right out of n, as shares.

    Raises `MedXpertQAError` unless 0 <= k <= n and n > 0.
    """
    if not 0 <= k <= n or n < 1:
        raise MedXpertQAError(f"{k} right out of {n} is not possible")
    z = normal_quantile((1 + confidence) / 2)
    centre, spread = k + z * z / 2, z * sqrt(k * (n - k) / n + z * z / 4)
    # Rounding must not leave the ends that are 0 and 1 exactly a hair inside.
    low = 0.0 if k == 0 else (centre - spread) / (n + z * z)
    return Interval(low, 1.0 if k == n else (centre + spread) / (n + z * z))


def cluster_bootstrap(
    values: ArrayLike,
    clusters: Sequence[Hashable] | None = None,
    *,
    draws: int = 10_000,
    confidence: float = 0.95,
    seed: int = 0,
) -> Interval:
    """Percentile interval of the mean of `values` (n,) when whole clusters are drawn with replacement.

    `clusters` has the cluster of each value (None: each its own). A draw's mean is the sum of its clusters'
    sums over the sum of their sizes. Clusters with the same sum and size are interchangeable, so each draw is
    one multinomial sample over the distinct (sum, size), which has exactly the distribution of drawing
    clusters one by one.
    """
    sums, sizes = _cluster_sums(values, clusters)
    kinds, times = np.unique(np.stack([sums, sizes], axis=1), axis=0, return_counts=True)
    generator, share = np.random.default_rng(seed), times / times.sum()
    means = np.empty(draws)
    block = max(_BLOCK // len(kinds), 1)
    for start in range(0, draws, block):
        counts = generator.multinomial(len(sums), share, size=min(block, draws - start))
        drawn = counts @ kinds
        means[start : start + len(drawn)] = drawn[:, 0] / drawn[:, 1]
    low, high = np.quantile(means, [(1 - confidence) / 2, (1 + confidence) / 2])
    return Interval(float(low), float(high))


def cluster_standard_error(values: ArrayLike, clusters: Sequence[Hashable] | None = None) -> float:
    """sqrt(sum over clusters of (sum of residuals)^2) / n, the cluster-robust standard error of the mean."""
    sums, sizes = _cluster_sums(values, clusters)
    n = sizes.sum()
    return float(np.sqrt(np.sum((sums - sizes * sums.sum() / n) ** 2)) / n)


def minimum_detectable(
    n: int, p: float, power: float = 0.8, *, alpha: float = 0.05, correlation: float | None = None
) -> float:
    """The smallest difference of accuracies that a two-sided test on n questions finds with that power.

    (z_{1-alpha/2} + z_power) s / sqrt(n), with s^2 = p (1 - p) for one run of accuracy p against a fixed
    value, and s^2 = 2 p (1 - p) (1 - correlation) for two runs on the same questions, where `correlation` is
    that of their being right (0: as good as other questions).
    """
    if n < 1 or not 0 < p < 1 or not 0 < power < 1 or not 0 < alpha < 1:
        raise MedXpertQAError(
            f"n={n}, p={p}, power={power}, alpha={alpha}: n must be positive, the others in (0, 1)"
        )
    variance = p * (1 - p)
    if correlation is not None:
        if not -1 <= correlation <= 1:
            raise MedXpertQAError(f"correlation is {correlation}; it must be -1 to 1")
        variance *= 2 * (1 - correlation)
    return (normal_quantile(1 - alpha / 2) + normal_quantile(power)) * sqrt(variance / n)


def _cluster_sums(
    values: ArrayLike, clusters: Sequence[Hashable] | None
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The sum and the size of every cluster, each (number of clusters,)."""
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 1 or not array.size:
        raise MedXpertQAError(f"values has the shape {array.shape}; needed: (n,) with n at least 1")
    if clusters is None:
        return array, np.ones_like(array)
    if len(clusters) != len(array):
        raise MedXpertQAError(f"there are {len(array)} values and {len(clusters)} clusters")
    numbers: dict[Hashable, int] = {}
    place = np.array([numbers.setdefault(cluster, len(numbers)) for cluster in clusters])
    return (
        np.bincount(place, weights=array).astype(np.float64),
        np.bincount(place).astype(np.float64),
    )
