"""How fast this machine samples, solves, steps and synthesises; `benchmarks/` compares with xenoverse."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np


def measured_speed(
    num_states: int = 16, num_actions: int = 5, *, num_tasks: int = 256, steps: int = 1000, seed: int = 0
) -> dict[str, float]:
    """Rates a second of the processor: tasks sampled and solved exactly, steps of the vector environment
    (4,096 side by side, of uniform actions) and of DPD synthesis (one sequence of `steps` a task).

    Raises `OmniRLError` for sizes that `sample_tasks` refuses.
    """
    from omnirl.data.synthesis import synthesize
    from omnirl.envs.vector import AnyMDPVectorEnv
    from omnirl.tasks.sampling import sample_tasks
    from omnirl.tasks.solver import solve

    sampling, tasks = _timed(lambda: sample_tasks(num_tasks, num_states, num_actions, seed=seed))
    solving, _ = _timed(lambda: solve(tasks, 0.994))
    envs = AnyMDPVectorEnv(tasks, num_envs=4096, seed=seed)
    envs.reset()
    actions = np.random.default_rng(seed).integers(num_actions, size=(100, envs.num_envs))
    stepping, _ = _timed(lambda: [envs.step(action) for action in actions])
    synthesis, _ = _timed(lambda: synthesize(tasks, steps, seed=seed))
    return {
        "sampled tasks / s": num_tasks / sampling,
        "solved tasks / s": num_tasks / solving,
        "environment steps / s": actions.size / stepping,
        "synthesised steps / s": num_tasks * steps / synthesis,
    }


def _timed(call: Callable[[], Any]) -> tuple[float, Any]:
    start = time.process_time()
    result = call()
    return max(time.process_time() - start, 1e-9), result
