"""Where an agent is evaluated: the rows of a world, and the normaliser that belongs to it."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.envs.registration import EnvSpec

from omnirl.envs.grids import discretize as discretized
from omnirl.envs.partial import PartiallyObserved
from omnirl.envs.shaping import ShapedReward, Shaping
from omnirl.envs.vector import AnyMDPVectorEnv
from omnirl.errors import OmniRLError, OmniRLWarning
from omnirl.evaluation.normalisers import (
    LEAST_GAP,
    Normaliser,
    exact_normaliser,
    limited,
    sampled_normaliser,
    task_of,
    truncated_task,
)
from omnirl.evaluation.worlds import GymnasiumWorld, Ints, TaskWorld, World
from omnirl.tasks.batch import TaskBatch
from omnirl.tasks.task import Task


@dataclass(frozen=True)
class Ground:
    """What is played: the world, its tasks where they have tables, the normaliser of all tasks given."""

    world: World
    tasks: TaskBatch | None
    normaliser: Normaliser | None
    kept: Ints
    skipped: int = 0


def as_tasks(tasks: Any) -> TaskBatch | None:
    """The batch of a task, a batch, a list of tasks or an `AnyMDPVectorEnv`; None for anything else."""
    if isinstance(tasks, AnyMDPVectorEnv):
        return tasks.tasks
    if isinstance(tasks, TaskBatch):
        return tasks
    if isinstance(tasks, Task):
        return TaskBatch.stack([tasks])
    if isinstance(tasks, (list, tuple)) and tasks and all(isinstance(task, Task) for task in tasks):
        return TaskBatch.stack(tasks)
    return None


def task_ground(
    tasks: TaskBatch,
    runs: int,
    seed: np.random.SeedSequence,
    shaping: Any,
    by_step: bool,
    max_steps: int | None = None,
) -> Ground:
    """`runs` rows of each task whose oracle is better than random (by step: earns more per step).

    Raises `OmniRLError` if none is.
    """
    if isinstance(shaping, str):
        raise OmniRLError("shaping by name is for environments; tasks take a function of a RawStep")
    tasks = played = limited(tasks, max_steps)
    if isinstance(shaping, Shaping):
        played = TaskBatch.stack([truncated_task(task, shaping) for task in tasks])
    normaliser = exact_normaliser(played)
    kept = np.flatnonzero(normaliser.usable_by_step if by_step else normaliser.usable)
    if not len(kept):
        raise OmniRLError(f"no task is left: in none is the oracle better than random by {LEAST_GAP}")
    world = TaskWorld(tasks[kept], runs, seed, shaping)
    return Ground(world, played[kept], normaliser, kept, len(tasks) - len(kept))


def maker(
    env: Any, env_kwargs: dict[str, Any], shaping: Any, discretize: Any, max_steps: int | None
) -> Callable[[], gym.Env[Any, Any]]:
    """A function that makes the environment with its time limit, shaping and grids.

    An environment that Gymnasium did not make is copied, another made anew with all its wrappers. Raises
    `OmniRLError` for what is no environment; the function does for one that cannot be made.
    """
    known = (str, EnvSpec, gym.Env)
    if not (isinstance(env, known) or callable(env)):
        raise OmniRLError(
            f"{type(env).__name__} is nothing to play in: give a Task, a TaskBatch, a list of tasks, "
            "an environment, its name or a function that makes one"
        )
    if max_steps is not None and max_steps < 1:
        raise OmniRLError(f"max_steps is {max_steps}; an episode has at least one step")

    def make() -> gym.Env[Any, Any]:
        made = _made(env, env_kwargs, max_steps) if isinstance(env, known) else _within(env(), max_steps)
        if shaping is not None:
            made = ShapedReward(made, copy.deepcopy(shaping))
        return made if discretize is None else discretized(made, discretize)

    return make


def _made(
    env: str | EnvSpec | gym.Env[Any, Any], env_kwargs: dict[str, Any], max_steps: int | None
) -> gym.Env[Any, Any]:
    try:
        how = env.spec if isinstance(env, gym.Env) else env
        if how is None:
            return _within(copy.deepcopy(env), max_steps)
        # a copy: wrappers made from one spec would share what it holds, such as a shaping with a memory
        return gym.make(copy.deepcopy(how), max_episode_steps=max_steps, **env_kwargs)
    except OmniRLError:
        raise
    except (gym.error.Error, KeyError, TypeError, ValueError) as error:
        if isinstance(env, gym.Env):
            what = f"{type(env).__name__} cannot be made once more: {error}; give a function that makes it"
        else:
            what = f"the environment {env if isinstance(env, str) else env.id} cannot be made: {error}"
        raise OmniRLError(what) from error


def _within(env: Any, max_steps: int | None) -> gym.Env[Any, Any]:
    return env if max_steps is None else gym.wrappers.TimeLimit(env, max_steps)


def environment_ground(
    make: Callable[[], gym.Env[Any, Any]],
    runs: int,
    seed: np.random.SeedSequence,
    max_steps: int | None,
    oracle_return: float | None,
) -> Ground:
    """`runs` environments; the normaliser is exact where they have a table, else from `oracle_return`."""
    envs = [make() for _ in range(runs)]
    spec, shaped = envs[0].spec, _wrapped_by(envs[0], ShapedReward)
    if spec is not None and spec.id.startswith("FrozenLake") and shaped is None:
        warnings.warn(
            "FrozenLake's own reward is 0 nearly everywhere; the paper shows the model shaping='frozenlake'",
            OmniRLWarning,
            stacklevel=4,
        )
    task = task_of(envs[0], max_steps, shaped.shaping if shaped else None)
    world = GymnasiumWorld(envs, seed)
    normaliser, tasks = None, None
    if task is not None:
        # an oracle that sees the state is the end of the scale, not a policy of what is observed in part
        tasks = None if _wrapped_by(envs[0], PartiallyObserved) else TaskBatch.stack([task])
        normaliser = exact_normaliser(task)
        if not normaliser.usable[0]:
            raise OmniRLError(f"the oracle of this environment is not better than random by {LEAST_GAP}")
    elif oracle_return is not None:
        normaliser = sampled_normaliser(make, oracle_return, int(seed.generate_state(1)[0]))
    return Ground(world, tasks, normaliser, np.arange(1))


def _wrapped_by(env: Any, kind: type[Any]) -> Any:
    """The outermost wrapper of that kind; None if there is none."""
    while isinstance(env, gym.Wrapper):
        if isinstance(env, kind):
            return env
        env = env.env
    return None
