"""The evaluations of a trained model, and of what it is compared with: all play the same unseen tasks."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import gymnasium
import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from omnirl.baselines import PSRL, QLearningUCB, ReleasedQLearning, TabularLearner
from omnirl.envs.shaping import FrozenLakeShaping, ScaledShaping, ShapedReward
from omnirl.evaluation.normalisers import exact_normaliser
from omnirl.evaluation.protocol import evaluate_steps
from omnirl.evaluation.results import StepResult
from omnirl.evaluation.teachers import Teacher
from omnirl.inference.agent import ICRLAgent
from omnirl.inference.live import play
from omnirl.model.modeling import OmniRL
from omnirl.reproduce.training import STAGE as TRAINING
from omnirl.reproduce.training import changed_parameters, load_model, task_hashes, trained_on
from omnirl.tasks.batch import TaskBatch
from omnirl.tasks.sampling import sample_tasks
from omnirl.tasks.task import Task
from tenfold import Trial, TrialContext

STAGE, FILM = "evaluation", "film"
NOISE = 0.7
FIRST, LAST = 50, 100
LAST_SHARE = 0.4
"""Of FrozenLake's steps: where its success is measured."""


class TestsConfig(BaseModel):
    """What trained models are tested on."""

    __test__ = False  # no tests for pytest
    model_config = ConfigDict(frozen=True, extra="forbid")

    tasks: int = Field(gt=1, description="unseen ones, whose oracle earns more per step than random")
    steps: int = Field(gt=LAST, description="of context; demonstrations are among them")
    shown: int = Field(gt=1, description="steps of demonstration")
    long_steps: int | None = Field(default=None, gt=3)
    lake_runs: int = Field(gt=1)
    lake_steps: int = Field(gt=0)
    lake_scale: float = Field(gt=0, description="times the shaped rewards of FrozenLake, for the agent alone")
    first_seed: int = Field(gt=0, description="the tests of seed s have seed first_seed + s")


STARTS: Mapping[str, tuple[Teacher | None, dict[str, Any]]] = {
    "online": (None, {}),
    "offline_random": (Teacher("random"), {}),
    "offline_random_hidden": (Teacher("random"), {"rewards": "hidden"}),
    "noisy": (Teacher("opt3", noise=NOISE), {}),
    "noisy_untagged": (Teacher("opt3", noise=NOISE, hide_tags=True), {}),
    "imitation": (Teacher("opt3"), {}),
}
LAKES: Mapping[str, tuple[bool, dict[str, Any]]] = {
    "lake": (False, {}),
    "lake_hidden": (False, {"rewards": "hidden"}),
    "lake_slippery": (True, {}),
}
LEARNERS: Mapping[str, Callable[..., TabularLearner]] = {
    "released": ReleasedQLearning,
    "tuned": QLearningUCB,
    "psrl": PSRL,
}


def evaluation_trial(trial: Trial, context: TrialContext) -> dict[str, Any]:
    """Play one arm; with a trained model its parameters and its tasks are compared before and after."""
    tests = TestsConfig(**trial.settings["tests"])
    seed = tests.first_seed + trial.seed
    name = trial.settings["play"]
    if name in LEARNERS:
        return _play_learner(name, tests, seed)
    source = training_of(trial)
    model = load_model(source, context)
    agent = ICRLAgent(model, device=source.settings.get("device"))
    found = _play_lake(name, agent, tests, seed) if name in LAKES else _play(name, agent, tests, seed)
    found["changed_parameters"] = changed_parameters(model, source, context)
    tested = set(task_hashes(lake_task(name) if name in LAKES else unseen_tasks(tests.tasks, seed)))
    trained = trained_on(source, context)
    if trained:  # where every sequence had a new task nothing was kept to compare with
        found["shared_tasks"] = len(tested & trained)
    return found


def film_trial(trial: Trial, context: TrialContext) -> dict[str, Any]:
    """The run's model or a named one in one FrozenLake, episode by episode: how it goes, for the film."""
    tests = TestsConfig(**trial.settings["tests"])
    seed = tests.first_seed + trial.seed
    if "film_model" in trial.settings:
        agent = ICRLAgent(OmniRL.from_pretrained(trial.settings["film_model"]), num_actions=4)
    else:
        source = training_of(trial)
        agent = ICRLAgent(load_model(source, context), num_actions=4, device=source.settings.get("device"))
    env = ShapedReward(
        gymnasium.make("FrozenLake-v1", is_slippery=False), lake_shaping(False, tests.lake_scale)
    )
    episodes = list(play(agent, env, episodes=trial.settings["episodes"], seed=seed))
    return {"ways": [episode.observations for episode in episodes], "raw": [one.raw for one in episodes]}


