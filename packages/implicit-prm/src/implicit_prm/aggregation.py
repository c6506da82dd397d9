"""One score of a response from the rewards of its steps (section 2.4).

With R_1..R_S the step rewards and q_s = R_1 + ... + R_s:

    min            min_s R_s           the paper's; long responses have more steps that may be the lowest
    sum            q_S = h             the outcome reward
    mean           h / S
    last           R_S
    last_q         q_S                 the same number as sum, by its name in the evaluation of Q-values
    min_q          min_s q_s           "accumulative" in the official scripts
    softmin(tau)   -tau log mean_s exp(-R_s / tau)     min for tau -> 0, mean for tau -> infinity
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from implicit_prm.errors import ImplicitPRMError

Floats = npt.NDArray[np.float64]

AGGREGATIONS = ("min", "sum", "mean", "last", "last_q", "min_q", "softmin(TAU)")


def aggregate(step_rewards: npt.ArrayLike, how: str = "min") -> float:
    """The score of one response of S steps, `step_rewards` [S]; `how` is one of the names above.

    Raises `ImplicitPRMError` for another name, for no steps and for rewards that are not finite.
    """
    return float(aggregate_all([step_rewards], how)[0])


def aggregate_all(step_rewards: Sequence[npt.ArrayLike] | npt.NDArray[Any], how: str = "min") -> Floats:
    """The scores of many responses, float64: an array [..., S] gives [...], N sequences of any lengths [N].

    A response's score does not depend on what it is aggregated with, to the last bit. Raises as `aggregate`.
    """
    rule = _rule(how)
    rewards, lengths = _padded(step_rewards)
    return rule(rewards, lengths)


def _padded(step_rewards: Sequence[npt.ArrayLike] | npt.NDArray[Any]) -> tuple[Floats, npt.NDArray[np.intp]]:
    """Rewards [..., S], 0 beyond each response's own steps, and how many those are [...]."""
    if isinstance(step_rewards, np.ndarray) and step_rewards.ndim >= 2:
        rewards = step_rewards.astype(np.float64)
        lengths = np.full(rewards.shape[:-1], rewards.shape[-1], dtype=np.intp)
    else:
        rows = [np.asarray(row, dtype=np.float64) for row in step_rewards]
        for index, row in enumerate(rows):
            if row.ndim != 1:
                raise ImplicitPRMError(
                    f"response {index} has step rewards of shape {row.shape}; give a list of numbers for each"
                )
        lengths = np.array([len(row) for row in rows], dtype=np.intp)
        rewards = np.zeros((len(rows), max(lengths, default=0)))
        if rows:
            rewards[_inside(rewards, lengths)] = np.concatenate(rows)
    _check(rewards, lengths)
    return rewards, lengths


def _check(rewards: Floats, lengths: npt.NDArray[np.intp]) -> None:
    if not lengths.all():
        raise ImplicitPRMError(f"response {_first(lengths == 0)} has no steps, so it has no score")
    broken = np.any(~np.isfinite(rewards), axis=-1)
    if broken.any():
        raise ImplicitPRMError(
            f"response {_first(broken)} has a step reward that is not a finite number; score it again"
        )


def _first(wrong: npt.ArrayLike) -> str:
    """The place of the first True, as a reader counts it from 0: 3, or 1, 3 in a table."""
    return ", ".join(str(index) for index in np.argwhere(wrong)[0])


def _inside(rewards: Floats, lengths: npt.NDArray[np.intp]) -> npt.NDArray[np.bool_]:
    return np.less(np.arange(rewards.shape[-1]), lengths[..., None])


def _at_last(values: Floats, lengths: npt.NDArray[np.intp]) -> Floats:
    return np.take_along_axis(values, lengths[..., None] - 1, axis=-1)[..., 0]


def _sum(rewards: Floats, lengths: npt.NDArray[np.intp]) -> Floats:
    # In order from the first step: np.sum adds in an order that depends on the padding.
    return _at_last(rewards.cumsum(axis=-1), lengths)


def _lowest(values: Floats, lengths: npt.NDArray[np.intp]) -> Floats:
    return np.min(values, axis=-1, initial=np.inf, where=_inside(values, lengths))


def _soft_lowest(rewards: Floats, lengths: npt.NDArray[np.intp], tau: float) -> Floats:
    lowest = _lowest(rewards, lengths)
    # Relative to the lowest step no exponential overflows, and its own is exactly 1.
    excess = np.where(_inside(rewards, lengths), rewards - lowest[..., None], np.inf)
    return lowest - tau * np.log(_sum(np.exp(-excess / tau), lengths) / lengths)


_RULES: dict[str, Callable[[Floats, npt.NDArray[np.intp]], Floats]] = {
    "min": _lowest,
    "sum": _sum,
    "mean": lambda rewards, lengths: _sum(rewards, lengths) / lengths,
    "last": _at_last,
    "last_q": _sum,
    "min_q": lambda rewards, lengths: _lowest(rewards.cumsum(axis=-1), lengths),
}


def _rule(how: str) -> Callable[[Floats, npt.NDArray[np.intp]], Floats]:
    if how in _RULES:
        return _RULES[how]
    found = re.fullmatch(r"softmin\(\s*([0-9.]+(?:e[+-]?[0-9]+)?)\s*\)", how)
    try:
        tau = float(found[1]) if found else 0.0
    except ValueError:
        tau = 0.0
    if not 0 < tau < np.inf:
        raise ImplicitPRMError(
            f"no aggregation is called {how!r}; there are {', '.join(AGGREGATIONS)}, TAU a number above 0"
        )
    return lambda rewards, lengths: _soft_lowest(rewards, lengths, tau)
