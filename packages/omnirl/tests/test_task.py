from __future__ import annotations

import pickle
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import gymnasium as gym
import numpy as np
import pytest

from omnirl import OmniRLError, Task, TaskBatch
from omnirl.tasks.xenoverse import load_xenoverse_tasks


def chain(**changes: object) -> Task:
    """s0 stays under action 0 for 0, goes to the terminal s1 under action 1 for a reward of 1."""
    transition = np.zeros((2, 2, 2))
    transition[0, 0, 0] = transition[0, 1, 1] = 1
    reward = np.zeros((2, 2, 2))
    reward[0, 1, 1] = 1
    values = {
        "transition": transition,
        "reward": reward,
        "reward_noise": np.zeros((2, 2, 2)),
        "start_states": [0],
        "start_probs": [1.0],
        "terminal_states": [1],
        "state_mapping": [2, 0],
        "num_observations": 3,
        "num_actions": 2,
        "max_steps": 10,
    }
    return Task(**(values | changes))  # type: ignore[arg-type]


def random_task(seed: int, states: int = 5, actions: int = 3) -> Task:
    rng = np.random.default_rng(seed)
    transition = rng.dirichlet(np.ones(states), (states, actions))
    transition[states - 1] = 0
    return Task(
        transition=transition,
        reward=rng.normal(size=(states, actions, states)),
        reward_noise=rng.uniform(size=(states, actions, states)),
        start_states=np.array([0, 2]),
        start_probs=np.array([0.25, 0.75]),
        terminal_states=np.array([states - 1]),
        state_mapping=rng.permutation(9)[:states],
        num_observations=9,
        num_actions=actions,
        max_steps=20,
        seed=seed,
    )


def same(one: Task, other: Task) -> bool:
    return all(np.array_equal(value, getattr(other, name)) for name, value in vars(replace(one)).items())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda t: t.__setitem__((0, 1, 1), 0.9),
            r"\(state, action\) = \(0, 1\) sums to 0.9; it must sum to 1",
        ),
        (lambda t: t.__setitem__((0, 0, 0), np.nan), r"transition at .* \(0, 0, 0\) is not finite: nan"),
        (lambda t: t.__setitem__((0, 1), [1.5, -0.5]), r"transition at .* \(0, 1, 1\) is negative: -0.5"),
        (
            lambda t: t.__setitem__((1, 0, 0), 1.0),
            r"\(1, 0\) sums to 1; it must sum to 0, because .* terminal",
        ),
    ],
)
def test_a_wrong_transition_is_named_with_its_value(change: object, message: str) -> None:
    transition = chain().transition.copy()
    change(transition)  # type: ignore[operator]
    with pytest.raises(OmniRLError, match=message):
        chain(transition=transition)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"start_states": [1]}, "state 1 is a start state and a terminal state"),
        ({"start_probs": [0.5]}, "start_probs sums to 0.5"),
        ({"reward": np.zeros((2, 2))}, r"reward has the shape \(2, 2\).* must be \(2, 2, 2\)"),
        ({"state_mapping": [0, 0]}, "state_mapping has 0 more than once"),
        ({"state_mapping": [0, 3]}, "state_mapping has 3; the ids go from 0 to 2"),
        ({"terminal_states": [2]}, "terminal_states has 2"),
        ({"max_steps": 0}, "max_steps 0: each must be at least 1"),
        ({"reward_noise": np.full((2, 2, 2), -1.0)}, "reward_noise at .* is negative"),
    ],
)
def test_a_wrong_field_is_named(changes: dict[str, object], message: str) -> None:
    with pytest.raises(OmniRLError, match=message):
        chain(**changes)


def test_a_batch_gives_back_its_tasks_padded_or_not() -> None:
    tasks = [random_task(0), random_task(1, states=7), random_task(2)]
    batch = TaskBatch.stack(tasks)
    assert batch.transition.shape == (3, 7, 3, 7)
    assert (batch.state_mapping[0, 5:] == -1).all()
    assert all(same(batch[i], tasks[i]) for i in range(3))
    assert same(batch[-1], tasks[2])
    assert [task.seed for task in batch[[2, 0]]] == [2, 0]
    assert len(batch[1:]) == 2
    assert same(batch[1:][0], tasks[1])
    with pytest.raises(IndexError):
        batch[3]
    np.testing.assert_allclose(batch.expected_reward[1], tasks[1].expected_reward)


