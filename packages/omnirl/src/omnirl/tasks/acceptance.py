"""Which candidates of AnyMDP become tasks (section 2.1, steps 8 and 9), and their terminal rewards."""

from __future__ import annotations

from collections import Counter

import numpy as np
from numpy.typing import NDArray

from omnirl.tasks.anymdp import PASSES, STARTS, Candidates
from omnirl.tasks.solver import Dynamics, optimal_values
from omnirl.tasks.task import Floats, Ints

GAMMA = 0.99
"""The discount of the adjustment; the filters use 2^(-1/S)."""

LEAST_GAIN = 2.0
LEAST_GINI = 0.70
LEAST_ENTROPY = 0.35
LARGEST_VARIANCE = 1e-6

_LAST_DOUBLINGS = 4  # of the chain's power are cheaper as 16 products with the three start rows alone


def accept(
    candidates: Candidates, max_steps: Floats, strict: bool, tally: Counter[str]
) -> tuple[Ints, Floats]:
    """Return the indices (M,) of accepted candidates and their terminal rewards (M, n).

    `max_steps` (B,) are the real numbers before rounding. `tally` counts the candidates, and how many of them
    passed each filter in turn.
    """
    rows = np.arange(len(max_steps))
    tally["candidates"] += len(rows)
    if strict:
        rows = rows[mixes(candidates, max_steps)]
        tally["ergodicity (strict_paper)"] += len(rows)
    kept, pit, goal, values = adjust(candidates[rows])
    rows, pit, goal, values = rows[kept], pit[kept], goal[kept], values[kept]
    tally["terminal rewards"] += len(rows)
    if not len(rows):
        return rows, np.zeros((0, candidates.live.shape[1]))
    chosen = candidates[rows]
    gained, policy = gains(chosen, pit, goal, max_steps[rows], values)
    rows, pit, goal = rows[gained], pit[gained], goal[gained]
    tally["gain over random"] += len(rows)
    spread = spreads(candidates[rows], policy[gained], max_steps[rows])
    rows, pit, goal = rows[spread], pit[spread], goal[spread]
    tally["spread of visits"] += len(rows)
    return rows, terminal_rewards(candidates[rows], pit, goal)


def terminal_rewards(candidates: Candidates, pit: Floats, goal: Floats) -> Floats:
    """Return term(s') (B, n): `pit` (B,) at pitfalls, `goal` (B,) at the last state, 0 elsewhere."""
    return _pitfalls(candidates) * pit[:, None] + _last(candidates) * goal[:, None]


def adjust(candidates: Candidates) -> tuple[Ints, Floats, Floats, Floats]:
    """Lower the pitfalls below every state and raise the last state above every start (step 8).

    Returns the indices (M,) of the candidates that came right within 5 passes; then, for all B, the rewards
    of pitfalls and of the last state (B,), and the values V_0.99 (B, n) under them.
    """
    base = _dynamics(candidates)
    pitfalls, last = _pitfalls(candidates), _last(candidates)
    to_pit = np.matmul(candidates.transition, pitfalls[:, None, :, None].astype(float))[..., 0]
    to_last = np.matmul(candidates.transition, last[:, None, :, None].astype(float))[..., 0]
    has_pit = pitfalls.sum(1) > 0
    count = len(candidates.goal)
    top = candidates.num_states - np.where(candidates.goal, 2, 1)
    pit, goal, values = np.zeros(count), np.ones(count), np.zeros(candidates.live.shape)
    active, stale, right = np.arange(count), np.ones(count, bool), np.zeros(count, bool)
    for number in range(PASSES):
        again = active[stale[active]]
        reward = (
            base.reward[again]
            + pit[again, None, None] * to_pit[again]
            + goal[again, None, None] * to_last[again]
        )
        dynamics = Dynamics(candidates.transition[again], reward, base.goes_on[again])
        guess = values[again] if number else None
        values[again] = optimal_values(dynamics, np.full(len(again), GAMMA), guess)[1]
        lowest = np.where(candidates.live[active], values[active], np.inf).min(1)
        highest_start = np.where(candidates.start_probs[active] > 0, values[active], -np.inf).max(1)
        too_high = pit[active] - lowest + 1
        too_low = highest_start - values[active, top[active]] + candidates.margin[active, number]
        done = (too_high <= 0) & (too_low <= 0)
        right[active[done]] = True
        active, too_high, too_low = active[~done], too_high[~done], too_low[~done]
        if number == PASSES - 1 or not len(active):
            break
        lower = (too_high > 0) & has_pit[active]
        pit[active] -= np.where(lower, too_high + candidates.pit_step[active, number], 0)
        rise = np.maximum(2 * too_low, candidates.goal_step[active, number])
        rise *= np.where(candidates.goal[active], 1.0, 1 - GAMMA)
        goal[active] += np.where(too_low > 0, rise, 0)
        stale[active] = lower | (too_low > 0)
    return np.flatnonzero(right), pit, goal, values


