"""The same bits again, for any number of threads and any view of the numbers; what holds for any input."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from memoryformer_cpu import memory_lookup, raw

pytestmark = pytest.mark.usefixtures("instruction_set")

quick = settings(deadline=None, max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture
def threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def everything(z: Tensor, tables: Tensor, g: Tensor) -> list[Tensor]:
    y, codes, weights = raw.forward(z, tables)
    return [y, codes, weights, *(x for x in raw.backward(g, z, tables, codes, weights) if x is not None)]


@pytest.mark.usefixtures("threads")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shape", [(1, 64, 8, 770), (3, 33, 7, 1999), (700, 40, 6, 257), (3000, 8, 8, 600)])
def test_threads_and_repeats_change_no_bit(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    """Few tokens are split by columns, many by tokens; the last has enough of both for blocks of columns."""
    n, k, tau, h = shape
    z, tables, g = torch.randn(n, k, tau), torch.randn(k, 2**tau, h).to(dtype), torch.randn(n, h)
    torch.set_num_threads(1)
    expected = everything(z, tables, g)
    for count in (2, 1, 3, 2):
        torch.set_num_threads(count)
        for a, b in zip(everything(z, tables, g), expected, strict=True):
            assert torch.equal(a, b)


@pytest.mark.usefixtures("threads")
@pytest.mark.parametrize("n", [1, 200])
def test_threads_change_no_bit_with_int8_tables(n: int) -> None:
    z, q = torch.randn(n, 96, 8), torch.randint(-127, 128, (96, 256, 2050), dtype=torch.int8)
    scales = torch.rand(96, 256)
    torch.set_num_threads(1)
    expected = raw.output(z, q, None, scales)
    torch.set_num_threads(2)
    assert torch.equal(raw.output(z, q, None, scales), expected)


def test_a_token_has_the_same_bits_alone_and_in_a_batch() -> None:
    z, tables = torch.randn(50, 12, 8), torch.randn(12, 256, 100)
    y = raw.output(z, tables)
    assert torch.equal(torch.cat([raw.output(x[None], tables) for x in z]), y)


def test_tokens_that_share_a_row_are_summed_into_it() -> None:
    z = torch.ones(5, 1, 2)
    _, codes, weights = raw.forward(z, torch.zeros(1, 4, 3))
    g = torch.arange(15.0).view(5, 3)
    _, grad, _ = raw.backward(g, z, torch.zeros(1, 4, 3), codes, weights)
    assert grad is not None
    torch.testing.assert_close(grad[0, 3], weights[0, 0] * g.sum(0))
    assert torch.equal(grad[0, :3], torch.zeros(3, 3))


@pytest.mark.parametrize("needs", [(True, False, False), (False, True, False), (False, False, True)])
def test_each_gradient_is_the_same_alone(needs: tuple[bool, bool, bool]) -> None:
    """Frozen tables with an input that learns, and the other way round."""
    z, tables, g = torch.randn(30, 5, 4), torch.randn(5, 16, 70), torch.randn(30, 70)
    _, codes, weights = raw.forward(z, tables)
    every = raw.backward(g, z, tables, codes, weights)
    some = raw.backward(g, z, tables, codes, weights, needs=needs)
    for needed, a, b in zip(needs, some, every, strict=True):
        assert (a is not None) == needed
        assert a is None or (b is not None and torch.equal(a, b))


def test_views_with_strides_give_the_same_bits() -> None:
    wide = torch.randn(7, 32, 128)
    tables, z = wide[1:6, ::2, 20:90], torch.randn(4, 5, 9).transpose(0, 2)[:, :, :]
    assert not tables.is_contiguous()
    assert not z.is_contiguous()
    copies = z.contiguous(), tables.contiguous()
    assert torch.equal(raw.output(z, tables), raw.output(*copies))
    across = torch.randn(5, 70, 16).transpose(1, 2)  # the numbers of a row are not side by side
    g = torch.randn(9, 70)
    for a, b in zip(everything(z, across, g), everything(copies[0], across.contiguous(), g), strict=True):
        assert torch.equal(a, b)
    for a, b in zip(everything(z, tables, g), everything(*copies, g), strict=True):
        assert torch.equal(a, b)


def test_leading_dimensions_are_kept() -> None:
    z, tables = torch.randn(2, 3, 4, 5, 3), torch.randn(5, 8, 6)
    y = memory_lookup(z, tables)
    assert y.shape == (2, 3, 4, 6)
    assert torch.equal(y[1, 2, 3], memory_lookup(z[1, 2, 3], tables))
    assert memory_lookup(z[:0], tables).shape == (0, 3, 4, 6)


@quick
@given(tau=st.integers(1, 16), factor=st.floats(1e-3, 1e3), chunks=st.integers(1, 9))
def test_a_positive_factor_changes_no_code(tau: int, factor: float, chunks: int) -> None:
    z, tables = torch.randn(5, chunks, tau), torch.zeros(chunks, 2**tau, 1)
    assert torch.equal(raw.forward(z, tables)[1], raw.forward(z * factor, tables)[1])


@quick
@given(tau=st.integers(1, 16), data=st.data(), score=st.sampled_from(["scaled", "softmax"]))
def test_a_changed_sign_moves_the_code_by_its_bit_and_keeps_the_weight(
    tau: int, data: st.DataObject, score: str
) -> None:
    i = data.draw(st.integers(0, tau - 1))
    z, tables = torch.randn(3, 2, tau), torch.zeros(2, 2**tau, 1)
    z[z == 0] = 1
    turned = z.clone()
    turned[:, :, i] *= -1
    _, before, w = raw.forward(z, tables, score=score)
    _, after, w_too = raw.forward(turned, tables, score=score)
    assert torch.equal(after - before, torch.where(z[:, :, i] < 0, 1, -1) * 2 ** (tau - 1 - i))
    assert torch.equal(w, w_too)


@quick
@given(chunks=st.integers(1, 20), tau=st.integers(1, 8), h=st.integers(1, 70))
def test_the_output_is_linear_in_tables_bounded_and_blind_to_the_order_of_chunks(
    chunks: int, tau: int, h: int
) -> None:
    z, a, b = torch.randn(4, chunks, tau), torch.randn(chunks, 2**tau, h), torch.randn(chunks, 2**tau, h)
    close = {"rtol": 1e-4, "atol": 1e-4}
    torch.testing.assert_close(raw.output(z, 2 * a + b), 2 * raw.output(z, a) + raw.output(z, b), **close)
    order = torch.randperm(chunks)
    torch.testing.assert_close(raw.output(z[:, order], a[order]), raw.output(z, a), **close)
    bound = a.norm(dim=-1).amax(1).sum()
    assert (raw.output(z, a, score="softmax").norm(dim=-1) <= bound * 1.00001).all()


def test_offsets_go_beyond_31_bits() -> None:
    """K·2**tau·h is 2**31 at d = h = 4096 with tau 10. Here the second table begins that far behind."""
    storage = torch.zeros(2**31 + 64, dtype=torch.int8)  # pages that are only read take no memory
    storage[2**31 :] = 3
    tables = storage.as_strided((2, 2, 64), (2**31 - 64, 64, 1))
    z = torch.tensor([[[-1.0], [1.0]]])
    y = raw.output(z, tables, None, torch.ones(2, 1), "softmax")
    p = 1 / (1 + torch.exp(torch.tensor(-2.0)))
    torch.testing.assert_close(y, (3 * p).expand(1, 64))
