"""Partly observed worlds: an observation is drawn anew from a distribution of the inner state."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
from gymnasium.spaces import Discrete
from gymnasium.utils import RecordConstructorArgs
from numpy.typing import ArrayLike

from omnirl.envs.single import AnyMDPEnv
from omnirl.errors import OmniRLError
from omnirl.tasks.checks import ROW_TOLERANCE
from omnirl.tasks.task import Floats
from omnirl.tasks.xenoverse import task_from_xenoverse


class PartiallyObserved(gymnasium.Wrapper[Any, Any, Any, Any], RecordConstructorArgs):
    """An `AnyMDPEnv` that shows o with probability `observation_transition[s, o]` in its inner state s.

    `observation_transition` (S, n) float64; the observations are 0..n-1. What is drawn comes from the
    environment's own stream, so `reset(seed=...)` fixes it too.

    Raises `OmniRLError` for another environment, a wrong shape, and a row that is no distribution.
    """

    def __init__(self, env: gymnasium.Env[Any, Any], observation_transition: ArrayLike) -> None:
        RecordConstructorArgs.__init__(self, observation_transition=observation_transition)
        gymnasium.Wrapper.__init__(self, env)
        if not isinstance(env.unwrapped, AnyMDPEnv):
            raise OmniRLError(
                f"{type(env.unwrapped).__name__} does not tell its inner state: only an AnyMDPEnv can be "
                "observed in part, such as gymnasium.make('omnirl/AnyMDP-v0', task=task)"
            )
        self._world = env.unwrapped
        self.observation_transition = np.array(observation_transition, np.float64)
        _check(self.observation_transition, self._world.task.num_states)
        self._cumulative = self.observation_transition.cumsum(1)
        self.observation_space = Discrete(self.observation_transition.shape[1])

    @classmethod
    def from_xenoverse(cls, task: dict[str, Any]) -> PartiallyObserved:
        """The environment of a xenoverse (0.1.14) task dictionary of the type POMDP.

        Raises `OmniRLError` for one of another type or that lacks a key.
        """
        if task.get("task_type") != "POMDP" or "observation_transition" not in task:
            raise OmniRLError(
                f"this xenoverse task is of the type {task.get('task_type', 'MDP')}; needed is a POMDP with "
                "observation_transition (Task.from_xenoverse takes an MDP)"
            )
        return cls(
            AnyMDPEnv(task_from_xenoverse({**task, "task_type": "MDP"})), task["observation_transition"]
        )

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.int64, dict[str, Any]]:
        """Begin an episode; `options={"task": task}` only with a task of as many states."""
        _, info = self.env.reset(seed=seed, options=options)
        _check(self.observation_transition, self._world.task.num_states)
        return self._observe(), info

    def step(self, action: np.int64 | int) -> tuple[np.int64, float, bool, bool, dict[str, Any]]:
        """Act; returns a drawn observation of the state arrived in, reward, terminated, truncated, info."""
        _, reward, terminated, truncated, info = self.env.step(action)
        return self._observe(), float(reward), terminated, truncated, info

    def _observe(self) -> np.int64:
        row = self._cumulative[self._world.inner_state]
        drawn = self._world.np_random.random() * row[-1]
        return np.int64(np.searchsorted(row, drawn, side="right"))


def _check(table: Floats, states: int) -> None:
    if table.ndim != 2 or len(table) != states or not table.shape[1]:
        raise OmniRLError(
            f"observation_transition has the shape {table.shape}; for {states} inner states it must be "
            f"({states}, number of observations)"
        )
    wrong = ~(np.isfinite(table).all(1) & (table >= 0).all(1) & (np.abs(table.sum(1) - 1) < ROW_TOLERANCE))
    if wrong.any():
        state = int(wrong.argmax())
        raise OmniRLError(
            f"observation_transition of state {state} is no distribution: its smallest entry is "
            f"{table[state].min():.9g} and its sum {table[state].sum():.9g}"
        )
