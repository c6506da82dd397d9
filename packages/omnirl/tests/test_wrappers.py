"""Grids, shaped rewards and DarkRoom: the numbers of the paper, by hand."""

from __future__ import annotations

import math

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.spaces import Box, Discrete

from omnirl import OmniRLError, Task, policy_value, solve
from omnirl.envs import (
    AnyMDPEnv,
    Grid,
    GridObservation,
    RawStep,
    ShapedReward,
    darkroom_task,
    discretize,
    named_shaping,
)
from omnirl.envs.grids import MOUNTAIN_CAR, PENDULUM, pendulum_features, uniform_grid


def test_pendulum_and_mountain_car_cells_are_those_of_the_paper() -> None:
    # Angle 0 is the first of 12 bins, speed 0 the middle of 5; pi/2 + 0.1 = 3.19 bins of pi/6: the fourth.
    angles = np.array([0.0, math.pi / 2 + 0.1, -1e-3])
    observations = np.stack([np.cos(angles), np.sin(angles), np.zeros(3)], axis=-1)
    assert PENDULUM(pendulum_features(observations)).tolist() == [2, 17, 11 * 5 + 2]
    assert MOUNTAIN_CAR([-0.5, 0.0]) == 22
    assert (PENDULUM.size, MOUNTAIN_CAR.size) == (60, 60)


def test_what_lies_beyond_a_grid_is_in_its_outer_cells() -> None:
    grid = Grid((0.0, 0.0), (1.0, 1.0), (2, 3))
    assert grid([[-5, -5], [0.5, 0.4], [1.0, 9.0]]).tolist() == [0, 4, 5]


def test_a_discrete_pendulum_has_sixty_observations_and_the_five_torques() -> None:
    env = discretize(gym.make("Pendulum-v1"))
    assert (env.observation_space, env.action_space) == (Discrete(60), Discrete(5))
    np.testing.assert_array_equal(env.values, [-2, -1, 0, 1, 2])
    env.reset(seed=0)
    assert env.observation_space.contains(env.step(4)[0])
    assert env.unwrapped.last_u == 2


def test_grids_are_chosen_by_name_by_hand_or_evenly() -> None:
    assert discretize(gym.make("MountainCar-v0")).observation_space.n == 60
    assert discretize(gym.make("CartPole-v1")).observation_space.n == 81
    assert discretize(gym.make("Acrobot-v1")).observation_space.n == 2**6
    assert discretize(gym.make("MountainCar-v0"), "uniform", num_states=50).observation_space.n == 7**2
    assert discretize(gym.make("MountainCar-v0"), Grid((-1, -0.1), (1, 0.1), (2, 2))).observation_space.n == 4
    own = discretize(gym.make("CartPole-v1"), lambda env: GridObservation(env, PENDULUM, lambda o: o[:2]))
    assert own.observation_space.n == 60
    lake = gym.make("FrozenLake-v1")
    assert discretize(lake) is lake


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: discretize(gym.make("CartPole-v1"), "uniform"), "no finite limits"),
        (lambda: discretize(gym.make("CartPole-v1"), "pendulum"), "observations of 3 numbers"),
        (lambda: discretize(gym.make("CartPole-v1"), "hexagons"), "cartpole and uniform"),
        (lambda: uniform_grid(Box(0, 1, (8,))), "256 cells, more than 128"),
        (lambda: Grid((0.0,), (math.inf,), (3,)), "quantity 0 of the grid"),
        (lambda: Grid((0.0,), (1.0,), (3, 3)), "one length"),
    ],
)
def test_a_grid_that_does_not_fit_is_named(make, message: str) -> None:
    with pytest.raises(OmniRLError, match=message):
        make()


def play(env: gym.Env, actions: list[int]) -> list[tuple[float, float, bool, bool]]:
    """(shaped reward, raw reward, terminated, truncated) of each step."""
    env.reset(seed=0)
    found = []
    for action in actions:
        _, reward, terminated, truncated, info = env.step(action)
        found.append((reward, info["raw_reward"], terminated, truncated))
    return found


def test_frozen_lake_rewards_the_goal_and_punishes_holes() -> None:
    env = ShapedReward(gym.make("FrozenLake-v1", is_slippery=False), "frozenlake")
    left, down, right = 0, 1, 2
    goal = play(env, [down, down, right, right, down, right])
    assert [reward for reward, *_ in goal] == [-0.05] * 5 + [1.0]
    assert [raw for _, raw, *_ in goal] == [0.0] * 5 + [1.0]
    assert play(env, [down, right])[-1] == (-1.0, 0.0, True, False)
    slippery = ShapedReward(gym.make("FrozenLake-v1", is_slippery=True), "frozenlake")
    assert play(slippery, [left])[0][0] == 0.0


