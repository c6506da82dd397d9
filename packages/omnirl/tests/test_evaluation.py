"""The protocol: exact ends of the scale, controls that take learning away, demonstrations in a row's ids."""

import gymnasium as gym
import numpy as np
import pytest
import torch

import omnirl
from omnirl.baselines import ConservativeQLearning, QLearningUCB
from omnirl.envs import (
    AnyMDPEnv,
    AnyMDPVectorEnv,
    DarkRoomEnv,
    PartiallyObserved,
    ShapedReward,
    discretize,
)
from omnirl.errors import OmniRLError, OmniRLWarning
from omnirl.evaluation import EvalResult, StepResult, Teacher, evaluate, evaluate_steps
from omnirl.evaluation.controls import ControlledWorld
from omnirl.evaluation.normalisers import exact_normaliser
from omnirl.evaluation.results import interval
from omnirl.evaluation.teachers import demonstrate, translated, world_policy
from omnirl.evaluation.worlds import TaskWorld
from omnirl.inference import ICRLAgent

LAKE = {"env_kwargs": {"is_slippery": False}, "shaping": "frozenlake"}


@pytest.fixture(scope="module")
def tasks():
    return omnirl.sample_tasks(12, num_states=16, num_actions=5, seed=11)


@pytest.fixture(scope="module")
def lake():
    return omnirl.Task.from_gymnasium(gym.make("FrozenLake-v1", is_slippery=False))


@pytest.fixture(scope="module")
def agent():
    torch.manual_seed(0)
    config = omnirl.OmniRLConfig(16, 5, hidden_size=16, num_layers=1, num_heads=2, layout="fused")
    return ICRLAgent(omnirl.OmniRL(config))


def shaped(step):
    """FrozenLake's goal 1, hole -1, else -0.05, from its table."""
    return np.where(step.terminated, np.where(np.asarray(step.reward) > 0, 1.0, -1.0), -0.05)


@pytest.mark.parametrize(("policy", "score"), [("random", 0.0), ("opt3", 1.0)])
def test_random_scores_0_and_the_oracle_1(tasks, policy, score):
    found = evaluate(policy, tasks, episodes=12, runs=4, seed=0)
    assert found.normalized_score.shape == (48, 12)
    mean = found.normalized_score.mean()
    assert abs(mean - score) < 4 * found.normalized_score.std() / np.sqrt(48 * 12)
    by_steps = evaluate_steps(policy, tasks, steps=1500, runs=2, seed=1).score()
    assert abs(by_steps.mean() - score) < 4 * by_steps.std() / np.sqrt(24) + 0.02


def test_the_oracle_walks_the_lake_in_six_steps(lake):
    for world in (lake, "FrozenLake-v1"):
        options = {} if world is lake else LAKE
        found = evaluate("opt3", world, episodes=3, runs=2, seed=0, **options)
        np.testing.assert_array_equal(found.raw_returns, 1.0)
        np.testing.assert_array_equal(found.steps, 6)
        np.testing.assert_allclose(found.normalized_score, 1.0)
    np.testing.assert_allclose(
        found.returns, 1 - 5 * 0.05
    )  # what was shown: five steps of -0.05, then the goal


def test_a_learner_learns_unless_rewards_are_hidden_or_ids_change_every_episode(lake):
    learner = QLearningUCB(16, 4, bonus=0.1)
    late = {}
    for name, control in {
        "plain": {},
        "other ids": {"permute_states": True, "permute_actions": True},
        "hidden": {"rewards": "hidden"},
        "flipped": {"rewards": "flipped"},
        "episode": {"permute_states": "episode"},
    }.items():
        found = evaluate_steps(learner, lake, steps=1500, runs=16, seed=3, shaping=shaped, **control)
        late[name] = np.nanmean(found.success(900))
    assert late["plain"] > 0.9
    assert late["other ids"] > 0.9
    assert late["hidden"] < 0.1
    assert late["flipped"] < 0.1
    assert late["episode"] < 0.1


def test_the_same_seed_gives_the_same_result_and_another_one_another(tasks):
    first, again, other = (
        evaluate_steps(QLearningUCB(16, 5), tasks, steps=80, seed=seed).rewards for seed in (5, 5, 6)
    )
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other, equal_nan=True)


def test_a_frozen_memory_stays_and_a_reset_one_is_empty_at_each_start(agent, lake):
    evaluate_steps(agent, lake, steps=60, runs=3, seed=0, start="imitation", memory="frozen")
    np.testing.assert_array_equal(agent.memory["tokens"], 200)
    evaluate_steps(agent, lake, steps=60, runs=3, seed=0)
    np.testing.assert_array_equal(agent.memory["tokens"], 60)
    found = evaluate_steps(agent, lake, steps=60, runs=3, seed=0, memory="reset")
    resets = np.isnan(found.rewards)
    since = 59 - np.where(resets.any(1), 59 - resets[:, ::-1].argmax(1), -1)
    np.testing.assert_array_equal(agent.memory["tokens"], since)