def test_a_batch_names_the_wrong_task() -> None:
    batch = TaskBatch.stack([random_task(0), random_task(1)])
    broken = batch.transition.copy()
    broken[1, 2, 1] *= 0.5
    with pytest.raises(OmniRLError, match=r"task 1: .* \(2, 1\) sums to 0.5"):
        replace(batch, transition=broken)


def set_at(array: np.ndarray, place: object, value: int) -> np.ndarray:
    changed = array.copy()
    changed[place] = value
    return changed


@pytest.mark.parametrize(
    ("name", "place", "value", "message"),
    [
        ("state_mapping", (1, 2), "shown", r"task 1: state_mapping has \d more than once"),
        ("state_mapping", (1, 2), 9, "task 1: state_mapping has 9; the ids go from 0 to 8"),
        ("state_mapping", (0, 1), -1, "task 0: state_mapping has -1"),
        ("max_steps", 1, 0, "task 1: max_steps is 0; it must be at least 1"),
        ("num_states", 0, 6, "task 0: num_states is 6; it must be from 1 to 5"),
        ("num_states", 0, 0, "task 0: num_states is 0"),
        ("terminal", (0, 4), True, "task 0: a state beyond its 4 is terminal"),
    ],
)
def test_a_batch_refuses_what_a_task_refuses(name: str, place: object, value: object, message: str) -> None:
    batch = TaskBatch.stack([random_task(0, states=4), random_task(1, states=5)])
    if value == "shown":
        value = batch.state_mapping[1, 0]
    with pytest.raises(OmniRLError, match=message):
        replace(batch, **{name: set_at(getattr(batch, name), place, value)})


def test_a_batch_with_fewer_observations_than_states_is_refused() -> None:
    batch = TaskBatch.stack([random_task(0), random_task(1)])
    with pytest.raises(OmniRLError, match="the ids go from 0 to 3"):
        replace(batch, num_observations=4)


def test_tasks_of_different_action_counts_do_not_stack() -> None:
    with pytest.raises(OmniRLError, match=r"one num_actions; these have \[2, 3\]"):
        TaskBatch.stack([random_task(0), random_task(1, actions=2)])


def test_a_split_is_disjoint_complete_and_repeatable() -> None:
    batch = TaskBatch.stack([random_task(i) for i in range(10)])
    first, second = batch.split(seed=3, fraction=0.3)
    assert len(first) == 3
    assert sorted([*first.seed, *second.seed]) == list(range(10))
    assert np.array_equal(first.seed, batch.split(seed=3, fraction=0.3)[0].seed)


