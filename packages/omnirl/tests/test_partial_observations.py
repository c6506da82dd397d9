"""Partly observed worlds: the law of observations, xenoverse's dictionaries, exact scores in `evaluate`."""

from __future__ import annotations

import pickle
from pathlib import Path

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

import omnirl
from omnirl import OmniRLError, Task
from omnirl.data import load_xenoverse_tasks, read_xenoverse
from omnirl.envs import AnyMDPEnv, PartiallyObserved
from omnirl.evaluation import evaluate

TABLE = np.random.default_rng(0).dirichlet(np.ones(6), size=16)


@pytest.fixture(scope="module")
def task() -> Task:
    return omnirl.sample_tasks(1, seed=3)[0]


@pytest.mark.filterwarnings("ignore:.*different from the unwrapped version")
def test_it_passes_gymnasiums_checker_and_a_seed_fixes_what_is_seen(task: Task) -> None:
    check_env(PartiallyObserved(AnyMDPEnv(task), TABLE), skip_render_check=True)
    ways = []
    for _ in range(2):
        env = PartiallyObserved(AnyMDPEnv(task), TABLE)
        ways.append([env.reset(seed=5)[0], *(env.step(t % 5)[0] for t in range(20))])
    assert ways[0] == ways[1]


def test_an_observation_is_drawn_from_the_row_of_the_inner_state(task: Task) -> None:
    env = PartiallyObserved(AnyMDPEnv(task, debug=True), TABLE)
    env.reset(seed=0)
    seen = np.zeros((16, 6))
    for t in range(20_000):
        obs, _, terminated, truncated, info = env.step(t % 5)
        seen[info["inner_state"], obs] += 1
        if terminated or truncated:
            obs, info = env.reset()
            seen[info["inner_state"], obs] += 1
    often = seen.sum(1) > 500
    assert often.sum() > 3
    expected = TABLE[often] * seen[often].sum(1, keepdims=True)
    chi_square = ((seen[often] - expected) ** 2 / expected).sum(1)
    assert (chi_square < 25).all()  # 5 degrees of freedom: p > 1e-4


def test_the_identity_shows_the_state(task: Task) -> None:
    env = PartiallyObserved(AnyMDPEnv(task), np.eye(16)[task.state_mapping])
    plain = AnyMDPEnv(task)
    assert env.reset(seed=1)[0] == plain.reset(seed=1)[0]


def test_scores_are_those_of_the_world_behind(task: Task) -> None:
    env = gymnasium.make("omnirl/AnyMDP-v0", task=task)
    partial = PartiallyObserved(env, TABLE)
    found = evaluate("random", partial, episodes=20, runs=4, seed=0)
    assert abs(found.normalized_score.mean()) < 4 * found.normalized_score.std() / np.sqrt(80)
    with pytest.raises(OmniRLError, match="no table"):
        evaluate("opt3", partial, episodes=1, seed=0)  # it would have to see the state


def test_xenoverses_partly_observed_tasks_are_read(task: Task, tmp_path: Path) -> None:
    whole = {**task.to_xenoverse(), "task_type": "POMDP", "no": 6, "observation_transition": TABLE}
    path = tmp_path / "tasks.pkl"
    path.write_bytes(pickle.dumps([whole]))
    env = PartiallyObserved.from_xenoverse(read_xenoverse(path)[0])
    assert env.observation_space.n == 6
    np.testing.assert_array_equal(env.unwrapped.task.transition, task.transition)
    with pytest.raises(OmniRLError, match=r"type POMDP.*PartiallyObserved"):
        load_xenoverse_tasks(path)
    with pytest.raises(OmniRLError, match="type MDP; needed is a POMDP"):
        PartiallyObserved.from_xenoverse(task.to_xenoverse())


@pytest.mark.parametrize(
    ("table", "says"),
    [
        (TABLE[:8], r"shape \(8, 6\); for 16 inner states"),
        (TABLE - 1e-3 * np.eye(16, 6)[::-1], "state 10 is no distribution"),
        (np.full((16, 6), np.nan), "state 0 is no distribution"),
    ],
)
def test_a_table_that_is_none_is_named(task: Task, table: np.ndarray, says: str) -> None:
    with pytest.raises(OmniRLError, match=says):
        PartiallyObserved(AnyMDPEnv(task), table)
    with pytest.raises(OmniRLError, match="inner state"):
        PartiallyObserved(gymnasium.make("FrozenLake-v1"), TABLE)
