"""Sampled tasks: task i of a seed is always the same, whatever is sampled with it and wherever.

Every task has a random stream of its own, `SeedSequence(seed, spawn_key=(i,))`. The size of the task, its
observation ids and its limit of steps come first; then one block of numbers a candidate until one is
accepted.
"""

from __future__ import annotations

import math
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from itertools import pairwise
from multiprocessing import get_context
from typing import Any

import numpy as np

from omnirl.errors import OmniRLError, SamplingError
from omnirl.tasks.acceptance import accept
from omnirl.tasks.anymdp import Candidates, block_sizes, build, name_draws
from omnirl.tasks.anymdp_v1 import v1_tables
from omnirl.tasks.batch import TaskBatch
from omnirl.tasks.simple_families import bandit_tables, garnet_tables
from omnirl.tasks.task import Floats, Ints

FAMILIES = ("anymdp", "anymdp-v1", "garnet", "bandit")

_ENTRIES = 2**18  # of (s, a, s') in a batch of candidates: they stay in the cache from one step to the next
_MOST_CANDIDATES = 1024
_MOST_AHEAD = 64  # candidates of one task; of 8 states about every 45th is accepted, of 16 every fifth


def sample_tasks(
    num_tasks: int,
    num_states: int = 16,
    num_actions: int = 5,
    *,
    min_states: int | None = None,
    family: str = "anymdp",
    seed: int,
    strict_paper: bool = False,
    batch_size: int | None = None,
    first: int = 0,
    workers: int = 1,
    branching: int = 2,
    max_candidates: int = 10_000,
) -> TaskBatch:
    """Return tasks `first` to `first + num_tasks - 1` of this seed (section 2.1), padded to `num_states`.

    A task depends on its index, the family, the sizes, the seed and `strict_paper`; not on `batch_size`
    (candidates that are worked on at a time) nor on `workers` (processes). `min_states`: the number of inner
    states is uniform from there to `num_states`. "anymdp-v1" has the worlds of the paper's first version.
    "bandit" always has one state; `branching` is Garnet's number of successors. `strict_paper` adds the
    bounds on p̂ and the ergodicity test that the paper has and its code has not. numpy's global random state
    is not touched.

    Raises `OmniRLError` for impossible sizes, `SamplingError` if a task is not found in `max_candidates`
    candidates.
    """
    law = Law(family, num_states, num_actions, min_states, int(seed), strict_paper, branching, max_candidates)
    if num_tasks < 1 or first < 0 or workers < 1 or (batch_size is not None and batch_size < 1):
        raise OmniRLError(
            f"num_tasks {num_tasks}, batch_size {batch_size} and workers {workers} must be at least 1, "
            f"first ({first}) at least 0"
        )
    cuts = np.linspace(first, first + num_tasks, min(workers, num_tasks) + 1).astype(int).tolist()
    parts = [(law, start, stop, batch_size) for start, stop in pairwise(cuts)]
    if len(parts) == 1:
        return _sample(*parts[0])
    with ProcessPoolExecutor(len(parts), mp_context=get_context("spawn")) as pool:
        return TaskBatch.concatenate(list(pool.map(_sample, *zip(*parts, strict=True))))


@dataclass(frozen=True)
class Law:
    """What a task depends on besides its index."""

    family: str
    states: int
    actions: int
    min_states: int | None
    seed: int
    strict: bool
    branching: int
    max_candidates: int

    def __post_init__(self) -> None:
        if self.family not in FAMILIES:
            raise OmniRLError(f"the family {self.family!r} is not known; needed: {', '.join(FAMILIES)}")
        if self.family == "bandit":
            object.__setattr__(self, "states", 1)
            object.__setattr__(self, "min_states", None)
        elif self.family == "anymdp" and self.states == 1:
            object.__setattr__(self, "family", "bandit")
        elif self.states < 8:
            one = "1 (bandit) or " if self.family == "anymdp" else ""
            name = {"anymdp": "AnyMDP", "anymdp-v1": "AnyMDP (v1)", "garnet": "Garnet"}[self.family]
            raise OmniRLError(f"{name} needs {one}at least 8 states; num_states is {self.states}")
        if self.actions < 2:
            raise OmniRLError(f"num_actions is {self.actions}; it must be at least 2")
        if self.min_states is not None and not 8 <= self.min_states <= self.states:
            raise OmniRLError(
                f"min_states is {self.min_states}; it must be from 8 to num_states {self.states}"
            )
        if self.seed < 0:
            raise OmniRLError(f"seed is {self.seed}; it must not be negative")
        if self.max_candidates < 1:
            raise OmniRLError(f"max_candidates is {self.max_candidates}; it must be at least 1")
        if self.family == "garnet" and not 1 <= self.branching <= (self.min_states or self.states):
            raise OmniRLError(f"branching is {self.branching}; it must be from 1 to the number of states")
        if self.strict and self.family != "anymdp":
            raise OmniRLError(f"strict_paper is a matter of AnyMDP; the family is {self.family}")


