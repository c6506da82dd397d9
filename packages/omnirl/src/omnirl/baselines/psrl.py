"""Posterior-sampling reinforcement learning (Strens 2000; Osband et al. 2013), for N worlds at once."""

from __future__ import annotations

import numpy as np

from omnirl.baselines.learner import Bools, Floats, Ints, TabularLearner
from omnirl.baselines.posterior import mean_posterior
from omnirl.tasks.solver import Dynamics, optimal_values

_LEAST_STD = 0.01


class PSRL(TabularLearner):
    """A model-based learner: draw a world from the posterior, solve it, act as its optimum says, draw again.

    Posterior of P(.|s, a): Dirichlet(`prior` + counts). Of the mean reward of (s, a): Student t, from a
    normal-inverse-gamma prior around the mean of all rewards that the world has given so far, of weight
    `reward_weight`, shape 1 and a tenth of their variance as its scale. A state that ended an episode has
    value 0 from then on. A world is drawn anew after an episode's end and, as in TSDE (Ouyang et al. 2017),
    as soon as the visits of some (s, a) have doubled, so that worlds that never end are learnt too.
    """

    def __init__(
        self,
        num_states: int,
        num_actions: int,
        *,
        gamma: float = 0.95,
        prior: float = 0.03,
        reward_weight: float = 0.1,
        seed: int = 0,
    ) -> None:
        super().__init__(num_states, num_actions, seed=seed)
        self.gamma, self.prior, self.reward_weight = gamma, prior, reward_weight

    def _begin(self) -> None:
        pairs = (self.num_envs, self.num_states, self.num_actions)
        self.counts = np.zeros((*pairs, self.num_states))
        self.moments = np.zeros((3, *pairs))  # how many rewards, their sum, the sum of their squares
        self.ends = np.zeros(pairs[:2], bool)
        self._visits_at_draw = np.zeros(pairs)
        self.actions = np.zeros(pairs[:2], np.int64)
        self._draw(np.arange(self.num_envs))

    def _choose(self, obs: Ints, greedy: bool) -> Ints:
        rows = np.arange(len(obs))
        if not greedy:
            return self.actions[rows, obs]
        mean = self._reward_posterior(rows)[0]
        weights = self.counts + self.prior
        actions = self._optimal_actions(weights / weights.sum(-1, keepdims=True), mean, rows)
        return actions[rows, obs]

    def _learn(
        self, rows: Ints, obs: Ints, action: Ints, reward: Floats, next_obs: Ints, terminated: Bools
    ) -> None:
        self.counts[rows, obs, action, next_obs] += 1
        self.moments[:, rows, obs, action] += np.stack([np.ones_like(reward), reward, reward**2])
        self.ends[rows[terminated], next_obs[terminated]] = True
        visits = self.moments[0, rows, obs, action]
        doubled = visits >= 2 * np.maximum(self._visits_at_draw[rows, obs, action], 1)
        self._draw(rows[doubled & ~terminated])

    def _end_episode(self, rows: Ints) -> None:
        self._draw(rows)

    def _reward_posterior(self, rows: Ints) -> tuple[Floats, Floats, Floats]:
        """Location, scale and degrees of freedom (R, S, A) of the posterior of each pair's mean reward."""
        moments = self.moments[:, rows]
        number, total, squares = moments.sum((2, 3))[..., None, None]
        centre = total / np.maximum(number, 1)
        variance = np.maximum(squares / np.maximum(number, 1) - centre**2, _LEAST_STD**2)
        scale = 0.1 * np.where(number > 0, variance, 1.0)
        return mean_posterior(moments, mean=centre, weight=self.reward_weight, shape=1.0, scale=scale)

    def _draw(self, rows: Ints) -> None:
        if not len(rows):
            return
        weights = self.rng.standard_gamma(self.counts[rows] + self.prior)
        weights += np.finfo(float).tiny  # a gamma of so small a shape may be 0 everywhere
        mean, spread, freedom = self._reward_posterior(rows)
        reward = mean + spread * self.rng.standard_t(freedom)
        transition = weights / weights.sum(-1, keepdims=True)
        self.actions[rows] = self._optimal_actions(transition, reward, rows)
        self._visits_at_draw[rows] = self.moments[0, rows]

    def _optimal_actions(self, transition: Floats, reward: Floats, rows: Ints) -> Ints:
        """The optimal action (R, S) of worlds P (R, S, A, S), r (R, S, A); ends have value 0."""
        worlds = Dynamics(transition, reward, (~self.ends[rows]).astype(np.float64))
        return optimal_values(worlds, np.full(len(rows), self.gamma))[2]