def training_of(trial: Trial) -> Trial:
    """The training trial whose model an evaluation plays with."""
    return Trial(trial.settings["model"], trial.seed, trial.settings["training"], stage=TRAINING)


def unseen_tasks(count: int, seed: int) -> TaskBatch:
    """The first `count` tasks (16, 5) of the seed that can be scored by step: two of a hundred cannot."""
    tasks = sample_tasks(count + count // 10 + 4, seed=seed)
    return tasks[np.flatnonzero(exact_normaliser(tasks).usable_by_step)[:count]]


def lake_task(name: str) -> TaskBatch:
    """FrozenLake as a task."""
    return TaskBatch.stack([Task.from_gymnasium(gymnasium.make("FrozenLake-v1", is_slippery=LAKES[name][0]))])


def lake_shaping(slippery: bool, scale: float) -> ScaledShaping:
    """FrozenLake's shaping times a factor, for rewards of the size that AnyMDP's are."""
    return ScaledShaping(FrozenLakeShaping(0.0 if slippery else -0.05), scale)


def _play(name: str, agent: Any, tests: TestsConfig, seed: int) -> dict[str, Any]:
    tasks = unseen_tasks(tests.tasks, seed)
    if name == "online_long":
        assert tests.long_steps is not None
        result = evaluate_steps(agent, tasks, steps=tests.long_steps, seed=seed)
        return {"last_quarter": result.score(-tests.long_steps // 4).tolist(), **_curve(result)}
    teacher, options = STARTS[name]
    if teacher is None:
        return _scores(evaluate_steps(agent, tasks, steps=tests.steps, seed=seed, **options))
    shown = Teacher(teacher.policy, teacher.noise, tests.shown, hide_tags=teacher.hide_tags)
    start = "imitation" if name == "imitation" else "offline"
    steps = tests.steps - tests.shown
    result = evaluate_steps(
        agent, tasks, steps=steps, seed=seed, start=start, demonstrations=shown, **options
    )
    assert result.teacher_score is not None
    return {
        "score": result.score().tolist(),
        "teacher": result.teacher_score.tolist(),
        "shown": tests.shown,
        **_curve(result),
    }


def _play_learner(name: str, tests: TestsConfig, seed: int) -> dict[str, Any]:
    learner = LEARNERS[name](16, 5)
    steps = tests.long_steps or tests.steps
    result = evaluate_steps(learner, unseen_tasks(tests.tasks, seed), steps=steps, seed=seed)
    found = _scores(result, tests.steps)
    if tests.long_steps is not None:
        found["last_quarter"] = result.score(-tests.long_steps // 4).tolist()
    return found


def _scores(result: StepResult, steps: int | None = None) -> dict[str, Any]:
    """Scores (tasks,) of the first and the last steps of the context."""
    steps = steps or result.rewards.shape[1]
    return {
        "first": result.score(0, FIRST).tolist(),
        "last": result.score(steps - LAST, steps).tolist(),
        **_curve(result),
    }


def _curve(result: StepResult, window: int = 25) -> dict[str, Any]:
    mean, half = result.curve(window)
    return {"window": window, "curve": mean.tolist(), "half": half.tolist()}


def _play_lake(name: str, agent: Any, tests: TestsConfig, seed: int) -> dict[str, Any]:
    """FrozenLake with other names of states and actions in every run."""
    slippery, options = LAKES[name]
    result = evaluate_steps(
        agent,
        "FrozenLake-v1",
        env_kwargs={"is_slippery": slippery},
        steps=tests.lake_steps,
        runs=tests.lake_runs,
        shaping=lake_shaping(slippery, tests.lake_scale),
        permute_states=True,
        permute_actions=True,
        seed=seed,
        **options,
    )
    window = max(1, tests.lake_steps // 12)
    parts = [result.success(cut, cut + window) for cut in range(0, tests.lake_steps - window + 1, window)]
    return {
        "success": result.success(-round(LAST_SHARE * tests.lake_steps)).tolist(),
        "window": window,
        "curve": [float(np.nanmean(part)) if np.isfinite(part).any() else None for part in parts],
    }
