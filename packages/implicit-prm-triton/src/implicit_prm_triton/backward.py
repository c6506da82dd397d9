"""d log p_y / d logit_v = [v = y] - p_v: written over the logits of a chunk of rows, by one kernel.

The logits of a chunk come from a matrix product and go into two, for hidden and weight: those are cuBLAS's.
What PyTorch would do between them in five passes over the chunk, and in float32, is one kernel that reads it
twice.
"""

# mypy: disable-error-code=no-untyped-def
# Triton gives the arguments of a kernel their types.
from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from implicit_prm_triton.backend import on_device
from implicit_prm_triton.tiles import SLOPE_BLOCK, TARGETS, CompileSpec

NUM_WARPS = 4


@triton.jit
def slope(logits, bias, targets, normaliser, grad, V, HAS_BIAS: tl.constexpr, BLOCK: tl.constexpr):
    """Over a row of logits [N, V]: grad · ([v = target] - p_v), p being the softmax of the logits here.

    These were rounded to half precision, and those that the forward pass summed were not: exp(logit -
    normaliser) may sum to 1.03, where the target's 1 - p is 0.02. So it is divided by its own sum; and 1 - p
    is taken as the sum of the others, in which nothing cancels.
    """
    row = tl.program_id(0).to(tl.int64)
    here = logits + row * V
    target = tl.load(targets + row)
    shift = tl.load(normaliser + row)
    others, chosen = 0.0, 0.0
    for start in range(0, V, BLOCK):
        word = start + tl.arange(0, BLOCK)
        e = exponentials(here, bias, shift, word, V, HAS_BIAS)
        others += tl.sum(tl.where(word == target, 0.0, e))
        chosen += tl.sum(tl.where(word == target, e, 0.0))
    scale = tl.load(grad + row) / (others + chosen)
    for start in range(0, V, BLOCK):
        word = start + tl.arange(0, BLOCK)
        e = exponentials(here, bias, shift, word, V, HAS_BIAS)
        y = scale * tl.where(word == target, others, -e)
        tl.store(here + word, y.to(logits.dtype.element_ty), mask=word < V)


@triton.jit
def exponentials(logits, bias, shift, word, V, HAS_BIAS: tl.constexpr):
    """exp(logit - shift) of some words of a row, 0 beyond the vocabulary."""
    inside = word < V
    x = tl.load(logits + word, mask=inside, other=float("-inf")).to(tl.float32)
    if HAS_BIAS:
        x += tl.load(bias + word, mask=inside, other=0.0).to(tl.float32)
    return tl.exp(x - shift)


def launch(
    grad: Tensor,
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    targets: Tensor,
    normaliser: Tensor,
    chunk_size: int,
    needs: list[bool],
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    """Gradients of hidden, weight and bias, those that are needed, `chunk_size` rows at a time.

    The weight's and the bias's are summed over chunks in float32.
    """
    needs_hidden, needs_weight, needs_bias = needs
    grad_hidden = torch.empty_like(hidden) if needs_hidden else None
    grad_weight = torch.zeros_like(weight, dtype=torch.float32) if needs_weight else None
    grad_bias = weight.new_zeros(len(weight), dtype=torch.float32) if needs_bias else None
    words = len(weight)
    with torch.autocast(hidden.device.type, enabled=False), on_device(hidden):
        for first in range(0, len(hidden), chunk_size):
            rows = slice(first, first + chunk_size)
            logits = hidden[rows] @ weight.T
            slope[(len(logits),)](
                logits, logits if bias is None else bias.contiguous(), targets[rows], normaliser[rows],
                grad[rows], words, HAS_BIAS=bias is not None, BLOCK=SLOPE_BLOCK, num_warps=NUM_WARPS,
            )  # fmt: skip
            if grad_hidden is not None:
                grad_hidden[rows] = logits @ weight
            if grad_weight is not None:
                grad_weight += logits.T @ hidden[rows]
            if grad_bias is not None:
                grad_bias += logits.sum(0, dtype=torch.float32)
    return (
        grad_hidden,
        None if grad_weight is None else grad_weight.to(weight.dtype),
        None if grad_bias is None or bias is None else grad_bias.to(bias.dtype),
    )


def specs() -> list[CompileSpec]:
    """The kernel for each dtype of logits."""
    pointers = {"targets": "*i64", "normaliser": "*fp32", "grad": "*fp32"}
    return [
        CompileSpec(
            name="slope",
            fn=slope,
            types=pointers | {"logits": f"*{dtype}", "bias": f"*{dtype}", "V": "i32"},
            constexprs={"HAS_BIAS": True, "BLOCK": SLOPE_BLOCK},
            aligned=("logits", "bias", *pointers),
            options={"num_warps": NUM_WARPS},
            target=target,
            dtype=dtype,
            head_dim=4096,
        )
        for target in TARGETS
        for dtype in ("bf16", "fp16", "fp32")
    ]
