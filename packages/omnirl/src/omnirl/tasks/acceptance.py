"""Which candidates of AnyMDP become tasks (section 2.1, steps 8 and 9), and their terminal rewards."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from omnirl.tasks.anymdp import PASSES, STARTS, Candidates
from omnirl.tasks.solver import Dynamics, chain_of, expect, optimal_values
from omnirl.tasks.task import Floats, Ints

GAMMA = 0.99
"""The discount of the adjustment; the filters use 2^(-1/S)."""

LEAST_GAIN = 2.0
LEAST_GINI = 0.70
LEAST_ENTROPY = 0.35
LARGEST_VARIANCE = 1e-6

_LAST_DOUBLINGS = 4  # of the chain's power are cheaper as 16 products with the three start rows alone


@dataclass(frozen=True)
class Adjusted:
    """Candidates after step 8: the rewards of pitfalls and of the last state (B,), the expected rewards under
    them (B, n, A), the values V_0.99 (B, n), and whether all came right (B,)."""

    right: NDArray[np.bool_]
    pit: Floats
    goal: Floats
    reward: Floats
    values: Floats


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
    chosen = candidates.part(rows)
    adjusted = adjust(chosen)
    term = terminal_rewards(chosen, adjusted.pit, adjusted.goal)
    kept = np.flatnonzero(adjusted.right)
    rows, chosen, term = rows[kept], chosen.part(kept), term[kept]
    tally["terminal rewards"] += len(rows)
    gained, policy = gains(chosen, adjusted.reward[kept], max_steps[rows], adjusted.values[kept])
    kept = np.flatnonzero(gained)
    rows, chosen, term = rows[kept], chosen.part(kept), term[kept]
    tally["gain over random"] += len(rows)
    kept = np.flatnonzero(spreads(chosen, policy[kept], max_steps[rows]))
    tally["spread of visits"] += len(kept)
    return rows[kept], term[kept]


def terminal_rewards(candidates: Candidates, pit: Floats, goal: Floats) -> Floats:
    """Return term(s') (B, n): `pit` (B,) at pitfalls, `goal` (B,) at the last state, 0 elsewhere."""
    return _pitfalls(candidates) * pit[:, None] + _last(candidates) * goal[:, None]


def adjust(candidates: Candidates) -> Adjusted:
    """Lower the pitfalls below every state and raise the last state above every start, in up to 5 passes."""
    pitfalls, last = _pitfalls(candidates), _last(candidates)
    parts = expect(candidates.transition, np.stack([candidates.reward_to, pitfalls, last], axis=-1))
    reward = candidates.reward_from + parts[..., 0] + parts[..., 2]
    to_pit, to_last = parts[..., 1], parts[..., 2]
    goes_on = (~candidates.terminal).astype(np.float64)
    has_pit = pitfalls.sum(1) > 0
    count = len(has_pit)
    top = candidates.num_states - np.where(candidates.goal, 2, 1)
    pit, goal, values = np.zeros(count), np.ones(count), np.zeros(goes_on.shape)
    active, stale, right = np.arange(count), np.arange(count), np.zeros(count, bool)
    for number in range(PASSES):
        dynamics = Dynamics(candidates.transition, reward, goes_on).part(stale)
        guess = values[stale] if number else None
        values[stale] = optimal_values(dynamics, np.full(len(stale), GAMMA), guess)[1]
        lowest = np.where(candidates.live[active], values[active], np.inf).min(1)
        highest_start = np.where(candidates.start_probs[active] > 0, values[active], -np.inf).max(1)
        too_high = pit[active] - lowest + 1
        too_low = highest_start - values[active, top[active]] + candidates.margin[active, number]
        wrong = (too_high > 0) | (too_low > 0)
        right[active[~wrong]] = True
        active, too_high, too_low = active[wrong], too_high[wrong], too_low[wrong]
        if number == PASSES - 1 or not len(active):
            break
        drop = np.where((too_high > 0) & has_pit[active], too_high + candidates.pit_step[active, number], 0)
        rise = np.maximum(2 * too_low, candidates.goal_step[active, number]) * (too_low > 0)
        rise *= np.where(candidates.goal[active], 1.0, 1 - GAMMA)
        pit[active] -= drop
        goal[active] += rise
        reward[active] += rise[:, None, None] * to_last[active] - drop[:, None, None] * to_pit[active]
        stale = active[(drop > 0) | (rise > 0)]
    return Adjusted(right, pit, goal, reward, values)


def gains(
    candidates: Candidates, reward: Floats, max_steps: Floats, values: Floats
) -> tuple[NDArray[np.bool_], Ints]:
    """Return which (B,) let the best policy earn 2 more than the random one from every start (step 9a).

    Also returns the greedy policy (B, n) of γ = 2^(-1/S). `reward` (B, n, A) are the expected rewards,
    `values` a guess of the values.
    """
    dynamics = Dynamics(candidates.transition, reward, (~candidates.terminal).astype(np.float64))
    gamma = 2.0 ** (-1 / candidates.num_states)
    _, best, policy = optimal_values(dynamics, gamma, values)
    discount = gamma[:, None, None]
    random_values = dynamics.policy_values(dynamics.transition.mean(2), reward.mean(2), discount)
    random = dynamics.action_values(random_values, discount).max(-1)
    gain = (best - random)[:, :STARTS] * ((1 - gamma) * max_steps)[:, None]
    return ((gain >= LEAST_GAIN) | (candidates.start_probs[:, :STARTS] == 0)).all(1), policy


def spreads(candidates: Candidates, policy: Ints, max_steps: Floats) -> NDArray[np.bool_]:
    """Return which (B,) make the best policy visit many states, from every start (step 9b)."""
    chain = restarting(chain_of(candidates.transition, policy), candidates)
    rows = start_rows_of_power(chain, _doublings(max_steps))
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


def _last(candidates: Candidates) -> NDArray[np.bool_]:
    return np.equal(np.arange(candidates.live.shape[1]), candidates.num_states[:, None] - 1)


def _pitfalls(candidates: Candidates) -> NDArray[np.bool_]:
    return candidates.terminal & ~(_last(candidates) & candidates.goal[:, None])
