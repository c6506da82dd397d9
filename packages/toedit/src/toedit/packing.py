"""Batches of windows of about equal length, so that little is computed for padding."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

# A batch that is at least a quarter full is closed before padding would become more of it than this.
MAX_WASTE = 0.03
_ENOUGH = 0.25


@dataclass
class Workload:
    """What a backend has computed so far.

    n_tokens    tokens of windows, context and BOS included
    n_padding   places of the batches that held no token
    n_batches   forward passes
    n_halvings  batches that did not fit into memory and were split
    """

    n_tokens: int = 0
    n_padding: int = 0
    n_batches: int = 0
    n_halvings: int = 0

    def add(self, lengths: Sequence[int]) -> None:
        """Count a batch of sequences of these lengths, padded to the longest."""
        self.n_tokens += sum(lengths)
        self.n_padding += len(lengths) * max(lengths) - sum(lengths)
        self.n_batches += 1

    def add_unpadded(self, lengths: Sequence[int]) -> None:
        """Count sequences that the library under a backend batches in its own way, without padding."""
        self.n_tokens += sum(lengths)
        self.n_batches += 1

    @property
    def padding_waste(self) -> float:
        """The share of the computed places that were padding; 0 before the first batch."""
        places = self.n_tokens + self.n_padding
        return self.n_padding / places if places else 0.0


def batches(lengths: Sequence[int], budget: int) -> Iterator[list[int]]:
    """Indices of sequences that go together: longest first, at most `budget` places with the padding.

    A sequence longer than the budget is a batch of its own. Ties keep their order.
    """
    batch: list[int] = []
    tokens = 0
    for index in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        if batch:
            places = (len(batch) + 1) * lengths[batch[0]]
            padding = places - tokens - lengths[index]
            wasteful = padding > MAX_WASTE * places and tokens >= _ENOUGH * budget
            if places > budget or wasteful:
                yield batch
                batch, tokens = [], 0
        batch.append(index)
        tokens += lengths[index]
    if batch:
        yield batch