@dataclass
class _Search:
    """A task on its way: its stream, what was drawn before its candidates, and how many it has had."""

    index: int
    rng: np.random.Generator
    num_states: int
    state_mapping: Ints
    max_steps: float
    candidates: int = 0

    @classmethod
    def start(cls, law: Law, index: int) -> _Search:
        rng = np.random.Generator(np.random.PCG64(np.random.SeedSequence(law.seed, spawn_key=(index,))))
        if law.states == 1:
            return cls(index, rng, 1, np.zeros(1, np.int64), 1.0)
        num_states = (
            law.states if law.min_states is None else int(rng.integers(law.min_states, law.states + 1))
        )
        if law.family == "anymdp-v1":
            max_steps = float(max(int(4 * law.states * rng.standard_exponential()), 4 * law.states))
            return cls(index, rng, num_states, rng.permutation(law.states)[:num_states], max_steps)
        lowest = max(4 * law.states, 100)
        highest = max(min(8 * law.states, 500), lowest + 1)
        max_steps = rng.uniform(lowest, highest)
        return cls(index, rng, num_states, rng.permutation(law.states)[:num_states], max_steps)


@dataclass
class _Found:
    """The arrays of the tasks from `first` on, filled as they are found."""

    law: Law
    first: int
    count: int
    arrays: dict[str, Any] = field(init=False)

    def __post_init__(self) -> None:
        n, s, a = self.count, self.law.states, self.law.actions
        self.arrays = {name: np.zeros((n, s, a, s)) for name in ("transition", "reward", "reward_noise")}
        self.arrays |= {
            "start_probs": np.zeros((n, s)),
            "terminal": np.zeros((n, s), bool),
            "num_states": np.zeros(n, np.int64),
            "state_mapping": np.full((n, s), -1),
            "max_steps": np.zeros(n, np.int64),
            "goal_terminates": np.zeros(n, bool),
        }

    def put(self, searches: list[_Search], **tables: Any) -> None:
        """Write tables (M, ...) of M tasks; they may be smaller than the padded ones."""
        rows = [search.index - self.first for search in searches]
        for name, table in tables.items():
            self.arrays[name][(rows, *(slice(0, length) for length in table.shape[1:]))] = table
        for row, search in zip(rows, searches, strict=True):
            self.arrays["num_states"][row] = search.num_states
            self.arrays["state_mapping"][row, : search.num_states] = search.state_mapping
            self.arrays["max_steps"][row] = math.ceil(search.max_steps)

    def batch(self) -> TaskBatch:
        return TaskBatch(
            **self.arrays,
            num_observations=self.law.states,
            num_actions=self.law.actions,
            family=self.law.family,
            seed=np.full(self.count, self.law.seed),
        )


def _sample(law: Law, first: int, stop: int, batch_size: int | None) -> TaskBatch:
    found = _Found(law, first, stop - first)
    if law.family == "anymdp":
        _sample_anymdp(law, found, stop, batch_size)
    else:
        for index in range(first, stop):
            search = _Search.start(law, index)
            if law.family == "anymdp-v1":
                tables = _v1_tables(law, search)
            elif law.family == "garnet":
                tables = garnet_tables(search.rng, search.num_states, law.actions, law.branching)
            else:
                tables = bandit_tables(search.rng, law.actions)
            found.put([search], **{name: np.asarray(table)[None] for name, table in tables.items()})
    return found.batch()


