"""R worlds side by side under one interface: rows of a `TaskBatch`, or any Gymnasium environments.

    obs = world.reset()                     # (R,) int64
    step = world.step(action)               # NEXT_STEP: the call after an end resets that row, with reward 0

`step.reward` is what the agent is shown (shaped), `step.raw` what the environment pays; scores use the
latter.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import gymnasium as gym
import numpy as np
from numpy.typing import ArrayLike, NDArray

from omnirl.envs.shaping import RawStep, Shaping
from omnirl.errors import OmniRLError
from omnirl.tasks.batch import TaskBatch
from omnirl.tasks.stepping import StepTables
from omnirl.tasks.stepping import start as start_states
from omnirl.tasks.stepping import step as step_tasks

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]


@dataclass(frozen=True)
class Step:
    """What a step gave, one entry a row; `reset` rows began an episode and were not acted in."""

    obs: Ints
    reward: Floats
    raw: Floats
    terminated: Bools
    truncated: Bools
    reset: Bools

    @property
    def ended(self) -> Bools:
        """Whether the episode is over."""
        return self.terminated | self.truncated


class World(ABC):
    """R rows of `num_observations` ids and `num_actions` actions; `task_index` (R,) says whose a row is."""

    num_rows: int
    num_observations: int
    num_actions: int
    task_index: Ints

    @abstractmethod
    def reset(self) -> Ints:
        """Begin an episode in every row and return the first observation ids (R,)."""

    @abstractmethod
    def step(self, action: Ints) -> Step:
        """Act in every row that did not end with the step before, begin a new episode in the others."""

    def close(self) -> None:  # noqa: B027  (only environments have something to close)
        """Free what the environments hold."""


class TaskWorld(World):
    """Rows that play the tasks of a batch: row i plays task i // runs. All random numbers come from `seed`.

    `shaping`, a function of a `RawStep` of arrays (R,), gives the rewards that the agent is shown.
    """

    def __init__(
        self,
        tasks: TaskBatch,
        runs: int,
        seed: int | np.random.SeedSequence,
        shaping: Callable[[RawStep], ArrayLike] | None = None,
    ) -> None:
        self._shaping = shaping
        self.tasks = tasks
        self.task_index = np.repeat(np.arange(len(tasks)), runs)
        self.num_rows = len(self.task_index)
        self.num_observations, self.num_actions = tasks.num_observations, tasks.num_actions
        self._tables = StepTables.build(tasks)
        self._rng = np.random.default_rng(seed)

    def reset(self) -> Ints:
        """Begin an episode in every row; observation ids (R,)."""
        if isinstance(self._shaping, Shaping):
            self._shaping.reset()
        self._state = start_states(self._tables, self._rng.random(self.num_rows), task=self.task_index)
        self._count = np.zeros(self.num_rows, np.int64)
        self._ended = np.zeros(self.num_rows, bool)
        self._obs = self.tasks.state_mapping[self.task_index, self._state]
        return self._obs

    def step(self, action: Ints) -> Step:
        """Act in every live row, reset the others."""
        reset = self._ended
        u, z = self._rng.random(self.num_rows), self._rng.standard_normal(self.num_rows)
        out = step_tasks(self._tables, self._state, action, u, z, task=self.task_index, restart=reset)
        self._state = out.state
        self._count = np.where(reset, 0, self._count + 1)
        truncated = ~reset & ~out.terminated & (self._count >= self.tasks.max_steps[self.task_index])
        obs = self.tasks.state_mapping[self.task_index, self._state]
        shown = out.reward
        if self._shaping is not None:
            raw_step = RawStep(self._obs, action, out.reward, obs, out.terminated, truncated)
            if isinstance(self._shaping, Shaping):
                truncated = truncated | (self._shaping.truncates(raw_step) & ~reset)
            shown = np.where(reset, 0.0, self._shaping(raw_step))
        self._ended, self._obs = out.terminated | truncated, obs
        return Step(obs, shown, out.reward, out.terminated, truncated, reset)


class GymnasiumWorld(World):
    """Rows that play Gymnasium environments of discrete observations and actions, one environment a row.

    The raw reward is `info["raw_reward"]` where `ShapedReward` tells it, else the reward.
    """

    def __init__(self, envs: Sequence[gym.Env], seed: np.random.SeedSequence) -> None:
        self.envs = list(envs)
        self.num_rows = len(self.envs)
        self.task_index = np.zeros(self.num_rows, np.int64)
        self.num_observations = discrete_size(envs[0].observation_space, "observations")
        self.num_actions = discrete_size(envs[0].action_space, "actions")
        self._seeds: list[int | None] = [int(s.generate_state(1)[0]) for s in seed.spawn(len(envs))]

    def reset(self) -> Ints:
        """Begin an episode in every environment; the first time with the seeds."""
        obs = [env.reset(seed=seed)[0] for env, seed in zip(self.envs, self._seeds, strict=True)]
        self._seeds = [None] * self.num_rows
        self._ended = np.zeros(self.num_rows, bool)
        return np.array(obs, np.int64)

    def step(self, action: Ints) -> Step:
        """Act in every live environment, reset the others."""
        reset = self._ended
        obs = np.zeros(self.num_rows, np.int64)
        reward, raw = np.zeros((2, self.num_rows))
        terminated, truncated = np.zeros((2, self.num_rows), bool)
        for i, env in enumerate(self.envs):
            if reset[i]:
                obs[i] = env.reset()[0]
            else:
                obs[i], reward[i], terminated[i], truncated[i], info = env.step(int(action[i]))
                raw[i] = info.get("raw_reward", reward[i])
        self._ended = terminated | truncated
        return Step(obs, reward, raw, terminated, truncated, reset)

    def close(self) -> None:
        """Close all environments."""
        for env in self.envs:
            env.close()


def discrete_size(space: gym.Space, what: str) -> int:
    """n of a `Discrete` space that begins with 0; raises `OmniRLError` for others."""
    if not isinstance(space, gym.spaces.Discrete) or space.start != 0:
        raise OmniRLError(
            f"the environment's {what} are {space}; they must be Discrete, from 0: pass discretize=, "
            "a name such as 'pendulum' or 'uniform', a Grid, or a function that wraps the environment"
        )
    return int(space.n)
