"""Behaviour policies (section 2.3) as tables over B sequences: `act(state)` and `update(transition)`.

States are observation ids. Every learner sees every transition, whoever acted, and acts for the rows that are
asked for. Random numbers come from outside, so that a sequence's course depends on its own stream alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Floats = NDArray[np.floating]
Bools = NDArray[np.bool_]

_LEAST_STD = 0.01
_PRIOR_COUNT = 0.01
_STIFFEST = 10.0


@dataclass(frozen=True, eq=False)
class Transition:
    """What happened in each of B sequences; all (B,). States are observation ids of `num_states`."""

    state: Ints
    action: Ints
    reward: Floats
    next_state: Ints
    terminated: Bools
    ended: Bools
    """Terminated, or truncated by the time limit."""
    num_states: int
    num_actions: int

    @cached_property
    def place(self) -> Ints:
        """(B,) where (row, state) lies in a flat table (B, n)."""
        return np.arange(0, len(self.state) * self.num_states, self.num_states) + self.state

    @cached_property
    def next_place(self) -> Ints:
        """(B,) where (row, next state) lies in a flat table (B, n)."""
        return self.place + (self.next_state - self.state)

    @cached_property
    def pair(self) -> Ints:
        """(B,) where (row, state, action) lies in a flat table (B, n, A)."""
        return self.place * self.num_actions + self.action

    @cached_property
    def absorbed(self) -> Ints:
        """Where (row, next state) lies for the rows that terminated."""
        return self.next_place[self.terminated]


class Policy(Protocol):
    """A behaviour policy of B sequences."""

    tag: int
    """What the tag says of its actions."""
    uniforms: int
    """How many uniform numbers one action takes."""

    def act(self, rows: Ints, state: Ints, u: Floats) -> Ints:
        """Actions (m,) of the sequences `rows` (m,) in `state` (m,), from `u` (uniforms, m)."""
        ...

    def update(self, transition: Transition) -> None:
        """Learn from a transition of every sequence."""
        ...


class RandomRows:
    """A fixed random policy a sequence: row s is softmax(κ N(A)), all multiplied by one matrix every step.

    `logits` (B, n, A) are κ N, `drift` (B, A, A) the row-stochastic matrix.
    """

    tag, uniforms = 6, 1

    def __init__(self, logits: Floats, drift: Floats) -> None:
        weights = np.exp(logits - logits.max(-1, keepdims=True))
        self.rows = weights / weights.sum(-1, keepdims=True)
        self.drift = drift
        self.drifted = np.broadcast_to(np.eye(drift.shape[-1]), drift.shape).copy()

    def probabilities(self, rows: Ints, state: Ints) -> Floats:
        """(m, A): row `state` times the drift so far."""
        return np.einsum("ma,mab->mb", self.rows[rows, state], self.drifted[rows])

    def act(self, rows: Ints, state: Ints, u: Floats) -> Ints:
        """A draw from `probabilities`."""
        return choose(self.probabilities(rows, state), u[0])

    def update(self, transition: Transition) -> None:
        """One more step of the drift."""
        self.drifted = self.drifted @ self.drift


class QLearning:
    """xenoverse's Q-learning: optimistic, a decaying rate, Boltzmann actions. Settings are (B,).

    Q starts at 1/(1-γ); Q(s,a) += α √((M+1)/(M+n_sa)) (r + γ max Q(s') - Q(s,a)) with n counted from 1. At an
    end Q(s') := 0, so that the target is r. Actions ~ exp((Q - max Q)/max(std, .01) · min((M+n_s)/(M+1),
    10)).
    """

    tag, uniforms = 5, 1

    def __init__(
        self, num_states: int, num_actions: int, *, alpha: Floats, gamma: Floats, horizon: Floats
    ) -> None:
        self.alpha, self.gamma, self.horizon = alpha, gamma, horizon
        self.q = np.repeat(1 / (1 - gamma), num_states * num_actions).reshape(-1, num_states, num_actions)
        self.visits = np.ones(self.q.shape)
        self.state_visits = np.ones(self.q.shape[:2])

    def act(self, rows: Ints, state: Ints, u: Floats) -> Ints:
        """A Boltzmann draw."""
        value = self.q[rows, state]
        value -= value.max(-1, keepdims=True)
        horizon = self.horizon[rows]
        stiffness = np.minimum((horizon + self.state_visits[rows, state]) / (horizon + 1), _STIFFEST)
        value *= (stiffness / np.maximum(value.std(-1), _LEAST_STD))[:, None]
        return choose(np.exp(value), u[0])

    def update(self, transition: Transition) -> None:
        """One step of Q-learning in every row."""
        t = transition
        by_state = self.q.reshape(-1, self.q.shape[-1])
        by_state[t.absorbed] = 0.0
        target = t.reward + self.gamma * by_state.take(t.next_place, axis=0).max(-1) * ~t.terminated
        q, visits = self.q.reshape(-1), self.visits.reshape(-1)
        seen = visits.take(t.pair)
        old = q.take(t.pair)
        rate = self.alpha * np.sqrt((self.horizon + 1) / (self.horizon + seen))
        q[t.pair] = old + rate * (target - old)
        visits[t.pair] = seen + 1
        self.state_visits.reshape(-1)[t.place] += 1


class BonusQLearning:
    """Q-learning from Q = 0 that acts argmax Q(s,a) + c/√n_sa · U(0,1) (section 6.2). Settings are (B,)."""

    tag = 5

    def __init__(
        self, num_states: int, num_actions: int, *, alpha: Floats, gamma: Floats, bonus: Floats
    ) -> None:
        self.uniforms = num_actions
        self.alpha, self.gamma, self.bonus = alpha, gamma, bonus
        self.q = np.zeros((len(alpha), num_states, num_actions))
        self.visits = np.ones(self.q.shape)

    def act(self, rows: Ints, state: Ints, u: Floats) -> Ints:
        """The largest value plus bonus."""
        spread = self.bonus[rows, None] / np.sqrt(self.visits[rows, state])
        return (self.q[rows, state] + spread * u.T).argmax(-1)

    def update(self, transition: Transition) -> None:
        """One step of Q-learning in every row."""
        t = transition
        ahead = self.q.reshape(-1, self.q.shape[-1]).take(t.next_place, axis=0).max(-1)
        q = self.q.reshape(-1)
        old = q.take(t.pair)
        q[t.pair] = old + self.alpha * (t.reward + self.gamma * ahead * ~t.terminated - old)
        self.visits.reshape(-1)[t.pair] += 1


class WorldModel:
    """Counts and mean rewards of (s, a, s') in B sequences, and the values that K planners draw from them.

    Counts start at 0.01; a state that ended an episode has zero counts and rewards from then on. At each end
    of an episode one sweep Q(s,a) = Σ p(s'|s,a) (r(s,a,s') + γ max Q(s')) goes through the states in the
    order of their ids, each with the newest values, and the width of the bonus, max(std of all rewards,
    .01)/√n_sa, is taken anew. `gammas` is (B, K); `q` (K, B, n, A) and `width` (B, n, A) are what
    `ModelBased` acts on.
    """

    def __init__(self, num_states: int, num_actions: int, gammas: Floats) -> None:
        count, planners = gammas.shape
        self.gammas = gammas.astype(np.float32)
        table = (count, num_states, num_actions, num_states)
        self.counts = np.full(table, _PRIOR_COUNT, np.float32)
        self.rewards = np.zeros(table, np.float32)
        self.visits = np.ones(table[:3], np.float32)
        self.q = np.zeros((planners, *table[:3]), np.float32)
        self.values = np.zeros((count, num_states, planners), np.float32)
        self.width = np.full(table[:3], _LEAST_STD, np.float32)

    def update(self, transition: Transition) -> None:
        """Count, and plan again where an episode ended."""
        t = transition
        outcome = t.pair * t.num_states + t.next_state
        counts, rewards = self.counts.reshape(-1), self.rewards.reshape(-1)
        seen = counts.take(outcome)
        counts[outcome] = seen + 1
        rewards[outcome] = (rewards.take(outcome) * seen + t.reward) / (seen + 1)
        self.visits.reshape(-1)[t.pair] += 1
        self.counts.reshape(-1, *self.counts.shape[2:])[t.absorbed] = 0.0
        self.rewards.reshape(-1, *self.counts.shape[2:])[t.absorbed] = 0.0
        if t.ended.any():
            self._sweep(np.flatnonzero(t.ended))

    def _sweep(self, rows: Ints) -> None:
        counts, rewards = self.counts[rows], self.rewards[rows]
        total = np.maximum(counts.sum(-1), _PRIOR_COUNT)
        expected = np.einsum("msan,msan->msa", counts, rewards) / total
        discount = self.gammas[rows, None, None] / total[..., None]
        values = self.values[rows]
        found = np.empty((counts.shape[1], len(rows), counts.shape[2], values.shape[-1]), np.float32)
        for state in range(counts.shape[1]):
            found[state] = expected[:, state, :, None] + discount[:, state] * (counts[:, state] @ values)
            values[:, state] = found[state].max(1)
        self.values[rows] = values
        self.q[:, rows] = found.transpose(3, 1, 0, 2)
        std = np.maximum(rewards.reshape(len(rows), -1).std(-1), _LEAST_STD)
        self.width[rows] = std[:, None, None] / np.sqrt(self.visits[rows])


class ModelBased:
    """Optimistic planning in a learned model (`mbrl`): argmax Q(s,·) + (c/(1-γ)) width(s,·) · U(0,1).

    `planner` is its number among the `gammas` of `model`; `bonus` (B,) is c.
    """

    tag = 4

    def __init__(self, model: WorldModel, planner: int, bonus: Floats) -> None:
        self.model, self.planner = model, planner
        self.scale = bonus / (1 - model.gammas[:, planner])
        self.uniforms = model.q.shape[-1]

    def act(self, rows: Ints, state: Ints, u: Floats) -> Ints:
        """The largest value plus bonus."""
        width = self.model.width[rows, state] * self.scale[rows, None]
        return (self.model.q[self.planner, rows, state] + width * u.T).argmax(-1)

    def update(self, transition: Transition) -> None:
        """Nothing: the model learns, once for all its planners."""


def choose(weights: Floats, u: Floats) -> Ints:
    """Index (m,) drawn in proportion to `weights` (m, A) by the uniforms `u` (m,)."""
    cumulative = weights.cumsum(-1)
    chosen = (u[:, None] * cumulative[:, -1:] >= cumulative).sum(-1)
    return np.minimum(chosen, weights.shape[-1] - 1)
