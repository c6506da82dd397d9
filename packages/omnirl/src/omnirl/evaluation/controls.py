"""Controls against memorising: the same worlds with other ids, other rewards, another memory (section 4).

A model that learnt a task inside its context is not hurt by new ids that hold for a whole run; it cannot
learn where the ids change every episode, where rewards are hidden or where nothing is remembered.
"""

from __future__ import annotations

from typing import Literal

import numpy as np

from omnirl.errors import OmniRLError
from omnirl.evaluation.worlds import Floats, Ints, Step, World

Permute = bool | Literal["episode"]
Rewards = Literal["shown", "hidden", "flipped"]
MemoryControl = Literal["kept", "frozen", "reset"]

_SIGN = {"shown": 1.0, "hidden": 0.0, "flipped": -1.0}


class ControlledWorld(World):
    """`world` as the agent sees it: permuted ids, rewards shown, hidden or sign-flipped, actions by modulo.

    `permute_states`: True draws one permutation of the observation ids a row, "episode" a new one each
    episode. `permute_actions` permutes the agent's `num_actions` ids; agent action a acts as perm[a] mod the
    world's number of actions, so that an agent with more actions than the world has is still understood.
    """

    def __init__(
        self,
        world: World,
        num_actions: int,
        *,
        permute_states: Permute = False,
        permute_actions: bool = False,
        rewards: Rewards = "shown",
        seed: int | np.random.SeedSequence = 0,
    ) -> None:
        if num_actions < world.num_actions:
            raise OmniRLError(
                f"the agent knows {num_actions} actions and the environment has {world.num_actions}; "
                "it needs a model with at least as many"
            )
        if permute_states not in (True, False, "episode"):
            raise OmniRLError(f"permute_states is {permute_states!r}; it may be True, False or 'episode'")
        if rewards not in _SIGN:
            raise OmniRLError(f"rewards is {rewards!r}; it may be 'shown', 'hidden' or 'flipped'")
        self.world, self.num_actions = world, num_actions
        self.num_rows, self.num_observations = world.num_rows, world.num_observations
        self.task_index = world.task_index
        self._sign = _SIGN[rewards]
        self._each_episode = permute_states == "episode"
        self._rng = np.random.default_rng(seed)
        self._rows = np.arange(world.num_rows)
        self._states = self._permutations(self.num_observations, bool(permute_states))
        self._actions = self._permutations(num_actions, permute_actions) % world.num_actions

    def reset(self) -> Ints:
        """Begin everywhere."""
        return self._states[self._rows, self.world.reset()]

    def step(self, action: Ints) -> Step:
        """Act by the agent's ids."""
        step = self.world.step(self.to_world_action(action))
        if self._each_episode and step.reset.any():
            self._states[step.reset] = self._rng.permuted(self._states[step.reset], axis=1)
        obs = self._states[self._rows, step.obs]
        return Step(obs, self.shown(step.reward), step.raw, step.terminated, step.truncated, step.reset)

    def close(self) -> None:
        """Close the world."""
        self.world.close()

    def to_world_action(self, action: Ints) -> Ints:
        """The world's actions (R,) of the agent's."""
        return self._actions[self._rows, action]

    def to_agent_action(self, action: Ints) -> Ints:
        """An agent's action (R, ...) for each of the world's (the first that acts so)."""
        first = (self._actions[:, None, :] == np.arange(self.world.num_actions)[:, None]).argmax(-1)
        return first[self._rows.reshape(-1, *[1] * (action.ndim - 1)), action]

    def to_agent_obs(self, obs: Ints) -> Ints:
        """The agent's observation ids (R, ...) of the world's."""
        return self._states[self._rows.reshape(-1, *[1] * (obs.ndim - 1)), obs]

    def to_world_obs(self, obs: Ints) -> Ints:
        """The world's observation ids (R,) of the agent's."""
        return (self._states == obs[:, None]).argmax(-1)

    def shown(self, reward: Floats) -> Floats:
        """The rewards as the agent is shown them."""
        return self._sign * reward + 0.0  # never -0.0

    def _permutations(self, size: int, shuffle: bool) -> Ints:
        ids = np.tile(np.arange(size), (self.num_rows, 1))
        return self._rng.permuted(ids, axis=1) if shuffle else ids
