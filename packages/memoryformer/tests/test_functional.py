from __future__ import annotations

import itertools
import math
import re
from collections.abc import Iterator

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from memoryformer import MemoryFormerError, backends
from memoryformer import functional as MF

CPU_BACKENDS = ["torch"] + (["cpu"] if backends.name_for("cpu") == "cpu" else [])
SCORES = ["scaled", "softmax"]


@pytest.fixture(params=CPU_BACKENDS)
def backend(request: pytest.FixtureRequest) -> Iterator[str]:
    with backends.use(request.param):
        yield request.param


def randn(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def problem(
    tokens: int, chunks: int, tau: int, width: int, dtype: torch.dtype = torch.float64
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """z, tables, bias, and a gradient of y."""
    shapes = ((tokens, chunks, tau), (chunks, 2**tau, width), (width,), (tokens, width))
    z, tables, bias, g = (randn(*shape, seed=seed, dtype=dtype) for seed, shape in enumerate(shapes))
    return z.requires_grad_(), tables.requires_grad_(), bias.requires_grad_(), g


def by_loop(
    z: Tensor, tables: Tensor, bias: Tensor, g: Tensor, score: str, t: float
) -> tuple[list[list[float]], Tensor, Tensor]:
    """y, ∂z and ∂tables, number by number, straight from sections 2.1 and 2.2."""
    y = bias.detach().double().repeat(len(z), 1)
    grad_z = torch.zeros_like(z, dtype=torch.float64)
    grad_tables = torch.zeros_like(tables, dtype=torch.float64)
    for n, k in itertools.product(range(z.shape[0]), range(z.shape[1])):
        chunk = [float(number) for number in z[n, k].detach()]
        code = int("".join("1" if number >= 0 else "0" for number in chunk), 2)
        p = 1 / math.prod(1 + math.exp(-2 * abs(number) / t) for number in chunk)
        size = sum(abs(number) for number in chunk) / t
        w = p * size if score == "scaled" else p
        row = tables[k, code].detach().double()
        y[n] += w * row
        grad_tables[k, code] += w * g[n]
        q = float(g[n].double() @ row)
        for i, number in enumerate(chunk):
            falling = 2 / (1 + math.exp(2 * abs(number) / t))
            slope = p / t * ((1 + size * falling) if score == "scaled" else falling)
            grad_z[n, k, i] = q * slope * math.copysign(1, number)
    return y, grad_z, grad_tables


@pytest.mark.parametrize("score", SCORES)
@pytest.mark.parametrize(
    ("tokens", "chunks", "tau", "width"), [(1, 1, 1, 1), (7, 3, 5, 9), (33, 5, 3, 17), (40, 2, 8, 64)]
)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 2e-5)])
def test_forward_and_backward_are_the_obvious_loop(
    backend: str,
    score: str,
    tokens: int,
    chunks: int,
    tau: int,
    width: int,
    dtype: torch.dtype,
    tolerance: float,
) -> None:
    z, tables, bias, g = problem(tokens, chunks, tau, width, dtype)
    y = MF.memory_lookup(z, tables, bias, score=score, temperature=0.7)
    y.backward(g)
    expected = by_loop(z, tables, bias, g, score, 0.7)
    for ours, theirs in zip((y, z.grad, tables.grad), expected, strict=True):
        scale = float(theirs.abs().max())
        torch.testing.assert_close(ours.double(), theirs, rtol=tolerance, atol=tolerance * scale)
    torch.testing.assert_close(bias.grad, g.sum(0), rtol=tolerance, atol=tolerance * tokens)


@pytest.mark.parametrize("score", SCORES)
def test_embedding_bag_of_the_same_codes_and_weights_agrees_with_all_gradients(
    backend: str, score: str
) -> None:
    z, tables, _, g = problem(50, 6, 4, 10)
    rows = MF.hash_codes(z) + 16 * torch.arange(6)
    bag = F.embedding_bag(
        rows, tables.flatten(0, 1), mode="sum", per_sample_weights=MF.hash_weights(z, score=score)
    )
    y = MF.memory_lookup(z, tables, score=score)
    torch.testing.assert_close(y, bag, rtol=1e-12, atol=1e-12)
    for ours, theirs in zip(
        torch.autograd.grad(y, (z, tables), g), torch.autograd.grad(bag, (z, tables), g), strict=True
    ):
        torch.testing.assert_close(ours, theirs, rtol=1e-11, atol=1e-11)


