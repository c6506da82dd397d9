from __future__ import annotations

import math
from dataclasses import replace

import gymnasium as gym
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from omnirl import OmniRLError, Task, TaskBatch, policy_value, solve

SMALL = 1e-8


def random_batch(seed: int, tasks: int = 6, states: int = 7, actions: int = 3) -> TaskBatch:
    """Sparse tasks of several sizes with terminal states."""
    rng = np.random.default_rng(seed)
    made = []
    for _ in range(tasks):
        n = int(rng.integers(2, states + 1))
        transition = rng.dirichlet(np.full(n, 0.3), (n, actions))
        terminal = np.flatnonzero(rng.uniform(size=n) < 0.25)
        terminal = terminal[terminal > 0]
        transition[terminal] = 0
        table = (n, actions, n)
        made.append(
            Task(
                transition=transition,
                reward=rng.normal(size=table) * rng.exponential(3),
                reward_noise=np.zeros(table),
                start_states=[0],
                start_probs=[1.0],
                terminal_states=terminal,
                state_mapping=np.arange(n),
                num_observations=states,
                num_actions=actions,
                max_steps=int(rng.integers(1, 30)),
            )
        )
    return TaskBatch.stack(made)


def value_iteration(task: Task, gamma: float, sweeps: int = 100_000) -> np.ndarray:
    """The oracle of the oracle: sweeps until nothing changes by 1e-12."""
    q = np.zeros((task.num_states, task.num_actions))
    for _ in range(sweeps):
        values = np.where(task.terminal, 0, q.max(-1))
        after = (task.transition * (task.reward + gamma * values)).sum(-1)
        if np.abs(after - q).max() < 1e-12:
            return after
        q = after
    raise AssertionError("value iteration did not converge")


def lake(slippery: bool, name: str = "FrozenLake-v1") -> Task:
    return Task.from_gymnasium(gym.make(name, is_slippery=slippery))


def greedy(task: Task, gamma: float) -> np.ndarray:
    return solve(task, gamma).argmax(-1)


def test_the_chain_by_hand() -> None:
    transition = np.zeros((2, 2, 2))
    transition[0, 0, 0] = transition[0, 1, 1] = 1
    reward = np.zeros((2, 2, 2))
    reward[0, 1, 1] = 1
    task = Task(transition, reward, 0 * reward, [0], [1.0], [1], [0, 1], 2, 2, 9)
    q, values = solve(task, 0.7, return_values=True)
    np.testing.assert_allclose(q, [[0.7, 1.0], [0, 0]], atol=1e-12)
    np.testing.assert_allclose(values, [1, 0], atol=1e-12)


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from([0.0, 0.5, 0.93, 0.994]))
def test_it_equals_value_iteration_run_to_the_end(seed: int, gamma: float) -> None:
    batch = random_batch(seed, tasks=2)
    q = solve(batch, gamma)
    for i, task in enumerate(batch):
        expected = value_iteration(task, gamma)
        n = task.num_states
        np.testing.assert_allclose(q[i, :n], expected, atol=1e-8 * max(1, np.abs(expected).max()))
        assert not q[i, n:].any()


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10**6), st.floats(0, 0.995))
def test_bellmans_equation_is_met(seed: int, gamma: float) -> None:
    batch = random_batch(seed)
    q, values = solve(batch, gamma, return_values=True)
    goes_on = values * ~batch.terminal
    right = batch.expected_reward + gamma * (batch.transition * goes_on[:, None, None, :]).sum(-1)
    assert np.abs(q - right).max() <= SMALL * max(1, np.abs(values).max())
    assert not values[batch.terminal].any()


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 10**6))
def test_values_rise_with_rewards_scale_with_them_and_follow_a_renumbering(seed: int) -> None:
    batch, rng = random_batch(seed), np.random.default_rng(seed)
    q = solve(batch, 0.9)
    more = replace(batch, reward=batch.reward + rng.exponential(size=batch.reward.shape))
    assert (solve(more, 0.9) >= q - SMALL).all()
    scaled = replace(batch, reward=3 * batch.reward)
    np.testing.assert_allclose(solve(scaled, 0.9), 3 * q, atol=1e-7)
    task = batch[0]
    order = rng.permutation(task.num_states)
    place = np.argsort(order)
    renumbered = replace(
        task,
        **{
            name: getattr(task, name)[order][:, :, order] for name in ("transition", "reward", "reward_noise")
        },
        start_states=place[task.start_states],
        terminal_states=place[task.terminal_states],
    )
    np.testing.assert_allclose(solve(renumbered, 0.9), solve(task, 0.9)[order], atol=1e-7)


def test_several_discounts_come_first_and_a_task_is_a_batch_of_one() -> None:
    batch = random_batch(1)
    both, values = solve(batch, (0.5, 0.9), return_values=True)
    assert both.shape == (2, 6, 7, 3)
    assert values.shape == (2, 6, 7)
    assert np.array_equal(both[1], solve(batch, 0.9))
    np.testing.assert_allclose(solve(batch[2], (0.5, 0.9)), both[:, 2, : batch[2].num_states], atol=1e-9)


