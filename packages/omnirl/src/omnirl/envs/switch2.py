"""Switch2: two agents swap sides through a corridor that is one cell wide (2.8), as a PettingZoo environment.

The room has 3 x 7 cells, of which 15 are free: both ends of all rows, and the whole middle row.

    0  1  .  .  .  2  3         agent_0 starts in cell 1 and goes to 3,
    4  5  6  7  8  9 10         agent_1 starts in cell 2 and goes to 0
   11 12  .  .  . 13 14
"""

from __future__ import annotations

from typing import Any

import numpy as np
from gymnasium.error import ResetNeeded
from gymnasium.spaces import Discrete

from omnirl.errors import MissingExtraError, OmniRLError
from omnirl.tasks.task import Task

try:
    from pettingzoo import ParallelEnv
except ImportError as error:
    raise MissingExtraError(
        "Switch2 is a PettingZoo environment; install it with: pip install 'omnirl-icrl[multiagent]'"
    ) from error

Cell = tuple[int, int]

_COLUMNS = 7
_CELLS: dict[Cell, int] = {
    cell: number
    for number, cell in enumerate(
        (row, column) for row in range(3) for column in range(_COLUMNS) if row == 1 or column in (0, 1, 5, 6)
    )
}
_STARTS: dict[str, Cell] = {"agent_0": (0, 1), "agent_1": (0, 5)}
_GOALS: dict[str, Cell] = {"agent_0": (0, 6), "agent_1": (0, 0)}
# Down, left, up, right, stay.
_MOVES: tuple[Cell, ...] = ((1, 0), (0, -1), (-1, 0), (0, 1), (0, 0))

_GOAL, _NEARER, _FARTHER, _STILL = 1.0, 0.08, -0.12, -0.04
_RAW_GOAL = 5.0


def switch2_observation(cell: int, other_column: int) -> int:
    """The observation of an agent in `cell` 0..14 while the other is in column 0..6: in 0..104."""
    return other_column * len(_CELLS) + cell


def switch2_task(max_steps: int = 50) -> Task:
    """Both agents as one: a `Task` over pairs of cells with 25 joint actions, agent_0's times 5 + agent_1's.

    Its reward is the mean of both agents' raw ones, so the best return is 5. Of use for exact returns; its
    observations are pairs of cells, which no agent sees.
    """
    env = Switch2(max_steps=2, raw_reward=True)
    places: dict[tuple[Cell, Cell], int] = {(_STARTS["agent_0"], _STARTS["agent_1"]): 0}
    found: list[tuple[int, int, int, float]] = []
    waiting = list(places)
    while waiting:
        pair = waiting.pop()
        for joint in range(len(_MOVES) ** 2 if pair != tuple(_GOALS.values()) else 0):
            env.reset()
            env.agents = [agent for agent, cell in zip(_GOALS, pair, strict=True) if cell != _GOALS[agent]]
            env._cell = dict(zip(_GOALS, pair, strict=True))
            paid = env.step(dict(zip(_GOALS, divmod(joint, len(_MOVES)), strict=True)))[1]
            after = (env._cell["agent_0"], env._cell["agent_1"])
            if after not in places:
                places[after] = len(places)
                waiting.append(after)
            found.append((places[pair], joint, places[after], sum(paid.values()) / 2))
    states, actions = len(places), len(_MOVES) ** 2
    transition, reward = np.zeros((2, states, actions, states))
    for before, joint, arrived, pays in found:
        transition[before, joint, arrived], reward[before, joint, arrived] = 1.0, pays
    return Task(
        transition=transition,
        reward=reward,
        reward_noise=np.zeros_like(reward),
        start_states=np.array([0]),
        start_probs=np.ones(1),
        terminal_states=np.array([places[_GOALS["agent_0"], _GOALS["agent_1"]]]),
        state_mapping=np.arange(states),
        num_observations=states,
        num_actions=actions,
        max_steps=max_steps,
        family="switch2",
    )


