"""Many environments stepped by one kernel: a Gymnasium `VectorEnv` over a batch of tasks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from gymnasium.error import ResetNeeded
from gymnasium.spaces import Discrete, MultiDiscrete
from gymnasium.vector import AutoresetMode, VectorEnv
from numpy.typing import ArrayLike, NDArray

from omnirl.envs.single import valid_task
from omnirl.errors import OmniRLError
from omnirl.tasks.batch import TaskBatch
from omnirl.tasks.stepping import Outcome, StepTables, start, step
from omnirl.tasks.task import Task

Steps = tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.bool_], NDArray[np.bool_], dict[str, Any]]


class AnyMDPVectorEnv(VectorEnv[NDArray[np.int64], NDArray[np.int64], NDArray[Any]]):
    """E tabular worlds side by side; environment i plays task i modulo N.

    Observations (E,) int64, rewards (E,) float64, terminations and truncations (E,) bool. An episode is
    truncated at its step `max_steps`, unless it terminates there. All environments share one stream of random
    numbers, so a trajectory follows from the seed, the number of environments and the actions.

    Args:
        tasks: N tasks. None samples a task an environment, with `sampling` as `sample_tasks` takes it
            (`family`, `num_states`, `num_actions`) and `task_seed` as its seed.
        num_envs: E; default one a task.
        autoreset_mode: NEXT_STEP: the step after the last of an episode ignores the action and gives the
            first observation of the next, with reward 0. SAME_STEP: the last step gives the next episode's
            first observation; its own is in `info["final_obs"]`, where `info["_final_obs"]`. DISABLED:
            `reset(options={"reset_mask": mask})` before those environments are stepped again.
        seed: of the stream; `reset(seed=...)` sets it anew.

    Raises `OmniRLError` (a ValueError) for no tasks and no environments, and in `step` for actions of the
    wrong shape, type or range; `gymnasium.error.ResetNeeded` for a step before the first reset or after an
    end that was not reset.
    """

    metadata: dict[str, Any] = {"render_modes": [], "autoreset_mode": AutoresetMode.NEXT_STEP}  # noqa: RUF012

    def __init__(
        self,
        tasks: TaskBatch | Sequence[Task] | None = None,
        num_envs: int | None = None,
        autoreset_mode: AutoresetMode | str = AutoresetMode.NEXT_STEP,
        seed: int | None = None,
        *,
        task_seed: int = 0,
        **sampling: Any,
    ) -> None:
        self.tasks = batch_of(tasks, num_envs, task_seed, sampling)
        self.num_envs = len(self.tasks) if num_envs is None else num_envs
        if self.num_envs < 1:
            raise OmniRLError(f"num_envs is {num_envs}; there must be at least one environment")
        self.autoreset_mode = AutoresetMode(autoreset_mode)
        self.metadata = {**self.metadata, "autoreset_mode": self.autoreset_mode}
        self.single_observation_space = Discrete(self.tasks.num_observations)
        self.single_action_space = Discrete(self.tasks.num_actions)
        self.observation_space = MultiDiscrete([self.tasks.num_observations] * self.num_envs)
        self.action_space = MultiDiscrete([self.tasks.num_actions] * self.num_envs)
        self.task_index = np.arange(self.num_envs) % len(self.tasks)
        """(E,) int64: the task of each environment."""
        self._tables = StepTables.build(self.tasks)
        self._limit = self.tasks.max_steps[self.task_index]
        self._first_state = self.task_index * self.tasks.state_mapping.shape[1]
        self._state = np.zeros(self.num_envs, np.int64)
        self._steps = np.zeros(self.num_envs, np.int64)
        self._ended: NDArray[np.bool_] | None = None
        if seed is not None:
            super().reset(seed=seed)

    @property
    def inner_state(self) -> NDArray[np.int64]:
        """(E,) int64: the state that each environment is in, which the agent does not see."""
        return self._state.copy()

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[NDArray[np.int64], dict[str, Any]]:
        """Begin an episode in every environment, or in those of `options["reset_mask"]` (E,) bool.

        Returns the observations of all (E,) int64 and an empty dictionary.
        """
        super().reset(seed=seed)
        mask = self._reset_mask(options or {})
        first = start(self._tables, self._uniform(), task=self.task_index)
        self._state = np.where(mask, first, self._state)
        self._steps[mask] = 0
        self._ended = np.zeros(self.num_envs, bool) if self._ended is None else self._ended & ~mask
        return self._observation(self._state), {}

    def step(self, actions: ArrayLike) -> Steps:
        """One step of all environments with actions (E,) of integers in 0..A-1."""
        ended = self._ended
        if ended is None:
            raise ResetNeeded("call reset() before the first step()")
        restart = ended if ended.any() else None
        if restart is not None and self.autoreset_mode is AutoresetMode.DISABLED:
            raise ResetNeeded(
                f"the episode of environment {restart.argmax()} has ended and autoreset is disabled: call "
                f"reset(options={{'reset_mask': mask}}) with the mask of those that ended"
            )
        found = self._advance(self._checked(actions, restart), restart)
        self._steps += 1
        if restart is not None:
            self._steps[restart] = 0
        truncated = (self._steps >= self._limit) & ~found.terminated
        ended = found.terminated | truncated
        self._state, self._ended = found.state, ended
        info: dict[str, Any] = {}
        if self.autoreset_mode is AutoresetMode.SAME_STEP and ended.any():
            info = self._reset_now(ended)
        return self._observation(self._state), found.reward, found.terminated, truncated, info

    def _advance(self, actions: NDArray[np.int64], restart: NDArray[np.bool_] | None) -> Outcome:
        u = self._uniform()
        z = None
        if self._tables.noisy:
            z = self.np_random.standard_normal(self.num_envs, dtype=np.float32)
        return step(self._tables, self._state, actions, u, z, task=self.task_index, restart=restart)

    def _reset_now(self, ended: NDArray[np.bool_]) -> dict[str, Any]:
        """Begin the next episode of those that ended; returns what is lost by it, as Gymnasium's infos."""
        final = np.full(self.num_envs, None, dtype=object)
        final[ended] = self._observation(self._state)[ended]
        first = start(self._tables, self._uniform(), task=self.task_index)
        self._state = np.where(ended, first, self._state)
        self._steps[ended] = 0
        self._ended = np.zeros(self.num_envs, bool)
        return {"final_obs": final, "_final_obs": ended.copy(), "final_info": {}, "_final_info": ended.copy()}

    def _uniform(self) -> NDArray[np.float32]:
        return self.np_random.random(self.num_envs, dtype=np.float32)

    def _observation(self, state: NDArray[np.int64]) -> NDArray[np.int64]:
        return self.tasks.state_mapping.reshape(-1).take(self._first_state + state)

    def _checked(self, actions: ArrayLike, restart: NDArray[np.bool_] | None) -> NDArray[np.int64]:
        """The actions as int64; those of restarting environments are ignored and become 0."""
        found = np.asarray(actions)
        if found.shape != (self.num_envs,) or found.dtype.kind not in "iu":
            raise OmniRLError(
                f"actions have the shape {found.shape} and the type {found.dtype}; step() takes "
                f"{self.num_envs} integers, one an environment"
            )
        found = found.astype(np.int64, copy=False)
        if restart is not None:
            found = np.where(restart, 0, found)
        # A negative number seen as unsigned is larger than every valid one: one comparison serves both ends.
        wrong = found.view(np.uint64) >= self.tasks.num_actions
        if wrong.any():
            raise OmniRLError(
                f"the action of environment {wrong.argmax()} is {found[wrong.argmax()]}; actions go from 0 "
                f"to {self.tasks.num_actions - 1}"
            )
        return found

    def _reset_mask(self, options: dict[str, Any]) -> NDArray[np.bool_]:
        mask = options.get("reset_mask")
        if mask is None:
            return np.ones(self.num_envs, bool)
        mask = np.asarray(mask)
        if mask.shape != (self.num_envs,) or mask.dtype != np.bool_ or not mask.any():
            raise OmniRLError(
                f"options['reset_mask'] must be {self.num_envs} booleans, one of them true; it has the shape "
                f"{mask.shape} and the type {mask.dtype}"
            )
        if self._ended is None and not mask.all():
            raise ResetNeeded("the first reset() is one of all environments: leave out options['reset_mask']")
        return mask


def batch_of(
    tasks: TaskBatch | Sequence[Task] | None, num_envs: int | None, seed: int, sampling: dict[str, Any]
) -> TaskBatch:
    """The batch to play: as given, or of sampled tasks."""
    if isinstance(tasks, TaskBatch):
        return tasks
    if tasks is not None:
        return TaskBatch.stack([valid_task(task) for task in tasks])
    if num_envs is None:
        raise OmniRLError("give tasks= to play, or num_envs= to have as many sampled")
    from omnirl.tasks.sampling import sample_tasks

    return sample_tasks(num_envs, seed=seed, **sampling)
