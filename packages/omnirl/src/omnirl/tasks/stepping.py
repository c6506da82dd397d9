"""One step of many tabular worlds at once: a pure function of states, actions and random numbers.

The vector environment, the synthesis of data and the evaluation all step through `step`, the single
environment through its twin `step_one`: they follow one law. The next state is drawn by Walker's alias
method: two look-ups whatever the number of states, where a search in a cumulative row reads the whole row. A
row keeps its possible successors only, with their rewards beside them: what a step reads is three short
records, and tables stay in the cache.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from omnirl.errors import OmniRLError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from omnirl.tasks.batch import TaskBatch

# A float32 uniform goes in steps of 2^-24: what is far rarer, it would choose far too often.
_POSSIBLE = 2.0**-32
# Successors whose alias tables are made together: their working arrays then stay in the processor's cache.
_ENTRIES_AT_ONCE = 2**16
# A share this close to 1 counts as full, so that rounding leaves nothing to a successor that is full.
_FULL = 1.0 - 1e-9

_ROW = np.dtype([("first", np.int32), ("count", np.float32)])
_BUCKET = np.dtype([("accept", np.float32), ("other", np.int32)])
_ARRIVAL = np.dtype(
    [("reward", np.float64), ("noise", np.float32), ("state", np.int16), ("ends", np.bool_), ("", np.bool_)]
)


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

    A row is a distribution over successors: first those of all (task, state, action), then one a task for its
    start. It has `count` buckets from `first` on, and as many arrivals. A bucket is chosen with probability
    1 / count; it gives its own arrival with the probability `accept`, else arrival number `other`.
    """

    num_states: int
    num_actions: int
    tasks: NDArray[np.int64]
    """(N,) 0 to N-1."""
    rows: NDArray[Any]
    """(N*S*A + N,) records of `first` int32 and `count` float32."""
    buckets: NDArray[Any]
    """(K,) records of `accept` float32 and `other` int32."""
    arrivals: NDArray[Any]
    """(K,) records of `reward` float64 (the mean), `noise` float32, `state` int16 and `ends` bool."""
    noisy: bool
    """Whether any reward has noise."""

    @classmethod
    def build(cls, batch: TaskBatch) -> StepTables:
        """The tables of all tasks in `batch`. Successors of probability below 2^-32 are left out.

        A step from a terminal state, which has no successors, stays there, ended and without reward.
        Raises `OmniRLError` for tables of more than 2^31 successors and tasks of more than 2^15 states.
        """
        count, states, actions, _ = batch.transition.shape
        if states > 2**15:
            raise OmniRLError(f"tasks of {states} states cannot be stepped: the most is {2**15}")
        moves, starts = _moves(batch), _starts(batch)
        row, probability, arrivals = (np.concatenate(pair) for pair in zip(moves, starts, strict=True))
        if row.size >= 2**31:
            raise OmniRLError(f"{count} tasks have {row.size} successors, more than 2^31: split the batch")
        rows, buckets = alias_tables(row, probability)
        return cls(
            num_states=states,
            num_actions=actions,
            tasks=np.arange(count),
            rows=rows,
            buckets=buckets,
            arrivals=arrivals,
            noisy=bool(batch.reward_noise.any()),
        )

    @property
    def start_rows(self) -> int:
        """The first of the rows of the start distributions: N*S*A."""
        return len(self.rows) - len(self.tasks)


Successors = tuple["NDArray[np.int64]", "NDArray[np.float64]", "NDArray[Any]"]
"""Rows (K,) in order, probabilities (K,) and arrivals (K,)."""


