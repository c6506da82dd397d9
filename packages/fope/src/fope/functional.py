"""The embedding as functions of plain tensors: basis, tables, rotation. Autograd works through all of them.

Half-split pairing: channel j turns with channel j + P; `interleaved` (GPT-J): 2j with 2j + 1. For pair j < R

    y1 = x1·c[h, p, j] − x2·s[h, p, j]        y2 = x2·c[h, p, j] + x1·s[h, p, j]

and for the pairs from R on, whose frequency is zero, c = 1 and s = `zero_sin`.
"""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any, NamedTuple

import torch
from torch import Tensor

from fope.errors import FopeError


def fope_basis(positions: Tensor, inv_freq: Tensor) -> tuple[Tensor, Tensor]:
    """cos pΩ and sin pΩ, float32 [..., T, D], of positions [..., T] and frequencies [D].

    The angle is computed in the dtype of `inv_freq`: in float64 it is exact to 1e-10 at a million positions,
    in float32, as the released code has it, off by 0.04 there.
    """
    angles = positions.unsqueeze(-1).to(inv_freq.dtype) * inv_freq.to(positions.device)
    return angles.cos().float(), angles.sin().float()


def factor_basis(inv_freq: Tensor, max_positions: int) -> Tensor:
    """The tables from which `factored_basis` makes any basis row below `max_positions`: float32 [2, B, D, 2].

    With p = p_hi·B + p_lo: e^{iΩp} = e^{iΩ p_hi B} · e^{iΩ p_lo}. The first table holds the coarse factors,
    the second the fine ones, as (cos, sin); B is the power of two from √max_positions on (256 KiB at a
    million positions and 16 frequencies).
    """
    if max_positions < 1:
        raise FopeError(f"max_positions is {max_positions}; it must be at least 1")
    rows = 1
    while rows * rows < max_positions:
        rows *= 2
    steps = torch.arange(rows, dtype=torch.float64, device=inv_freq.device)
    angles = torch.stack([steps * rows, steps]).unsqueeze(-1) * inv_freq.double()
    return torch.stack([angles.cos(), angles.sin()], dim=-1).float()


