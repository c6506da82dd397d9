"""d log p_y / d logit_v = [v = y] - p_v: written over the logits of a chunk of rows, in one pass.

The logits of a chunk come from a matrix product and go into two, for hidden and weight: those are cuBLAS's.
What PyTorch would do between them in five passes over the chunk is one here.
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
    """Over BLOCK words of a row of logits [N, V]: grad · ([v = target] - exp(logit - normaliser))."""
    row = tl.program_id(0).to(tl.int64)
    word = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = word < V
    x = tl.load(logits + row * V + word, mask=inside, other=0.0).to(tl.float32)
    if HAS_BIAS:
        x += tl.load(bias + word, mask=inside, other=0.0).to(tl.float32)
    p = tl.exp(x - tl.load(normaliser + row))
    y = tl.load(grad + row) * (tl.where(word == tl.load(targets + row), 1.0, 0.0) - p)
    tl.store(logits + row * V + word, y.to(logits.dtype.element_ty), mask=inside)


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
            slope[(len(logits), triton.cdiv(words, SLOPE_BLOCK))](
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
