"""`DatasetStream`: batches for training from a data set on disk, every epoch in an order of its own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from omnirl.checks import check_batches
from omnirl.data.sequences import Dataset
from omnirl.data.shards import load_dataset
from omnirl.data.worlds import soft_labels
from omnirl.errors import OmniRLError


class DatasetStream:
    """An endless iterable of batches; batch k depends on the data, the settings and k alone.

    A batch has what one of `TaskStream` has. Each sequence comes once an epoch, over all ranks together;
    sequences are cut at the end, so that each begins where its task is new.

    Args:
        folder: the data set, as `synthesize`, `save_dataset` or `omnirl convert` wrote it, or a `Dataset`.
        steps: T, or the T of each batch as a function of k; no more than the data set has.
        longest: the largest T, where steps is a function and the first T is not the largest.
        batch_size: B.
        seed: of the orders.
        num_observations, num_actions: those of the model; None for any.
        label_temperature: see `TaskStream`; the data set must have its tasks, and the oracle's labels.
        rank, world_size: this process among those that train together; each gets other sequences.
        verify: compare the checksums of the files, which reads them once.

    Raises:
        OmniRLError: settings that do not fit the data set, or one that cannot be read.
    """

    def __init__(
        self,
        folder: Dataset | str | Path,
        *,
        steps: int | Callable[[int], int],
        longest: int | None = None,
        batch_size: int,
        seed: int,
        num_observations: int | None = None,
        num_actions: int | None = None,
        label_temperature: float = 0.0,
        rank: int = 0,
        world_size: int = 1,
        verify: bool = True,
    ) -> None:
        check_batches(batch_size, seed, rank, world_size, label_temperature)
        self.dataset = folder if isinstance(folder, Dataset) else load_dataset(folder, verify=verify)
        if num_actions not in (None, self.dataset.num_actions):
            raise OmniRLError(f"the data set has {self.dataset.num_actions} actions, the model {num_actions}")
        if num_observations is not None and self.dataset.num_observations > num_observations:
            raise OmniRLError(
                f"the data set has {self.dataset.num_observations} observations, the model {num_observations}"
            )
        self._steps = steps
        largest = max(longest or 0, self.steps(0))
        if largest > self.dataset.steps:
            raise OmniRLError(f"batches have up to {largest} steps; the data set has {self.dataset.steps}")
        self._targets = _targets(self.dataset, label_temperature)
        self.batch_size, self.rank, self.world_size, self.seed = batch_size, rank, world_size, seed
        self.position = 0
        """The number of the batch that comes next."""
        self._order = lru_cache(maxsize=2)(self._shuffled)

    def steps(self, number: int) -> int:
        """T of batch `number`."""
        return self._steps(number) if callable(self._steps) else self._steps

    def seek(self, number: int) -> None:
        """Go on with batch `number`."""
        self.position = number

    def batch(self, number: int) -> dict[str, NDArray[Any]]:
        """Batch `number`."""
        places = (number * self.world_size + self.rank) * self.batch_size + np.arange(self.batch_size)
        epochs, within = np.divmod(places, len(self.dataset))
        indices = [self._order(int(epoch))[i] for epoch, i in zip(epochs, within, strict=True)]
        batch = self.dataset.batch(indices, self.steps(number))
        if self._targets is not None:
            batch["targets"] = self._targets[batch["task_index"][:, None], batch["observations"]]
        return batch

    def __iter__(self) -> Iterator[dict[str, NDArray[Any]]]:
        while True:
            self.position += 1
            yield self.batch(self.position - 1)

    def _shuffled(self, epoch: int) -> NDArray[np.int64]:
        return np.random.default_rng((self.seed, epoch)).permutation(len(self.dataset))


def _targets(dataset: Dataset, temperature: float) -> NDArray[np.float32] | None:
    """The soft labels of every task of the data set."""
    if not temperature:
        return None
    if dataset.tasks is None:
        raise OmniRLError("label_temperature needs the tasks of the data set, which are not known")
    label = dataset.settings.get("label")
    if label != "opt3":
        raise OmniRLError(f"label_temperature softens the oracle's labels; the data set has {label!r}")
    return soft_labels(dataset.tasks, temperature)
