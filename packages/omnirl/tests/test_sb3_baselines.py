"""Stable-Baselines3's algorithms learn under the protocol, and are tested on the same scale."""

import numpy as np
import pytest

from omnirl.envs import darkroom_task
from omnirl.errors import OmniRLError
from omnirl.tasks.task import Task

pytest.importorskip("stable_baselines3")

from stable_baselines3 import DQN

from omnirl.baselines import sb3_learning_curve


def corridor():
    """Two states, action 1 of three pays 1 and ends; the others end too and pay nothing."""
    transition = np.zeros((2, 3, 2))
    transition[0, :, 1] = 1
    reward = np.zeros((2, 3, 2))
    reward[0, 1, 1] = 1
    return Task(transition, reward, 0 * reward, [0], [1.0], [1], [1, 0], 2, 3, 5)


@pytest.mark.parametrize(("algorithm", "steps"), [("ppo", 1024), ("dqn", 1024)])
def test_a_one_step_world_is_learnt(algorithm, steps):
    settings = {"learning_rate": 1e-2}
    found = sb3_learning_curve(algorithm, corridor(), checkpoints=[64, steps], seed=0, **settings)
    assert found.returns.shape == (2, 5)
    assert found.steps[1] >= steps
    np.testing.assert_allclose(found.scores[1], 1.0)


def test_exploration_falls_once_however_often_it_is_tested(monkeypatch):
    rates = []
    step = DQN._on_step

    def told(self):
        step(self)
        rates.append(self.exploration_rate)

    monkeypatch.setattr(DQN, "_on_step", told)
    found = sb3_learning_curve("dqn", corridor(), checkpoints=[200, 400, 1000], test_episodes=1, seed=0)
    np.testing.assert_array_equal(found.steps, [224, 416, 1024])  # rollouts of 4 steps in 8 environments
    assert (np.diff(rates) <= 0).all()
    steps = 8 * np.arange(1, len(rates) + 1)
    np.testing.assert_allclose(rates, np.maximum(1 - 0.95 * steps / 300, 0.05))  # falls for 30 % of the steps


def test_a_limit_of_steps_holds_in_training_and_in_tests():
    room = darkroom_task(4)
    found = sb3_learning_curve(
        "ppo", room, checkpoints=[64], num_envs=2, test_episodes=4, seed=0, max_steps=3
    )
    assert found.returns.min() >= -0.03 - 1e-12


def test_an_environment_is_trained_with_the_shaping_and_scored_without():
    found = sb3_learning_curve(
        "ppo",
        "FrozenLake-v1",
        checkpoints=[64],
        test_episodes=2,
        num_envs=2,
        seed=0,
        shaping="frozenlake",
        env_kwargs={"is_slippery": False},
        n_steps=16,
        batch_size=32,
    )
    assert found.steps[0] == 64
    assert set(found.returns.ravel()) <= {0.0, 1.0}


@pytest.mark.parametrize(("algorithm", "checkpoints"), [("sac", [10]), ("ppo", []), ("ppo", [20, 10])])
def test_mistakes_are_told(algorithm, checkpoints):
    with pytest.raises(OmniRLError):
        sb3_learning_curve(algorithm, corridor(), checkpoints=checkpoints, seed=0)
