"""Switch2 in `evaluate`: exact ends of the scale, agents that wait for each other, a run is one sample."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from omnirl import OmniRLError, policy_value
from omnirl.baselines import QLearningUCB
from omnirl.envs import Switch2, switch2_task
from omnirl.evaluation import evaluate, evaluate_steps
from omnirl.evaluation.parallel import ParallelWorld

DOWN, LEFT, UP, RIGHT, STAY = range(5)
# agent_0 crosses first and waits at its goal for agent_1.
FIRST = [DOWN, RIGHT, RIGHT, RIGHT, RIGHT, RIGHT, UP, *[STAY] * 7]
SECOND = [DOWN, DOWN, STAY, STAY, STAY, STAY, STAY, UP, LEFT, LEFT, LEFT, LEFT, LEFT, UP]
BOTH = np.array([FIRST, SECOND]).T


class Plan:
    """The crossing by heart, for the two rows of each run; the step after an end is a reset."""

    num_states, num_actions = 105, 5

    def reset(self, num_envs: int, *, seed: int) -> None:
        self.runs, self.time = num_envs // 2, 0

    def act(self, obs: np.ndarray) -> np.ndarray:
        now = BOTH[self.time] if self.time < len(BOTH) else np.array([STAY, STAY])
        self.time = 0 if self.time == len(BOTH) else self.time + 1
        return np.tile(now, self.runs)

    def observe(self, *step: Any) -> None:
        pass


def test_both_as_one_are_a_task_whose_best_return_is_a_goal_each() -> None:
    task = switch2_task(50)
    assert task.num_states == 15 * 14  # any two cells but the same one, and all of them can be reached
    assert policy_value(task, "optimal") == 5.0
    shortest = [policy_value(task, "optimal", horizon) for horizon in (6, 7, len(BOTH))]
    assert shortest == [0.0, 2.5, 5.0]


def test_the_crossing_scores_one_and_random_what_chance_gives() -> None:
    found = evaluate(Plan(), "Switch2", episodes=3, runs=2, seed=0)
    assert found.task_index.tolist() == [0, 0, 1, 1]
    np.testing.assert_array_equal(found.raw_returns, 5.0)
    np.testing.assert_array_equal(found.steps, len(BOTH))  # agent_0 is at its goal in step 7, and waits
    np.testing.assert_allclose(found.normalized_score, 1.0)
    np.testing.assert_allclose(found.ci95, 0.0)
    chance = evaluate("random", "Switch2", episodes=25, runs=4, seed=1).normalized_score
    assert abs(chance.mean()) < 4 * chance.std() / np.sqrt(50)  # the two agents of a run are not independent


def test_an_agent_that_waits_is_paid_nothing_and_sees_what_it_saw_last() -> None:
    world = ParallelWorld([Switch2()], np.random.SeedSequence(0))
    world.reset()
    steps = [world.step(action) for action in BOTH]
    assert steps[6].reward.tolist() == pytest.approx([1 - 0.04] * 2)
    assert not any(step.ended.any() for step in steps[:-1])
    assert steps[-1].terminated.all()
    assert [step.reward[0] for step in steps[7:]] == [0.0] * 7
    assert {int(step.obs[0]) for step in steps[6:]} == {int(steps[6].obs[0])}
    again = world.step(np.array([STAY, STAY]))
    assert again.reset.all()
    assert again.obs.tolist() == [5 * 15 + 1, 1 * 15 + 2]


def test_a_limit_truncates_both() -> None:
    world = ParallelWorld([Switch2(max_steps=2)], np.random.SeedSequence(0))
    world.reset()
    steps = [world.step(np.array([STAY, STAY])) for _ in range(2)]
    assert [step.truncated.tolist() for step in steps] == [[False] * 2, [True] * 2]
    assert not steps[-1].terminated.any()


def test_two_tabular_learners_learn_to_pass_each_other() -> None:
    learner = QLearningUCB(105, 5)
    found = evaluate(learner, "Switch2", episodes=120, runs=2, seed=0).normalized_score
    assert found[:, :5].mean() < 0.3
    assert found[:, -20:].mean() > 0.6


def test_what_does_not_fit_is_named() -> None:
    with pytest.raises(OmniRLError, match="takes no shaping="):
        evaluate("random", "Switch2", episodes=1, shaping="frozenlake", seed=0)
    with pytest.raises(OmniRLError, match="105 observations and the agent knows 16"):
        evaluate(QLearningUCB(16, 5), Switch2(), episodes=1, seed=0)
    found = evaluate_steps("random", Switch2(max_steps=5), steps=12, runs=2, seed=0)
    assert np.isnan(found.rewards[:, 5]).all()  # the reset
