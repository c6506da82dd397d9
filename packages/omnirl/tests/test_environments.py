"""The environments: the checker of Gymnasium, the law of the task, three ways to reset, and mistakes."""

from __future__ import annotations

import importlib
import sys

import numpy as np
import pytest
from gymnasium.error import ResetNeeded
from gymnasium.utils.env_checker import check_env
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from scipy.stats import chisquare, kstest

from omnirl import MissingExtraError, OmniRLError, Task, TaskBatch
from omnirl.envs import AnyMDPEnv, AnyMDPVectorEnv


def random_task(seed: int = 0, states: int = 6, actions: int = 3) -> Task:
    """States 0 and 1 start, the last ends; every successor is possible, every reward is noisy."""
    rng = np.random.default_rng(seed)
    transition = rng.dirichlet(np.ones(states), size=(states, actions))
    transition[-1] = 0
    return Task(
        transition=transition,
        reward=rng.normal(size=transition.shape),
        reward_noise=rng.uniform(0.1, 1, size=transition.shape),
        start_states=np.array([0, 1]),
        start_probs=np.array([0.3, 0.7]),
        terminal_states=np.array([states - 1]),
        state_mapping=rng.permutation(states + 2)[:states],
        num_observations=states + 2,
        num_actions=actions,
        max_steps=9,
        goal_terminates=True,
    )


def corridor(length: int = 3, max_steps: int = 4) -> Task:
    """Action 1 goes a state up for a reward of its number, action 0 stays; the last state ends."""
    transition = np.zeros((length, 2, length))
    for s in range(length - 1):
        transition[s, 0, s] = transition[s, 1, s + 1] = 1
    reward = np.zeros_like(transition)
    reward[:, 1] = np.arange(length)
    return Task(
        transition=transition,
        reward=reward,
        reward_noise=np.zeros_like(transition),
        start_states=np.array([0]),
        start_probs=np.array([1.0]),
        terminal_states=np.array([length - 1]),
        state_mapping=np.arange(length),
        num_observations=length,
        num_actions=2,
        max_steps=max_steps,
    )


def batch(*tasks: Task) -> TaskBatch:
    return TaskBatch.stack(tasks)


# The checker warns where there is no spec, as for an environment that is made by its class.
@pytest.mark.filterwarnings("ignore:.*not having a spec")
@pytest.mark.parametrize("debug", [False, True])
def test_the_environment_passes_the_checker_of_gymnasium(debug: bool) -> None:
    check_env(AnyMDPEnv(random_task(), debug=debug))


def test_the_random_walk_of_the_environments_has_the_law_of_the_task() -> None:
    task = random_task()
    counts = np.zeros(task.transition.shape)
    rewards: list[np.ndarray] = []
    env = AnyMDPVectorEnv([task], num_envs=4000, seed=1)
    env.reset()
    rng = np.random.default_rng(2)
    for _ in range(60):
        before, ended = env.inner_state, env._ended.copy()
        action = rng.integers(0, 3, 4000)
        _, reward, *_ = env.step(action)
        after = env.inner_state
        np.add.at(counts, (before[~ended], action[~ended], after[~ended]), 1)
        seen = ~ended & (before == 2) & (action == 1) & (after == 3)
        rewards.append((reward[seen] - task.reward[2, 1, 3]) / task.reward_noise[2, 1, 3])
    for s in range(5):
        for a in range(3):
            expected = task.transition[s, a] * counts[s, a].sum()
            assert chisquare(counts[s, a], expected).pvalue > 1e-4
    assert kstest(np.concatenate(rewards), "norm").pvalue > 1e-4


def test_single_and_vector_environment_follow_the_same_law() -> None:
    task = random_task(3)
    env = AnyMDPEnv(task)
    counts = np.zeros((task.num_states, task.num_observations))
    returns = []
    observation, _ = env.reset(seed=0)
    total = 0.0
    inner = {int(o): s for s, o in enumerate(task.state_mapping)}
    for _ in range(8000):
        before = inner[int(observation)]
        observation, reward, terminated, truncated, _ = env.step(0)
        counts[before, observation] += 1
        total += reward
        if terminated or truncated:
            returns.append(total)
            total = 0.0
            observation, _ = env.reset()
    for s in range(task.num_states - 1):
        expected = task.transition[s, 0] * counts[s].sum()
        assert chisquare(counts[s][task.state_mapping], expected).pvalue > 1e-4
    many = vector_returns(task, 8000)
    error = np.sqrt(np.var(returns) / len(returns) + np.var(many) / len(many))
    assert abs(np.mean(returns) - np.mean(many)) < 4 * error


