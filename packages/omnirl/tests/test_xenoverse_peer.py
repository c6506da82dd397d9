"""Beside xenoverse itself, where it is installed (benchmarks/tasks.py says how)."""

from __future__ import annotations

import numpy as np
import pytest

from omnirl import Task, sample_tasks, solve

pytest.importorskip("xenoverse", reason="xenoverse is not installed")
from xenoverse.anymdp import (  # type: ignore[import-not-found]
    AnyMDPEnv,
    AnyMDPSolverOpt,
    AnyMDPTaskSampler,
    GarnetTaskSampler,
)


@pytest.mark.parametrize("gamma", [0.0, 0.5, 0.93, 0.994])
def test_the_exact_values_are_those_of_its_value_iteration_up_to_where_that_stops(gamma: float) -> None:
    for i in range(3):
        dictionary = AnyMDPTaskSampler(16, 5, seed=i)
        env = AnyMDPEnv(max_steps=100)
        env.set_task(dictionary)
        theirs = AnyMDPSolverOpt(env, gamma=gamma).value_matrix
        np.testing.assert_allclose(solve(Task.from_xenoverse(dictionary), gamma), theirs, atol=0.05)


def test_its_environment_takes_our_tasks_and_we_take_its_families() -> None:
    for task in sample_tasks(3, 16, seed=0):
        env = AnyMDPEnv(max_steps=100)
        env.set_task(task.to_xenoverse())
        state, _ = env.reset()
        assert state in task.state_mapping[task.start_states]
    assert Task.from_xenoverse(AnyMDPTaskSampler(1, 5, seed=0)).family == "bandit"
    assert Task.from_xenoverse(GarnetTaskSampler(16, 5, seed=0)).num_states == 16
    few = Task.from_xenoverse(AnyMDPTaskSampler(16, 5, 8, seed=3))
    assert few.num_observations == 16
    assert 8 <= few.num_states <= 16