def gains(
    candidates: Candidates, pit: Floats, goal: Floats, max_steps: Floats, values: Floats
) -> tuple[NDArray[np.bool_], Ints]:
    """Return which (B,) let the best policy earn 2 more than the random one from every start (step 9a).

    Also returns the greedy policy (B, n) of γ = 2^(-1/S). `values` is a guess of its values.
    """
    base = _dynamics(candidates)
    worth = np.matmul(candidates.transition, terminal_rewards(candidates, pit, goal)[:, None, :, None])
    dynamics = Dynamics(base.transition, base.reward + worth[..., 0], base.goes_on)
    gamma = 2.0 ** (-1 / candidates.num_states)
    _, best, policy = optimal_values(dynamics, gamma, values)
    discount = gamma[:, None, None]
    chain, reward = dynamics.transition.mean(2), dynamics.reward.mean(2)
    random = dynamics.action_values(dynamics.policy_values(chain, reward, discount), discount).max(-1)
    gain = (best - random)[:, :STARTS] * ((1 - gamma) * max_steps)[:, None]
    return ((gain >= LEAST_GAIN) | (candidates.start_probs[:, :STARTS] == 0)).all(1), policy


def spreads(candidates: Candidates, policy: Ints, max_steps: Floats) -> NDArray[np.bool_]:
    """Return which (B,) make the best policy visit many states, from every start (step 9b)."""
    chain = np.take_along_axis(candidates.transition, policy[..., None, None], axis=2)[:, :, 0]
    rows = start_rows_of_power(restarting(chain, candidates), _doublings(max_steps))
    gini = 1 - (rows * rows).sum(-1)
    entropy = -(rows * np.log(np.maximum(rows, 1e-300))).sum(-1) / np.log(candidates.num_states)[:, None]
    wide = (gini > LEAST_GINI) & (entropy > LEAST_ENTROPY)
    return (wide | (candidates.start_probs[:, :STARTS] == 0)).all(1)


def mixes(candidates: Candidates, max_steps: Floats) -> NDArray[np.bool_]:
    """Return which (B,) forget their start under p̂: the paper's ergodicity test, not in its code."""
    chain = restarting(candidates.weights, candidates)
    rows = start_rows_of_power(chain, _doublings(max_steps))
    started = candidates.start_probs[:, :STARTS, None] > 0
    count = started.sum(1, keepdims=True)
    mean = (rows * started).sum(1, keepdims=True) / count
    variance = (((rows - mean) * started) ** 2).sum(1) / count[:, 0]
    return variance.max(1) < LARGEST_VARIANCE


def restarting(chain: Floats, candidates: Candidates) -> Floats:
    """Return `chain` (B, n, n) with the start distribution in the rows of terminal states."""
    return np.where(candidates.terminal[..., None], candidates.start_probs[:, None, :], chain)


def start_rows_of_power(chain: Floats, doublings: Ints) -> Floats:
    """Return the three first rows (B, 3, n) of chain^(2^doublings), by squaring."""
    power = chain.copy()
    for number in range(int(doublings.max(initial=0)) - _LAST_DOUBLINGS):
        going = np.flatnonzero(number < doublings - _LAST_DOUBLINGS)
        power[going] = np.matmul(power[going], power[going])
    rows = power[:, :STARTS]
    for _ in range(2**_LAST_DOUBLINGS - 1):
        rows = np.matmul(rows, power)
    return rows


def _doublings(max_steps: Floats) -> Ints:
    return np.log2(max_steps).astype(np.int64) + 1


def _dynamics(candidates: Candidates) -> Dynamics:
    """Transitions and expected rewards without terminal rewards."""
    arrival = np.matmul(candidates.transition, candidates.reward_to[:, None, :, None])[..., 0]
    reward = candidates.reward_from + arrival
    return Dynamics(candidates.transition, reward, (~candidates.terminal).astype(np.float64))


def _last(candidates: Candidates) -> NDArray[np.bool_]:
    return np.equal(np.arange(candidates.live.shape[1]), candidates.num_states[:, None] - 1)


def _pitfalls(candidates: Candidates) -> NDArray[np.bool_]:
    return candidates.terminal & ~(_last(candidates) & candidates.goal[:, None])