def _v1_tables(law: Law, search: _Search) -> dict[str, Any]:
    tables = v1_tables(search.rng, search.num_states, law.actions, law.max_candidates)
    if tables is None:
        raise SamplingError(
            f"task {search.index} of seed {law.seed} has flat values in each of {law.max_candidates} rounds "
            f"of {search.num_states} states and {law.actions} actions; raise max_candidates"
        )
    return tables


def _sample_anymdp(law: Law, found: _Found, stop: int, batch_size: int | None) -> None:
    """Keep a full batch of searches going: one that ends makes room for the next task.

    Towards the end, when fewer tasks are left, each tries several candidates a round and takes the first
    accepted.
    """
    size = batch_size or min(_MOST_CANDIDATES, max(4, _ENTRIES // (law.states**2 * law.actions)))
    going: list[_Search] = []
    coming, tally = found.first, Counter[str]()
    while going or coming < stop:
        fresh = range(coming, min(stop, coming + size - len(going)))
        going += [_Search.start(law, index) for index in fresh]
        coming += len(fresh)
        # strict_paper takes a varying count of numbers, so there a candidate must end before the next begins
        left = law.max_candidates - max(search.candidates for search in going)
        ahead = 1 if law.strict else min(left, _MOST_AHEAD, max(1, size // len(going)))
        tried = [search for search in going for _ in range(ahead)]
        candidates = _candidates(law, tried)
        max_steps = np.array([search.max_steps for search in tried])
        accepted, terminal = accept(candidates, max_steps, law.strict, tally)
        # the first accepted one of each task; a task's candidates stand one after the other
        first = np.flatnonzero(np.diff(accepted // ahead, prepend=-1))
        done = [tried[row] for row in accepted[first]]
        _put(found, done, candidates.part(accepted[first]), terminal[first])
        ended = {search.index for search in done}
        going = [search for search in going if search.index not in ended]
        for search in going:
            search.candidates += ahead
            if search.candidates >= law.max_candidates:
                raise SamplingError(_exhausted(law, search, tally))


def _candidates(law: Law, tried: list[_Search]) -> Candidates:
    n, a = law.states, law.actions
    sizes = block_sizes(n, a)
    blocks = {kind: np.empty((len(tried), size)) for kind, size in sizes.items()}
    uniform, normal, exponential = blocks["uniform"], blocks["normal"], blocks["exponential"]
    for row, search in enumerate(tried):
        search.rng.random(out=uniform[row])
        search.rng.standard_normal(out=normal[row])
        search.rng.standard_exponential(out=exponential[row])

    def redraw(rows: Ints) -> tuple[Floats, Floats, Floats]:
        streams = [tried[row].rng for row in rows]
        uniforms = np.stack([rng.random((2, n)) for rng in streams], axis=1)
        return uniforms[0], uniforms[1], np.stack([rng.standard_normal((n, n)) for rng in streams])

    num_states = np.array([search.num_states for search in tried])
    return build(name_draws(blocks, n, a), num_states, n, redraw if law.strict else None)


def _put(found: _Found, searches: list[_Search], accepted: Candidates, terminal: Floats) -> None:
    real = np.arange(terminal.shape[1]) < accepted.num_states[:, None]
    to = ((accepted.reward_to + terminal) * real)[:, None, None, :]
    rows = accepted.live[..., None, None]
    found.put(
        searches,
        transition=accepted.transition,
        reward=(accepted.reward_from[..., None] + to) * rows,
        reward_noise=(accepted.noise_from[..., None] + accepted.noise_to[:, None, None, :]) * rows,
        start_probs=accepted.start_probs,
        terminal=accepted.terminal,
        goal_terminates=accepted.goal,
    )


def _exhausted(law: Law, search: _Search, tally: Counter[str]) -> str:
    names = list(tally)
    rates = ", ".join(f"{name} {tally[name]}/{tally[before]}" for before, name in pairwise(names))
    more = " or leave out strict_paper" if law.strict else ""
    return (
        f"task {search.index} of seed {law.seed} was not found in {search.candidates} candidates of "
        f"{law.states} states and {law.actions} actions; passed, filter by filter: {rates}; raise "
        f"max_candidates, take more states{more}"
    )
