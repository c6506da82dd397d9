"""Teachers: what demonstrates before an offline or an imitation start (section 2.8)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from omnirl.data.sequences import TAGS, UNKNOWN
from omnirl.data.worlds import by_observation, greedy_actions
from omnirl.errors import OmniRLError
from omnirl.evaluation.controls import ControlledWorld
from omnirl.evaluation.worlds import Floats, Ints
from omnirl.inference.demonstrations import Demonstrations
from omnirl.tasks.batch import TaskBatch
from omnirl.tasks.solver import REFERENCE_GAMMAS, solve

_ORACLES = dict(zip(("opt0", "opt1", "opt2", "opt3"), REFERENCE_GAMMAS, strict=True))


@dataclass(frozen=True)
class Teacher:
    """How to demonstrate in each row: `steps` steps of a sequence (fillers counted), or `episodes` episodes.

    `policy`: "opt0" to "opt3" (tabular worlds only), "random", or a function from observations (R,) to
    actions (R,), both by the environment's ids. A share `noise` of the actions is uniform and has the tag
    "random"; the others have the policy's tag, "unknown" for a function. `hide_tags` tags all "unknown". The
    paper shows 100 episodes; 200 steps suit a model of laptop size.
    """

    policy: str | Callable[[Ints], Ints] = "opt3"
    noise: float = 0.0
    steps: int | None = 200
    episodes: int | None = None
    hide_tags: bool = False

    def __post_init__(self) -> None:
        known = (*_ORACLES, "random")
        if isinstance(self.policy, str) and self.policy not in known:
            raise OmniRLError(f"policy is {self.policy!r}; it may be {', '.join(known)} or a function")
        if not 0 <= self.noise <= 1:
            raise OmniRLError(f"noise is {self.noise}; it is a share between 0 and 1")
        if self.episodes is not None:
            object.__setattr__(self, "steps", None)
        if (self.episodes or self.steps or 0) < 1:
            raise OmniRLError("a teacher needs at least one step or one episode to show")


Policy = Callable[[Ints], Ints]


def world_policy(policy: str | Policy, tasks: TaskBatch | None, task_index: Ints) -> Policy:
    """The policy as a function from observations (R,) to actions (R,), by the world's ids.

    Raises `OmniRLError` for an oracle of a world that has no table.
    """
    if not isinstance(policy, str):
        return policy
    if policy not in _ORACLES:
        raise OmniRLError(f"policy is {policy!r}; it may be {', '.join(_ORACLES)}")
    if tasks is None:
        raise OmniRLError(
            f"{policy} is the exact solution of a tabular world and this environment has no table; "
            "give a function from observations to actions as the policy"
        )
    actions = greedy_actions(np.asarray(solve(tasks, _ORACLES[policy])))
    table = by_observation(tasks, actions).astype(np.int64)
    return lambda obs: table[task_index, obs]


def demonstrate(
    world: ControlledWorld,
    teacher: Teacher,
    filler: int,
    tasks: TaskBatch | None,
    rng: np.random.Generator,
) -> tuple[Demonstrations, Floats]:
    """Let the teacher act in every row of `world`: what it did, and its mean raw reward a step (R,).

    The demonstrations have the agent's ids, the filler step the action `filler`; they end in a filler step,
    an unfinished episode too. `tasks` are those of `world`, None where it has no table.
    """
    size, actions = world.num_rows, world.world.num_actions
    chance = 1.0 if teacher.policy == "random" else teacher.noise
    act = world_policy(teacher.policy, tasks, world.task_index) if chance < 1 else None
    own_tag = TAGS.get(teacher.policy, UNKNOWN) if isinstance(teacher.policy, str) else UNKNOWN
    columns: list[tuple[NDArray, ...]] = []
    done, lengths = np.zeros(size, np.int64), np.zeros(size, np.int64)
    obs = world.reset()
    while not _enough(teacher, len(columns), lengths):
        noisy = rng.random(size) < chance
        action = rng.integers(actions, size=size)
        if act is not None:
            action = np.where(noisy, action, act(world.to_world_obs(obs)))
        shown = world.to_agent_action(action)
        step = world.step(shown)
        real = ~step.reset
        tags = np.where(real, np.where(noisy, TAGS["random"], own_tag), UNKNOWN)
        columns.append((obs, tags, np.where(real, shown, filler), step.reward, step.terminated, step.raw))
        obs = step.obs
        done += step.ended
        lengths[(done == teacher.episodes) & (lengths == 0)] = len(columns) + 1
    nothing = np.zeros(size)
    last = (obs, np.full(size, UNKNOWN), np.full(size, filler), nothing, np.zeros(size, bool), nothing)
    observations, tags, shown, rewards, terminated, raw = (
        np.stack(column, 1) for column in zip(*columns, last, strict=True)
    )
    if teacher.steps is not None:
        lengths[:] = len(columns) + 1
    found = Demonstrations(
        observations, tags, shown, rewards.astype(np.float32), terminated, lengths, num_actions=filler
    )
    rate = replace(found, rewards=raw).reward_rate()
    return (found.without_tags() if teacher.hide_tags else found), rate


def _enough(teacher: Teacher, taken: int, lengths: Ints) -> bool:
    if teacher.steps is not None:
        return taken >= teacher.steps - 1
    return bool((lengths > 0).all())


def translated(demonstrations: Demonstrations, world: ControlledWorld) -> Demonstrations:
    """Demonstrations in the environment's ids as the agent sees them in each row of `world`.

    One row serves all. Raises `OmniRLError` for a number of rows that does not fit and ids out of range.
    """
    size = world.num_rows
    if len(demonstrations) not in (1, size):
        raise OmniRLError(f"there are demonstrations for {len(demonstrations)} rows, and {size} rows play")
    demonstrations.check_ids(world.num_observations, world.world.num_actions, "the environment")
    repeat = np.zeros(size, int) if len(demonstrations) == 1 else np.arange(size)
    real, inside = demonstrations.real[repeat], demonstrations.inside[repeat]
    actions = demonstrations.actions[repeat]
    return replace(
        demonstrations,
        observations=world.to_agent_obs(np.where(inside, demonstrations.observations[repeat], 0)),
        tags=demonstrations.tags[repeat],
        actions=np.where(real, world.to_agent_action(np.where(real, actions, 0)), actions),
        rewards=world.shown(demonstrations.rewards[repeat]).astype(np.float32),
        terminated=demonstrations.terminated[repeat],
        lengths=demonstrations.lengths[repeat],
    )