def test_parameters_are_the_same_after_an_evaluation(agent, tasks):
    before = [p.clone() for p in agent.model.parameters()]
    evaluate(agent, tasks, episodes=1, seed=0, start="offline", demonstrations=Teacher("random", steps=20))
    assert all(torch.equal(p, q) for p, q in zip(before, agent.model.parameters(), strict=True))


def test_a_lake_of_four_actions_is_played_by_a_model_of_five_by_modulo(agent):
    found = evaluate(agent, "FrozenLake-v1", episodes=3, runs=2, seed=0, permute_states=True, **LAKE)
    assert found.settings["actions_by_modulo"]
    assert found.normalized_score.shape == (2, 3)
    assert found.ci95.shape == (3,)


def test_demonstrations_are_the_oracle_s_steps_in_each_row_s_own_ids(tasks):
    world = TaskWorld(tasks, 2, seed=1)
    controlled = ControlledWorld(world, 5, permute_states=True, permute_actions=True, seed=2)
    shown, rate = demonstrate(controlled, Teacher(steps=300), 5, tasks, np.random.default_rng(0))
    assert shown.observations.shape == (24, 300)
    np.testing.assert_array_equal(shown.actions[:, -1], 5)
    np.testing.assert_array_equal(shown.tags[shown.real], 3)
    np.testing.assert_array_equal(shown.tags[~shown.real], 7)
    oracle = world_policy("opt3", tasks, world.task_index)
    for t in range(0, 299, 37):
        real = shown.real[:, t]
        expected = oracle(controlled.to_world_obs(shown.observations[:, t]))
        np.testing.assert_array_equal(
            controlled.to_world_action(shown.actions[:, t] % 5)[real], expected[real]
        )
    score = exact_normaliser(tasks).rate_scores(rate, world.task_index)
    assert abs(score.mean() - 1) < 4 * score.std() / np.sqrt(24) + 0.05


def test_noise_takes_its_share_with_every_action_and_its_own_tag(tasks):
    world = ControlledWorld(TaskWorld(tasks, 8, seed=1), 5)
    shown, _ = demonstrate(world, Teacher(noise=0.7, steps=200), 5, tasks, np.random.default_rng(0))
    noisy = shown.tags == 6
    number = shown.real.sum()
    assert abs(noisy.sum() / number - 0.7) < 4 * np.sqrt(0.21 / number)
    counts = np.bincount(shown.actions[noisy], minlength=5) / noisy.sum()
    assert (np.abs(counts - 0.2) < 4 * np.sqrt(0.16 / noisy.sum())).all()
    hidden, _ = demonstrate(world, Teacher(steps=9, hide_tags=True), 5, tasks, np.random.default_rng(0))
    np.testing.assert_array_equal(hidden.tags, 7)


def test_episodes_of_a_teacher_end_each_row_after_its_last_filler(lake):
    world = ControlledWorld(TaskWorld(omnirl.TaskBatch.stack([lake]), 5, seed=1), 5)
    tasks = omnirl.TaskBatch.stack([lake])
    shown, _ = demonstrate(world, Teacher("random", episodes=3), 5, tasks, np.random.default_rng(0))
    assert len(np.unique(shown.lengths)) > 1
    for row, length in enumerate(shown.lengths):
        assert (shown.actions[row, :length] == 5).sum() == 3
        assert shown.actions[row, length - 1] == 5
        assert not shown.real[row, length:].any()


def test_given_episodes_are_translated_to_each_row_s_ids(lake):
    world = ControlledWorld(
        TaskWorld(omnirl.TaskBatch.stack([lake]), 3, seed=1), 5, permute_states=True, permute_actions=True,
        rewards="flipped", seed=4
    )  # fmt: skip
    episode = {"observations": [0, 4, 8], "actions": [1, 1], "rewards": [0.5, 1.0]}
    shown = translated(omnirl.inference.Demonstrations.from_episodes([episode], 5), world)
    for t, obs in enumerate((0, 4, 8)):
        np.testing.assert_array_equal(world.to_world_obs(shown.observations[:, t]), obs)
    np.testing.assert_array_equal(world.to_world_action(shown.actions[:, 0]), 1)
    np.testing.assert_array_equal(shown.actions[:, 2], 5)
    np.testing.assert_allclose(shown.rewards, [[-0.5, -1, 0]] * 3)


