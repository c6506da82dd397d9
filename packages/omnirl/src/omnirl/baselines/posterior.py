"""The posterior of a normal mean whose variance is unknown too (normal-inverse-gamma prior)."""

from __future__ import annotations

from omnirl.baselines.learner import Floats


def mean_posterior(
    moments: Floats, *, mean: Floats | float, weight: float, shape: float, scale: Floats | float
) -> tuple[Floats, Floats, Floats]:
    """Location, scale and degrees of freedom, each of shape (...), of the Student t that the mean follows.

    `moments` (3, ...): how many values were seen, their sum, the sum of their squares. The prior is
    N(`mean`, v / `weight`) for the mean, inverse gamma(`shape`, `scale`) for the variance v.
    """
    number, total, squares = moments
    weights = weight + number
    centre = (weight * mean + total) / weights
    shapes = shape + number / 2
    spread = squares + weight * mean**2 - weights * centre**2
    return centre, ((scale + spread.clip(0) / 2) / (shapes * weights)) ** 0.5, 2 * shapes