def test_the_cliff_ends_the_episode() -> None:
    env = ShapedReward(gym.make("CliffWalking-v1"), "cliffwalking")
    up, right, down = 0, 1, 2
    assert play(env, [up, right, down]) == [
        (-0.03, -1.0, False, False),
        (-0.03, -1.0, False, False),
        (-1.0, -100.0, False, True),
    ]
    path = play(env, [up] + [right] * 11 + [down])
    assert path[-1] == (1.0, -1.0, True, False)


def test_pendulum_and_mountain_car_rewards_follow_their_formulas() -> None:
    env = ShapedReward(gym.make("Pendulum-v1"), "pendulum")
    env.reset(seed=0)
    for _ in range(30):
        _, reward, _, _, info = env.step(np.array([2.0]))
        assert reward == pytest.approx(max(info["raw_reward"] / 30 + 0.1, -0.1))
    car = ShapedReward(gym.make("MountainCar-v0"), "mountaincar")
    for _ in range(2):  # the trace begins anew with the episode
        trace = 0.0
        car.reset(seed=0)
        for _ in range(20):
            observation, reward, *_ = car.step(2)
            trace = float(observation[1]) ** 2 + 0.66 * trace
            assert reward == pytest.approx(-0.01 + 10 * trace)


def test_shapings_take_many_environments_at_once() -> None:
    shaping = named_shaping("mountaincar", gym.make("MountainCar-v0"))
    velocities = np.array([[0.0, 0.1], [0.0, 0.2]])
    over = np.array([False, True])
    first = shaping(RawStep(velocities, [0, 0], [-1.0, -1.0], velocities, [False, False], over))
    second = shaping(RawStep(velocities, [0, 0], [-1.0, -1.0], velocities, over, [False, False]))
    np.testing.assert_allclose(first, -0.01 + 10 * np.array([0.01, 0.04]))
    np.testing.assert_allclose(second, [-0.01 + 10 * (0.01 + 0.66 * 0.01), 1.0])
    lake = named_shaping("frozenlake", gym.make("FrozenLake-v1"))
    step = RawStep([0, 1, 2], [0, 0, 0], [0.0, 0.0, 1.0], [1, 2, 3], [False, True, True], [False] * 3)
    np.testing.assert_array_equal(lake(step), [0.0, -1.0, 1.0])


def test_a_shaping_of_ones_own_is_a_function_of_the_step() -> None:
    env = ShapedReward(gym.make("CliffWalking-v1"), lambda step: step.next_observation - step.observation)
    assert play(env, [0])[0][:2] == (-12.0, -1.0)  # the row above, of twelve cells


def test_an_unknown_shaping_is_named_with_the_nearest() -> None:
    with pytest.raises(OmniRLError, match="do you mean 'frozenlake'"):
        named_shaping("frozenlaek", gym.make("FrozenLake-v1"))
    with pytest.raises(OmniRLError, match="needs an environment with a transition table"):
        named_shaping("frozenlake", gym.make("CartPole-v1"))


def test_the_dark_room_is_solved_by_walking_straight_to_the_goal() -> None:
    task = darkroom_task(6)
    greedy = solve(task, 0.99).argmax(-1)
    steps = np.array([5 - x + 5 - y for x in range(6) for y in range(6)][:-1])
    best = np.mean(1 - 0.01 * (steps - 1))
    assert policy_value(task, greedy, horizon=100) == pytest.approx(best)
    assert task.start_probs == pytest.approx(np.full(35, 1 / 35))


def test_dark_room_actions_move_one_cell_and_walls_stop() -> None:
    env = AnyMDPEnv(darkroom_task(3, goal=(1, 1)))
    env.reset(seed=0)
    env._state = 2  # (0, 2)
    found = [env.step(action)[:3] for action in (1, 2, 0, 3)]
    assert found == [(2, -0.01, False), (2, -0.01, False), (5, -0.01, False), (4, 1.0, True)]


def test_a_room_without_a_place_for_the_goal_is_an_error() -> None:
    with pytest.raises(OmniRLError, match="at least 2 x 2"):
        darkroom_task(1)
    with pytest.raises(OmniRLError, match="outside the room"):
        darkroom_task(4, goal=(4, 0))


def test_the_dark_room_is_drawn() -> None:
    env = gym.make("omnirl/DarkRoom-v0", size=2, render_mode="ansi")
    observation, _ = env.reset(seed=0)
    drawn = [list(line) for line in env.render().split("\n")]
    assert drawn[1][1] == "G"
    assert drawn[observation // 2][observation % 2] == "A"
    assert sum(row.count("A") for row in drawn) == 1


def test_frozen_lake_as_a_task_needs_no_grid() -> None:
    assert Task.from_gymnasium(gym.make("FrozenLake-v1")).num_observations == 16
