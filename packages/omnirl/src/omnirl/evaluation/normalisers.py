"""What 0 % and 100 % are: the exact returns of the random policy and of the oracle (section 2.8).

    score = (R - R_random) / (R_oracle - R_random)

Both are expected returns of an episode within its time limit, by dynamic programming; the oracle is opt3,
the greedy policy of Q at gamma 0.994. The same over steps instead of episodes: reward per step, R over the
expected length.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

from omnirl.data.worlds import greedy_actions
from omnirl.envs.shaping import RawStep, Shaping
from omnirl.errors import OmniRLError
from omnirl.tasks.batch import TaskBatch
from omnirl.tasks.gymnasium_tables import task_from_gymnasium
from omnirl.tasks.solver import REFERENCE_GAMMAS, policy_value, solve
from omnirl.tasks.task import Task

Floats = NDArray[np.float64]
Tasks = TypeVar("Tasks", Task, TaskBatch)

LEAST_GAP = 0.01
"""A task whose oracle is not better than random by this much says nothing: it is left out and counted."""
LEAST_RATE_GAP = 0.5
"""The same by step: the gap of rewards per step, as a share of that of returns over the longer episode.

The share is 1 where episodes are equally long. An oracle may also live longer and earn less per step than
random does: so it is in 1 to 2 % of AnyMDP's tasks, and a score by step means nothing there.
"""
_NOISE = 4.0  # standard deviations: a reward is seldom further from its mean


@dataclass(frozen=True)
class Normaliser:
    """Expected returns of an episode of N tasks, random and oracle (N,), and its expected lengths (N,)."""

    random: Floats
    oracle: Floats
    random_steps: Floats
    oracle_steps: Floats

    @property
    def usable(self) -> NDArray[np.bool_]:
        """(N,) bool: the oracle is better than random by at least 0.01."""
        return self.oracle - self.random >= LEAST_GAP

    @property
    def usable_by_step(self) -> NDArray[np.bool_]:
        """(N,) bool: usable, and the oracle earns more per step too (`LEAST_RATE_GAP`)."""
        low, high = self._rates()
        longest = np.maximum(self.random_steps, self.oracle_steps)
        return self.usable & (high - low >= LEAST_RATE_GAP * (self.oracle - self.random) / longest)

    def scores(self, returns: Floats, task_index: NDArray[np.int64]) -> Floats:
        """Scores of returns (R, E) of episodes; `task_index` (R,) says whose they are."""
        return _scaled(returns, self.random, self.oracle, task_index)

    def rate_scores(self, rates: Floats, task_index: NDArray[np.int64]) -> Floats:
        """Scores of rewards per step (R, ...); NaN for tasks that are not usable by step."""
        low, high = self._rates()
        return _scaled(rates, low, np.where(self.usable_by_step, high, np.nan), task_index)

    def _rates(self) -> tuple[Floats, Floats]:
        return self.random / self.random_steps, self.oracle / self.oracle_steps


def exact_normaliser(tasks: TaskBatch | Task) -> Normaliser:
    """The exact normaliser of tabular tasks, each within its own `max_steps`."""
    if isinstance(tasks, Task):
        tasks = TaskBatch.stack([tasks])
    oracle = greedy_actions(np.asarray(solve(tasks, REFERENCE_GAMMAS[-1])))
    clock = replace(tasks, reward=np.ones_like(tasks.reward))  # what is paid for is the step itself
    return Normaliser(
        *(
            np.asarray(policy_value(world, policy))
            for world in (tasks, clock)
            for policy in ("uniform", oracle)
        )
    )


def task_of(
    env: gym.Env[Any, Any], max_steps: int | None = None, shaping: Callable[[RawStep], Any] | None = None
) -> Task | None:
    """The exact tabular task behind an environment; None where there is none.

    The limit of its episodes is the smallest of `max_steps`, the environment's and its wrappers'; steps that
    `shaping` truncates end them too. Raises `OmniRLError` for a table without a limit of steps.
    """
    limit = min(_limits(env, max_steps), default=None)
    task = getattr(env.unwrapped, "task", None)
    if isinstance(task, Task):
        return truncated_task(limited(task, limit), shaping)
    if not getattr(env.unwrapped, "P", None):
        return None
    if not isinstance(shaping, Shaping):
        return Task.from_gymnasium(env, max_steps=limit)

    def cut(s: int, a: int, reward: float, after: int, ended: bool) -> bool:
        return bool(shaping.truncates(RawStep(s, a, reward, after, ended, False)))

    return task_from_gymnasium(env, limit, cut)


def limited(task: Tasks, max_steps: int | None) -> Tasks:
    """A task or a batch whose episodes have at most `max_steps` steps; None leaves its own limit."""
    if max_steps is None:
        return task
    if max_steps < 1:
        raise OmniRLError(f"max_steps is {max_steps}; an episode has at least one step")
    return replace(task, max_steps=np.minimum(task.max_steps, max_steps))


def _limits(env: gym.Env[Any, Any], max_steps: int | None) -> Iterator[int]:
    if max_steps is not None:
        yield max_steps
    while isinstance(env, gym.Wrapper):
        if isinstance(env, gym.wrappers.TimeLimit):
            yield env._max_episode_steps
        env = env.env


def truncated_task(task: Task, shaping: Callable[[RawStep], Any] | None) -> Task:
    """The task in which the steps that `shaping` truncates end the episode (CliffWalking's cliff).

    Scores of a run under such a shaping need the normaliser of the world in which it ran. Raises
    `OmniRLError` where it depends on a reward's noise which steps these are.
    """
    if not isinstance(shaping, Shaping):
        return task
    states, actions = task.num_states, task.num_actions
    s, a, after = np.ogrid[:states, :actions, :states]
    ids = task.state_mapping
    rewards = [task.reward + width * task.reward_noise for width in (-_NOISE, 0.0, _NOISE)]
    low, cuts, high = (
        shaping.truncates(RawStep(ids[s], a, reward, ids[after], task.terminal[after], False))
        for reward in rewards
    )
    if ((task.transition > 0) & ((low != cuts) | (cuts != high))).any():
        raise OmniRLError(
            f"whether {type(shaping).__name__} ends an episode of this {task.family} task depends on the "
            "noise of its rewards, so its scores have no exact ends; play the environment itself"
        )
    cut = np.where(cuts, task.transition, 0.0)
    if not cut.any():
        return task
    transition, reward, noise = (np.zeros((states + 1, actions, states + 1)) for _ in range(3))
    transition[:-1, :, :-1], transition[:-1, :, -1] = task.transition - cut, cut.sum(-1)
    reward[:-1, :, :-1], noise[:-1, :, :-1] = task.reward, task.reward_noise
    paid = (cut * task.reward).sum(-1)
    reward[:-1, :, -1] = np.divide(paid, cut.sum(-1), out=np.zeros_like(paid), where=cut.sum(-1) > 0)
    return replace(
        task,
        transition=transition,
        reward=reward,
        reward_noise=noise,
        terminal_states=np.append(task.terminal_states, states),
        state_mapping=np.append(ids, task.num_observations),
        num_observations=task.num_observations + 1,
        goal_terminates=False,
    )


def sampled_normaliser(make: Callable[[], gym.Env[Any, Any]], oracle_return: float, seed: int) -> Normaliser:
    """The normaliser of an environment without a table: random by 200 episodes, the oracle as given.

    The oracle's length is not known; scores per step take it to be random's.
    """
    env = make()
    env.action_space.seed(seed)
    returns, lengths = [], []
    for episode in range(200):
        env.reset(seed=seed if episode == 0 else None)
        total, steps, ended = 0.0, 0, False
        while not ended:
            _, reward, terminated, truncated, info = env.step(env.action_space.sample())
            total += float(info.get("raw_reward", reward))
            steps, ended = steps + 1, terminated or truncated
        returns.append(total)
        lengths.append(steps)
    env.close()
    random, length = np.array([np.mean(returns)]), np.array([np.mean(lengths)])
    if oracle_return - random[0] < LEAST_GAP:
        raise OmniRLError(
            f"oracle_return is {oracle_return:g}, no better than the {random[0]:g} of the random policy"
        )
    return Normaliser(random, np.array([float(oracle_return)]), length, length)


def _scaled(values: Floats, low: Floats, high: Floats, task_index: NDArray[np.int64]) -> Floats:
    shape = (-1, *[1] * (np.ndim(values) - 1))
    bottom, gap = low[task_index].reshape(shape), (high - low)[task_index].reshape(shape)
    return (values - bottom) / gap
