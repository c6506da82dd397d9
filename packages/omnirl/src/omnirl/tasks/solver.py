"""Exact values of many tasks at once: policy iteration, and returns of any policy within a horizon.

    Q(s, a) = Σ_s' P(s'|s,a) (μ(s,a,s') + γ V(s')),    V(s) = max_a Q(s, a),    V(terminal) = 0

A policy π is evaluated by one linear solve, (I - γ P_π) V = r_π; the greedy policy of its Q follows, and so
on until no action is better: some four solves. The result is exact; value iteration stops at a tolerance.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias, overload

import numpy as np
from numpy.typing import ArrayLike, NDArray

from omnirl.errors import OmniRLError
from omnirl.tasks.batch import TaskBatch
from omnirl.tasks.task import Floats, Ints, Task, as_policy

Policy: TypeAlias = ArrayLike | Literal["optimal", "uniform"]

TIE = 1e-9
"""An action replaces another one only if it is better by this much, relative to max(1, |V|)."""

_SWEEPS = 6  # of value iteration before the first linear solve: each costs a tenth of one
_ROUNDS = 200
_CACHE = 2**18  # entries of `transition` that are worked on at a time: about what the cache holds


@dataclass(frozen=True)
class Dynamics:
    """What values depend on: `transition` (N, S, A, S), expected `reward` (N, S, A) and `goes_on` (N, S),
    float64, 0 for a terminal state and 1 for others."""

    transition: Floats
    reward: Floats
    goes_on: Floats

    @classmethod
    def of(cls, tasks: TaskBatch) -> Dynamics:
        """Return the dynamics of a batch of tasks."""
        return cls(tasks.transition, tasks.expected_reward, (~tasks.terminal).astype(np.float64))

    def part(self, rows: slice | Ints) -> Dynamics:
        """Return some of the tasks; `rows` are in order, none twice."""
        if not isinstance(rows, slice) and len(rows) == len(self.reward):
            return self  # all of them: a copy of the tables is dear
        return Dynamics(self.transition[rows], self.reward[rows], self.goes_on[rows])

    def action_values(self, values: Floats, gamma: Floats | float) -> Floats:
        """Return Q (N, S, A) for the `values` (N, S) of the states arrived in; `gamma`: one or (N, 1, 1)."""
        q = expect(self.transition, (values * self.goes_on)[..., None])[..., 0]
        q *= gamma
        q += self.reward
        return q

    def policy_values(self, chain: Floats, reward: Floats, gamma: Floats | float) -> Floats:
        """Return V (N, S) of a policy with state chain P_π (N, S, S), overwritten, and reward r_π (N, S)."""
        chain *= -gamma * self.goes_on[:, None, :]
        diagonal = np.einsum("nii->ni", chain)  # a view
        diagonal += 1
        return np.linalg.solve(chain, reward[..., None])[..., 0].astype(np.float64, copy=False)


def expect(transition: Floats, values: Floats) -> Floats:
    """Return Σ_s' P(s'|s,a) values(s') (N, S, A, k) of k functions of the next state (N, S, k)."""
    count, states, actions, _ = transition.shape
    flat = transition.reshape(count, states * actions, states)
    return np.matmul(flat, values).reshape(count, states, actions, values.shape[-1])


def best_of(q: Floats) -> Floats:
    """Return max_a Q (..., S) of Q (..., S, A); numpy's own maximum over so short an axis is slow."""
    best: Floats = q[..., 0].copy()
    for action in range(1, q.shape[-1]):
        np.maximum(best, q[..., action], out=best)
    return best


def chain_of(transition: Floats, policy: Ints) -> Floats:
    """Return P_π (N, S, S) of one action a state (N, S)."""
    count, states = policy.shape
    return transition[np.arange(count)[:, None], np.arange(states), policy]


def optimal_values(
    dynamics: Dynamics, gamma: Floats, values: Floats | None = None
) -> tuple[Floats, Floats, Ints]:
    """Return Q* (N, S, A), V* (N, S) and the greedy policy (N, S), each task with its own `gamma` (N,).

    `values` (N, S) is a guess that shortens the way, not the result. Raises `RuntimeError` if the policy does
    not settle within 200 rounds.
    """
    q, policy = _policy_iteration(dynamics, gamma, values)
    return q, np.take_along_axis(q, policy[..., None], axis=2)[..., 0], policy


def _policy_iteration(dynamics: Dynamics, gamma: Floats, values: Floats | None) -> tuple[Floats, Ints]:
    """The first round by parts that fit the cache; what it leaves, a third, is gathered from all of them."""
    count, states, actions, _ = dynamics.transition.shape
    q, policy = np.empty((count, states, actions)), np.empty((count, states), np.int64)
    step = max(1, min(count, _CACHE // (states * states * actions)))
    active: list[Ints] = [np.empty(0, np.int64)]
    for first in range(0, count, step):
        rows = slice(first, first + step)
        part = dynamics.part(rows)
        guess = None if values is None else values[rows]
        policy[rows] = _first_policy(part, gamma[rows, None], guess)
        q[rows], unfinished = _improve(part, gamma[rows, None], policy[rows])
        active.append(first + unfinished)
    room = np.empty((step, states, actions, states))  # new memory for each copy would cost as much as a solve
    for _ in range(_ROUNDS):
        left = np.concatenate(active)
        if not len(left):
            return q, policy
        active = []
        for first in range(0, len(left), step):
            few = left[first : first + step]
            dynamics.transition.take(few, axis=0, out=room[: len(few)], mode="clip")
            part = Dynamics(room[: len(few)], dynamics.reward[few], dynamics.goes_on[few])
            better = policy[few]
            q[few], unfinished = _improve(part, gamma[few, None], better)
            policy[few] = better
            active.append(few[unfinished])
    raise RuntimeError(f"policy iteration did not settle in {_ROUNDS} rounds; gamma {gamma.max()}")


def _first_policy(dynamics: Dynamics, gamma: Floats, values: Floats | None) -> Ints:
    """Return the greedy policy (N, S) of a guess, or of some sweeps of value iteration; `gamma` (N, 1)."""
    if values is not None:
        policy: Ints = dynamics.action_values(values, gamma[..., None]).argmax(-1)
        return policy
    count, states, actions, _ = dynamics.transition.shape
    flat = dynamics.transition.reshape(count, states * actions, states)
    discount = gamma * dynamics.goes_on
    q, after = dynamics.reward, np.empty((count, states * actions, 1))
    for _ in range(_SWEEPS):
        np.matmul(flat, (best_of(q) * discount)[..., None], out=after)
        q = after.reshape(q.shape)
        q += dynamics.reward
    policy = q.argmax(-1)
    return policy


def _improve(dynamics: Dynamics, gamma: Floats, policy: Ints) -> tuple[Floats, Ints]:
    """Return the exact Q of `policy` (N, S), improved in place, and which tasks (M,) were; `gamma` (N, 1)."""
    count, states = policy.shape
    actions = dynamics.reward.shape[-1]
    row = policy + np.arange(0, count * states * actions, actions).reshape(count, states)
    # A state's rows of all tasks side by side: to multiply them is then one long loop, not many short.
    chain = dynamics.transition.reshape(-1, states).take(row.T, axis=0).transpose(1, 0, 2)
    values = dynamics.policy_values(chain, dynamics.reward.reshape(-1).take(row), gamma[..., None])
    q = dynamics.action_values(values, gamma[..., None])
    gain = best_of(q) - values
    tasks = np.flatnonzero((gain > TIE).any(-1))  # the finer test of few is cheaper than of all
    if len(tasks):
        size = np.maximum(1.0, np.abs(values[tasks]).max(-1, keepdims=True))
        better = gain[tasks] > TIE * size
        policy[tasks] = np.where(better, q[tasks].argmax(-1), policy[tasks])
        tasks = tasks[better.any(-1)]
    return q, tasks


@overload
def solve(
    tasks: TaskBatch | Task, gamma: float | Sequence[float], *, return_values: Literal[False] = False
) -> Floats: ...
@overload
def solve(
    tasks: TaskBatch | Task, gamma: float | Sequence[float], *, return_values: Literal[True]
) -> tuple[Floats, Floats]: ...
def solve(
    tasks: TaskBatch | Task, gamma: float | Sequence[float], *, return_values: bool = False
) -> Floats | tuple[Floats, Floats]:
    """Return the optimal action values Q_γ, exact to 1e-8 · max(1, |V|) in Bellman's equation (section 2.2).

    (N, S, A) float64 for a batch, (S, A) for a task, over inner states; 0 in terminal and padded rows, save
    that of a bandit. With several `gamma` they come first: (G, N, S, A). `return_values` adds V = max_a Q,
    without the last axis. The four reference levels of the paper are `REFERENCE_GAMMAS`.

    Raises `OmniRLError` unless 0 <= gamma <= 1, and for 1 unless every policy reaches a terminal state.
    """
    if isinstance(tasks, Task):
        found = solve(TaskBatch.stack([tasks]), gamma, return_values=True)
        q, values = found[0].squeeze(-3), found[1].squeeze(-2)
        return (q, values) if return_values else q
    gammas = np.atleast_1d(np.asarray(gamma, np.float64))
    if not ((gammas >= 0) & (gammas <= 1)).all():
        raise OmniRLError(f"gamma is {gamma}; it must be between 0 and 1")
    if (gammas == 1).any():
        _refuse_endless(tasks)
    dynamics = Dynamics.of(tasks)
    q = np.empty((len(gammas), *dynamics.reward.shape))
    for i, one in enumerate(gammas):
        q[i] = _policy_iteration(dynamics, np.full(len(tasks), one), None)[0]
    if np.ndim(gamma) == 0:
        q = q[0]
    return (q, q.max(-1)) if return_values else q


REFERENCE_GAMMAS = (0.0, 0.5, 0.93, 0.994)
"""The discounts of the reference policies opt0 to opt3."""


@overload
def policy_value(
    tasks: TaskBatch, policy: Policy, horizon: float | None = None, gamma: float = 1.0
) -> Floats: ...
@overload
def policy_value(tasks: Task, policy: Policy, horizon: float | None = None, gamma: float = 1.0) -> float: ...
def policy_value(
    tasks: TaskBatch | Task,
    policy: Policy,
    horizon: float | None = None,
    gamma: float = 1.0,
) -> Floats | float:
    """Return the exact expected return Σ_t γ^t r_t of an episode: (N,), or a number for a single task.

    `policy`: action probabilities (..., S, A) or integer actions (..., S) over inner states, for all tasks or
    with a leading axis of N; "uniform"; or "optimal", the best that any policy, also one that looks at the
    clock, can get within the horizon. `horizon` is the number of steps, each task's own `max_steps` if None;
    `math.inf` for episodes that only a terminal state ends.

    Raises `OmniRLError` for a policy of another shape, a negative horizon, or `math.inf` with a gamma of 1
    where the policy can go on for ever.
    """
    if isinstance(tasks, Task):
        return float(policy_value(TaskBatch.stack([tasks]), policy, horizon, gamma)[0])
    if not 0 <= gamma <= 1:
        raise OmniRLError(f"gamma is {gamma}; it must be between 0 and 1")
    if horizon is not None and not (horizon >= 0 and (horizon == math.inf or horizon == int(horizon))):
        raise OmniRLError(f"horizon is {horizon}; it must be a whole number of steps, None or math.inf")
    dynamics = Dynamics.of(tasks)
    if horizon == math.inf:
        values = _endless_values(tasks, dynamics, policy, gamma)
    else:
        steps = tasks.max_steps if horizon is None else np.full(len(tasks), int(horizon))
        values = _values_within(dynamics, policy, steps, gamma)
    return (values * tasks.start_probs).sum(-1)


def _values_within(dynamics: Dynamics, policy: Policy, steps: Ints, gamma: float) -> Floats:
    """Backward induction; a task with fewer steps than others stops earlier."""
    _, states, actions, _ = dynamics.transition.shape
    values = np.zeros(dynamics.goes_on.shape)
    if isinstance(policy, str) and policy == "optimal":
        for done in range(int(steps.max(initial=0))):
            best = dynamics.action_values(values, gamma).max(-1)
            values = np.where((done < steps)[:, None], best, values)
        return values
    weights = _probabilities(policy, states, actions)
    chain, reward = _chain(dynamics, weights)
    chain *= gamma * dynamics.goes_on[:, None, :]
    for done in range(int(steps.max(initial=0))):
        after = reward + np.matmul(chain, values[..., None])[..., 0]
        values = np.where((done < steps)[:, None], after, values)
    return values


def _endless_values(tasks: TaskBatch, dynamics: Dynamics, policy: Policy, gamma: float) -> Floats:
    if isinstance(policy, str) and policy == "optimal":
        return solve(tasks, gamma, return_values=True)[1]
    _, states, actions, _ = dynamics.transition.shape
    chain, reward = _chain(dynamics, _probabilities(policy, states, actions))
    if gamma < 1:
        return dynamics.policy_values(chain, reward, gamma)
    # Only states that an episode can meet need to end; the others would make the system singular.
    reaches = _reach((chain > 0) & (dynamics.goes_on[:, None, :] > 0))
    met = np.matmul(tasks.start_probs[:, None, :] > 0, reaches)[:, 0]
    leaves = (chain * (1 - dynamics.goes_on)[:, None, :]).sum(-1) > 0
    ends = np.matmul(reaches, leaves[..., None])[..., 0]
    endless = met & ~ends
    if endless.any():
        task, state = np.argwhere(endless)[0]
        raise OmniRLError(
            f"with gamma 1 and no horizon there is no return: in task {task} the policy never ends the "
            f"episode once it is in state {state}; give a horizon or a gamma below 1"
        )
    chain *= met[..., None]
    return dynamics.policy_values(chain, reward * met, 1.0)


def _probabilities(policy: Policy, states: int, actions: int) -> Floats:
    if isinstance(policy, str):
        if policy != "uniform":
            raise OmniRLError(f"the policy {policy!r} is not known; needed: 'uniform', 'optimal' or an array")
        return np.full((states, actions), 1 / actions)
    return as_policy(policy, states, actions)


def _chain(dynamics: Dynamics, weights: Floats) -> tuple[Floats, Floats]:
    """Return P_π (N, S, S) and r_π (N, S) of action probabilities (..., S, A)."""
    weights = np.broadcast_to(weights, dynamics.reward.shape)
    chain = np.matmul(weights[:, :, None, :], dynamics.transition)[:, :, 0]
    return chain, (weights * dynamics.reward).sum(-1)


def _reach(step: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return (N, S, S) bool: from one state to another in any number of steps, none included."""
    reach = step | np.eye(step.shape[-1], dtype=bool)
    for _ in range(max(1, (step.shape[-1] - 1).bit_length())):
        reach = np.matmul(reach.astype(np.float32), reach.astype(np.float32)) > 0
    return reach


def _refuse_endless(tasks: TaskBatch) -> None:
    """Refuse a task in which some policy never ends the episode."""
    stays = ~tasks.terminal & (np.arange(tasks.terminal.shape[1]) < tasks.num_states[:, None])
    while True:  # drop the states all of whose actions may lead out, until none is left to drop
        inside = np.matmul(tasks.transition, stays[:, None, :, None].astype(np.float64))[..., 0]
        kept = stays & (inside > 1 - 1e-9).any(-1)
        if (kept == stays).all():
            break
        stays = kept
    if stays.any():
        task, state = np.argwhere(stays)[0]
        raise OmniRLError(
            f"gamma = 1 has no values in task {task}: some policy never ends the episode from state {state}; "
            "use a gamma below 1, or policy_value with a horizon"
        )
