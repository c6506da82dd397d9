"""Decoding and cache writing: kernels against PyTorch, operations against a forward pass, what is refused."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import fope_triton
from fope import FopeConfig, FourierPositionEmbedding, apply_fope
from fope_triton import backend, cache, cache_ops, decode, reference_cache

ON_GPU = torch.cuda.is_available()
DEVICE = "cuda" if ON_GPU else "cpu"
# On a GPU the same tests run compiled, by `make gpu`; elsewhere in Triton's interpreter.
pytestmark = [pytest.mark.gpu] if ON_GPU else []
LENGTH = 40  # positions a sequence can have
BLOCK = 8


def embedding(heads: int, head_dim: int) -> FourierPositionEmbedding:
    config = FopeConfig(head_dim=head_dim, num_heads=heads, train_length=100)
    return FourierPositionEmbedding(config, generator=torch.Generator().manual_seed(1)).to(DEVICE)


def positions(emb: FourierPositionEmbedding, factored: bool) -> tuple[Tensor, Tensor]:
    """Tables or factors and coefficients."""
    if factored:
        return emb.factors(4096), emb.coef
    return emb.cos_sin(torch.arange(LENGTH, device=DEVICE))


def decoding(
    batch: int = 2,
    group: int = 3,
    heads: int = 2,
    head_dim: int = 32,
    dtype: torch.dtype = torch.float32,
    factored: bool = False,
    paged: bool = True,
    seed: int = 0,
    lens: list[int] | None = None,
) -> dict[str, Any]:
    """Arguments of `fope_decode`, with blocks in any order and other sequences' in between."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator).to(DEVICE, dtype)

    cos, sin = positions(embedding(heads, head_dim), factored)
    table = None
    if paged:
        blocks = batch * LENGTH // BLOCK + 3
        table = torch.randperm(blocks, generator=generator)[: blocks - 3].view(batch, -1).int().to(DEVICE)
        caches = [normal(blocks, BLOCK, heads, head_dim) for _ in "kv"]
    else:  # as Hugging Face lays it out
        caches = [normal(batch, heads, LENGTH, head_dim).transpose(1, 2) for _ in "kv"]
    if lens is None:
        lens = torch.randint(0, LENGTH + 1, (batch,), generator=generator).tolist()
    return {
        "q": normal(batch, heads * group, head_dim),
        "k_cache": caches[0],
        "v_cache": caches[1],
        "cos": cos,
        "sin": sin,
        "cache_lens": torch.tensor(lens, dtype=torch.int32, device=DEVICE),
        "block_table": table,
        "zero_sin": 1.0,
    }


def expected(arguments: dict[str, Any], rotated_cache: bool) -> Tensor:
    """What the definition gives in float64."""
    precise = {
        name: x.double() if isinstance(x, Tensor) and x.is_floating_point() else x
        for name, x in arguments.items()
    }
    scale = arguments["q"].shape[-1] ** -0.5
    return reference_cache.decode(**precise, scale=scale, rotated_cache=rotated_cache)


def run_kernels(arguments: dict[str, Any], rotated_cache: bool, splits: int | None = None) -> Tensor:
    scale = arguments["q"].shape[-1] ** -0.5
    return decode.launch(**arguments, scale=scale, rotated_cache=rotated_cache, splits=splits)


@settings(max_examples=12, deadline=None)
@given(
    batch=st.integers(1, 2),
    group=st.sampled_from([1, 3, 4, 17]),
    heads=st.integers(1, 2),
    factored=st.booleans(),
    paged=st.booleans(),
    rotated=st.booleans(),
    splits=st.integers(1, 3),
    seed=st.integers(0, 1000),
)
def test_decoding_is_attention_over_what_the_cache_holds(rotated: bool, splits: int, **shape: Any) -> None:
    arguments = decoding(**shape)
    got = run_kernels(arguments, rotated, splits)
    torch.testing.assert_close(got.double(), expected(arguments, rotated), atol=2e-6, rtol=1e-5)


@pytest.mark.parametrize("lens", [[0, 1], [LENGTH, 0], [BLOCK, BLOCK + 1]], ids=str)
@pytest.mark.parametrize("paged", [False, True])
def test_the_ends_of_a_cache(lens: list[int], paged: bool) -> None:
    arguments = decoding(lens=lens, paged=paged)
    got = run_kernels(arguments, False, splits=2)
    torch.testing.assert_close(got.double(), expected(arguments, False), atol=2e-6, rtol=1e-5)
    assert all(not got[i].any() for i, length in enumerate(lens) if length == 0)


