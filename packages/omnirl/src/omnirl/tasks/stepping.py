"""One step of many tabular worlds at once: a pure function of states, actions and random numbers.

The single environment, the vector environment, the synthesis of data and the evaluation all step through
`step`, so they follow one law. The next state is drawn by Walker's alias method: two look-ups whatever the
number of states, where a search in a cumulative row reads the whole row.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from omnirl.tasks.batch import TaskBatch

# Entries whose alias tables are made together: their working arrays then stay in the processor's cache.
_ENTRIES_AT_ONCE = 2**16
# A share this close to 1 counts as full: rounding must never leave a state of probability 0 to be drawn.
_FULL = 1.0 - 1e-9


class Outcome(NamedTuple):
    """What a step gives, one entry an environment."""

    state: NDArray[np.int64]
    """(E,) the inner state arrived in."""
    reward: NDArray[np.float64]
    """(E,) the reward; 0 where the step was a restart."""
    terminated: NDArray[np.bool_]
    """(E,) whether the state arrived in ends the episode; False where the step was a restart."""


@dataclass(frozen=True, eq=False)
class StepTables:
    """What `step` looks up for N tasks of S states (the widest) and A actions.

    A row of the alias tables is a distribution over the S states: first those of all (task, state, action),
    then one a task for its start. Bucket j of a row is chosen with probability 1/S; it gives state j with
    probability `accept[row, j]`, else state `other[row, j]`. Rewards are the batch's own arrays, not copies.
    """

    accept: NDArray[np.float32]
    """(N*S*A + N, S) probabilities."""
    other: NDArray[np.int16]
    """(N*S*A + N, S) states."""
    reward: NDArray[np.float64]
    """(N, S, A, S) mean reward."""
    reward_noise: NDArray[np.float64] | None
    """(N, S, A, S) standard deviation of the reward; None where no task has any."""
    ends: NDArray[np.bool_]
    """(N, S) whether arriving in the state ends the episode."""
    tasks: NDArray[np.int64]
    """(N,) 0 to N-1."""

    @classmethod
    def build(cls, batch: TaskBatch) -> StepTables:
        """The tables of all tasks in `batch`; some 0.05 µs an entry of `batch.transition`."""
        count, states = batch.start_probs.shape
        rows = np.concatenate([batch.transition.reshape(-1, states), batch.start_probs])
        accept, other = alias_tables(rows)
        return cls(
            accept=accept,
            other=other,
            reward=batch.reward,
            reward_noise=batch.reward_noise if batch.reward_noise.any() else None,
            ends=batch.terminal,
            tasks=np.arange(count),
        )

    @property
    def start_rows(self) -> int:
        """The first of the rows of the start distributions: N*S*A."""
        return len(self.accept) - len(self.tasks)


def step(
    tables: StepTables,
    state: NDArray[np.int64],
    action: NDArray[np.int64],
    u: NDArray[np.floating],
    z: NDArray[np.floating] | None = None,
    *,
    task: NDArray[np.int64] | None = None,
    restart: NDArray[np.bool_] | None = None,
) -> Outcome:
    """One step of E environments: s' ~ P(.|s, a), r ~ Normal(mean(s, a, s'), noise(s, a, s')) (2.1, step 7).

    Args:
        tables: of N tasks.
        state: (E,) int64 inner states, none of them terminal unless restarted.
        action: (E,) int64 in 0..A-1; any valid number where restarted. Ranges are the caller's to check.
        u: (E,) float32 or float64, uniform on [0, 1): the choice of the next state.
        z: (E,) standard normal: the noise of the reward; None gives the mean reward.
        task: (E,) int64, the task of each environment; None where environment i plays task i.
        restart: (E,) bool, environments that begin an episode instead: the state is drawn from the start
            distribution, the reward is 0. This is Gymnasium's NEXT_STEP autoreset.

    The time limit is the caller's: an episode is truncated at its first step count >= max_steps.
    """
    task = tables.tasks if task is None else task
    _, states, actions, _ = tables.reward.shape
    row = task * states
    row += state
    row *= actions
    row += action
    chosen = row if restart is None else np.where(restart, tables.start_rows + task, row)
    arrived = draw(tables, chosen, u)
    row *= states
    row += arrived
    reward = tables.reward.reshape(-1).take(row)
    if z is not None and tables.reward_noise is not None:
        reward += tables.reward_noise.reshape(-1).take(row) * z
    terminated = tables.ends.reshape(-1).take(task * states + arrived)
    if restart is not None:
        reward[restart] = 0.0
        terminated &= ~restart
    return Outcome(arrived, reward, terminated)


def start(
    tables: StepTables, u: NDArray[np.floating], *, task: NDArray[np.int64] | None = None
) -> NDArray[np.int64]:
    """First inner states (E,) int64 of episodes of `task` (E,), by one uniform `u` (E,) each; see `step`."""
    return draw(tables, tables.start_rows + (tables.tasks if task is None else task), u)


def draw(tables: StepTables, row: NDArray[np.int64], u: NDArray[np.floating]) -> NDArray[np.int64]:
    """States (E,) int64 from the rows `row` (E,) of the alias tables, by one uniform `u` (E,) each."""
    states = tables.accept.shape[1]
    share = u * states
    # u < 1 gives a bucket < S also after rounding, in float32 as in float64.
    bucket = share.astype(np.int64)
    share -= bucket
    at = row * states
    at += bucket
    other = tables.other.reshape(-1).take(at)
    return np.where(share < tables.accept.reshape(-1).take(at), bucket, other)


def alias_tables(probabilities: NDArray[np.float64]) -> tuple[NDArray[np.float32], NDArray[np.int16]]:
    """The alias tables `accept` (R, S) float32 and `other` (R, S) int16 of R distributions over S states.

    A state of probability 0 is never drawn, whatever the rounding. A row of zeros (a terminal state has no
    successor) becomes the certain state 0: nothing may step from there.
    """
    rows, states = probabilities.shape
    if states > np.iinfo(np.int16).max:
        raise ValueError(f"{states} states are too many: a step table holds at most {np.iinfo(np.int16).max}")
    accept = np.empty((rows, states), np.float32)
    other = np.empty((rows, states), np.int16)
    together = max(1, _ENTRIES_AT_ONCE // states)
    for first in range(0, rows, together):
        part = slice(first, first + together)
        accept[part], other[part] = _alias_part(probabilities[part])
    return accept, other


def _alias_part(probabilities: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Vose's construction of all rows side by side: each turn fills one bucket of every row.

    Scale the probabilities to a mean of 1; `lo` walks over the small ones, `hi` over the large ones, `left`
    is what the large one still has. A large one that has fallen below 1 becomes a small one, filled by the
    next. What is left always has the mean 1, so a large one is there as long as it is needed.
    """
    rows, states = probabilities.shape
    total = probabilities.sum(1)
    share = probabilities * (states / np.where(total > 0, total, 1.0))[:, None]
    share[total == 0, 0] = states
    base = np.arange(rows) * states
    order = (np.argsort(share >= _FULL, axis=1, kind="stable") + base[:, None]).reshape(-1)
    share = share.reshape(-1)
    accept, other = np.ones(rows * states), np.arange(rows * states)
    lo, hi = base.copy(), base + states - 1
    large = order.take(hi)
    left = share.take(large)
    for _ in range(states - 1):
        spent = left < _FULL
        small = order.take(lo)
        filled = np.where(spent, large, small)
        kept = np.where(spent, left, share.take(small))
        hi -= spent
        lo += ~spent
        large = order.take(hi)
        left = np.where(spent, share.take(large), left) - (1.0 - kept)
        accept[filled] = kept
        other[filled] = large
    return accept.clip(0, 1).reshape(rows, states), (other.reshape(rows, states) - base[:, None])
