"""DarkRoom: find an unseen goal in an empty square room (2.8). A tabular task, so its oracle is exact."""

from __future__ import annotations

import numpy as np
from gymnasium.vector import AutoresetMode

from omnirl.envs.single import AnyMDPEnv
from omnirl.envs.vector import AnyMDPVectorEnv
from omnirl.errors import OmniRLError
from omnirl.tasks.task import Task

# x + 1, x - 1, y + 1, y - 1
_MOVES = np.array([[1, 0], [-1, 0], [0, 1], [0, -1]])


def darkroom_task(size: int = 10, *, goal: tuple[int, int] | None = None, max_steps: int = 100) -> Task:
    """A room of size x size cells; cell (x, y) is the state and the observation x * size + y.

    The actions are +x, -x, +y, -y; a step into a wall stays. An episode starts in any cell but the goal, all
    alike, and ends on arrival at the goal (default the far corner) with the reward 1; other steps give -0.01.

    Raises `OmniRLError` for a room of one cell or a goal outside.
    """
    if size < 2:
        raise OmniRLError(f"size is {size}; a room has at least 2 x 2 cells")
    x, y = goal or (size - 1, size - 1)
    if not (0 <= x < size and 0 <= y < size):
        raise OmniRLError(f"the goal {goal} is outside the room: both numbers go from 0 to {size - 1}")
    cells = np.stack(np.meshgrid(np.arange(size), np.arange(size), indexing="ij"), -1).reshape(-1, 1, 2)
    arrived = (cells + _MOVES).clip(0, size - 1) @ np.array([size, 1])
    end = x * size + y
    states = size * size
    transition = np.zeros((states, 4, states))
    np.put_along_axis(transition, arrived[..., None], 1.0, axis=2)
    transition[end] = 0.0
    reward = np.full_like(transition, -0.01)
    reward[:, :, end] = 1.0
    return Task(
        transition=transition,
        reward=reward,
        reward_noise=np.zeros_like(transition),
        start_states=np.delete(np.arange(states), end),
        start_probs=np.full(states - 1, 1 / (states - 1)),
        terminal_states=np.array([end]),
        state_mapping=np.arange(states),
        num_observations=states,
        num_actions=4,
        max_steps=max_steps,
        goal_terminates=end == states - 1,
        family="darkroom",
    )


class DarkRoomEnv(AnyMDPEnv):
    """`darkroom_task` as an environment; rendered as text: the agent `A`, the goal `G`."""

    def __init__(
        self,
        size: int = 10,
        render_mode: str | None = None,
        *,
        goal: tuple[int, int] | None = None,
        max_steps: int = 100,
        debug: bool = False,
    ) -> None:
        task = darkroom_task(size, goal=goal, max_steps=max_steps)
        super().__init__(task, render_mode, debug=debug)
        self.size = size

    def render(self) -> str | None:
        """The room, a line a value of x."""
        if self.render_mode is None:
            return None
        room = np.full(self.size**2, ".")
        room[self.task.terminal_states] = "G"
        room[self._state] = "A"
        return "\n".join("".join(row) for row in room.reshape(self.size, self.size))


class DarkRoomVectorEnv(AnyMDPVectorEnv):
    """`num_envs` rooms of one kind; see `darkroom_task` and `AnyMDPVectorEnv`."""

    def __init__(
        self,
        num_envs: int = 1,
        size: int = 10,
        *,
        goal: tuple[int, int] | None = None,
        max_steps: int = 100,
        autoreset_mode: AutoresetMode | str = AutoresetMode.NEXT_STEP,
        seed: int | None = None,
    ) -> None:
        task = darkroom_task(size, goal=goal, max_steps=max_steps)
        super().__init__([task], num_envs, autoreset_mode, seed)
