"""The ends of the scale against golden values of Gymnasium's tables and a chain worked out by hand."""

import gymnasium as gym
import numpy as np
import pytest

from omnirl import OmniRLError, evaluate, sample_tasks
from omnirl.envs.shaping import CliffWalkingShaping, FrozenLakeShaping
from omnirl.evaluation.normalisers import (
    Normaliser,
    exact_normaliser,
    limited,
    sampled_normaliser,
    task_of,
    truncated_task,
)
from omnirl.tasks.task import Task


@pytest.fixture(scope="module")
def tasks():
    return sample_tasks(4, seed=11)


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


def test_slipping_into_the_cliff_ends_the_episode_although_staying_leads_to_the_start_too():
    env = gym.make("CliffWalking-v1", is_slippery=True)
    found = task_of(env, 100, CliffWalkingShaping())
    start, right, end = 36, 1, 48
    # of three equal directions right falls, up moves on and down stays at the edge of the map
    np.testing.assert_allclose(found.transition[start, right, [24, start, end]], 1 / 3)
    np.testing.assert_allclose(found.reward[start, right, [start, end]], [-1, -100])
    assert not found.reward_noise.any()
    assert not found.goal_terminates
    merged = task_of(env, 100)
    assert merged.reward_noise.any()
    with pytest.raises(OmniRLError, match=r"CliffWalkingShaping ends an episode .* noise of its rewards"):
        truncated_task(merged, CliffWalkingShaping())
    assert truncated_task(merged, FrozenLakeShaping(0.0)) is merged


@pytest.mark.parametrize("slippery", [False, True])
@pytest.mark.parametrize(("policy", "score"), [("random", 0.0), ("opt3", 1.0)])
def test_on_the_cliff_random_scores_0_and_the_oracle_1(slippery, policy, score):
    options = {"env_kwargs": {"is_slippery": slippery}, "shaping": "cliffwalking", "max_steps": 100}
    found = evaluate(policy, "CliffWalking-v1", episodes=25, runs=8, seed=0, **options).normalized_score
    assert abs(found.mean() - score) < 4 * found.std() / np.sqrt(200) + 1e-12


def test_the_limit_of_a_world_is_the_smallest_of_all(tasks):
    room = "omnirl/DarkRoom-v0"
    assert task_of(gym.make(room)).max_steps == 100
    assert task_of(gym.make(room), 30).max_steps == 30
    assert task_of(gym.make(room, max_episode_steps=20), 30).max_steps == 20
    lake = gym.wrappers.TimeLimit(gym.wrappers.TimeLimit(gym.make("FrozenLake-v1"), 7), 50)
    assert task_of(lake, 60).max_steps == 7
    np.testing.assert_array_equal(limited(tasks, 110).max_steps, np.minimum(tasks.max_steps, 110))
    assert limited(tasks, None) is tasks
    with pytest.raises(OmniRLError, match="max_steps is 0"):
        limited(tasks, 0)


@pytest.mark.parametrize(("policy", "score"), [("random", 0.0), ("opt3", 1.0)])
def test_a_limit_of_steps_holds_for_the_ends_of_the_scale_too(tasks, policy, score):
    for world in ("omnirl/DarkRoom-v0", tasks):
        found = evaluate(policy, world, episodes=20, runs=8, seed=0, max_steps=10)
        assert found.steps.max() == 10
        scores = found.normalized_score
        assert abs(scores.mean() - score) < 4 * scores.std() / np.sqrt(scores.size)


def test_an_environment_without_a_table_is_sampled_and_takes_the_oracle_as_given():
    found = sampled_normaliser(lambda: gym.make("FrozenLake-v1", is_slippery=False), 1.0, seed=0)
    exact = 0.0139397960
    assert abs(found.random[0] - exact) < 4 * np.sqrt(exact / 200)
    assert task_of(gym.make("MountainCar-v0")) is None
    assert task_of(gym.make("omnirl/DarkRoom-v0", size=3)).num_states == 9
