"""Fifteen numbers that describe a sampled task: what two samplers are compared by, law against law."""

from __future__ import annotations

import numpy as np

from omnirl.tasks.batch import TaskBatch
from omnirl.tasks.solver import Dynamics, optimal_values
from omnirl.tasks.task import Floats

_GAMMA = 0.99


def task_statistics(tasks: TaskBatch) -> dict[str, Floats]:
    """Return the statistics (N,) by name; live states are those that are neither terminal nor padding.

    n_terminal: terminals / S. goal: the last state is terminal. n_start: number of start states. max_steps:
    half below the limit, where the real number that was rounded up lies on average. abs_r_max, r_std: max |μ|
    and std of μ(s, a, s') over live s. r_mean: mean over live (s, a) of the expected reward. noise_mean: mean
    noise over live s. row_entropy: mean entropy (nats) of live P(.|s, a). successors: mean number of s' with
    P > 1e-6. kappa: V* of the highest non-goal state minus its largest value at a start. v_gap: mean over
    starts of V* minus that of max_a Q_uniform. log10_sd_ratio: log10 of the largest over the smallest (at
    least 1e-12) probability of `visits`. value_rarity_rank_corr: correlation of the ranks of V* and of
    -visits over live states. forward_prob: mean over live s < S - 1 of the uniform policy's mass on s' > s.
    Values are for γ = 0.99.
    """
    size = tasks.num_states
    s = np.arange(tasks.terminal.shape[1])
    real = s < size[:, None]
    live = real & ~tasks.terminal
    starts = tasks.start_probs > 0
    dynamics = Dynamics.of(tasks)
    values = optimal_values(dynamics, np.full(len(tasks), _GAMMA))[1]
    chain, reward = dynamics.transition.mean(2), dynamics.reward.mean(2)
    random = dynamics.action_values(dynamics.policy_values(chain.copy(), reward, _GAMMA), _GAMMA).max(-1)
    top = size - np.where(tasks.goal_terminates, 2, 1)
    table = live[..., None, None] & real[:, None, None, :]
    probs, visited = tasks.transition, visits(tasks)
    entropy = -(probs * np.log(np.where(probs > 0, probs, 1))).sum(-1)
    not_last = live & (s < size[:, None] - 1)
    mean_reward = _mean(tasks.reward, table)
    rarest = np.where(real, visited, np.inf).min(1)
    return {
        "n_terminal": tasks.terminal.sum(1) / size,
        "goal": tasks.goal_terminates.astype(np.float64),
        "n_start": starts.sum(1).astype(np.float64),
        "max_steps": tasks.max_steps - 0.5,
        "abs_r_max": (np.abs(tasks.reward) * table).max((1, 2, 3)),
        "r_mean": _mean(dynamics.reward, live[..., None]),
        "r_std": np.sqrt(_mean((tasks.reward - mean_reward[:, None, None, None]) ** 2, table)),
        "noise_mean": _mean(tasks.reward_noise, table),
        "row_entropy": _mean(entropy, live[..., None]),
        "successors": _mean((probs > 1e-6).sum(-1).astype(np.float64), live[..., None]),
        "kappa": values[np.arange(len(size)), top] - np.where(starts, values, -np.inf).max(1),
        "v_gap": _mean(values - random, starts),
        "log10_sd_ratio": np.log10(visited.max(1) / np.maximum(rarest, 1e-12)),
        "value_rarity_rank_corr": _rank_correlation(values, -visited, live),
        "forward_prob": _mean((chain * (s > s[:, None])).sum(-1), not_last),
    }


def visits(tasks: TaskBatch, steps: int = 4096) -> Floats:
    """Return (N, S): where the uniform policy is after `steps` steps; from terminal states it starts again.

    `steps` is a power of two.
    """
    chain = tasks.transition.mean(2)
    chain = np.where(tasks.terminal[..., None], tasks.start_probs[:, None, :], chain)
    for _ in range(steps.bit_length() - 1):
        chain = np.matmul(chain, chain)
    return np.matmul(tasks.start_probs[:, None, :], chain)[:, 0]


def _mean(values: Floats, where: np.ndarray) -> Floats:
    """Mean over all axes but the first of the entries where `where` (broadcast) is True."""
    where = np.broadcast_to(where, values.shape)
    axes = tuple(range(1, values.ndim))
    result: Floats = np.where(where, values, 0.0).sum(axes) / where.sum(axes)
    return result


def _rank_correlation(one: Floats, other: Floats, where: np.ndarray) -> Floats:
    """Pearson's correlation of ranks (N,), over the entries of each row that count."""
    count = where.sum(1)
    ranks = []
    for values in (one, other):
        order = np.where(where, values, np.inf).argsort(1)
        rank = np.empty(values.shape)
        np.put_along_axis(rank, order, np.arange(values.shape[1], dtype=np.float64)[None], axis=1)
        ranks.append(np.where(where, rank - (count[:, None] - 1) / 2, 0.0))
    product = (ranks[0] * ranks[1]).sum(1)
    return product / np.sqrt((ranks[0] ** 2).sum(1) * (ranks[1] ** 2).sum(1))
