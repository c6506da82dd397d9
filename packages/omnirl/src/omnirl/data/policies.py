"""Behaviour policies (section 2.3) as tables over B sequences: `act(state)` and `update(transition)`.

States are observation ids. Every learner sees every transition, whoever acted, and acts for the rows that are
asked for. Random numbers come from outside, so that a sequence's course depends on its own stream alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, reduce
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Floats = NDArray[np.floating]
Bools = NDArray[np.bool_]

_LEAST_STD = 0.01
_PRIOR_COUNT = 0.01
_STIFFEST = 10.0
_DRIFT_AT_ONCE = 8


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
    def absorbed(self) -> Bools:
        """(B,) terminated in a state that no episode goes on from: not so in a bandit's only one."""
        return self.terminated & (self.next_state != self.state)


class Policy(Protocol):
    """A behaviour policy of B sequences."""

    tag: int
    """What the tag says of its actions."""
    uniforms: int
    """How many uniform numbers one action takes."""

    def act(self, rows: Ints, state: Ints, u: Floats) -> Ints:
        """Actions (m,) of the sequences `rows` (m,) in `state` (m,), from `u` (m, uniforms)."""
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
        powers = [np.broadcast_to(np.eye(drift.shape[-1]), drift.shape)]
        for _ in range(_DRIFT_AT_ONCE):
            powers.append(powers[-1] @ drift)
        self._powers, self._drifted, self._time = powers, powers[0], 0

    def probabilities(self, rows: Ints, state: Ints) -> Floats:
        """(m, A): row `state` times the drift so far."""
        now = self.rows[rows, state][:, None] @ self._drifted[rows] @ self._powers[self._time][rows]
        return now[:, 0]

    def act(self, rows: Ints, state: Ints, u: Floats) -> Ints:
        """A draw from `probabilities`."""
        return choose(self.probabilities(rows, state).T, u[:, 0])

    def update(self, transition: Transition) -> None:
        """One more step of the drift."""
        self._time += 1
        if self._time == _DRIFT_AT_ONCE:
            self._drifted, self._time = self._drifted @ self._powers[-1], 0