def test_lengths_and_block_tables_may_lie_apart() -> None:
    arguments = decoding(lens=[LENGTH, 17])
    arguments["cache_lens"] = torch.stack([arguments["cache_lens"], torch.zeros(2).int().to(DEVICE)], 1)[:, 0]
    arguments["block_table"] = arguments["block_table"].T.contiguous().T
    assert not arguments["cache_lens"].is_contiguous()
    assert not arguments["block_table"].is_contiguous()
    got = run_kernels(arguments, False)
    torch.testing.assert_close(got.double(), expected(arguments, False), atol=2e-6, rtol=1e-5)


def test_half_precision() -> None:
    arguments = decoding(dtype=torch.float16, lens=[LENGTH, 17])
    got = run_kernels(arguments, False)
    torch.testing.assert_close(got.double(), expected(arguments, False), atol=3e-3, rtol=3e-3)


def test_decoding_gives_the_same_bits_again() -> None:
    arguments = decoding(lens=[LENGTH, 21])
    assert torch.equal(run_kernels(arguments, False, splits=3), run_kernels(arguments, False, splits=3))


@pytest.mark.parametrize("factored", [False, True], ids=["tables", "factors"])
@pytest.mark.parametrize("paged", [False, True], ids=["whole", "paged"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=["fp32", "fp16"])
def test_keys_are_rotated_and_written_where_they_belong(
    factored: bool, paged: bool, dtype: torch.dtype
) -> None:
    arguments = decoding(factored=factored, paged=paged, dtype=dtype)
    k_cache, v_cache = arguments["k_cache"], arguments["v_cache"]
    tokens, heads, head_dim = 19, *k_cache.shape[2:]
    generator = torch.Generator().manual_seed(3)
    k, v = (torch.randn(tokens, heads, head_dim, generator=generator).to(DEVICE, dtype) for _ in "kv")
    slots = torch.randperm(k_cache.shape[0] * k_cache.shape[1], generator=generator)[:tokens].to(DEVICE)
    slots[4] = -1
    at = torch.randint(0, LENGTH, (tokens,), generator=generator).to(DEVICE)
    wanted = [k_cache.clone(), v_cache.clone()]
    tables = (arguments["cos"], arguments["sin"])
    reference_cache.rotate_and_cache(k, v, *tables, at, *wanted, slots, 0.5)
    got = [k_cache, v_cache]
    before = [x.clone() for x in got]
    cache.launch(k, v, *tables, at, *got, slots, 0.5)
    torch.testing.assert_close(got[0], wanted[0], atol=1e-6 if dtype == torch.float32 else 2e-3, rtol=1e-3)
    assert torch.equal(got[1], wanted[1])
    touched = torch.zeros(k_cache.shape[:2], dtype=torch.bool, device=DEVICE)
    kept = slots[slots >= 0]
    touched[kept // k_cache.shape[1], kept % k_cache.shape[1]] = True
    assert all(torch.equal(new[~touched], old[~touched]) for new, old in zip(got, before, strict=True))


@pytest.mark.filterwarnings("ignore:fope-triton computes on cpu")
@pytest.mark.parametrize("rotated", [False, True])
@pytest.mark.parametrize("factored", [False, True])
def test_a_prompt_and_a_token_are_a_forward_pass(rotated: bool, factored: bool) -> None:
    """Write token after token, decode the last one: the last row of causal attention over all."""
    heads, group, head_dim, length = 2, 2, 64, 23
    emb = embedding(heads, head_dim)
    generator = torch.Generator().manual_seed(0)
    q, k, v = (
        torch.randn(1, n, length, head_dim, generator=generator).to(DEVICE)
        for n in (heads * group, heads, heads)
    )
    cos, sin = emb.cos_sin(torch.arange(length, device=DEVICE))
    turned_q = apply_fope(q, cos.repeat_interleave(group, 0), sin.repeat_interleave(group, 0), 1.0)
    turned_k = apply_fope(k, cos, sin, 1.0)
    full = F.scaled_dot_product_attention(turned_q, turned_k, v, is_causal=True, enable_gqa=True)[:, :, -1]

    tables = positions(emb, factored)
    k_cache, v_cache = torch.zeros(2, 4, BLOCK, heads, head_dim, device=DEVICE)
    table = torch.tensor([[2, 0, 3, 1, 1]], device=DEVICE)
    at = torch.arange(length, device=DEVICE)
    slots = table[0, at // BLOCK] * BLOCK + at % BLOCK
    new_k, new_v = k[0].transpose(0, 1), v[0].transpose(0, 1)
    if rotated:
        fope_triton.fope_rotate_and_cache(new_k, new_v, *tables, at, k_cache, v_cache, slots)
    else:
        k_cache.flatten(0, 1)[slots], v_cache.flatten(0, 1)[slots] = new_k, new_v
    lens = torch.tensor([length], device=DEVICE)
    got = fope_triton.fope_decode(
        q[:, :, -1], k_cache, v_cache, *tables, lens, rotated_cache=rotated, block_table=table
    )
    torch.testing.assert_close(got, full, atol=2e-6, rtol=1e-5)


@pytest.mark.filterwarnings("ignore:fope-triton computes on cpu")
def test_opcheck() -> None:
    arguments = decoding(lens=[5, 9])
    scale = 0.2
    names = ("q", "k_cache", "v_cache", "cos", "sin", "cache_lens", "block_table", "zero_sin")
    torch.library.opcheck(cache_ops.decode_op, (*(arguments[name] for name in names), scale, False))
    k = torch.randn(3, 2, 32, device=DEVICE)
    at = torch.tensor([0, 1, 2], device=DEVICE)
    caches = (arguments["k_cache"], arguments["v_cache"])
    torch.library.opcheck(
        cache_ops.rotate_and_cache_op,
        (k, k.clone(), arguments["cos"], arguments["sin"], at, *caches, at, 1.0),
    )


def test_torch_compile_takes_both_operations_whole() -> None:
    arguments = decoding(lens=[5, 9])
    k, v = torch.randn(2, 3, 2, 32, device=DEVICE)
    at = torch.tensor([4, 20, 33], device=DEVICE)

    def step(k_cache: Tensor, v_cache: Tensor, **rest: Any) -> Tensor:
        fope_triton.fope_rotate_and_cache(k, v, rest["cos"], rest["sin"], at, k_cache, v_cache, at)
        return fope_triton.fope_decode(k_cache=k_cache, v_cache=v_cache, **rest)

    caches = ("k_cache", "v_cache")
    others = arguments | {name: arguments[name].clone() for name in caches}
    compiled = torch.compile(step, fullgraph=True, backend="aot_eager")
    assert torch.equal(compiled(**arguments), step(**others))
    assert all(torch.equal(arguments[name], others[name]) for name in caches)


@pytest.mark.skipif(ON_GPU, reason="there is a GPU")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["not interpreted", "bfloat16"])
def test_without_a_gpu_pytorch_computes_and_says_so_once(
    monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype
) -> None:
    monkeypatch.delenv("TRITON_INTERPRET")
    backend.warn_once.cache_clear()
    arguments = decoding(lens=[9, 30], dtype=dtype)
    with pytest.warns(UserWarning, match="computes on cpu with PyTorch") as said:
        got = [fope_triton.fope_decode(**arguments) for _ in range(2)]
    assert len(said) == 1
    tolerance = 2e-6 if dtype == torch.float32 else 2e-2
    torch.testing.assert_close(got[0].double(), expected(arguments, False), atol=tolerance, rtol=tolerance)


@pytest.mark.gpu
@pytest.mark.parametrize("head_dim", [32, 64, 128, 256])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32], ids=str)
@pytest.mark.parametrize("factored", [False, True], ids=["tables", "factors"])
@pytest.mark.parametrize("rotated", [False, True], ids=["plain keys", "rotated keys"])
def test_every_shipped_tile_compiled(
    head_dim: int, dtype: torch.dtype, factored: bool, rotated: bool
) -> None:
    arguments = decoding(head_dim=head_dim, dtype=dtype, factored=factored, lens=[LENGTH, 33])
    got = run_kernels(arguments, rotated)
    tolerance = {torch.bfloat16: 3e-2, torch.float16: 4e-3, torch.float32: 1e-4}[dtype]
    torch.testing.assert_close(got.double(), expected(arguments, rotated), atol=tolerance, rtol=tolerance)
    assert torch.equal(got, run_kernels(arguments, rotated))