class Switch2(ParallelEnv[str, int, int]):
    """Two agents with the observations of `switch2_observation` and the actions down, left, up, right, stay.

    agent_0 moves first; a wall or the other agent is in the way. An agent on its goal has finished: it stays
    there, and leaves `agents`. Each agent gets the sum of both agents' rewards: 1 for the goal, 0.08 nearer
    to it, -0.12 farther from it (cells along rows and columns), -0.04 otherwise, 0 when finished; with
    `raw_reward=True`, 5 for its own goal and 0 otherwise, which `info["raw_reward"]` tells in either case.
    The episode is truncated at step `max_steps`.
    """

    # PettingZoo's own interface: a class attribute.
    metadata: dict[str, Any] = {"name": "switch2_v0", "render_modes": ["ansi"]}  # noqa: RUF012

    def __init__(
        self, max_steps: int = 50, render_mode: str | None = None, *, raw_reward: bool = False
    ) -> None:
        if max_steps < 1:
            raise OmniRLError(f"max_steps is {max_steps}; it must be at least 1")
        if render_mode not in (None, "ansi"):
            raise OmniRLError(f"render_mode is {render_mode!r}; it must be None or 'ansi'")
        self.max_steps = max_steps
        self.render_mode = render_mode
        self.raw_reward = raw_reward
        self.possible_agents = list(_STARTS)
        self.agents: list[str] = []
        self.observation_spaces = {agent: Discrete(_COLUMNS * len(_CELLS)) for agent in _STARTS}
        self.action_spaces = {agent: Discrete(len(_MOVES)) for agent in _STARTS}
        self._cell = dict(_STARTS)
        self._steps = 0

    def observation_space(self, agent: str) -> Discrete:
        """105 observations."""
        return self.observation_spaces[agent]

    def action_space(self, agent: str) -> Discrete:
        """Five actions."""
        return self.action_spaces[agent]

    def reset(
        self, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, int], dict[str, dict[str, Any]]]:
        """Begin an episode. Nothing in it is random: the seed has no effect."""
        self.agents = list(self.possible_agents)
        self._cell = dict(_STARTS)
        self._steps = 0
        return self._observations(self.agents), {agent: {} for agent in self.agents}

    def step(
        self, actions: dict[str, int]
    ) -> tuple[dict[str, int], dict[str, float], dict[str, bool], dict[str, bool], dict[str, dict[str, Any]]]:
        """Act with all agents that have not finished; their observations, rewards, ends and infos.

        Raises `gymnasium.error.ResetNeeded` when no agent is left, `OmniRLError` for an action that is
        missing or out of range.
        """
        if not self.agents:
            raise ResetNeeded("no agent is left: call reset() before step()")
        acting = self.agents
        self._check(actions)
        self._steps += 1
        own = {agent: self._move(agent, int(actions[agent])) for agent in acting}
        rewards = own if self.raw_reward else dict.fromkeys(acting, sum(own.values()))
        terminated = {agent: self._cell[agent] == _GOALS[agent] for agent in acting}
        truncated = dict.fromkeys(acting, self._steps >= self.max_steps)
        self.agents = [agent for agent in acting if not (terminated[agent] or truncated[agent])]
        infos = {agent: {"raw_reward": _RAW_GOAL if terminated[agent] else 0.0} for agent in acting}
        return self._observations(acting), rewards, terminated, truncated, infos

    def render(self) -> str | None:
        """The room: `0` and `1` the agents, `#` walls."""
        if self.render_mode is None:
            return None
        room = np.full((3, _COLUMNS), "#")
        for cell in _CELLS:
            room[cell] = "."
        for agent, cell in self._cell.items():
            room[cell] = agent[-1]
        return "\n".join("".join(row) for row in room)

    def _move(self, agent: str, action: int) -> float:
        """Move one agent; its own part of the reward."""
        (row, column), (down, right) = self._cell[agent], _MOVES[action]
        before, aim = self._distance(agent), (row + down, column + right)
        if aim in _CELLS and aim not in self._cell.values():
            self._cell[agent] = aim
        after = self._distance(agent)
        if self.raw_reward:
            return _RAW_GOAL if after == 0 else 0.0
        if after == 0:
            return _GOAL
        return _NEARER if after < before else _FARTHER if after > before else _STILL

    def _distance(self, agent: str) -> int:
        (row, column), (goal_row, goal_column) = self._cell[agent], _GOALS[agent]
        return abs(row - goal_row) + abs(column - goal_column)

    def _observations(self, agents: list[str]) -> dict[str, int]:
        first, second = self.possible_agents
        other = {first: second, second: first}
        return {
            agent: switch2_observation(_CELLS[self._cell[agent]], self._cell[other[agent]][1])
            for agent in agents
        }

    def _check(self, actions: dict[str, int]) -> None:
        for agent in self.agents:
            if agent not in actions or not self.action_spaces[agent].contains(actions[agent]):
                raise OmniRLError(
                    f"the action of {agent} is {actions.get(agent, 'missing')}; actions are integers from 0 "
                    f"to {len(_MOVES) - 1}, one an agent that has not finished"
                )