def test_the_authors_formulation_agrees(backend: str) -> None:
    # Their compute_code_score_torch and my_torch_gather, said again: codes by powers of two, the score
    # exp(Σ|z|) / Π(exp(z) + exp(-z)) · Σ|z|, and rows of one long table [K·2^tau, out].
    x, tau = randn(20, 24), 6
    tables = randn(4 * 64, 11, seed=1)
    z = x.view(20, 4, tau)
    code = ((z >= 0).double() * 2.0 ** torch.arange(tau - 1, -1, -1)).sum(-1).long()
    size = z.abs().sum(-1)
    score = torch.exp(size) / (torch.exp(z) + torch.exp(-z)).prod(-1) * size
    gathered = tables[(code + 64 * torch.arange(4)).view(-1)].view(20, 4, 11)
    expected = (gathered * score[..., None]).sum(1)
    torch.testing.assert_close(MF.memory_lookup(z, tables.view(4, 64, 11)), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("tau", range(1, 11))
@pytest.mark.parametrize("temperature", [0.5, 1.0, 4.0])
def test_p_is_the_softmax_over_all_sign_patterns(tau: int, temperature: float) -> None:
    z = randn(3, tau)
    signs = torch.tensor(list(itertools.product([-1.0, 1.0], repeat=tau)), dtype=torch.float64)
    brute = torch.softmax(z @ signs.T / temperature, dim=1)  # Eq. 9
    codes = MF.hash_codes(z)
    p = MF.hash_weights(z, score="softmax", temperature=temperature)
    torch.testing.assert_close(brute.gather(1, codes[:, None])[:, 0], p, rtol=1e-12, atol=1e-12)
    assert torch.equal(brute.argmax(1), codes)
    scaled = MF.hash_weights(z, score="scaled", temperature=temperature)
    torch.testing.assert_close(scaled, p * z.abs().sum(-1) / temperature, rtol=1e-14, atol=0)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("tau", [8, 10, 12, 16])
def test_codes_are_exact_in_half_precision(backend: str, dtype: torch.dtype, tau: int) -> None:
    # Every row holds its own number, in two digits of base 256, and ±50 has the weight 1.
    codes = torch.randint(0, 2**tau, (500,), generator=torch.Generator().manual_seed(3))
    bits = (codes[:, None] >> torch.arange(tau - 1, -1, -1)) & 1
    z = (100 * bits - 50).to(dtype)
    assert torch.equal(MF.hash_codes(z), codes)
    rows = torch.arange(2**tau)
    tables = torch.stack((rows // 256, rows % 256), dim=1).float()[None]
    y = MF.memory_lookup(z[:, None], tables, score="softmax")
    assert torch.equal(y.long(), torch.stack((codes // 256, codes % 256), dim=1))


@pytest.mark.parametrize("table_dtype", [torch.bfloat16, torch.float16, torch.float32])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32, torch.float64])
def test_sums_are_in_single_precision_for_any_mixture(
    backend: str, table_dtype: torch.dtype, dtype: torch.dtype
) -> None:
    # 300 rows of about 1 + 1/128: summed in bfloat16 they would stick at 256.
    z = randn(4, 300, 2, dtype=dtype)
    tables = torch.full((300, 4, 3), 1 + 1 / 128, dtype=table_dtype)
    y = MF.memory_lookup(z, tables)
    exact = MF.hash_weights(z.double()).sum(1, keepdim=True).expand(4, 3) * (1 + 1 / 128)
    assert y.dtype == dtype
    torch.testing.assert_close(y.double(), exact, rtol=max(2e-6, torch.finfo(dtype).eps), atol=0)


def test_duplicates_add_up_and_rows_that_nobody_hit_get_exactly_zero(backend: str) -> None:
    z = randn(1, 2, 3).repeat(5, 1, 1)
    tables = randn(2, 8, 4, seed=1).requires_grad_()
    g = randn(5, 4, seed=2)
    MF.memory_lookup(z, tables).backward(g)
    codes, weights = MF.hash_codes(z[0]), MF.hash_weights(z[0])
    assert tables.grad is not None
    for k in range(2):
        torch.testing.assert_close(tables.grad[k, codes[k]], weights[k] * g.sum(0), rtol=1e-12, atol=1e-12)
        others = torch.arange(8) != codes[k]
        assert torch.count_nonzero(tables.grad[k, others]) == 0


def test_frozen_tables_with_a_trainable_input(backend: str) -> None:
    z, tables, bias, g = problem(9, 3, 4, 5)
    (expected,) = torch.autograd.grad(MF.memory_lookup(z, tables, bias), z, g)
    y = MF.memory_lookup(z, tables.detach(), bias.detach())
    y.backward(g)
    assert torch.equal(z.grad, expected)


@pytest.mark.parametrize("learning", ["tables", "bias"])
def test_each_gradient_alone_is_the_one_of_all_together(backend: str, learning: str) -> None:
    z, tables, bias, g = problem(9, 3, 4, 5)
    inputs = {"z": z, "tables": tables, "bias": bias}
    y = MF.memory_lookup(*inputs.values())
    (expected,) = torch.autograd.grad(y, inputs[learning], g)
    alone = {name: x if name == learning else x.detach() for name, x in inputs.items()}
    MF.memory_lookup(*alone.values()).backward(g)
    torch.testing.assert_close(inputs[learning].grad, expected, rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("shape", [(0, 3, 4), (2, 0, 3, 4), (3, 4), (2, 2, 2, 3, 4)])
def test_any_leading_shape_also_an_empty_one(backend: str, shape: tuple[int, ...]) -> None:
    tables = randn(3, 16, 5, seed=1).requires_grad_()
    z = randn(*shape).requires_grad_()
    y = MF.memory_lookup(z, tables)
    assert y.shape == (*shape[:-2], 5)
    y.sum().backward()
    assert z.grad is not None
    assert z.grad.shape == z.shape
    assert tables.grad is not None
    if z.numel() == 0:
        assert torch.count_nonzero(tables.grad) == 0


def test_strides_do_not_matter(backend: str) -> None:
    z = randn(4, 3, 6).transpose(0, 2)[::2]  # [3, 3, 4] of a larger tensor
    tables = randn(16, 10, 3, seed=1).permute(2, 0, 1)[:, :, ::2]
    expected = MF.memory_lookup(z.contiguous(), tables.contiguous())
    assert torch.equal(MF.memory_lookup(z, tables), expected)
    learning = tables.detach().requires_grad_()
    y = MF.memory_lookup(z, learning)
    y.sum().backward()  # a gradient of stride 0
    whole = tables.contiguous().detach().requires_grad_()
    MF.memory_lookup(z, whole).backward(torch.ones(3, 5, dtype=torch.float64))
    assert torch.equal(learning.grad, whole.grad)


@pytest.mark.parametrize("score", SCORES)
def test_nan_makes_its_own_token_nan_and_no_other(backend: str, score: str) -> None:
    z, tables, _, _ = problem(4, 3, 4, 5)
    with torch.no_grad():
        z[1, 2, 0] = math.nan
    y = MF.memory_lookup(z, tables, score=score)
    assert y[1].isnan().all()
    assert y[[0, 2, 3]].isfinite().all()
    y.sum().backward()
    assert z.grad is not None
    assert z.grad[[0, 2, 3]].isfinite().all()
    assert tables.grad is not None
    assert tables.grad[:2].isfinite().all()


def test_offsets_beyond_two_to_the_31(backend: str) -> None:
    # 513 · 1024 · 4096 > 2^31 int8 numbers; only the pages of the rows that are written take memory.
    tables = torch.empty(513, 1024, 4096, dtype=torch.int8)
    tables[:, 3] = 0
    tables[512, 3] = torch.arange(4096) % 100
    z = torch.full((1, 513, 10), -5.0)
    z[..., 8:] = 5.0
    y = MF.memory_lookup(z, tables, scales=torch.ones(513, 1), score="softmax")
    weight = MF.hash_weights(z, score="softmax")[0, 512]
    torch.testing.assert_close(y[0], weight * (torch.arange(4096) % 100), rtol=1e-6, atol=0)


@pytest.mark.parametrize("scale_shape", [(5, 16), (5, 1)])
def test_int8_rows_are_multiplied_by_their_scales(backend: str, scale_shape: tuple[int, int]) -> None:
    z, *_ = problem(9, 5, 4, 1, torch.float32)
    z = z.detach()
    tables = torch.randint(-127, 128, (5, 16, 12), dtype=torch.int8)
    scales = torch.rand(scale_shape) / 127
    expected = MF.memory_lookup(z, tables.float() * scales.expand(5, 16)[..., None])
    torch.testing.assert_close(MF.memory_lookup(z, tables, scales=scales), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", CPU_BACKENDS)
def test_repeated_backward_passes_and_any_number_of_threads_give_the_same_bits(name: str) -> None:
    z, tables, bias, g = problem(300, 5, 4, 33, torch.float32)
    before = torch.get_num_threads()
    results = []
    try:
        for threads in (1, 1, 2):
            torch.set_num_threads(threads)
            with backends.use(name):
                y = MF.memory_lookup(z, tables, bias)
                results.append((y, *torch.autograd.grad(y, (z, tables, bias), g)))
    finally:
        torch.set_num_threads(before)
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


numbers = st.floats(-10, 10, allow_nan=False, width=32).filter(lambda x: abs(x) > 1e-3)
chunks_of_five = st.lists(numbers, min_size=5, max_size=5)


@given(chunks_of_five, st.floats(1e-3, 1e3))
def test_a_positive_factor_keeps_the_code(chunk: list[float], factor: float) -> None:
    z = torch.tensor(chunk, dtype=torch.float64)
    assert MF.hash_codes(z) == MF.hash_codes(factor * z)


@given(chunks_of_five, st.integers(0, 4), st.sampled_from(SCORES))
def test_a_flipped_sign_moves_the_code_by_its_power_and_keeps_the_weight(
    chunk: list[float], i: int, score: str
) -> None:
    z = torch.tensor(chunk)
    flipped = z.clone()
    flipped[i] *= -1
    moved = int(MF.hash_codes(flipped) - MF.hash_codes(z))
    assert moved == (2 ** (4 - i) if z[i] < 0 else -(2 ** (4 - i)))
    assert MF.hash_weights(z, score=score) == MF.hash_weights(flipped, score=score)


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 2**31), st.sampled_from(SCORES), st.sampled_from(CPU_BACKENDS))
def test_order_of_chunks_linearity_in_the_tables_and_the_bound_of_softmax(
    seed: int, score: str, name: str
) -> None:
    z, tables, other = randn(6, 4, 3, seed=seed), randn(4, 8, 5, seed=seed + 1), randn(4, 8, 5, seed=seed + 2)
    order = torch.randperm(4, generator=torch.Generator().manual_seed(seed))
    with backends.use(name):
        y = MF.memory_lookup(z, tables, score=score)
        torch.testing.assert_close(MF.memory_lookup(z[:, order], tables[order], score=score), y)
        both = MF.memory_lookup(z, 2 * tables - other, score=score)
        torch.testing.assert_close(both, 2 * y - MF.memory_lookup(z, other, score=score))
    if score == "softmax":
        assert (y.abs() <= tables.abs().amax(1).sum(0) + 1e-12).all()


TABLES = torch.zeros(3, 16, 5)
WRONG = [
    ({"z": torch.zeros(2, 3, 5)}, "z is [2, 3, 5], tables are [3, 16, 5]; expected z [..., K, tau]"),
    ({"z": torch.zeros(2, 4, 4)}, "expected z [..., K, tau] and tables [K, 2^tau, h], here 2^4 = 16 rows"),
    ({"z": torch.zeros(4)}, "expected z [..., K, tau]"),
    ({"z": torch.zeros(2, 3, 0)}, "tau is 0; it must be an integer from 1 to 16"),
    ({"z": torch.zeros(2, 3, 4, dtype=torch.long)}, "the input is int64; a Memory Layer hashes the signs"),
    ({"tables": TABLES.to("meta")}, "the input is on cpu, tables on meta: move the layer or the input"),
    ({"bias": torch.zeros(4)}, "bias is [4]; these tables need [5]"),
    ({"score": "soft"}, "unknown score 'soft'; it must be 'scaled' or 'softmax'"),
    ({"temperature": 0.0}, "temperature is 0.0; it must be positive and finite"),
    ({"temperature": math.nan}, "temperature is nan"),
    ({"tables": TABLES.to(torch.int8)}, "tables are int8 and scales were not given"),
    ({"scales": torch.ones(3, 16)}, "tables are float32 and scales were given; int8 tables, and they alone"),
    (
        {"tables": TABLES.to(torch.int8), "scales": torch.ones(16)},
        "scales are float32 [16]; these tables need float32 [3, 16] or [3, 1]",
    ),
    (
        {"tables": TABLES.to(torch.int8), "scales": torch.ones(3, 1, dtype=torch.float16)},
        "scales are float16 [3, 1]; these tables need float32",
    ),
    ({"tables": TABLES.double()}, "tables are float64 and the input is float32"),
    ({"tables": TABLES.long()}, "tables are int64 and the input is float32; tables can be float32"),
]


@pytest.mark.parametrize(("changes", "message"), WRONG, ids=[message for _, message in WRONG])
def test_what_does_not_fit_is_named(changes: dict[str, object], message: str) -> None:
    arguments: dict[str, object] = {"z": torch.zeros(2, 3, 4), "tables": TABLES} | changes
    with pytest.raises(MemoryFormerError, match=re.escape(message)):
        MF.memory_lookup(**arguments)  # type: ignore[arg-type]


def test_tau_beyond_16_says_what_it_would_take() -> None:
    with pytest.raises(MemoryFormerError, match="tau is 24; it must be an integer from 1 to 16: tables of"):
        MF.hash_codes(torch.zeros(24))
