from __future__ import annotations

import numpy as np
import pytest

from omnirl.baselines.q_learning_released import ReleasedQLearning
from omnirl.baselines.q_learning_ucb import QLearningUCB
from omnirl.data.policies import (
    BonusQLearning,
    ModelBased,
    QLearning,
    RandomRows,
    Transition,
    WorldModel,
    choose,
)


def transition(state, action, reward, next_state, terminated=None, ended=None, n=4, actions=3):
    arrays = [np.atleast_1d(np.asarray(a)) for a in (state, action, reward, next_state)]
    terminated = np.zeros(len(arrays[0]), bool) if terminated is None else np.atleast_1d(terminated)
    return Transition(*arrays, terminated, terminated if ended is None else np.atleast_1d(ended), n, actions)


def random_transitions(count, rows=3, n=4, actions=3, seed=0):
    rng = np.random.default_rng(seed)
    for _ in range(count):
        terminated = rng.random(rows) < 0.2
        state, after = rng.integers(n, size=(2, rows))
        yield transition(
            state,
            rng.integers(actions, size=rows),
            rng.normal(size=rows),
            np.where(terminated & (after == state), (after + 1) % n, after),  # only a bandit ends where it is
            terminated,
            terminated | (rng.random(rows) < 0.1),
            n,
            actions,
        )


def full(value, rows=3):
    return np.full(rows, float(value))


def test_q_learning_on_a_chain_gives_the_iterates_by_hand():
    # s0 -> s1 with reward 1, then s1 -> s2 ends with reward 0; γ = .5 so Q starts at 2; α = .5, M = 3.
    policy = QLearning(3, 1, alpha=full(0.5, 1), gamma=full(0.5, 1), horizon=full(3, 1))
    policy.update(transition(0, 0, 1.0, 1, n=3, actions=1))
    assert policy.q[0, :, 0].tolist() == [2.0, 2.0, 2.0]  # 2 + .5 (1 + .5·2 - 2)
    policy.update(transition(1, 0, 0.0, 2, True, n=3, actions=1))
    assert policy.q[0, :, 0].tolist() == [2.0, 1.0, 0.0]  # the end is 0, what led there 2 + .5 (0 - 2)
    policy.update(transition(0, 0, 1.0, 1, n=3, actions=1))
    # The second visit has the rate .5 sqrt(4/5): 2 + rate (1 + .5·1 - 2).
    assert policy.q[0, 0, 0] == pytest.approx(2 - 0.5 * np.sqrt(0.8) * 0.5)


def test_the_end_of_a_bandit_wipes_nothing():
    # One state, which every step ends in: its two arms pay 1 and 0.
    policy = QLearning(1, 2, alpha=full(0.5, 1), gamma=full(0.5, 1), horizon=full(3, 1))
    model = WorldModel(1, 2, np.array([[0.9]]))
    for arm in (0, 1):
        step = transition(0, arm, 1.0 - arm, 0, True, n=1, actions=2)
        policy.update(step)
        model.update(step)
    assert policy.q[0, 0].tolist() == [1.5, 1.0]  # 2 + .5 (1 - 2), 2 + .5 (0 - 2)
    # Σ counts · rewards / Σ counts, of which 0.01 were there before, and nothing of γV
    np.testing.assert_allclose(model.q[0, 0, 0], [1 / 1.01, 0], rtol=1e-6)
    np.testing.assert_allclose(model.width[0, 0], 0.5 / 1.01 / np.sqrt(2), rtol=1e-5)  # n from 1


def a_bandit_s_learner(name):
    if name == "qlearn":
        policy = QLearning(1, 5, alpha=full(0.5, 64), gamma=full(0.9, 64), horizon=full(400, 64))
        return policy, policy
    model = WorldModel(1, 5, np.full((64, 1), 0.9))
    return ModelBased(model, 0, full(0.5, 64)), model


@pytest.mark.parametrize("name", ["qlearn", "mbrl"])
def test_learners_find_the_best_arm_of_a_bandit(name):
    policy, learner = a_bandit_s_learner(name)
    rng, rows, only = np.random.default_rng(0), np.arange(64), np.zeros(64, int)
    pays = rng.uniform(size=(64, 5))
    best = []
    for _ in range(400):
        arm = policy.act(rows, only, rng.random((64, policy.uniforms)))
        reward = pays[rows, arm] + 0.1 * rng.normal(size=64)
        learner.update(transition(only, arm, reward, only, np.ones(64, bool), n=1, actions=5))
        best.append(arm == pays.argmax(-1))
    assert np.mean(best[-100:]) > 0.5  # one arm in five is best


def test_q_learning_agrees_with_the_released_learner_of_the_baselines():
    ours = QLearning(4, 3, alpha=full(0.3), gamma=full(0.9), horizon=full(50))
    peer = ReleasedQLearning(4, 3, alpha=0.3, gamma=0.9, horizon=50)
    peer.reset(3)
    for t in random_transitions(100):
        ours.update(t)
        peer._learn(np.arange(3), t.state, t.action, t.reward, t.next_state, t.terminated)
    np.testing.assert_allclose(ours.q, peer.q, rtol=1e-12)
    state = np.array([0, 3, 2])
    drawn = np.stack(
        [ours.act(np.arange(3), state, np.full((3, 1), u)) for u in np.linspace(0, 0.9999, 4001)]
    )
    shares = np.stack([(drawn == a).mean(0) for a in range(3)], -1)
    np.testing.assert_allclose(shares, peer.policy(state), atol=1e-3)


