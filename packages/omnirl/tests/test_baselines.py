"""The tabular learners against iterates and posteriors worked out by hand, and on worlds of known optimum."""

from types import SimpleNamespace

import numpy as np
import pytest

from omnirl import evaluate, sample_tasks
from omnirl.baselines import PSRL, ConservativeQLearning, QLearningUCB, ReleasedQLearning, ThompsonBandit
from omnirl.errors import OmniRLError
from omnirl.inference import Demonstrations

LEARNERS = [ReleasedQLearning, QLearningUCB, PSRL, ConservativeQLearning]


def chain(learner, steps, length=6, num_envs=8):
    """Action 1 goes right, 0 back to the start; the far end pays 1 and ends. Returns the ends, (T, N)."""
    learner.reset(num_envs)
    obs = np.zeros(num_envs, int)
    fresh = np.zeros(num_envs, bool)
    goals = np.zeros((steps, num_envs))
    for t in range(steps):
        action = learner.act(obs)
        move = np.where(action == 1, obs + 1, 0)
        nxt = np.where(fresh, 0, move)
        end = ~fresh & (nxt == length)
        learner.observe(action, end * 1.0, nxt, end, np.zeros(num_envs, bool))
        obs, fresh = nxt, end
        goals[t] = end
    return goals


def test_released_q_learning_follows_the_iterates_worked_out_by_hand():
    learner = ReleasedQLearning(2, 2, alpha=0.5, gamma=0.5, horizon=3)
    learner.reset(1)
    np.testing.assert_array_equal(learner.q[0], np.full((2, 2), 2.0))  # 1 / (1 - 0.5)
    learner.act([0])
    learner.observe([0], [0.6], [0], [False], [False])
    # n_sa = 1: rate 0.5, target 0.6 + 0.5 * 2
    first = 2 + 0.5 * (1.6 - 2)
    assert learner.q[0, 0, 0] == pytest.approx(first)
    learner.act([0])
    learner.observe([0], [1.0], [1], [True], [False])
    # n_sa = 2: rate 0.5 sqrt(4 / 5), the target is the reward alone, and the last state's row is 0
    assert learner.q[0, 0, 0] == pytest.approx(first + 0.5 * np.sqrt(4 / 5) * (1 - first))
    np.testing.assert_array_equal(learner.q[0, 1], [0, 0])


def test_released_q_learning_learns_a_bandit_whose_only_state_every_step_ends_in():
    bandits = sample_tasks(32, family="bandit", seed=0)
    score = evaluate(ReleasedQLearning(1, 5), bandits, episodes=300, seed=0).normalized_score
    assert score[:, -100:].mean() > 0.2
    assert score[:, -100:].mean() > score[:, :20].mean() + 0.1


def test_released_q_learning_acts_by_a_boltzmann_law_of_unit_deviation():
    learner = ReleasedQLearning(1, 2, horizon=9)
    learner.reset(1)
    learner.q[0, 0] = [3.0, 1.0]  # minus the largest: 0, -2; deviation 1
    learner.state_visits[0, 0] = 11  # (9 + 11) / 10 = 2
    np.testing.assert_allclose(learner.policy(np.array([0]))[0, 1], np.exp(-4) / (1 + np.exp(-4)))


def test_released_q_learning_is_xenoverse_s_class():
    peer = pytest.importorskip("xenoverse.anymdp.anymdp_solver_q", exc_type=ImportError)
    env = SimpleNamespace(na=4, ns=6, task_type="MDP")
    released = peer.AnyMDPSolverQ(env, gamma=0.95, alpha=0.3, max_steps=50)
    learner = ReleasedQLearning(6, 4, alpha=0.3, gamma=0.95, horizon=50)
    learner.reset(1)
    rng = np.random.default_rng(0)
    for _ in range(500):
        step = rng.integers(6), rng.integers(4), rng.normal(), rng.integers(6), rng.random() < 0.1
        obs, action, reward, after, end = step
        if end and after == obs:  # only a bandit ends where it is, and there ours wipes nothing
            continue
        released.learner(obs, action, after, reward, end, False)
        learner._learn(np.array([0]), *(np.array([value]) for value in step))
    np.testing.assert_array_equal(learner.q[0], released.value_matrix)


def test_the_ucb_bonus_shrinks_with_the_root_of_the_visits():
    learner = QLearningUCB(1, 2, bonus=1.0, seed=3)
    learner.reset(20_000)
    learner.visits[:, 0] = [1, 4]
    # a uniform on [0, 1] against one on [0, 1/2]: the second is larger with probability 1/4
    share = learner.act(np.zeros(20_000, int)).mean()
    assert abs(share - 0.25) < 4 * np.sqrt(0.25 * 0.75 / 20_000)


@pytest.mark.parametrize("learner", LEARNERS)
def test_the_step_that_resets_teaches_nothing(learner):
    one, two = learner(3, 2), learner(3, 2)
    for agent in (one, two):
        agent.reset(1)
        agent.act([0])
        agent.observe([1], [1.0], [2], [True], [False])
    two.act([2])
    two.observe([0], [0.0], [0], [False], [False])
    for name in ("q", "visits", "counts", "reward_sum", "moments"):
        if hasattr(one, name):
            np.testing.assert_array_equal(getattr(one, name), getattr(two, name))


