"""Q-learning as released with the paper's worlds (xenoverse, `AnyMDPSolverQ`), for N worlds at once."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from omnirl.baselines.learner import Bools, Floats, Ints, TabularLearner, per_row

_STIFFEST = 10.0
_LEAST_STD = 0.01


class ReleasedQLearning(TabularLearner):
    """The class of xenoverse 0.1.14.0: weak, and kept because the paper compares with it.

    Q starts at 1/(1-gamma). With n_sa = 1 + visits of (s, a) and M = `horizon`,

        Q(s, a) += alpha sqrt((M+1)/(M+n_sa)) (r + gamma max Q(s') - Q(s, a))
        pi(a|s) ~ exp((Q - max Q) / max(std, 0.01) min((M+n_s)/(M+1), 10))

    std over the actions of s; at an end the target is r, and Q[s'] := 0 unless s' is s: the released line
    would wipe what it learns of a bandit, whose only state every step begins and ends in.
    `alpha`, `gamma` and `horizon` are numbers, or arrays (N,) with one a world; `q` (N, S, A) is the table.
    """

    def __init__(
        self,
        num_states: int,
        num_actions: int,
        *,
        alpha: ArrayLike = 0.5,
        gamma: ArrayLike = 0.99,
        horizon: ArrayLike = 4000,
        seed: int = 0,
    ) -> None:
        super().__init__(num_states, num_actions, seed=seed)
        self.alpha, self.gamma, self.horizon = alpha, gamma, horizon

    def _begin(self) -> None:
        shape = (self.num_envs, self.num_states, self.num_actions)
        optimism = 1.0 / (1.0 - np.asarray(self.gamma, np.float64))
        self.q = np.broadcast_to(optimism.reshape(-1, 1, 1), shape).copy()
        self.visits = np.ones(shape)
        self.state_visits = np.ones(shape[:2])

    def policy(self, obs: Ints) -> Floats:
        """Action probabilities (N, A) at observation ids (N,)."""
        rows = np.arange(len(obs))
        value = self.q[rows, obs]
        value = value - value.max(-1, keepdims=True)
        horizon = per_row(self.horizon, rows)
        stiffness = np.minimum((horizon + self.state_visits[rows, obs]) / (horizon + 1), _STIFFEST)
        scale = stiffness / np.maximum(value.std(-1), _LEAST_STD)
        weights = np.exp(value * scale[:, None])
        return weights / weights.sum(-1, keepdims=True)

    def _choose(self, obs: Ints, greedy: bool) -> Ints:
        if greedy:
            return self.q[np.arange(len(obs)), obs].argmax(-1)
        cdf = self.policy(obs).cumsum(-1)
        return (self.rng.random((len(obs), 1)) * cdf[:, -1:] >= cdf).sum(-1)

    def _learn(
        self, rows: Ints, obs: Ints, action: Ints, reward: Floats, next_obs: Ints, terminated: Bools
    ) -> None:
        absorbed = terminated & (next_obs != obs)
        self.q[rows[absorbed], next_obs[absorbed]] = 0.0
        horizon = per_row(self.horizon, rows)
        rate = per_row(self.alpha, rows) * np.sqrt((horizon + 1) / (horizon + self.visits[rows, obs, action]))
        target = reward + per_row(self.gamma, rows) * self.q[rows, next_obs].max(-1) * ~terminated
        self.q[rows, obs, action] += rate * (target - self.q[rows, obs, action])
        self.visits[rows, obs, action] += 1
        self.state_visits[rows, obs] += 1
