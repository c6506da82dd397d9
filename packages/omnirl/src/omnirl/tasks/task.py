"""One task: a tabular Markov decision process and how its states are shown.

    P(s' | s, a) = transition[s, a, s'],   r ~ Normal(reward[s, a, s'], reward_noise[s, a, s'])

States are counted by their inner index; the observation of state s is `state_mapping[s]`. Entering a terminal
state ends the episode. A bandit is one state that is both start and terminal: every step ends the episode.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, fields, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from omnirl.errors import OmniRLError
from omnirl.tasks.arrays import load_arrays, save_arrays
from omnirl.tasks.checks import check_tables

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

_DTYPES = {
    "transition": np.float64,
    "reward": np.float64,
    "reward_noise": np.float64,
    "start_states": np.int64,
    "start_probs": np.float64,
    "terminal_states": np.int64,
    "state_mapping": np.int64,
}


@dataclass(frozen=True, eq=False)
class Task:
    """A Markov decision process of S inner states and A actions.

    `transition`, `reward` (mean) and `reward_noise` (standard deviation): (S, A, S) float64; the rows of
    terminal states in `transition` are zero. `start_states` (k,) int64 with `start_probs` (k,) float64;
    `terminal_states` (m,) int64; `state_mapping` (S,) int64, the observation of each state, below
    `num_observations`, no two alike. An episode is truncated at step `max_steps`. `goal_terminates`: the last
    state is terminal and a goal. `seed` is the one it was sampled with, -1 if it was not sampled.

    Raises `OmniRLError` naming the first entry that is wrong.
    """

    transition: Floats
    reward: Floats
    reward_noise: Floats
    start_states: Ints
    start_probs: Floats
    terminal_states: Ints
    state_mapping: Ints
    num_observations: int
    num_actions: int
    max_steps: int
    goal_terminates: bool = False
    family: str = "custom"
    seed: int = -1

    def __post_init__(self) -> None:
        for name, dtype in _DTYPES.items():
            object.__setattr__(self, name, np.ascontiguousarray(getattr(self, name), dtype))
        for name in ("num_observations", "num_actions", "max_steps", "seed"):
            object.__setattr__(self, name, int(getattr(self, name)))
        object.__setattr__(self, "goal_terminates", bool(self.goal_terminates))
        self._check_shapes()
        start, live = self.start_distribution, ~self.terminal
        if self.num_states == 1:  # a bandit: its only state is both start and terminal
            live = np.ones(1, bool)
        tables = {"start_probs": start, "live": live}
        tables |= {name: getattr(self, name) for name in ("transition", "reward", "reward_noise")}
        check_tables({name: table[None] for name, table in tables.items()}, f"this {self.family} task")

    @property
    def num_states(self) -> int:
        """S, the number of inner states."""
        return self.transition.shape[0]

    @cached_property
    def terminal(self) -> NDArray[np.bool_]:
        """(S,) bool: entering the state ends the episode."""
        mask = np.zeros(self.num_states, bool)
        mask[self.terminal_states] = True
        return mask

    @cached_property
    def start_distribution(self) -> Floats:
        """(S,) float64: the probability of each state at the start of an episode."""
        dense = np.zeros(self.num_states)
        dense[self.start_states] = self.start_probs
        return dense

    @cached_property
    def expected_reward(self) -> Floats:
        """(S, A) float64: Σ_s' P(s'|s,a) reward(s,a,s')."""
        return np.einsum("sat,sat->sa", self.transition, self.reward)

    @cached_property
    def digest(self) -> str:
        """A hash of the dynamics and rewards, blind to observation ids: equal only for equal worlds."""
        hashed = hashlib.blake2b(digest_size=16)
        for table in (
            self.transition,
            self.reward,
            self.reward_noise,
            self.start_distribution,
            self.terminal,
        ):
            hashed.update(str(table.shape).encode() + np.ascontiguousarray(table).tobytes())
        return hashed.hexdigest()

    def permuted(self, rng: np.random.Generator | int) -> Task:
        """Return the same world under new random observation ids."""
        ids = np.random.default_rng(rng).permutation(self.num_observations)
        return replace(self, state_mapping=ids[self.state_mapping])

    def save(self, path: str | Path) -> None:
        """Write the task to `path` (.npz), whole or not at all."""
        save_arrays(path, "task", {field.name: getattr(self, field.name) for field in fields(self)})

    @classmethod
    def load(cls, path: str | Path) -> Task:
        """Read what `save` wrote. Raises `OmniRLError` if the file is another thing."""
        return cls(**load_arrays(path, "task"))

    @classmethod
    def from_gymnasium(cls, env: Any, *, max_steps: int | None = None) -> Task:
        """Return the exact task of an environment with a `P` table, such as FrozenLake and Taxi.

        The inner states are the observations. `max_steps` is the environment's own limit unless given.
        Raises `OmniRLError` if the environment has no table or no limit.
        """
        from omnirl.tasks.gymnasium_tables import task_from_gymnasium

        return task_from_gymnasium(env, max_steps)

    @classmethod
    def from_xenoverse(cls, task: dict[str, Any]) -> Task:
        """Return the task of a xenoverse (0.1.14) task dictionary.

        Raises `OmniRLError` for one that is partially observed or lacks a key.
        """
        from omnirl.tasks.xenoverse import task_from_xenoverse

        return task_from_xenoverse(task)

    def to_xenoverse(self) -> dict[str, Any]:
        """Return the dictionary that `xenoverse.anymdp.AnyMDPEnv.set_task` takes."""
        from omnirl.tasks.xenoverse import task_to_xenoverse

        return task_to_xenoverse(self)

    def _check_shapes(self) -> None:
        states = self.transition.shape[0] if self.transition.ndim else 0
        table = (states, self.num_actions, states)
        starts = (self.start_states.size,)
        shapes = {"transition": table, "reward": table, "reward_noise": table, "state_mapping": (states,)}
        shapes |= {"start_states": starts, "start_probs": starts}
        shapes |= {"terminal_states": (self.terminal_states.size,)}
        for name, shape in shapes.items():
            found = getattr(self, name).shape
            if found != shape:
                raise OmniRLError(
                    f"{name} has the shape {found}; for {states} states and {self.num_actions} actions it "
                    f"must be {shape}"
                )
        if min(states, self.num_actions, self.max_steps) < 1:
            raise OmniRLError(
                f"states {states}, actions {self.num_actions} and max_steps {self.max_steps}: "
                "each must be at least 1"
            )
        _check_ids("start_states", self.start_states, states)
        _check_ids("terminal_states", self.terminal_states, states)
        _check_ids("state_mapping", self.state_mapping, self.num_observations)


def _check_ids(name: str, ids: Ints, limit: int) -> None:
    if ids.size and (ids.min() < 0 or ids.max() >= limit):
        raise OmniRLError(
            f"{name} has {ids[(ids < 0) | (ids >= limit)][0]}; the ids go from 0 to {limit - 1}"
        )
    if np.unique(ids).size != ids.size:
        twice = np.flatnonzero(np.bincount(ids) > 1)[0]
        raise OmniRLError(f"{name} has {twice} more than once")


def as_policy(policy: ArrayLike, num_states: int, num_actions: int) -> Floats:
    """Return action probabilities (..., S, A) of a policy given so or as actions (..., S) int.

    Raises `OmniRLError` for another shape, an action out of range or a row that is no distribution.
    """
    array = np.asarray(policy)
    if np.issubdtype(array.dtype, np.integer) and array.shape[-1:] == (num_states,):
        if array.min() < 0 or array.max() >= num_actions:
            raise OmniRLError(
                f"the policy has the action {array.max()}; actions go from 0 to {num_actions - 1}"
            )
        return np.eye(num_actions)[array]
    if array.shape[-2:] != (num_states, num_actions):
        raise OmniRLError(
            f"the policy has the shape {array.shape}; it must end in (states, actions) = "
            f"({num_states}, {num_actions}), or hold one integer action a state"
        )
    array = array.astype(np.float64)
    sums = array.sum(-1)
    if not np.isfinite(array).all() or (array < 0).any() or (np.abs(sums - 1) > 1e-6).any():
        raise OmniRLError("the policy's rows must be probabilities: not negative, each with the sum 1")
    return array