def factored_basis(positions: Tensor, factors: Tensor) -> tuple[Tensor, Tensor]:
    """cos pΩ and sin pΩ, float32 [..., T, D], from the tables of `factor_basis`: four products, no angle."""
    rows = factors.shape[1]
    a, b = factors[0, positions // rows].unbind(-1)
    c, d = factors[1, positions % rows].unbind(-1)
    return a * c - b * d, a * d + b * c


def series_tables(
    basis_cos: Tensor, basis_sin: Tensor, cos_coef: Tensor, sin_coef: Tensor
) -> tuple[Tensor, Tensor]:
    """c = bc·C and s = bs·S: tables [..., H, T, R] of a basis [..., T, D] and coefficients [H, D, R].

    One matrix product each for all heads. The result is a view of contiguous [..., T, H, R] storage, the
    order in which a layer's projection writes its heads.
    """
    H, D, R = cos_coef.shape

    def table(basis: Tensor, coef: Tensor) -> Tensor:
        weights = coef.permute(1, 0, 2).reshape(D, H * R)
        return _product(basis, weights).unflatten(-1, (H, R)).transpose(-3, -2)

    device = basis_cos.device.type
    with nullcontext() if device == "meta" else torch.autocast(device, enabled=False):  # meta has none
        return table(basis_cos, cos_coef), table(basis_sin, sin_coef)


def _product(basis: Tensor, weights: Tensor) -> Tensor:
    """basis @ weights [D, N] with factors as they are; TF32, where a user allows it, would be 7e-4 off."""
    device = basis.device.type
    if torch.compiler.is_compiling() and device != "cpu":
        return (basis.unsqueeze(-1) * weights).sum(-2)  # which the compiler makes one kernel of
    if not torch.compiler.is_compiling() and _products_are_rounded(device):
        return (basis.double() @ weights.double()).to(basis.dtype)
    return basis @ weights


def _products_are_rounded(device: str) -> bool:
    """Whether `torch.set_float32_matmul_precision` or its like has float32 multiplied as TF32 or bfloat16."""
    products = {"cuda": torch.backends.cuda.matmul, "cpu": torch.backends.mkldnn.matmul}.get(device)  # type: ignore[attr-defined]
    return products is not None and products.fp32_precision in ("tf32", "bf16")


def fope_tables(
    positions: Tensor, inv_freq: Tensor, cos_coef: Tensor, sin_coef: Tensor
) -> tuple[Tensor, Tensor]:
    """cos and sin of every head: [H, T, R] for positions [T], [B, H, T, R] for [B, T]; float32.

    `inv_freq` [D] in the precision wanted for angles, coefficients [H, D, R].
    """
    return series_tables(*fope_basis(positions, inv_freq), cos_coef, sin_coef)


def apply_fope(
    x: Tensor,
    cos: Tensor,
    sin: Tensor,
    zero_sin: float = 1.0,
    *,
    interleaved: bool = False,
    rotary_dim: int | None = None,
    inplace: bool = False,
) -> Tensor:
    """Rotate queries or keys x [B, heads, T, d] by tables [H, T, R] or [B, H, T, R]; float32 inside, x's
    dtype out.

    Head i of x uses table i // (heads / H). Channels from `rotary_dim` on are left alone. The backward pass
    is the transpose, s → −s (the rotation is not orthogonal), and reaches cos and sin where they are trained.
    `inplace` writes into x; with `zero_sin` 0 only the R kept pairs are then read or written.
    Raises `FopeError` for tables that do not fit x.
    """
    pairs = (x.shape[-1] if rotary_dim is None else rotary_dim) // 2
    _check_tables(x, cos, sin, pairs)
    layout = _Layout(pairs, cos.shape[-1], zero_sin, interleaved)
    if torch.compiler.is_compiling():
        rotated = _rotate_by_formula(x, cos, sin, layout)
        return x.copy_(rotated) if inplace else rotated
    if torch.is_grad_enabled() and (x.requires_grad or cos.requires_grad or sin.requires_grad):
        return _Rotation.apply(x, cos, sin, layout, inplace)
    if inplace:
        _rotate_inplace(x, cos, sin, layout)
        return x
    y = torch.empty_like(x)
    _rotate_into(y, x, cos, sin, layout)
    return y


class _Layout(NamedTuple):
    """Where the pairs are: P of them, R with a table, the others turned by `zero_sin`."""

    pairs: int
    kept: int
    zero_sin: float
    interleaved: bool

    def parts(self, x: Tensor) -> tuple[Tensor, ...]:
        """Views of the first and second channels of kept pairs [..., R] and of the others [..., P − R]."""
        P, R = self.pairs, self.kept
        turned = x if x.shape[-1] == 2 * P else x[..., : 2 * P]
        if self.interleaved:
            kept, rest = turned.unflatten(-1, (P, 2)).split((R, P - R), dim=-2)
            return (*kept.unbind(-1), *rest.unbind(-1))
        kept1, rest1, kept2, rest2 = turned.split((R, P - R, R, P - R), dim=-1)
        return kept1, kept2, rest1, rest2

    def transposed(self) -> _Layout:
        return self._replace(zero_sin=-self.zero_sin)


class _Rotation(torch.autograd.Function):
    """y = R(p) x, whose gradient is R(p)ᵀ dy."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, cos: Tensor, sin: Tensor, layout: _Layout, inplace: bool) -> Tensor:
        learnable = cos.requires_grad or sin.requires_grad
        if inplace and learnable:
            raise FopeError(
                "inplace=True overwrites what trained tables need for their gradient; use inplace=False"
            )
        ctx.layout = layout
        ctx.save_for_backward(cos, sin, x if learnable else None)
        if inplace:
            ctx.mark_dirty(x)
            _rotate_inplace(x, cos, sin, layout)
            return x
        y = torch.empty_like(x)
        _rotate_into(y, x, cos, sin, layout)
        return y

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        (dy,) = grads
        cos, sin, x = ctx.saved_tensors
        layout: _Layout = ctx.layout
        dx = dcos = dsin = None
        if ctx.needs_input_grad[0]:
            dx = _Rotation.apply(dy, cos, -sin, layout.transposed(), False)
        if x is not None:
            x1, x2 = (_by_group(part, cos).to(cos.dtype) for part in layout.parts(x)[:2])
            dy1, dy2 = (_by_group(part, cos).to(cos.dtype) for part in layout.parts(dy)[:2])
            dcos = _sum_to_table(dy1 * x1 + dy2 * x2, cos)
            dsin = _sum_to_table(dy2 * x1 - dy1 * x2, sin)
        return dx, dcos, dsin, None, None


def _by_group(x: Tensor, table: Tensor) -> Tensor:
    """[B, heads, T, R] as [B, H, G, T, R], so that tables [H, 1, T, R] broadcast over a group."""
    return x.unflatten(-3, (table.shape[-3], -1))


def _sum_to_table(products: Tensor, table: Tensor) -> Tensor:
    """Sum [B, H, G, T, R] over the group, and over the batch where the table has none."""
    summed = products.sum(dim=-3)
    return summed.sum(dim=0) if summed.dim() > table.dim() else summed.sum_to_size(table.shape)


def _broadcast(x: Tensor, cos: Tensor, sin: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """x, cos and sin with a dimension for the group, where heads share a table."""
    if x.shape[-3] == cos.shape[-3]:
        return x, cos, sin
    return _by_group(x, cos), cos.unsqueeze(-3), sin.unsqueeze(-3)


def _rotate_by_formula(x: Tensor, cos: Tensor, sin: Tensor, layout: _Layout) -> Tensor:
    """The rotation in ordinary operations, for compilers to fuse."""
    by_group, c, s = _broadcast(x, cos, sin)
    kept1, kept2, rest1, rest2 = (part.to(cos.dtype) for part in layout.parts(by_group))
    zeta = layout.zero_sin
    y1 = torch.cat([kept1 * c - kept2 * s, rest1 - zeta * rest2], dim=-1)
    y2 = torch.cat([kept2 * c + kept1 * s, rest2 + zeta * rest1], dim=-1)
    turned = torch.stack([y1, y2], dim=-1).flatten(-2) if layout.interleaved else torch.cat([y1, y2], dim=-1)
    untouched = x[..., 2 * layout.pairs :]
    return torch.cat([turned.to(x.dtype).view(*x.shape[:-1], -1), untouched], dim=-1)


def _rotate_into(y: Tensor, x: Tensor, cos: Tensor, sin: Tensor, layout: _Layout) -> None:
    """Write the rotation of x to y, in four passes over the kept pairs and two over the others."""
    if x.dtype != cos.dtype:
        wide = x.to(cos.dtype)
        _rotate_inplace(wide, cos, sin, layout)
        y.copy_(wide)
        return
    if x.shape[-1] > 2 * layout.pairs:
        y[..., 2 * layout.pairs :] = x[..., 2 * layout.pairs :]
    x, c, s = _broadcast(x, cos, sin)
    x1, x2, rest1, rest2 = layout.parts(x)
    y1, y2, out1, out2 = layout.parts(y if y.dim() == x.dim() else _by_group(y, cos))
    torch.mul(x1, c, out=y1).addcmul_(x2, s, value=-1)
    torch.mul(x2, c, out=y2).addcmul_(x1, s)
    if layout.kept < layout.pairs:
        torch.sub(rest1, rest2, alpha=layout.zero_sin, out=out1)
        torch.add(rest2, rest1, alpha=layout.zero_sin, out=out2)


def _rotate_inplace(x: Tensor, cos: Tensor, sin: Tensor, layout: _Layout) -> None:
    """Rotate x where it stands; pairs of frequency zero are not touched if their sine is 0."""
    x, c, s = _broadcast(x, cos, sin)
    x1, x2, rest1, rest2 = layout.parts(x)
    first, second = x1.to(cos.dtype, copy=True), x2.to(cos.dtype)
    if x.dtype == cos.dtype:
        x1.mul_(c).addcmul_(second, s, value=-1)
        x2.mul_(c).addcmul_(first, s)
    else:
        x1.copy_((first * c).addcmul_(second, s, value=-1))
        x2.copy_((second * c).addcmul_(first, s))
    if layout.zero_sin and layout.kept < layout.pairs:
        first, second = rest1.to(cos.dtype, copy=True), rest2.to(cos.dtype)
        rest1.copy_(torch.sub(first, second, alpha=layout.zero_sin))
        rest2.copy_(torch.add(second, first, alpha=layout.zero_sin))


def _check_tables(x: Tensor, cos: Tensor, sin: Tensor, pairs: int) -> None:
    if 2 * pairs > x.shape[-1]:
        raise FopeError(
            f"rotary_dim is {2 * pairs}, more than the {x.shape[-1]} channels of x {list(x.shape)}"
        )
    if not x.is_floating_point():
        raise FopeError(f"x is {x.dtype}; queries and keys must be floating point")
    if x.dim() < 3 or cos.dim() < 3 or cos.dim() > x.dim():
        raise FopeError(
            f"expected x [B, heads, T, d] and tables [H, T, R] or [B, H, T, R], "
            f"got x {list(x.shape)} and cos {list(cos.shape)}"
        )
    if cos.shape != sin.shape or cos.dtype != sin.dtype:
        raise FopeError(
            f"cos and sin must be alike, got {list(cos.shape)} {cos.dtype} and {list(sin.shape)} {sin.dtype}"
        )
    heads, length, _ = x.shape[-3:]
    H, T, R = cos.shape[-3:]
    batch_fits = cos.dim() == 3 or cos.shape[0] in (1, x.shape[0])
    if heads % H or length != T or pairs < R or not batch_fits:
        raise FopeError(
            f"tables {list(cos.shape)} do not fit x {list(x.shape)}: expected [H, {length}, R] or "
            f"[{x.shape[0]}, H, {length}, R] with H a divisor of {heads} and R at most {pairs}"
        )
    if cos.dtype not in (torch.float32, torch.float64):
        raise FopeError(
            f"tables must be float32 (or float64), got {cos.dtype}: bfloat16 tables are off by 2e-3"
        )
    if cos.device != x.device:
        raise FopeError(f"tables are on {cos.device}, x on {x.device}")
