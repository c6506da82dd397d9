"""Attention, whole and packed: kernels against the float64 definition, forward and backward."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.autograd import forward_ad

from fope_triton import attention_ops, backend, fope_attention, fope_attention_varlen, reference, varlen

ON_GPU = torch.cuda.is_available()
DEVICE = "cuda" if ON_GPU else "cpu"
# On a GPU the same tests run compiled, by `make gpu`; elsewhere in Triton's interpreter.
pytestmark = [pytest.mark.gpu] if ON_GPU else []
# Of float32 kernels against float64: rounding of sums of some tens of terms of size 1.
FORWARD = {"atol": 3e-6, "rtol": 1e-5}
BACKWARD = {"atol": 1e-5, "rtol": 1e-4}


def normal(generator: torch.Generator, *shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(*shape, generator=generator).to(DEVICE, dtype)


def tables(generator: torch.Generator, *shape: int) -> tuple[Tensor, Tensor]:
    """Any cos and sin: the kernels must not need c² + s² = 1."""
    return normal(generator, *shape) * 0.6, normal(generator, *shape) * 0.6


def gradients(out: Tensor, inputs: list[Tensor], dout: Tensor) -> list[Tensor]:
    return [out, *torch.autograd.grad(out, inputs, dout, materialize_grads=True)]


def compare(
    attend: Any, define: Any, inputs: list[Tensor], rest: tuple[Any, ...], dout: Tensor, scaled: float = 1.0
) -> None:
    """Result and gradients of q, k, v. The definition is computed in float64."""
    leaves = [x.detach().requires_grad_() for x in inputs]
    got = gradients(attend(*leaves, *rest), leaves, dout)
    precise = [x.detach().double().requires_grad_() for x in inputs]
    rest = tuple(x.double() if isinstance(x, Tensor) and x.is_floating_point() else x for x in rest)
    wanted = gradients(define(*precise, *rest), precise, dout.double())
    for one, other, near in zip(got, wanted, [FORWARD] + 3 * [BACKWARD], strict=True):
        near = {name: scaled * size for name, size in near.items()}
        torch.testing.assert_close(one.double(), other, **near)


def whole(
    batch: int = 1,
    heads: int = 1,
    group: int = 1,
    length: int = 17,
    head_dim: int = 32,
    pairs: int = 9,
    earlier: int = 0,
    per_batch: bool = False,
    dtype: torch.dtype = torch.float32,
    seed: int = 0,
) -> tuple[list[Tensor], tuple[Tensor, Tensor], Tensor]:
    """q, k, v; tables; dout. The tables' memory is [T, H, R], q's is [B, T, Hq, D], as models have them."""
    generator = torch.Generator().manual_seed(seed)
    keys = length + earlier
    q = normal(generator, batch, length, heads * group, head_dim, dtype=dtype).transpose(1, 2)
    k, v = (normal(generator, batch, heads, keys, head_dim, dtype=dtype) for _ in "kv")
    shape = (batch,) if per_batch else ()
    cos, sin = (x.transpose(-2, -3) for x in tables(generator, *shape, keys, heads, pairs))
    return [q, k, v], (cos, sin), normal(generator, *q.shape, dtype=dtype)


@settings(max_examples=6, deadline=None)
@given(
    batch=st.integers(1, 2),
    heads=st.integers(1, 2),
    group=st.sampled_from([1, 3]),
    length=st.sampled_from([0, 1, 2, 15, 17, 20]),
    pairs=st.sampled_from([1, 9, 16]),
    earlier=st.sampled_from([0, 5]),
    per_batch=st.booleans(),
    causal=st.booleans(),
    zero_sin=st.sampled_from([0.0, 1.0]),
    seed=st.integers(0, 1000),
)
def test_attention_is_its_definition(causal: bool, zero_sin: float, **shape: Any) -> None:
    inputs, (cos, sin), dout = whole(**shape)
    compare(fope_attention, reference.attention, inputs, (cos, sin, causal, zero_sin, 0.2), dout)


@pytest.mark.parametrize("head_dim", [64, 128, 256])
def test_head_dims(head_dim: int) -> None:
    inputs, (cos, sin), dout = whole(length=18, head_dim=head_dim, pairs=head_dim // 4 + 1)
    rest = (cos, sin, True, 1.0, head_dim**-0.5)
    compare(fope_attention, reference.attention, inputs, rest, dout, scaled=3.0)


def test_half_precision() -> None:
    inputs, (cos, sin), dout = whole(group=2, length=20, dtype=torch.float16)
    compare(fope_attention, reference.attention, inputs, (cos, sin, True, 1.0, 0.2), dout, scaled=1000.0)


def test_the_scale_is_that_of_the_head_dim() -> None:
    inputs, (cos, sin), _ = whole()
    assert torch.equal(
        fope_attention(*inputs, cos, sin), fope_attention(*inputs, cos, sin, True, 1.0, 32**-0.5)
    )


def packed(lens: list[int], heads: int = 2, group: int = 2, seed: int = 0) -> tuple[Any, ...]:
    generator = torch.Generator().manual_seed(seed)
    tokens = sum(lens)
    q, dout = (normal(generator, tokens, heads * group, 32) for _ in range(2))
    k, v = (normal(generator, tokens, heads, 32) for _ in "kv")
    cos, sin = tables(generator, heads, max([1, *lens]), 9)
    starts = torch.tensor([0, *itertools.accumulate(lens)], dtype=torch.int32, device=DEVICE)
    return [q, k, v], (cos, sin, starts), dout


@pytest.mark.slow
@settings(max_examples=5, deadline=None)
@given(
    lens=st.lists(st.sampled_from([0, 1, 5, 16, 17, 20]), min_size=1, max_size=4),
    causal=st.booleans(),
    zero_sin=st.sampled_from([0.0, 1.0]),
    seed=st.integers(0, 1000),
)
def test_packed_sequences_do_not_see_each_other(
    lens: list[int], causal: bool, zero_sin: float, seed: int
) -> None:
    inputs, rest, dout = packed(lens, seed=seed)

    def attend(*arguments: Any) -> Tensor:
        return fope_attention_varlen(*arguments, causal=causal, zero_sin=zero_sin)

    def define(*arguments: Any) -> Tensor:
        return reference.attention_varlen(*arguments, causal, zero_sin, 32**-0.5)

    compare(attend, define, inputs, rest, dout)


def test_where_sequences_begin_may_lie_apart() -> None:
    inputs, (cos, sin, starts), dout = packed([4, 0, 6])
    apart = torch.stack([starts, starts + 99], dim=1)[:, 0]
    assert not apart.is_contiguous()

    def attend(*arguments: Any) -> Tensor:
        return fope_attention_varlen(*arguments, scale=0.2)

    def define(*arguments: Any) -> Tensor:
        return reference.attention_varlen(*arguments, True, 1.0, 0.2)

    compare(attend, define, inputs, (cos, sin, apart), dout)


def test_one_packed_sequence_is_a_whole_one() -> None:
    (q, k, v), (cos, sin, starts), _ = packed([21])
    alone = fope_attention(*(x.transpose(0, 1)[None] for x in (q, k, v)), cos, sin)
    together = fope_attention_varlen(q, k, v, cos, sin, starts)
    assert torch.equal(together, alone[0].transpose(0, 1))


def test_the_same_bits_again() -> None:
    inputs, rest, dout = packed([7, 18])
    runs = []
    for _ in range(2):
        leaves = [x.clone().requires_grad_() for x in inputs]
        runs.append(gradients(fope_attention_varlen(*leaves, *rest), leaves, dout))
    assert all(torch.equal(one, other) for one, other in zip(*runs, strict=True))


@settings(max_examples=50, deadline=None)
@given(lens=st.lists(st.integers(0, 40), min_size=1, max_size=6), size=st.sampled_from([16, 32]))
def test_every_token_has_one_block_and_its_position(lens: list[int], size: int) -> None:
    starts = torch.tensor([0, *itertools.accumulate(lens)], dtype=torch.int32)
    tokens = sum(lens)
    blocks = varlen.sequence_blocks(starts, tokens, size).tolist()
    wanted = [(i, block) for i, length in enumerate(lens) for block in range(-(-length // size))]
    assert [(i, block) for i, block in blocks if block * size < lens[i]] == wanted
    positions = [position for length in lens for position in range(length)]
    assert varlen.packed_positions(starts, tokens).tolist() == positions


def test_tables_that_learn_get_gradients() -> None:
    """dc and ds are summed over the batch, the query heads and the key head of each KV head."""
    inputs, (cos, sin), dout = whole(batch=2, heads=2, group=2, length=18)
    got = [x.detach().contiguous().requires_grad_() for x in (cos, sin)]
    fope_attention(*inputs, *got, True, 1.0, 0.2).backward(dout)
    wanted = [x.detach().double().requires_grad_() for x in (cos, sin)]
    reference.attention(*(x.double() for x in inputs), *wanted, True, 1.0, 0.2).backward(dout.double())
    for one, other in zip(got, wanted, strict=True):
        torch.testing.assert_close(one.grad.double(), other.grad, atol=2e-5, rtol=1e-4)


def test_keys_may_be_more_than_queries() -> None:
    """The last queries of a sequence get what they get in the whole sequence."""
    inputs, (cos, sin), _ = whole(length=21)
    q, k, v = inputs
    late = fope_attention(q[:, :, 16:], k, v, cos, sin)
    torch.testing.assert_close(late, fope_attention(q, k, v, cos, sin)[:, :, 16:], **FORWARD)


def test_opcheck() -> None:
    (q, k, v), (cos, sin), _ = whole(length=5)
    leaves = [x.detach().clone().requires_grad_() for x in (q, k, v)]
    rest = (cos, sin, None, True, 1.0, 0.2)
    torch.library.opcheck(attention_ops.attention_with_grad_op, (*leaves, *rest))
    torch.library.opcheck(attention_ops.attention_op, (q, k, v, *rest))
    out, lse, *turned = attention_ops.attention_with_grad_op(q, k, v, *rest)
    torch.library.opcheck(attention_ops.attention_backward_op, (out, *turned, v, out, lse, *rest))


def test_it_compiles_whole() -> None:
    inputs, (cos, sin), _ = whole(length=5)
    inputs[0] = inputs[0].detach().clone().requires_grad_()
    compiled = torch.compile(fope_attention, fullgraph=True, backend="aot_eager")
    assert torch.equal(compiled(*inputs, cos, sin), fope_attention(*inputs, cos, sin))


@pytest.mark.filterwarnings("ignore:Input #")
def test_gradcheck() -> None:
    """In float32, so with steps that are large and tolerances that are wide."""
    inputs, (cos, sin), _ = whole(length=3)
    leaves = [0.5 * x.detach() for x in (*inputs, cos, sin)]
    torch.autograd.gradcheck(
        fope_attention, [x.requires_grad_() for x in leaves], eps=1e-2, atol=2e-2, rtol=2e-2, fast_mode=True
    )


@pytest.mark.parametrize("place", range(6), ids=["q", "k", "v", "cos", "sin", "the gradient"])
@pytest.mark.parametrize("is_packed", [False, True], ids=["whole", "packed"])
def test_forward_mode_is_refused_and_not_zero(is_packed: bool, place: int) -> None:
    inputs, rest, dout = packed([4, 3]) if is_packed else whole(length=5)
    attend = fope_attention_varlen if is_packed else fope_attention
    given = [x.detach() for x in (*inputs, *rest[:2], dout)]
    with forward_ad.dual_level():
        given[place] = forward_ad.make_dual(given[place], torch.ones_like(given[place]))
        q = given[0].requires_grad_()
        with pytest.raises(ValueError, match=r"no forward-mode derivative .* in reverse"):
            torch.autograd.grad(attend(*given[:5], *rest[2:]), q, given[5])


@pytest.mark.skipif(ON_GPU, reason="there is a GPU")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["not interpreted", "bfloat16"])
def test_without_a_gpu_pytorch_computes_and_says_so_once(
    monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype
) -> None:
    monkeypatch.delenv("TRITON_INTERPRET")
    backend.warn_once.cache_clear()
    inputs, (cos, sin), dout = whole(length=9, group=2, dtype=dtype)
    scaled = 1.0 if dtype == torch.float32 else 5000.0
    with pytest.warns(UserWarning, match="computes on cpu with PyTorch") as said:
        compare(fope_attention, reference.attention, inputs, (cos, sin, True, 1.0, 0.2), dout, scaled)
    assert len(said) == 1
    rest = packed([4, 0, 3])
    compare(
        lambda *x: fope_attention_varlen(*x, scale=0.2),
        lambda *x: reference.attention_varlen(*x, True, 1.0, 0.2),
        *rest,
    )


@pytest.mark.gpu
@pytest.mark.parametrize("head_dim", [32, 64, 128, 256])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32], ids=str)
@pytest.mark.parametrize("causal", [False, True], ids=["full", "causal"])
def test_every_shipped_tile_compiled(head_dim: int, dtype: torch.dtype, causal: bool) -> None:
    scaled = {torch.bfloat16: 10_000.0, torch.float16: 1000.0, torch.float32: 5.0}[dtype]
    inputs, (cos, sin), dout = whole(2, 2, 3, 300, head_dim, head_dim // 4 + 1, dtype=dtype)
    rest = (cos, sin, causal, 1.0, head_dim**-0.5)
    compare(fope_attention, reference.attention, inputs, rest, dout, scaled)


def test_inference_without_pairs_launches_no_rotation(monkeypatch: pytest.MonkeyPatch) -> None:
    inputs, (cos, sin), _ = whole(heads=2, group=2, length=6, earlier=3)
    empty = (cos[..., :0], sin[..., :0])
    launched: list[Tensor] = []
    launch = attention_ops.rotate.launch
    monkeypatch.setattr(
        attention_ops.rotate,
        "launch",
        lambda x, *rest, **named: (launched.append(x), launch(x, *rest, **named)),
    )
    wanted = reference.attention(*(x.double() for x in inputs), *empty, True, 0.0, 0.2)
    torch.testing.assert_close(
        fope_attention(*inputs, *empty, zero_sin=0.0, scale=0.2).double(), wanted, **FORWARD
    )
    assert not launched
    fope_attention(*inputs, *empty, zero_sin=1.0, scale=0.2)  # ζ turns all pairs, tables or not
    assert len(launched) == 1


WRONG = [
    ({"q": torch.zeros(2, 7, 5, 32)}, "q has 7 heads, which 2 KV heads do not divide"),
    ({"q": torch.zeros(4, 5, 32)}, r"expected q \[B, Hq, T, head_dim\]"),
    ({"q": torch.zeros(2, 4, 6, 32)}, "T at most S"),
    ({"q": torch.zeros(2, 4, 5, 32).half()}, "dtype or device differ"),
    ({"v": torch.zeros(2, 2, 6, 32)}, "they must be alike"),
    ({"cos": torch.zeros(2, 4, 9), "sin": torch.zeros(2, 4, 9)}, "the tables have 4 rows, for 5 keys"),
    ({"cos": torch.zeros(4, 5, 9), "sin": torch.zeros(4, 5, 9)}, "a table a KV head"),
    ({"cos": torch.zeros(3, 2, 5, 9), "sin": torch.zeros(3, 2, 5, 9)}, r"or \[2, 2, S, R\]"),
    ({"cos": torch.zeros(2, 5, 9).half()}, "they must be float32"),
    ({"cos": torch.zeros(2, 5, 17), "sin": torch.zeros(2, 5, 17)}, "the tables have 17 pairs"),
]


@pytest.mark.parametrize(("change", "message"), WRONG, ids=[message for _, message in WRONG])
def test_what_does_not_fit_is_refused(change: dict[str, Tensor], message: str) -> None:
    arguments = {"q": torch.zeros(2, 4, 5, 32), "k": torch.zeros(2, 2, 5, 32), "v": torch.zeros(2, 2, 5, 32)}
    arguments |= {"cos": torch.zeros(2, 5, 9), "sin": torch.zeros(2, 5, 9)}
    with pytest.raises(ValueError, match=message):
        fope_attention(**(arguments | change))


@pytest.mark.parametrize(
    ("starts", "message"),
    [
        ([0.0, 5.0], "cu_seqlens is torch.float32; it must be int32 or int64"),
        ([[0, 5]], "expected"),
        ([0], "at least 2"),
        ([0, 4], "it must rise from 0 to 5"),
        ([0, 4, 3, 5], "it must rise from 0 to 5"),
        ([0, 5], "the longest sequence has 5 tokens, the tables have 4 rows"),
    ],
)
def test_sequences_that_do_not_fit_are_refused(starts: list[Any], message: str) -> None:
    q, k = torch.zeros(5, 4, 32), torch.zeros(5, 2, 32)
    cos, sin = torch.zeros(2, 2, 4, 9)
    with pytest.raises(ValueError, match=message):
        fope_attention_varlen(q, k, k, cos, sin, torch.tensor(starts))