def test_conservative_q_learning_imitates_the_oracle_it_was_shown(tasks):
    found = evaluate_steps(ConservativeQLearning(16, 5), tasks, steps=150, runs=2, seed=0, start="imitation")
    assert found.teacher_score.shape == (24,)
    assert found.score().mean() > 0.6
    blind = evaluate_steps(ConservativeQLearning(16, 5), tasks, steps=50, runs=2, seed=0)
    assert blind.score().mean() < found.score().mean() - 0.3


def test_tasks_without_a_gap_are_left_out_and_counted(tasks):
    flat = omnirl.Task(
        np.where(np.eye(16)[:, None] > 2, 0, 1 / 16) * np.ones((16, 5, 16)),
        *np.zeros((2, 16, 5, 16)), [0], [1.0], [], range(16), 16, 5, 20,
    )  # fmt: skip
    found = evaluate("random", [flat, tasks[0], tasks[1]], episodes=1, runs=2, seed=0)
    assert found.skipped == 1
    np.testing.assert_array_equal(found.task_index, [1, 1, 2, 2])
    with pytest.raises(OmniRLError, match="no task is left"):
        evaluate("random", flat, episodes=1, seed=0)


def test_success_counts_the_episodes_that_end_within_the_window():
    rewards = np.array([[0, 0, 1, np.nan, 0, 0, np.nan, 1, np.nan, 0]], float)
    ends = np.array([[0, 0, 1, 0, 0, 1, 0, 1, 0, 0]], bool)
    found = StepResult(np.array([0]), None, rewards=rewards, ends=ends)
    assert found.success()[0] == pytest.approx(2 / 3)
    assert found.success(3)[0] == pytest.approx(1 / 2)
    assert np.isnan(found.success(8)[0])


def test_intervals_and_tables_of_a_result(tasks):
    values = np.array([[1.0], [2.0], [4.0]])
    assert interval(values)[0] == pytest.approx(1.96 * np.std(values, ddof=1) / np.sqrt(3))
    found = EvalResult(
        np.array([0, 0, 1, 1]),
        exact_normaliser(tasks[:2]),
        returns=np.zeros((4, 2)),
        raw_returns=np.arange(8.0).reshape(4, 2),
        steps=np.ones((4, 2), int),
    )
    scores = found.normalized_score
    means = np.array([scores[:2].mean(0), scores[2:].mean(0)])
    np.testing.assert_allclose(found.ci95, 1.96 * means.std(0, ddof=1) / np.sqrt(2))
    pytest.importorskip("pandas")
    table = found.to_pandas()
    assert list(table["run"]) == [0, 0, 1, 1, 0, 0, 1, 1]
    np.testing.assert_allclose(table["normalized_score"], scores.ravel())
    pytest.importorskip("matplotlib").use("Agg")
    line = found.plot(label="random").lines[0]
    np.testing.assert_allclose(line.get_ydata(), scores.mean(0))


def test_a_function_and_an_sb3_like_model_are_policies_in_the_environment_s_ids(lake):
    class Model:
        def predict(self, obs, deterministic):
            return np.where(np.isin(obs, [0, 4, 9]), 1, 2), None

    down_right = {0: 1, 4: 1, 8: 2, 9: 1, 13: 2, 14: 2}
    for policy in (lambda obs: np.array([down_right.get(o, 0) for o in obs]), Model()):
        found = evaluate(policy, lake, episodes=2, runs=2, seed=0, permute_states=True, permute_actions=True)
        assert found.raw_returns.shape == (2, 2)
        if not isinstance(policy, Model):
            np.testing.assert_array_equal(found.raw_returns, 1.0)


def test_pendulum_is_played_on_its_grid_and_shown_its_shaped_reward():
    torch.manual_seed(0)
    model = omnirl.OmniRL(
        omnirl.OmniRLConfig(60, 5, hidden_size=16, num_layers=1, num_heads=2, layout="fused")
    )
    found = evaluate(
        ICRLAgent(model),
        "Pendulum-v1",
        episodes=1,
        seed=0,
        discretize="pendulum",
        shaping="pendulum",
        max_steps=20,
    )
    assert found.steps[0, 0] == 20
    assert found.raw_returns[0, 0] < 0
    assert -0.1 * 20 <= found.returns[0, 0] <= 0.1 * 20


def test_the_unshaped_lake_works_with_a_hint(agent):
    with pytest.warns(OmniRLWarning, match="frozenlake"):
        evaluate(agent, "FrozenLake-v1", episodes=1, runs=1, seed=0)


def test_an_environment_without_a_table_is_scored_by_a_given_oracle(agent):
    class Short(gym.Env):
        observation_space, action_space = gym.spaces.Discrete(2), gym.spaces.Discrete(5)

        def reset(self, *, seed=None, options=None):
            super().reset(seed=seed)
            return 0, {}

        def step(self, action):
            return 1, float(action == 4), True, False, {}

    found = evaluate(agent, Short, episodes=4, runs=2, seed=0, oracle_return=1.0)
    assert abs(found.normaliser.random[0] - 0.2) < 4 * np.sqrt(0.16 / 200)
    with pytest.raises(OmniRLError, match="oracle_return"):
        _ = evaluate(agent, Short, episodes=4, runs=2, seed=0).normalized_score