def test_saving_and_loading_keeps_every_bit(tmp_path: Path) -> None:
    task, batch = random_task(0), TaskBatch.stack([random_task(0), random_task(1, states=7)])
    task.save(tmp_path / "task.npz")
    batch.save(tmp_path / "new" / "batch.npz")
    assert same(Task.load(tmp_path / "task.npz"), task)
    assert same(TaskBatch.load(tmp_path / "new" / "batch.npz"), batch)  # type: ignore[arg-type]
    with pytest.raises(OmniRLError, match=r"is not a batch of tasks of format 1; it is: task 1"):
        TaskBatch.load(tmp_path / "task.npz")
    whole = (tmp_path / "task.npz").read_bytes()
    (tmp_path / "task.npz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(OmniRLError, match="cannot be read"):
        Task.load(tmp_path / "task.npz")


def test_permuting_changes_ids_only_and_the_digest_does_not_see_it() -> None:
    task = random_task(0)
    other = task.permuted(1)
    assert not np.array_equal(other.state_mapping, task.state_mapping)
    assert np.unique(other.state_mapping).size == 5
    assert other.digest == task.digest != random_task(1).digest
    assert same(task.permuted(1), other)


def test_frozen_lake_is_read_exactly() -> None:
    task = Task.from_gymnasium(gym.make("FrozenLake-v1", is_slippery=True))
    assert task.terminal_states.tolist() == [5, 7, 11, 12, 15]
    assert task.max_steps == 100
    assert task.transition[0, 0].nonzero()[0].tolist() == [0, 4]
    np.testing.assert_allclose(task.transition[0, 0, [0, 4]], [2 / 3, 1 / 3])  # left: up and left both stay
    assert task.reward[14, 2, 15] == 1
    assert task.reward.sum() == 3  # 14 is left for the goal by down, right and up
    assert not task.reward_noise.any()


def test_taxi_ends_only_with_the_passenger_at_the_destination() -> None:
    task = Task.from_gymnasium(gym.make("Taxi-v4"))
    assert task.num_states == 500
    # 4 places where taxi and passenger both are, at the passenger's destination.
    assert task.terminal_states.size == 4
    assert np.isclose(task.start_probs.sum(), 1)


def test_an_environment_without_a_table_or_a_limit_says_so() -> None:
    with pytest.raises(OmniRLError, match="CartPole-v1 has no transition table"):
        Task.from_gymnasium(gym.make("CartPole-v1"))
    lake = gym.make("FrozenLake-v1", max_episode_steps=-1)
    with pytest.raises(OmniRLError, match="pass max_steps="):
        Task.from_gymnasium(lake)
    assert Task.from_gymnasium(lake, max_steps=7).max_steps == 7


def test_mixed_rewards_of_one_transition_keep_mean_and_spread() -> None:
    class Coin(gym.Env):
        P: ClassVar = {0: {0: [(0.5, 0, 1.0, False), (0.5, 0, -3.0, False)]}}
        initial_state_distrib = (1.0,)

    task = Task.from_gymnasium(Coin(), max_steps=5)
    assert (task.reward[0, 0, 0], task.reward_noise[0, 0, 0]) == (-1, 2)


def test_xenoverse_tasks_come_and_go_unchanged(tmp_path: Path) -> None:
    task = replace(random_task(0), family="xenoverse", seed=-1)
    assert same(Task.from_xenoverse(task.to_xenoverse()), task)
    (tmp_path / "tasks.pkl").write_bytes(pickle.dumps([task.to_xenoverse()]))
    assert same(load_xenoverse_tasks(tmp_path / "tasks.pkl")[0], task)
    dictionary = task.to_xenoverse()
    del dictionary["max_steps"], dictionary["s_0"]
    with pytest.raises(OmniRLError, match=r"it lacks max_steps, s_0$"):
        Task.from_xenoverse(dictionary)
    with pytest.raises(OmniRLError, match="of the type POMDP"):
        Task.from_xenoverse(task.to_xenoverse() | {"task_type": "POMDP"})


def test_a_pickle_that_would_run_code_is_refused_unread(tmp_path: Path) -> None:
    path = tmp_path / "tasks.pkl"
    path.write_bytes(pickle.dumps([{"ns": Path.cwd}]))
    with pytest.raises(OmniRLError, match="which is no part of a task"):
        load_xenoverse_tasks(path)


def test_a_xenoverse_bandit_ends_at_every_step_and_its_limit_is_rounded_up() -> None:
    bandit = {
        "ns": 1,
        "na": 2,
        "max_steps": 0.5,
        "state_mapping": np.zeros(1, int),
        "task_type": "MDP",
        "transition": np.ones((1, 2, 1)),
        "reward": np.array([[[1.0], [2.0]]]),
        "reward_noise": np.zeros((1, 2, 1)),
        "s_0": np.array([0]),
        "s_0_prob": np.array([1.0]),
        "s_e": np.array([]),
    }
    task = Task.from_xenoverse(bandit)
    assert task.terminal.tolist() == [True]
    assert (task.max_steps, task.family) == (1, "bandit")
    assert task.to_xenoverse()["s_e"].size == 0
