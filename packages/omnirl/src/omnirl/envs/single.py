"""One tabular world as a Gymnasium environment."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
from gymnasium.error import ResetNeeded
from gymnasium.spaces import Discrete

from omnirl.errors import OmniRLError
from omnirl.tasks.batch import TaskBatch
from omnirl.tasks.stepping import StepTables, start_one, step_one
from omnirl.tasks.task import Task


class AnyMDPEnv(gymnasium.Env[np.int64, np.int64]):
    """A task to act in: observations are ids in 0..num_observations-1, actions ids in 0..num_actions-1.

    An episode terminates on arrival in a terminal state, else it is truncated at its step `max_steps`.
    `reset(options={"task": task})` goes on with another task of the same spaces.

    Args:
        task: the world. None samples one, with `sampling` as `sample_tasks` takes it (`family`, `num_states`,
            `num_actions`) and `task_seed` as its seed.
        render_mode: None or "ansi", a line of text.
        debug: `step` then returns `info` with "transition_probs" (num_observations,) float64, the
            distribution that the observation just seen was drawn from; "expected_reward", the mean reward of
            the state and the action; "inner_state", the state arrived in. `reset` gives the last alone.

    Raises `OmniRLError` (a ValueError) for what is no task, other spaces and an action out of range;
    `gymnasium.error.ResetNeeded` for a step before `reset` or after the end.
    """

    metadata: dict[str, Any] = {"render_modes": ["ansi"], "render_fps": 4}  # noqa: RUF012

    def __init__(
        self,
        task: Task | None = None,
        render_mode: str | None = None,
        *,
        debug: bool = False,
        task_seed: int = 0,
        **sampling: Any,
    ) -> None:
        if render_mode not in (None, "ansi"):
            raise OmniRLError(f"render_mode is {render_mode!r}; it must be None or 'ansi'")
        self.render_mode = render_mode
        self.debug = debug
        if task is None:
            from omnirl.tasks.sampling import sample_tasks

            task = sample_tasks(1, seed=task_seed, **sampling)[0]
        self._set_task(task)
        self.observation_space = Discrete(self.task.num_observations)
        self.action_space = Discrete(self.task.num_actions)

    def _set_task(self, task: Task) -> None:
        self.task = valid_task(task)
        self._tables = StepTables.build(TaskBatch.stack([task]))
        self._state = -1
        self._steps = 0
        self._last: tuple[int, float] | None = None
        self._running = False

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.int64, dict[str, Any]]:
        """Begin an episode; returns its first observation."""
        super().reset(seed=seed)
        if options and "task" in options:
            self._go_on_with(options["task"])
        self._state = start_one(self._tables, self.np_random.random())
        self._steps, self._last, self._running = 0, None, True
        return self._observation(), {"inner_state": self._state} if self.debug else {}

    def step(self, action: np.int64 | int) -> tuple[np.int64, float, bool, bool, dict[str, Any]]:
        """Act; returns observation, reward, terminated, truncated, info."""
        if not self._running:
            raise ResetNeeded("no episode is running: call reset() before step()")
        if not (isinstance(action, int | np.integer) and 0 <= action < self.task.num_actions):
            raise OmniRLError(
                f"the action is {action!r}; actions are integers from 0 to {self.task.num_actions - 1}"
            )
        before, rng = self._state, self.np_random
        found = step_one(self._tables, before, int(action), rng.random(), rng.standard_normal())
        self._state, reward, terminated = found
        self._steps += 1
        truncated = self._steps >= self.task.max_steps and not terminated
        self._running = not (terminated or truncated)
        self._last = int(action), reward
        info = self._hidden(before, int(action)) if self.debug else {}
        return self._observation(), reward, terminated, truncated, info

    @property
    def inner_state(self) -> int:
        """The state that the world is in, which the agent does not see; -1 before the first `reset`."""
        return int(self._state)

    def render(self) -> str | None:
        """One line: the episode's step, the observation, and the last action with its reward."""
        if self.render_mode is None:
            return None
        moved = "" if self._last is None else f"  action {self._last[0]}  reward {self._last[1]:+.3f}"
        return f"step {self._steps}  observation {self._observation()}{moved}"

    def _observation(self) -> np.int64:
        return np.int64(self.task.state_mapping[self._state])

    def _hidden(self, before: int, action: int) -> dict[str, Any]:
        seen = np.zeros(self.task.num_observations)
        seen[self.task.state_mapping] = self.task.transition[before, action]
        expected = float(self.task.transition[before, action] @ self.task.reward[before, action])
        return {"transition_probs": seen, "expected_reward": expected, "inner_state": self._state}

    def _go_on_with(self, task: Task) -> None:
        spaces = valid_task(task).num_observations, task.num_actions
        own = self.task.num_observations, self.task.num_actions
        if spaces != own:
            raise OmniRLError(
                f"options['task'] has {spaces[0]} observations and {spaces[1]} actions; this environment was "
                f"made for {own[0]} and {own[1]}: make another"
            )
        self._set_task(task)


def valid_task(task: Any) -> Task:
    """The task itself, or an `OmniRLError` that says what was given instead."""
    if not isinstance(task, Task):
        raise OmniRLError(
            f"a task must be an omnirl.Task, not {type(task).__name__}: see Task.from_gymnasium, "
            f"Task.from_xenoverse and sample_tasks"
        )
    return task
