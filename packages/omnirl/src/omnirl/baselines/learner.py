"""What every tabular learner here shares: N worlds side by side, and the step that resets teaches nothing.

A learner is driven exactly as `omnirl.ICRLAgent` with `autoreset="next_step"` is, so one evaluator runs both:

    learner.reset(num_envs)
    action = learner.act(obs)                                    # (N,)
    learner.observe(action, reward, next_obs, terminated, truncated)

The call after an end is Gymnasium's NEXT_STEP reset: its action was ignored, its reward is 0 and its
`next_obs` is the first observation of the new episode.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray

from omnirl.errors import OmniRLError

if TYPE_CHECKING:
    from omnirl.inference.demonstrations import Demonstrations

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]


class TabularLearner(ABC):
    """Base of the learners over `num_states` observation ids and `num_actions` actions.

    `seed` feeds the learner's own generator; `reset` starts it again, so that a second run is the first one.
    A subclass writes `_begin` (make the tables), `_choose` (act), `_learn` (the transitions of some rows)
    and, if it needs it, `_end_episode`.
    """

    def __init__(self, num_states: int, num_actions: int, *, seed: int = 0) -> None:
        if num_states < 1 or num_actions < 1:
            raise OmniRLError(
                f"a learner needs at least one state and one action, not {num_states} and {num_actions}"
            )
        self.num_states, self.num_actions, self.seed = num_states, num_actions, seed
        self.num_envs = 0

    def reset(self, num_envs: int = 1, *, seed: int | None = None) -> None:
        """Forget everything and begin with `num_envs` worlds (rows), each at the start of an episode.

        `seed` replaces the learner's own.
        """
        self.num_envs = num_envs
        self.rng = np.random.default_rng(self.seed if seed is None else seed)
        self._obs = np.zeros(num_envs, np.int64)
        self._ended = np.zeros(num_envs, bool)
        self._begin()

    def act(self, obs: ArrayLike, greedy: bool = False) -> Ints:
        """Actions (N,) int64 for observation ids (N,); `greedy` leaves out the exploration."""
        if not self.num_envs:
            raise OmniRLError("the learner has no worlds yet: call reset(num_envs) first")
        obs = np.asarray(obs, np.int64).reshape(-1)
        if len(obs) != self.num_envs:
            raise OmniRLError(
                f"{len(obs)} observations for {self.num_envs} worlds: reset(num_envs) says how many"
            )
        if obs.min() < 0 or obs.max() >= self.num_states:
            raise OmniRLError(
                f"observations {obs.min()}..{obs.max()} do not fit a learner of num_states={self.num_states}"
            )
        self._obs = obs
        return self._choose(obs, greedy)

    def observe(
        self,
        action: ArrayLike,
        reward: ArrayLike,
        next_obs: ArrayLike,
        terminated: ArrayLike,
        truncated: ArrayLike,
    ) -> None:
        """Learn from what followed the last `act`; all of shape (N,), `next_obs` the state arrived in."""
        terminated, truncated = np.asarray(terminated, bool), np.asarray(truncated, bool)
        live = ~self._ended
        rows = np.flatnonzero(live)
        if len(rows):
            self._learn(
                rows,
                self._obs[rows],
                np.asarray(action, np.int64)[rows],
                np.asarray(reward, np.float64)[rows],
                np.asarray(next_obs, np.int64)[rows],
                terminated[rows],
            )
        self._ended = live & (terminated | truncated)
        if self._ended.any():
            self._end_episode(np.flatnonzero(self._ended))

    def load_demonstrations(self, demonstrations: Demonstrations) -> None:
        """Learn from demonstrations, one sequence a row, as if they had been lived through.

        A step is used where its successor is in the data. Raises `OmniRLError` for another number of rows
        and ids that the learner does not know.
        """
        if len(demonstrations) != self.num_envs:
            raise OmniRLError(
                f"demonstrations for {len(demonstrations)} worlds do not fit {self.num_envs} worlds"
            )
        demonstrations.check_ids(self.num_states, self.num_actions, "the learner")
        real = demonstrations.real
        followed = np.zeros_like(real)
        followed[:, :-1] = real[:, :-1] & (np.arange(1, real.shape[1]) < demonstrations.lengths[:, None])
        for t in range(real.shape[1] - 1):
            rows = np.flatnonzero(followed[:, t])
            columns = demonstrations.observations, demonstrations.actions, demonstrations.rewards
            obs, action, reward = (column[rows, t] for column in columns)
            next_obs = demonstrations.observations[rows, t + 1]
            if len(rows):
                self._learn(
                    rows, obs, action, reward.astype(np.float64), next_obs, demonstrations.terminated[rows, t]
                )
            ended = rows[~real[rows, t + 1]]
            if len(ended):
                self._end_episode(ended)

    def __repr__(self) -> str:
        return f"{type(self).__name__}(num_states={self.num_states}, num_actions={self.num_actions})"

    @abstractmethod
    def _begin(self) -> None: ...

    @abstractmethod
    def _choose(self, obs: Ints, greedy: bool) -> Ints: ...

    @abstractmethod
    def _learn(
        self, rows: Ints, obs: Ints, action: Ints, reward: Floats, next_obs: Ints, terminated: Bools
    ) -> None: ...

    def _end_episode(self, rows: Ints) -> None:  # noqa: B027  (most learners have nothing to do here)
        pass


def per_row(value: ArrayLike, rows: Ints) -> Floats:
    """A setting that is one number for all worlds, or one a world, taken at `rows`."""
    value = np.asarray(value, np.float64)
    return value[rows] if value.ndim else value
