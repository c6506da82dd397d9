"""Stable-Baselines3 on the vector environment."""

from __future__ import annotations

import numpy as np
import pytest
from gymnasium.vector import AutoresetMode
from stable_baselines3 import PPO
from stable_baselines3.common.evaluation import evaluate_policy

from omnirl import OmniRLError, policy_value
from omnirl.envs import AnyMDPVectorEnv, SB3VecEnv, darkroom_task


def room(num_envs: int = 4, max_steps: int = 20) -> SB3VecEnv:
    tasks = [darkroom_task(3, max_steps=max_steps)]
    return SB3VecEnv(AnyMDPVectorEnv(tasks, num_envs, AutoresetMode.SAME_STEP))


def test_ppo_learns_a_small_dark_room_in_2000_steps() -> None:
    env = room(16)
    chance = policy_value(env.env.tasks[0], np.full((9, 4), 0.25), horizon=20)
    model = PPO(
        "MlpPolicy", env, n_steps=32, batch_size=128, n_epochs=4, learning_rate=1e-2, seed=0, device="cpu"
    )
    model.learn(2000)
    found, _ = evaluate_policy(model, env, n_eval_episodes=100)
    assert found > chance + 0.1


def test_ended_episodes_tell_their_last_observation_return_and_kind_of_end() -> None:
    env = room(2, max_steps=3)
    env.seed(0)
    env.reset()
    env.env._state[:] = [0, 5]  # (0, 0) and (1, 2); the goal is (2, 2)
    stay, down = 1, 0
    observation, reward, over, infos = env.step(np.array([stay, down]))
    assert over.tolist() == [False, True]
    assert infos[1] == {
        "terminal_observation": 8,
        "TimeLimit.truncated": False,
        "episode": {"r": 1.0, "l": 1},
    }
    assert (reward.dtype, infos[0]) == (np.float32, {})
    assert observation[1] != 8
    env.env._state[:] = 0
    env.step(np.array([stay, stay]))
    _, _, over, infos = env.step(np.array([stay, stay]))
    assert over.tolist() == [True, False]
    assert infos[0]["TimeLimit.truncated"]
    assert infos[0]["episode"] == {"r": pytest.approx(-0.03), "l": 3}


def test_the_seed_of_stable_baselines_decides_the_episodes() -> None:
    env = room(50)
    env.seed(3)
    first = env.reset()
    env.seed(3)
    np.testing.assert_array_equal(first, env.reset())
    assert (first != env.reset()).any()


def test_an_environment_that_resets_otherwise_is_refused() -> None:
    with pytest.raises(OmniRLError, match=r"autoreset_mode=AutoresetMode\.SAME_STEP"):
        SB3VecEnv(AnyMDPVectorEnv([darkroom_task(3)]))
    with pytest.raises(OmniRLError, match="one vector environment"):
        room().set_attr("tasks", None)
    with pytest.raises(OmniRLError, match=r"call it on `\.env`"):
        room().env_method("step")
