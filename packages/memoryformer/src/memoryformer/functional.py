"""The Memory Layer as functions: codes, weights, and the look-up itself."""

from __future__ import annotations

import torch
from torch import Tensor

from memoryformer import ops
from memoryformer.errors import MemoryFormerError
from memoryformer.hashing import check_chunks, check_score, hash_codes, hash_weights, name_of

__all__ = ["hash_codes", "hash_weights", "memory_lookup"]


def memory_lookup(
    z: Tensor,
    tables: Tensor,
    bias: Tensor | None = None,
    *,
    score: str = "scaled",
    temperature: float = 1.0,
    scales: Tensor | None = None,
) -> Tensor:
    """Hash the chunks of z, fetch a row for each from its table, and add the rows with their weights.

        y = Σ_k w_k T[k, code_k] + b      (codes and weights: `hash_codes`, `hash_weights`; section 2.1)

    z [..., K, tau], floating point; tables [K, 2^tau, h], float32, bfloat16, float16 or float64, or int8 with
    `scales` float32 [K, 2^tau] (or [K, 1]), the factor of each row; bias [h]. Returns y [..., h] in the dtype
    of z (under autocast in autocast's), summed in float32, or float64 for float64. Differentiable in z,
    tables and bias; int8 tables pass no gradient. NaN in a chunk makes its y NaN. Works under
    `torch.compile`, on meta and fake tensors. Raises `MemoryFormerError` for what does not fit.
    """
    _check(z, tables, bias, scales, score, temperature)
    leading = z.shape[:-2]
    y = ops.lookup(z.reshape(-1, *z.shape[-2:]), tables, bias, scales, score, float(temperature))[0]
    return y.view(*leading, tables.shape[2])


def _check(
    z: Tensor, tables: Tensor, bias: Tensor | None, scales: Tensor | None, score: str, temperature: float
) -> None:
    tau = check_chunks(z)
    check_score(score, temperature)
    if z.ndim < 2 or tables.ndim != 3 or z.shape[-2] != tables.shape[0] or tables.shape[1] != 2**tau:
        raise MemoryFormerError(
            f"z is {list(z.shape)} and tables {list(tables.shape)}; expected z [..., K, tau] and tables "
            f"[K, 2^tau, h] (2^{tau} = {2**tau})"
        )
    if tables.device != z.device:
        raise MemoryFormerError(
            f"the input is on {z.device}, the tables are on {tables.device}: move the layer or the input"
        )
    if bias is not None and bias.shape != tables.shape[2:]:
        raise MemoryFormerError(f"bias is {list(bias.shape)}; the tables need [{tables.shape[2]}]")
    if (scales is not None) != (tables.dtype == torch.int8):
        raise MemoryFormerError(
            f"tables are {name_of(tables.dtype)} and scales "
            f"{'are missing' if scales is None else 'were given'}; int8 tables, and they alone, need scales"
        )
