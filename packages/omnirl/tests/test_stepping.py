"""The step: alias tables hold the probabilities they were made from, and a step follows the task's law."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from omnirl import TaskBatch
from omnirl.tasks.stepping import StepTables, alias_tables, start, step


def held(accept: np.ndarray, other: np.ndarray) -> np.ndarray:
    """The distributions that alias tables describe: a bucket has 1/S, shared by itself and its other."""
    rows, states = accept.shape
    share = accept.astype(np.float64) / states
    found = share.copy()
    np.add.at(found, (np.arange(rows)[:, None], other.astype(np.int64)), 1 / states - share)
    return found


@given(st.integers(1, 40), st.integers(0, 2**32 - 1), st.sampled_from([0.0, 0.5, 0.9]))
@settings(max_examples=60, deadline=None)
def test_alias_tables_hold_the_probabilities_and_never_a_state_of_probability_zero(
    states: int, seed: int, zeros: float
) -> None:
    rng = np.random.default_rng(seed)
    rows = rng.exponential(size=(20, states)) ** 3 * (rng.random((20, states)) >= zeros)
    rows[rows.sum(1) == 0, 0] = 1
    rows /= rows.sum(1, keepdims=True)
    found = held(*alias_tables(rows))
    np.testing.assert_allclose(found, rows, atol=2**-24)
    assert not found[rows == 0].any()


def test_equal_shares_that_do_not_add_up_exactly_leave_no_mass_on_other_states() -> None:
    for parts in (3, 6, 7, 10, 49):
        row = np.zeros((1, 64))
        row[0, :parts] = 1 / parts
        assert held(*alias_tables(row))[0, parts:].sum() == 0


def test_a_row_of_zeros_is_allowed_and_too_many_states_are_not() -> None:
    np.testing.assert_array_equal(held(*alias_tables(np.zeros((2, 5)))), [[1, 0, 0, 0, 0]] * 2)
    with pytest.raises(ValueError, match="40000 states"):
        alias_tables(np.zeros((1, 40000)))


def two_tasks() -> TaskBatch:
    """Two tasks of (3, 2): a chain 0 -> 1 -> 2 that ends in 2, and a bandit, padded from (1, 2)."""
    transition = np.zeros((2, 3, 2, 3))
    transition[0, 0, 0] = [0.25, 0.75, 0]
    transition[0, 0, 1, 0] = transition[0, 1, :, 2] = 1
    transition[1, 0, :, 0] = 1
    reward, noise = np.zeros((2, 2, 3, 2, 3))
    reward[0, 0, 0, 1], reward[0, 1, 1, 2], reward[1, 0, 1, 0] = 0.5, -2.0, 3.0
    noise[1, 0, 1, 0] = 0.1
    starts = np.array([[0.4, 0.6, 0], [1, 0, 0]])
    terminal = np.array([[False, False, True], [True, False, False]])
    return TaskBatch(
        transition=transition,
        reward=reward,
        reward_noise=noise,
        start_probs=starts,
        terminal=terminal,
        num_states=np.array([3, 1]),
        state_mapping=np.array([[0, 1, 2], [0, -1, -1]]),
        num_observations=3,
        num_actions=2,
        max_steps=np.array([10, 10]),
        goal_terminates=np.array([False, False]),
        family="custom",
        seed=np.array([-1, -1]),
    )


def test_a_step_gives_the_state_the_reward_and_the_end_of_the_tables() -> None:
    tables = StepTables.build(two_tasks())
    found = step(tables, np.array([1, 0]), np.array([1, 1]), np.array([0.3, 0.9]), np.array([5.0, 2.0]))
    np.testing.assert_array_equal(found.state, [2, 0])
    np.testing.assert_allclose(found.reward, [-2.0, 3.0 + 0.1 * 2.0])
    np.testing.assert_array_equal(found.terminated, [True, True])  # a bandit's every step ends its episode
    without = step(tables, np.array([1, 0]), np.array([1, 1]), np.array([0.3, 0.9]))
    np.testing.assert_allclose(without.reward, [-2.0, 3.0])


def test_a_restart_draws_a_start_state_with_reward_zero() -> None:
    tables = StepTables.build(two_tasks())
    u = (np.arange(1000, dtype=np.float32) + 0.5) / 1000
    many = np.zeros(1000, np.int64)
    found = step(tables, many + 2, many + 1, u, u, task=many, restart=many == 0)
    np.testing.assert_allclose(np.bincount(found.state, minlength=3) / 1000, [0.4, 0.6, 0], atol=3e-3)
    assert not found.reward.any()
    assert not found.terminated.any()
    np.testing.assert_array_equal(found.state, start(tables, u, task=many))


def test_successors_fall_by_the_transition_row() -> None:
    tables = StepTables.build(two_tasks())
    u = (np.arange(1000) + 0.5) / 1000
    many = np.zeros(1000, np.int64)
    found = step(tables, many, many, u, task=many)
    np.testing.assert_allclose(np.bincount(found.state, minlength=3) / 1000, [0.25, 0.75, 0], atol=3e-3)
    np.testing.assert_array_equal(found.reward, np.where(found.state == 1, 0.5, 0.0))


def test_the_largest_float32_below_one_is_a_valid_draw_for_every_number_of_states() -> None:
    u = np.array([1 - 2**-24], np.float32)
    for states in range(1, 200):
        assert (u * states).astype(np.int64)[0] == states - 1
