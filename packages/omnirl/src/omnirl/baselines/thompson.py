"""Thompson sampling on bandits with normal rewards of unknown mean and deviation, for N bandits at once."""

from __future__ import annotations

import numpy as np

from omnirl.baselines.learner import Bools, Floats, Ints, TabularLearner
from omnirl.baselines.posterior import mean_posterior


class ThompsonBandit(TabularLearner):
    """The Bayesian learner of a bandit: draw each arm's mean from its posterior, pull the largest.

    The arms' rewards are normal with unknown mean and variance; the prior is normal-inverse-gamma with mean
    0.75, weight `prior_weight`, shape 1 and scale 0.02: about what `sample_tasks(..., family="bandit")`
    draws (means around 0.75 of a scale that is Exp(1), deviations up to 0.3 of the mean). Greedy pulls the
    arm of the largest posterior mean.
    """

    def __init__(self, num_actions: int, *, prior_weight: float = 0.05, seed: int = 0) -> None:
        super().__init__(1, num_actions, seed=seed)
        self.prior_weight = prior_weight

    def _begin(self) -> None:
        self.moments = np.zeros((3, self.num_envs, self.num_actions))  # pulls, rewards, squared rewards

    def posterior(self) -> tuple[Floats, Floats, Floats]:
        """Location, scale and degrees of freedom of each arm's Student t, all (N, A)."""
        return mean_posterior(self.moments, mean=0.75, weight=self.prior_weight, shape=1.0, scale=0.02)

    def _choose(self, obs: Ints, greedy: bool) -> Ints:
        centre, scale, freedom = self.posterior()
        if not greedy:
            centre = centre + scale * self.rng.standard_t(freedom)
        return centre.argmax(-1)

    def _learn(
        self, rows: Ints, obs: Ints, action: Ints, reward: Floats, next_obs: Ints, terminated: Bools
    ) -> None:
        self.moments[:, rows, action] += np.stack([np.ones_like(reward), reward, reward**2])
