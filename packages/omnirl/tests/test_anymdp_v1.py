"""The first version's worlds: structure, the released sampler's statistics, values and filter by hand.

`anymdp_v1_statistics.json` has ten numbers of each of 150 tasks (16, 5), seeds 1000 on, that the sampler of
December 2024 (FutureAGI/Xenoverse at 91c032b) drew; `statistics` below says which.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import ks_2samp, spearmanr

from omnirl import OmniRLError, Task, sample_tasks
from omnirl.tasks import anymdp_v1
from omnirl.tasks.anymdp_v1 import Box, mixing, quality

RELEASED = json.loads((Path(__file__).parent / "anymdp_v1_statistics.json").read_text())


def statistics(task: Task) -> dict[str, float]:
    live, p = ~task.terminal, task.transition[~task.terminal]
    start = task.start_distribution
    chain = np.where(task.terminal[:, None], start, task.transition.mean(1))
    found = np.linalg.matrix_power(chain, 4096)[0]
    reward = task.expected_reward[live]
    return {
        "terminal": task.terminal.mean(),
        "starts": (start > 0).sum(),
        "succ": (p > 0).sum(-1).mean(),
        "ent": -(p * np.log(np.maximum(p, 1e-300))).sum(-1).mean(),
        "maxr": reward.max(),
        "minr": reward.min(),
        "stdr": reward.std(),
        "noise": task.reward_noise.max(),
        "rarity": np.log10(found.max() / max(found.min(), 1e-12)),
        "self_": np.mean([task.transition[s, :, s].mean() for s in np.flatnonzero(live)]),
    }


@pytest.fixture(scope="module")
def tasks() -> list[Task]:
    return list(sample_tasks(40, family="anymdp-v1", seed=0))


def test_its_statistics_are_those_of_the_released_sampler(tasks: list[Task]) -> None:
    ours = [statistics(task) for task in tasks]
    for name, theirs in RELEASED.items():
        assert ks_2samp([one[name] for one in ours], theirs).pvalue > 1e-3, name
    later = [statistics(task) for task in sample_tasks(40, seed=0)]  # the test can fail: another law does
    assert ks_2samp([one["succ"] for one in later], RELEASED["succ"]).pvalue < 1e-6


def test_starts_never_end_an_episode_and_ends_never_go_on(tasks: list[Task]) -> None:
    for task in tasks:
        assert not task.terminal[task.start_states].any()
        assert not task.transition[task.terminal].any()
        assert 2 <= (task.transition > 0).sum(-1).max() <= 8
        assert task.max_steps >= 64
        assert sorted(task.state_mapping) == list(range(16))


def test_a_task_does_not_depend_on_what_is_sampled_with_it() -> None:
    one = sample_tasks(1, 8, 3, family="anymdp-v1", seed=4, first=2)[0]
    many = sample_tasks(3, 8, 3, min_states=8, family="anymdp-v1", seed=4)
    assert np.array_equal(one.transition, sample_tasks(3, 8, 3, family="anymdp-v1", seed=4)[2].transition)
    assert many.family == "anymdp-v1"
    with pytest.raises(OmniRLError, match=r"AnyMDP \(v1\) needs at least 8 states"):
        sample_tasks(1, 4, family="anymdp-v1", seed=0)


def test_a_ring_mixes_late_and_a_clique_at_once() -> None:
    assert mixing(np.full((16, 16), 1 / 16)) == -1.0
    assert mixing(np.eye(16)) == 0.0
    # half a step to the right, half to stay: with 2^4 steps all 16 states are reached, after 2^3 only 9
    ring = (np.eye(16) + np.roll(np.eye(16), 1, axis=1)) / 2
    assert mixing(ring) == pytest.approx(2 / 4 + 7 / 16)


def two_ways() -> tuple[Box, np.ndarray]:
    """State 0: action 0 stays (reward 0.1), action 1 goes to 1; from 1 both go to the goal 2 (reward 1)."""
    transition = np.zeros((3, 2, 3))
    transition[0, 0, 0] = transition[0, 1, 1] = transition[1, :, 2] = 1.0
    flags = np.eye(3, dtype=bool)
    box = Box(np.zeros((3, 2)), transition, goal=flags[2], pit=np.zeros(3, bool), start=flags[0])
    reward = np.zeros((1, 3, 2, 3))
    reward[0, 0, 0, 0], reward[0, 1, :, 2] = 0.1, 1.0
    return box, reward


def test_values_are_five_sweeps_in_place_through_the_restart() -> None:
    box, reward = two_ways()
    far, short, random = anymdp_v1._values(box, reward)[:, 0]
    value = np.zeros((2, 3))
    for row, gamma in enumerate((0.99, 0.70)):
        q = np.zeros((3, 2))
        for _ in range(5):  # by hand: 0 stays or moves to 1; 1 earns 1 and goes on in 2; 2 begins again in 0
            q[0, 0] = 0.1 + gamma * q[0].max()
            q[0, 1] = gamma * q[1].max()
            q[1, 0] = 1 + gamma * q[2].max()
            q[1, 1] = 1 + gamma * q[2].max()
            q[2] = gamma * q[0].max()
        value[row] = q.max(1)
    np.testing.assert_allclose((far, short), value)
    assert (random <= far + 1e-12).all()


def test_quality_is_the_formula_and_flat_values_have_none() -> None:
    box, reward = two_ways()
    far, short, random = anymdp_v1._values(box, reward)[:, 0]
    unit = np.sqrt((random**2).mean())
    expected = sum(np.log(1 + 1e-10 - spearmanr(far, other)[0]) for other in (short, random))
    expected += 1.5 * np.tanh((far - random).mean() / unit / 1.5) + 1.5 * np.tanh(far.std() / unit / 1.5)
    found = quality(box, np.concatenate([reward, 0 * reward]))
    assert found.tolist() == pytest.approx([expected, -np.inf])


def test_ranks_share_ties() -> None:
    values = np.array([3.0, 1.0, 3.0, 2.0, 1.0])
    assert anymdp_v1._spearman(values, np.arange(5.0)) == pytest.approx(spearmanr(values, np.arange(5))[0])
