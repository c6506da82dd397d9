"""`synthesize`: data of in-context reinforcement learning from tasks, in memory or in shards (section
2.3).
"""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Iterable, Iterator, Sequence, Sized
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from omnirl.data.executors import Executor, executor_of
from omnirl.data.mixtures import Behaviour, Method, method_named
from omnirl.data.rollout import roll_out
from omnirl.data.sequences import Dataset
from omnirl.data.shards import load_dataset, missing_shards, shard_path, write_settings, write_shard
from omnirl.data.worlds import Worlds
from omnirl.errors import OmniRLError, OmniRLWarning
from omnirl.tasks.batch import TaskBatch
from omnirl.tasks.solver import policy_value, solve

SHARD_SIZE = 2048
"""Sequences in a shard, and at most in one roll-out."""
# The tables of a roll-out's learners: more rows than this allows gain nothing.
_TABLE_BYTES = 2**27
_FEWEST_ROWS = 16


@dataclass(frozen=True)
class Recipe:
    """How sequences are made, apart from the tasks."""

    steps: int
    method: Method
    seed: int
    tag_mask: tuple[float, float] = (0.15, 0.15)
    noise_time_scale: float = 1.0

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise OmniRLError(f"steps is {self.steps}; a sequence has at least 1")
        if not (isinstance(self.seed, (int, np.integer)) and self.seed >= 0):
            raise OmniRLError(f"seed is {self.seed!r}; it must be a whole number, at least 0")
        object.__setattr__(self, "seed", int(self.seed))  # numpy's do not go into JSON
        given: Any = self.tag_mask  # a config may hold anything
        pair = isinstance(given, Sized) and len(given) == 2
        if not (pair and all(isinstance(p, (int, float)) and 0 <= p <= 1 for p in given)):
            raise OmniRLError(
                f"tag_mask is {self.tag_mask}; it must be two probabilities (sequence, episode)"
            )
        if not self.noise_time_scale > 0:
            raise OmniRLError(f"noise_time_scale is {self.noise_time_scale}; it must be positive")


def synthesize(
    tasks: TaskBatch,
    steps: int,
    *,
    method: str = "dpd",
    num_sequences: int | None = None,
    seed: int,
    out: str | Path | None = None,
    workers: int | Executor = 1,
    tag_mask: tuple[float, float] = (0.15, 0.15),
    mix: str | Sequence[Behaviour] | None = None,
    noise_time_scale: float = 1.0,
) -> Dataset:
    """Sequences of episodes with tags and reference actions.

    Sequence i plays task i mod N (of those that are not left out) and depends on (tasks, seed, i) alone, not
    on workers or shards. A task in which opt3 earns less than the random policy, by their exact returns
    within the time limit, is left out with a warning.

    Args:
        tasks: N tasks.
        steps: T, the filler steps included.
        method: `dpd` (section 2.3), or `dpt`, `ad`, `ad_eps`; see `METHODS`.
        num_sequences: N if None.
        seed: a whole number.
        out: a folder: the data are written there in shards of 2,048 and mapped into memory; shards that are
        there
            already are kept, so an interrupted run goes on where it was. None keeps all in memory.
        workers: processes, or an executor such as `RayExecutor()`.
        tag_mask: the probabilities that the tags of a whole sequence, else of an episode, are hidden.
        mix: for `dpd`, `"paper"`, `"explore"` or a list of `Behaviour`.
        noise_time_scale: below 1 the schedules run faster, as short sequences need (official data: 8,000
        steps).

    Raises:
        OmniRLError: settings that do not fit, or a folder that holds other data.
    """
    recipe = Recipe(steps, method_named(method, mix), seed, tag_mask, noise_time_scale)
    count = len(tasks) if num_sequences is None else num_sequences
    if count < 1:
        raise OmniRLError(f"num_sequences is {count}; at least one sequence is needed")
    settings = _settings(tasks, recipe, method, count)
    playable = playable_tasks(tasks)
    folder = None if out is None else Path(out)
    if folder is not None:
        write_settings(folder, settings, tasks)
    numbers: Iterable[int] = range(settings["num_shards"])
    if folder is not None:
        numbers = missing_shards(folder, settings["num_shards"])
    jobs = _jobs(numbers, count, tasks, playable, recipe, folder)
    parts = [part for part in executor_of(workers).map(_make_shard, jobs) if part is not None]
    if folder is not None:
        return load_dataset(folder, verify=False)
    return Dataset(parts, tasks.num_observations, tasks.num_actions, tasks, settings)


