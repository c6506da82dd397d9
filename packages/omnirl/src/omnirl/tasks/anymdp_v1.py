"""The worlds of the paper's first version (end of section 2.1): points in a box, actions that move in space.

A state is a point in 2 to 7 dimensions, in a box stretched along the first; an action aims at a point a few
neighbours' distances away and lands on one of the nearest states. Goals lie near the far end, starts near
the other, pitfalls anywhere. Of several draws one is taken whose states reach each other, but not too soon,
and whose values tell foresight from greed and from chance. A state's inner index is its rank along the first
axis.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from omnirl.tasks.task import Floats

_DRAWS = 50
"""Of transitions, then of rewards; the best of them is taken where none is good enough."""

_LEAST_MIXING = 0.55
_EPS = 1e-6
_TRIES = 10_000  # of goals and starts in one box
_SWEEPS = 5
_GAMMAS = np.array([0.99, 0.70, 0.99])  # far-sighted, short-sighted, and the random policy


@dataclass(frozen=True)
class Box:
    """Transitions (S, A, S) before any state ends the episode, and what the states are, each (S,) bool."""

    place: Floats  # (S, dimensions)
    transition: Floats
    goal: NDArray[np.bool_]
    pit: NDArray[np.bool_]
    start: NDArray[np.bool_]

    @property
    def ends(self) -> NDArray[np.bool_]:
        """Which states end the episode."""
        return self.goal | self.pit

    def endless(self) -> Floats:
        """P with the start distribution in the rows of states that end the episode."""
        again = self.start / self.start.sum()
        found: Floats = np.where(self.ends[:, None, None], again, self.transition)
        return found


def v1_tables(rng: np.random.Generator, states: int, actions: int, candidates: int) -> dict[str, Any] | None:
    """Return the tables of a task, after at most so many rounds; None if all their rewards were flat.

    A round takes the first of 50 transitions that mix late enough, or the latest, and with these the first of
    50 rewards whose quality is not negative, or the best: seldom more than one round is needed.
    """
    for _ in range(candidates):
        box = _first_good_box(rng, states, actions)
        drawn = [draw_rewards(rng, box) for _ in range(_DRAWS)]
        found = quality(box, np.stack([reward for reward, _ in drawn]))
        if found.max() > -np.inf:
            reward, noise = drawn[int((found >= 0).argmax() if (found >= 0).any() else found.argmax())]
            rows = ~box.ends[:, None, None]
            return {
                "transition": box.transition * rows,
                "reward": reward * rows,
                "reward_noise": noise * rows,
                "start_probs": box.start / box.start.sum(),
                "terminal": box.ends,
                "goal_terminates": box.goal[-1],
            }
    return None


def _first_good_box(rng: np.random.Generator, states: int, actions: int) -> Box:
    best: tuple[float, Box] | None = None
    tried = 0
    while best is None or (best[0] < _LEAST_MIXING and tried < _DRAWS):
        box, tried = draw_box(rng, states, actions), tried + 1
        if box is not None:
            late = mixing(box.endless().mean(1))
            if best is None or late > best[0]:
                best = late, box
    return best[1]


def draw_box(rng: np.random.Generator, states: int, actions: int) -> Box | None:
    """Draw transitions, goals, pitfalls and starts; None where an action is too far from every state."""
    dimensions, length = int(rng.integers(2, 8)), int(rng.integers(2, states))
    place = rng.random((states, dimensions))
    place = place[place[:, 0].argsort()]
    progress = place[:, 0].copy()
    place[:, 0] *= length
    drawn = _ends_and_starts(rng, progress)
    if drawn is None:
        return None
    width = int(rng.integers(2, min(9, states + 1)))
    distance = np.linalg.norm(place[:, None] - place, axis=-1)
    near = np.sort(distance, axis=1)[:, 1:width].mean()
    move = rng.standard_normal((states, actions, dimensions))
    move *= near * (1 + 2 * rng.random((states, actions, 1))) / np.linalg.norm(move, axis=-1, keepdims=True)
    away = np.linalg.norm((place[:, None] + move)[:, :, None] - place, axis=-1)
    nearest = away.argsort(-1)[..., :width]
    kept = rng.random((states, actions, width)) < 0.5
    none = ~kept.any(-1)
    kept[none, rng.integers(width, size=none.sum())] = True
    with np.errstate(over="ignore", under="ignore", divide="ignore"):
        weight = np.exp(-((away / (near * rng.standard_exponential())) ** 2))
    transition = np.zeros((states, actions, states))
    np.put_along_axis(transition, nearest, np.take_along_axis(weight, nearest, -1) * kept, -1)
    total = transition.sum(-1, keepdims=True)
    if not (total > 0).all():
        return None
    goal, pit, start = drawn
    return Box(place, transition / total, goal, pit, start)


def _ends_and_starts(rng: np.random.Generator, progress: Floats) -> tuple[NDArray[np.bool_], ...] | None:
    """Goals (in 70 % of the tasks), pitfalls and starts, by the places in [0, 1) along the first axis."""
    states = len(progress)
    wants_goal = rng.random() <= 0.7
    low, high = progress.min() + _EPS, progress.max() - _EPS
    for _ in range(_TRIES):
        goal = np.zeros(states, bool)
        if wants_goal:
            beyond = np.clip(progress - rng.uniform(min(0.6, high - 0.2), high), 0, 1)
            goal = rng.random(states) < _about(rng, beyond)
        before = _about(rng, np.clip(rng.uniform(low, max(0.4, low + 0.2)) - progress, 0, 1))
        start = (rng.random(states) < (before + _EPS if before.sum() < 1 else before)) & ~goal
        pit = (rng.random(states) < 0.2 * rng.random()) & ~goal & ~start
        if start.any() and (goal.any() or not wants_goal):
            return goal, pit, start
    return None


def _about(rng: np.random.Generator, weight: Floats) -> Floats:
    """Probabilities like `weight`, for one state or a few of a hundred on average."""
    scale = max(1.0, 0.05 * rng.random() * len(weight)) / (weight.sum() + _EPS)
    found: Floats = np.clip(weight * scale, 0, 1)
    return found


def draw_rewards(rng: np.random.Generator, box: Box) -> tuple[Floats, Floats]:
    """Means and standard deviations (S, A, S): of arriving at goals and pitfalls, and small ones on the way.

    The released code means to add a third kind, of single states, and never does: a slip in how it draws
    which kinds there are. The kinds come with the probabilities that it has.
    """
    states, actions = box.transition.shape[:2]
    scale = rng.uniform(0.01, 0.10)
    large = scale * rng.uniform(10, 100)
    arrived = -rng.random(states) * large * box.pit
    arrived += np.maximum(large * rng.standard_exponential(states), large) * box.goal
    noise = large * rng.random() * rng.random(states) * (np.abs(arrived) > _EPS)
    reward = np.broadcast_to(arrived, box.transition.shape).copy()
    kinds = int(rng.integers(8))
    if kinds in (6, 7):  # of the action
        reward += 0.01 * rng.standard_exponential() * scale * (rng.random((1, actions, 1)) - 0.5)
    if kinds in (3, 5, 7):  # of the way along a random direction
        direction = rng.random(box.place.shape[1])
        height = box.place @ (direction / np.linalg.norm(direction)) * (rng.random() * scale)
        reward += height - height[:, None, None]
    if reward.max() <= 1.01 and reward.min() >= -1.01:
        reward = reward.clip(-1, 1)
    return reward, np.broadcast_to(noise, reward.shape).copy()


def mixing(chain: Floats) -> float:
    """How late the last states of `chain` (S, S) reach each other, in ⌊log2 S⌋ doublings of its steps.

    0 where some never do within these, -1 where all do with the first.
    """
    states = len(chain)
    doublings, late = int(np.log2(states)), -1.0
    for done in range(doublings):
        chain = chain @ chain
        apart = int((chain < _EPS).sum())
        if apart:
            late = max(late, done / doublings + apart / states**2)
    return 0.0 if (chain < _EPS).any() else late


def quality(box: Box, rewards: Floats) -> Floats:
    """(K,): how much, under `rewards` (K, S, A, S), foresight differs from greed and from chance.

    log(1 - ρ(V_.99, V_.70)) + log(1 - ρ(V_.99, V_random)) + 1.5 tanh(gain / 1.5) + 1.5 tanh(spread / 1.5),
    ρ Spearman's; mean gain and spread in units of the random policy's values; -inf where the values are flat.
    """
    found = np.full(len(rewards), -np.inf)
    for k, (far, short, random) in enumerate(_values(box, rewards).swapaxes(0, 1)):
        unit = np.sqrt(np.mean(random**2))
        spread = 1.5 * np.tanh(far.std() / unit / 1.5) if unit > 0 else 0.0
        if spread >= 0.1:
            gain = 1.5 * np.tanh((far - random).mean() / unit / 1.5)
            distances = [np.log(1 + 1e-10 - _spearman(far, other)) for other in (random, short)]
            found[k] = sum(distances) + gain + spread
    return found


def _values(box: Box, rewards: Floats) -> Floats:
    """max_a Q (3, K, S) after five sweeps, state by state in place, as the released code has them."""
    transition = box.endless()
    expected = (transition * rewards * ~box.ends[:, None, None]).sum(-1)
    count, states, actions = expected.shape
    q, values = np.zeros((3, count, states, actions)), np.zeros((3, count, states))
    going = np.ones((3, count), bool)
    for _ in range(_SWEEPS):
        old = q.copy()
        for s in range(states):
            for a in range(actions):
                new = expected[:, s, a] + _GAMMAS[:, None] * (values @ transition[s, a])
                q[..., s, a] = np.where(going, new, q[..., s, a])
                values[:2, :, s], values[2, :, s] = q[:2, :, s].max(-1), q[2, :, s].mean(-1)
        going &= np.sqrt(np.mean((q - old) ** 2, axis=(2, 3))) > 1e-4
    found: Floats = q.max(-1)
    return found


def _spearman(one: Floats, other: Floats) -> float:
    """The correlation of ranks, equal values sharing theirs; 1 where all are equal."""
    a, b = _ranks(one), _ranks(other)
    if not (a.std() > 0 and b.std() > 0):
        return 1.0
    return float(np.corrcoef(a, b)[0, 1])


def _ranks(values: Floats) -> Floats:
    _, place, count = np.unique(values, return_inverse=True, return_counts=True)
    found: Floats = (count.cumsum() - (count - 1) / 2)[place]
    return found