class QLearning:
    """xenoverse's Q-learning: optimistic, a decaying rate, Boltzmann actions. Settings are (B,).

    Q starts at 1/(1-γ); Q(s,a) += α √((M+1)/(M+n_sa)) (r + γ max Q(s') - Q(s,a)) with n counted from 1. At an
    end the target is r, and Q(s') := 0 unless s' is s, as in a bandit: it would forget all that it learnt.
    Actions ~ exp((Q - max Q)/max(std, .01) · min((M+n_s)/(M+1), 10)).
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
        value = np.ascontiguousarray(self.q[rows, state].T)  # (A, m): numpy is quick along a long last axis
        value -= value.max(0)
        horizon = self.horizon[rows]
        stiffness = np.minimum((horizon + self.state_visits[rows, state]) / (horizon + 1), _STIFFEST)
        value *= stiffness / np.maximum(value.std(0), _LEAST_STD)
        return choose(np.exp(value), u[:, 0])

    def update(self, transition: Transition) -> None:
        """One step of Q-learning in every row."""
        t = transition
        by_state = self.q.reshape(-1, self.q.shape[-1])
        by_state[t.next_place[t.absorbed]] = 0.0
        target = t.reward + self.gamma * largest(by_state.take(t.next_place, axis=0)) * ~t.terminated
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
        return (self.q[rows, state] + spread * u).argmax(-1)

    def update(self, transition: Transition) -> None:
        """One step of Q-learning in every row."""
        t = transition
        ahead = largest(self.q.reshape(-1, self.q.shape[-1]).take(t.next_place, axis=0))
        q = self.q.reshape(-1)
        old = q.take(t.pair)
        q[t.pair] = old + self.alpha * (t.reward + self.gamma * ahead * ~t.terminated - old)
        self.visits.reshape(-1)[t.pair] += 1


class WorldModel:
    """Counts and mean rewards of (s, a, s') in B sequences, and the values that K planners draw from them.

    Counts start at 0.01; a state that ended an episode has zero counts and rewards from then on; one that
    ended it for itself, as a bandit's does, keeps them and has V(s') = 0. At each end one sweep Q(s,a) = Σ
    p(s'|s,a) (r(s,a,s') + γ max Q(s')) goes through the states in the order of their ids, each with the
    newest values, and the width of the bonus, max(std of all rewards, .01)/√n_sa, is taken anew. `gammas` is
    (B, K); `counts` and `rewards` are (B, s, s', a), the order in which the sweep is one matrix product a
    state; `q` (K, B, n, A) and `width` (B, n, A) are what `ModelBased` acts on.
    """

    def __init__(self, num_states: int, num_actions: int, gammas: Floats) -> None:
        count, planners = gammas.shape
        self.gammas = gammas.astype(np.float32)
        pairs = (count, num_states, num_actions)
        # Behind the counts of (s, ·, a) stands Σ counts · rewards: with γV and 1 one product gives Q, times Σ
        # counts.
        self._table = np.full((count, num_states, num_states + 1, num_actions), _PRIOR_COUNT, np.float32)
        self._table[:, :, -1] = 0.0
        self.counts = self._table[:, :, :-1]
        self._means = np.zeros_like(self._table)
        self.rewards = self._means[:, :, :-1]
        self.q = np.zeros((planners, *pairs), np.float32)
        self.width = np.full(pairs, _LEAST_STD, np.float32)
        # Of each (s, a): Σ counts and n_sa. Of all: Σ rewards and Σ rewards². They are kept, as they cost
        # more to add up at every end than the sweep itself.
        self._sums = np.tile(np.array([_PRIOR_COUNT * num_states, 1], np.float32), (*pairs, 1))
        self._moments = np.zeros((2, count))
        self._values = np.ones((count, planners, num_states + 1), np.float32)  # γ max Q, and 1
        self._values[..., :-1] = 0.0
        self._goes_on = np.ones((count, num_states), np.float32)  # 0 where a state's own steps end in it

    def update(self, transition: Transition) -> None:
        """Count, and plan again where an episode ended."""
        t = transition
        first = t.place * ((t.num_states + 1) * t.num_actions) + t.action
        outcome, gained = first + t.next_state * t.num_actions, first + t.num_states * t.num_actions
        table, rewards = self._table.reshape(-1), self._means.reshape(-1)
        seen, old = table.take(outcome), rewards.take(outcome)
        new = (old * seen + t.reward) / (seen + 1)
        table[outcome] = seen + 1
        table[gained] = table.take(gained) + t.reward
        rewards[outcome] = new
        self._moments += new - old, np.square(new) - np.square(old)
        sums = self._sums.reshape(-1, 2)
        sums[t.pair] = sums.take(t.pair, axis=0) + 1
        if t.ended.any():
            self._absorb(t)
            self._sweep(np.flatnonzero(t.ended))

    def _absorb(self, t: Transition) -> None:
        itself = t.terminated & ~t.absorbed
        self._goes_on[itself, t.state[itself]] = 0.0
        rows, states = np.flatnonzero(t.absorbed), t.next_state[t.absorbed]
        lost = self.rewards[rows, states].reshape(len(rows), self.rewards[0, 0].size).astype(np.float64)
        self._moments[:, rows] -= lost.sum(-1), np.square(lost).sum(-1)
        for table in (self._table, self.rewards, self._sums[..., :1]):
            table[rows, states] = 0.0

    def _sweep(self, rows: Ints) -> None:
        table, sums, values = self._table[rows], self._sums[rows], self._values[rows]
        share = 1 / np.maximum(sums[:, None, ..., 0], _PRIOR_COUNT)
        gammas, goes_on = self.gammas[rows], self._goes_on[rows]
        found = np.empty((len(rows), *self.q[:, 0].shape), np.float32)
        for state in range(table.shape[1]):
            q = np.multiply(values @ table[:, state], share[:, :, state], out=found[:, :, state])
            np.multiply(gammas * goes_on[:, [state]], largest(q), out=values[:, :, state])
        self._values[rows] = values
        self.q[:, rows] = found.swapaxes(0, 1)
        mean, square = self._moments[:, rows] / self.rewards[0].size
        std = np.sqrt(np.maximum(square - np.square(mean), _LEAST_STD**2))
        self.width[rows] = std[:, None, None] / np.sqrt(sums[..., 1])


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
        place = rows * self.model.width.shape[1] + state
        value = self.model.width.reshape(-1, self.uniforms).take(place, axis=0)
        value *= self.scale[rows, None] * u
        value += self.model.q[self.planner].reshape(-1, self.uniforms).take(place, axis=0)
        return value.argmax(-1)

    def update(self, transition: Transition) -> None:
        """Nothing: the model learns, once for all its planners."""


def choose(weights: Floats, u: Floats) -> Ints:
    """Index (m,) drawn in proportion to `weights` (A, m) by the uniforms `u` (m,)."""
    cumulative = weights.cumsum(0)
    chosen = (u * cumulative[-1] >= cumulative).sum(0)
    return np.minimum(chosen, len(weights) - 1)


def largest(values: Floats) -> Floats:
    """The maximum over the last axis, entry by entry: numpy's own is slow where that axis is short."""
    return reduce(np.maximum, [values[..., entry] for entry in range(values.shape[-1])])
