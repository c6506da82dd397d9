"""Which blocks make which batch: a function of the data seed and the position alone.

No random state of torch is involved, so a model that draws more random numbers (dropout, another
initialization) sees the same blocks in the same order, and so does a run on another number of processes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from numpy.typing import NDArray


@runtime_checkable
class Blocks(Protocol):
    """What can be trained on: `len(blocks)` blocks of one length; `blocks[i]` is that block's token ids.

    A tensor of shape (blocks, length) is one, and so is every torch `Dataset` whose items are
    one-dimensional tensors (or arrays, or dictionaries with `input_ids`).
    """

    def __len__(self) -> int: ...

    def __getitem__(self, index: Any, /) -> Any: ...


def take(blocks: Blocks, indices: Sequence[int]) -> torch.Tensor:
    """The named blocks as one int64 tensor of shape (len(indices), length)."""
    if isinstance(blocks, torch.Tensor):
        return blocks[torch.as_tensor(indices)].long()
    return torch.stack([_token_ids(blocks[index]) for index in indices])


def _token_ids(item: Any) -> torch.Tensor:
    if isinstance(item, dict):
        item = item["input_ids"]
    return torch.as_tensor(item).long()


def block_length(blocks: Blocks) -> int:
    """Tokens in a block. Raises `ValueError` when there is no block."""
    if len(blocks) == 0:
        raise ValueError("there is not a single block: the text is shorter than the context length")
    return int(_token_ids(blocks[0]).shape[0])


def permutation(length: int, seed: int, epoch: int) -> NDArray[np.int64]:
    """A permutation of 0..length-1 that depends on (length, seed, epoch) alone.

    It sorts the raw words of the Philox counter-based generator, keyed by seed and epoch: numpy keeps
    those words the same in every version, which it does not promise for `Generator.permutation`.
    """
    words = np.random.Philox(key=np.array([seed, epoch], dtype=np.uint64)).random_raw(length)
    return np.argsort(words, kind="stable")


class BlockOrder(torch.utils.data.Sampler[int]):
    """Block numbers for `count` positions: one permutation after another, each of all the blocks."""

    def __init__(self, blocks: int, count: int, seed: int) -> None:
        self.blocks = blocks
        self.count = count
        self.seed = seed

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[int]:
        for start in range(0, self.count, self.blocks):
            order = permutation(self.blocks, self.seed, start // self.blocks)
            yield from order[: self.count - start].tolist()


class BatchedBlocks(torch.utils.data.Dataset[torch.Tensor]):
    """Blocks whose batches are taken in one go, without a list of items and a collation."""

    def __init__(self, blocks: Blocks) -> None:
        self.blocks = blocks

    def __len__(self) -> int:
        return len(self.blocks)

    def __getitem__(self, index: int) -> torch.Tensor:
        return take(self.blocks, [index])[0]

    def __getitems__(self, indices: Sequence[int]) -> torch.Tensor:
        """Shape (len(indices), length); torch's data loader calls this with a batch's indices."""
        return take(self.blocks, indices)
