"""Many tasks as stacked arrays: what the solver, the steppers and the synthesiser work on."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

from omnirl.errors import OmniRLError
from omnirl.tasks.arrays import load_arrays, save_arrays
from omnirl.tasks.checks import check_tables
from omnirl.tasks.task import Floats, Ints, Task

Index = slice | Sequence[int] | NDArray[Any]

_DTYPES = {
    "transition": np.float64,
    "reward": np.float64,
    "reward_noise": np.float64,
    "start_probs": np.float64,
    "terminal": np.bool_,
    "num_states": np.int64,
    "state_mapping": np.int64,
    "max_steps": np.int64,
    "goal_terminates": np.bool_,
    "seed": np.int64,
}


@dataclass(frozen=True, eq=False)
class TaskBatch:
    """N tasks with the same numbers of actions and of observations, padded to S inner states.

    `transition`, `reward`, `reward_noise` (N, S, A, S) float64; `start_probs` (N, S) float64 over inner
    states; `terminal` (N, S) bool: entering the state ends the episode; `num_states` (N,) int64;
    `state_mapping` (N, S) int64, -1 where padded; `max_steps` (N,) int64; `goal_terminates` (N,) bool; `seed`
    (N,) int64, -1 for a task that was not sampled. The rows of terminal and of padded states in `transition`
    are zero; the one state of a bandit is both start and terminal, and keeps its row.

    `batch[i]` is a `Task`; `batch[2:5]` and `batch[[0, 3]]` are batches. A batch refuses what a `Task`
    refuses, with an `OmniRLError` that names the task.
    """

    transition: Floats
    reward: Floats
    reward_noise: Floats
    start_probs: Floats
    terminal: NDArray[np.bool_]
    num_states: Ints
    state_mapping: Ints
    num_observations: int
    num_actions: int
    max_steps: Ints
    goal_terminates: NDArray[np.bool_]
    family: str
    seed: Ints

    def __post_init__(self) -> None:
        for name, dtype in _DTYPES.items():
            object.__setattr__(self, name, np.ascontiguousarray(getattr(self, name), dtype))
        object.__setattr__(self, "num_observations", int(self.num_observations))
        object.__setattr__(self, "num_actions", int(self.num_actions))
        self._check_shapes()
        real = np.arange(self.transition.shape[1]) < self.num_states[:, None]
        self._check_rows(real)
        live = real & (~self.terminal | (self.num_states == 1)[:, None])
        names = ("transition", "reward", "reward_noise", "start_probs")
        check_tables({name: getattr(self, name) for name in names} | {"live": live}, "task {0}")

    @classmethod
    def stack(cls, tasks: Sequence[Task]) -> TaskBatch:
        """Return the batch of these tasks, in order, padded to the largest number of states.

        Raises `OmniRLError` if there is none, or they differ in their numbers of actions or observations.
        """
        if not tasks:
            raise OmniRLError("a batch needs at least one task")
        for name in ("num_actions", "num_observations"):
            found = sorted({getattr(task, name) for task in tasks})
            if len(found) > 1:
                raise OmniRLError(f"the tasks of a batch have one {name}; these have {found}")
        states, actions = max(task.num_states for task in tasks), tasks[0].num_actions
        shapes: dict[str, tuple[int, ...]] = dict.fromkeys(
            ("transition", "reward", "reward_noise"), (states, actions, states)
        )
        shapes |= dict.fromkeys(("start_probs", "terminal", "state_mapping"), (states,))
        arrays: dict[str, Any] = {
            name: np.zeros((len(tasks), *shape), _DTYPES[name]) for name, shape in shapes.items()
        }
        arrays["state_mapping"].fill(-1)
        for i, task in enumerate(tasks):
            n = task.num_states
            for name in ("transition", "reward", "reward_noise"):
                arrays[name][i, :n, :, :n] = getattr(task, name)
            arrays["start_probs"][i, :n] = task.start_distribution
            arrays["terminal"][i, :n] = task.terminal
            arrays["state_mapping"][i, :n] = task.state_mapping
        families = {task.family for task in tasks}
        return cls(
            **arrays,
            num_states=np.array([task.num_states for task in tasks]),
            num_observations=tasks[0].num_observations,
            num_actions=actions,
            max_steps=np.array([task.max_steps for task in tasks]),
            goal_terminates=np.array([task.goal_terminates for task in tasks]),
            family=families.pop() if len(families) == 1 else "mixed",
            seed=np.array([task.seed for task in tasks]),
        )

    @classmethod
    def concatenate(cls, batches: Sequence[TaskBatch]) -> TaskBatch:
        """Return one batch of all these, in order; they must be padded alike."""
        if len(batches) == 1:
            return batches[0]
        if not batches or len({batch.transition.shape[1:] for batch in batches}) > 1:
            raise OmniRLError(
                "batches are joined only if there is one at least and all have the same padded shape"
            )
        arrays = {name: np.concatenate([getattr(batch, name) for batch in batches]) for name in _DTYPES}
        families = {batch.family for batch in batches}
        return cls(
            **arrays,
            num_observations=batches[0].num_observations,
            num_actions=batches[0].num_actions,
            family=families.pop() if len(families) == 1 else "mixed",
        )

    def __len__(self) -> int:
        return self.transition.shape[0]

    @overload
    def __getitem__(self, index: int | np.integer) -> Task: ...
    @overload
    def __getitem__(self, index: Index) -> TaskBatch: ...
    def __getitem__(self, index: int | np.integer | Index) -> Task | TaskBatch:
        if isinstance(index, int | np.integer):
            return self._task(range(len(self))[index])
        rows = index if isinstance(index, slice) else np.asarray(index)
        chosen = object.__new__(TaskBatch)  # its rows were checked already
        for field in fields(self):
            value = getattr(self, field.name)
            object.__setattr__(chosen, field.name, value[rows] if field.name in _DTYPES else value)
        return chosen

    def __iter__(self) -> Iterator[Task]:
        return (self[i] for i in range(len(self)))

    @cached_property
    def expected_reward(self) -> Floats:
        """(N, S, A) float64: Σ_s' P(s'|s,a) reward(s,a,s')."""
        return np.einsum("nsat,nsat->nsa", self.transition, self.reward)

    def split(self, seed: int, fraction: float) -> tuple[TaskBatch, TaskBatch]:
        """Return two batches without a common task; the first has round(fraction · N) tasks, drawn by `seed`.

        Raises `OmniRLError` unless 0 <= fraction <= 1.
        """
        if not 0 <= fraction <= 1:
            raise OmniRLError(f"fraction is {fraction}; it must be between 0 and 1")
        order = np.random.default_rng(seed).permutation(len(self))
        cut = round(fraction * len(self))
        return self[np.sort(order[:cut])], self[np.sort(order[cut:])]

    def save(self, path: str | Path) -> None:
        """Write the batch to `path` (.npz), whole or not at all."""
        save_arrays(path, "batch of tasks", {field.name: getattr(self, field.name) for field in fields(self)})

    @classmethod
    def load(cls, path: str | Path) -> TaskBatch:
        """Read what `save` wrote. Raises `OmniRLError` if the file is another thing."""
        return cls(**load_arrays(path, "batch of tasks"))

    def _task(self, i: int) -> Task:
        n = int(self.num_states[i])
        starts = np.flatnonzero(self.start_probs[i] > 0)
        return Task(
            transition=self.transition[i, :n, :, :n],
            reward=self.reward[i, :n, :, :n],
            reward_noise=self.reward_noise[i, :n, :, :n],
            start_states=starts,
            start_probs=self.start_probs[i, starts],
            terminal_states=np.flatnonzero(self.terminal[i]),
            state_mapping=self.state_mapping[i, :n],
            num_observations=self.num_observations,
            num_actions=self.num_actions,
            max_steps=int(self.max_steps[i]),
            goal_terminates=bool(self.goal_terminates[i]),
            family=self.family,
            seed=int(self.seed[i]),
        )

    def _check_shapes(self) -> None:
        count, states = self.transition.shape[:2]
        table = (count, states, self.num_actions, states)
        shapes: dict[str, tuple[int, ...]] = {"transition": table, "reward": table, "reward_noise": table}
        shapes |= dict.fromkeys(("start_probs", "terminal", "state_mapping"), (count, states))
        shapes |= dict.fromkeys(("num_states", "max_steps", "goal_terminates", "seed"), (count,))
        for name, shape in shapes.items():
            found = getattr(self, name).shape
            if found != shape:
                raise OmniRLError(
                    f"{name} has the shape {found}; for {count} tasks of {states} states and "
                    f"{self.num_actions} actions it must be {shape}"
                )
        if min(states, self.num_actions) < 1:
            raise OmniRLError(f"states {states} and actions {self.num_actions}: each must be at least 1")

    def _check_rows(self, real: NDArray[np.bool_]) -> None:
        """What `Task` asks of its numbers and ids, of all tasks at once; `real` (N, S) are no padding."""
        states, ids, limit = real.shape[1], self.state_mapping, self.num_observations
        _refuse(
            (self.num_states < 1) | (self.num_states > states),
            lambda i: f"num_states is {self.num_states[i]}; it must be from 1 to {states}",
        )
        _refuse(self.max_steps < 1, lambda i: f"max_steps is {self.max_steps[i]}; it must be at least 1")
        outside = real & ((ids < 0) | (ids >= limit))
        _refuse(
            outside,
            lambda i: f"state_mapping has {ids[i, outside[i]][0]}; the ids go from 0 to {limit - 1}",
        )
        # Padding gets negative ids of its own, so that in order only ids shown twice are equal neighbours.
        ordered = np.sort(np.where(real, ids, -1 - np.arange(states)), axis=1)
        twice = ordered[:, 1:] == ordered[:, :-1]
        _refuse(twice, lambda i: f"state_mapping has {ordered[i, 1:][twice[i]][0]} more than once")
        _refuse(
            ~real & self.terminal,
            lambda i: f"a state beyond its {self.num_states[i]} is terminal; those are padding",
        )


def _refuse(wrong: NDArray[np.bool_], message: Callable[[int], str]) -> None:
    """Raise the `message` of the first task that is `wrong` (N,), or somewhere so (N, S)."""
    if wrong.any():
        first = int(np.nonzero(wrong)[0][0])
        raise OmniRLError(f"task {first}: {message(first)}")