@pytest.mark.parametrize(
    ("slippery", "discounted", "best", "stationary"),
    [(True, 0.54202593, 0.7441902878, 0.7401648978), (False, 0.95099005, 1, 1)],
)
def test_frozen_lake(slippery: bool, discounted: float, best: float, stationary: float) -> None:
    task = lake(slippery)
    assert solve(task, 0.99, return_values=True)[1][0] == pytest.approx(discounted, abs=5e-9)
    assert policy_value(task, "optimal", 100) == pytest.approx(best, abs=1e-10)
    assert policy_value(task, greedy(task, 0.994), 100) == pytest.approx(stationary, abs=1e-10)
    assert policy_value(task, "uniform") == pytest.approx(0.0139397960, abs=1e-10)  # max_steps is 100
    for horizon in (0, 7, 100):  # a stationary policy never does better than the best
        assert (
            policy_value(task, greedy(task, 0.99), horizon) <= policy_value(task, "optimal", horizon) + 1e-12
        )


def test_frozen_lake_without_a_limit_is_solved_in_14_of_17_tries() -> None:
    task = lake(True)
    policy = greedy(task, 1 - 1e-9)
    assert policy_value(task, policy, math.inf) == pytest.approx(14 / 17, abs=1e-10)
    assert policy_value(lake(False), greedy(lake(False), 0.99), math.inf) == 1


def test_the_large_lake() -> None:
    task = lake(True, "FrozenLake8x8-v1")
    assert solve(task, 0.99, return_values=True)[1][0] == pytest.approx(0.41464036, abs=5e-9)
    assert policy_value(task, greedy(task, 1 - 1e-9), math.inf) == pytest.approx(1, abs=1e-6)
    assert policy_value(task, "optimal") == pytest.approx(0.9132201502, abs=1e-10)
    assert policy_value(task, "uniform") == pytest.approx(0.0019013955, abs=1e-10)


def test_the_cliff_costs_13_steps() -> None:
    task = Task.from_gymnasium(gym.make("CliffWalking-v1"), max_steps=200)
    assert solve(task, 0.99, return_values=True)[1][36] == pytest.approx(-12.2478977, abs=5e-8)
    assert policy_value(task, greedy(task, 0.99), math.inf) == pytest.approx(-13, abs=1e-9)


def test_taxi() -> None:
    task = Task.from_gymnasium(gym.make("Taxi-v4"))
    policy = greedy(task, 0.99)
    assert policy_value(task, policy, math.inf, 0.99) == pytest.approx(6.32746431, abs=5e-9)
    assert policy_value(task, policy, math.inf) == pytest.approx(7.93, abs=1e-9)
    assert policy_value(task, "uniform", 200) == pytest.approx(-771.0909994, abs=5e-8)


def test_each_task_has_its_own_horizon_and_a_policy_may_have_one_row_a_task() -> None:
    batch, rng = random_batch(3), np.random.default_rng(0)
    states = batch.transition.shape[1]
    policy = rng.dirichlet(np.ones(3), (6, states))
    got = policy_value(batch, policy)
    for i, task in enumerate(batch):
        n = task.num_states
        assert policy_value(task, policy[i, :n]) == pytest.approx(got[i], abs=1e-12)
        assert policy_value(task, policy[i, :n], task.max_steps) == pytest.approx(got[i], abs=1e-12)
    actions = rng.integers(0, 3, (6, states))
    np.testing.assert_allclose(policy_value(batch, actions), policy_value(batch, np.eye(3)[actions]))


def test_a_long_horizon_is_no_horizon_when_there_is_a_discount() -> None:
    batch = random_batch(4)
    for policy in ("uniform", "optimal"):
        np.testing.assert_allclose(
            policy_value(batch, policy, 400, 0.9), policy_value(batch, policy, math.inf, 0.9), atol=1e-9
        )


def test_a_bandit_is_worth_its_best_arm_whatever_the_discount() -> None:
    reward = np.array([[[0.3], [0.9]]])
    task = Task(np.ones((1, 2, 1)), reward, 0 * reward, [0], [1.0], [0], [0], 1, 2, 1)
    for gamma in (0.0, 0.99, 1.0):
        np.testing.assert_allclose(solve(task, gamma), [[0.3, 0.9]])
    assert policy_value(task, "optimal", 10) == 0.9


def test_a_discount_of_1_is_refused_where_some_policy_never_ends() -> None:
    with pytest.raises(OmniRLError, match="gamma = 1 has no values in task 0: some policy never ends"):
        solve(lake(True), 1.0)
    transition = np.zeros((3, 2, 3))
    transition[0, :, 1] = transition[1, :, 2] = 1
    task = Task(transition, transition, 0 * transition, [0], [1.0], [2], [0, 1, 2], 3, 2, 9)
    np.testing.assert_allclose(solve(task, 1.0), [[2, 2], [1, 1], [0, 0]])
    with pytest.raises(OmniRLError, match=r"in task 0 the policy never ends the episode once it is in state"):
        policy_value(lake(False), np.zeros(16, int), math.inf)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda task: solve(task, 1.2), "gamma is 1.2; it must be between 0 and 1"),
        (lambda task: policy_value(task, "best"), "the policy 'best' is not known"),
        (lambda task: policy_value(task, np.ones((16, 3)) / 3), r"has the shape \(16, 3\)"),
        (lambda task: policy_value(task, np.full(16, 4)), "has the action 4; actions go from 0 to 3"),
        (lambda task: policy_value(task, np.ones((16, 4))), "must be probabilities"),
        (lambda task: policy_value(task, "uniform", -1), "horizon is -1"),
    ],
)
def test_a_wrong_argument_is_told(call: object, message: str) -> None:
    with pytest.raises(OmniRLError, match=message):
        call(lake(False))  # type: ignore[operator]