def test_bonus_q_learning_agrees_with_the_baseline_and_adds_its_bonus():
    ours = BonusQLearning(4, 3, alpha=full(0.4), gamma=full(0.9), bonus=full(0.7))
    peer = QLearningUCB(4, 3, alpha=0.4, gamma=0.9)
    peer.reset(3)
    for t in random_transitions(60):
        ours.update(t)
        peer._learn(np.arange(3), t.state, t.action, t.reward, t.next_state, t.terminated)
    np.testing.assert_allclose(ours.q, peer.q, rtol=1e-12)
    u = np.array([[0.9, 0.1, 0.5]])
    value = ours.q[1, 2] + 0.7 / np.sqrt(ours.visits[1, 2]) * u[0]
    assert ours.act(np.array([1]), np.array([2]), u)[0] == value.argmax()


class PlainModel:
    """The update of xenoverse's AnyMDPSolverMBRL, one world and one discount, in loops."""

    def __init__(self, n, actions, gamma):
        self.rewards = np.zeros((n, actions, n))
        self.counts = np.full((n, actions, n), 0.01)
        self.visits = np.ones((n, actions))
        self.q = np.zeros((n, actions))
        self.gamma, self.width = gamma, np.full((n, actions), 0.01)

    def update(self, s, a, r, s2, terminated, ended):
        seen = self.counts[s, a, s2]
        self.rewards[s, a, s2] = (self.rewards[s, a, s2] * seen + r) / (seen + 1)
        self.counts[s, a, s2] += 1
        self.visits[s, a] += 1
        if terminated:
            self.counts[s2] = self.rewards[s2] = 0
        if ended:
            chance = self.counts / np.maximum(self.counts.sum(-1, keepdims=True), 0.01)
            for state in range(len(self.q)):
                ahead = self.rewards[state] + self.gamma * self.q.max(-1)
                self.q[state] = (chance[state] * ahead).sum(-1)
            self.width = max(self.rewards.std(), 0.01) / np.sqrt(self.visits)


def test_the_world_model_is_the_released_one_in_every_row():
    gammas = np.array([[0.9, 0.99], [0.95, 0.99], [0.5, 0.99]])
    model = WorldModel(4, 3, gammas)
    plain = [[PlainModel(4, 3, g) for g in row] for row in gammas]
    for t in random_transitions(150):
        model.update(t)
        for i, row in enumerate(plain):
            for one in row:
                one.update(
                    *(c[i] for c in (t.state, t.action, t.reward, t.next_state, t.terminated, t.ended))
                )
    for i, row in enumerate(plain):
        np.testing.assert_allclose(model.counts[i].swapaxes(1, 2), row[0].counts, rtol=1e-5)
        np.testing.assert_allclose(model.rewards[i].swapaxes(1, 2), row[0].rewards, rtol=1e-3, atol=1e-5)
        np.testing.assert_allclose(model.width[i], row[0].width, rtol=1e-4)
        for k, one in enumerate(row):
            np.testing.assert_allclose(model.q[k, i], one.q, rtol=1e-4, atol=1e-4)


def test_mbrl_adds_c_over_one_minus_gamma_times_the_width():
    model = WorldModel(2, 2, np.array([[0.9], [0.9]]))
    model.q[0, 1, 0] = [1.0, 0.0]
    policy = ModelBased(model, 0, np.array([0.0, 20.0]))
    row, state = np.array([1]), np.array([0])
    # The bonus is 20/(1 - .9) · .01 · u = 2 u: it wins from u = .5 on.
    assert policy.act(row, state, np.array([[0.0, 0.4]]))[0] == 0
    assert policy.act(row, state, np.array([[0.0, 0.6]]))[0] == 1


def test_random_rows_follow_their_probabilities_times_the_drift():
    logits = np.log(np.array([[[0.2, 0.3, 0.5], [0.6, 0.3, 0.1]]]))
    drift = np.array([[[0.9, 0.1, 0.0], [0.0, 1.0, 0.0], [0.0, 0.5, 0.5]]])
    policy = RandomRows(logits, drift)
    row, state = np.array([0]), np.array([1])
    np.testing.assert_allclose(policy.probabilities(row, state), [[0.6, 0.3, 0.1]])
    for steps in range(1, 20):
        policy.update(transition(0, 0, 0.0, 0))
        wanted = np.array([0.6, 0.3, 0.1]) @ np.linalg.matrix_power(drift[0], steps)
        np.testing.assert_allclose(policy.probabilities(row, state)[0], wanted)


def test_choose_draws_in_proportion_and_never_a_weight_of_zero():
    weights = np.tile([[1.0], [0.0], [3.0]], (1, 1000))
    chosen = choose(weights, (np.arange(1000) + 0.5) / 1000)
    assert np.bincount(chosen, minlength=3).tolist() == [250, 0, 750]