def vector_returns(task: Task, count: int) -> np.ndarray:
    """The return of one episode in each of `count` environments, always with action 0."""
    env = AnyMDPVectorEnv([task], num_envs=count, seed=5)
    env.reset()
    total, over = np.zeros(count), np.zeros(count, bool)
    while not over.all():
        _, reward, terminated, truncated, _ = env.step(np.zeros(count, int))
        total += np.where(over, 0, reward)
        over |= terminated | truncated
    return total


def test_episodes_start_by_the_start_distribution() -> None:
    task = random_task()
    env = AnyMDPVectorEnv([task], num_envs=5000)
    seen, _ = env.reset(seed=3)
    counts = np.bincount(seen, minlength=8)[task.state_mapping[:2]]
    assert chisquare(counts, np.array([0.3, 0.7]) * 5000).pvalue > 1e-4
    single = AnyMDPEnv(task)
    single.reset(seed=0)
    starts = [int(single.reset()[0]) for _ in range(2000)]
    counts = np.bincount(starts, minlength=8)[task.state_mapping[:2]]
    assert chisquare(counts, np.array([0.3, 0.7]) * 2000).pvalue > 1e-4


@pytest.mark.parametrize("mode", list(AutoresetMode))
def test_every_autoreset_mode_is_the_one_of_gymnasiums_own_vector_environment(mode: AutoresetMode) -> None:
    # All is certain here, so that both must agree step by step, in the infos too.
    tasks = [corridor(3, 4), corridor(3, 2), corridor(3, 3)]
    ours = AnyMDPVectorEnv(tasks, autoreset_mode=mode)
    theirs = SyncVectorEnv([lambda t=t: AnyMDPEnv(t) for t in tasks], autoreset_mode=mode)
    assert ours.metadata["autoreset_mode"] is mode
    np.testing.assert_array_equal(ours.reset(seed=0)[0], theirs.reset(seed=0)[0])
    rng = np.random.default_rng(1)
    for _ in range(60):
        actions = rng.integers(0, 2, 3)
        mine, other = ours.step(actions), theirs.step(actions)
        for got, wanted in zip(mine[:4], other[:4], strict=True):
            np.testing.assert_array_equal(got, wanted)
            assert got.dtype == wanted.dtype
        assert {key: list(value) for key, value in mine[4].items()} == {
            key: list(value) for key, value in other[4].items()
        }
        over = mine[2] | mine[3]
        if mode is AutoresetMode.DISABLED and over.any():
            first, _ = ours.reset(options={"reset_mask": over})
            np.testing.assert_array_equal(first, theirs.reset(options={"reset_mask": over})[0])


def test_next_step_autoreset_spends_a_step_on_the_reset() -> None:
    env = AnyMDPVectorEnv([corridor()], seed=0)
    env.reset()
    steps = [tuple(value.item() for value in env.step([1])[:4]) for _ in range(4)]
    assert steps == [
        (1, 1.0, False, False),
        (2, 2.0, True, False),
        (0, 0.0, False, False),  # the reset: action ignored, reward 0
        (1, 1.0, False, False),
    ]
    env.step([1])
    env.step([99])  # ignored, so that an agent may send its own mark for the filler step
    with pytest.raises(OmniRLError, match="environment 0 is 99; actions go from 0 to 1"):
        env.step([99])


def test_same_step_autoreset_gives_the_next_episodes_first_observation_and_keeps_the_last() -> None:
    env = AnyMDPVectorEnv([corridor()], autoreset_mode="SameStep", seed=0)
    env.reset()
    env.step([1])
    observation, reward, terminated, truncated, info = env.step([1])
    assert (observation[0], reward[0], terminated[0], truncated[0]) == (0, 2.0, True, False)
    assert info["final_obs"][0] == 2
    assert env.step([1])[0][0] == 1


def test_an_episode_is_truncated_at_its_limit_of_steps() -> None:
    env = AnyMDPEnv(corridor(max_steps=4))
    env.reset(seed=0)
    assert [env.step(0)[3] for _ in range(4)] == [False, False, False, True]
    with pytest.raises(ResetNeeded, match="call reset"):
        env.step(0)


def test_an_end_at_the_limit_is_no_truncation() -> None:
    env, many = AnyMDPEnv(corridor(max_steps=2)), AnyMDPVectorEnv([corridor(max_steps=2)])
    env.reset(seed=0)
    many.reset(seed=0)
    assert [env.step(1)[2:4] for _ in range(2)] == [(False, False), (True, False)]
    assert [tuple(map(bool, many.step([1])[2:4])) for _ in range(2)] == [(False, False), (True, False)]


