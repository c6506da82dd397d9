"""What a roll-out looks up for many tasks: step tables, observation ids and the oracles' actions."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from omnirl.tasks.batch import TaskBatch
from omnirl.tasks.solver import REFERENCE_GAMMAS, TIE, solve
from omnirl.tasks.stepping import StepTables


@dataclass(frozen=True, eq=False)
class Worlds:
    """N tasks made ready: built once, then played by any number of sequences."""

    tables: StepTables
    observations: NDArray[np.int64]
    """(N, S) the observation id of an inner state."""
    oracle: NDArray[np.int64]
    """(N, 4, n) the action of opt0..opt3 at an observation; zeros for levels that were not asked for."""
    max_steps: NDArray[np.int64]
    """(N,) the time limits."""
    num_observations: int
    num_actions: int

    @classmethod
    def build(cls, tasks: TaskBatch, levels: Collection[int] = range(4)) -> Worlds:
        """Solve the `tasks` for the discounts of these levels and make their step tables."""
        oracle = np.zeros((len(tasks), len(REFERENCE_GAMMAS), tasks.num_observations), np.int64)
        for level in sorted(levels):
            oracle[:, level] = by_observation(tasks, greedy_actions(solve(tasks, REFERENCE_GAMMAS[level])))
        return cls(
            StepTables.build(tasks),
            np.ascontiguousarray(tasks.state_mapping),
            oracle,
            tasks.max_steps,
            tasks.num_observations,
            tasks.num_actions,
        )

    def act(self, place: NDArray[np.int64], level: NDArray[np.int64] | int) -> NDArray[np.int64]:
        """Actions of oracles of these levels; `place` is task · 4n + observation, where a task's table
        begins.
        """
        return self.oracle.reshape(-1).take(place + level * self.num_observations)

    def observe(self, task: NDArray[np.int64], state: NDArray[np.int64]) -> NDArray[np.int64]:
        """Observation ids (E,) of the inner states `state` (E,) of `task` (E,)."""
        return self.observations.reshape(-1).take(task * self.observations.shape[1] + state)


def greedy_actions(q: NDArray[np.float64]) -> NDArray[np.int64]:
    """argmax over the last axis; of equal ones (to 1e-9 of the largest) the lowest index."""
    best = q.max(-1, keepdims=True)
    return (q >= best - TIE * np.maximum(1, np.abs(best))).argmax(-1)


def soft_labels(tasks: TaskBatch, temperature: float) -> NDArray[np.float32]:
    """(N, n, A) probabilities softmax(A*(s, ·) / (temperature · rms A*)) at each observation (section 2.6).

    A* = Q - V for γ = 0.994; the rms is over the live (s, a) of a task. Uniform where there is no state.
    """
    q = solve(tasks, REFERENCE_GAMMAS[3])
    advantage = q - q.max(-1, keepdims=True)
    live = (np.arange(q.shape[1]) < tasks.num_states[:, None]) & ~tasks.terminal
    square = (np.square(advantage).sum(-1) * live).sum(-1)
    rms = np.sqrt(square / np.maximum(1, live.sum(-1) * q.shape[-1]))
    weights = np.exp(advantage / (temperature * np.maximum(rms, 1e-12))[:, None, None])
    found = by_observation(tasks, weights.astype(np.float32))
    found[found.sum(-1) == 0] = 1.0
    return found / found.sum(-1, keepdims=True)


def by_observation(tasks: TaskBatch, values: NDArray[Any]) -> NDArray[Any]:
    """`values` (N, S, ...) of inner states as (N, n, ...) of observation ids; zeros where there is no
    state.
    """
    shape = (len(tasks), tasks.num_observations, *values.shape[2:])
    found = np.zeros(shape, values.dtype)
    task, state = np.nonzero(tasks.state_mapping >= 0)
    found[task, tasks.state_mapping[task, state]] = values[task, state]
    return found
