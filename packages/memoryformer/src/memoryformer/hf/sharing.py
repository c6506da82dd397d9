"""Three projections that read the same input from one Memory Layer: one hash, one read a table."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from memoryformer.errors import MemoryFormerError
from memoryformer.layers import MemoryLayer


class QueryKeyValue(nn.Module):
    """In place of q_proj: the Memory Layer of q, k and v, whose table rows are q | k | v.

    Its call computes all three; k's and v's modules then take theirs, once, if they are called with that very
    tensor, unchanged, and compute it anew otherwise. So no result depends on who calls when.
    """

    _x: torch.Tensor | None
    _state: tuple[object, ...]
    _waiting: dict[int, torch.Tensor]

    def __init__(self, layer: MemoryLayer, sizes: Sequence[int]) -> None:
        super().__init__()
        self.layer = layer
        self.sizes = tuple(sizes)
        self._forget()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(..., width) -> the queries (..., sizes[0]). Raises `MemoryFormerError` in `nn.DataParallel`."""
        refuse_replica(self)
        return self.part(0, x)

    def part(self, index: int, x: torch.Tensor) -> torch.Tensor:
        """(..., width) -> queries, keys or values (..., sizes[index])."""
        # The compiler sees three look-ups of the same operands and makes them one; state would stop it.
        if torch.compiler.is_compiling():
            return self.layer(x).split(self.sizes, -1)[index]
        if index and x is self._x and index in self._waiting and self._state == self._now(x):
            part = self._waiting.pop(index)
            if not self._waiting:
                self._forget()
            return part
        parts = self.layer(x).split(self.sizes, -1)
        if index == 0:
            self._x, self._state = x, self._now(x)
            self._waiting = {1: parts[1], 2: parts[2]}
        return parts[index]

    def _forget(self) -> None:
        self._x, self._state, self._waiting = None, (), {}

    def _now(self, x: torch.Tensor) -> tuple[object, ...]:
        """What changes when x or a table is written to, or gradients or autocast are switched on or off."""
        versions = (0 if values.is_inference() else values._version for values in (x, self.layer.tables))
        autocast = torch.is_autocast_enabled(x.device.type)
        return torch.is_grad_enabled(), autocast, id(self.layer.tables), *versions

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_x": None, "_state": (), "_waiting": {}}

    def extra_repr(self) -> str:
        """Shown by `print(model)`."""
        return f"q | k | v = {' | '.join(map(str, self.sizes))}"


class KeyOrValue(nn.Module):
    """In place of k_proj or v_proj: no parameters of its own, its part of what `QueryKeyValue` computes."""

    def __init__(self, source: QueryKeyValue, index: int) -> None:
        super().__init__()
        self.__dict__["source"] = source  # not a submodule: its parameters are q_proj's
        self.index = index

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(..., width) -> keys or values (..., sizes[index]). Raises as `QueryKeyValue`."""
        refuse_replica(self)
        source: QueryKeyValue = self.__dict__["source"]
        return source.part(self.index, x)


def refuse_replica(module: nn.Module) -> None:
    """Raise in the copies that `nn.DataParallel` makes: k and v of a copy know only the first device's q."""
    if "_is_replica" in vars(module):
        raise MemoryFormerError(
            "a model changed by apply_memoryformer does not run in nn.DataParallel, which Trainer takes "
            "where one process sees several GPUs. Start a process for each: torchrun --nproc-per-node=gpu "
            "SCRIPT, or show it one: CUDA_VISIBLE_DEVICES=0"
        )
