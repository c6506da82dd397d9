"""Environments of several agents (PettingZoo's `ParallelEnv`) as rows of a world: each agent learns alone.

Row k · m + j is agent j of m in environment k. All agents of an environment begin and end an episode
together: one that has left before the others waits, seeing what it saw last, with reward 0 whatever it does.
"""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from omnirl.errors import OmniRLError
from omnirl.evaluation.grounds import Ground
from omnirl.evaluation.normalisers import Normaliser, exact_normaliser
from omnirl.evaluation.worlds import Ints, Step, World, discrete_size

SWITCH2 = "Switch2"
"""The name that `evaluate` takes for `omnirl.envs.Switch2`."""


class ParallelWorld(World):
    """R = K · m rows of K environments with m agents each, all with the same discrete spaces.

    `task_index` counts environments, so that an interval counts runs and not agents. The raw reward is
    `info["raw_reward"]` where there is one, else the reward.
    """

    def __init__(self, envs: Sequence[Any], seed: np.random.SeedSequence) -> None:
        self.envs = list(envs)
        self.agents = list(envs[0].possible_agents)
        self.num_rows = len(self.envs) * len(self.agents)
        self.task_index = np.repeat(np.arange(len(self.envs)), len(self.agents))
        spaces = {
            (
                discrete_size(env.observation_space(agent), "observations"),
                discrete_size(env.action_space(agent), "actions"),
            )
            for env in envs
            for agent in self.agents
        }
        if len(spaces) > 1:
            raise OmniRLError("the agents of the environment differ in their spaces; one model cannot be all")
        self.num_observations, self.num_actions = spaces.pop()
        self._seeds: list[int | None] = [int(s.generate_state(1)[0]) for s in seed.spawn(len(envs))]

    def reset(self) -> Ints:
        """Begin an episode in every environment; the first time with the seeds."""
        self._obs = np.zeros(self.num_rows, np.int64)
        self._over = np.zeros(len(self.envs), bool)
        for number, seed in enumerate(self._seeds):
            self._begin(number, seed)
        self._seeds = [None] * len(self.envs)
        return self._obs.copy()

    def step(self, action: Ints) -> Step:
        """Act with every agent that plays; begin a new episode where the last one is over."""
        reset = np.repeat(self._over, len(self.agents))
        reward, raw = np.zeros((2, self.num_rows))
        terminated, truncated = np.zeros((2, self.num_rows), bool)
        for number, env in enumerate(self.envs):
            if self._over[number]:
                self._begin(number, None)
                continue
            first = number * len(self.agents)
            rows = {agent: first + j for j, agent in enumerate(self.agents)}
            acted = {agent: int(action[rows[agent]]) for agent in env.agents}
            obs, rewards, ends, cuts, infos = env.step(acted)
            for agent in acted:
                row = rows[agent]
                self._obs[row], reward[row] = obs[agent], rewards[agent]
                raw[row] = infos[agent].get("raw_reward", rewards[agent])
                truncated[row] = cuts[agent] and not ends[agent]
            here = slice(first, first + len(self.agents))
            self._over[number] = over = not env.agents
            terminated[here], truncated[here] = over & ~truncated[here], over & truncated[here]
        return Step(self._obs.copy(), reward, raw, terminated, truncated, reset)

    def close(self) -> None:
        """Close all environments."""
        for env in self.envs:
            env.close()

    def _begin(self, number: int, seed: int | None) -> None:
        first = number * len(self.agents)
        obs, _ = self.envs[number].reset(seed=seed)
        for j, agent in enumerate(self.agents):
            self._obs[first + j] = obs[agent]
        self._over[number] = False


def parallel_maker(env: Any, env_kwargs: dict[str, Any]) -> Callable[[], Any] | None:
    """A function that makes the environment of several agents; None where `env` is something else.

    `env` is "Switch2" or a `ParallelEnv`, of which each row gets a copy.
    """
    if isinstance(env, str) and env == SWITCH2:
        from omnirl.envs.switch2 import Switch2

        return lambda: Switch2(**env_kwargs)
    if hasattr(env, "possible_agents") and not isinstance(env, type):
        return lambda: copy.deepcopy(env)
    return None


def parallel_ground(make: Callable[[], Any], runs: int, seed: np.random.SeedSequence) -> Ground:
    """`runs` environments; scores are exact for Switch2 (the mean of both agents), else there are none."""
    envs = [make() for _ in range(runs)]
    normaliser = None
    if type(envs[0]).__name__ == SWITCH2:
        one = _switch2_normaliser(envs[0].max_steps)
        ends = (one.random, one.oracle, one.random_steps, one.oracle_steps)
        normaliser = Normaliser(*(np.repeat(end, runs) for end in ends))
    return Ground(ParallelWorld(envs, seed), None, normaliser, np.arange(runs))


@functools.lru_cache(maxsize=8)
def _switch2_normaliser(max_steps: int) -> Normaliser:
    from omnirl.envs.switch2 import switch2_task

    return exact_normaliser(switch2_task(max_steps))
