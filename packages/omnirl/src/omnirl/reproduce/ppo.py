"""PPO of Stable-Baselines3 on single unseen tasks: trained from nothing, tested greedily on the way."""

from __future__ import annotations

from typing import Any

from omnirl.reproduce.playing import TestsConfig, unseen_tasks
from tenfold import Trial, TrialContext

STAGE = "ppo"


def ppo_trial(trial: Trial, context: TrialContext) -> dict[str, Any]:
    """Mean score of the test episodes after each number of steps, for each of the first tasks."""
    from omnirl.baselines.sb3 import sb3_learning_curve

    tests, count = TestsConfig(**trial.settings["tests"]), trial.settings["tasks"]
    seed = tests.first_seed + trial.seed
    tasks = unseen_tasks(tests.tasks, seed)
    scores: list[list[float]] = []
    steps: list[int] = []
    for number in range(count):
        curve = sb3_learning_curve("ppo", tasks[number], checkpoints=trial.settings["steps"], seed=seed)
        assert curve.scores is not None
        scores.append(curve.scores.mean(1).tolist())
        steps = curve.steps.tolist()
        context.progress(number + 1, count)
    return {"steps": steps, "scores": scores}