def _moves(batch: TaskBatch) -> Successors:
    """The possible successors of all (task, state, action); a state without any is its own."""
    _, states, actions, _ = batch.transition.shape
    possible = batch.transition.reshape(-1, states) >= _POSSIBLE
    stuck = np.flatnonzero(~possible.any(1))
    possible[stuck, stuck // actions % states] = True
    at = np.flatnonzero(possible)
    probability = batch.transition.reshape(-1)[at]
    moving = probability > 0
    row, state = at // states, at % states
    arrivals = np.zeros(at.size, _ARRIVAL)
    arrivals["state"] = state
    arrivals["reward"] = batch.reward.reshape(-1)[at] * moving
    arrivals["noise"] = batch.reward_noise.reshape(-1)[at] * moving
    arrivals["ends"] = batch.terminal[row // (states * actions), state]
    return row, np.where(moving, probability, 1.0), arrivals


def _starts(batch: TaskBatch) -> Successors:
    """The first states of all tasks: arrivals without a reward, which do not end."""
    count, states, actions, _ = batch.transition.shape
    task, state = np.nonzero(batch.start_probs >= _POSSIBLE)
    arrivals = np.zeros(state.size, _ARRIVAL)
    arrivals["state"] = state
    return count * states * actions + task, batch.start_probs[task, state], arrivals


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
    row = task * tables.num_states
    row += state
    row *= tables.num_actions
    row += action
    if restart is not None:
        row = np.where(restart, tables.start_rows + task, row)
    found = _draw(tables, row, u)
    if z is None or not tables.noisy:
        reward = found["reward"].copy()
    else:
        reward = found["reward"] + found["noise"] * z
    return Outcome(found["state"].astype(np.int64), reward, found["ends"].copy())


def start(
    tables: StepTables, u: NDArray[np.floating], *, task: NDArray[np.int64] | None = None
) -> NDArray[np.int64]:
    """First inner states (E,) int64 of episodes of `task` (E,), by one uniform `u` (E,) each; see `step`."""
    row = tables.start_rows + (tables.tasks if task is None else task)
    return _draw(tables, row, u)["state"].astype(np.int64)


def step_one(
    tables: StepTables, state: int, action: int, u: float, z: float, *, task: int = 0
) -> tuple[int, float, bool]:
    """`step` of one environment, the same to the last bit with float64 numbers, without numpy's cost a call.

    Returns the state arrived in, the reward and whether the episode ended.
    """
    row = (task * tables.num_states + state) * tables.num_actions + action
    reward, noise, arrived, ends, _ = _draw_one(tables, row, u)
    return arrived, reward + noise * z, ends


def start_one(tables: StepTables, u: float, *, task: int = 0) -> int:
    """`start` of one environment."""
    state: int = _draw_one(tables, tables.start_rows + task, u)[2]
    return state


def _draw_one(tables: StepTables, row: int, u: float) -> tuple[float, float, int, bool, bool]:
    first, count = tables.rows[row].item()
    bucket = int(u * count)
    accept, other = tables.buckets[first + bucket].item()
    chosen = first + bucket if u * count - bucket < accept else other
    found: tuple[float, float, int, bool, bool] = tables.arrivals[chosen].item()
    return found


def _draw(tables: StepTables, row: NDArray[np.int64], u: NDArray[np.floating]) -> NDArray[Any]:
    """Arrivals (E,) drawn from the rows `row` (E,), by one uniform `u` (E,) each."""
    chosen = tables.rows.take(row)
    share = u * chosen["count"]
    # u < 1 gives a bucket below the count also after rounding, in float32 as in float64.
    bucket = np.floor(share)
    share -= bucket
    at = chosen["first"] + bucket.astype(np.int32)
    found = tables.buckets.take(at)
    return tables.arrivals.take(np.where(share < found["accept"], at, found["other"]))


def alias_tables(
    row: NDArray[np.int64], probability: NDArray[np.float64]
) -> tuple[NDArray[Any], NDArray[Any]]:
    """Walker's alias tables, `rows` and `buckets` of `StepTables`, of sparse distributions.

    Entry k has the share `probability[k]` in the distribution `row[k]`; `row` (K,) is sorted and leaves no
    number out. Shares of a row need not add up to 1. Rows of the same count are made side by side.
    """
    count = np.bincount(row)
    first = np.concatenate([[0], np.cumsum(count)[:-1]])
    buckets = np.empty(row.size, _BUCKET)
    for width in np.unique(count):
        those = np.flatnonzero(count == width)
        together = max(1, _ENTRIES_AT_ONCE // width)
        for part in range(0, those.size, together):
            at = first[those[part : part + together], None] + np.arange(width)
            accept, other = _alias(probability[at])
            buckets["accept"][at] = accept
            buckets["other"][at] = np.take_along_axis(at, other, 1)
    rows = np.empty(count.size, _ROW)
    rows["first"], rows["count"] = first, count
    return rows, buckets


def _alias(probability: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Vose's construction of all rows (R, C) side by side: each turn fills one bucket of every row.

    Scale the probabilities to a mean of 1; `lo` walks over the small ones, `hi` over the large ones, `left`
    is what the large one still has. A large one that has fallen below 1 becomes a small one, filled by the
    next. What is left always has the mean 1, so a large one is there as long as it is needed.
    """
    rows, width = probability.shape
    share = probability * (width / probability.sum(1, keepdims=True))
    base = np.arange(rows) * width
    order = (np.argsort(share >= _FULL, axis=1, kind="stable") + base[:, None]).reshape(-1)
    share = share.reshape(-1)
    accept, other = np.ones(rows * width), np.arange(rows * width)
    lo, hi = base.copy(), base + width - 1
    large = order.take(hi)
    left = share.take(large)
    for _ in range(width - 1):
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
    return accept.clip(0, 1).reshape(rows, width), other.reshape(rows, width) - base[:, None]
