"""The same numbers from `F.embedding_bag`, from torch's quantized bag, and from the authors' formulation."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from memoryformer_cpu import memory_lookup, raw

pytestmark = pytest.mark.usefixtures("instruction_set")

N, K, TAU, H = 37, 19, 6, 133  # no multiple of anything


def leaves() -> tuple[Tensor, Tensor, Tensor]:
    z, tables, bias = torch.randn(N, K, TAU), torch.randn(K, 2**TAU, H), torch.randn(H)
    return z.requires_grad_(), tables.requires_grad_(), bias.requires_grad_()


def official(z: Tensor, tables: Tensor, bias: Tensor) -> Tensor:
    """As the authors' torch path does: bits weighed by powers of two, p over both signs, rows gathered."""
    bits = (z >= 0).to(z.dtype)
    code = (bits * 2.0 ** torch.arange(TAU - 1, -1, -1)).sum(-1).long()
    magnitude = z.abs()
    score = torch.exp(magnitude.sum(-1)) / (torch.exp(z) + torch.exp(-z)).prod(-1) * magnitude.sum(-1)
    rows = tables.flatten(0, 1)[code + torch.arange(K) * 2**TAU]  # [N, K, H]
    return (rows * score[..., None]).sum(1) + bias


def bag(z: Tensor, tables: Tensor, bias: Tensor) -> Tensor:
    """Hash in torch, rows and their weighted sum by `F.embedding_bag`."""
    code = ((z >= 0) * 2 ** torch.arange(TAU - 1, -1, -1)).sum(-1) + torch.arange(K) * 2**TAU
    a = z.abs()
    weights = a.sum(-1) / (1 + torch.exp(-2 * a)).prod(-1)
    return F.embedding_bag(code, tables.flatten(0, 1), per_sample_weights=weights, mode="sum") + bias


@pytest.mark.parametrize("peer", [official, bag])
def test_output_and_gradients_are_those_of(peer: object) -> None:
    assert callable(peer)
    z, tables, bias = leaves()
    g = torch.randn(N, H)
    ours, theirs = memory_lookup(z, tables, bias), peer(z, tables, bias)
    torch.testing.assert_close(ours, theirs, rtol=2e-5, atol=1e-4)
    ours = torch.autograd.grad(ours, (z, tables, bias), g)
    theirs = torch.autograd.grad(theirs, (z, tables, bias), g)
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=2e-3)


def quantized(tables: Tensor) -> tuple[Tensor, Tensor]:
    """Rows as int8 and their scales, largest number to 127."""
    scales = tables.abs().amax(-1).clamp(min=1e-12) / 127
    return (tables / scales[..., None]).round().to(torch.int8), scales


def test_int8_tables_are_the_tables_they_stand_for() -> None:
    z, tables, bias = (x.detach() for x in leaves())
    q, scales = quantized(tables)
    y, codes, weights = raw.forward(z, q, bias, scales)
    expected, codes_too, weights_too = raw.forward(z, q * scales[..., None], bias)
    torch.testing.assert_close(y, expected, rtol=2e-5, atol=2e-5)
    assert torch.equal(codes, codes_too)
    assert torch.equal(weights, weights_too)  # the scale is not in them
    torch.testing.assert_close(memory_lookup(z, q, bias, scales=scales), y, rtol=0, atol=0)


def test_int8_error_is_below_one_per_cent() -> None:
    """On Gaussian tables; 0.7 to 0.8 % is what 8 bits a number leave."""
    z, tables = torch.randn(64, 32, 8), torch.randn(32, 256, 256)
    q, scales = quantized(tables)
    exact = raw.output(z, tables)
    error = (raw.output(z, q, None, scales) - exact).norm() / exact.norm()
    assert 0.001 < error < 0.01


def test_one_scale_a_table_is_that_scale_in_every_row() -> None:
    z, q = torch.randn(N, K, TAU), torch.randint(-127, 128, (K, 2**TAU, H), dtype=torch.int8)
    scale = torch.rand(K, 1)
    every = scale.expand(K, 2**TAU).contiguous()
    assert torch.equal(raw.output(z, q, None, scale), raw.output(z, q, None, every))


def test_torchs_quantized_bag_gives_the_same_on_its_own_rows() -> None:
    """It packs a row as unsigned bytes with a scale and an offset; what it unpacks are our float tables."""
    z, tables = torch.randn(N, K, TAU), torch.randn(K, 2**TAU, 132)
    packed = torch.ops.quantized.embedding_bag_byte_prepack(tables.flatten(0, 1))
    rows = torch.ops.quantized.embedding_bag_byte_unpack(packed).view_as(tables)
    y, codes, weights = raw.forward(z, rows)
    theirs = torch.ops.quantized.embedding_bag_byte_rowwise_offsets(
        packed,
        (codes + torch.arange(K) * 2**TAU).flatten(),
        torch.arange(0, N * K, K),
        mode=0,
        per_sample_weights=weights.flatten(),
    )
    torch.testing.assert_close(y, theirs, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("tables", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("z", [torch.float32, torch.bfloat16, torch.float16])
def test_half_precision_is_summed_in_float32_and_rounded_once(tables: torch.dtype, z: torch.dtype) -> None:
    x, rows, bias = torch.randn(N, K, TAU).to(z), torch.randn(K, 2**TAU, H).to(tables), torch.randn(H)
    y = raw.output(x, rows, bias)
    single = raw.output(x.float(), rows.float(), bias)
    assert y.dtype is z
    assert torch.equal(y, single.to(z))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_gradients_in_half_precision_are_those_in_float32_rounded_once(dtype: torch.dtype) -> None:
    z, tables, g = torch.randn(N, K, TAU).to(dtype), torch.randn(K, 2**TAU, H).to(dtype), torch.randn(N, H)
    _, codes, weights = raw.forward(z, tables)
    ours = raw.backward(g.to(dtype), z, tables, codes, weights)
    single = raw.backward(g.to(dtype).float(), z.float(), tables.float(), codes, weights)
    for a, b, kind in zip(ours, single, (dtype, dtype, torch.float32), strict=True):
        assert a is not None
        assert b is not None
        assert torch.equal(a, b.to(kind))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_every_number_of_half_precision_is_read_and_written_exactly(dtype: torch.dtype) -> None:
    """All 65,536 bit patterns as a table of one chunk with weight 1/2 (z = 0, tau 1): half of each number."""
    every = torch.arange(-(2**15), 2**15, dtype=torch.int32).to(torch.int16).view(dtype)
    y = raw.output(torch.zeros(1, 1, 1, dtype=dtype), every.expand(1, 2, -1), score="softmax")
    torch.testing.assert_close(y[0], (every.float() * 0.5).to(dtype), rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
@pytest.mark.parametrize("tau", [8, 9, 12, 16])
def test_codes_are_exact_in_every_dtype(dtype: torch.dtype, tau: int) -> None:
    """Summed in bfloat16 a code of more than 8 bits is wrong; here every code comes out, or 2,000 of them."""
    wanted = torch.arange(2**tau) if tau < 12 else torch.randint(0, 2**tau, (2000,))
    bits = wanted[:, None] >> torch.arange(tau - 1, -1, -1) & 1
    z = ((bits * 2 - 1) * (torch.rand(len(wanted), tau) + 0.1)).to(dtype)
    codes = raw.forward(z[:, None], torch.zeros(1, 2**tau, 1))[1]
    assert torch.equal(codes[:, 0], wanted.int())