def discrete_pendulum():
    return discretize(ShapedReward(gym.make("Pendulum-v1", max_episode_steps=4), "pendulum"))


def a_car_with_a_trace():
    return discretize(ShapedReward(gym.make("MountainCar-v0", max_episode_steps=4), "mountaincar"))


def a_cloud():
    env = gym.make("omnirl/DarkRoom-v0", size=3)
    return PartiallyObserved(env, np.full((9, 4), 0.25))


@pytest.mark.parametrize(
    "make",
    [
        discrete_pendulum,
        a_car_with_a_trace,
        a_cloud,
        lambda: DarkRoomEnv(3),
        lambda: AnyMDPEnv(num_states=8),
        lambda: gym.make("omnirl/AnyMDP-v0", num_states=8),
        lambda: ShapedReward(gym.make("FrozenLake-v1"), "frozenlake"),
    ],
)
def test_an_environment_is_played_with_its_wrappers_as_one_that_a_function_makes(make):
    found, expected = (evaluate("random", world, episodes=3, runs=3, seed=0) for world in (make(), make))
    np.testing.assert_array_equal(found.returns, expected.returns)
    np.testing.assert_array_equal(found.raw_returns, expected.raw_returns)
    np.testing.assert_array_equal(found.steps, expected.steps)


def test_a_vector_environment_stands_for_its_tasks(tasks):
    worlds = AnyMDPVectorEnv(tasks, num_envs=40)
    found, expected = (evaluate("opt3", world, episodes=2, seed=0) for world in (worlds, tasks))
    np.testing.assert_array_equal(found.returns, expected.returns)


class Unrecorded(gym.Wrapper):
    """Gymnasium cannot make it once more."""


@pytest.mark.parametrize(
    ("world", "options", "message"),
    [
        ("FrozenLak-v1", {}, r"FrozenLak-v1 cannot be made: .*Did you mean: `FrozenLake`"),
        ("FrozenLake-v1", {"env_kwargs": {"wet": True}}, "FrozenLake-v1 cannot be made: .*wet"),
        ("FrozenLake-v1", {"max_steps": 0}, "max_steps is 0"),
        (Unrecorded(gym.make("FrozenLake-v1")), {}, "Unrecorded cannot be made once more.*; give"),
        ("CliffWalking-v1", {}, "max_steps="),
        ("FrozenLake8x8-v1", {"shaping": "frozenlake"}, "64 observations and the agent knows 16"),
        ("CartPole-v1", {"discretize": "nothing"}, "uniform"),
        ("Pendulum-v1", {}, "pass discretize="),
        ("FrozenLake-v1", {"shaping": "frozenlaek"}, "frozenlake"),
        ("lake", {"shaping": "frozenlake"}, "RawStep"),
        ("lake", {"start": "later"}, "imitation"),
        ("lake", {"demonstrations": Teacher()}, "online start has no demonstrations"),
        ("lake", {"memory": "gone"}, "frozen"),
        ("lake", {"rewards": "none"}, "hidden"),
        ("lake", {"permute_states": "often"}, "episode"),
        ("lake", {"runs": 0}, "at least one"),
        (3, {}, "nothing to play in"),
    ],
)
def test_mistakes_are_told(agent, lake, world, options, message):
    with pytest.raises(OmniRLError, match=message):
        evaluate(agent, lake if world == "lake" else world, episodes=1, seed=0, **options)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"observations": [0, 16]}, "the observation 16; those of the environment go from 0 to 15"),
        ({"observations": [-1, 4]}, "observation -1"),
        ({"actions": [4]}, "the action 4; those of the environment go from 0 to 3"),
    ],
)
@pytest.mark.parametrize("learner", ["model", "table"])
def test_a_demonstration_with_an_id_out_of_range_is_told(agent, lake, learner, changed, message):
    episode = {"observations": [0, 4], "actions": [1], "rewards": [0.0]} | changed
    player = agent if learner == "model" else ConservativeQLearning(16, 5)
    with pytest.raises(OmniRLError, match=message if changed != {"observations": [-1, 4]} else "-1"):
        evaluate(player, lake, episodes=1, seed=0, start="offline", demonstrations=[episode])


def test_teachers_that_cannot_be_are_told():
    for settings in ({"policy": "opt9"}, {"noise": 1.5}, {"steps": 0}):
        with pytest.raises(OmniRLError):
            Teacher(**settings)
