"""Tabular conservative Q-learning (CQL, Kumar et al. 2020), offline then online, for N worlds at once."""

from __future__ import annotations

import numpy as np

from omnirl.baselines.learner import Bools, Floats, Ints, TabularLearner


class ConservativeQLearning(TabularLearner):
    """CQL on the empirical world: full-batch steps on the counts of all that was seen, no replay sampling.

    The loss is sum_sa n_sa (Q - T Q)^2 / 2 + c sum_s n_s (logsumexp Q(s, .) - sum_a b(a|s) Q(s, a)), with T
    the empirical Bellman operator, b = n_sa / n_s the data's policy and c = `conservatism`; the step of Q(s,
    .) is its gradient over n_s. Where all actions were seen it ends at Q = T Q - c (softmax(Q)/b - 1).
    `sweeps` steps follow each episode's end, of demonstrations too. It acts greedily but for a share
    `epsilon` of uniform actions.
    """

    def __init__(
        self,
        num_states: int,
        num_actions: int,
        *,
        gamma: float = 0.97,
        conservatism: float = 0.1,
        rate: float = 0.5,
        sweeps: int = 100,
        epsilon: float = 0.05,
        seed: int = 0,
    ) -> None:
        super().__init__(num_states, num_actions, seed=seed)
        self.gamma, self.conservatism, self.rate = gamma, conservatism, rate
        self.sweeps, self.epsilon = sweeps, epsilon

    def _begin(self) -> None:
        pairs = (self.num_envs, self.num_states, self.num_actions)
        self.q = np.zeros(pairs)
        self.counts = np.zeros((*pairs, self.num_states))
        self.reward_sum = np.zeros(pairs)
        self.ends = np.zeros(pairs[:2], bool)

    def _choose(self, obs: Ints, greedy: bool) -> Ints:
        best = self.q[np.arange(len(obs)), obs].argmax(-1)
        if greedy:
            return best
        explore = self.rng.random(len(obs)) < self.epsilon
        return np.where(explore, self.rng.integers(self.num_actions, size=len(obs)), best)

    def _learn(
        self, rows: Ints, obs: Ints, action: Ints, reward: Floats, next_obs: Ints, terminated: Bools
    ) -> None:
        self.counts[rows, obs, action, next_obs] += 1
        self.reward_sum[rows, obs, action] += reward
        self.ends[rows[terminated], next_obs[terminated]] = True

    def _end_episode(self, rows: Ints) -> None:
        self.fit(rows, self.sweeps)

    def fit(self, rows: Ints, sweeps: int) -> None:
        """Take `sweeps` gradient steps in the worlds `rows`."""
        counts = self.counts[rows]
        visits = counts.sum(-1)
        seen = np.maximum(visits, 1)
        reward = self.reward_sum[rows] / seen
        flow = counts / seen[..., None] * ~self.ends[rows][:, None, None, :]
        data_policy = visits / np.maximum(visits.sum(-1, keepdims=True), 1)
        known = visits.sum(-1, keepdims=True) > 0
        q = self.q[rows]
        for _ in range(sweeps):
            target = reward + self.gamma * (flow @ q.max(-1)[:, None, :, None])[..., 0]
            soft = np.exp(q - q.max(-1, keepdims=True))
            soft /= soft.sum(-1, keepdims=True)
            step = data_policy * (target - q) - self.conservatism * (soft - data_policy)
            q = q + self.rate * known * step
        self.q[rows] = q
