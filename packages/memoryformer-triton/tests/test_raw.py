"""The raw contract: both ways to the tables' gradient, split buckets, fixed order, large tables."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from memoryformer_triton import raw, reference, sorted_grad, token_grad
from memoryformer_triton.sorted_grad import bucket_sort

ON_GPU = torch.cuda.is_available()
DEVICE = "cuda" if ON_GPU else "cpu"
pytestmark = [pytest.mark.gpu] if ON_GPU else []


def passes(z: Tensor, tables: Tensor, g: Tensor, **options: Any) -> tuple[Tensor | None, ...]:
    """The gradients of one forward and backward pass."""
    _, codes, weights = raw.forward(z, tables, None, None, "scaled", 1.0)
    return raw.backward(g, z, tables, codes, weights, "scaled", 1.0, **options)


def skewed(tokens: int, chunks: int, tau: int, width: int) -> tuple[Tensor, Tensor, Tensor]:
    """z of which three in four tokens have the code 2^tau - 1, tables, and a gradient of y."""
    generator = torch.Generator().manual_seed(1)
    z = torch.randn(tokens, chunks, tau, generator=generator)
    z = torch.where(torch.rand(tokens, 1, 1, generator=generator) < 0.75, z.abs(), z)
    tables = torch.randn(chunks, 2**tau, width, generator=generator)
    return z.to(DEVICE), tables.to(DEVICE), torch.randn(tokens, width, generator=generator).to(DEVICE)


def by_autograd(z: Tensor, tables: Tensor, g: Tensor) -> tuple[Tensor, ...]:
    z, tables = (x.double().requires_grad_() for x in (z, tables))
    return torch.autograd.grad(
        reference.lookup(z, tables, None, None, "scaled", 1.0), (z, tables), g.double()
    )


def test_a_long_bucket_is_split_and_its_pieces_added() -> None:
    """300 tokens in 16 rows: a chunk has 128, and the last row's bucket some 230."""
    z, tables, g = skewed(300, 2, 4, 40)
    _, codes, _ = raw.forward(z, tables, None, None, "scaled", 1.0)
    buckets = bucket_sort(codes, 16)
    assert buckets.chunk == 128
    assert buckets.pieces is not None
    assert buckets.pieces[:, :15].tolist() == [[1] * 15] * 2
    assert buckets.pieces[:, 15].tolist() == [2, 2]
    dz, dtables, _ = passes(z, tables, g, deterministic=True)
    for got, wanted in zip((dz, dtables), by_autograd(z, tables, g), strict=True):
        torch.testing.assert_close(got.double(), wanted, atol=3e-6 * float(wanted.abs().max()), rtol=0)


@pytest.mark.parametrize(("tokens", "tau", "width"), [(300, 4, 40), (9, 2, 7)], ids=["split", "whole"])
def test_a_deterministic_pass_gives_the_same_bits(tokens: int, tau: int, width: int) -> None:
    case = skewed(tokens, 2, tau, width)
    first, second = (passes(*case, deterministic=True) for _ in range(2))
    for a, b in zip(first, second, strict=True):
        assert torch.equal(a, b)


@settings(max_examples=50, deadline=None)
@given(
    tokens=st.integers(0, 700),
    tau=st.integers(1, 5),
    skew=st.sampled_from([0.0, 0.5, 1.0]),
    seed=st.integers(0, 1000),
)
def test_pieces_hold_each_token_once_in_order(tokens: int, tau: int, skew: float, seed: int) -> None:
    """What a block of `table_grad` reads and where it writes, from the plan alone."""
    generator = torch.Generator().manual_seed(seed)
    rows = 2**tau
    codes = torch.randint(0, rows, (tokens, 2), generator=generator)
    codes[torch.rand(tokens, generator=generator) < skew] = rows // 2
    plan = bucket_sort(codes.to(DEVICE, torch.uint8), rows)
    split = plan.pieces is not None
    blocks = plan.rows.shape[1] if split else rows
    for table in range(2):
        seen: dict[int, list[int]] = {row: [] for row in range(rows)}
        slots = []
        for block in range(blocks):
            row = int(plan.rows[table, block]) if split else block
            if row == rows:
                continue
            begin, end = (int(plan.starts[table, row + i]) for i in (0, 1))
            if split:
                count = int(plan.pieces[table, row])
                piece = block - (int(plan.ends[table, row]) - count)
                begin += piece * plan.chunk
                end = min(begin + plan.chunk, end)
                slots += [int(plan.slots[table, row]) + piece] if count > 1 else []
            assert end - begin <= plan.chunk
            seen[row] += plan.order[table, begin:end].tolist()
        assert seen == {row: torch.nonzero(codes[:, table] == row).flatten().tolist() for row in range(rows)}
        assert slots == list(range(len(slots)))
        assert len(slots) <= plan.all_slots


