"""The evaluation: an agent learns in its context, in tasks or in Gymnasium's environments (section 2.8)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from omnirl.envs.shaping import RawStep
from omnirl.errors import OmniRLError
from omnirl.evaluation.controls import ControlledWorld, MemoryControl, Permute, Rewards
from omnirl.evaluation.grounds import Ground, as_tasks, environment_ground, maker, task_ground
from omnirl.evaluation.normalisers import Normaliser
from omnirl.evaluation.parallel import parallel_ground, parallel_maker
from omnirl.evaluation.results import EvalResult, StepResult
from omnirl.evaluation.teachers import Teacher, demonstrate, translated, world_policy
from omnirl.evaluation.worlds import Ints, Step
from omnirl.inference.demonstrations import Demonstrations
from omnirl.tasks.batch import TaskBatch

Start = Literal["online", "offline", "imitation"]
_TEACHERS = {"offline": Teacher("opt3", noise=0.7), "imitation": Teacher("opt3")}
_MEMORIES = ("kept", "frozen", "reset")


def evaluate(
    agent_or_policy: Any,
    env_or_tasks: Any,
    *,
    episodes: int,
    runs: int = 1,
    start: Start = "online",
    demonstrations: Teacher | Demonstrations | Sequence[Any] | None = None,
    shaping: str | Callable[[RawStep], ArrayLike] | None = None,
    discretize: Any = None,
    permute_states: Permute = False,
    permute_actions: bool = False,
    seed: int,
    rewards: Rewards = "shown",
    memory: MemoryControl = "kept",
    env_kwargs: dict[str, Any] | None = None,
    max_steps: int | None = None,
    oracle_return: float | None = None,
) -> EvalResult:
    """The returns and scores of the first `episodes` episodes of `runs` runs, each from an empty memory.

    Args:
        agent_or_policy: an `ICRLAgent`; a learner of `omnirl.baselines`; "random", "opt0" to "opt3"; a
            function from observations (R,) to actions (R,) by the environment's ids; a stable-baselines3
            model.
        env_or_tasks: a `Task`, a `TaskBatch`, a list of tasks, an `AnyMDPVectorEnv` for its tasks; an
            environment, its name, or a function that makes one; "Switch2" or another `ParallelEnv` of
            PettingZoo, whose agents are rows that learn on their own: row k · m + j is agent j of m in run k,
            the task k.
        episodes: E. A row that is done goes on, unrecorded, until the last one is.
        runs: of each task.
        start: "online" begins with an empty memory, "offline" after imperfect demonstrations (by default
            200 steps of opt3 with 70 % noise), "imitation" after the oracle's (200 steps).
        demonstrations: a `Teacher`, or what is shown: `Demonstrations` or episodes, by the environment's
            ids.
        shaping: the rewards that the agent is shown: a name (of environments only) or a function of a
            `RawStep`. Scores come from the environment's own.
        discretize: as `omnirl.envs.grids.discretize` takes it; needed where spaces are not discrete.
        permute_states: True shows other observation ids in each row, "episode" others in each episode.
        permute_actions: True gives other action ids in each row.
        seed: of everything random.
        rewards: what the agent is told, of demonstrations too: "shown", "hidden" (0) or "flipped" (sign).
        memory: "kept", "reset" (emptied at each episode's end) or "frozen" (left as it was at the start).
        env_kwargs: of a named environment.
        max_steps: the limit of an episode, in place of a named environment's; where tasks, environments and
            wrappers have a smaller one, theirs.
        oracle_return: what counts as 100 % in an environment without a table.

    Tasks whose oracle is better than random by less than 0.01 are left out and counted in the result.
    Raises `OmniRLError` for whatever does not fit: names, spaces, more states or actions than the model
    knows.
    """
    if episodes < 1:
        raise OmniRLError(f"episodes is {episodes}; at least one is needed")
    trial = _prepare(
        agent_or_policy,
        env_or_tasks,
        seed,
        runs=runs,
        start=start,
        demonstrations=demonstrations,
        shaping=shaping,
        discretize=discretize,
        permute_states=permute_states,
        permute_actions=permute_actions,
        rewards=rewards,
        memory=memory,
        env_kwargs=env_kwargs,
        max_steps=max_steps,
        oracle_return=oracle_return,
    )
    size = trial.world.num_rows
    totals, steps = np.zeros((2, size, episodes)), np.zeros((size, episodes), np.int64)
    done, rows = np.zeros(size, np.int64), np.arange(size)
    for step in trial.roll():
        counted = ~step.reset & (done < episodes)
        at = rows[counted], done[counted]
        totals[0][at] += step.reward[counted]
        totals[1][at] += step.raw[counted]
        steps[at] += 1
        done += step.ended & (done < episodes)
        if (done == episodes).all():
            break
    trial.world.close()
    return EvalResult(**trial.common(), returns=totals[0], raw_returns=totals[1], steps=steps)


def evaluate_steps(
    agent_or_policy: Any, env_or_tasks: Any, *, steps: int, runs: int = 1, seed: int, **options: Any
) -> StepResult:
    """The rewards of the first `steps` steps of `runs` runs; resets are steps, as in the model's context.

    Everything else is as in `evaluate`, whose keyword arguments it takes; only, tasks whose oracle hardly
    earns more per step than random are left out too (`Normaliser.usable_by_step`).
    """
    if steps < 1:
        raise OmniRLError(f"steps is {steps}; at least one is needed")
    trial = _prepare(agent_or_policy, env_or_tasks, seed, runs=runs, by_step=True, **options)
    rewards = np.full((trial.world.num_rows, steps), np.nan)
    ends = np.zeros(rewards.shape, bool)
    for t, step in zip(range(steps), trial.roll(), strict=False):
        rewards[:, t] = np.where(step.reset, np.nan, step.raw)
        ends[:, t] = step.ended
    trial.world.close()
    return StepResult(**trial.common(), rewards=rewards, ends=ends)


@dataclass
class _Trial:
    """An agent that has been shown its demonstrations, before a world where nothing has begun."""

    agent: Any
    world: ControlledWorld
    memory: MemoryControl
    normaliser: Normaliser | None
    skipped: int
    teacher_score: NDArray[np.float64] | None
    task_index: Ints
    settings: dict[str, Any]

    def roll(self) -> Iterator[Step]:
        obs = self.world.reset()
        while True:
            action = self.agent.act(obs)
            step = self.world.step(action)
            if self.memory != "frozen":
                self.agent.observe(action, step.reward, step.obs, step.terminated, step.truncated)
            if self.memory == "reset" and step.reset.any():
                self.agent.forget(step.reset)
            obs = step.obs
            yield step

    def common(self) -> dict[str, Any]:
        names = ("task_index", "normaliser", "skipped", "teacher_score", "settings")
        return {name: getattr(self, name) for name in names}


def _prepare(
    agent_or_policy: Any,
    env_or_tasks: Any,
    seed: int,
    *,
    runs: int,
    start: str = "online",
    demonstrations: Any = None,
    shaping: Any = None,
    discretize: Any = None,
    permute_states: Permute = False,
    permute_actions: bool = False,
    rewards: Rewards = "shown",
    memory: MemoryControl = "kept",
    env_kwargs: dict[str, Any] | None = None,
    max_steps: int | None = None,
    oracle_return: float | None = None,
    by_step: bool = False,
) -> _Trial:
    if runs < 1:
        raise OmniRLError(f"runs is {runs}; at least one is needed")
    if memory not in _MEMORIES:
        raise OmniRLError(f"memory is {memory!r}; it may be {', '.join(_MEMORIES)}")
    seeds = np.random.SeedSequence(seed).spawn(4)
    tasks, together = as_tasks(env_or_tasks), parallel_maker(env_or_tasks, env_kwargs or {})
    if tasks is not None:
        ground = task_ground(tasks, runs, seeds[0], shaping, by_step, max_steps)
    elif together is not None:
        _refuse(shaping=shaping, discretize=discretize, max_steps=max_steps, oracle_return=oracle_return)
        ground = parallel_ground(together, runs, seeds[0])
    else:
        make = maker(env_or_tasks, env_kwargs or {}, shaping, discretize, max_steps)
        ground = environment_ground(make, runs, seeds[0], max_steps, oracle_return)
    agent = _as_agent(agent_or_policy, ground, np.random.default_rng(seeds[2]))
    world = ControlledWorld(
        ground.world,
        agent.num_actions,
        permute_states=permute_states,
        permute_actions=permute_actions,
        rewards=rewards,
        seed=seeds[1],
    )
    if isinstance(agent, _PolicyAgent):
        agent.world = world
    if memory == "reset" and not hasattr(agent, "forget"):
        raise OmniRLError(f"memory='reset' needs an agent that can forget; {type(agent).__name__} cannot")
    agent.reset(world.num_rows, seed=int(seeds[2].generate_state(1)[0]))
    rate = _show(agent, world, start, demonstrations, ground.tasks, np.random.default_rng(seeds[3]))
    task_index = ground.kept[world.task_index]
    score = None
    if rate is not None and ground.normaliser is not None:
        score = ground.normaliser.rate_scores(rate, task_index)
    settings = {"runs": runs, "start": start, "seed": seed, "rewards": rewards, "memory": memory}
    settings |= {"permute_states": permute_states, "permute_actions": permute_actions}
    settings["actions_by_modulo"] = agent.num_actions > ground.world.num_actions
    return _Trial(agent, world, memory, ground.normaliser, ground.skipped, score, task_index, settings)


def _refuse(**options: Any) -> None:
    given = [name for name, value in options.items() if value is not None]
    if given:
        raise OmniRLError(f"an environment of several agents takes no {given[0]}=; make it as you want it")


class _PolicyAgent:
    """A policy that learns nothing, by the environment's own ids, as an agent."""

    world: ControlledWorld

    def __init__(self, policy: Callable[[Ints], ArrayLike], num_actions: int) -> None:
        self.policy, self.num_actions = policy, num_actions

    def reset(self, num_envs: int, *, seed: int) -> None:
        """Nothing to forget."""

    def act(self, obs: Ints) -> Ints:
        """The policy's actions."""
        return self.world.to_agent_action(np.asarray(self.policy(self.world.to_world_obs(obs)), np.int64))

    def observe(self, *step: Any) -> None:
        """Nothing to learn."""


def _as_agent(agent: Any, ground: Ground, rng: np.random.Generator) -> Any:
    world = ground.world
    if hasattr(agent, "act") and hasattr(agent, "observe"):
        if agent.num_states < world.num_observations:
            raise OmniRLError(
                f"the environment has {world.num_observations} observations and the agent knows "
                f"{agent.num_states}: use discretize= or a model with more states"
            )
        return agent
    if isinstance(agent, str) and agent == "random":
        return _PolicyAgent(lambda obs: rng.integers(world.num_actions, size=len(obs)), world.num_actions)
    if isinstance(agent, str):
        return _PolicyAgent(world_policy(agent, ground.tasks, world.task_index), world.num_actions)
    if hasattr(agent, "predict"):
        return _PolicyAgent(lambda obs: agent.predict(obs, deterministic=True)[0], world.num_actions)
    if callable(agent):
        return _PolicyAgent(agent, world.num_actions)
    raise OmniRLError(
        f"{type(agent).__name__} cannot play: give an ICRLAgent, a learner of omnirl.baselines, 'random', "
        "'opt0' to 'opt3', a function from observations to actions or a stable-baselines3 model"
    )


def _show(
    agent: Any,
    world: ControlledWorld,
    start: str,
    given: Any,
    tasks: TaskBatch | None,
    rng: np.random.Generator,
) -> NDArray[np.float64] | None:
    """Give the agent its demonstrations; their mean reward a step, None without any."""
    if start == "online":
        if given is not None:
            raise OmniRLError("an online start has no demonstrations; use start='offline' or 'imitation'")
        return None
    if start not in _TEACHERS:
        raise OmniRLError(f"start is {start!r}; it may be online, {', '.join(_TEACHERS)}")
    if not hasattr(agent, "load_demonstrations"):
        raise OmniRLError(f"start={start!r} needs an agent that takes demonstrations")
    filler = agent.model.config.num_actions if hasattr(agent, "model") else agent.num_actions
    given = _TEACHERS[start] if given is None else given
    if isinstance(given, Teacher):
        shown, rate = demonstrate(world, given, filler, tasks, rng)
    else:
        if not isinstance(given, Demonstrations):
            nested = bool(given) and isinstance(given[0], (list, tuple))
            given = Demonstrations.from_episodes(given, filler, num_envs=world.num_rows if nested else 1)
        shown = translated(given, world)
        rate = np.broadcast_to(given.reward_rate(), world.num_rows)
    agent.load_demonstrations(shown)
    return rate
