"""Playing one environment episode after episode, each told as soon as it has ended."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import gymnasium as gym

from omnirl.errors import OmniRLError
from omnirl.evaluation.worlds import discrete_size
from omnirl.inference.agent import ICRLAgent


@dataclass(frozen=True)
class Episode:
    """One episode: its number from 0, the reward that the agent was shown, the environment's own, the way."""

    number: int
    shown: float
    raw: float
    observations: tuple[int, ...]
    """All of them, the first and the last too: one more than there are steps."""

    @property
    def steps(self) -> int:
        """How many actions it took."""
        return len(self.observations) - 1


def play(agent: ICRLAgent, env: gym.Env[Any, Any], *, episodes: int, seed: int = 0) -> Iterator[Episode]:
    """Let the agent learn in `env` from an empty memory and yield each episode when it has ended.

    `env` has discrete observations and actions; its raw reward is `info["raw_reward"]` where `ShapedReward`
    tells it, else the reward. Raises `OmniRLError` for other spaces and for more states or actions than the
    model knows.
    """
    observations = discrete_size(env.observation_space, "observations")
    if observations > agent.num_states:
        raise OmniRLError(
            f"the environment has {observations} observations and the agent knows {agent.num_states}: "
            "use discretize= or a model with more states"
        )
    discrete_size(env.action_space, "actions")
    agent.reset(1, "none", seed=seed)
    for number in range(episodes):
        obs, _ = env.reset(seed=seed if number == 0 else None)
        way, shown, raw, ended = [int(obs)], 0.0, 0.0, False
        while not ended:
            action = int(agent.act([obs])[0])
            obs, reward, terminated, truncated, info = env.step(action)
            agent.observe([action], [float(reward)], [obs], [terminated], [truncated])
            way.append(int(obs))
            shown, raw = shown + float(reward), raw + float(info.get("raw_reward", reward))
            ended = bool(terminated or truncated)
        yield Episode(number, shown, raw, tuple(way))
