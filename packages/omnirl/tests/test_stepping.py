"""The step: alias tables hold the probabilities they were made from, and a step follows the task's law."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from omnirl import OmniRLError, TaskBatch, sample_tasks
from omnirl.tasks.stepping import StepTables, alias_tables, start, start_one, step, step_one


def held(row: np.ndarray, probability: np.ndarray) -> np.ndarray:
    """The distributions that alias tables describe: a bucket has 1/count, shared by itself and its other."""
    rows, buckets = alias_tables(row, probability)
    share = 1 / rows["count"].astype(np.float64)[row]
    own = buckets["accept"] * share
    found = own.copy()
    np.add.at(found, buckets["other"], share - own)
    assert (row[buckets["other"]] == row).all()
    return found


@given(st.integers(1, 40), st.integers(0, 2**32 - 1))
@settings(max_examples=60, deadline=None)
def test_alias_tables_hold_the_probabilities_they_were_made_from(most: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    row = np.repeat(np.arange(20), rng.integers(1, most + 1, 20))
    weight = rng.exponential(size=row.size) ** 3 + 1e-9
    found = held(row, weight)
    np.testing.assert_allclose(found, weight / np.bincount(row, weight)[row], atol=2**-24)


def test_equal_shares_that_do_not_add_up_exactly_stay_equal() -> None:
    for parts in (3, 6, 7, 10, 49):
        np.testing.assert_allclose(
            held(np.zeros(parts, int), np.full(parts, 1 / parts)), 1 / parts, rtol=1e-7
        )


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


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=30, deadline=None)
def test_one_step_is_the_step_of_many_to_the_last_bit(seed: int) -> None:
    tables = StepTables.build(sample_tasks(2, 16, 3, seed=seed % 3))
    rng = np.random.default_rng(seed)
    task, state, action = (rng.integers(0, high, 20) for high in (2, 16, 3))
    u, z = rng.random(20), rng.standard_normal(20)
    many = step(tables, state, action, u, z, task=task)
    for i in range(20):
        one = step_one(tables, int(state[i]), int(action[i]), u[i], z[i], task=int(task[i]))
        assert one == (many.state[i], many.reward[i], many.terminated[i])
    first = start(tables, u, task=task)
    assert [start_one(tables, u[i], task=int(task[i])) for i in range(20)] == first.tolist()


def test_what_a_float32_uniform_cannot_choose_is_no_successor() -> None:
    batch = two_tasks()
    batch.transition[0, 0, 1] = [1 - 1e-9, 2.0**-33, 1e-9 - 2.0**-33]
    tables = StepTables.build(batch)
    first, count = tables.rows[1]
    assert tables.arrivals["state"][first : first + int(count)].tolist() == [0, 2]


def test_a_step_from_a_terminal_state_stays_there_ended_and_without_reward() -> None:
    tables = StepTables.build(two_tasks())
    found = step(tables, np.array([2, 0]), np.array([1, 0]), np.array([0.3, 0.9]), np.array([5.0, 2.0]))
    assert (found.state[0], found.reward[0], found.terminated[0]) == (2, 0.0, True)


def test_more_states_than_a_table_can_name_are_refused() -> None:
    batch = two_tasks()
    states = 2**15 + 1
    shape = {"transition": (1, states, 1, states), "start_probs": (1, states), "terminal": (1, states)}
    for name, size in (shape | {"reward": shape["transition"], "reward_noise": shape["transition"]}).items():
        kind = getattr(batch, name).dtype
        object.__setattr__(batch, name, np.broadcast_to(np.zeros((), kind), size))
    with pytest.raises(OmniRLError, match="tasks of 32769 states"):
        StepTables.build(batch)


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
