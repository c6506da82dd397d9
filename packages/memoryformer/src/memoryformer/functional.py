"""The Memory Layer as functions: codes, weights, and the look-up itself."""

from __future__ import annotations

import torch
from torch import Tensor

from memoryformer import ops
from memoryformer.errors import MemoryFormerError
from memoryformer.hashing import FLOATS, MAX_TAU, check_chunks, check_score, hash_codes, hash_weights, name_of

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
    if not _fits(z, tables, bias, scales):
        raise _misfit(z, tables, bias, scales)
    check_score(score, temperature)
    leading = z.shape[:-2]
    if len(leading) == 1:
        return ops.run(z, tables, bias, scales, score, temperature)
    y = ops.run(z.reshape(-1, *z.shape[-2:]), tables, bias, scales, score, temperature)
    return y.view(*leading, tables.shape[2])


def _fits(z: Tensor, tables: Tensor, bias: Tensor | None, scales: Tensor | None) -> bool:
    """Whether the arguments are of one look-up; every microsecond here is one of each decoded token."""
    shape, sizes = z.shape, tables.shape
    return (
        len(shape) >= 2
        and len(sizes) == 3
        and 1 <= shape[-1] <= MAX_TAU
        and sizes[1] == 1 << shape[-1]
        and sizes[0] == shape[-2] > 0
        and z.dtype in FLOATS
        and (tables.dtype in FLOATS or tables.dtype is torch.int8)
        and (tables.dtype is not torch.float64 or z.dtype is torch.float64)
        and (tables.dtype is torch.int8) is (scales is not None)
        and ((z.is_cpu and tables.is_cpu) or z.device == tables.device)
        and (bias is None or (bias.shape == sizes[2:] and bias.device == z.device))
        and (
            scales is None
            or (
                scales.shape in (sizes[:2], (sizes[0], 1))
                and scales.dtype is torch.float32
                and scales.device == z.device
            )
        )
    )


def _misfit(z: Tensor, tables: Tensor, bias: Tensor | None, scales: Tensor | None) -> MemoryFormerError:
    """The error that says what is wrong with arguments that are not of one look-up."""
    tau = check_chunks(z)
    shapes = f"z is {list(z.shape)}, tables are {list(tables.shape)}"
    if z.ndim < 2 or tables.ndim != 3 or not tables.shape[0] == z.shape[-2] > 0 or tables.shape[1] != 2**tau:
        return MemoryFormerError(
            f"{shapes}; expected z [..., K, tau] and tables [K, 2^tau, h], here 2^{tau} = {2**tau} rows"
        )
    for name, x in (("tables", tables), ("bias", bias), ("scales", scales)):
        if x is not None and x.device != z.device:
            return MemoryFormerError(
                f"the input is on {z.device}, {name} on {x.device}: move the layer or the input"
            )
    if bias is not None and bias.shape != tables.shape[2:]:
        return MemoryFormerError(f"bias is {list(bias.shape)}; these tables need [{tables.shape[2]}]")
    if (tables.dtype is torch.int8) is not (scales is not None):
        return MemoryFormerError(
            f"tables are {name_of(tables.dtype)} and scales were "
            f"{'not ' if scales is None else ''}given; int8 tables, and they alone, have scales"
        )
    if scales is not None:
        return MemoryFormerError(
            f"scales are {name_of(scales.dtype)} {list(scales.shape)}; these tables need float32 "
            f"[{tables.shape[0]}, {tables.shape[1]}] or [{tables.shape[0]}, 1]"
        )
    return MemoryFormerError(
        f"tables are {name_of(tables.dtype)} and the input is {name_of(z.dtype)}; tables can be float32, "
        "bfloat16, float16 or int8, and float64 for float64 input"
    )
