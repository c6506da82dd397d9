"""From chunks to codes and weights, and from the gradients of weights to those of chunks.

    bit_i = z_i >= 0        code = Σ_i bit_i · 2^(tau-1-i)        p = 1 / Π_i (1 + exp(-2|z_i|/t))
    weight = p ("softmax")  or  p · Σ_i |z_i|/t ("scaled")

A block takes whole chunks, padded to a power of two. Codes are made of integers; NaN compares false, so its
bit is 0, and makes the weight NaN.
"""

# mypy: disable-error-code=no-untyped-def
# Triton gives the arguments of a kernel their types.
from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from memoryformer_triton.backend import code_dtype, on_device, precision
from memoryformer_triton.tiles import CHUNKS


@triton.jit
def product(x, BLOCK: tl.constexpr, SIZE: tl.constexpr, LOG: tl.constexpr):
    """Product of x [BLOCK, SIZE] over its second axis, SIZE = 2^LOG ≥ 2; by pairs, always in one order."""
    for level in tl.static_range(1, LOG):
        even, odd = tl.split(tl.reshape(x, [BLOCK, SIZE >> level, 2]))
        x = even * odd
    even, odd = tl.split(x)
    return even * odd


@triton.jit
def code_and_size(
    z, chunk, inside, inverse, TAU: tl.constexpr, LOG: tl.constexpr, ACC: tl.constexpr, BLOCK: tl.constexpr
):
    """Code, p and Σ|z_i|/t of the rows `chunk` [BLOCK] of z [.., TAU], TAU ≤ 2^LOG; `inverse` is 1/t."""
    SIZE: tl.constexpr = 1 << LOG
    i = tl.arange(0, SIZE)[None, :]
    mask = inside[:, None] & (i < TAU)
    x = tl.load(z + chunk[:, None] * TAU + i, mask=mask, other=0.0).to(ACC)
    part = tl.abs(x) * inverse
    bits = tl.where(x >= 0, 1, 0) << (SIZE - 1 - i)
    factors = tl.where(mask, 1.0 + tl.exp(-2.0 * part), 1.0)
    return tl.sum(bits, 1) >> (SIZE - TAU), 1.0 / product(factors, BLOCK, SIZE, LOG), tl.sum(part, 1)


@triton.jit
def code_and_weight(
    z, chunk, inside, inverse,
    TAU: tl.constexpr, LOG: tl.constexpr, SCALED: tl.constexpr, ACC: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Code and weight of the rows `chunk` [BLOCK] of z [.., TAU]."""
    code, weight, size = code_and_size(z, chunk, inside, inverse, TAU, LOG, ACC, BLOCK)
    if SCALED:
        weight *= size
    return code, weight


@triton.jit
def hash_chunks(
    z, codes, weights, count, inverse,
    TAU: tl.constexpr, LOG: tl.constexpr, SCALED: tl.constexpr, ACC: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Codes and weights [count] of z [count, TAU]."""
    chunk = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = chunk < count
    code, weight = code_and_weight(z, chunk, inside, inverse, TAU, LOG, SCALED, ACC, BLOCK)
    tl.store(codes + chunk, code.to(codes.dtype.element_ty), mask=inside)
    tl.store(weights + chunk, weight, mask=inside)


@triton.jit
def input_grad(
    z, q, dz, count, inverse,
    TAU: tl.constexpr, LOG: tl.constexpr, SCALED: tl.constexpr, ACC: tl.constexpr,
    PARTS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """dz [count, TAU] = q · ∂weight/∂z, where q is the sum of [PARTS, count]; s_i is the sign, 0 at 0.

    softmax: p s_i (2/t) σ(-2|z_i|/t);  scaled: s_i (p/t) (1 + Σ_j|z_j|/t · 2σ(-2|z_i|/t)).
    """
    chunk = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = chunk < count
    _, slope, size = code_and_size(z, chunk, inside, inverse, TAU, LOG, ACC, BLOCK)
    received = tl.zeros([BLOCK], ACC)
    for part in tl.static_range(PARTS):
        received += tl.load(q + tl.cast(part, tl.int64) * count + chunk, mask=inside, other=0.0)
    slope *= received * inverse
    i = tl.arange(0, 1 << LOG)[None, :]
    mask = inside[:, None] & (i < TAU)
    at = chunk[:, None] * TAU + i
    x = tl.load(z + at, mask=mask, other=0.0).to(ACC)
    falling = 2.0 / (1.0 + tl.exp(2.0 * tl.abs(x) * inverse))
    if SCALED:
        falling = 1.0 + size[:, None] * falling
    sign = tl.where(x > 0, 1.0, tl.where(x < 0, -1.0, 0.0)).to(ACC)
    tl.store(dz + at, (sign * slope[:, None] * falling).to(dz.dtype.element_ty), mask=mask)


def log_of(tau: int) -> int:
    """Return the exponent of the power of two from 2 on that holds tau."""
    return max(1, (tau - 1).bit_length())


def divided(z: Tensor, temperature: float) -> tuple[Tensor, float]:
    """Return what a kernel is given for z/t: z, and the number that it multiplies by.

    Triton compiles a number of Python's as float32, too coarse for float64, which is divided here.
    """
    inverse = 1.0 / temperature
    return (z * inverse, 1.0) if z.dtype == torch.float64 and inverse != 1.0 else (z, inverse)


def launch_hash(z: Tensor, score: str, temperature: float) -> tuple[Tensor, Tensor]:
    """Return codes [N, K], uint8 or int32, and weights [N, K], float32 or float64, of z [N, K, tau]."""
    dtype, acc = precision(z)
    tau = z.shape[-1]
    codes = z.new_empty(z.shape[:-1], dtype=code_dtype(tau))
    weights = z.new_empty(z.shape[:-1], dtype=dtype)
    if codes.numel():
        z, inverse = divided(z, temperature)
        with on_device(z):
            hash_chunks[(triton.cdiv(codes.numel(), CHUNKS.things),)](
                z.contiguous(), codes, weights, codes.numel(), inverse,
                TAU=tau, LOG=log_of(tau), SCALED=score == "scaled", ACC=acc,
                BLOCK=CHUNKS.things, **CHUNKS.options,
            )  # fmt: skip
    return codes, weights


def launch_input_grad(z: Tensor, q: Tensor, score: str, temperature: float) -> Tensor:
    """Return dz, like z [N, K, tau], of q [parts, N, K], whose parts are summed in order."""
    dz = torch.empty_like(z, memory_format=torch.contiguous_format)
    if dz.numel():
        count, tau = q[0].numel(), z.shape[-1]
        z, inverse = divided(z, temperature)
        with on_device(z):
            input_grad[(triton.cdiv(count, CHUNKS.things),)](
                z.contiguous(), q, dz, count, inverse,
                TAU=tau, LOG=log_of(tau), SCALED=score == "scaled",
                ACC=precision(z)[1], PARTS=len(q), BLOCK=CHUNKS.things, **CHUNKS.options,
            )  # fmt: skip
        if inverse != 1.0 / temperature:  # the kernel gave the slopes at z/t: the chain rule's factor is left
            dz *= 1.0 / temperature
    return dz
