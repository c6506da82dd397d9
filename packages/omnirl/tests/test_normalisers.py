"""The ends of the scale against golden values of Gymnasium's tables and a chain worked out by hand."""

import gymnasium as gym
import numpy as np
import pytest

from omnirl.envs.shaping import CliffWalkingShaping
from omnirl.evaluation.normalisers import (
    Normaliser,
    exact_normaliser,
    sampled_normaliser,
    task_of,
    truncated_task,
)
from omnirl.tasks.task import Task


def chain(max_steps=4):
    """Action 0 stays, action 1 ends with reward 1."""
    transition = np.zeros((2, 2, 2))
    transition[0, 0, 0] = transition[0, 1, 1] = 1
    reward = np.zeros((2, 2, 2))
    reward[0, 1, 1] = 1
    return Task(transition, reward, 0 * reward, [0], [1.0], [1], [0, 1], 2, 2, max_steps)


def test_the_chain_by_hand():
    found = exact_normaliser(chain(4))
    assert found.random[0] == pytest.approx(1 - 0.5**4)
    assert found.oracle[0] == pytest.approx(1.0)
    # 1 step with 1/2, 2 with 1/4, 3 with 1/8, 4 with the rest
    assert found.random_steps[0] == pytest.approx(0.5 + 0.5 + 3 / 8 + 4 / 8)
    assert found.oracle_steps[0] == pytest.approx(1.0)
    index = np.array([0])
    np.testing.assert_allclose(found.scores(np.array([[1.0, 0.9375]]), index), [[1, 0]])
    np.testing.assert_allclose(found.rate_scores(np.array([0.5]), index), [0.0], atol=1e-12)


def test_the_usable_gap_is_one_hundredth():
    short = exact_normaliser(chain(6))  # random 1 - 1/64: gap 0.0156
    long = exact_normaliser(chain(7))  # gap 0.0078
    assert short.usable[0]
    assert not long.usable[0]


def test_an_oracle_that_lives_longer_and_earns_less_a_step_is_not_usable_by_step():
    # the first: random -3 in 6 steps, the oracle -2.5 in 2
    found = Normaliser(*np.array([[-3.0, -2, 0.1], [-2.5, -1, 1], [6, 2, 10], [2, 8, 9]]))
    np.testing.assert_array_equal(found.usable, [True, True, True])
    np.testing.assert_array_equal(found.usable_by_step, [False, True, True])
    scores = found.rate_scores(np.array([-1.0, -1, 0.01]), np.arange(3))
    np.testing.assert_allclose(scores, [np.nan, 0, 0], atol=1e-12)


@pytest.mark.parametrize(
    ("kwargs", "oracle"), [({"is_slippery": True}, 0.7401648978), ({"is_slippery": False}, 1.0)]
)
def test_frozen_lake_has_its_golden_values(kwargs, oracle):
    found = exact_normaliser(task_of(gym.make("FrozenLake-v1", **kwargs)))
    assert found.random[0] == pytest.approx(0.0139397960, abs=1e-10)
    assert found.oracle[0] == pytest.approx(oracle, abs=1e-10)


def test_a_cliff_that_ends_the_episode_is_a_state_of_its_own():
    task = task_of(gym.make("CliffWalking-v1"), max_steps=200)
    cut = truncated_task(task, CliffWalkingShaping())
    found = exact_normaliser(cut)
    assert found.oracle[0] == pytest.approx(-13)
    assert found.oracle_steps[0] == pytest.approx(13)
    # the start is at the cliff: one action in four falls at once, so a random walk pays little more than 100
    assert -130 < found.random[0] < -100
    assert exact_normaliser(task).random[0] < -1000
    np.testing.assert_allclose(cut.transition[:-1].sum(-1)[task.transition.sum(-1) > 0], 1)


def test_an_environment_without_a_table_is_sampled_and_takes_the_oracle_as_given():
    found = sampled_normaliser(lambda: gym.make("FrozenLake-v1", is_slippery=False), 1.0, seed=0)
    exact = 0.0139397960
    assert abs(found.random[0] - exact) < 4 * np.sqrt(exact / 200)
    assert task_of(gym.make("MountainCar-v0")) is None
    assert task_of(gym.make("omnirl/DarkRoom-v0", size=3)).num_states == 9
