"""`TaskStream`: batches for training, made while it trains, from a fixed pool of tasks or from ever new
ones.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from omnirl.checks import check_batches, check_real, check_whole
from omnirl.data.executors import send_ahead
from omnirl.data.mixtures import Behaviour, method_named
from omnirl.data.sequences import COLUMNS
from omnirl.data.synthesis import Recipe, make_sequences
from omnirl.data.worlds import Worlds, soft_labels
from omnirl.errors import OmniRLError
from omnirl.tasks.batch import TaskBatch
from omnirl.tasks.sampling import sample_tasks

# Sequences that are made together: many rows make a step of the roll-out cheap.
_ROWS_AT_ONCE = 2048
_STEPS_AT_ONCE = 2**24  # of all of them: about 0.6 GB
_CHUNKS_AHEAD = 2


class TaskStream:
    """An endless iterable of batches; batch k depends on the settings and k alone.

    A batch has `observations, tags, actions, labels` (B, T) int64, `rewards` (B, T) float32, `task_index`
    (B,) and, with a `label_temperature`, `targets` (B, T, A) float32. Sequences are numbered through all
    batches and ranks; sequence i plays task i mod N of the pool, or new task i.

    Args:
        tasks: the pool: a `TaskBatch`, the path of a saved one, or how many to sample. None, or 0 (TOML
            has no None), samples a new task for every sequence.
        steps: T, or the T of each batch as a function of k.
        longest: the largest T, where steps is a function and the first T is not the largest: it bounds the
            memory of the batches that are made together.
        batch_size: B.
        seed: of the sequences and of the sampled tasks.
        num_states, num_actions, min_states, family: of the sampled tasks, see `sample_tasks`.
        method, mix, tag_mask, noise_time_scale: see `synthesize`.
        label_temperature: τ > 0 adds the probabilities softmax(A*(s, ·) / (τ · rms of A* in the task)), A*
        the
            advantages for γ = 0.994.
        rank, world_size: this process among those that train together; each gets other sequences.
        workers: processes that make batches ahead while the stream is iterated; 0 makes them when asked.

    Raises:
        OmniRLError: settings that do not fit.
    """

    def __init__(
        self,
        tasks: TaskBatch | str | Path | int | None = 4096,
        *,
        steps: int | Callable[[int], int],
        longest: int | None = None,
        batch_size: int,
        seed: int,
        num_states: int = 16,
        num_actions: int = 5,
        min_states: int | None = None,
        family: str = "anymdp",
        method: str = "dpd",
        mix: str | Sequence[Behaviour] | None = None,
        tag_mask: tuple[float, float] = (0.15, 0.15),
        noise_time_scale: float = 1.0,
        label_temperature: float = 0.0,
        rank: int = 0,
        world_size: int = 1,
        workers: int = 0,
    ) -> None:
        check_batches(batch_size, seed, rank, world_size, label_temperature)
        check_whole(num_states=num_states, num_actions=num_actions, workers=workers)
        check_whole(min_states=8 if min_states is None else min_states)
        check_real(noise_time_scale=noise_time_scale)
        if workers < 0:
            raise OmniRLError(f"workers is {workers}; it must not be negative")
        self.batch_size, self.rank, self.world_size, self.workers = batch_size, rank, world_size, workers
        self.position = 0
        """The number of the batch that comes next."""
        self._steps, self._temperature = steps, label_temperature
        chosen = method_named(method, mix)
        if label_temperature and chosen.label != "opt3":
            raise OmniRLError(f"label_temperature softens the oracle's labels; method {method!r} has others")
        self._recipe = Recipe(self.steps(0), chosen, seed, tag_mask, noise_time_scale)
        self._sample = partial(
            _sample,
            num_states=num_states,
            num_actions=num_actions,
            min_states=min_states,
            family=family,
            seed=seed,
        )
        self.pool = _pool(tasks, self._sample)
        """The tasks that are played; None where every sequence has a new one."""
        longest = max(longest or 0, self.steps(0))
        self._batches = max(1, min(_ROWS_AT_ONCE // batch_size, _STEPS_AT_ONCE // (batch_size * longest)))
        self._ready: tuple[Worlds, NDArray[np.float32] | None] | None = None
        self._kept: tuple[int, list[dict[str, NDArray[Any]]]] = (-1, [])

    def steps(self, number: int) -> int:
        """T of batch `number`."""
        return self._steps(number) if callable(self._steps) else self._steps

    def seek(self, number: int) -> None:
        """Go on with batch `number`."""
        self.position = number

    def batch(self, number: int) -> dict[str, NDArray[Any]]:
        """Batch `number`. Neighbours are made together, so asking in order is cheap."""
        chunk, within = divmod(number, self._batches)
        if self._kept[0] != chunk:
            self._kept = (chunk, self.chunk(chunk))
        return self._kept[1][within]

    def __iter__(self) -> Iterator[dict[str, NDArray[Any]]]:
        if not self.workers:
            while True:
                self.position += 1
                yield self.batch(self.position - 1)
        first, skip = divmod(self.position, self._batches)
        for batches in self._chunks_ahead(first):
            for batch in batches[skip:]:
                self.position += 1
                yield batch
            skip = 0

    def chunk(self, number: int) -> list[dict[str, NDArray[Any]]]:
        """The batches that are made together, `number` counting such groups."""
        lengths = [self.steps(number * self._batches + i) for i in range(self._batches)]
        rows = self._batches * self.batch_size
        numbers = (number * self.world_size + self.rank) * rows + np.arange(rows)
        if self.pool is None:
            worlds, targets = self._prepare(self._sample(rows, int(numbers[0])))
            task, index = np.arange(len(numbers)), numbers
        else:
            if self._ready is None:
                self._ready = self._prepare(self.pool)
            worlds, targets = self._ready
            task = index = numbers % len(self.pool)
        columns = make_sequences(worlds, replace(self._recipe, steps=max(lengths)), numbers, task)
        return [
            self._batch(
                columns, slice(i * self.batch_size, (i + 1) * self.batch_size), length, task, index, targets
            )
            for i, length in enumerate(lengths)
        ]

    def _batch(
        self,
        columns: dict[str, NDArray[Any]],
        rows: slice,
        length: int,
        task: NDArray[np.int64],
        index: NDArray[np.int64],
        targets: NDArray[np.float32] | None,
    ) -> dict[str, NDArray[Any]]:
        batch = {
            name: columns[name][rows, :length].astype(np.float32 if name == "rewards" else np.int64)
            for name in COLUMNS
        }
        batch["task_index"] = index[rows]
        if targets is not None:
            batch["targets"] = targets[task[rows, None], batch["observations"]]
        return batch

    def _prepare(self, tasks: TaskBatch) -> tuple[Worlds, NDArray[np.float32] | None]:
        targets = soft_labels(tasks, self._temperature) if self._temperature else None
        return Worlds.build(tasks, self._recipe.method.levels), targets

    def _chunks_ahead(self, first: int) -> Iterator[list[dict[str, NDArray[Any]]]]:
        context = multiprocessing.get_context("spawn")
        pool = ProcessPoolExecutor(self.workers, context, initializer=_receive, initargs=(self,))
        try:
            yield from send_ahead(
                count(first),
                _CHUNKS_AHEAD * self.workers,
                lambda number: pool.submit(_make_chunk, number),
                lambda future: future.result(),
            )
        finally:
            pool.shutdown(cancel_futures=True)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_ready": None, "_kept": (-1, [])}


def _pool(
    tasks: TaskBatch | str | Path | int | None, sample: Callable[[int, int], TaskBatch]
) -> TaskBatch | None:
    if isinstance(tasks, str | Path):
        return TaskBatch.load(tasks)
    if tasks is None or isinstance(tasks, TaskBatch):
        return tasks
    check_whole(tasks=tasks)
    return sample(tasks, 0) if tasks else None


def _sample(count: int, first: int, **law: Any) -> TaskBatch:
    return sample_tasks(count, first=first, **law)


# The stream of a process that makes chunks: sent once, so that its pool is solved once.
_streams: list[TaskStream] = []


def _receive(stream: TaskStream) -> None:
    _streams.append(stream)


def _make_chunk(number: int) -> list[dict[str, NDArray[Any]]]:
    return _streams[0].chunk(number)
