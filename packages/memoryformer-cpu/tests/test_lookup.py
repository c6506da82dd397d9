"""The look-up against an obvious loop, numbers by hand and brute force; its gradients; torch's own checks."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from memoryformer_cpu import memory_lookup, raw

pytestmark = pytest.mark.usefixtures("instruction_set")


def loop(
    z: Tensor, tables: Tensor, bias: Tensor | None, score: str, t: float
) -> tuple[Tensor, Tensor, Tensor]:
    """The look-up of sections 2.1 and 2.2, differentiable, one chunk after another."""
    tau = z.shape[-1]
    codes = ((z >= 0).long() * 2 ** torch.arange(tau - 1, -1, -1)).sum(-1)
    a = z.abs() / t
    weights = (1 / (1 + torch.exp(-2 * a))).prod(-1)
    if score == "scaled":
        weights = weights * a.sum(-1)
    y = sum(weights[:, k, None] * tables[k, codes[:, k]] for k in range(z.shape[1]))
    assert isinstance(y, Tensor)
    return y if bias is None else y + bias, codes, weights


CHUNKS = torch.tensor([[[-1.1, -2.7, 0.6], [3.4, -1.9, -2.3], [3.1, 0.6, 0.1]]])


def test_the_chunks_of_figure_3() -> None:
    tables = torch.randn(3, 8, 5)
    _, codes, p = raw.forward(CHUNKS, tables, score="softmax")
    assert codes.tolist() == [[1, 4, 7]]
    torch.testing.assert_close(p, torch.tensor([[0.688753, 0.967307, 0.421705]]), rtol=0, atol=1e-6)
    y, _, w = raw.forward(CHUNKS, tables)
    torch.testing.assert_close(w, torch.tensor([[3.030514, 7.351536, 1.602480]]), rtol=0, atol=2e-6)
    torch.testing.assert_close(y[0], w[0] @ torch.stack([tables[0, 1], tables[1, 4], tables[2, 7]]))


@pytest.mark.parametrize("tau", range(1, 11))
@pytest.mark.parametrize("t", [0.3, 1.0, 4.0])
def test_p_is_the_softmax_over_all_sign_patterns(tau: int, t: float) -> None:
    """Eq. 9: p = exp(<z, sign z>/t) / sum over u in {-1, 1}^tau of exp(<z, u>/t), by brute force."""
    z = torch.randn(4, 3, tau, dtype=torch.float64)
    patterns = 2.0 * (torch.arange(2**tau)[:, None] >> torch.arange(tau) & 1) - 1
    expected = torch.softmax(z @ patterns.to(z).T / t, -1).max(-1).values
    p = raw.forward(z, torch.zeros(3, 2**tau, 1, dtype=torch.float64), None, None, "softmax", t)[2]
    torch.testing.assert_close(p, expected, rtol=1e-12, atol=0)
    single = raw.forward(z.float(), torch.zeros(3, 2**tau, 1), None, None, "softmax", t)[2]
    torch.testing.assert_close(single.double(), expected, rtol=2e-6, atol=0)


def test_zero_is_bit_one_whatever_its_sign_and_p_is_2_to_the_minus_tau() -> None:
    z = torch.tensor([[[0.0, -0.0, 0.0, -0.0]]])
    _, codes, p = raw.forward(z, torch.zeros(1, 16, 1), score="softmax")
    assert (codes.item(), p.item()) == (15, 1 / 16)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_huge_numbers_have_p_one(dtype: torch.dtype) -> None:
    z = torch.tensor([[[1e30, -1e30, 3e38, -math.inf]]], dtype=dtype)
    _, codes, p = raw.forward(z, torch.zeros(1, 16, 1), score="softmax")
    assert (codes.item(), p.item()) == (0b1010, 1.0)


@pytest.mark.parametrize("tables", [torch.zeros(2, 8, 7), torch.zeros(2, 8, 7, dtype=torch.int8)])
@pytest.mark.parametrize("score", ["scaled", "softmax"])
def test_nan_has_bit_zero_and_makes_its_token_nan(tables: Tensor, score: str) -> None:
    z = torch.ones(3, 2, 3)
    z[1, 1, 2] = math.nan
    scales = torch.ones(2, 1) if tables.dtype is torch.int8 else None
    y, codes, _ = raw.forward(z, tables, None, scales, score)
    assert codes.tolist() == [[7, 7], [7, 6], [7, 7]]
    assert y.isnan().all(-1).tolist() == [False, True, False]


@st.composite
def problems(draw: st.DrawFn) -> tuple[int, int, int, int]:
    tau = draw(st.integers(1, 16))
    most = 2 ** (18 - tau)  # K · h, so that tables have at most 2**18 numbers
    k = draw(st.integers(1, min(40, most)))
    return draw(st.integers(0, 40)), k, tau, draw(st.integers(1, min(300, most // k)))


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 2e-5), (torch.float64, 1e-10)])
@settings(deadline=None, max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    shape=problems(), score=st.sampled_from(["scaled", "softmax"]), t=st.floats(0.3, 4), biased=st.booleans()
)
def test_forward_and_backward_are_those_of_the_loop(
    dtype: torch.dtype, tolerance: float, shape: tuple[int, ...], score: str, t: float, biased: bool
) -> None:
    n, k, tau, h = shape
    z = torch.randn(n, k, tau, dtype=dtype, requires_grad=True)
    tables = torch.randn(k, 2**tau, h, dtype=dtype, requires_grad=True)
    bias = torch.randn(h, dtype=dtype, requires_grad=True) if biased else None
    leaves = [z, tables] if bias is None else [z, tables, bias]
    y = memory_lookup(z, tables, bias, score=score, temperature=t)
    expected, codes, _ = loop(z, tables, bias, score, t)
    g = torch.randn(n, h, dtype=dtype)
    ours, theirs = torch.autograd.grad(y, leaves, g), torch.autograd.grad(expected, leaves, g)
    for a, b in zip((y, *ours), (expected, *theirs), strict=True):
        largest = float(b.detach().abs().amax()) if b.numel() else 1.0
        torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance * max(1.0, largest))
    hit = torch.zeros(k, 2**tau, dtype=torch.bool)
    hit[torch.arange(k).expand(n, k), codes] = True
    assert torch.equal(ours[1][~hit], torch.zeros_like(ours[1][~hit]))


@pytest.mark.parametrize("score", ["scaled", "softmax"])
def test_gradcheck(score: str) -> None:
    z = torch.randn(2, 3, 2, 3, dtype=torch.float64)
    z = (z + 0.1 * z.sign()).requires_grad_()  # not so near to zero that a step changes a bit
    tables = torch.randn(2, 8, 5, dtype=torch.float64, requires_grad=True)
    bias = torch.randn(5, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(
        lambda *x: memory_lookup(*x, score=score, temperature=0.7), (z, tables, bias)
    )


def test_opcheck() -> None:
    z, tables, bias = torch.randn(6, 2, 3), torch.randn(2, 8, 5), torch.randn(5)
    learning = [x.requires_grad_() for x in (z, tables, bias)]
    for args in (
        (z, tables, None),
        (z.detach(), tables.detach(), bias.detach()),
        (*learning,),
        (z.detach().half(), tables.detach().bfloat16(), None),
    ):
        torch.library.opcheck(torch.ops.memoryformer_cpu.lookup.default, (*args, None, "scaled", 1.5))