@pytest.mark.parametrize("deterministic", [True, False])
def test_rows_that_nobody_hit_get_zero(deterministic: bool) -> None:
    """Tokens have the code 7 in both tables; whatever was in memory before, all other rows are 0."""
    z, tables, g = torch.rand(4, 2, 3) + 0.1, torch.randn(2, 8, 20), torch.randn(4, 20)
    _, dtables, _ = passes(*(x.to(DEVICE) for x in (z, tables, g)), deterministic=deterministic)
    assert (dtables[:, :7] == 0).all()
    assert (dtables[:, 7] != 0).any(-1).all()


@pytest.mark.parametrize("deterministic", [True, False])
def test_no_tokens_give_zeros(deterministic: bool) -> None:
    z, tables, g = torch.zeros(0, 2, 3), torch.randn(2, 8, 20), torch.zeros(0, 20)
    dz, dtables, dbias = passes(*(x.to(DEVICE) for x in (z, tables, g)), deterministic=deterministic)
    assert dz.shape == z.shape
    assert torch.equal(dtables.cpu(), torch.zeros(2, 8, 20))
    assert torch.equal(dbias.cpu(), torch.zeros(20))


@pytest.mark.parametrize("deterministic", [True, False])
def test_rows_wider_than_a_block(deterministic: bool) -> None:
    """Two blocks of columns; each makes a part of q, and they are added in order."""
    z, tables, g = skewed(3, 1, 1, 2050)
    dz, dtables, _ = passes(z, tables, g, deterministic=deterministic)
    wanted_z, wanted_tables = by_autograd(z, tables, g)
    torch.testing.assert_close(dz.double(), wanted_z, atol=1e-4, rtol=1e-5)
    torch.testing.assert_close(dtables.double(), wanted_tables, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("needs", [(True, False, False), (False, True, False), (False, False, True)])
@pytest.mark.parametrize("deterministic", [True, False])
def test_only_what_is_needed_is_returned(needs: tuple[bool, bool, bool], deterministic: bool) -> None:
    """And it is what all together give: frozen tables, or a frozen input, change nothing else."""
    case = skewed(5, 2, 2, 9)
    every = passes(*case, deterministic=deterministic)
    some = passes(*case, deterministic=deterministic, needs=needs)
    for needed, a, b in zip(needs, some, every, strict=True):
        assert (a is not None) == needed
        if a is not None and b is not None:
            torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("asked", "torch_says", "tokens", "way"),
    [
        (None, False, 4, "atomic"),
        (None, True, 4, "sorted"),
        (True, False, 4, "sorted"),
        (False, True, 4, "atomic"),
        (False, False, 5, "sorted"),
    ],
)
def test_when_rows_are_added_to_by_atomics(
    monkeypatch: pytest.MonkeyPatch, asked: bool | None, torch_says: bool, tokens: int, way: str
) -> None:
    """Where it need not be deterministic and there are no more tokens than rows, here 4."""
    taken = []
    for name, module in (("sorted", sorted_grad), ("atomic", token_grad)):
        launch = module.launch
        monkeypatch.setattr(module, "launch", lambda *a, n=name, f=launch: (taken.append(n), f(*a))[1])
    monkeypatch.setattr(torch, "are_deterministic_algorithms_enabled", lambda: torch_says)
    passes(*skewed(tokens, 1, 2, 5), deterministic=asked)
    assert taken == [way]


def test_tables_of_more_than_2_31_numbers() -> None:
    """513 tables of 2^16 rows of 64 bytes; only the rows that are hit are ever in memory."""
    chunks, tau, width = 513, 16, 64
    tables = torch.empty(chunks, 2**tau, width, dtype=torch.int8, device=DEVICE)
    assert tables.numel() > 2**31
    z = torch.ones(1, chunks, tau, device=DEVICE)
    values = torch.arange(chunks, device=DEVICE) % 101
    tables[:, -1] = values[:, None].to(torch.int8)
    y, codes, weights = raw.forward(z, tables, None, torch.ones(chunks, 1, device=DEVICE), "softmax", 1.0)
    assert (codes == 2**tau - 1).all()
    assert float(weights[0, 0]) == pytest.approx((1 + torch.e**-2) ** -16, rel=1e-5)
    torch.testing.assert_close(y[0], (weights[0] * values).sum().expand(width), rtol=1e-5, atol=0)


@pytest.mark.skipif(ON_GPU, reason="there is a GPU")
def test_without_a_gpu_it_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TRITON_INTERPRET")
    z, tables, g = skewed(2, 1, 2, 3)
    with pytest.raises(RuntimeError, match="run on GPUs, and the tensor is on cpu: move it, or call"):
        passes(z, tables, g)
