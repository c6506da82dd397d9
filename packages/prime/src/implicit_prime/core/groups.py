"""Groups of responses to one prompt, given by an id a response; members need not stand together."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import torch
from torch import Tensor

from implicit_prime.core.tensors import exact
from implicit_prime.errors import PrimeError

GroupIds = Tensor | Sequence[Hashable]


class Groups:
    """The statistics of each response's group, in float64 on the CPU.

    `group_ids` [B] is a tensor of whole numbers, or any sequence of things that can be told apart.
    Raises `PrimeError` for another number of ids.
    """

    def __init__(self, group_ids: GroupIds, responses: int) -> None:
        if not isinstance(group_ids, Tensor):
            numbers: dict[Hashable, int] = {}
            group_ids = torch.tensor(
                [numbers.setdefault(x, len(numbers)) for x in group_ids], dtype=torch.long
            )
        if group_ids.shape != (responses,):
            raise PrimeError(
                f"group_ids {list(group_ids.shape)} must name the prompt of each of the {responses} responses"
            )
        self.ids, self.index, counts = torch.unique(group_ids.cpu(), return_inverse=True, return_counts=True)
        self.sizes = exact(counts[self.index])

    def at_least_two(self) -> Groups:
        """Raise `PrimeError` if a response is alone in its group, with nothing to compare it with."""
        if (self.sizes < 2).any():
            alone = int((self.sizes < 2).nonzero()[0])
            raise PrimeError(
                f"response {alone} is the only one of its prompt, and a baseline needs at least 2: "
                "raise num_generations, or leave such prompts out"
            )
        return self

    def total(self, x: Tensor) -> Tensor:
        """The sum of `x` [B] over each response's group: [B]."""
        x = exact(x)
        return x.new_zeros(len(self.ids)).index_add(0, self.index, x)[self.index]

    def mean(self, x: Tensor) -> Tensor:
        """The mean of `x` [B] over each response's group: [B]."""
        return self.total(x) / self.sizes

    def others(self, x: Tensor) -> Tensor:
        """The mean of `x` [B] over the other members of each response's group: [B]."""
        return (self.total(x) - exact(x)) / (self.sizes - 1)

    def std(self, x: Tensor) -> Tensor:
        """The standard deviation, with n - 1, of `x` [B] in each response's group: [B]."""
        return (self.total((exact(x) - self.mean(x)) ** 2) / (self.sizes - 1)).sqrt()
