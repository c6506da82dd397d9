"""The order of the bits in a code, which decides which row of a table is which."""

from __future__ import annotations

from typing import TypeVar

import torch
from torch import Tensor, nn

from memoryformer.errors import MemoryFormerError
from memoryformer.layers import MemoryLayer
from memoryformer.quantization import QuantizedMemoryLayer

Tables = TypeVar("Tables", Tensor, nn.Module)


def reverse_bits(tables: Tables) -> Tables:
    """Turn tables whose codes have their first bit lowest (Eq. 4 of the paper) into ours, and back.

    The released code and the paper's figures put the first number of a chunk in the highest bit, as this
    package does; its Eq. 4 in the lowest. Nothing in a checkpoint tells which it is: convert it if perplexity
    is far from what was reported. Row c becomes row c with its bits in reverse, so twice is nothing.

    Given tables [K, 2^tau, h] (or scales [K, 2^tau]), returns new ones. Given a model, changes every Memory
    Layer in it, int8 ones too, and returns it. Raises `MemoryFormerError` for a number of rows that is no
    power of two, or a model without Memory Layers.
    """
    if isinstance(tables, Tensor):
        return tables[:, _reversed_codes(tables)]
    layers = [m for m in tables.modules() if isinstance(m, MemoryLayer | QuantizedMemoryLayer)]
    if not layers:
        raise MemoryFormerError(f"{type(tables).__name__} has no Memory Layer")
    with torch.no_grad():
        for layer in layers:
            layer.tables.copy_(reverse_bits(layer.tables.detach()))
            if isinstance(layer, QuantizedMemoryLayer):
                layer.scales.copy_(reverse_bits(layer.scales))
    return tables


def _reversed_codes(tables: Tensor) -> Tensor:
    rows = tables.shape[1] if tables.ndim > 1 else 0
    tau = rows.bit_length() - 1
    if rows != 1 << max(tau, 0):
        raise MemoryFormerError(
            f"tables are {list(tables.shape)}; expected [K, 2^tau, h], 2^tau rows in each"
        )
    codes = torch.arange(rows, device=tables.device)
    places = torch.arange(tau, device=tables.device)
    bits = codes[:, None] >> places & 1
    return (bits << places.flip(0)).sum(-1)
