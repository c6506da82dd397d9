"""The environments under Gymnasium's names."""

from __future__ import annotations

import warnings

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from gymnasium.vector import AutoresetMode

from omnirl import OmniRLError, sample_tasks
from omnirl.envs import AnyMDPVectorEnv, DarkRoomVectorEnv
from omnirl.envs.registration import ENVIRONMENTS


@pytest.mark.parametrize("name", ENVIRONMENTS)
def test_every_registered_environment_passes_the_checker_without_a_warning(name: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        env = gym.make(name)
        check_env(env.unwrapped)
        env.reset(seed=0)
        env.step(env.action_space.sample())


@pytest.mark.parametrize("name", ENVIRONMENTS)
def test_every_registered_environment_has_a_vector_form(name: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        env = gym.make_vec(name, num_envs=3)
    assert isinstance(env, AnyMDPVectorEnv)
    assert env.observation_space.contains(env.reset(seed=0)[0])
    observation, reward, *_ = env.step(env.action_space.sample())
    assert env.observation_space.contains(observation)
    assert reward.shape == (3,)
    assert env.spec.id == name


def test_tasks_that_are_given_are_played() -> None:
    tasks = sample_tasks(3, num_states=8, num_actions=3, family="garnet", seed=1)
    env = gym.make("omnirl/AnyMDP-v0", task=tasks[2])
    assert (env.observation_space.n, env.action_space.n) == (8, 3)
    np.testing.assert_array_equal(env.unwrapped.task.transition, tasks[2].transition)
    many = gym.make_vec("omnirl/AnyMDP-v0", num_envs=6, vectorization_mode="vector_entry_point", tasks=tasks)
    assert many.unwrapped.task_index.tolist() == [0, 1, 2, 0, 1, 2]
    assert many.metadata["autoreset_mode"] is AutoresetMode.NEXT_STEP


def test_without_a_task_the_seed_of_the_task_and_the_sizes_decide_it() -> None:
    made = gym.make("omnirl/Garnet-v0", num_states=12, num_actions=4, task_seed=5)
    wanted = sample_tasks(1, 12, 4, family="garnet", seed=5)[0]
    np.testing.assert_array_equal(made.unwrapped.task.transition, wanted.transition)
    vector = AnyMDPVectorEnv(num_envs=2, family="garnet", num_states=12, task_seed=5)
    assert vector.tasks[0].digest != vector.tasks[1].digest
    with pytest.raises(OmniRLError, match=r"needs 1 \(bandit\) or at least 8 states"):
        gym.make("omnirl/AnyMDP-v0", num_states=5)


def test_a_bandit_ends_with_every_step() -> None:
    env = gym.make_vec("omnirl/Bandit-v0", num_envs=50)
    env.reset(seed=0)
    terminated, reset = (env.step(np.zeros(50, int))[2] for _ in range(2))
    assert terminated.all()
    assert not reset.any()


def test_gymnasiums_own_vector_forms_take_the_single_environment() -> None:
    env = gym.make_vec("omnirl/DarkRoom-v0", num_envs=2, vectorization_mode="sync", size=4)
    assert env.single_observation_space.n == 16
    assert isinstance(gym.make_vec("omnirl/DarkRoom-v0", num_envs=2, size=4), DarkRoomVectorEnv)
