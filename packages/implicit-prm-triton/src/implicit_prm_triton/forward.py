"""log p(y) = h·w_y + b_y - log Σ_v exp(h·w_v + b_v), the sum taken tile by tile: no logit is written.

The vocabulary is cut in SPLITS, so that few rows still fill a GPU. A block keeps the largest logit m and the
sum s of exp(logit - m) of its rows over its split (Milakov and Gimelshein 2018); splits are put together by
PyTorch, in order, so the same inputs give the same bits.
"""

# mypy: disable-error-code=no-untyped-def
# Triton gives the arguments of a kernel their types.
from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from implicit_prm_triton.backend import on_device
from implicit_prm_triton.tiles import TARGETS, CompileSpec, product_tile

WANTED_BLOCKS = 512
"""About four blocks for each multiprocessor of an H100; estimated, not measured."""


@triton.jit
def log_sum_exp(
    hidden, weight, bias, targets, largest, total, chosen, N, V, D, words_a_split,
    HAS_BIAS: tl.constexpr, DOT: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_V: tl.constexpr,
    BLOCK_D: tl.constexpr,
):  # fmt: skip
    """BLOCK_N rows of hidden [N, D] by one split of weight [V, D].

    largest and total [SPLITS, N]; chosen [N] is written by the split that has the row's target.
    """
    row = tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N)
    real = row < N
    target = tl.load(targets + row, mask=real, other=-1)
    first = tl.program_id(1) * words_a_split
    last = tl.minimum(first + words_a_split, V)
    m = tl.full([BLOCK_N], float("-inf"), tl.float32)
    s = tl.zeros([BLOCK_N], tl.float32)
    found = tl.zeros([BLOCK_N], tl.float32)
    column = tl.arange(0, BLOCK_D)
    rows = hidden + row.to(tl.int64)[:, None] * D
    for start in range(first, last, BLOCK_V):
        word = start + tl.arange(0, BLOCK_V)
        inside = word < last
        words = weight + word.to(tl.int64)[None, :] * D
        logits = tl.zeros([BLOCK_N, BLOCK_V], tl.float32)
        for d in range(0, D, BLOCK_D):
            within = d + column < D
            x = tl.load(rows + d + column[None, :], mask=real[:, None] & within[None, :], other=0.0)
            w = tl.load(words + d + column[:, None], mask=within[:, None] & inside[None, :], other=0.0)
            logits = tl.dot(x.to(DOT), w.to(DOT), logits, input_precision="ieee")
        if HAS_BIAS:
            logits += tl.load(bias + word, mask=inside, other=0.0).to(tl.float32)[None, :]
        logits = tl.where(inside[None, :], logits, float("-inf"))
        found += tl.sum(tl.where(word[None, :] == target[:, None], logits, 0.0), 1)
        higher = tl.maximum(m, tl.max(logits, 1))
        # A bias of -inf takes words out: where no word is left yet, nothing may be subtracted from -inf.
        zero = tl.where(higher == float("-inf"), 0.0, higher)
        s = s * tl.exp(m - zero) + tl.sum(tl.exp(logits - zero[:, None]), 1)
        m = higher
    at = tl.program_id(1).to(tl.int64) * N + row
    tl.store(largest + at, m, mask=real)
    tl.store(total + at, s, mask=real)
    mine = real & (target >= first) & (target < last)
    tl.store(chosen + row, found, mask=mine)


def launch(hidden: Tensor, weight: Tensor, targets: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor]:
    """Log-probs and the logarithm of the sum, float32 [N] each."""
    count, width = hidden.shape
    words = len(weight)
    if not count:
        return hidden.new_empty(0, dtype=torch.float32), hidden.new_empty(0, dtype=torch.float32)
    tile = product_tile(hidden.itemsize)
    splits = max(1, min(triton.cdiv(words, tile.words), WANTED_BLOCKS // triton.cdiv(count, tile.rows)))
    words_a_split = triton.cdiv(triton.cdiv(words, splits), tile.words) * tile.words
    splits = triton.cdiv(words, words_a_split)
    largest, total = hidden.new_empty((2, splits, count), dtype=torch.float32)
    chosen = hidden.new_empty(count, dtype=torch.float32)
    # bfloat16 is multiplied by tensor cores; Triton's interpreter does that in NumPy, which has none.
    dot = tl.float32 if hidden.dtype == torch.float32 or not hidden.is_cuda else DOT[hidden.dtype]
    with on_device(hidden):
        log_sum_exp[(triton.cdiv(count, tile.rows), splits)](
            hidden.contiguous(), weight.contiguous(), hidden if bias is None else bias.contiguous(), targets,
            largest, total, chosen, count, words, width, words_a_split,
            HAS_BIAS=bias is not None, DOT=dot, **tile.blocks, **tile.options,
        )  # fmt: skip
    normaliser = torch.logsumexp(largest + total.log(), 0)
    return chosen - normaliser, normaliser


DOT = {torch.bfloat16: tl.bfloat16, torch.float16: tl.float16, torch.float32: tl.float32}
TYPES = {"targets": "*i64", "largest": "*fp32", "total": "*fp32", "chosen": "*fp32"}


def specs() -> list[CompileSpec]:
    """The kernel for the widths of 1B and 8B models, with the bias that some heads have."""
    found = []
    for target in TARGETS:
        for dtype, itemsize, dot in (
            ("bf16", 2, tl.bfloat16),
            ("fp16", 2, tl.float16),
            ("fp32", 4, tl.float32),
        ):
            tile = product_tile(itemsize)
            pointers = dict.fromkeys(("hidden", "weight", "bias"), f"*{dtype}") | TYPES
            numbers = dict.fromkeys(("N", "V", "D", "words_a_split"), "i32")
            constants = {"HAS_BIAS": True, "DOT": dot, **tile.blocks}
            found.append(
                CompileSpec(
                    name="log_sum_exp",
                    fn=log_sum_exp,
                    types=pointers | numbers,
                    constexprs=constants,
                    aligned=(*pointers, "D"),
                    options=tile.options,
                    target=target,
                    dtype=dtype,
                    head_dim=4096,
                )
            )
    return found