@pytest.mark.parametrize("learner", [QLearningUCB, PSRL])
def test_explorers_learn_a_corridor_that_random_actions_seldom_cross(learner):
    goals = chain(learner(7, 2, seed=1), 900)
    # the optimum ends an episode every 6 steps and one reset: 1/7; random ones take 2^7 - 2 = 126 steps
    assert goals[-140:].mean() > 0.8 / 7
    assert goals[:100].mean() < 0.7 / 7


@pytest.mark.parametrize("learner", LEARNERS)
def test_a_second_run_from_reset_is_the_first_one(learner):
    agent = learner(7, 2, seed=5)
    np.testing.assert_array_equal(chain(agent, 60), chain(agent, 60))


def test_settings_may_differ_between_worlds():
    learner = QLearningUCB(1, 1, alpha=np.array([0.1, 0.9]))
    learner.reset(2)
    learner.act([0, 0])
    learner.observe([0, 0], [1, 1], [0, 0], [True, True], [False, False])
    np.testing.assert_allclose(learner.q[:, 0, 0], [0.1, 0.9])


def test_psrl_s_worlds_do_not_bootstrap_through_an_end():
    learner = PSRL(2, 2, gamma=0.9)
    learner.reset(1)
    for _ in range(
        200
    ):  # staying pays 0.05, leaving 1, and the state left to pays 50, once its episode is over
        for obs, action, reward, after, end in [(0, 0, 0.05, 0, 0), (0, 1, 1.0, 1, 1), (1, 0, 50.0, 1, 0)]:
            step = (np.array([value]) for value in (obs, action, reward, after, bool(end)))
            learner._learn(np.array([0]), *step)
    assert learner.act([0], greedy=True)[0] == 1
    learner.gamma = 0.99  # 0.05 / (1 - 0.99) = 5 > 1: staying is better than the end
    assert learner.act([0], greedy=True)[0] == 0


def test_conservative_values_end_at_the_fixed_point_of_the_paper():
    data = np.array([6.0, 3.0, 1.0])
    mean = np.array([0.2, 0.5, 0.9])
    learner = ConservativeQLearning(1, 3, conservatism=0.05)
    learner.reset(1)
    learner.counts[0, 0, :, 0] = data
    learner.reward_sum[0, 0] = data * mean
    learner.ends[0, 0] = True  # a bandit: nothing follows
    learner.fit(np.array([0]), 5000)
    q = learner.q[0, 0]
    soft = np.exp(q) / np.exp(q).sum()
    np.testing.assert_allclose(q, mean - 0.05 * (soft / (data / 10) - 1), atol=1e-9)


def test_thompson_posterior_is_the_normal_inverse_gamma_of_the_pulls():
    learner = ThompsonBandit(2, prior_weight=1.0)
    learner.reset(1)
    rewards = [1.0, 2.0, 0.5]
    for reward in rewards:
        learner.act([0])
        learner.observe([1], [reward], [0], [True], [False])
        learner.act([0])
        learner.observe([0], [9.0], [0], [False], [False])
    centre, scale, freedom = learner.posterior()
    n, mean = 3, np.mean(rewards)
    assert centre[0, 0] == 0.75
    assert centre[0, 1] == pytest.approx((0.75 + n * mean) / (n + 1))
    rate = 0.02 + 0.5 * np.sum((np.array(rewards) - mean) ** 2) + n * (mean - 0.75) ** 2 / (2 * (n + 1))
    assert scale[0, 1] == pytest.approx(np.sqrt(rate / ((1 + n / 2) * (n + 1))))
    assert freedom[0, 1] == 2 + n


def test_thompson_pulls_the_best_arm_nearly_always_in_the_end():
    rng, means = np.random.default_rng(0), np.array([0.5, 0.8, 1.0])
    learner = ThompsonBandit(3)
    learner.reset(64)
    best = []
    for _ in range(400):
        arm = learner.act(np.zeros(64, int))
        learner.observe(arm, rng.normal(means[arm], 0.2), np.zeros(64, int), [True] * 64, [False] * 64)
        learner.act(np.zeros(64, int))
        learner.observe(arm, np.zeros(64), np.zeros(64, int), [False] * 64, [False] * 64)
        best.append((arm == 2).mean())
    assert np.mean(best[:3]) < 0.6
    assert np.mean(best[-100:]) > 0.97


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: QLearningUCB(0, 2), "at least one state"),
        (lambda: QLearningUCB(3, 2).act([0]), "call reset"),
        (lambda: _begun().act([0]), "1 observations for 2 worlds"),
        (lambda: _begun().act([0, 3]), "num_states=3"),
    ],
)
def test_mistakes_are_told(call, message):
    with pytest.raises(OmniRLError, match=message):
        call()


def _begun():
    learner = QLearningUCB(3, 2)
    learner.reset(2)
    return learner


def test_learning_from_demonstrations_is_learning_from_the_same_steps():
    episodes = [
        {"observations": [0, 1, 2], "actions": [0, 1], "rewards": [0.5, 1.0], "terminated": True},
        {"observations": [1, 0], "actions": [1], "rewards": [0.25], "terminated": False},
    ]
    lived, read = QLearningUCB(3, 2), QLearningUCB(3, 2)
    for learner in (lived, read):
        learner.reset(1)
    read.load_demonstrations(Demonstrations.from_episodes(episodes, 2))
    for obs, action, reward, nxt, end in [(0, 0, 0.5, 1, 0), (1, 1, 1.0, 2, 1), (1, 1, 0.25, 0, 0)]:
        lived._learn(np.array([0]), *(np.array([x]) for x in (obs, action, reward, nxt, bool(end))))
    np.testing.assert_array_equal(read.q, lived.q)