def test_disabled_autoreset_asks_for_the_reset_of_what_ended() -> None:
    env = AnyMDPVectorEnv([corridor(max_steps=2), corridor()], autoreset_mode=AutoresetMode.DISABLED)
    env.reset(seed=0)
    env.step([0, 0])
    env.step([0, 0])
    with pytest.raises(ResetNeeded, match="environment 0 has ended"):
        env.step([0, 0])
    seen, _ = env.reset(options={"reset_mask": np.array([True, False])})
    assert seen.tolist() == [0, 0]
    assert env.step([0, 1])[0].tolist() == [0, 1]
    with pytest.raises(OmniRLError, match="reset_mask"):
        env.reset(options={"reset_mask": [1, 0]})


def trajectory(env: AnyMDPVectorEnv, seed: int | None) -> np.ndarray:
    env.reset(seed=seed)
    rng = np.random.default_rng(9)
    return np.array([env.step(rng.integers(0, 3, env.num_envs))[1] for _ in range(50)])


def test_the_seed_decides_the_trajectory_and_environments_are_independent() -> None:
    env = AnyMDPVectorEnv([random_task()], num_envs=200)
    first = trajectory(env, 4)
    np.testing.assert_array_equal(first, trajectory(env, 4))
    np.testing.assert_array_equal(
        first, trajectory(AnyMDPVectorEnv([random_task()], num_envs=200, seed=4), None)
    )
    assert (first != trajectory(env, 5)).any()
    between = np.corrcoef(first.T)[np.triu_indices(200, 1)]
    assert abs(between).max() < 6 / np.sqrt(50)
    assert abs(between.mean()) < 0.01


def test_environments_play_the_tasks_in_turn() -> None:
    tasks = batch(corridor(3, 2), corridor(3, 3))
    env = AnyMDPVectorEnv(tasks, num_envs=5, seed=0)
    env.reset()
    env.step(np.zeros(5, int))
    assert env.step(np.zeros(5, int))[3].tolist() == [True, False, True, False, True]
    assert env.observation_space.contains(env.reset()[0])


def test_debug_tells_what_the_agent_does_not_see() -> None:
    task = random_task()
    env = AnyMDPEnv(task, debug=True)
    _, first = env.reset(seed=0)
    before = first["inner_state"]
    observation, _, _, _, info = env.step(2)
    np.testing.assert_array_equal(info["transition_probs"][task.state_mapping], task.transition[before, 2])
    assert info["transition_probs"].sum() == pytest.approx(1)
    assert info["expected_reward"] == pytest.approx(task.expected_reward[before, 2])
    assert task.state_mapping[info["inner_state"]] == observation
    assert AnyMDPEnv(task).reset()[1] == {}


def test_a_reset_may_bring_another_task_of_the_same_spaces() -> None:
    env = AnyMDPEnv(corridor(max_steps=4), render_mode="ansi")
    env.reset(seed=0, options={"task": corridor(max_steps=1)})
    assert env.step(0)[3]
    assert env.render() == "step 1  observation 0  action 0  reward +0.000"
    with pytest.raises(OmniRLError, match="8 observations and 3 actions"):
        env.reset(options={"task": random_task()})
    with pytest.raises(OmniRLError, match=r"must be an omnirl\.Task, not dict"):
        env.reset(options={"task": {}})


def test_mistakes_are_named() -> None:
    env = AnyMDPEnv(corridor())
    with pytest.raises(ResetNeeded):
        env.step(0)
    env.reset()
    with pytest.raises(ValueError, match="the action is 2; actions are integers from 0 to 1"):
        env.step(2)
    with pytest.raises(OmniRLError, match="render_mode is 'human'"):
        AnyMDPEnv(corridor(), render_mode="human")
    many = AnyMDPVectorEnv([corridor()], num_envs=3)
    with pytest.raises(ResetNeeded):
        many.step([0, 0, 0])
    many.reset()
    for wrong in ([0, 0], [0.0, 1.0, 1.0], [[0, 0, 0]]):
        with pytest.raises(OmniRLError, match="3 integers, one an environment"):
            many.step(wrong)
    with pytest.raises(OmniRLError, match="environment 1 is -1"):
        many.step([0, -1, 0])
    with pytest.raises(OmniRLError, match="num_envs is 0"):
        AnyMDPVectorEnv([corridor()], num_envs=0)
    with pytest.raises(OmniRLError, match="give tasks= to play"):
        AnyMDPVectorEnv()


@pytest.mark.parametrize(
    ("module", "library", "extra"),
    [("switch2", "pettingzoo", "multiagent"), ("sb3", "stable_baselines3", "rl")],
)
def test_a_missing_library_is_named_with_its_extra(
    module: str, library: str, extra: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in sys.modules if name.split(".")[0] == library]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, library, None)
    monkeypatch.delitem(sys.modules, f"omnirl.envs.{module}", raising=False)
    with pytest.raises(MissingExtraError, match=rf"pip install 'omnirl-icrl\[{extra}\]'"):
        importlib.import_module(f"omnirl.envs.{module}")