def test_the_number_of_splits() -> None:
    """Two waves of programs, four tiles each at least, 64 at most."""
    assert decode.split_count(programs=8, capacity=65536, block_n=64, processors=108) == 27
    assert decode.split_count(programs=256, capacity=65536, block_n=64, processors=108) == 1
    assert decode.split_count(programs=1, capacity=1024, block_n=64, processors=108) == 4
    assert decode.split_count(programs=1, capacity=10**6, block_n=64, processors=108) == 64


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"q": torch.zeros(2, 7, 32)}, "q has 7 heads, which 2 KV heads do not divide"),
        ({"q": torch.zeros(2, 6, 1, 32)}, r"expected q \[B, Hq, head_dim\], got shape \[2, 6, 1, 32\]"),
        ({"q": torch.zeros(2, 6, 32).half()}, "dtype or device differ"),
        ({"k_cache": torch.zeros(13, 8, 32)}, "expected k_cache"),
        ({"v_cache": torch.zeros(13, 8, 2, 64)}, "v_cache is"),
        ({"block_table": None}, "without a block_table the cache has a block a sequence; it has 13 blocks"),
        ({"block_table": torch.zeros(2, 5)}, "block_table is torch.float32; it must be int32 or int64"),
        ({"cache_lens": torch.tensor([3])}, r"cache_lens is \[1\] int64 on cpu; expected shape \[2\]"),
        ({"cache_lens": torch.tensor([3, 41])}, r"cache_lens has \[3, 41\]; each must be in 0 … 40"),
        (
            {"cos": torch.zeros(6, 40, 9), "sin": torch.zeros(6, 40, 9)},
            r"a table a KV head, got \[6, 40, 9\]",
        ),
        ({"cos": torch.zeros(2, 39, 9), "sin": torch.zeros(2, 39, 9)}, "the tables reach 39 positions"),
        (
            {"cos": torch.zeros(2, 40, 17), "sin": torch.zeros(2, 40, 17)},
            "tables have 17 pairs; head_dim 32 has 16",
        ),
        ({"cos": torch.zeros(2, 40, 9).half()}, "they must be float32"),
        ({"cos": torch.zeros(2, 8, 9, 2), "sin": torch.zeros(2, 2, 9, 9)}, r"emb.factors\(4096\)"),
        ({"cos": torch.zeros(2, 64, 9, 2), "sin": torch.zeros(2, 2, 8, 9)}, "expected factors"),
    ],
)
def test_what_does_not_fit_is_refused(change: dict[str, Any], message: str) -> None:
    arguments = {name: x.cpu() if isinstance(x, Tensor) else x for name, x in decoding(lens=[3, 4]).items()}
    with pytest.raises(ValueError, match=message):
        fope_triton.fope_decode(**(arguments | change))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"v": torch.zeros(3, 2, 64)}, "they must be alike"),
        ({"k": torch.zeros(3, 1, 32), "v": torch.zeros(3, 1, 32)}, "k has 1 heads, the cache has 2"),
        ({"slots": torch.tensor([0, 1, 104])}, "slots go up to 104; the cache has 104"),
        ({"positions": torch.tensor([0, 1, 40])}, "positions go from 0 to 40; the tables have 40 rows"),
        ({"positions": torch.tensor([0.0, 1, 2])}, "positions is torch.float32; it must be int32 or int64"),
        ({"k": torch.zeros(3, 2, 30), "v": torch.zeros(3, 2, 30)}, "head_dim is 30"),
    ],
)
def test_what_cannot_be_written_is_refused(change: dict[str, Any], message: str) -> None:
    whole = {name: x.cpu() if isinstance(x, Tensor) else x for name, x in decoding(lens=[3, 4]).items()}
    arguments = {name: whole[name] for name in ("k_cache", "v_cache", "cos", "sin")}
    arguments |= {"k": torch.zeros(3, 2, 32), "v": torch.zeros(3, 2, 32)}
    arguments |= {"positions": torch.arange(3), "slots": torch.arange(3)}
    if "k" in change and change["k"].shape[-1] == 30:
        change = change | {"k_cache": torch.zeros(13, 8, 2, 30), "v_cache": torch.zeros(13, 8, 2, 30)}
    with pytest.raises(ValueError, match=message):
        fope_triton.fope_rotate_and_cache(**(arguments | change))
