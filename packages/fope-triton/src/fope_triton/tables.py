"""cos and sin of a tile of positions, for kernels: rows of a head's tables, or sums made from the factored
basis.

The factored basis has two short tables of complex rows e^{iΩp}, coarse and fine: p = p_hi·ROWS + p_lo, and
e^{iΩp} = coarse[p_hi] · fine[p_lo]. It is a float32 tensor [2, ROWS, D, 2]; the last axis is (cos, sin). With
the coefficients [2, H, D, R], c[p, j] = Σ_k cos(Ω_k p) C[k, j] and the same for the sine. Sixteen frequencies
are summed at a time, so that few registers are held.
"""

# mypy: disable-error-code=no-untyped-def
# Triton gives the arguments of a kernel their types.
from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def table_rows(cos, sin, rows, inside, zero_sin, R, stride_cos, stride_sin, P: tl.constexpr):
    """cos and sin [N, P] of some rows of one head's tables; pairs from R on have 1 and `zero_sin`."""
    pair = tl.arange(0, P)[None, :]
    mask = inside[:, None] & (pair < R)
    c = tl.load(cos + rows[:, None] * stride_cos + pair, mask=mask, other=1.0)
    s = tl.load(sin + rows[:, None] * stride_sin + pair, mask=mask, other=0.0)
    return c, tl.where(pair < R, s, zero_sin)


@triton.jit
def factored_range(
    factors, coef, head, start, zero_sin, D, H, R,
    ROWS: tl.constexpr, PRECISION: tl.constexpr, P: tl.constexpr, N: tl.constexpr,
):  # fmt: skip
    """cos and sin [N, P] of the positions start … start+N-1; N ≤ ROWS.

    e^{iΩ(start+n)} is the row of `start` times row n of the fine table. Those N rows are the same for every
    start, so they stay in the multiprocessor's own cache.
    """
    n = tl.arange(0, N)[:, None]
    pair = tl.arange(0, P)[None, :]
    fine = factors + ROWS * (2 * D)
    c = tl.zeros([N, P], tl.float32)
    s = tl.zeros([N, P], tl.float32)
    for first in tl.range(0, D, 16, num_stages=1):
        k = first + tl.arange(0, 16)
        a, b = complex_row(factors + (start // ROWS) * (2 * D), k, D)
        e, f = complex_row(fine + (start % ROWS) * (2 * D), k, D)
        start_c, start_s = (a * e - b * f)[None, :], (a * f + b * e)[None, :]
        g, h = complex_row(fine + n * (2 * D), k[None, :], D)
        cos_coef, sin_coef = coefficients(coef, head, k[:, None], pair, D, H, R)
        c = tl.dot(start_c * g - start_s * h, cos_coef, c, input_precision=PRECISION)
        s = tl.dot(start_c * h + start_s * g, sin_coef, s, input_precision=PRECISION)
    return tl.where(pair < R, c, 1.0), tl.where(pair < R, s, zero_sin)


@triton.jit
def factored_rows(
    factors, coef, head, positions, zero_sin, D, H, R,
    ROWS: tl.constexpr, PRECISION: tl.constexpr, P: tl.constexpr, N: tl.constexpr,
):  # fmt: skip
    """cos and sin [N, P] of any N positions."""
    pair = tl.arange(0, P)[None, :]
    coarse = factors + (positions // ROWS)[:, None] * (2 * D)
    fine = factors + ROWS * (2 * D) + (positions % ROWS)[:, None] * (2 * D)
    c = tl.zeros([N, P], tl.float32)
    s = tl.zeros([N, P], tl.float32)
    for first in tl.range(0, D, 16, num_stages=1):
        k = first + tl.arange(0, 16)
        a, b = complex_row(coarse, k[None, :], D)
        e, f = complex_row(fine, k[None, :], D)
        cos_coef, sin_coef = coefficients(coef, head, k[:, None], pair, D, H, R)
        c = tl.dot(a * e - b * f, cos_coef, c, input_precision=PRECISION)
        s = tl.dot(a * f + b * e, sin_coef, s, input_precision=PRECISION)
    return tl.where(pair < R, c, 1.0), tl.where(pair < R, s, zero_sin)


@triton.jit
def complex_row(row, k, D):
    """Real and imaginary part of the numbers k of a row; those from D on are 0."""
    return tl.load(row + 2 * k, mask=k < D, other=0.0), tl.load(row + 2 * k + 1, mask=k < D, other=0.0)


@triton.jit
def coefficients(coef, head, k, pair, D, H, R):
    """The coefficients [16, P] of sixteen frequencies of one head, for cos and sin; zeros beyond D and R."""
    at = coef + (head * D + k) * R + pair
    kept = (k < D) & (pair < R)
    return tl.load(at, mask=kept, other=0.0), tl.load(at + H * D * R, mask=kept, other=0.0)
