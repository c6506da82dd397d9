"""The rotation: by hand, as a linear map, its gradients, layouts, and tables that do not fit."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.overrides import TorchFunctionMode

from fope import FopeConfig, FopeError, FourierPositionEmbedding, apply_fope, fope_basis, fope_tables
from fope.functional import factor_basis, factored_basis, series_tables


def tables(heads: int, length: int, pairs: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return tuple(
        torch.randn(heads, length, pairs, dtype=torch.float64, generator=generator) for _ in range(2)
    )


def by_hand(x: Tensor, cos: Tensor, sin: Tensor, zero_sin: float) -> Tensor:
    """The definition, entry by entry: x [heads, T, d], tables [H, T, R]."""
    y, P, group = torch.zeros_like(x), x.shape[-1] // 2, x.shape[0] // cos.shape[0]
    for i in range(x.shape[0]):
        for p in range(x.shape[1]):
            for j in range(P):
                kept = j < cos.shape[-1]
                c = cos[i // group, p, j] if kept else 1.0
                s = sin[i // group, p, j] if kept else zero_sin
                y[i, p, j] = x[i, p, j] * c - x[i, p, j + P] * s
                y[i, p, j + P] = x[i, p, j + P] * c + x[i, p, j] * s
    return y


def test_golden_values_by_hand() -> None:
    # d_h = 8, θ = 10⁴, L = 100: ω = 1, 0.1 kept of 1, 0.1, 0.01, 0.001. C = S = I, p = 3, ζ = 1.
    config = FopeConfig(8, 1, 100, init="eye")
    embedding = FourierPositionEmbedding(config)
    position = torch.tensor([3])
    cos, sin = embedding.cos_sin(position)
    assert cos.flatten().tolist() == pytest.approx([-0.9899925, 0.9553365])  # cos 3, cos 0.3
    assert sin.flatten().tolist() == pytest.approx([0.1411200, 0.2955202])  # sin 3, sin 0.3
    x = torch.arange(1.0, 9.0).view(1, 1, 1, 8)
    y, _ = embedding(x, x, position)
    assert y[0, 0, 0, 2].item() == 3 - 7
    assert y[0, 0, 0, 6].item() == 7 + 3
    assert y[0, 0, 0, 0].item() == pytest.approx(1 * -0.9899925 - 5 * 0.1411200)
    folded, _ = FourierPositionEmbedding(FopeConfig(8, 1, 100, init="eye", zero_sin=0.0))(x, x, position)
    assert folded[0, 0, 0, [2, 3, 6, 7]].tolist() == [3, 4, 7, 8]


@given(
    H=st.integers(1, 3),
    group=st.integers(1, 3),
    T=st.integers(0, 4),
    P=st.integers(1, 5),
    kept=st.integers(0, 5),
    zero_sin=st.sampled_from([0.0, 1.0, -1.0, 0.3]),
    inplace=st.booleans(),
)
@settings(max_examples=40, deadline=None)
def test_the_definition(
    H: int, group: int, T: int, P: int, kept: int, zero_sin: float, inplace: bool
) -> None:
    x = torch.randn(2, T, H * group, 2 * P, dtype=torch.float64).transpose(1, 2)
    cos, sin = tables(H, T, min(kept, P))
    expected = torch.stack([by_hand(part, cos, sin, zero_sin) for part in x])
    y = apply_fope(x, cos, sin, zero_sin, inplace=inplace)
    assert torch.allclose(y, expected, atol=1e-12)
    assert (y.data_ptr() == x.data_ptr()) == (inplace or not x.numel())


@given(
    P=st.integers(1, 16),
    group=st.integers(1, 4),
    zero_sin=st.floats(-2, 2),
    interleaved=st.booleans(),
    rest=st.integers(0, 4),
)
@settings(max_examples=30, deadline=None)
def test_the_backward_pass_is_the_transpose(
    P: int, group: int, zero_sin: float, interleaved: bool, rest: int
) -> None:
    cos, sin = tables(2, 5, max(1, P // 2))
    x, g = (torch.randn(2, 2 * group, 5, 2 * P + rest, dtype=torch.float64) for _ in range(2))
    options = {"interleaved": interleaved, "rotary_dim": 2 * P}
    x.requires_grad_()
    y = apply_fope(x, cos, sin, zero_sin, **options)
    y.backward(g)
    assert torch.allclose((y * g).sum(), (x * x.grad).sum(), rtol=1e-10, atol=1e-10)
    transposed = apply_fope(g, cos, -sin, -zero_sin, **options)
    assert torch.allclose(x.grad, transposed, atol=1e-12)


@pytest.mark.parametrize("interleaved", [False, True])
@pytest.mark.parametrize("batched", [False, True])
def test_gradients_of_x_and_of_trained_tables(interleaved: bool, batched: bool) -> None:
    cos, sin = tables(2, 3, 2)
    if batched:
        cos, sin = (torch.stack([table, table + 1]) for table in (cos, sin))
    x = torch.randn(2, 4, 3, 9, dtype=torch.float64, requires_grad=True)

    def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        return apply_fope(x, cos, sin, 1.0, interleaved=interleaved, rotary_dim=6)

    inputs = (x, cos.requires_grad_(), sin.requires_grad_())
    assert torch.autograd.gradcheck(rotate, inputs)
    assert torch.autograd.gradgradcheck(rotate, inputs)


def test_gradients_of_trained_coefficients() -> None:
    x = torch.randn(1, 4, 5, 12, dtype=torch.float64)
    positions, inv_freq = torch.arange(5), torch.tensor([1.0, 0.4, 0.1], dtype=torch.float64)
    basis = [part.double() for part in fope_basis(positions, inv_freq)]

    def scores(C: Tensor, S: Tensor) -> Tensor:
        rotated = apply_fope(x, *series_tables(*basis, C, S), 1.0)
        return rotated @ rotated.transpose(-1, -2)

    C, S = (torch.randn(2, 3, 3, dtype=torch.float64, requires_grad=True) for _ in range(2))
    assert torch.autograd.gradcheck(scores, (C, S))


def test_a_pair_is_scaled_but_not_orthogonal() -> None:
    cos, sin = tables(1, 6, 4)
    x = torch.randn(1, 1, 6, 8, dtype=torch.float64)
    y = apply_fope(x, cos, sin)
    norm = (y[..., :4] ** 2 + y[..., 4:] ** 2) / (x[..., :4] ** 2 + x[..., 4:] ** 2)
    assert torch.allclose(norm[0], cos**2 + sin**2)


def test_interleaved_is_half_split_with_channels_permuted() -> None:
    cos, sin = tables(2, 5, 3)
    x = torch.randn(1, 4, 5, 10, dtype=torch.float64)
    order = torch.stack([torch.arange(5), torch.arange(5, 10)], dim=1).flatten()  # pairs side by side
    interleaved = apply_fope(x[..., order], cos, sin, interleaved=True)
    assert torch.equal(interleaved, apply_fope(x, cos, sin)[..., order])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("inplace", [False, True])
@pytest.mark.parametrize("zero_sin", [0.0, 1.0])
def test_half_precision_is_rotated_in_float32(dtype: torch.dtype, inplace: bool, zero_sin: float) -> None:
    cos, sin = (table.float() for table in tables(2, 5, 3))
    x = torch.randn(2, 4, 5, 10).to(dtype)
    expected = apply_fope(x.float(), cos, sin, zero_sin).to(dtype)
    assert torch.equal(apply_fope(x.clone(), cos, sin, zero_sin, inplace=inplace), expected)


def test_in_place_works_on_views_and_in_backward() -> None:
    cos, sin = tables(2, 5, 3)
    h = torch.randn(2, 5, 40, dtype=torch.float64, requires_grad=True)
    gradients = []
    for inplace in (False, True):
        x = (h * 1.5).unflatten(-1, (4, 10)).transpose(1, 2)
        apply_fope(x, cos, sin, 0.0, inplace=inplace).square().sum().backward()
        gradients.append(h.grad)
        h.grad = None
    assert torch.allclose(*gradients)
    with pytest.raises(FopeError, match="trained tables"):
        apply_fope(torch.randn(1, 2, 5, 10).double(), cos.requires_grad_(), sin, inplace=True)


def test_the_compiled_formula_is_the_fast_path() -> None:
    cos, sin = (table.float() for table in tables(2, 5, 3))
    x = torch.randn(2, 4, 5, 12, requires_grad=True)
    for options in ({}, {"interleaved": True}, {"rotary_dim": 8}):
        compiled = torch.compile(apply_fope, fullgraph=True, backend="aot_eager")
        expected = apply_fope(x, cos, sin, 1.0, **options)
        torch.testing.assert_close(compiled(x, cos, sin, 1.0, **options), expected)


def test_angles_in_float64_are_exact_where_float32_is_not() -> None:
    positions = torch.tensor([0, 1, 1000, 2**18, 2**20 - 1])
    bank = FopeConfig(64, 2, 512).bank()
    exact = torch.outer(positions.double(), bank)
    cos, sin = fope_basis(positions, bank)
    assert torch.allclose(cos.double(), exact.cos(), atol=6e-8, rtol=0)
    assert torch.allclose(sin.double(), exact.sin(), atol=6e-8, rtol=0)
    assert (fope_basis(positions, bank.float())[0].double() - exact.cos()).abs().max() > 1e-3


@given(st.lists(st.integers(0, 2**20 - 1), min_size=1, max_size=50))
@settings(max_examples=20, deadline=None)
def test_the_factored_basis_is_the_direct_one(values: list[int]) -> None:
    positions = torch.tensor(values)
    bank = FopeConfig(64, 2, 512).bank()
    factors = factor_basis(bank, 2**20)
    assert factors.shape == (2, 1024, 16, 2)
    assert factors.numel() * 4 == 256 * 1024  # bytes, at a million positions
    for ours, direct in zip(factored_basis(positions, factors), fope_basis(positions, bank), strict=True):
        assert (ours - direct).abs().max() <= 3e-7


def test_factors_of_few_positions() -> None:
    assert factor_basis(torch.ones(3), 1).shape == (2, 1, 3, 2)
    with pytest.raises(FopeError, match="max_positions is 0"):
        factor_basis(torch.ones(3), 0)


class Products(TorchFunctionMode):
    """The dtypes that matrices are multiplied in."""

    def __init__(self) -> None:
        super().__init__()
        self.dtypes: set[torch.dtype] = set()

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if getattr(func, "__name__", "") in ("matmul", "__matmul__"):
            self.dtypes.add(args[0].dtype)
        return func(*args, **(kwargs or {}))


@pytest.fixture
def rounded_products() -> Iterator[None]:
    torch.set_float32_matmul_precision("medium")  # bfloat16 on CPUs, TF32 on GPUs
    yield
    torch.set_float32_matmul_precision("highest")


def test_tables_are_not_made_of_rounded_numbers(rounded_products: None) -> None:
    embedding = FourierPositionEmbedding(FopeConfig(16, 2, 100))
    positions = torch.arange(5)
    with Products() as seen:
        cos, _ = fope_tables(positions, embedding.inv_freq, embedding.cos_coef, embedding.sin_coef)
    assert cos.dtype == torch.float32
    assert seen.dtypes == {torch.float64}


@pytest.mark.gpu
@pytest.mark.parametrize("compiled", [False, True])
def test_tables_of_a_gpu_that_may_use_tf32(compiled: bool, rounded_products: None) -> None:
    embedding = FourierPositionEmbedding(FopeConfig(64, 8, 512))
    positions = torch.arange(4096)
    exact = torch.einsum(
        "td,hdr->htr", fope_basis(positions, embedding.inv_freq)[0].double(), embedding.cos_coef.double()
    )
    embedding.to("cuda")
    tables_at = torch.compile(embedding.cos_sin) if compiled else embedding.cos_sin
    ours = tables_at(positions.cuda())[0]
    assert torch.allclose(ours.double().cpu(), exact, atol=5e-6)


def test_tables_of_batched_positions_are_stacked() -> None:
    bank, C, S = torch.rand(3, dtype=torch.float64), torch.randn(2, 3, 4), torch.randn(2, 3, 4)
    positions = torch.tensor([[0, 5, 9], [3, 3, 1]])
    cos, sin = fope_tables(positions, bank, C, S)
    assert cos.shape == sin.shape == (2, 2, 3, 4)
    assert torch.allclose(cos[1], fope_tables(positions[1], bank, C, S)[0])
    angle = positions[1, 2] * bank
    assert torch.allclose(sin[1, 1, 2], angle.sin().float() @ S[1], atol=1e-6)


@pytest.mark.parametrize(
    ("x", "cos", "message"),
    [
        ((1, 4, 5, 10), (3, 5, 2), r"tables \[3, 5, 2\] do not fit x \[1, 4, 5, 10\].*divisor of 4"),
        ((1, 4, 5, 10), (2, 6, 2), r"expected \[H, 5, R\]"),
        ((1, 4, 5, 10), (2, 5, 6), "R at most 5"),
        ((2, 4, 5, 10), (3, 2, 5, 2), "do not fit"),
        ((4, 10), (2, 5, 2), "expected x"),
    ],
)
def test_tables_that_do_not_fit(x: tuple[int, ...], cos: tuple[int, ...], message: str) -> None:
    with pytest.raises(FopeError, match=message):
        apply_fope(torch.zeros(x), torch.zeros(cos), torch.zeros(cos))


def test_tables_of_the_wrong_kind() -> None:
    x, cos = torch.zeros(1, 2, 3, 4), torch.zeros(2, 3, 1)
    with pytest.raises(FopeError, match="must be alike"):
        apply_fope(x, cos, torch.zeros(2, 3, 2))
    with pytest.raises(FopeError, match=r"float32 .*got torch.bfloat16"):
        apply_fope(x, cos.bfloat16(), cos.bfloat16())
    with pytest.raises(FopeError, match="tables are on meta, x on cpu"):
        apply_fope(x, cos.to("meta"), cos.to("meta"))
    with pytest.raises(FopeError, match="rotary_dim is 6, more than the 4 channels"):
        apply_fope(x, cos, cos, rotary_dim=6)
