"""Stable-Baselines3's algorithms learn under the protocol, and are tested on the same scale."""

import numpy as np
import pytest

from omnirl.errors import OmniRLError
from omnirl.tasks.task import Task

pytest.importorskip("stable_baselines3")

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
