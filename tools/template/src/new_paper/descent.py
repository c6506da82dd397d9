"""Gradient descent and the heavy ball, with the step sizes that are best on quadratics.

    x_{t+1} = x_t - α ∇f(x_t) + β (x_t - x_{t-1})

For f with curvature between μ and L, and κ = L/μ, the best α, β make the error shrink a step by

    gradient descent (β = 0)   α = 2/(L + μ)            (κ - 1)/(κ + 1)
    heavy ball                 α = 4/(√L + √μ)²,         (√κ - 1)/(√κ + 1) = √β
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import sqrt

import numpy as np
from numpy.typing import NDArray

from new_paper.errors import NewPaperError

Vector = NDArray[np.float64]


@dataclass(frozen=True)
class Steps:
    """The two numbers of the update, and the factor by which it shrinks the error a step."""

    step_size: float
    momentum: float
    contraction: float


def gradient_descent(mu: float, lipschitz: float) -> Steps:
    """Return the best steps without momentum for curvature in [mu, lipschitz].

    Raises `NewPaperError` unless 0 < mu <= lipschitz.
    """
    _check_curvature(mu, lipschitz)
    return Steps(2 / (lipschitz + mu), 0.0, (lipschitz - mu) / (lipschitz + mu))


def heavy_ball(mu: float, lipschitz: float) -> Steps:
    """Return the best steps with momentum for curvature in [mu, lipschitz].

    Raises `NewPaperError` unless 0 < mu <= lipschitz.
    """
    _check_curvature(mu, lipschitz)
    contraction = (sqrt(lipschitz) - sqrt(mu)) / (sqrt(lipschitz) + sqrt(mu))
    return Steps(4 / (sqrt(lipschitz) + sqrt(mu)) ** 2, contraction**2, contraction)


def descend(gradient: Callable[[Vector], Vector], start: Vector, steps: Steps, *, count: int) -> Vector:
    """Return the path of `count` updates from `start`: shape (count + 1, *start.shape).

    Raises `NewPaperError` if `count` is negative.
    """
    if count < 0:
        raise NewPaperError(f"count is {count}; it must be 0 or more")
    path = np.empty((count + 1, *start.shape))
    path[0] = before = start
    for t in range(count):
        path[t + 1] = path[t] - steps.step_size * gradient(path[t]) + steps.momentum * (path[t] - before)
        before = path[t]
    return path


def _check_curvature(mu: float, lipschitz: float) -> None:
    if not 0 < mu <= lipschitz:
        raise NewPaperError(
            f"the curvature goes from mu={mu} to lipschitz={lipschitz}; needed: 0 < mu <= lipschitz"
        )