def playable_tasks(tasks: TaskBatch) -> NDArray[np.int64]:
    """The numbers of the tasks in which opt3 earns no less than the random policy within the time limit.

    The others are told in a warning; `OmniRLError` if none is left.
    """
    oracle = policy_value(tasks, solve(tasks, 0.994).argmax(-1))
    random = policy_value(tasks, "uniform")
    playable = np.flatnonzero(oracle >= random - 1e-9 * np.maximum(1, np.abs(random)))
    if len(playable) < len(tasks):
        worse = np.setdiff1d(np.arange(len(tasks)), playable)
        message = (
            f"{len(worse)} of {len(tasks)} tasks (the first: {worse[0]}) reward the random policy more "
            "than the oracle of discount 0.994 within their time limit"
        )
        if not len(playable):
            raise OmniRLError(message)
        warnings.warn(f"left out: {message}", OmniRLWarning, stacklevel=3)
    return playable


def make_sequences(
    worlds: Worlds, recipe: Recipe, numbers: NDArray[np.int64], task: NDArray[np.int64]
) -> dict[str, NDArray[Any]]:
    """Columns (B, T) of the sequences with these numbers (B,), which play `task` (B,) of the `worlds`."""
    size = worlds.num_observations**2 * worlds.num_actions * 8
    rows = max(_FEWEST_ROWS, min(SHARD_SIZE, _TABLE_BYTES // size))
    parts = [
        roll_out(
            worlds,
            task[first : first + rows],
            [_stream(recipe.seed, number) for number in numbers[first : first + rows].tolist()],
            recipe.steps,
            recipe.method,
            tag_mask=recipe.tag_mask,
            time_scale=recipe.noise_time_scale,
        )
        for first in range(0, len(numbers), rows)
    ]
    if len(parts) == 1:
        return parts[0]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


@dataclass(frozen=True)
class _Job:
    """A shard to be made: `tasks[i]` is task `task_index[i]` of the whole, sequence i plays `task[i]` of
    them.
    """

    numbers: NDArray[np.int64]
    task: NDArray[np.int64]
    task_index: NDArray[np.int64]
    tasks: TaskBatch
    recipe: Recipe
    path: Path | None


def _jobs(
    numbers: Iterable[int],
    count: int,
    tasks: TaskBatch,
    playable: NDArray[np.int64],
    recipe: Recipe,
    folder: Path | None,
) -> Iterator[_Job]:
    for number in numbers:
        sequences = np.arange(number * SHARD_SIZE, min(count, (number + 1) * SHARD_SIZE))
        index = playable[sequences % len(playable)]
        needed, task = np.unique(index, return_inverse=True)
        path = None if folder is None else shard_path(folder, number)
        yield _Job(sequences, task, index, tasks[needed], recipe, path)


def _make_shard(job: _Job) -> dict[str, NDArray[Any]] | None:
    worlds = Worlds.build(job.tasks, job.recipe.method.levels)
    columns = make_sequences(worlds, job.recipe, job.numbers, job.task)
    columns["task_index"] = job.task_index
    if job.path is None:
        return columns
    write_shard(job.path, columns)
    return None


def _stream(seed: int, number: int) -> Generator:
    return np.random.Generator(np.random.SFC64(np.random.SeedSequence((seed, number))))


def _settings(tasks: TaskBatch, recipe: Recipe, method: str, count: int) -> dict[str, Any]:
    """What says which data these are, as it stands in settings.json."""
    behaviours = [
        {key: getattr(value, "__name__", value) for key, value in asdict(behaviour).items()}
        for behaviour in recipe.method.mix
    ]
    settings = {
        "num_observations": tasks.num_observations,
        "num_actions": tasks.num_actions,
        "num_sequences": count,
        "num_shards": -(-count // SHARD_SIZE),
        "steps": recipe.steps,
        "method": method,
        "label": recipe.method.label,
        "mix": behaviours,
        "seed": recipe.seed,
        "tag_mask": list(recipe.tag_mask),
        "noise_time_scale": recipe.noise_time_scale,
        "tasks": fingerprint(tasks),
    }
    return dict(json.loads(json.dumps(settings)))


def fingerprint(tasks: TaskBatch) -> str:
    """SHA-256 of the tables of all tasks, in order."""
    total = hashlib.sha256()
    names = ("transition", "reward", "reward_noise", "start_probs", "terminal", "state_mapping", "max_steps")
    for name in names:
        array = np.ascontiguousarray(getattr(tasks, name))
        total.update(f"{name} {array.shape}".encode())
        total.update(array.tobytes())
    return total.hexdigest()
